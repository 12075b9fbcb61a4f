"""What a replica's ``/metrics`` page says, in vLLM's names."""

from __future__ import annotations

import math
from typing import NamedTuple

WAITING, RUNNING = "vllm:num_requests_waiting", "vllm:num_requests_running"
MEMORY = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")  # of newer and of older versions, 0 to 1
LONGEST = 4_000_000  # characters of a page


class Told(NamedTuple):
    """One report: requests that wait and run, part of the KV memory in use."""

    waiting: float
    running: float
    kv: float


def read_metrics(text: str) -> Told:
    """The report in a page of Prometheus' text format; several engines of one replica are added up.

    Raises:
        ValueError: the two counts of requests are not there, or a value is no finite number >= 0; says which.
    """
    found: dict[str, list[float]] = {}
    for line in text[:LONGEST].splitlines():
        name, _, rest = line.partition("{") if "{" in line.split(" ", 1)[0] else line.partition(" ")
        if name not in (WAITING, RUNNING, *MEMORY):
            continue
        value = rest.rpartition("}")[2].split() if "}" in rest else rest.split()
        try:
            number = float(value[0])
        except (IndexError, ValueError):
            raise ValueError(f"{name}: {line[:80]!r} has no number") from None
        if not (math.isfinite(number) and number >= 0):
            raise ValueError(f"{name} = {number}; it must be finite and >= 0")
        found.setdefault(name, []).append(number)
    for name in (WAITING, RUNNING):
        if name not in found:
            raise ValueError(f"no {name} among the metrics; is this a server with vLLM's metrics?")
    memory = next((found[name] for name in MEMORY if name in found), [0.0])
    return Told(sum(found[WAITING]), sum(found[RUNNING]), min(sum(memory) / len(memory), 1.0))
