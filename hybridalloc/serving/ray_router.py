"""A request router for Ray Serve: each request's replica by the balancer's game on what this router knows.

    @serve.deployment(
        num_replicas=4,
        request_router_config=RequestRouterConfig(
            request_router_class="hybridalloc.serving.ray_router:GameRouter",
            request_router_kwargs={"dispatchers": 2},
            request_routing_stats_period_s=1.0,
        ),
    )

It counts its own requests exactly. Of the others' it knows what replicas tell where the deployment has a method
``record_routing_stats`` that gives a dictionary with any of ``waiting`` and ``running`` (everybody's requests), ``kv``
(part of its KV memory in use) and ``capacity`` (how fast it is, in any unit that all share). When a first token comes
Ray does not say: a request's prompt counts as waiting until the request ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, ReplicaResult, RequestRouter, RunningReplica

from hybridalloc.problems.balancer.scorer import BalancerPrices
from hybridalloc.serving.picker import Picker, Replica
from hybridalloc.serving.tokens import guess_tokens


class GameRouter(RequestRouter):
    """Prefers the game's replica, then any other that takes the request."""

    def initialize_state(
        self, dispatchers: int = 1, belief: str = "blend", capacities: Mapping[str, float] | None = None,
        prices: Mapping[str, float] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        """The deployment's ``request_router_kwargs``.

        Args:
            dispatchers: handles and proxies that route to this deployment. belief, prices: see
                :class:`hybridalloc.serving.picker.Picker`. capacities: by replica's unique id, where it is known
                beforehand; what a replica tells goes before.
        """
        self.capacities = dict(capacities or {})
        self.picker = Picker((), dispatchers, belief, BalancerPrices(**prices) if prices else None)
        self._heard: dict[str, Any] = {}

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The game's replica first, all others after it."""
        by_name = {_name(replica.replica_id): replica for replica in candidate_replicas}
        self._hear(by_name)
        picked = self.picker.pick(prompt_tokens(pending_request))
        if picked is None:
            return [list(candidate_replicas)]
        return [[by_name[picked]], [replica for name, replica in by_name.items() if name != picked]]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: ReplicaResult) -> None:
        """Counted from now until it ends."""
        name = _name(replica_id)
        if name not in self.picker.names:
            return
        flight = self.picker.sent(name, prompt_tokens(pending_request))
        loop = self._event_loop
        result.add_done_callback(lambda _: loop.call_soon_threadsafe(flight.done))

    def _hear(self, replicas: Mapping[str, RunningReplica]) -> None:
        """Who is there, and what they told since; a report counts when it is new."""
        for name in self.picker.names:
            if name not in replicas:
                self.picker.remove(name)
                self._heard.pop(name, None)
        for name, replica in replicas.items():
            told = replica.routing_stats or {}
            known = Replica(name, float(told.get("capacity", self.capacities.get(name, 1.0))))
            self.picker.put(known)
            if "running" in told and told != self._heard.get(name):
                self._heard[name] = dict(told)
                self.picker.report(name, told.get("waiting", 0), told["running"], told.get("kv", 0.0))


def prompt_tokens(pending: PendingRequest | None) -> float:
    """A guess by the arguments of the call: text, or a request in OpenAI's form; 1 where there is neither."""
    if pending is None:
        return 1.0
    for value in (*pending.args, *pending.kwargs.values()):
        if isinstance(value, str | bytes):
            return max(len(value) / 4.0, 1.0)
        if hasattr(value, "model_dump"):
            value = value.model_dump()
        if isinstance(value, Mapping):
            return guess_tokens(json.dumps(dict(value), default=str).encode())
    return 1.0


def _name(replica_id: ReplicaID) -> str:
    return str(replica_id.unique_id)
