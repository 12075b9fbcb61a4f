"""What the game charges: weights of the potential's terms, found by evolution on training streams."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from games.congestion import Float
from hybridalloc.problems.cluster.core import TERMS


class ClusterPrices(NamedTuple):
    """A weight a term; see :mod:`.core` for what each measures.

    The defaults evolved on both traces' training seeds, by the command in benchmarks/cluster.py; only their ratios
    decide.
    """

    fragments: float = -0.42
    gpu_square: float = 5.17
    cpu_square: float = 3.03
    partial: float = -1.29
    fill: float = 7.91
    price: float = 16.2
    fill_gpu: float = -3.52
    closable: float = -3.91
    dead: float = -1.76
    idle: float = -2.67
    stranded: float = -0.5
    whole: float = -4.74
    blocks: float = 6.47
    closed: float = 1.11
    fgd: float = 12.26
    order: float = -4.71
    whole_on_large: float = 1.3
    share_on_large: float = -2.01
    cpu_on_gpu: float = 4.42
    lean_on_rich: float = 2.66
    bid: float = -11.11

    def weights(self) -> Float:
        """(F,) as the core reads them."""
        return np.array(self, np.float64)


assert ClusterPrices._fields == TERMS

PUBLISHED = ClusterPrices(**dict.fromkeys(TERMS, 0.0) | {"fgd": 10.0, "order": 0.1})  # rounding and node order included
FGD = PUBLISHED.weights()
ALONE = ClusterPrices(  # evolved on the default trace's own pods and on other mixes of them, by the command in
    # docs/cluster.md: they never saw gpushare100
    2.9, 7.18, 6.59, 2.19, 2.9, 7.02, 0.19, -2.12, -0.2, 0.82, 1.28, -3.15, 0.95, -0.86,
    0.39, -3.31, 1.47, -2.84, 2.3, 1.13, 1.93,
)  # fmt: skip
WIDTHS = dict.fromkeys(TERMS, 4.0) | {
    "fgd": 16.0, "fill": 16.0, "price": 8.0, "fill_gpu": 8.0, "fragments": 8.0, "gpu_square": 16.0, "cpu_square": 8.0,
    "bid": 8.0,
}  # fmt: skip
SPACE = {
    name: (value - WIDTHS[name] / 2, value + WIDTHS[name] / 2, False)
    for name, value in ClusterPrices()._asdict().items()
}
