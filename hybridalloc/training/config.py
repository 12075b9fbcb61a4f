"""Settings of a training run, and the seeds and lengths that every run shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hybridalloc.errors import nearest
from hybridalloc.limits import REPORT_SEEDS as REPORT_SEEDS  # read from here too
from hybridalloc.limits import TRAIN_SEEDS as TRAIN_SEEDS
from hybridalloc.limits import TUNE_SEEDS as TUNE_SEEDS
from hybridalloc.limits import check_fields
from hybridalloc.problems.contract import Card
from rl.registry import LEARNERS
from rl.schedules import scheduled

KINDS = ("hybrid", "rl")  # of a training run
WARMUP_SLOTS, REPORT_SLOTS = 15, 120
TOLERANCE = 1e-9  # relative, of a limit
BELIEF_STEPS = 262_144
LEAST_SLOTS = 128  # of each network, or an episode, where whole episodes are what counts: beginnings are not all
REPORTS_TRUST = 5.0  # of a hybrid that takes the reports at their face value: best of a sweep on the tuning seeds


def first_trust(card: Card, belief: str) -> float:
    """The trust to train and execute at with a belief of the card's, or "" for the reports, before calibration."""
    return float(card.beliefs[belief].default_trust) if belief else REPORTS_TRUST


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        learner: a name in ``LEARNERS``. kind: "hybrid" or "rl" (alone).
        agent_steps: budget, devices times slots over all networks: a ceiling (see :meth:`extent`).
        networks: environments stepped together; fewer where the budget is short, see :meth:`extent`.
        trust: at which the mixed choice is sampled in training and the pure one taken afterwards; with ``trust_end``
            it moves there by a line, and the pure choice is taken at ``final_trust``.
        learn_trust: move trust by the policy's gradient, from ``trust``; an allocator can then take "learned" for it.
        rate_schedule: of the learner's learning rate: "constant", "linear" or "cosine".
        belief: "" (reports at their face value), "learned" or "bayesian", see the problem's ``beliefs``.
        belief_steps: agent-steps of the game's own exploration in which a belief is learned before the learner starts;
            it goes on learning ever after. Whole slots, the last one begun in full: not part of ``agent_steps``.
        credit: weight of what others lose in the slot because of an agent, for a learner paid by its difference.
        overlap: collect the next rollout while the last is learned from, see :mod:`hybridalloc.training.ahead`.
        actors: who collect a rollout, each from its share of the networks, see :mod:`hybridalloc.training.crew`.
        checks: evaluations of the executed policy on the first ``check_seeds`` tuning seeds, from step 0 to the end.

    Raises:
        UnknownNameError: no such learner or kind. ValueError: a number out of its range (:mod:`hybridalloc.limits`).
    """

    learner: str = "imappo"
    kind: str = "hybrid"
    agent_steps: int = 4_000_000
    networks: int = 32
    trust: float = 5.0
    trust_end: float | None = None
    learn_trust: bool = False
    rate_schedule: str = "linear"
    belief: str = ""
    belief_steps: int = BELIEF_STEPS
    credit: float = 1.0
    seed: int = 0
    overlap: bool = False
    actors: int = 1
    checks: int = 10
    check_seeds: int = 16
    check_slots: int = 60
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        for name, known in (("learner", LEARNERS), ("kind", KINDS)):
            if getattr(self, name) not in known:
                raise nearest(name, getattr(self, name), known)
        scheduled(1.0, 0.0, 0.0, self.rate_schedule)

    @property
    def final_trust(self) -> float:
        return self.trust if self.trust_end is None else self.trust_end

    def extent(self, agents: int, least: int = 1) -> tuple[int, int]:
        """Networks and slots that the budget allows: networks x slots x ``agents`` <= ``agent_steps``.

        Where not even ``least`` slots of all ``networks`` are within it there are fewer of them. One slot of one
        network is the least that is done, whatever the budget.
        """
        networks = max(1, min(self.networks, self.agent_steps // (agents * least)))
        return networks, max(1, self.agent_steps // (networks * agents))

    def extent_on(self, card: Card) -> tuple[int, int]:
        """:meth:`extent` on a problem: where whole episodes count, a network sees one, or ``LEAST_SLOTS`` of it."""
        return self.extent(max(card.agents, 1), min(card.epochs, LEAST_SLOTS) if card.whole_episodes else 1)

    def trust_at(self, progress: float) -> float:
        return scheduled(self.trust, self.final_trust, progress, "linear")
