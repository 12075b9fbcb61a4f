"""Routers before real servers over HTTP: ``python benchmarks/routers.py``.

Toy servers of unequal speed, each a process of its own, stream tokens on loopback; the proxy is one more process for
each router. The same requests come at the same times to each router, in turns, so that what else the machine does meets
them alike. Printed: times to the first token and to the last, differences over rounds in pairs with 95 % intervals of
Student's t, and what a pick takes inside of the proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # benchmarks/games.py would hide the package games

from hybridalloc.serving.picker import Picker  # noqa: E402
from hybridalloc.serving.proxy import Limits, Proxy, parse_replica  # noqa: E402

SPEEDS = (0.25, 0.125, 0.125, 0.0625)
LONGEST_S = 60.0


class RoundRobin(Picker):
    """In turn."""

    def pick(self, prompt, cached=None):
        turns = self.__dict__.setdefault("turns", itertools.count())
        up = [name for name in self.names if self.up(name)]
        return up[next(turns) % len(up)] if up else None


class TwoChoices(Picker):
    """Of two at random the one that reported fewer requests, corrected by what was sent since."""

    def pick(self, prompt, cached=None):
        rng = self.__dict__.setdefault("rng", np.random.default_rng(0))
        up = [name for name in self.names if self.up(name)]
        if len(up) < 2:
            return up[0] if up else None
        return min(rng.choice(up, 2, replace=False), key=self._there)

    def _there(self, name):
        seen, r = self._room.seen, self._index[name]
        return max(seen.told[r, 0] + seen.told[r, 1] - seen.then[r, 0], 0.0) + seen.own[r, 0]


class LeastInFlight(Picker):
    """Fewest own requests by capacity."""

    def pick(self, prompt, cached=None):
        up = [name for name in self.names if self.up(name)]
        return min(up, key=lambda n: (self.in_flight(n) + 1) / self._replicas[n].capacity) if up else None


ROUTERS = {
    "round robin": RoundRobin, "power of two": TwoChoices, "in flight over capacity": LeastInFlight, "game": Picker,
}  # fmt: skip


SPENT: dict[str, list[float]] = {}  # s of each choice that is awaited, by router


async def timed(name: str, choosing: Awaitable[Any]) -> Any:
    """What is chosen; how long that took is noted."""
    began = time.perf_counter()
    try:
        return await choosing
    finally:
        SPENT.setdefault(name, []).append(time.perf_counter() - began)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def serve_proxy(router: str, urls: list[str], port: int, report_s: float) -> None:
    from aiohttp import web

    told = [f"{url},capacity={speed},kv=60000,base_s={0.01 / speed}" for url, speed in zip(urls, SPEEDS, strict=True)]
    proxy = Proxy(ROUTERS[router]([parse_replica(text) for text in told]), Limits(report_s=report_s))
    web.run_app(proxy.application(), host="127.0.0.1", port=port, access_log=None, print=None)


async def up(session: aiohttp.ClientSession, url: str, seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            async with session.get(url) as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.2)
    raise RuntimeError(f"{url} does not answer")


async def one(session: aiohttp.ClientSession, url: str, prompt: int, tokens: int) -> tuple[float, float]:
    """s until the first and the last token."""
    began = time.perf_counter()
    body = {"prompt": "abcd" * prompt, "max_tokens": tokens, "stream": True}
    first = np.nan
    async with session.post(f"{url}/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for _ in answer.content.iter_any():
            first = time.perf_counter() - began if np.isnan(first) else first
    return first, time.perf_counter() - began


async def played(url: str, at: np.ndarray, prompt: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """(Q, 2) s of each request, sent when it comes, whatever else is open."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=LONGEST_S)
    ) as session:
        began = time.perf_counter()

        async def later(t: float, p: int, n: int) -> tuple[float, float]:
            await asyncio.sleep(max(began + t - time.perf_counter(), 0.0))
            return await one(session, url, p, n)

        return np.array(await asyncio.gather(*map(later, at, prompt.tolist(), tokens.tolist())))


def drawn(rng: np.random.Generator, count: int, rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poisson arrivals; prompts and outputs log-normal, as in recorded traffic."""
    at = np.cumsum(rng.exponential(1 / rate, count))
    prompt = np.clip(rng.lognormal(6.2, 1.0, count), 20, 6000).astype(int)
    return at, prompt, np.clip(rng.lognormal(3.0, 0.7, count), 2, 150).astype(int)


async def picking(urls: dict[str, str]) -> dict[str, tuple[float, float]]:
    """s and number of picks of each proxy so far, by its own metrics."""
    found = {}
    async with aiohttp.ClientSession() as session:
        for name, url in urls.items():
            async with session.get(f"{url}/-/metrics") as page:
                told = dict(line.rsplit(" ", 1) for line in (await page.text()).splitlines() if line[0] != "#")
            total, many = (float(told[f"hybridalloc_pick_seconds_{what}"]) for what in ("sum", "count"))
            found[name] = (total, many)
    return found


async def warmed(urls: list[str]) -> None:
    async with aiohttp.ClientSession() as session:
        for url in urls:
            await up(session, f"{url}/-/health")
            for _ in range(4):
                await one(session, url, 50, 2)


def compare(args: argparse.Namespace) -> None:
    servers = [f"http://127.0.0.1:{free_port()}" for _ in SPEEDS]
    toys = [
        subprocess.Popen([sys.executable, "-m", "hybridalloc.serving.toy", url.rsplit(":", 1)[1], str(speed)], cwd=ROOT)
        for url, speed in zip(servers, SPEEDS, strict=True)
    ]
    ports = {name: free_port() for name in ROUTERS}
    spawn = multiprocessing.get_context("spawn")
    proxies = [
        spawn.Process(target=serve_proxy, args=(name, servers, port, args.report), daemon=True)
        for name, port in ports.items()
    ]
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    try:
        for process in proxies:
            process.start()
        asyncio.run(warmed(list(urls.values())))
        before = asyncio.run(picking(urls))  # the first picks compile, or load what was compiled
        found: dict[str, list[np.ndarray]] = {name: [] for name in urls}
        for k in range(args.rounds):
            requests = drawn(np.random.default_rng(k), args.requests, args.rate)
            order = list(urls)[k % len(urls) :] + list(urls)[: k % len(urls)]
            for name in order:
                found[name].append(asyncio.run(played(urls[name], *requests)))
        after = asyncio.run(picking(urls))
    finally:
        for process in proxies:
            process.terminate()
        for toy in toys:
            toy.terminate()
    print(f"{len(SPEEDS)} toy servers of speeds {SPEEDS}, {args.rate:g} requests/s, reports every {args.report:g} s,")
    print(f"{args.rounds} rounds of {args.requests} requests")
    say(found)
    us = {n: 1e6 * (after[n][0] - before[n][0]) / max(after[n][1] - before[n][1], 1) for n in after}
    print("us of a pick, by the proxies' own metrics: " + ", ".join(f"{name} {x:.0f}" for name, x in us.items()))


def say(found: dict[str, list[np.ndarray]]) -> None:
    p99 = {name: np.array([np.quantile(x[:, 0], 0.99) for x in rounds]) for name, rounds in found.items()}
    for name, rounds in found.items():
        first, last = np.concatenate(rounds).T
        p99s = f"TTFT mean {first.mean():.3f}, p99 {np.quantile(first, 0.99):.2f} s"
        line = f"{name:24s} {p99s}; E2E p99 {np.quantile(last, 0.99):.2f} s"
        if name != "game":
            ratio = np.log(p99["game"] / p99[name])
            half = stats.t.ppf(0.975, len(ratio) - 1) * ratio.std(ddof=1) / len(ratio) ** 0.5
            mean, low, high = (100 * (np.exp(x) - 1) for x in (ratio.mean(), ratio.mean() - half, ratio.mean() + half))
            line += f"; the game's p99 by rounds {mean:+.0f} % [{low:+.0f}, {high:+.0f}]"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=5.0)
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--report", type=float, default=1.0)
    compare(parser.parse_args())


if __name__ == "__main__":
    main()
