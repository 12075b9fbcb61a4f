"""What tables read of the balancer: its metrics, the space of its prices, the field's routers by name."""

from __future__ import annotations

import numpy as np

from hybridalloc.problems.balancer.belief import CORRECTED, OWN, REPORT
from hybridalloc.problems.balancer.play import WARM
from hybridalloc.problems.balancer.rules import (
    CLAIRVOYANT,
    EXPECTED_DELAY,
    INTERPRETED,
    LEAST_WORK,
    OWN_IN_FLIGHT,
    PREFIX_AFFINITY,
    PREQUAL,
    RANDOM,
    ROUND_ROBIN,
    SHORTEST_QUEUE,
    TWO_CHOICES,
    WEIGHTED,
    Rule,
)
from hybridalloc.problems.balancer.sim import ENDED, RETRIED, Sim
from hybridalloc.problems.metrics import Jain, Metric, Quantile, Ratio, jain

METRICS = (
    Metric("ttft_p99", "time to first token, p99", "s", "lower", Quantile("first_s", 0.99)),
    Metric("ttft_mean", "time to first token", "s", "lower", Ratio("first_sum", "done")),
    Metric("ttft_p95", "time to first token, p95", "s", "lower", Quantile("first_s", 0.95)),
    Metric("e2e_mean", "time to last token", "s", "lower", Ratio("last_sum", "done")),
    Metric("e2e_p95", "time to last token, p95", "s", "lower", Quantile("last_s", 0.95)),
    Metric("e2e_p99", "time to last token, p99", "s", "lower", Quantile("last_s", 0.99)),
    Metric("throughput", "throughput", "requests/s", "higher", Ratio("done", "elapsed_s")),
    Metric("utilisation", "replicas busy", "%", "higher", Ratio("busy_s", "room_s", 100)),
    Metric("jain", "Jain index of dispatchers' tokens/s", "", "higher", Jain("tokens_by", "time_by")),
    Metric("hits", "prompt tokens cached", "%", "higher", Ratio("found", "prompt", 100)),
    Metric("retried", "sent again after a failure", "% of requests", "lower", Ratio("retried", "done", 100)),
)
PRICE_SPACE = {
    "tokens": (0.1, 5.0, True), "requests": (0.01, 2.0, True), "memory": (0.0, 60.0, False), "knee": (0.2, 1.0, False),
    "cache": (0.0, 3.0, False), "base": (0.0, 4.0, False), "exponent": (0.2, 1.6, False), "noise": (0.0, 0.8, False),
    "fade_requests": (0.1, 30.0, True), "fade_tokens": (0.05, 10.0, True), "alike": (0.0, 1.0, False),
    "speed": (0.0, 1.5, False),
}  # fmt: skip
AS_SHIPPED = {
    "random": ("random", Rule(RANDOM)),
    "round_robin": ("round robin", Rule(ROUND_ROBIN)),
    "shortest_queue": ("join the shortest queue", Rule(SHORTEST_QUEUE, 0.0, REPORT)),
    "least_work": ("least work", Rule(LEAST_WORK, 0.0, REPORT)),
    "two_choices": ("power of two choices", Rule(TWO_CHOICES, 0.0, REPORT)),
    "load_interpretation": ("load interpretation", Rule(INTERPRETED, 0.0, REPORT, 1.0)),
    "prefix_affinity": ("prefix affinity, load guard", Rule(PREFIX_AFFINITY, 0.0, OWN, 64.0, 1.5, 0.3)),
    "weighted_scorer": ("llm-d's weighted scorer", Rule(WEIGHTED, 0.0, REPORT, 3.0, 2.0, 2.0)),
    "prequal": ("Prequal, with probes", Rule(PREQUAL, 0.0, REPORT, 0.84)),
    "own_in_flight": ("least own in flight", Rule(OWN_IN_FLIGHT, 0.0, OWN)),
}
WITH_CAPACITIES = {
    "weighted_random": ("random by capacity", Rule(RANDOM, 1.0)),
    "weighted_round_robin": ("weighted round robin", Rule(ROUND_ROBIN, 1.0)),
    "shortest_queue_capacity": ("shortest queue over capacity", Rule(SHORTEST_QUEUE, 1.0, REPORT)),
    "least_work_capacity": ("least work over capacity", Rule(LEAST_WORK, 1.0, REPORT)),
    "two_choices_capacity": ("two choices over capacity", Rule(TWO_CHOICES, 1.0, CORRECTED)),
    "expected_delay": ("shortest expected delay", Rule(EXPECTED_DELAY, 1.0, CORRECTED)),
    "load_interpretation_capacity": ("load interpretation, capacities", Rule(INTERPRETED, 1.0, REPORT, 1.0)),
    "prefix_affinity_capacity": ("prefix affinity, capacities", Rule(PREFIX_AFFINITY, 1.0, OWN, 14.0, 1.5, 0.1)),
    "weighted_scorer_capacity": ("llm-d's scorer, capacities", Rule(WEIGHTED, 1.0, REPORT, 1.6, 0.8, 0.4, 2.3)),
    "prequal_capacity": ("Prequal, capacities", Rule(PREQUAL, 1.0, REPORT, 0.25)),
    "own_over_capacity": ("own in flight over capacity", Rule(OWN_IN_FLIGHT, 1.0, OWN)),
    "clairvoyant": ("clairvoyant, one by one", Rule(CLAIRVOYANT)),
}
RULES_BY_NAME = AS_SHIPPED | WITH_CAPACITIES
AS_PUBLISHED = ("two_choices", "load_interpretation", "prefix_affinity", "weighted_scorer", "prequal")
BOUND = "clairvoyant"


def figures_of(sim: Sim) -> dict[str, float]:
    """The card's metrics of an episode that has ended, from its requests: what the folds of its decisions come to."""
    q, trace = sim.requests, sim.trace
    late = np.flatnonzero(np.isfinite(q.last))
    late = late[late >= int(WARM * len(trace.arrival))]
    first, last = (q.first - trace.arrival)[late], (q.last - trace.arrival)[late]
    whose, many = trace.dispatcher[late], sim.law.dispatchers
    elapsed = sim.clock[ENDED] - trace.arrival[0]
    quantile = lambda x, share: float(np.quantile(x, share)) if len(x) else float("nan")
    mean = lambda x: float(x.mean()) if len(x) else float("nan")
    tokens = np.bincount(whose, trace.output[late].astype(float), many).astype(float)
    times = np.bincount(whose, last, many).astype(float)
    return {
        "ttft_p99": quantile(first, 0.99), "ttft_mean": mean(first), "ttft_p95": quantile(first, 0.95),
        "e2e_mean": mean(last), "e2e_p95": quantile(last, 0.95), "e2e_p99": quantile(last, 0.99),
        "throughput": len(late) / elapsed,
        "utilisation": 100.0 * float(sim.replicas.busy_s.sum()) / (elapsed * len(sim.fleet.prefill)),
        "jain": float(jain(tokens[None], times[None])[0]),
        "hits": 100.0 * float(q.found[late].sum() / max(trace.prompt[late].sum(), 1.0)),
        "retried": 100.0 * float(sim.counts[RETRIED]) / max(len(late), 1),
    }  # fmt: skip
