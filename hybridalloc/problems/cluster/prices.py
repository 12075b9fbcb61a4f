"""What the game charges: weights of the potential's terms, found by evolution on training streams."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from games.congestion import Float
from hybridalloc.problems.cluster.core import TERMS


class ClusterPrices(NamedTuple):
    """A weight a term; see :mod:`.core` for what each measures.

    The defaults repeat the published rule: a level of fragmentation is .4, the order of the nodes less than one.
    """

    fragments: float = 0.0
    gpu_square: float = 0.0
    cpu_square: float = 0.0
    partial: float = 0.0
    fill: float = 0.0
    price: float = 0.0
    fill_gpu: float = 0.0
    closable: float = 0.0
    dead: float = 0.0
    idle: float = 0.0
    stranded: float = 0.0
    whole: float = 0.0
    blocks: float = 0.0
    closed: float = 0.0
    fgd: float = 10.0
    order: float = 0.1
    whole_on_large: float = 0.0
    share_on_large: float = 0.0
    cpu_on_gpu: float = 0.0
    lean_on_rich: float = 0.0
    bid: float = 0.0

    def weights(self) -> Float:
        """(F,) as the core reads them."""
        return np.array(self, np.float64)


assert ClusterPrices._fields == TERMS

PUBLISHED = ClusterPrices(**dict.fromkeys(TERMS, 0.0) | {"fgd": 10.0, "order": 0.1})  # rounding and node order included
FGD = PUBLISHED.weights()
WIDTHS = dict.fromkeys(TERMS, 4.0) | {
    "fgd": 16.0, "fill": 16.0, "price": 8.0, "fill_gpu": 8.0, "fragments": 8.0, "gpu_square": 16.0, "cpu_square": 8.0,
    "bid": 8.0,
}  # fmt: skip
SPACE = {
    name: (value - WIDTHS[name] / 2, value + WIDTHS[name] / 2, False)
    for name, value in ClusterPrices()._asdict().items()
}
