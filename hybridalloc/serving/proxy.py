"""``hybridalloc route``: a reverse proxy for OpenAI-compatible servers that picks each request's replica.

Answers are streamed on as they come. Reports are scraped from the replicas' ``/metrics`` in vLLM's names; one that
cannot be reached takes no requests until it can. A request whose replica fails is sent to another as long as nothing of
an answer was passed on; after that the client is told, by an error event in a stream of events and by a broken
connection otherwise. Where no replica is up a request waits for a while, then the answer is 503.

``/-/metrics`` is the proxy's own page, ``/-/health`` says who is up, ``POST /-/drain?replica=...`` lets a replica
finish what it has and takes no more (``&off=1`` takes it back).
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from hybridalloc.errors import nearest
from hybridalloc.limits import check, check_fields
from hybridalloc.problems.balancer.scorer import BalancerPrices
from hybridalloc.serving.picker import Flight, Picker, Replica
from hybridalloc.serving.reports import read_metrics
from hybridalloc.serving.tokens import guess_tokens
from hybridalloc.text import quoted

HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailers", "transfer-encoding",
    "upgrade", "host", "content-length",
}  # fmt: skip
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # s, of the histogram of first tokens
MOST_BYTES = 64 * 2**20  # of a request


@dataclass(frozen=True)
class Limits:
    """Times and counts of the proxy.

    Attributes:
        report_s: between two scrapes of a replica. connect_s: to reach one. first_s: until it begins to answer. idle_s:
            between two pieces of an answer. wait_s: that a request waits where no replica is up. retries: other
            replicas that a request is sent to. drain_s: that open requests are given when the proxy ends.

    Raises:
        ValueError: one out of its range.
    """

    report_s: float = 1.0
    connect_s: float = 2.0
    first_s: float = 300.0
    idle_s: float = 60.0
    wait_s: float = 10.0
    retries: int = 2
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        check_fields(self)


class Broken(Exception):
    """A replica failed before anything of its answer was passed on."""


@dataclass
class Proxy:
    """The proxy as an aiohttp application; :meth:`application` is what a server runs.

    Args:
        picker: that picks, over replicas named by their base URLs.
    """

    picker: Picker
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()  # (what, replica)
        self.first_s: Counter[float] = Counter()
        self.pick_s, self.picks, self.first_total_s, self.firsts = 0.0, 0, 0.0, 0
        self.draining: set[str] = set()
        self.unreached: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None
        self._scrapes: list[asyncio.Task[None]] = []

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MOST_BYTES)
        app.router.add_get("/-/metrics", self._metrics)
        app.router.add_get("/-/health", self._health)
        app.router.add_post("/-/drain", self._drain)
        app.router.add_route("*", "/{path:.*}", self._forward)
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)
        return app

    async def _start(self, _: web.Application) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.limits.connect_s),
        )  # fmt: skip
        self._scrapes = [asyncio.create_task(self._scrape(name)) for name in self.picker.names]

    async def _stop(self, _: web.Application) -> None:
        for task in self._scrapes:
            task.cancel()
        await asyncio.gather(*self._scrapes, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    # --- reports

    async def _scrape(self, name: str) -> None:
        """A replica's reports, for ever; while it cannot be reached it is down."""
        while True:
            began = time.monotonic()
            try:
                await self._scrape_once(name)
                self.unreached.pop(name, None)
            except (TimeoutError, aiohttp.ClientError, ValueError, OSError) as error:
                self.unreached[name] = f"{type(error).__name__}: {error}"[:200]
                self.counts["scrape_failed", name] += 1
            self._mark(name)
            await asyncio.sleep(max(self.limits.report_s - (time.monotonic() - began), 0.01))

    async def _scrape_once(self, name: str) -> None:
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=max(2 * self.limits.connect_s, self.limits.report_s))
        async with self._session.get(f"{name}/metrics", timeout=timeout) as answer:
            answer.raise_for_status()
            told = read_metrics(await answer.text())
        self.picker.report(name, told.waiting, told.running, told.kv)

    def _mark(self, name: str) -> None:
        self.picker.mark(name, name not in self.unreached and name not in self.draining)

    # --- requests

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        prompt = guess_tokens(body)
        tried: list[str] = []
        came = time.monotonic()
        while True:
            name = await self._picked(prompt)
            if name is None:
                self.counts["refused", ""] += 1
                return web.json_response(
                    {"error": {"type": "overloaded", "message": "no replica is up", "unreached": self.unreached}},
                    status=503, headers={"Retry-After": "5"},
                )  # fmt: skip
            flight = self.picker.sent(name, prompt)
            try:
                return await self._through(request, body, name, flight, came)
            except Broken as error:
                self.counts["retried", name] += 1
                self.unreached[name] = str(error)[:200]  # until it is reached again
                self._mark(name)
                tried.append(name)
                if len(tried) > self.limits.retries:
                    return web.json_response(
                        {"error": {"type": "bad_gateway", "message": f"{len(tried)} replicas failed: {error}"}},
                        status=502,
                    )
            finally:
                flight.done()

    async def _picked(self, prompt: float) -> str | None:
        """A replica's name; None where none is up for a while."""
        end = time.monotonic() + self.limits.wait_s
        while True:
            began = time.perf_counter()
            name = self.picker.pick(prompt)
            self.pick_s += time.perf_counter() - began
            self.picks += 1
            if name is not None or time.monotonic() >= end:
                return name
            await asyncio.sleep(0.05)

    async def _through(
        self, request: web.Request, body: bytes, name: str, flight: Flight, came: float
    ) -> web.StreamResponse:
        """One replica's answer, passed on piece by piece."""
        assert self._session is not None
        self.counts["sent", name] += 1
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP}
        url = f"{name}{request.rel_url}"
        out: web.StreamResponse | None = None
        try:
            asked = self._session.request(request.method, url, data=body, headers=headers, allow_redirects=False)
            async with asyncio.timeout(self.limits.first_s):
                answer = await asked
            async with answer:
                if answer.status in (502, 503, 504):
                    raise Broken(f"{name} answered {answer.status}")
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP}
                pieces = answer.content.iter_any()
                piece = await self._next(pieces, self.limits.first_s)  # of who answers and then fails nothing is sent
                out = web.StreamResponse(status=answer.status, headers=kept)
                await out.prepare(request)
                self._note_first(flight, time.monotonic() - came)
                while piece is not None:
                    await out.write(piece)
                    piece = await self._next(pieces, self.limits.idle_s)
                await out.write_eof()
                self.counts["done", name] += 1
                return out
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if request.transport is None or request.transport.is_closing():
                self.counts["left", name] += 1  # the client did
                return out or web.Response(status=499)
            if out is None:
                raise Broken(f"{type(error).__name__}: {error}") from error
            return await self._told(request, out, name, error)

    @staticmethod
    async def _next(pieces: Any, within_s: float) -> bytes | None:
        try:
            async with asyncio.timeout(within_s):
                found: bytes = await anext(pieces)
                return found
        except StopAsyncIteration:
            return None

    async def _told(
        self, request: web.Request, out: web.StreamResponse, name: str, error: Exception
    ) -> web.StreamResponse:
        """A replica failed in the middle of an answer: the client is told, as the form of the answer allows."""
        self.counts["broken", name] += 1
        self.unreached[name] = f"{type(error).__name__}: {error}"[:200]
        self._mark(name)
        if "text/event-stream" in out.headers.get("Content-Type", ""):
            what = {"error": {"type": "replica_failed", "message": "the replica failed in the middle of the answer"}}
            await out.write(f"data: {json.dumps(what)}\n\n".encode())
            await out.write_eof()
        elif request.transport is not None:
            request.transport.close()  # cut short, so that nobody takes it for whole
        return out

    def _note_first(self, flight: Flight, seconds: float) -> None:
        flight.first_token()
        self.first_total_s += seconds
        self.firsts += 1
        for bound in BOUNDS:
            self.first_s[bound] += seconds <= bound

    # --- its own pages

    async def _metrics(self, _: web.Request) -> web.Response:
        lines = ["# TYPE hybridalloc_requests_total counter"]
        for (what, name), n in sorted(self.counts.items()):
            lines.append(f'hybridalloc_requests_total{{event="{what}",replica="{name}"}} {n}')
        lines.append("# TYPE hybridalloc_in_flight gauge")
        lines += [f'hybridalloc_in_flight{{replica="{n}"}} {self.picker.in_flight(n)}' for n in self.picker.names]
        lines.append("# TYPE hybridalloc_up gauge")
        lines += [f'hybridalloc_up{{replica="{n}"}} {int(self.picker.up(n))}' for n in self.picker.names]
        lines.append("# TYPE hybridalloc_first_token_seconds histogram")
        lines += [f'hybridalloc_first_token_seconds_bucket{{le="{b:g}"}} {self.first_s[b]}' for b in BOUNDS]
        lines += [
            f'hybridalloc_first_token_seconds_bucket{{le="+Inf"}} {self.firsts}',
            f"hybridalloc_first_token_seconds_sum {self.first_total_s:.6f}",
            f"hybridalloc_first_token_seconds_count {self.firsts}",
            "# TYPE hybridalloc_pick_seconds summary",
            f"hybridalloc_pick_seconds_sum {self.pick_s:.9f}",
            f"hybridalloc_pick_seconds_count {self.picks}",
        ]
        return web.Response(text="\n".join(lines) + "\n", content_type="text/plain")

    async def _health(self, _: web.Request) -> web.Response:
        up = {name: self.picker.up(name) for name in self.picker.names}
        told = {"up": up, "unreached": self.unreached, "draining": sorted(self.draining)}
        return web.json_response(told, status=200 if any(up.values()) else 503)

    async def _drain(self, request: web.Request) -> web.Response:
        name = request.query.get("replica", "")
        if name not in self.picker.names:
            return web.json_response({"error": f"no replica {name!r}; there are {list(self.picker.names)}"}, status=404)
        (self.draining.discard if request.query.get("off") else self.draining.add)(name)
        self._mark(name)
        return web.json_response({"replica": name, "in_flight": self.picker.in_flight(name)})


def parse_replica(text: str) -> Replica:
    """``http://host:port`` with ``,capacity=4,kv=160000`` as far as is known.

    Raises:
        ValueError: no such form; says what is wrong.
    """
    url, *rest = text.split(",")
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"replica {text!r}: it begins with its address, http://host:port")
    given: dict[str, float] = {}
    for part in rest:
        key, _, value = part.partition("=")
        if key not in ("capacity", "kv", "base_s"):
            raise nearest(f"figure of replica {quoted(url)}", key, ("capacity", "kv", "base_s"))
        try:
            given[key] = float(value)
        except ValueError:
            raise ValueError(f"replica {text!r}: {key} = {value!r} is no number") from None
    return Replica(url.rstrip("/"), **given)


def parse_prices(texts: Sequence[str]) -> BalancerPrices:
    """``name=number`` each, of :class:`hybridalloc.problems.balancer.scorer.BalancerPrices`; the rest as it is.

    Raises:
        ValueError: no such price, or a value that it cannot have; says which.
    """
    prices = BalancerPrices()
    for text in texts:
        name, _, value = text.partition("=")
        if name not in prices._fields:
            raise nearest("price", name, prices._fields)
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"price {text!r}: {value!r} is no number") from None
        if not 0 <= number < math.inf:
            raise ValueError(f"price {text!r}: it must be finite and >= 0")
        prices = prices._replace(**{name: number})
    return prices


def serve(replicas: Sequence[str], host: str, port: int, picker: dict[str, Any], limits: Limits) -> None:
    """Run the proxy until it is ended; open requests are given ``limits.drain_s``."""
    check("port", port)
    proxy = Proxy(Picker([parse_replica(text) for text in replicas], **picker), limits)
    web.run_app(proxy.application(), host=host, port=port, shutdown_timeout=limits.drain_s, access_log=None)
