"""The proxy on loopback: real HTTP to toy servers that stream, fail, and come back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace

import pytest

pytest.importorskip("aiohttp")
import aiohttp
from aiohttp import web

from hybridalloc.errors import UnknownNameError
from hybridalloc.problems.balancer.scorer import BalancerPrices
from hybridalloc.serving.picker import Picker, Replica
from hybridalloc.serving.production_stack import StackRouter
from hybridalloc.serving.proxy import Limits, Proxy, parse_prices, parse_replica
from hybridalloc.serving.reports import read_metrics
from hybridalloc.serving.tokens import guess_tokens
from hybridalloc.serving.toy import Toy

QUICK = Limits(report_s=0.05, connect_s=0.5, first_s=5.0, idle_s=1.0, wait_s=0.4, retries=2)
PATIENT = replace(QUICK, connect_s=60.0, first_s=60.0, idle_s=60.0)  # a machine that is slow loses nothing by it
ASK = {"prompt": "word " * 40, "max_tokens": 5, "stream": True}


# --- the picker


def now(at=[0.0]):  # noqa: B006 - a clock
    return at[0]


def test_a_picker_counts_its_own_and_takes_the_idle_one():
    picker = Picker([Replica("a", 2.0), Replica("b", 1.0)])
    flights = [picker.sent("a", 1000) for _ in range(6)]
    assert picker.in_flight("a") == 6 and picker.pick(500) == "b"
    for flight in flights:
        flight.first_token(), flight.first_token(), flight.done(), flight.done()  # each counts once
    assert picker.in_flight("a") == 0 and abs(picker._room.seen.own).max() == 0 and picker.pick(500) == "a"


def test_a_picker_reads_reports_and_corrects_them_by_what_it_sent_since():
    picker = Picker([Replica("a"), Replica("b")], dispatchers=2, belief="corrected")
    picker.report("a", waiting=4, running=10)
    picker.report("b", waiting=0, running=2)
    assert picker.pick(500) == "b"
    for _ in range(14):
        picker.sent("b", 500)
    assert picker.pick(500) == "a"


def test_a_picker_refuses_what_cannot_be():
    picker = Picker([Replica("a")])
    with pytest.raises(ValueError, match="replica 'a' appears twice"):
        picker.add(Replica("a"))
    with pytest.raises(ValueError, match=r"from 9\.0 s in the future"):
        picker.report("a", 0, 0, at=picker.clock() + 9.0)
    with pytest.raises(ValueError, match="waiting = -1; it must be from 0"):
        picker.report("a", -1, 0)
    with pytest.raises(UnknownNameError, match="unknown replica 'c'"):
        picker.report("c", 0, 0)
    with pytest.raises(ValueError, match=r"capacity = 0; it must be finite and > 0"):
        Replica("b", capacity=0)
    picker.report("a", 9, 9)
    picker.report("a", 1, 1, at=picker.clock() - 60.0)  # overtaken
    assert picker._room.seen.told[0, 0] == 9


def test_replicas_come_go_and_go_down_while_others_keep_what_is_known():
    picker = Picker([Replica("a"), Replica("b")])
    flight = picker.sent("b", 100)
    picker.add(Replica("c"))
    assert picker.in_flight("b") == 1 and picker.names == ("a", "b", "c")
    picker.remove("b")
    flight.done()  # gone meanwhile
    picker.mark("a", False)
    assert picker.pick(100) == "c"
    picker.put(Replica("c", capacity=3.0)), picker.put(Replica("c", capacity=3.0))
    assert picker.names == ("a", "c") and picker._fleet.share.tolist() == [0.25, 0.75] and not picker.up("a")
    picker.mark("c", False)
    assert picker.pick(100) is None and Picker().pick(10) is None


class Stats:
    def __init__(self, **values):
        self.__dict__.update(values)


def test_the_stacks_routing_class_reads_its_statistics():
    """The stack's own objects, by the attributes that they have; reports are taken in once, own requests each time."""
    router = StackRouter({"http://a": 2.0, "http://b": 1.0}, dispatchers=2, belief="corrected")
    endpoints = [Stats(url="http://a"), Stats(url="http://b")]
    engines = {
        "http://a": Stats(num_running_requests=30, num_queuing_requests=5, gpu_cache_usage_perc=0.5),
        "http://b": Stats(num_running_requests=1, num_queuing_requests=0, gpu_cache_usage_perc=0.1),
    }
    request = Stats(headers={"x-prompt-tokens": "700"})
    assert router.route_request(endpoints, engines, {}, request) == "http://b"
    own = {"http://b": Stats(in_prefill_requests=9, in_decoding_requests=30)}
    assert router.route_request(endpoints, engines, own, request, {"prompt": "x" * 4000}) == "http://a"
    assert router.picker.in_flight("http://b") == 39
    assert router.route_request(endpoints[1:], engines, own, Stats(headers={})) == "http://b"  # a is gone
    assert router.route_request([*endpoints, Stats(url="http://c")], engines, own, request) == "http://c"
    with pytest.raises(ValueError, match="there are no endpoints"):
        router.route_request([], {}, {}, request)


# --- what is read


def test_metrics_of_vllm_are_read_and_engines_added_up():
    page = """# HELP vllm:num_requests_running x
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting_by_reason{x="y"} 99
vllm:gpu_cache_usage_perc{engine="0"} 0.25
vllm:gpu_cache_usage_perc{engine="1"} 0.75
"""
    assert read_metrics(page) == (1.0, 7.0, 0.5)
    assert read_metrics("vllm:num_requests_waiting 2\nvllm:num_requests_running 0\n") == (2.0, 0.0, 0.0)
    for wrong, words in (
        ("vllm:num_requests_waiting 2\n", "no vllm:num_requests_running among the metrics"),
        ("vllm:num_requests_waiting NaN\nvllm:num_requests_running 1\n", "it must be finite and >= 0"),
        ("vllm:num_requests_waiting{a=\"b\"}\n", "has no number"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            read_metrics(wrong)


def test_tokens_are_guessed_and_replicas_parsed():
    assert guess_tokens(b'{"prompt": [1, 2, 3]}') == 3 and guess_tokens(b'{"prompt": "12345678"}') == 2
    assert guess_tokens(json.dumps({"messages": [{"role": "user", "content": "a" * 400}, 3]}).encode()) == 100
    assert guess_tokens(b"") == 1 and guess_tokens(b"\xff" * 80) == 20 and guess_tokens(b"[1]") >= 0.5
    assert parse_replica("http://h:1/,capacity=4,kv=9e4") == Replica("http://h:1", 4.0, 9e4)
    for wrong, words in (
        ("h:1", "it begins with its address"), ("http://h:1,speed=3", "unknown figure of replica .http://h:1. .speed."),
        ("http://h,kv=x", "no number"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            parse_replica(wrong)
    assert parse_prices(["requests=3", "exponent=1"]) == BalancerPrices(requests=3.0, exponent=1.0)
    for wrong, words in (
        ("request=3", "did you mean 'requests'"),
        ("noise=x", "'x' is no number"),
        ("hold=-1", ">= 0"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_prices([wrong])


# --- over HTTP


@contextlib.asynccontextmanager
async def running(application):
    runner = web.AppRunner(application, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def routed(*urls, limits=QUICK, **settings):
    proxy = Proxy(Picker([parse_replica(url) for url in urls], **settings), limits)
    async with running(proxy.application()) as url, aiohttp.ClientSession() as session:
        await asyncio.sleep(0.15)
        yield proxy, url, session


async def ask(session, url, **more):
    async with session.post(f"{url}/v1/completions", json=ASK | more) as answer:
        return answer.status, await answer.text()


def breaking(after, metrics=True):
    """A server that breaks the connection after so many pieces of its answer."""

    async def complete(request):
        await request.read()
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        if after:
            await out.prepare(request)
        for k in range(after):
            await out.write(f'data: {{"n": {k}}}\n\n'.encode())
            await asyncio.sleep(0.02)
        request.transport.abort()
        return out

    async def told(_):
        return web.Response(text="vllm:num_requests_waiting 0\nvllm:num_requests_running 0\n")

    app = web.Application()
    app.router.add_post("/v1/completions", complete)
    if metrics:
        app.router.add_get("/metrics", told)
    return app


def test_answers_stream_through_and_are_counted():
    async def main():
        async with (
            running(Toy(4.0).application()) as a,
            running(Toy(1.0).application()) as b,
            routed(f"{a},capacity=4", f"{b},capacity=1", limits=PATIENT) as (proxy, url, session),
        ):
            answers = await asyncio.gather(*(ask(session, url) for _ in range(24)))
            assert all(s == 200 and t.count("data: {") == 5 and t.endswith("[DONE]\n\n") for s, t in answers)
            sent = {name: proxy.counts["sent", name] for name in (a, b)}
            assert sum(sent.values()) == 24 and sent[a] > sent[b] > 0
            assert proxy.picker.in_flight(a) == proxy.picker.in_flight(b) == 0
            async with session.get(f"{url}/-/metrics") as page:
                text = await page.text()
            assert f'hybridalloc_requests_total{{event="done",replica="{a}"}} {sent[a]}' in text
            assert "hybridalloc_first_token_seconds_count 24" in text
            async with session.get(f"{url}/metrics") as page:  # what is not the proxy's own is a replica's
                assert "vllm:num_requests_running" in await page.text()

    asyncio.run(main())


def test_who_fails_before_it_answers_is_left_for_another_and_who_never_answered_is_down():
    async def main():
        async with running(breaking(0)) as bad, running(Toy(4.0).application()) as good:
            async with routed(f"{bad},capacity=9", good) as (proxy, url, session):
                assert all(status == 200 for status, _ in await asyncio.gather(*(ask(session, url) for _ in range(8))))
                assert proxy.counts["retried", bad] >= 1 and proxy.counts["done", good] == 8
            async with routed("http://127.0.0.1:9", good) as (proxy, url, session):
                assert not proxy.picker.up("http://127.0.0.1:9") and (await ask(session, url))[0] == 200
                async with session.get(f"{url}/-/health") as page:
                    told = await page.json()
                assert told["up"] == {"http://127.0.0.1:9": False, good: True} and page.status == 200
                assert "http://127.0.0.1:9" in told["unreached"]

    asyncio.run(main())


def test_who_fails_in_the_middle_is_told_of_and_nothing_hangs():
    async def main():
        async with running(breaking(3)) as bad, routed(bad) as (proxy, url, session):
            status, text = await asyncio.wait_for(ask(session, url), 5)
            assert status == 200 and text.count('"n"') == 3  # what was sent was sent
            assert "the replica failed in the middle of the answer" in text
            assert proxy.counts["broken", bad] == 1 and proxy.picker.in_flight(bad) == 0

    asyncio.run(main())


def test_no_replica_up_requests_wait_then_are_told_and_one_that_returns_serves_them():
    async def main():
        async with routed("http://127.0.0.1:9") as (_, url, session):
            status, text = await asyncio.wait_for(ask(session, url), 5)
            assert status == 503 and json.loads(text)["error"]["message"] == "no replica is up"
        async with running(Toy(4.0).application()) as a, routed(a) as (proxy, url, session):
            proxy.picker.mark(a, False)
            proxy.draining.add(a)
            waiting = asyncio.create_task(ask(session, url))
            await asyncio.sleep(0.15)
            proxy.draining.clear()
            assert (await asyncio.wait_for(waiting, 5))[0] == 200

    asyncio.run(main())


def test_a_replica_drains():
    async def main():
        async with (
            running(Toy(1.0).application()) as a,
            running(Toy(1.0).application()) as b,
            routed(a, b) as (proxy, url, session),
        ):
            async with session.post(f"{url}/-/drain", params={"replica": a}) as answer:
                assert await answer.json() == {"replica": a, "in_flight": 0}
            await asyncio.gather(*(ask(session, url) for _ in range(6)))
            assert proxy.counts["sent", a] == 0 and proxy.counts["done", b] == 6
            async with session.post(f"{url}/-/drain", params={"replica": a, "off": "1"}):
                pass
            await asyncio.gather(*(ask(session, url) for _ in range(6)))
            assert proxy.counts["done", a] > 0
            async with session.post(f"{url}/-/drain", params={"replica": "http://x"}) as answer:
                assert answer.status == 404

    asyncio.run(main())


def test_a_client_that_leaves_is_no_failure_of_its_replica():
    async def main():
        async with running(Toy(0.2).application()) as a, routed(a) as (proxy, url, session):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ask(session, url, max_tokens=400), 0.4)
            for _ in range(100):
                await asyncio.sleep(0.05)
                if proxy.picker.in_flight(a) == 0:
                    break
            assert proxy.picker.in_flight(a) == 0 and proxy.counts["broken", a] == 0 and proxy.picker.up(a)

    asyncio.run(main())
