"""A routing class for vLLM's production-stack, by the signature of its Python router.

The stack scrapes engines and counts its own requests; both come with each call, and nothing is kept beside a picker.

    class Balanced(RoutingInterface, StackRouter):  # in the stack's routers/routing_logic.py
        pass

What it reads of the stack: of an endpoint ``url``; of an engine's statistics ``num_running_requests``,
``num_queuing_requests`` and ``gpu_cache_usage_perc``; of a request's ``in_prefill_requests`` and
``in_decoding_requests``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hybridalloc.problems.balancer.scorer import BalancerPrices
from hybridalloc.serving.picker import Picker, Replica
from hybridalloc.serving.tokens import CHARACTERS, guess_tokens

HEADER = "x-prompt-tokens"  # where a client or a filter before the router counts them


class StackRouter:
    """Routes each request to an endpoint's URL.

    Args:
        capacities: of endpoints by URL, 1 for those that are not named. dispatchers, belief, prices, clock: see
            :class:`hybridalloc.serving.picker.Picker`.
    """

    def __init__(
        self, capacities: Mapping[str, float] | None = None, dispatchers: int = 1, belief: str = "blend",
        prices: BalancerPrices | None = None, clock: Callable[[], float] = time.monotonic, **_: Any,
    ) -> None:  # fmt: skip
        self.capacities = dict(capacities or {})
        self.picker = Picker((), dispatchers, belief, prices, clock)
        self._told: dict[str, Any] = {}

    def route_request(
        self, endpoints: Sequence[Any], engine_stats: Mapping[str, Any], request_stats: Mapping[str, Any],
        request: Any, request_json: Mapping[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """The URL of the endpoint for a request.

        Raises:
            ValueError: there are no endpoints.
        """
        urls = list(dict.fromkeys(endpoint.url for endpoint in endpoints))
        if not urls:
            raise ValueError("there are no endpoints to route to")
        for url in urls:
            if url not in self.picker.names:
                self.picker.add(Replica(url, self.capacities.get(url, 1.0)))
        for name in self.picker.names:
            self.picker.mark(name, name in urls)
        for url in urls:
            self._count(url, request_stats.get(url))
            self._report(url, engine_stats.get(url))
        picked = self.picker.pick(_tokens(request, request_json))
        assert picked is not None  # some are up
        return picked

    def _count(self, url: str, stats: Any) -> None:
        """Own requests in flight, as the stack counts them."""
        waiting = max(int(getattr(stats, "in_prefill_requests", 0) or 0), 0)
        running = max(int(getattr(stats, "in_decoding_requests", 0) or 0), 0)
        self.picker.counted(url, waiting, running)

    def _report(self, url: str, stats: Any) -> None:
        """An engine's statistics, once each time they are scraped."""
        if stats is None or self._told.get(url) is stats:
            return
        self._told[url] = stats
        memory = getattr(stats, "gpu_cache_usage_perc", 0.0) or 0.0
        self.picker.report(
            url, stats.num_queuing_requests, stats.num_running_requests, min(max(float(memory), 0.0), 1.0)
        )  # fmt: skip


def _tokens(request: Any, told: Mapping[str, Any] | None) -> float:
    """Prompt tokens by the header, else by the request's JSON, else by its size."""
    headers = getattr(request, "headers", None) or {}
    counted, size = str(headers.get(HEADER, "")), str(headers.get("content-length", ""))
    if counted.isdigit():
        return max(float(counted), 1.0)
    if told is not None:
        return guess_tokens(json.dumps(dict(told)).encode())
    return max(float(size) / CHARACTERS, 1.0) if size.isdigit() else 1.0
