"""Where servers and devices of ``mec`` stand: near-hexagonal sites, or Melbourne's base stations and users."""

from __future__ import annotations

from typing import Any

import numpy as np

from games.congestion import Float, Int

SITES = ("synthetic", "eua")
SITE_SIDE_M = 1000.0  # synthetic: 9 servers a square kilometre


def draw_sites(kind: str, n: int, k: int, rng: np.random.Generator) -> tuple[Float, Float]:
    """Server sites (K, 2) and device positions (N, 2) in m, of a ``kind`` in :data:`SITES`."""
    if kind == "synthetic":
        side = SITE_SIDE_M * np.sqrt(k / 9)
        return _hexagonal(k, side), rng.uniform(0, side, (n, 2))
    sites, users = _eua(k)
    if n <= len(users):
        return sites, users[rng.choice(len(users), n, replace=False)]
    return sites, users[rng.integers(0, len(users), n)] + rng.normal(0, 10.0, (n, 2))


_CACHE: dict[Any, Any] = {}


def _hexagonal(k: int, side: float) -> Float:
    """Near-hexagonal sites: Lloyd's algorithm on a fine grid."""
    if (k, side) not in _CACHE:
        rng = np.random.default_rng(0)
        grid = np.stack(np.meshgrid(*[np.linspace(0, side, 40)] * 2), -1).reshape(-1, 2)
        _CACHE[k, side] = _lloyd(grid, grid[rng.choice(len(grid), k, replace=False)])
    return np.asarray(_CACHE[k, side])


def _eua(k: int) -> tuple[Float, Float]:
    """K of the 125 base stations, chosen to be near the users, and all user positions."""
    if ("eua", k) not in _CACHE:
        from hybridalloc.data.registry import eua_sites

        sites, users = eua_sites()
        if k > len(sites):
            raise ValueError(f"servers = {k}; the EUA data has {len(sites)} base stations")
        left = list(range(len(sites)))
        distance = ((users[:, None] - sites[None]) ** 2).sum(-1)
        chosen: list[int] = []
        nearest = np.full(len(users), np.inf)
        for _ in range(k):  # greedy k-median: the station that lowers the users' total squared distance most
            gain = [np.minimum(nearest, distance[:, j]).sum() for j in left]
            best = left.pop(int(np.argmin(gain)))
            chosen.append(best)
            nearest = np.minimum(nearest, distance[:, best])
        _CACHE["eua", k] = sites[chosen], users
    sites, users = _CACHE["eua", k]
    return sites, users


def _lloyd(points: Float, centres: Float) -> Float:
    for _ in range(25):
        owner = ((points[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
        centres = np.array([points[owner == j].mean(0) if (owner == j).any() else c for j, c in enumerate(centres)])
    return centres


def reuse_groups(site: Float, groups: int) -> Int:
    """Servers in turn take the group whose nearest member is farthest away: neighbours differ."""
    key = ("reuse", site.tobytes(), groups)
    if key not in _CACHE:
        out = np.zeros(len(site), np.int64)
        for j in range(1, len(site) if groups > 1 else 0):
            d = ((site[:j] - site[j]) ** 2).sum(-1)
            out[j] = int(np.argmax([d[out[:j] == g].min(initial=np.inf) for g in range(groups)]))
        _CACHE[key] = out
    return np.asarray(_CACHE[key])
