"""``mec`` under another law than the one trained in: what a robust trust rehearses, and the reality gap's test.

Nobody is told of the shift: beliefs, game and prior go on as they are, and see it only as far as reports show it.
"""

from __future__ import annotations

from typing import NamedTuple


class Shift(NamedTuple):
    """How a world differs from the one trained in; each a factor >= 1, at 1 nothing changes.

    Attributes:
        path_loss: of amplitudes, 2 is 6 dB. decorrelation: fading forgets in a slot what it did in as many.
        load: devices to the same servers. cpu: servers are slower. staleness: mean age of the reports, in slots:
            all of a slot's are lost with chance 1 - 1/staleness, and the last ones stand. harvest: less comes in.
        battery: holds less, which is told as its charge is.
    """

    name: str
    path_loss: float = 1.0
    decorrelation: float = 1.0
    load: float = 1.0
    cpu: float = 1.0
    staleness: float = 1.0
    harvest: float = 1.0
    battery: float = 1.0


SHIFTS = (
    Shift("as trained"), Shift("path loss + 6 dB", path_loss=2.0), Shift("correlation squared", decorrelation=2.0),
    Shift("load x 2", load=2.0), Shift("CPU / 2", cpu=2.0), Shift("reports two slots old", staleness=2.0),
)  # fmt: skip
SUN_SHIFTS = (
    Shift("as trained"), Shift("harvest / 2", harvest=2.0), Shift("battery / 2", battery=2.0),
    Shift("path loss + 6 dB", path_loss=2.0), Shift("load x 2", load=2.0), Shift("CPU / 2", cpu=2.0),
)  # fmt: skip
