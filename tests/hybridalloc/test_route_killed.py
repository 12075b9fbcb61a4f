"""``hybridalloc route`` before real servers, each a process of its own, of which one is killed while it answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")
import aiohttp

HOUSE = Path(__file__).resolve().parents[2]
TOLD = "the replica failed in the middle of the answer"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def process(*words):
    made = subprocess.Popen([sys.executable, "-m", *words], cwd=HOUSE, stdout=subprocess.DEVNULL)
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            made.send_signal(signal.SIGKILL)
        made.wait()


async def answers(session, url):
    with contextlib.suppress(aiohttp.ClientError):
        async with session.get(url) as page:
            return page.status == 200
    return False


async def until(true, seconds=60.0):
    end = time.monotonic() + seconds
    while not await true():
        assert time.monotonic() < end, "it took too long"
        await asyncio.sleep(0.05)


async def ask(session, url, prompt, tokens, begun=None):
    """Status and text of an answer; ``begun`` is set when its first piece comes."""
    text = b""
    body = {"prompt": "word " * prompt, "max_tokens": tokens, "stream": True}
    async with session.post(f"{url}/v1/completions", json=body) as answer:
        async for piece in answer.content.iter_any():
            text += piece
            if begun is not None:
                begun.set()
        return answer.status, text.decode()


def test_a_server_killed_while_it_answers_takes_nobody_with_it():
    """Who had begun to be answered is told, who had not is answered by the other server, and so is who comes next."""

    async def main(doomed, port, ports):
        proxy = f"http://127.0.0.1:{port}"
        doomed_url, other = (f"http://127.0.0.1:{p}" for p in ports)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            for url in (f"{doomed_url}/metrics", f"{other}/metrics", f"{proxy}/-/health"):
                await until(lambda url=url: answers(session, url))

            async def health():
                async with session.get(f"{proxy}/-/health") as page:
                    return await page.json()

            async def counts():
                async with session.get(f"{proxy}/-/metrics") as page:
                    lines = (await page.text()).splitlines()
                return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line[0] != "#"}

            count = lambda told, event, url: told[f'hybridalloc_requests_total{{event="{event}",replica="{url}"}}']
            told_up = lambda want: until(lambda: up(want), 20.0)

            async def up(want):
                return (await health())["up"] == want

            await told_up({doomed_url: True, other: True})
            async with session.post(f"{proxy}/-/drain", params={"replica": other}):  # now all go to the doomed one
                pass
            begun = asyncio.Event()
            streaming = asyncio.create_task(ask(session, proxy, 10, 5_000, begun))
            await asyncio.wait_for(begun.wait(), 20)
            waiting = [asyncio.create_task(ask(session, proxy, 30_000, 3)) for _ in range(3)]  # seconds of prefill
            await until(lambda: sent(counts, count, doomed_url, 4))
            async with session.post(f"{proxy}/-/drain", params={"replica": other, "off": "1"}):
                pass
            os.kill(doomed.pid, signal.SIGKILL)
            status, text = await asyncio.wait_for(streaming, 5)
            assert status == 200 and text.count('"choices"') > 0 and "[DONE]" not in text and TOLD in text
            for status, text in await asyncio.wait_for(asyncio.gather(*waiting), 20):
                assert status == 200 and text.count('"choices"') == 3 and text.endswith("[DONE]\n\n")
            status, text = await asyncio.wait_for(ask(session, proxy, 10, 3), 5)
            assert status == 200 and text.endswith("[DONE]\n\n")
            told = await counts()
            assert count(told, "broken", doomed_url) == 1 and count(told, "retried", doomed_url) == 3
            assert count(told, "done", other) == 4
            assert told[f'hybridalloc_in_flight{{replica="{doomed_url}"}}'] == 0
            assert (await health())["up"] == {doomed_url: False, other: True}

    async def sent(counts, count, url, many):
        return count(await counts(), "sent", url) == many

    port, *ports = (free_port() for _ in range(3))
    replicas = [f"http://127.0.0.1:{p}" for p in ports]
    toy = "hybridalloc.serving.toy"
    with (
        process(toy, str(ports[0]), "1.0") as doomed,
        process(toy, str(ports[1]), "10.0"),
        process("hybridalloc.cli", "route", "--port", str(port), "--report-s", "0.1", "--replica", *replicas),
    ):
        asyncio.run(main(doomed, port, ports))
