"""What an allocation of a cluster is found to break, for its checks."""

from __future__ import annotations

import numpy as np

from games.certificate import CapacityCheck


class Findings:
    """Lines on what is broken, and the worst relative excess over a limit, inf for what cannot be at all."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.worst = 0.0

    def wrong(self, line: str, excess: float = np.inf) -> None:
        """Something is as it may not be."""
        self.lines.append(line)
        self.worst = max(self.worst, excess)

    def excess(self, what: str, has: float, may: float) -> None:
        """``what`` has so much and may have so much: more than that, less than 0 or no number is an excess."""
        over = (has - may) / may if may > 0 else (np.inf if has > 0 else 0.0)
        over = over if np.isfinite(has) and has >= 0 else np.inf
        self.worst = max(self.worst, over)
        if over > 1e-9:
            self.lines.append(f"{what}: {has:.6g}, there is {may:.6g}")

    def check(self) -> CapacityCheck:
        """All of it."""
        return CapacityCheck(float(self.worst), tuple(self.lines))
