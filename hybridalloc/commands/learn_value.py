"""``hybridalloc learn-value``: what is left in a store is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hybridalloc.commands.terminal import pairs, print_json, write

if TYPE_CHECKING:
    from hybridalloc.problems.contract import AnyProblem, Prices
    from hybridalloc.training.stores import LearnedValue


@dataclass(frozen=True)
class LearnValue:
    """Learn what is left in the agents' stores, such as batteries, is worth, and save the game that goes by it."""

    out: Path = Path("value.npz")
    problem: str = "mec"
    agents: int = 12
    servers: int = 3
    scenario: str = ""
    """Of the problem; default its own, and of mec F, which has batteries."""
    sites: Literal["eua", "synthetic"] = "synthetic"
    tuning: int = 40
    """Trials of the price search before."""
    networks: int = 96
    """Worlds of each round; 24 are a quarter of the time and a little worse."""
    rounds: int = 3
    """The first under the constant price, the others under the value itself."""
    seed: int = 0
    settings: tuple[str, ...] = ()
    """More settings of the problem, such as --settings harvest_j=0.003."""
    quiet: bool = False
    """No progress on standard error."""
    json: bool = False
    """What was learned as JSON on standard output."""

    def run(self) -> int:
        from hybridalloc.allocator import Allocator
        from hybridalloc.experiments.progress import Stage
        from hybridalloc.places import check_file
        from hybridalloc.problems import make_with
        from hybridalloc.problems.stores import check_stores
        from hybridalloc.training.tuning import tune_game

        flags = {name: getattr(self, name) for name in ("agents", "servers", "scenario", "sites")}
        if self.problem == "mec":
            flags["scenario"] = self.scenario or "F"
        problem = make_with(self.problem, flags, pairs(self.settings))
        check_stores(problem)
        problem.reset(0)  # data that is missing is missed here
        check_file("--out", self.out if self.out.suffix == ".npz" else self.out.with_name(self.out.name + ".npz"))
        with Stage("tuning prices", self.tuning, "trial", self.quiet) as stage:
            prices = tune_game(problem, "", self.tuning, lambda *_: stage.update()).prices
        learned = learned_value(problem, prices, self.seed, self.quiet, self.networks, self.rounds)
        path = Allocator(problem, "game", prices=prices, value=learned.value).save(self.out)
        if self.json:
            return print_json({"saved": str(path)} | learned._asdict() | {"value": problem.card.store})
        rounds = "; ".join(
            f"{n:,} samples" + ("" if math.isnan(r) else f", {100 * r:.0f} % explained")
            for n, r in zip(learned.samples, learned.explained, strict=True)
        )
        write(f"saved {path}: the worth of a {problem.card.store} by its level ({rounds})")
        return 0


def learned_value(
    problem: AnyProblem, prices: Prices, seed: int, quiet: bool, networks: int | None = None, rounds: int | None = None
) -> LearnedValue:
    """A value of the problem's stores under its tuned game, with a line of progress."""
    from hybridalloc.experiments.progress import Stage
    from hybridalloc.training.stores import NETWORKS, ROUNDS, learn_value

    turns = rounds or ROUNDS
    with Stage("learning a value", turns, "round", quiet) as stage:

        def fitted(_round: int, _samples: int, explained: float) -> None:
            stage.note(**({} if math.isnan(explained) else {"explained": f"{100 * explained:.0f} %"}))
            stage.update()

        return learn_value(problem, prices, networks=networks or NETWORKS, rounds=turns, seed=seed, report=fitted)
