"""Whether a training run can be what is asked for, told before anything is tuned, watched or trained."""

from __future__ import annotations

from dataclasses import replace

from hybridalloc.errors import nearest
from hybridalloc.problems.beliefs import make_belief
from hybridalloc.problems.contract import AnyProblem
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.learners import learner_settings
from rl.proposal import Sizes
from rl.registry import make_learner, resolved


def check_training(problem: AnyProblem, config: TrainConfig, elsewhere: bool = False) -> None:
    """Everything of a run's settings that its problem or its learner may not have.

    Args:
        elsewhere: the actors are not this process, so that even one of them needs a learner that others can act for.

    Raises:
        UnknownNameError: a belief or a setting of the learner that is not there; the nearest are listed.
        ValueError: a setting out of its range, more actors than networks, or a learner that they cannot act for.
    """
    from hybridalloc.training.ahead import check_ahead  # torch
    from hybridalloc.training.crew import check_crew

    make_belief(problem, config.belief or None)
    usual = learner_settings(problem, replace(config, settings=()))
    known = usual | resolved(config.learner)
    for name, _ in config.settings:
        if name not in known and name != "continuous":  # of which below it is said who has it
            raise nearest(f"setting of {config.learner}", name, known)
    settings = learner_settings(problem, config)
    if config.overlap or config.actors > 1 or elsewhere:
        seen = problem.worlds([config.seed]).observe()
        learner = make_learner(config.learner, Sizes.of(seen), config.seed, settings)
        if config.overlap:
            check_ahead(learner)
        if config.actors > 1 or elsewhere:
            check_crew(learner, config.actors, config.extent_on(problem.card)[0])
