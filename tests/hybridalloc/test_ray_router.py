"""Ray Serve with replicas of unequal speed: the router sends by what they tell, and all are answered."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'hybridalloc[ray]'")
pytest.importorskip("ray.serve.request_router", reason="this Ray has no request routers")

SLOW_S = 0.04  # of a request at capacity 1
CAPACITIES = (4.0, 1.0, 1.0)


def deployed(folder):
    from ray import serve
    from ray.serve.config import RequestRouterConfig

    @serve.deployment(
        num_replicas=len(CAPACITIES),
        max_ongoing_requests=100,
        ray_actor_options={"num_cpus": 0},
        request_router_config=RequestRouterConfig(
            request_router_class="hybridalloc.serving.ray_router:GameRouter",
            request_routing_stats_period_s=0.2,
        ),
    )
    class Server:
        """Serves one request after the other; the first replica is fast."""

        def __init__(self, folder):
            for k, capacity in enumerate(CAPACITIES):
                try:
                    os.close(os.open(os.path.join(folder, str(k)), os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    continue
                self.number, self.capacity = k, capacity
                break
            self.there, self.turn = 0, asyncio.Lock()

        async def __call__(self, text):
            self.there += 1
            try:
                async with self.turn:
                    await asyncio.sleep(SLOW_S / self.capacity)
            finally:
                self.there -= 1
            return self.number

        def record_routing_stats(self):
            return {"running": self.there, "capacity": self.capacity}

    return serve.run(Server.bind(str(folder)), name="toy", route_prefix=None)


@pytest.fixture
def cluster(tmp_path):
    from ray import serve

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    try:
        serve.start(proxy_location="Disabled")  # handles alone
        yield deployed(tmp_path)
    finally:
        serve.shutdown()
        ray.shutdown()


def test_requests_go_where_they_are_served_first(cluster):
    async def main():
        waits = []
        for k in range(120):
            waits.append(cluster.remote(f"request {k}"))
            await asyncio.sleep(SLOW_S / sum(CAPACITIES) / 0.7)
        return [await wait for wait in waits]

    for _ in range(20):  # until the replicas' capacities are told
        asyncio.run(main_of(cluster, 3))
    where = Counter(asyncio.run(main()))
    assert sum(where.values()) == 120 and set(where) == {0, 1, 2}
    assert where[0] > 1.5 * max(where[1], where[2])


async def main_of(handle, count):
    return [await wait for wait in [handle.remote("x") for _ in range(count)]]
