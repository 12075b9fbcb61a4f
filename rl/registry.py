"""Every learner by name, once: where it is, its settings, what tables call it and what it is.

torch is imported when a learner is made and not before.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rl.learner import Learner
    from rl.proposal import Sizes


class Entry(NamedTuple):
    """One learner: the names of its module, class and settings, its label in tables, and what it is in a line;
    ``levels``: module, class and settings of the same where it learns continuous quantities, if it does elsewhere."""

    module: str
    learner: str
    config: str
    label: str
    what: str
    levels: tuple[str, str, str] | None = None


LEARNERS: dict[str, Entry] = {
    "imappo": Entry(
        "rl.imappo", "Imappo", "ImappoConfig", "IMAPPO",
        "MAPPO trained on what is executed and paid by difference; has continuous heads, a memory, replay",
    ),
    "dqn": Entry("rl.dqn", "Dqn", "DqnConfig", "DQN", "independent Q-learning with shared weights"),
    "mappo": Entry(
        "rl.mappo", "Mappo", "MappoConfig", "MAPPO", "clipped policy gradient with a centralised critic",
        ("rl.level_learners", "MappoLevels", "MappoLevelsConfig"),
    ),
    "ippo": Entry(
        "rl.mappo", "Ippo", "IppoConfig", "IPPO", "MAPPO whose critic and pay are each agent's own",
        ("rl.level_learners", "IppoLevels", "IppoLevelsConfig"),
    ),
    "ppo": Entry("rl.ppo", "Ppo", "PpoConfig", "PPO", "the joint choice as one agent's action, with one value"),
    "a2c": Entry("rl.a2c", "A2c", "A2cConfig", "A2C", "n-step advantage actor-critic, synchronous and unclipped"),
    "a3c": Entry("rl.a3c", "A3c", "A3cConfig", "A3C", "A2C by workers that act on stale copies of the weights"),
    "coma": Entry("rl.coma", "Coma", "ComaConfig", "COMA", "counterfactual baseline by enumeration of one's options"),
    "mappo_lagrangian": Entry(
        "rl.lagrangian", "Lagrangian", "LagrangianConfig", "MAPPO-Lagrangian",
        "MAPPO under a limit on a cost, held by a learned multiplier",
    ),
    "mappo_penalty": Entry(
        "rl.lagrangian", "Penalty", "PenaltyConfig", "MAPPO, penalty", "MAPPO with a fixed price on a cost"
    ),
    "counterfactual": Entry(
        "rl.counterfactual", "Counterfactual", "CounterfactualConfig", "leave-one-out",
        "MAPPO with a baseline that leaves an agent's own choice out",
    ),
    "maddpg": Entry(
        "rl.maddpg", "Maddpg", "MaddpgConfig", "MADDPG", "centralised critics, options by Gumbel-softmax",
        ("rl.maddpg_levels", "MaddpgLevels", "MaddpgLevelsConfig"),
    ),
    "iql": Entry("rl.value_decomposition", "Iql", "IqlConfig", "IQL", "each agent's Q-learning on its own pay"),
    "vdn": Entry("rl.value_decomposition", "Vdn", "VdnConfig", "VDN", "the team's Q is the mean of the agents'"),
    "qmix": Entry("rl.value_decomposition", "Qmix", "QmixConfig", "QMIX", "the team's Q is monotone in the agents'"),
}  # fmt: skip


ALONE: dict[str, Any] = {"limit": 40.0}  # of every learner that no game corrects: no bound rests on its log-priors
ALONE_BY_NAME: dict[str, dict[str, Any]] = {
    "imappo": {
        "critic": "central",
        "gamma": 0.5,
        "gae": 0.6,
        "entropy": 1.6e-2,
        "rate": 3e-3,
        "epochs": 2,
        "minibatches": 8,
    }
}  # and what was searched for one of them alone (benchmarks/recipe.py)


def learner_names() -> tuple[str, ...]:
    """Every learner's name, in the order of the tables."""
    return tuple(LEARNERS)


def label(name: str) -> str:
    """What tables call a learner."""
    return LEARNERS[name].label


def settings_for(name: str, kind: str) -> dict[str, Any]:
    """Fields of a learner's config that are not at their defaults in a hybrid (none) or alone ("rl")."""
    return ALONE | ALONE_BY_NAME.get(name, {}) if kind == "rl" else {}


def resolved(name: str, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every field of a learner's config by name: its defaults, and ``settings`` where they are given.

    Raises:
        ValueError: no such learner, or a setting out of range. TypeError: a setting that it does not have.
    """
    return asdict(_config(name, settings))


def _config(name: str, settings: Mapping[str, Any] | None) -> Any:
    if name not in LEARNERS:
        raise ValueError(f"unknown learner {str(name)[:60]!r}; known: {', '.join(LEARNERS)}")
    module, _, config = _where(name, settings)
    return getattr(importlib.import_module(module), config)(**(settings or {}))


def _where(name: str, settings: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """Module, class and settings' class of a learner, as these settings need it."""
    entry = LEARNERS[name]
    learns = entry.levels if (settings or {}).get("continuous") else None
    return learns or (entry.module, entry.learner, entry.config)


def make_learner(name: str, sizes: Sizes, seed: int, settings: Mapping[str, Any] | None = None) -> Learner:
    """A fresh learner of observations with feature counts ``sizes``.

    Args:
        settings: fields of its config that are not at their defaults.

    Raises:
        ValueError: no such learner, or a setting out of range. TypeError: a setting that it does not have.
    """
    config = _config(name, settings)
    module, learner, _ = _where(name, settings)
    made: Learner = getattr(importlib.import_module(module), learner)(sizes, config, seed)
    return made
