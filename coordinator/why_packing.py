"""Why an agent holds its place, or none, where places are had whole or not at all.

A holder has the cheapest of the places that fit beside the others; a dearer one because what is cheaper has too little
room, which the reason tells in numbers. Who holds none accepts none, or none has room beside what its class and those
above hold and, in its own class, what is not worth less. For another place that fits to win, its private cost has to
fall by what it is dearer: that is checked by looking again, a hair short of it and a hair beyond.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coordinator.tables import apart
from coordinator.why import HAIR, NUMBERS, Change, Names, WhatIf, Why
from games.congestion import Bool, Float, Int
from games.errors import InvalidGameError
from games.packing import Packing, pack
from games.packing_certificate import certify_packing

SHOWN = 3  # options named in a reason


def explain_packing(
    game: Packing, choice: Int, agent: int, log_prior: Float, trust: float, rule: str | None = None,
    names: Names = NUMBERS,
) -> Why:  # fmt: skip
    """Why ``agent`` has ``choice[agent]``.

    Args:
        game: as it was played. log_prior: (N, O) as merged. trust: of the step. rule: a heuristic that chose instead.
        names: for the text.
    """
    taken, options = int(choice[agent]), game.private.shape[1]
    use = np.stack([_use(game, agent, o) for o in range(options)])
    others = sum((_use(game, j, int(o)) for j, o in enumerate(choice) if j != agent), np.zeros(len(game.capacity)))
    room = np.maximum(game.capacity - others, 0.0)
    allowed = game.ok[agent].copy()
    allowed[0] = True
    fits = allowed & (use <= room * (1 + 1e-9) + 1e-12).all(-1)
    curve = np.array([_potential(game, others + part) for part in use]) - _potential(game, others)
    learned = -log_prior[agent] / trust if 0 < trust < np.inf and log_prior.shape[1] == options else np.zeros(options)
    total = np.where(allowed, game.private[agent] + curve + learned, np.inf)
    could = fits.copy()
    could[0] = taken == 0
    gap = np.where(could, total - total[taken], np.inf)
    rows: list[dict[str, Any]] = [
        {"option": o, "name": names.option(o), "cost": float(game.private[agent, o] + curve[o]),
         "private": float(game.private[agent, o]), "congestion": float(curve[o]), "toll": 0.0,
         "learned": float(learned[o]), "hysteresis": 0.0, "total": float(total[o]), "chosen": o == taken,
         "allowed": bool(allowed[o]), "fits": bool(fits[o]), "admits": float(max(gap[o], 0.0))}
        for o in range(options)
    ]  # fmt: skip
    rows.sort(key=lambda row: (not row["chosen"] and not row["fits"], row["total"], not row["chosen"]))
    decided, reason = _reason(game, agent, taken, use, room, total, fits, allowed, rule, names)
    changes = []
    if taken and rule is None:
        for o in np.flatnonzero(could & (np.arange(options) != taken)).tolist():
            by = -float(gap[o])
            win = lambda more, o=o: int(np.where(could, total + more * (np.arange(options) == o), np.inf).argmin()) == o
            hair = max(HAIR * abs(by), 1e-9)
            changes.append(Change("private cost", o, by, checked=win(by - hair) and not win(by + hair), names=names))
    ranked = tuple(sorted(changes, key=lambda change: abs(change.amount)))
    return Why(agent, taken, rows, ((decided, taken),), reason, ranked, names=names)


def _reason(
    game: Packing, agent: int, taken: int, use: Float, room: Float, total: Float, fits: Bool, allowed: Bool,
    rule: str | None, names: Names,
) -> tuple[str, str]:  # fmt: skip
    if rule is not None:
        return "rule", f"the rule {rule!r} chose it"
    if allowed.sum() == 1:
        return "reach", "it accepts no place"
    if taken and taken == game.stay[agent] and np.isinf(game.preempt[agent]):
        return "stay", "it stands there and is not to be moved"
    short = [o for o in np.flatnonzero(allowed & ~fits).tolist() if not taken or total[o] < total[taken]]
    named = "; ".join(_short(o, use[o], room, names) for o in sorted(short, key=lambda o: total[o])[:SHOWN])
    if taken:
        best = "of the places that fit beside the others it costs least"
        return ("room", f"{best}; cheaper would be: {named}") if named else ("private", best)
    return "room", f"none of {int(allowed.sum()) - 1} places has room beside those who come first: {named}"


def _short(o: int, use: Float, room: Float, names: Names) -> str:
    """What an option lacks."""
    r = int(np.argmax((use - room) / np.maximum(use, 1e-12)))
    need, left = apart(float(use[r]), float(room[r]))
    return f"{names.option(int(o))} takes {need} of {names.resource(r)}, of which {left} is left"


def _use(game: Packing, agent: int, o: int) -> Float:
    """(R,) what an agent takes on an option."""
    out, on = np.zeros(len(game.capacity)), game.rows[agent, o] >= 0
    np.add.at(out, game.rows[agent, o][on], game.demand[agent, o][on])
    return out


def _potential(game: Packing, used: Float) -> float:
    grid = np.linspace(0, 1, game.curve.shape[1])
    share = used / np.where(game.capacity > 0, game.capacity, np.inf)
    return float(sum(np.interp(x, grid, curve) for x, curve in zip(share, game.curve, strict=True)))


def what_if_packing(
    game: Packing, log_prior: Float, trust: float, capacity: Mapping[int, float] | None = None,
    toll: float | None = None, private: Mapping[tuple[int, int], float] | None = None,
    forbid: Mapping[int, int] | None = None, without: int | None = None,
) -> WhatIf:  # fmt: skip
    """The game as it was and changed, each played from where agents stood, prior included; who differs has moved.

    Args:
        game: as it was played. log_prior: (N, O) as merged. trust: of the step. The others as of
            :func:`coordinator.why.what_if`.

    Raises:
        InvalidGameError: a toll, or a capacity that is multiplied by less than 0 or by what is not finite.
        IndexError: an agent, option or resource that does not exist.
    """
    if toll is not None:
        raise InvalidGameError(f"toll = {toll}: places that are held whole pay none; change private costs instead")
    size, cost, ok = game.capacity.copy(), game.private.copy(), game.ok.copy()
    agents, options = cost.shape
    for r, factor in (capacity or {}).items():
        if not 0 <= factor < np.inf:
            raise InvalidGameError(f"capacity[{r}] is multiplied by {factor}; a factor is finite and >= 0")
        size[_index("resource", r, len(size))] *= factor
    for (i, o), more in (private or {}).items():
        cost[_index("agent", i, agents), _index("option", o, options)] += more
    for i, o in (forbid or {}).items():
        ok[_index("agent", i, agents), _index("option", o, options)] = False
    if without is not None:
        ok[_index("agent", without, agents)] = False
    changed = game._replace(capacity=size, private=cost, ok=ok)
    changed = changed._replace(stay=np.where(ok[np.arange(agents), game.stay], game.stay, 0))
    tilt = -log_prior / trust if 0 < trust < np.inf and log_prior.shape == cost.shape else np.zeros(cost.shape)
    tilted = lambda one: one._replace(private=np.where(one.ok | (np.arange(options) == 0), one.private + tilt, 0.0))
    before, after = (pack(tilted(one), trade=True).option for one in (game, changed))
    moved = tuple(np.flatnonzero(after != before).tolist())
    regret = certify_packing(tilted(changed), after).regret
    return WhatIf(after, moved, regret, (_social(game, before), _social(changed, after)), held=after > 0)


def _index(what: str, k: int, many: int) -> int:
    if not 0 <= k < many:
        raise IndexError(f"{what} {k}: there are {many}, 0 to {many - 1}")
    return int(k)


def _social(game: Packing, option: Int) -> float:
    """Private costs and what the load itself is worth."""
    i = np.arange(len(option))
    used = sum((_use(game, int(j), int(option[j])) for j in i), np.zeros(len(game.capacity)))
    return float(game.private[i, option].sum() + _potential(game, used))
