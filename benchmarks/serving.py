"""A served model under 1,000 random states and 100 malformed ones over HTTP: ``python benchmarks/serving.py``.

Registers an allocator (mec, 50 x 9, hybrid with a fresh IMAPPO: the same forward pass as a trained one) in a store of
its own, serves it with ``mlflow models serve --env-manager local`` and asks it, one connection, one state at a time.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

from hybridalloc import Allocator, make_problem  # noqa: E402
from hybridalloc.serving.models import log_model  # noqa: E402

STATES, MALFORMED = 1000, 100


def main() -> int:
    problem = make_problem("mec", agents=50, servers=9)
    with tempfile.TemporaryDirectory() as place:
        uri = f"sqlite:///{place}/mlflow.db"
        log_model(Allocator(problem, "hybrid", recommender="imappo"), "served", uri, alias="champion")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        model = ["-m", "models:/served@champion", "-p", str(port)]
        command = ["mlflow", "models", "serve", "--env-manager", "local", *model]
        began = time.perf_counter()
        with Path(place, "log").open("w") as log:
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            server = subprocess.Popen(
                command, env=os.environ | {"MLFLOW_TRACKING_URI": uri, "PATH": path}, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            wait_for(port, server, Path(place, "log"))
            print(f"up after {time.perf_counter() - began:.1f} s")
            return ask(problem, port)
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
                server.wait(timeout=20)


def wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with {server.returncode}: {log.read_text()[-800:]}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server did not answer within 60 s")


def ask(problem: Any, port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def post(state: object) -> tuple[int, dict, float]:
        body = json.dumps({"inputs": [{"state": state}]})
        began = time.perf_counter()
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        return answer.status, content, 1e3 * (time.perf_counter() - began)

    states = []
    for seed in range(STATES):
        state = problem.reset(seed).to_dict()
        state.pop("truth")
        states.append(state)
    post(states[0])  # compiled kernels are loaded with the first
    took, inside, feasible = [], [], 0
    for state in states:
        status, answer, ms = post(state)
        certificate = answer["predictions"][0]["certificate"] if status == 200 else {"feasible": False, "elapsed_ms": 0}
        feasible += status == 200 and certificate["feasible"]
        took.append(ms)
        inside.append(certificate["elapsed_ms"])
    named = 0
    for state, field in malformed(states):
        status, answer, _ = post(state)
        named += 400 <= status < 500 and field in answer["message"].split("Error: ")[-1]
    middle, tail = np.median(took), np.quantile(took, 0.99)
    print(f"{feasible} of {STATES} feasible; median {middle:.1f} ms over HTTP, p99 {tail:.1f} ms,")
    print(f"  of which the step itself {np.median(inside):.1f} ms")
    print(f"{named} of {MALFORMED} malformed states answered with 4xx and a message that names the field")
    return 0 if feasible == STATES and named == MALFORMED else 1


def malformed(states: list[dict]) -> list[tuple[dict, str]]:
    """States each broken in one field, and that field's name."""
    rng = np.random.default_rng(0)
    arrays = [name for name, value in states[0].items() if isinstance(value, list)]
    out = []
    for k in range(MALFORMED):
        state = json.loads(json.dumps(states[k]))
        field = arrays[int(rng.integers(len(arrays)))]
        way = k % 5
        if way == 0:
            state[field] = state[field][:-1]  # too short
        elif way == 1:
            state[field] = ["fast"] * len(state[field])
        elif way == 2:
            state[f"{field}_x"] = state.pop(field)  # a wrong name
            field = f"{field}_x"
        elif way == 3:
            state["deadline_s"][3] = -1.0
            field = "deadline_s[3]"
        else:
            state[field] = {"a": 1}
        out.append((state, field))
    return out


if __name__ == "__main__":
    sys.exit(main())
