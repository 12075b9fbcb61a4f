"""The planted faults of ``attack.py``: put into a settled answer, or into the code that leads to it."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.attacks.checker import findings, least
from benchmarks.attacks.steps import custom_example
from coordinator import congestion as merging
from hybridalloc import Allocator, make_problem
from hybridalloc.problems.custom import shares as custom_shares
from hybridalloc.problems.custom.world import CustomWorld
from hybridalloc.problems.mec import build, settling

UNTRUE = ("limit", "infeasible", "served", "unserved", "regret", "envy")  # findings that no certificate may leave
ONLY_MEC = {
    "all the power that a device can send with", "an agent that opted out has a fraction", "a fraction of 2",
}  # fmt: skip
CORRECTED = {"who is served said not to be"}  # what the certificate works out for itself: nothing is left to say


def faults() -> dict[str, Any]:
    """Name -> what it does to the fields of a settled allocation (``parts``), in place; ``s`` is the state."""

    def at(kind: str) -> Any:
        def chosen(p: Any) -> int:
            used = [i for i in np.flatnonzero(p["option"] > 0) if p["shares"]["cpu"][i] > 0]
            held = [i for i in used if p["held"][i] and p["floors"]["cpu"][i] > 0]
            return int({"used": used, "held": held, "out": np.flatnonzero(p["option"] == 0)}[kind][0])

        return chosen

    def put(field: str, value: Any, kind: str = "used", part: str | None = None) -> Any:
        def fault(p: Any, s: Any) -> None:
            target = p[field] if part is None else p[field][part]
            i = at(kind)(p)
            target[i] = value(target[i]) if callable(value) else value

        return fault

    def scaled(field: str, factor: float) -> Any:
        def fault(p: Any, s: Any) -> None:
            for name in p[field]:
                p[field][name] *= factor

        return fault

    def swapped(p: Any, s: Any) -> None:
        i, j = at("held")(p), at("out")(p)
        p["shares"]["cpu"][[i, j]] = p["shares"]["cpu"][[j, i]]

    def nobody(p: Any, s: Any) -> None:
        i = at("held")(p)
        for name in p["shares"]:
            p["shares"][name][i] = p["floors"][name][i] = 0.0
        p["option"][i], p["held"][i], p["power"][i], p["fraction"][i] = 0, False, 0.0, 0.0

    def doubled(p: Any, s: Any) -> None:
        k = p["option"][at("used")(p)]
        p["shares"]["air"][p["option"] == k] *= 2

    def crowd(p: Any, s: Any) -> None:
        p["option"][:] = np.where(s.active, 1, 0)

    def all_served(p: Any, s: Any) -> None:
        p["served"][:] = True
        for name in p["shares"]:
            p["shares"][name] *= 0.01

    def drained(p: Any, s: Any) -> None:
        """As much power as is permitted, whatever the battery or the limit of one's own holds."""
        s = getattr(s, "power_limit_w", np.ones(len(p["power"])))
        p["power"][p["option"] > 0] = np.minimum(1.0, 2 * s)[p["option"] > 0]

    def denied(p: Any, s: Any) -> None:
        p["served"][:] = False

    def short(p: Any, s: Any) -> None:
        p["option"] = p["option"][:-1]

    def real(p: Any, s: Any) -> None:
        p["option"] = p["option"] + 0.5

    def unreachable(p: Any, s: Any) -> None:
        i = next(i for i in np.flatnonzero(p["option"] > 0) if i % 3 == 0)  # these do not reach everything
        may = s.reachable if hasattr(s, "reachable") else s.allowed[:, 1:]
        p["option"][i] = 1 + int(np.flatnonzero(~may[i])[0])

    def dear(p: Any, s: Any) -> None:
        for name in p["floors"]:
            p["floors"][name] *= 3

    def crammed(p: Any, s: Any) -> None:
        on = p["held"] & (p["option"] > 0)
        for family in p["floors"]:
            p["floors"][family][on] = p["shares"][family][on] = 0.9

    def tall(p: Any, s: Any) -> None:
        p["shares"]["cpu"] = p["shares"]["cpu"][:, None]

    return {
        "all shares 0, everybody said to be served": scaled("shares", 0.0),
        "all shares a hundredth": all_served,
        "an agent that opted out holds a share": put("shares", 0.2, "out", "cpu"),
        "an agent that opted out sends": put("power", 0.1, "out"),
        "an agent that opted out has a fraction": put("fraction", 0.5, "out"),
        "a share is NaN": put("shares", np.nan, part="air"),
        "a share is negative": put("shares", -0.1, part="cpu"),
        "a share is infinite": put("shares", np.inf, part="cpu"),
        "a share above one": put("shares", 1.5, part="air"),
        "shares of a band doubled": doubled,
        "shares swapped with one who opted out": swapped,
        "power is NaN": put("power", np.nan),
        "power above its limit": put("power", 1.5),
        "power is negative": put("power", -0.1),
        "power told 0": put("power", 0.0, "held"),
        "a fraction of 2": put("fraction", 2.0),
        "a fraction is NaN": put("fraction", np.nan),
        "a price is NaN": lambda p, s: p["prices"]["cpu"].__setitem__(0, np.nan),
        "a price is negative": lambda p, s: p["prices"]["air"].__setitem__(0, -1.0),
        "an option out of range": put("option", 99),
        "an option below 0": put("option", -1),
        "an option out of reach": unreachable,
        "all the power that a device can send with": drained,
        "who is served said not to be": denied,
        "options of another length": short,
        "options that are no whole numbers": real,
        "everybody on one server, shares as they were": crowd,
        "floors three times the shares": dear,
        "floors that sum to more than there is": crammed,
        "shares in a list of lists": tall,
        "a floor is NaN": put("floors", np.nan, "held", "cpu"),
        "a floor of one who holds no place": lambda p, s: p["held"].__setitem__(at("held")(p), False),
        "a holder's share a tenth": put("shares", lambda x: 0.1 * x, "held", "cpu"),
        "a holder put out, a lower class kept": nobody,
    }


def examples(name: str) -> list[tuple[Any, Any]]:
    """Problems and states of two to four classes, the first one crowded, the others less and less."""
    if name == "custom":
        return [custom_example(n, seed) for n in (18, 9) for seed in range(8)]
    out = []
    for servers in (2, 3, 4):
        problem = make_problem("mec", agents=40, servers=servers, load=1.0, bursts=False)
        state = problem.reset(3)
        agent = np.arange(40)
        reach = state.reachable.copy()
        reach[agent % 3 == 0, 1:] = False
        battery = np.where(agent % 4 == 0, 0.002, 1.0)
        sla = np.where(agent % 2, 1.0, 0.0)
        out.append((problem, replace(state, reachable=reach, battery_j=battery, sla=sla)))
    return out


def plant() -> Counter[str]:
    """Every fault in turn, on both problems; those that are not caught are counted, "# ...": those planted.

    A fault in an answer is put into that to the first example. A fault in code is tried on all: where a promise is then
    broken the certificate has to say so, and somewhere one has to be.
    """
    found: Counter[str] = Counter()
    for name in ("mec", "custom"):
        some = examples(name)
        problem, state = some[0]
        batch_type = type(problem.world_at(state))
        parts = batch_type.parts
        for fault, change in faults().items():
            if name == "custom" and fault in ONLY_MEC:
                continue

            def spoil(self: Any, plan: Any, change: Any = change, parts: Any = parts, state: Any = state) -> Any:
                out = deepcopy(parts(self, plan))
                change(out, state)
                return out

            found[f"# in answers of {name}"] += 1
            said = _try(found, fault, problem, state, batch_type, "parts", spoil, "hybrid")
            if said is False and fault not in CORRECTED:
                found[f"{name}, {fault}: not caught"] += 1
        for fault, (owner, attribute, code) in _wrong_code(problem).items():
            found[f"# in the code of {name}"] += 1
            caught = [_try(found, fault, *one, owner, attribute, code, "game") for one in some]
            if not any(caught):
                found[f"{name}, {fault}: breaks nothing"] += 1
    return found


def _try(
    found: Counter[str], name: str, problem: Any, state: Any, owner: Any, attribute: str, code: Any, method: str
) -> bool | None:
    """One step with ``code`` in place of what ``owner`` has under that name; whether the certificate says something."""
    right = getattr(owner, attribute)
    setattr(owner, attribute, code)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            a = Allocator(problem, method).step(state)
    except Exception as error:
        found[f"{problem.name}, {name}: raised {type(error).__name__}: {error}"] += 1
        return None
    finally:
        setattr(owner, attribute, right)
    c = a.certificate
    json.dumps(a.to_dict(), allow_nan=False)
    said = not c.status.startswith("ok")
    for line in findings(problem, state, a, problem.card.prices()):
        if line.split(":")[0] in UNTRUE or not said:
            found[f"{problem.name}, {name}: {line}"] += 1
    return said


def _wrong_code(problem: Any) -> dict[str, tuple[Any, str, Callable[..., Any]]]:
    """Name -> owner, attribute and what stands there instead: another game, another settling, another admission."""
    admit = merging.admit

    def upside_down(game: Any, places: Any, *rest: Any) -> Any:
        return admit(game, places._replace(rank=places.rank.max() - places.rank), *rest)

    def overlooked(game: Any, places: Any, *rest: Any) -> Any:
        """The highest class is taken to accept nothing."""
        return admit(game, places._replace(acceptable=places.acceptable & (places.rank > 0)[..., None]), *rest)

    def hasty(game: Any, places: Any, *rest: Any) -> Any:
        return admit(game, places._replace(slack=3 * places.slack), *rest)

    def dearest(game: Any, places: Any, *rest: Any) -> Any:
        """Holders moved to the dearest place that fits."""
        z = admit(game, places, *rest)
        for i in np.flatnonzero(z.held[0] & ~places.home[0]):
            room = np.ones(game.weight.shape[2])
            for j in np.flatnonzero(z.held[0]):
                for leg, r in enumerate(game.options[z.option[0, j]]):
                    room[r] -= z.floor[0, j, leg] if r >= 0 and j != i else 0.0
            for o in np.argsort(-game.private_cost[0, i]):
                if o and places.acceptable[0, i, o]:
                    free = np.minimum(room[game.options[o]], places.cap[0, i, o])
                    own = least(places.seconds[0, i, o], places.slack[0, i, o], free)
                    if own is not None:
                        z.option[0, i], z.floor[0, i] = o, own
                        break
        return z

    out: dict[str, tuple[Any, str, Callable[..., Any]]] = {
        "classes upside down": (merging, "admit", upside_down),
        "the highest class overlooked": (merging, "admit", overlooked),
        "places for three times the slack": (merging, "admit", hasty),
        "holders at the dearest place that fits": (merging, "admit", dearest),
    }
    if problem.name == "mec":
        fill, settle = build.fill_game, settling.settle

        def reversed_costs(p: Any, w: Any, prices: Any, weight: Any, capacity: Any, private: Any, allowed: Any) -> None:
            fill(p, w, prices, weight, capacity, private, allowed)
            private[:] = private[..., ::-1]

        def larger(p: Any, w: Any, prices: Any, weight: Any, capacity: Any, *rest: Any) -> None:
            fill(p, w, prices, weight, capacity, *rest)
            capacity[:, -1] *= 50

        def settled(**changes: Callable[[Any], Any]) -> Any:
            def wrong(p: Any, w: Any, *rest: Any) -> None:
                settle(p, w._replace(**{name: f(getattr(w, name)) for name, f in changes.items()}), *rest)

            return wrong

        return out | {
            "another game: private costs reversed": (build, "fill_game", reversed_costs),
            "another game: a server fifty times as fast": (build, "fill_game", larger),
            "settled for three times the deadline": (settling, "settle", settled(deadline_s=lambda x: 3 * x)),
            "settled without the queues": (settling, "settle", settled(cpu_wait_s=lambda x: x - 0.02)),
            "settled for rates five times as high": (settling, "settle", settled(rates=lambda x: 5 * x)),
            "settled for servers ten times as fast": (settling, "settle", settled(server_hz=lambda x: 10 * x)),
        }
    game, split = CustomWorld.game, custom_shares._split

    def reversed_game(self: Any, prices: Any) -> Any:
        g = game(self, prices)
        return g._replace(private_cost=np.ascontiguousarray(g.private_cost[..., ::-1]))

    def slow_game(self: Any, prices: Any) -> Any:
        g = game(self, prices)
        return g._replace(capacity=g.capacity * np.where(np.arange(6) == 0, 1e-4, 1.0))

    def floorless(resource: Any, weight: Any, floor: Any, cap: Any, count: int) -> Any:
        return split(resource, weight, 0 * floor, cap, count)

    def capless(resource: Any, weight: Any, floor: Any, cap: Any, count: int) -> Any:
        return split(resource, weight, floor, np.full(cap.shape, np.inf), count)

    return out | {
        "another game: private costs reversed": (CustomWorld, "game", reversed_game),
        "another game: a resource ten thousand times as slow": (CustomWorld, "game", slow_game),
        "settled without floors": (custom_shares, "_split", floorless),
        "settled without the power limits": (custom_shares, "_split", capless),
    }
