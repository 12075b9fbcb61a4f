"""Routers of Ray Serve before toy replicas of unequal speed: ``python benchmarks/routers_ray.py``, with Ray 2.60.

Ray's own power of two choices, round robin and ours, one deployment after the other on one local Ray; the requests of a
round are the same for all and come at the same times. The replicas are those of ``benchmarks/routers.py``, each an
actor of its own that streams its tokens. Printed: times to the first and the last token at the caller, and what a
choice of replicas takes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # benchmarks/games.py would hide the package games
os.environ["PYTHONPATH"] = str(ROOT)  # of Ray's processes

import numpy as np  # noqa: E402
import ray  # noqa: E402
from ray import serve  # noqa: E402
from ray.serve._private.request_router.pow_2_router import PowerOfTwoChoicesRequestRouter  # noqa: E402
from ray.serve.config import RequestRouterConfig  # noqa: E402
from ray.serve.request_router import RequestRouter  # noqa: E402

from benchmarks.routers import SPEEDS, drawn, say  # noqa: E402
from hybridalloc.serving.ray_router import GameRouter  # noqa: E402
from hybridalloc.serving.toy import KV, SHORTEST, Job, Toy  # noqa: E402

SPENT: dict[str, list[float]] = {}  # s of each choice, by router, in the process that calls


async def timed(name: str, choosing: Any) -> Any:
    began = time.perf_counter()
    try:
        return await choosing
    finally:
        SPENT.setdefault(name, []).append(time.perf_counter() - began)


class Game(GameRouter):
    async def choose_replicas(self, candidate_replicas, pending_request=None):
        return await timed("game", super().choose_replicas(candidate_replicas, pending_request))


class TwoChoices(PowerOfTwoChoicesRequestRouter):
    async def choose_replicas(self, candidate_replicas, pending_request=None):
        return await timed("power of two", super().choose_replicas(candidate_replicas, pending_request))


class RoundRobin(RequestRouter):
    async def choose_replicas(self, candidate_replicas, pending_request=None):
        turns = self.__dict__.setdefault("turns", itertools.count())
        return await timed("round robin", self._next(candidate_replicas, turns))

    async def _next(self, replicas, turns):
        by_name = sorted(replicas, key=lambda replica: str(replica.replica_id.unique_id))
        return [[by_name[next(turns) % len(by_name)]]]


ROUTERS = {"round robin": "RoundRobin", "power of two": "TwoChoices", "game": "Game"}


class Replica:
    """A toy server without HTTP; the k-th to start has the k-th speed."""

    async def __init__(self, folder: str) -> None:
        for k, speed in enumerate(SPEEDS):
            try:
                os.close(os.open(os.path.join(folder, str(k)), os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            self.toy = Toy(speed)
            break
        self.held = asyncio.create_task(self.toy._engine())

    async def __call__(self, asked: dict[str, Any]) -> Any:
        job = Job(len(asked["prompt"]) / 4.0, asked["max_tokens"])
        self.toy.waiting.append(job)
        self.toy.work.set()
        made = 0
        while made < job.tokens:
            made = await job.out.get()
            yield made

    def record_routing_stats(self) -> dict[str, float]:
        held = sum(job.made + SHORTEST for job in self.toy.running) / KV
        return {
            "waiting": len(self.toy.waiting), "running": len(self.toy.running), "kv": min(held, 1.0),
            "capacity": self.toy.speed,
        }  # fmt: skip


def deployed(router: str, report_s: float) -> Any:
    made = serve.deployment(
        num_replicas=len(SPEEDS), max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0},
        request_router_config=RequestRouterConfig(
            request_router_class=f"benchmarks.routers_ray:{ROUTERS[router]}", request_routing_stats_period_s=report_s
        ),
    )(Replica)  # fmt: skip
    return serve.run(made.bind(tempfile.mkdtemp()), name="toys", route_prefix=None).options(stream=True)


async def one(handle: Any, prompt: int, tokens: int) -> tuple[float, float]:
    """s until the first and the last token."""
    began, first = time.perf_counter(), np.nan
    async for _ in handle.remote({"prompt": "abcd" * prompt, "max_tokens": tokens}):
        first = time.perf_counter() - began if np.isnan(first) else first
    return first, time.perf_counter() - began


async def played(handle: Any, at: np.ndarray, prompt: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    began = time.perf_counter()

    async def later(t: float, p: int, n: int) -> tuple[float, float]:
        await asyncio.sleep(max(began + t - time.perf_counter(), 0.0))
        return await one(handle, p, n)

    return np.array(await asyncio.gather(*map(later, at, prompt.tolist(), tokens.tolist())))


async def all_rounds(handle: Any, args: argparse.Namespace) -> list[np.ndarray]:
    await asyncio.gather(*(one(handle, 50, 2) for _ in range(12)))  # until what is compiled is, and capacities are told
    await asyncio.sleep(2 * args.report + 1)
    for spent in SPENT.values():
        spent.clear()
    return [
        await played(handle, *drawn(np.random.default_rng(k), args.requests, args.rate)) for k in range(args.rounds)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=5.0)
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--report", type=float, default=1.0)
    parser.add_argument("--out", default="", help="a file for the times, as JSON")
    args = parser.parse_args()
    own = {"address": "local", "_temp_dir": tempfile.mkdtemp()}  # whatever other Ray runs here
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, **own)
    found, us = {}, {}
    try:
        serve.start(proxy_location="Disabled")  # handles alone
        for name in ROUTERS:
            found[name] = asyncio.run(all_rounds(deployed(name, args.report), args))
            us[name] = 1e6 * float(np.median(SPENT[name]))
            serve.delete("toys")
    finally:
        serve.shutdown()
        ray.shutdown()
    if args.out:
        Path(args.out).write_text(json.dumps({name: [x.tolist() for x in rounds] for name, rounds in found.items()}))
    print(f"Ray {ray.__version__}, {len(SPEEDS)} replicas of speeds {SPEEDS}, {args.rate:g} requests/s, reports every "
          f"{args.report:g} s, {args.rounds} rounds of {args.requests} requests")  # fmt: skip
    say(found)
    print("us of a choice, median: " + ", ".join(f"{name} {x:.0f}" for name, x in us.items()))


if __name__ == "__main__":
    from benchmarks.routers_ray import main as under_its_name  # under which Ray finds the routers, and what they note

    under_its_name()
