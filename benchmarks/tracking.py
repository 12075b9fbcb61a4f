"""What a bad MLflow costs a whole comparison started from the command line: ``python benchmarks/tracking.py``.

A small comparison (custom, the farm of `hybridalloc.problems.farm`) is run with MLflow healthy, and again with it dead,
silent, dying half-way, slow (5 s a call), and with the disk of an sqlite store full; then two at once on one new store.
"after results" is the time from the last result on disk to the command's end: what waiting for MLflow costs, whatever
else the machine does meanwhile. Then MLflow is made well, ``hybridalloc sync`` run, and the store counted. A server
stands behind a proxy that drops, delays or stops; a disk that fills is a tmpfs, which needs root.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

METHODS = ("hybrid-imappo", "game-tuned", "balanced")
COMPARE = (
    "compare --problem custom --settings transition=hybridalloc.problems.farm:Farm --agent-steps 1000 --train-seeds 1 "
    f"--report-seeds 2 --tuning 1 --workers 1 --methods {' '.join(METHODS)}"
).split()
SLOW_S = 5.0


class Proxy:
    """Stands before a server: ``delay_s`` before each answer; after ``calls_left`` calls the port is closed."""

    def __init__(self, upstream: int, delay_s: float = 0.0, calls_left: float = float("inf")) -> None:
        proxy, self.delay_s, self.calls_left, self.count = self, delay_s, calls_left, 0

        class Handler(BaseHTTPRequestHandler):
            def forward(self) -> None:
                if proxy.count >= proxy.calls_left:
                    self.close_connection = True
                    return
                proxy.count += 1
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                time.sleep(proxy.delay_s)
                there = http.client.HTTPConnection("127.0.0.1", upstream, timeout=120)
                there.request(self.command, self.path, body, dict(self.headers))
                answer = there.getresponse()
                content = answer.read()
                try:
                    self.send_response(answer.status)
                    self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # the client did not wait

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "hybridalloc.cli", *words]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    return kept | {"PYTHONPATH": sys.path[0], "MLFLOW_DISABLE_TELEMETRY": "true"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def mlflow_server(place: Path) -> Iterator[int]:
    port = free_port()
    words = [
        "server", "--backend-store-uri", f"sqlite:///{place}/server.db", "--artifacts-destination", f"{place}/files",
        "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    with (place / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words], env=environment(), stdout=log, stderr=log, start_new_session=True
        )
    try:
        for _ in range(1200):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield port
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def start(place: Path, uri: str) -> subprocess.Popen[str]:
    place.mkdir()
    return subprocess.Popen(
        command(*COMPARE, "--tracking-uri", uri, "--json", "--quiet"), cwd=place, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], place: Path, began: float) -> dict[str, Any]:
    """Wait for a comparison: times, what it says of MLflow, whether its record is whole."""
    out, err = process.communicate(timeout=1800)
    ended = time.time()
    if process.returncode:
        raise RuntimeError(f"the comparison ended with {process.returncode}: {err[-1500:]}")
    (folder,) = (place / "runs").iterdir()
    ends = [json.loads(run.read_text().splitlines()[-1]) for run in folder.glob("*.jsonl")]
    whole = sorted(folder.glob("*.jsonl")) == [folder / f"{name}-seed0.jsonl" for name in sorted(METHODS)]
    return {
        "folder": folder, "wall": ended - began, "after": ended - (folder / "results.json").stat().st_mtime,
        "mlflow": json.loads(out)["mirror"],
        "whole": whole and all(end["kind"] == "end" and end["status"] == "FINISHED" for end in ends),
    }  # fmt: skip


def sync(folder: Path, uri: str) -> tuple[float, int]:
    """Time of ``hybridalloc sync``, and how many of the comparison's runs MLflow then has whole, none twice."""
    from mlflow.tracking import MlflowClient

    began = time.time()
    done = subprocess.run(
        command("sync", str(folder), "--tracking-uri", uri), env=environment(), capture_output=True, text=True
    )
    took = time.time() - began
    if done.returncode:
        raise RuntimeError(f"sync ended with {done.returncode}: {done.stdout}{done.stderr[-800:]}")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("hybridalloc")
    runs = client.search_runs([experiment.experiment_id], f"tags.`hybridalloc.comparison` = '{folder.name}'")
    assert len({run.info.run_name for run in runs}) == len(runs), "a run is there twice"
    good = 0
    for run in (run for run in runs if run.info.run_name != folder.name):
        lines = len((folder / f"{run.info.run_name}.jsonl").read_text().splitlines())
        good += run.info.status == "FINISHED" and int(run.data.tags["hybridalloc.lines"]) == lines
    return took, good


def row(name: str, seen: dict[str, Any], synced: tuple[float, int]) -> bool:
    whole = "whole" if seen["whole"] else "NOT WHOLE"
    print(
        f"| {name} | {seen['wall']:.1f} | {seen['after']:.1f} | {whole} | {synced[0]:.1f} | {synced[1]} of "
        f"{len(METHODS)} |   {seen['mlflow'][:150]}", flush=True,
    )  # fmt: skip
    return bool(seen["whole"]) and synced[1] == len(METHODS)


def waits(place: Path) -> bool:
    """How long the end of a comparison waits for MLflow, alone: no comparison, no server, a fault at each call."""
    import warnings

    from hybridalloc.experiments import compare, mirror, tracking

    warnings.simplefilter("ignore")
    real, started = mirror._Replay._call, time.monotonic()
    print("| MLflow | waits s | says | after sync |\n|---|---:|---|---|")

    def one(label: str, uri: str, fault: Any = None, from_call: int = 0) -> bool:
        folder = place / label.replace(" ", "-").replace(",", "")
        tracking.write_comparison(
            folder, problem="farm", scenario={}, methods=["a", "b", "c"], seeds=[0], budget={}, data_digest="x", git="x"
        )
        for name in ("a", "b", "c"):
            with tracking.RunLog(folder, name, 0) as log:
                log.metrics(0, {"welfare": 0.5})
                log.end({"welfare": 0.5})
        count = 0

        def call(self: Any, function: Any, *arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            broken = fault if count >= from_call else lambda: None
            return real(self, lambda: ((broken or (lambda: None))(), function(*arguments, **options))[1])

        mirror._Replay._call = call  # type: ignore[method-assign]
        try:
            opener = threading.Thread(target=compare._open_store, args=(folder, uri), daemon=True)
            opener.start()
            time.sleep(5)  # the comparison
            began = time.monotonic()
            if compare._opened(opener, uri):
                slow = compare.MLFLOW_SLOW_S
                said = tracking.mirror(folder, uri, stall_s=slow, slow_s=slow)
            else:
                said = tracking.left_out(folder, "MLflow has not answered yet")
            took = time.monotonic() - began
        finally:
            mirror._Replay._call = real  # type: ignore[method-assign]
        time.sleep(6 if fault else 0)  # a call that was left behind ends
        whole = tracking.mirror(folder, well).complete
        words = str(said).split(" (")[0].removesuffix(".")
        print(f"| {label} | {took:.1f} | {words} | {'complete' if whole else 'NOT complete'} |", flush=True)
        return whole

    def fail(error: Exception) -> None:
        raise error

    well = f"sqlite:///{place}/waits.db"
    one("a new file", well)
    silent = socket.create_server(("127.0.0.1", 0))  # accepts and never answers
    full = OSError(28, "No space left on device")
    good = [
        one("healthy", well),
        one("dead from the beginning", f"http://127.0.0.1:{free_port()}"),
        one("silent from the beginning", f"http://127.0.0.1:{silent.getsockname()[1]}"),
        one("disk full from the beginning", well, lambda: fail(full)),
        one("disk full from the 6th call", well, lambda: fail(full), 6),
        one("dies at the 12th call", well, lambda: fail(ConnectionError("refused")), 12),
        one("hangs from the 12th call", well, lambda: time.sleep(12), 12),
        one("slow, 5 s a call", well, lambda: time.sleep(5)),
        one("slow, 2 s a call", well, lambda: time.sleep(2)),
    ]
    print(f"({time.monotonic() - started:.0f} s in all)")
    return all(good)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["server", "disk", "two", "waits"]
    parser.add_argument("--only", nargs="*", default=parts[:3], choices=parts)
    chosen = parser.parse_args().only
    from mlflow.tracking import MlflowClient

    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    if "waits" in chosen:
        with tempfile.TemporaryDirectory() as name:
            return 0 if waits(Path(name)) else 1
    print("| MLflow | whole command s | after results s | record | sync s | runs after sync |")
    print("|---|---:|---:|---|---:|---:|")
    good = True
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)

        def one(label: str, uri: str, well: str, mend: Any = None) -> None:
            nonlocal good
            began = time.time()
            here = place / label.replace(" ", "-").replace(",", "")
            seen = finish(start(here, uri), here, began)
            if mend is not None:
                mend()
            good &= row(label, seen, sync(seen["folder"], well))

        if "server" in chosen:
            with mlflow_server(place) as port:
                well = f"http://127.0.0.1:{port}"
                MlflowClient(well).search_experiments()  # its first answer takes seconds
                healthy = Proxy(port)
                one("healthy server", healthy.uri, well)
                print(f"({healthy.count} calls)", flush=True)
                one("dead from the beginning", f"http://127.0.0.1:{free_port()}", well)
                one("silent from the beginning", Proxy(port, delay_s=3600).uri, well)
                one("dies at its 4th call", Proxy(port, calls_left=3).uri, well)
                one("dies half-way", Proxy(port, calls_left=healthy.count // 2).uri, well)
                one("slow, 5 s a call", Proxy(port, delay_s=SLOW_S).uri, well)
                one("slow, 2 s a call", Proxy(port, delay_s=2.0).uri, well)
        if "disk" in chosen:
            one("healthy sqlite, a new file", f"sqlite:///{place}/new.db", f"sqlite:///{place}/new.db")
            size = Path(place, "new.db").stat().st_size // 1024
            for label, kilobytes in (("disk full from the beginning", 4), ("disk full among the runs", size + 60)):
                with small_disk(place / f"disk-{kilobytes}", kilobytes) as disk:
                    uri = f"sqlite:///{disk}/mlflow.db"
                    more = ["mount", "-o", "remount,size=64m", str(disk)]
                    one(label, uri, uri, lambda more=more: subprocess.run(more, check=True))
        if "two" in chosen:
            uri, began = f"sqlite:///{place}/both.db", time.time()
            both = [(start(place / f"both-{k}", uri), place / f"both-{k}") for k in (1, 2)]
            for k, (process, here) in enumerate(both, 1):
                seen = finish(process, here, began)
                good &= row(f"two at once on one new file, number {k}", seen, sync(seen["folder"], uri))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
