"""``hybridalloc evaluate``: a saved allocator on the reporting seeds."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from hybridalloc.commands.terminal import print_json, say, write


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a saved allocator on the reporting seeds."""

    path: tyro.conf.Positional[str]
    seeds: int = 40
    allow_code: bool = False
    """Load the transition that the file names though it is no installed entry point: its code runs."""
    json: bool = False
    """Metrics as JSON on standard output."""

    def run(self) -> int:
        from hybridalloc.allocator import Allocator
        from hybridalloc.training.config import REPORT_SEEDS
        from hybridalloc.training.evaluation import evaluate

        a = Allocator.load(self.path, trust_code=self.allow_code)
        baseline = a.method if a.method in a.problem.card.baselines else None
        seen = evaluate(
            a.problem,
            a.prices,
            a.coordinator,
            a.recommender,
            REPORT_SEEDS[: self.seeds],
            baseline,
            belief=a.belief,
            value=a.value,
        )
        if self.json:
            return print_json(seen.means() | {"violations": seen.violations, "allocations": seen.allocations})
        means = seen.means()
        for metric in a.problem.card.metrics:
            mean = f"{means[metric.key]:10.4f} {metric.unit}" if metric.key in means else f"{'–':>10s}"
            say(f"{metric.label:40s} {mean}")
        write(f"{'violations of capacity or power':40s} {seen.violations:10d} of {seen.allocations} allocations")
        return 0
