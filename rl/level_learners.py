"""MAPPO and IPPO where levels are all that is decided: IMAPPO's heads (:mod:`rl.levels`), their critics and pay."""

from __future__ import annotations

from dataclasses import dataclass

from rl.imappo import Imappo, ImappoConfig
from rl.mappo import IppoConfig, MappoConfig


@dataclass(frozen=True)
class MappoLevelsConfig(ImappoConfig):
    """Settings of MAPPO on levels: IMAPPO's, at MAPPO's defaults."""

    credit: str = MappoConfig.credit
    critic: str = MappoConfig.critic
    rate: float = MappoConfig.rate
    epochs: int = MappoConfig.epochs
    minibatches: int = MappoConfig.minibatches


@dataclass(frozen=True)
class IppoLevelsConfig(MappoLevelsConfig):
    """Settings of IPPO on levels: MAPPO's, with a critic and a pay of one's own."""

    credit: str = IppoConfig.credit
    critic: str = IppoConfig.critic


class MappoLevels(Imappo):
    """The learner."""

    name = "mappo"


class IppoLevels(Imappo):
    """The learner."""

    name = "ippo"
