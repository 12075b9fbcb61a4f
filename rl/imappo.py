r"""IMAPPO: multi-agent PPO with a centralised critic, trained on what is executed and paid by difference.

In the hybrid the executed mixed strategy is the Gibbs-prior equilibrium sigma, so the log-density, the ratio
and the entropy are those of log_softmax(log prior + bias), where bias = -trust cost is the game's part and is
held constant. Alone, the bias is zero. The advantage is generalised (Schulman et al. 2016) on the difference
reward: an agent's own outcome less what others lose because of it, in the slot and in the next few.

Everything else is :mod:`rl.mappo`'s: the clipped loss, the critic, value normalisation, the leave-one-out baseline.

Sources: Yu et al. (2022), "The surprising effectiveness of PPO in cooperative multi-agent games"; Schulman et
al. (2017) for the clipped loss; Huang et al. (2022), "The 37 implementation details of PPO", for the details;
Wolpert and Tumer (2001) for the difference reward.
"""

from __future__ import annotations

from dataclasses import dataclass

from rl.mappo import Mappo, MappoConfig
from rl.networks import Sizes


@dataclass(frozen=True)
class ImappoConfig(MappoConfig):
    """Settings of IMAPPO: MAPPO's, paid by difference."""

    credit: str = "difference"


class Imappo(Mappo):
    """The learner; ``policy`` is its actor as arrays, refreshed at each update."""

    name = "imappo"
    config: ImappoConfig

    def __init__(self, sizes: Sizes, config: ImappoConfig | None = None, seed: int = 0) -> None:
        super().__init__(sizes, config or ImappoConfig(), seed)
