"""Seed 000: learned load balancing for AI workloads. It has no figures: three claims, and a reward of three parts."""

from __future__ import annotations

from hybridalloc.experiments.seeds.table import Cell, Claim, Column, Part, Table
from hybridalloc.experiments.suite import Row

RUN = "azure-like"
THROUGHPUT = Column("throughput", "requests/s")
MEAN = Column("ttft_mean", "s to first token", "lower", 3)
TAIL = Column("ttft_p99", "p99", "lower", 3)
BUSY = Column("utilisation", "replicas busy %")
FAIR = Column("jain", "Jain's index of dispatchers' tokens/s", digits=4)
LEARNED = {"hybrid-imappo": "hybrid, IMAPPO", "rl-imappo": "IMAPPO alone", "rl-iql": "IQL alone"}
RULES = {
    "round_robin": "round robin", "weighted_round_robin": "round robin by capacity", "random": "random",
    "shortest_queue": "shortest queue, as reported", "two_choices": "two choices, as reported",
    "own_in_flight": "least own in flight", "own_over_capacity": "own in flight over capacity",
}  # fmt: skip
CONVENTIONAL = tuple(RULES)
METHODS = (*LEARNED, "game-tuned", *RULES, "clairvoyant")


def comparison() -> Table:
    claims = []
    for text, column in (
        ("significantly outperforms conventional load balancing in throughput", THROUGHPUT),
        ("in task latency", MEAN), ("in resource utilisation", BUSY),
    ):  # fmt: skip
        claims += [Claim(text, RUN, column, method, CONVENTIONAL) for method in ("hybrid-imappo", "rl-imappo")]
    cells = [Cell(label, RUN, name) for name, label in LEARNED.items()]
    cells += [Cell("game, tuned", RUN, "game-tuned"), *(Cell(label, RUN, name) for name, label in RULES.items())]
    cells.append(Cell("clairvoyant (a bound)", RUN, "clairvoyant"))
    return Table(
        "Learned balancing against conventional balancers (000)",
        {RUN: (Row("balancer"), METHODS)},
        (
            Part(
                (THROUGHPUT, MEAN, TAIL, BUSY, FAIR), tuple(cells), tuple(claims),
                about=(
                    "Eight replicas of three speeds behind four dispatchers at 85 % of what they can do, reports "
                    "every second. Each claim stands twice: for the hybrid, and for the learner alone, which is what "
                    "the document proposes.",
                ),
            ),
        ),
        (
            "It has no figures, names no baseline, no workload and no reward's weights; ours are the suite's.",
            "It asks for an analysis of what was learned: `report.html` of the run shows how agents spread over "
            "replicas.",
        ),
        (
            "At loads below one every balancer ends by serving all that comes: throughput and utilisation are the "
            "load's, and differ by how long the last requests of an episode take. What a balancer decides is the wait.",
        ),
    )  # fmt: skip


TABLES = {"000-comparison": comparison()}
