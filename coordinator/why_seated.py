r"""Why an agent has its place, or none: the explanation where stable admission decided who is served.

A holder compares the options on which a place of its own fits beside the others' floors. With :math:`\Delta_r` what it
adds to a resource's least delay (:mod:`games.floor_replies`) an option costs it

.. math:: private_i(o) + \sum_r \tfrac12 (\Delta_r + w_{ir}^2 / C_r)
          + \sum_r \tfrac{toll_r}{2} (\Delta_r - w_{ir}^2 / C_r) + learned_i(o) + hysteresis_i(o)

in parts: private, congestion, toll, and the tilt. While no floor binds, :math:`\Delta = w (w + 2 L) / C` with L the
others' load, and this is the split of the game without floors. An option on which nothing fits is shown with those
costs too, but cannot be had: its total is infinite, and the reason says what it lacks.

An agent that is left out compares nothing: on every option that it accepts, what its own class and those above hold
leaves too little room. The reason gives the numbers; what would admit it is the problem's to say (``admits``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from coordinator.tables import apart
from coordinator.why import (
    HAIR,
    NUMBERS,
    PARTS,
    Change,
    Names,
    WhatIf,
    Why,
    changed_costs,
    changed_game,
    confirmed,
    least_changes,
    parts_that_decided,
    sentence,
    start_of,
    tilt_of,
)
from games.admission import Seating
from games.certificate import Audit
from games.certificate_places import measure_fitting_regret
from games.congestion import Bool, CongestionGame, Float
from games.places import Places, Seats, Table
from games.seated import delays, offers, reseat, respond, seats_of, table_of

NAMED = 4  # options named in a reason


def explain_seated(
    game: CongestionGame,
    places: Places,
    seating: Seating,
    agent: int,
    log_prior: Float,
    trust: float,
    limit: float,
    anchor: Float | None = None,
    served: bool = False,
    names: Names = NUMBERS,
) -> Why:
    """Why ``agent`` has its place in ``seating``, or has none.

    Args:
        game: as it was played. places, seating: of one game (E = 1), at rest; see :func:`games.admission.admit`.
        log_prior: (N, O) as merged. trust: of the step, > 0. limit: of the clip. anchor: (N, O) hysteresis charged.
        served: it is in time with what it was given, place or none. names: for the text.
    """
    tilt = tilt_of(log_prior, trust, anchor)
    t = table_of(game.batch(), places, tilt[None])
    z = seats_of(t, seating)
    taken, held, allowed = int(z.option[agent]), bool(z.held[agent]), game.allowed[agent]
    offered = offers(t, z, agent)
    own = t.rows[agent * t.own]  # (O, S)
    r, on = np.maximum(own, 0), own >= 0
    per_leg = (offered.added + offered.own) / 2, game.toll[r] / 2 * (offered.added - offered.own)
    paid = np.zeros((len(own), len(game.capacity)))  # (O, R)
    np.add.at(paid, (np.nonzero(on)[0], own[on]), (per_leg[0] + per_leg[1])[on])
    parts = {
        "private": game.private_cost[agent].copy(), "congestion": per_leg[0].sum(axis=1),
        "toll": per_leg[1].sum(axis=1),
        "learned": -log_prior[agent] / trust if np.isfinite(trust) else np.zeros(len(own)),
        "hysteresis": np.zeros(len(own)) if anchor is None else anchor[agent].copy(),
    }  # fmt: skip
    would = np.where(allowed, sum(parts.values()), np.inf)
    total = np.where(offered.fits | (np.arange(len(would)) == taken), would, np.inf)
    gap = total - total[taken]
    cost = parts["private"] + parts["congestion"] + parts["toll"]
    rows = [
        {"option": o, "name": names.option(o), "cost": float(cost[o]) if allowed[o] else np.inf}
        | {p: float(parts[p][o]) for p in PARTS}
        | {"total": float(total[o]), "chosen": o == taken, "allowed": bool(allowed[o]), "fits": bool(offered.fits[o]),
           "admits": float(max(gap[o], 0.0))}
        for o in range(len(would))
    ]  # fmt: skip
    rows.sort(key=lambda row: (row["total"], not row["chosen"], not row["allowed"], row["cost"]))
    if allowed.sum() == 1:
        only = "it is the only option that is allowed"
        return Why(agent, taken, rows, (("reach", taken),), only, (), names=names)
    if not held:
        why, reason = _left_out(t, z, agent, taken, served, names)
        return Why(agent, taken, rows, ((why, taken),), reason, (), names=names)
    kept_from = _kept_from(t, z, agent, would, offered.room, names)
    decided = parts_that_decided(parts, paid, offered.fits, taken)
    alone = offered.fits.sum() == 1
    reason = "it is the only option with a place that fits" if alone else sentence(decided, parts, gap, taken, names)
    changes = confirmed(
        least_changes(game, agent, taken, gap, log_prior[agent], trust, limit, paid),
        lambda change: check(game, places, seating, agent, tilt, trust, change),
    )
    found = tuple((name, o) for name, o, _ in kept_from)
    reason = "; ".join([reason, *(text for *_, text in kept_from[:NAMED])])
    named = tuple(replace(change, names=names) for change in changes)
    return Why(agent, taken, rows, found + decided or (("room", taken),) * bool(alone), reason, named, names=names)


def check(
    game: CongestionGame, places: Places, seating: Seating, agent: int, tilt: Float, trust: float, change: Change
) -> bool:
    """Solved again under the floors: does nobody move a hair short of ``change``, and the agent's first reply a hair
    beyond it go to its option?"""
    batch = game.batch()
    present = np.abs((game.private_cost + tilt)[agent]).max(initial=0.0) + np.abs(change.amount)
    option = []
    for hair, sweeps in ((-HAIR, 200), (HAIR, 1)):
        private = changed_costs(game, agent, tilt, trust, change, hair, least=1e-8 * (1.0 + present))
        option.append(respond(batch._replace(private_cost=private[None]), places, seating, sweeps=sweeps).option[0])
    return bool((option[0] == seating.option[0]).all() and option[1][agent] == change.option)


def what_if_seated(
    game: CongestionGame,
    places: Places,
    seating: Seating,
    tilt: Float,
    capacity: Mapping[int, float] | None = None,
    toll: float | None = None,
    private: Mapping[tuple[int, int], float] | None = None,
    forbid: Mapping[int, int] | None = None,
    without: int | None = None,
) -> WhatIf:
    """Go on from a seating in a changed game: holders keep the places that still serve them, reply under the floors,
    and who is out is seated where that is possible now (:func:`games.seated.reseat`).

    Changes as in :func:`coordinator.why.what_if`. A resource's capacity also changes the time that legs take on it, and
    so the floors; an agent that leaves gives its place up and costs nothing. The regret is over moves that fit,
    measured by the certificate's code; the social cost is that of the least delays under the floors and the private
    costs: of who holds no place the private cost alone.

    Raises:
        InvalidGameError: a change that is no game. IndexError: an agent, option or resource that does not exist.
    """
    changed = changed_game(game, capacity, toll, private, forbid, without)
    tilted = replace(changed, private_cost=changed.private_cost + np.where(changed.allowed, tilt, 0.0))
    rows = game.options
    seconds = places.seconds.copy()
    for r, factor in (capacity or {}).items():
        seconds[..., rows == r % len(game.capacity)] /= factor
    before, after = _worth_it(game), _worth_it(changed)
    acceptable = np.where(before == after, places.acceptable[0], after)
    acceptable[:, 0] = places.acceptable[0][:, 0]
    acceptable[places.home[0], 1:] = places.acceptable[0][places.home[0], 1:]
    acceptable &= changed.allowed
    was = seating.option[0]
    start = start_of(tilted, was)
    live = np.ones((1, game.agents), bool)
    here = Seating(start[None], seating.held.copy(), seating.floor.copy(), seating.stable)
    here.held[0] &= places.home[0] | (start == was)
    if without is not None:
        live[0, without] = here.held[0, without] = False
        start[without], acceptable[without] = 0, False
    now = places._replace(seconds=seconds, acceptable=acceptable[None])
    batch = tilted.batch()._replace(live=live)
    found = reseat(batch, now, here)
    moved = found.option[0] != was
    if without is not None:
        moved[without] = False
    regret = measure_fitting_regret(_audit(tilted, now, found, live[0]))
    costs = tuple(_social(g, p, s) for g, p, s in ((game, places, seating), (changed, now, found)))
    if without is not None:
        costs = costs[0], costs[1] - float(changed.private_cost[without, 0])
    return WhatIf(found.option[0], tuple(np.flatnonzero(moved).tolist()), regret, (costs[0], costs[1]), found.held[0])


def _worth_it(game: CongestionGame) -> Bool:
    """(N, O) options that are allowed and cost, alone, no more than opting out."""
    on = game.options >= 0
    alone = (game.weight**2 / game.capacity)[:, np.maximum(game.options, 0)]
    return game.allowed & (game.private_cost + np.where(on, alone, 0.0).sum(axis=2) <= game.private_cost[:, :1])


def _social(game: CongestionGame, places: Places, seating: Seating) -> float:
    t = table_of(game.batch(), places)
    private = game.private_cost[np.arange(game.agents), seating.option[0]]
    return float(delays(t, seats_of(t, seating)).sum() + private.sum())


def _audit(game: CongestionGame, places: Places, seating: Seating, live: Bool) -> Audit:
    none = np.zeros(game.agents, bool)
    floor = seating.floor[0]
    return Audit(
        game.options, game.weight, game.capacity, game.private_cost, game.allowed, game.toll, live, none, none,
        np.ascontiguousarray(places.seconds[0]), places.slack[0], places.cap[0], places.acceptable[0],
        places.home[0] & live, places.rank[0], seating.option[0], seating.held[0], floor, floor,
    )  # fmt: skip


# --- what an option lacks, in words


def _kept_from(
    t: Table, z: Seats, agent: int, would: Float, room: Float, names: Names
) -> list[tuple[str, int, str]]:  # fmt: skip
    """Options that would cost a holder less than its own and that it cannot have: what keeps it from them, the option,
    and that in a sentence."""
    if t.home[agent]:
        return []
    now, found = would[z.option[agent]], []
    for o in np.argsort(would, kind="stable"):
        gain = now - would[o]
        if not gain > 1e-9 * (1 + abs(now)):
            break
        if o == 0:
            said = f"opting out would cost {gain:.4g} less, but a place that serves it comes first"
            found.append(("promise", 0, said))
        elif not t.ok[agent, o]:
            said = f"{names.option(o)} would cost less as things are, but even alone it costs more than opting out"
            found.append(("acceptance", int(o), said))
        elif (lack := what_lacks(t, agent, o, room[o], names)) is not None:
            found.append(("room", int(o), f"{names.option(o)} would cost less but has no room: {lack}"))
    return found


def _left_out(t: Table, z: Seats, agent: int, taken: int, served: bool, names: Names) -> tuple[str, str]:
    """What decided, and the reason of an agent without a place."""
    so = "it opts out" if taken == 0 else f"it has {names.option(taken)} with what the floors leave"
    so += ", and is in time with that, without a promise" if served else ""
    options = np.flatnonzero(t.ok[agent]).tolist()
    if not options:
        return "acceptance", f"left out: even alone, every option costs it more than opting out; {so}"
    above = np.zeros(len(t.capacity))
    every, own = np.arange(len(z.option)), t.rows[agent * t.own]
    for s in range(own.shape[1]):
        r = t.rows[every * t.own, z.option, s]
        on = np.flatnonzero(z.held & (t.rank <= t.rank[agent]) & (r >= 0))
        np.add.at(above, r[on], z.floor[on, s])
    room = np.where(own >= 0, 1.0 - above[np.maximum(own, 0)], 1.0)
    found = [(_shortfall(t, agent, o, room[o]), o, what_lacks(t, agent, o, room[o], names)) for o in options]
    said = [f"{names.option(o)}: {lack}" for _, o, lack in sorted(found, key=lambda x: x[:2]) if lack is not None]
    more = f"; and {len(said) - NAMED} more" if len(said) > NAMED else ""
    rule = "left out: on every option it would accept, what its own class and those above hold leaves too little room"
    return "room", f"{rule} ({'; '.join(said[:NAMED])}{more}); {so}"


def _shortfall(t: Table, agent: int, o: int, room: Float) -> float:
    """Time that the legs of option o take with all of ``room`` (S,), over what they may take."""
    time = float(_times(t, agent, o, room).sum())
    return time / t.slack[agent, o] if t.slack[agent, o] > 0 else np.inf


def _times(t: Table, agent: int, o: int, share: Float) -> Float:
    """(S,) s that each leg takes with ``share``, at most what the agent may have of it."""
    seconds, most = t.seconds[agent, o], np.minimum(share, t.cap[agent, o])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(seconds > 0, np.where(most > 1e-9, seconds / most, np.inf), 0.0)


def what_lacks(t: Table, agent: int, o: int, room: Float, names: Names = NUMBERS) -> str | None:
    """Why no place of ``agent`` fits on option o in ``room`` (S,), with numbers; None if one does."""
    slack, seconds, cap = float(t.slack[agent, o]), t.seconds[agent, o], float(t.cap[agent, o])
    if slack <= 0:
        return "its deadline ends before work there could begin"
    time = _times(t, agent, o, room)
    if time.sum() <= slack:
        return None
    alone = _times(t, agent, o, np.ones(len(room)))
    if alone.sum() > slack:
        limit = f" with the {cap:.3g} of a resource that its power allows" if cap < 1 else ""
        took, left = apart(float(alone.sum()), slack)
        return f"even alone it takes {took} s there{limit}, {left} s are left"
    others = np.array([alone.sum() - alone[s] for s in range(len(room))])  # at best
    need = np.where(seconds > 0, seconds / np.maximum(slack - others, 1e-300), 0.0)
    s = int(np.argmax(np.where(seconds > 0, need / np.maximum(np.minimum(room, cap), 1e-12), 0.0)))
    least = "" if (seconds > 0).sum() == 1 else "at least "
    if need[s] <= min(room[s], cap):  # each leg would fit if the others had all they may have
        took, left = apart(time.sum(), slack)
        return f"with all that is left there it takes {took} s, {left} s are left until its deadline"
    if cap < room[s]:
        asked, has = apart(need[s], cap)
        return f"it needs {least}{asked} of {names.resource(t.rows[agent * t.own, o, s])}, its power allows {has}"
    asked, has = apart(need[s], max(room[s], 0.0))
    return f"it needs {least}{asked} of {names.resource(t.rows[agent * t.own, o, s])}, {has} is left"
