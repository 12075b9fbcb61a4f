"""Figures in the README and these pages, from runs that are stored in docs/runs/.

    python docs/figures/runs.py                                       # write every block anew from what is stored
    python docs/figures/runs.py store [--file PATH] NAME -- COMMAND   # run it, store what it prints (or writes to PATH)
    python docs/figures/runs.py again NAME ...                        # run what is stored under these names once more

A block of a page is what stands between ``<!-- run NAME -->`` and ``<!-- /run -->``: the tables of the run called
NAME, and the command that made them. ``<!-- run NAME 2 -->`` is its second table alone. Nothing in a block is written
by hand.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[2]
RUNS = HOUSE / "docs" / "runs"
PAGES = [HOUSE / "README.md", *sorted((HOUSE / "docs").rglob("*.md"))]
BLOCK = re.compile(r"<!-- run ([\w-]+)(?: (\d+))? -->\n(.*?)<!-- /run -->", re.S)
TABLE = re.compile(r"(?:^\|.*\n?)+", re.M)
NAME = re.compile(r"[\w-]+")
COMMAND = re.compile(r"hybridalloc |python (?:benchmarks|docs/figures)/\w+\.py(?: |$)")  # and nothing else is run


def load(name: str) -> dict[str, str]:
    """A stored run: its command, what it printed, the commit and the day.

    Raises:
        SystemExit: there is none of that name; those that are there are listed.
    """
    path = RUNS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RUNS.glob("*.json"))) or "none"
        raise SystemExit(f"no run {name!r} is stored in {RUNS}; there are: {known}")
    record: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return record


def block(name: str, number: str | None) -> str:
    """What stands in a page for a run: its tables, or the one of that number (from 1), and its command."""
    record = load(name)
    tables = [table.strip() for table in TABLE.findall(record["text"])]
    if number is not None:
        tables = tables[int(number) - 1 : int(number)]
    if not tables:
        raise SystemExit(f"run {name!r} has no table{'' if number is None else ' ' + number}")
    return "\n\n".join(tables) + f"\n\n`{record['command']}`, at commit {record['commit'][:12]}.\n"


def rewritten(text: str) -> str:
    """A page with every block as its run has it."""
    return BLOCK.sub(lambda found: _fresh(found), text)


def _fresh(found: re.Match[str]) -> str:
    name, number, _ = found.groups()
    start = f"<!-- run {name} -->" if number is None else f"<!-- run {name} {number} -->"
    return f"{start}\n{block(name, number)}<!-- /run -->"


def store(name: str, command: str, file: str | None) -> None:
    """Run a command from the house's folder and keep what it printed, or what it wrote to ``file``.

    Raises:
        SystemExit: it is none of ours, it failed, or the name or file is none that a record may have.
    """
    if not NAME.fullmatch(name) or not COMMAND.match(command):
        raise SystemExit(f"{name!r}: {command!r} is not run; hybridalloc ... or python benchmarks/... .py is required")
    if file is not None and not (HOUSE / file).resolve().is_relative_to(HOUSE):
        raise SystemExit(f"{name!r}: the file {file!r} is not in {HOUSE}")
    done = subprocess.run(shlex.split(command), cwd=HOUSE, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command} ended with status {done.returncode}; nothing is stored")
    text = done.stdout if file is None else (HOUSE / file).read_text(encoding="utf-8")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HOUSE, capture_output=True, text=True, check=True)
    record = {"command": command, "commit": commit.stdout.strip(), "day": datetime.date.today().isoformat()}
    record |= {} if file is None else {"file": file}
    RUNS.mkdir(exist_ok=True)
    whole = json.dumps(record | {"text": text}, indent=1, ensure_ascii=False) + "\n"
    (RUNS / f"{name}.json").write_text(whole, encoding="utf-8")


def write() -> None:
    """Write every block of every page anew, and say which pages changed."""
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = rewritten(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"{page.relative_to(HOUSE)}: written anew")


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what")
    new = what.add_parser("store")
    new.add_argument("name")
    new.add_argument("--file")
    new.add_argument("command", nargs=argparse.REMAINDER)
    what.add_parser("again").add_argument("names", nargs="+")
    asked = parser.parse_args(arguments)
    if asked.what == "store":
        command = asked.command[1:] if asked.command[:1] == ["--"] else asked.command
        store(asked.name, shlex.join(command), asked.file)
    for name in asked.names if asked.what == "again" else ():
        record = load(name)
        store(name, record["command"], record.get("file"))
    write()


if __name__ == "__main__":
    main(sys.argv[1:])
