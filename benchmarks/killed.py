"""Is a suite that is killed again and again the suite that was left alone? ``python benchmarks/killed.py``.

``hybridalloc bench`` runs once to its end, and once killed by ``kill -9`` ``--kills`` times, each after a while that is
drawn, with all of its workers. Its table must be the same letter for letter, and so every value but measured times.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIMED = "step_ms"  # the one metric that a clock says


def suite(folder: Path, words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts it, in a session of its own, so that its workers die with it."""
    command = [sys.executable, "-m", "hybridalloc.cli", "bench", *words, "--out", str(folder)]
    return subprocess.Popen(command, stdout=log.open("ab"), stderr=subprocess.STDOUT, start_new_session=True)


def to_the_end(folder: Path, words: list[str], log: Path) -> None:
    if code := suite(folder, words, log).wait():
        raise SystemExit(f"the suite ended with {code}; see {log}")


def told(folder: Path) -> list[dict[str, str]]:
    """What it measured, without times."""
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["metric"] != TIMED]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seconds", type=float, nargs=2, default=(12.0, 52.0), help="between start and kill")
    parser.add_argument("--only", nargs="+", default=(), help="rows of the suite")
    parser.add_argument("--agent-steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    rng, home = random.Random(args.seed), Path(tempfile.mkdtemp(prefix="killed-"))
    words = ["--size", "small", "--agent-steps", str(args.agent_steps), "--report-seeds", "2", "--tuning", "2"]
    words += ["--workers", "1", "--tracking-uri", f"sqlite:///{home}/m.db"]
    words += ["--only", *args.only] if args.only else []
    whole, killed, log = home / "whole", home / "killed", home / "log.txt"
    to_the_end(whole, words, log)
    done = 0
    for _ in range(args.kills):
        process, wait = suite(killed, words, log), rng.uniform(*args.seconds)
        time.sleep(wait)
        if process.poll() is not None:
            print(f"it had ended within {wait:.0f} s, with {process.returncode}", flush=True)
            continue
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done += 1
        print(f"killed after {wait:.0f} s, {done} times", flush=True)
    to_the_end(killed, words, log)
    same = [(killed / "table.md").read_bytes() == (whole / "table.md").read_bytes(), told(killed) == told(whole)]
    print(f"killed {done} times: table {'the same' if same[0] else 'DIFFERS'}, "
          f"{len(told(whole)):,} values {'the same' if same[1] else 'DIFFER'}")  # fmt: skip
    raise SystemExit(not all(same))


if __name__ == "__main__":
    main()
