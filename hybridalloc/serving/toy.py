"""A toy server for tests and a demo on loopback: streams tokens as a batching replica of a given speed would.

It speaks OpenAI's completions (``prompt``, ``max_tokens``, ``stream``) and vLLM's metrics, and makes no sense.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

from aiohttp import web

from hybridalloc.serving.reports import MEMORY, RUNNING, WAITING
from hybridalloc.serving.tokens import guess_tokens

CHUNK, SEATS, KV = 2048.0, 64, 60_000.0
BASE_S, PREFILL, REQUEST_S = 0.01, 20_000.0, 0.0002  # of an iteration: at least, prompt tokens/s, a request
SHORTEST = 500  # tokens that a running request holds beside those it made


@dataclass(eq=False)
class Job:
    left: float
    tokens: int
    made: int = 0
    out: asyncio.Queue[int] = field(default_factory=asyncio.Queue)


class Toy:
    """One replica. ``speed`` divides the times of an iteration: base 10 ms, 20,000 prompt tokens/s, .2 ms a request."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.work = asyncio.Event()
        self.held: asyncio.Task[None] | None = None

    def application(self) -> web.Application:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_get("/metrics", self._metrics)
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)
        return app

    async def _start(self, _: web.Application) -> None:
        self.held = asyncio.create_task(self._engine())

    async def _stop(self, _: web.Application) -> None:
        if self.held is not None:
            self.held.cancel()

    async def _engine(self) -> None:
        while True:
            if not self.waiting and not self.running:
                self.work.clear()
                await self.work.wait()
            room = CHUNK
            begun: list[Job] = []
            while self.waiting and room > 0 and len(self.running) + len(begun) < SEATS:
                job = self.waiting[0]
                part = min(room, job.left)
                job.left, room = job.left - part, room - part
                if job.left > 0:
                    break
                begun.append(self.waiting.pop(0))
            await asyncio.sleep((BASE_S + (CHUNK - room) / PREFILL + REQUEST_S * len(self.running)) / self.speed)
            for job in (*self.running, *begun):
                job.made += 1
                job.out.put_nowait(job.made)
            self.running = [job for job in (*self.running, *begun) if job.made < job.tokens]

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        asked = json.loads(body)
        job = Job(guess_tokens(body), int(asked.get("max_tokens", 16)))
        self.waiting.append(job)
        self.work.set()
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            while job.made < job.tokens or not job.out.empty():
                k = await job.out.get()
                if not out.prepared:
                    await out.prepare(request)
                await out.write(f'data: {{"choices": [{{"text": "{k} "}}]}}\n\n'.encode())
                if k >= job.tokens:
                    break
            await out.write(b"data: [DONE]\n\n")
            await out.write_eof()
        finally:
            for jobs in (self.waiting, self.running):
                if job in jobs:
                    jobs.remove(job)
        return out

    async def _metrics(self, _: web.Request) -> web.Response:
        held = sum(job.made + SHORTEST for job in self.running) / KV
        lines = [
            f'{WAITING}{{model_name="toy"}} {len(self.waiting)}', f'{RUNNING}{{model_name="toy"}} {len(self.running)}',
            f'{MEMORY[0]}{{model_name="toy"}} {min(held, 1.0)}',
        ]  # fmt: skip
        return web.Response(text="\n".join(lines) + "\n")


def main() -> None:
    """``python -m hybridalloc.serving.toy PORT SPEED``."""
    import sys

    web.run_app(Toy(float(sys.argv[2])).application(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None)


if __name__ == "__main__":
    main()
