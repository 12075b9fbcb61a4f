"""What the game of a round charges: how much a job's place is worth beside another's."""

from __future__ import annotations

from typing import NamedTuple

from hybridalloc.problems.cluster.rounds import DOUBTING, TRADING


class QueuePrices(NamedTuple):
    """A place is worth w_i (speed there + some + stay, if it is held already), with
    w_i = (believed hours left + .05)^-left gang^-gang (1 + weight max(0, ratio - mark)).

    The ratio is what a job will have taken, were it to run on its fastest place from now on, over the time that its own
    part of the cluster would take; or, if that is larger, what it has left over the time to its deadline.
    ``tight`` is what each unit of a pool is worth less the fuller it is: jobs stand together and leave room.
    """

    left: float = DOUBTING.left
    gang: float = DOUBTING.gang
    weight: float = DOUBTING.weight
    mark: float = DOUBTING.mark
    stay: float = 0.2  # as good as 0 on tuning seeds, with a third fewer starts
    some: float = DOUBTING.some
    tight: float = 0.0


class NodePrices(NamedTuple):
    """:class:`QueuePrices` of "seed001", where a start costs much beside what a job takes; ``stay`` found on tuning
    seeds."""

    left: float = DOUBTING.left
    gang: float = DOUBTING.gang
    weight: float = DOUBTING.weight
    mark: float = DOUBTING.mark
    stay: float = 0.5
    some: float = DOUBTING.some
    tight: float = 0.0


class BusyPrices(NamedTuple):
    """:class:`QueuePrices` of "seed001" for units at work instead of time there: who has little left is not served
    first, larger gangs go before smaller ones, nobody is moved for a little, and jobs stand together. ``left``,
    ``gang``, ``weight``, ``stay`` and ``tight`` found on tuning seeds."""

    left: float = 0.0
    gang: float = -0.18
    weight: float = 0.0
    mark: float = DOUBTING.mark
    stay: float = 1.0
    some: float = 0.0
    tight: float = 0.07


KNOWING = QueuePrices(*TRADING)
# Who has most left and the largest gang goes first, so that no one of them is left over at the end: for the makespan of
# jobs that are all there. Found on tuning seeds.
FULL_QUEUE = QueuePrices(left=-0.5, gang=-1.0, weight=0.0, mark=TRADING.mark, stay=0.2, some=0.0)
SPACE = {
    "left": (-1.0, 1.5, False), "gang": (-1.5, 1.0, False), "weight": (0.0, 10.0, False), "mark": (0.0, 2.0, False),
    "stay": (0.0, 1.0, False), "some": (0.0, 1.0, False), "tight": (0.0, 1.0, False),
}  # fmt: skip
