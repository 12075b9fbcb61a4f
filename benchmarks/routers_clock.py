"""Routers before the toy servers of ``benchmarks/routers.py`` by events on a clock of their own: exact and in seconds.

    python benchmarks/routers_clock.py

The routers are those that run over HTTP, and so are the requests; of the servers only the sleep is left out. So what
prices do to the first and to the last token can be told apart, which five rounds over HTTP are too few for.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # benchmarks/games.py would hide the package games

from benchmarks.routers import SPEEDS, LeastInFlight, RoundRobin, TwoChoices, drawn  # noqa: E402
from hybridalloc.problems.balancer.scorer import BalancerPrices  # noqa: E402
from hybridalloc.serving.picker import Flight, Picker, Replica  # noqa: E402
from hybridalloc.serving.toy import BASE_S, CHUNK, KV, PREFILL, REQUEST_S, SEATS, SHORTEST  # noqa: E402


class Server:
    """A toy server: who waits, who runs, who begins in the iteration at hand."""

    def __init__(self, speed: float) -> None:
        self.speed, self.busy = speed, False
        self.waiting: list[int] = []
        self.running: list[int] = []
        self.begun: list[int] = []

    def iterate(self, left: np.ndarray) -> float:
        """Begin an iteration; s that it takes."""
        room = CHUNK
        self.begun = []
        while self.waiting and room > 0 and len(self.running) + len(self.begun) < SEATS:
            part = min(room, left[self.waiting[0]])
            left[self.waiting[0]] -= part
            room -= part
            if left[self.waiting[0]] > 0:
                break
            self.begun.append(self.waiting.pop(0))
        return (BASE_S + (CHUNK - room) / PREFILL + REQUEST_S * len(self.running)) / self.speed


def played(
    make: Callable[..., Picker], at: np.ndarray, prompt: np.ndarray, tokens: np.ndarray, report_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """(Q, 2) s until the first and the last token of each request, and where it went (Q,)."""
    now = [0.0]
    names = [str(r) for r in range(len(SPEEDS))]
    replicas = [Replica(n, speed, KV, BASE_S / speed) for n, speed in zip(names, SPEEDS, strict=True)]
    picker, servers = make(replicas, clock=lambda: now[0]), [Server(speed) for speed in SPEEDS]
    left, made, times = prompt.astype(float), np.zeros(len(at), int), np.full((len(at), 2), np.nan)
    where, flights = np.zeros(len(at), int), {}
    turn = itertools.count()
    events: list[tuple[float, int, Any]] = [(float(t), next(turn), ("comes", i)) for i, t in enumerate(at)]
    events += [(0.0, next(turn), ("tells", 0))]
    heapq.heapify(events)
    then = lambda t, *what: heapq.heappush(events, (t, next(turn), what))
    while np.isnan(times[:, 1]).any():
        now[0], _, (what, k) = heapq.heappop(events)
        if what == "tells":
            for name, s in zip(names, servers, strict=True):
                held = sum(made[i] + SHORTEST for i in s.running) / KV
                picker.report(name, len(s.waiting), len(s.running), min(held, 1.0))
            then(now[0] + report_s, "tells", 0)
            continue
        if what == "comes":
            name = picker.pick(float(prompt[k]))
            assert name is not None
            flights[k], where[k] = picker.sent(name, float(prompt[k])), int(name)
            server = servers[where[k]]
            server.waiting.append(k)
            if server.busy:
                continue
        else:
            server = servers[k]
            here = [*server.running, *server.begun]
            for i in here:
                made[i] += 1
                served(times[i], now[0] - at[i], flights[i], made[i] == 1, made[i] >= tokens[i])
            server.running = [i for i in here if made[i] < tokens[i]]
        server.busy = bool(server.waiting or server.running)
        if server.busy:
            then(now[0] + server.iterate(left), "ends", servers.index(server))
    return times, where


def served(times: np.ndarray, since: float, flight: Flight, first: bool, last: bool) -> None:
    """One more token."""
    if first:
        times[0] = since
        flight.first_token()
    if last:
        times[1] = since
        flight.done()


def priced(**prices: float) -> Callable[..., Picker]:
    return lambda replicas, clock: Picker(replicas, clock=clock, prices=BalancerPrices(**prices))


ROWS: dict[str, Callable[..., Picker]] = {
    "round robin": RoundRobin, "power of two": TwoChoices, "in flight over capacity": LeastInFlight, "game": Picker,
    "game, exponent 1": priced(exponent=1.0), "game, requests 3": priced(requests=3.0),
    "game, exponent 1, requests 3": priced(exponent=1.0, requests=3.0),
    "game, exponent 1, requests 3, no noise": priced(exponent=1.0, requests=3.0, noise=0.0),
}  # fmt: skip


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=5.0)
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--report", type=float, default=1.0)
    args = parser.parse_args(words)
    print(f"{args.rounds} rounds of {args.requests} requests, {args.rate:g} a second, reports every {args.report:g} s")
    print("| router | TTFT mean, p99, s | end-to-end mean, p99, s | to the fastest, the slowest |\n|---|---|---|---|")
    for name, make in ROWS.items():
        found = [
            played(make, *drawn(np.random.default_rng(10_000 + k), args.requests, args.rate), args.report)
            for k in range(args.rounds)
        ]
        first, last = np.concatenate([times for times, _ in found]).T
        where = np.concatenate([places for _, places in found])
        fast, slow = (100 * float(np.mean(where == k)) for k in (np.argmax(SPEEDS), np.argmin(SPEEDS)))
        print(
            f"| {name} | {first.mean():.2f}, {np.quantile(first, 0.99):.2f} | {last.mean():.2f}, "
            f"{np.quantile(last, 0.99):.2f} | {fast:.0f} %, {slow:.0f} % |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
