"""Whether a problem keeps the contract, asked before anything is run on it: its members, and one decision of a world.

What is missing or misshapen is named, with what it must give; see :mod:`hybridalloc.problems.contract` for the types.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from games.certificate import CapacityCheck
from games.congestion import CongestionBatch
from hybridalloc.errors import ContractError
from hybridalloc.problems.contract import Card, Facts
from hybridalloc.problems.metrics import Tally
from hybridalloc.text import printable, quoted
from rl.proposal import Observation

ROUNDING = 1e-9  # of a limit, relative

MEMBERS = {
    "card": "a hybridalloc.problems.contract.Card",
    "state_type": "the class of its states, with from_dict",
    "worlds": "worlds(seeds, belief=None) -> a World of len(seeds) worlds",
    "world_at": "world_at(state, memory=None) -> a World of one",
    "check": "check(state, allocation) -> a games.certificate.CapacityCheck, without violations of what settle gave",
    "describe": "describe() -> plain data that makes the problem again",
    "reset": "reset(seed=0) -> the first state of an episode",
    "evaluate": "evaluate(state, allocation) -> metrics by key",
    "advance": "advance(state, allocation, seed) -> the next state and metrics by key",
}
STATE_MEMBERS = {
    "agents": "N, a whole number",
    "active": "flags (N,): who has something to decide",
    "to_dict": "to_dict() -> plain data that JSON holds",
}
WORLD_MEMBERS = {
    "epoch": "whole numbers (E,): decisions since each world began",
    "size": "E, the number of worlds",
    "active": "flags (E, N): who has something to decide",
    "observe": "observe() -> a rl.proposal.Observation of finite features: agent (E, N, A), resource (E, R, S), pair "
    "(E, N, O, P), live (E, N), allowed (E, N, O) with option 0 always, resource_of (O,)",
    "game": "game(prices) -> E games of the agents and options observed, such as a games.congestion.CongestionBatch",
    "settle": "settle(option, prices, ...) -> a plan that fits by construction",
    "execute": "execute(plan) -> hybridalloc.problems.contract.Facts: reward (E, N), lost (E, N), carried (E, N, H), "
    "elapsed_s (E,) > 0, counts (E,), (E, N) or samples (E, any)",
    "drift": "drift() -> flags (E,): whose episode is over",
    "restart": "restart(which) -> None",
    "reseed": "reseed(seeds) -> None",
    "baseline": "baseline(name, rng) -> options, whole numbers (E, N)",
    "excess": "excess(plan) -> (E,) worst relative excess over a limit, at most 0 of what settle gave",
    "requested": "requested(option, prices) -> (E,) share of overloaded resources, from 0 to 1",
    "priority": "priority() -> (E, N)",
    "state": "state(e) -> world e as a state of the problem's state_type",
    "parts": "parts(plan, e=0) -> fields of an allocation: option (N,), served (N,), shares and prices by the card's "
    "families",
    "plan_of": "plan_of(allocation) -> a plan of one world",
    "state_dict": "state_dict() -> everything that the future depends on, by name",
    "load_state_dict": "load_state_dict(state) -> None; goes on from what state_dict gave",
}


def check_problem(problem: Any, name: str) -> Any:
    """``problem``, if it keeps the contract as far as one decision of one world shows.

    Raises:
        ContractError: a member of the problem, its card, its states or its worlds is missing, fails, or gives something
            else than it must; says which, what it gave and what it must give.
    """
    _Checked(problem, name).run()
    return problem


class _Checked:
    """One decision of one world, looked at step by step."""

    def __init__(self, problem: Any, name: str) -> None:
        self.problem, self.title = problem, f"problem {quoted(name)} ({type(problem).__name__})"

    def run(self) -> None:
        self._has(self.problem, self.title, MEMBERS)
        card = self._card(self._asked("card", lambda: self.problem.card))
        given = self._asked("describe", self.problem.describe)
        self._require("describe", isinstance(given, Mapping) and _is_json(given), given)
        self.world = self._asked("worlds", lambda: self.problem.worlds([0]))
        self._has(self.world, f"a world of {self.title}", WORLD_MEMBERS)
        state = self._state()
        self._decide(card, state)

    # --- what is there

    def _has(self, owner: Any, title: str, members: Mapping[str, str]) -> None:
        for member, gives in members.items():
            if getattr(type(owner), member, None) is None and getattr(owner, member, None) is None:
                raise ContractError(f"{title} has no {member!r}; it needs {gives}")

    def _card(self, card: Any) -> Card:
        self._require("card", isinstance(card, Card), card)
        keys = [metric.key for metric in card.metrics]
        twice = [key for k, key in enumerate(keys) if key in keys[:k]]
        lost = [key for key in card.headline if key not in keys]
        for wrong, what in (
            (twice, f"metrics has {twice} twice; keys are unique"),
            (not card.headline, f"headline is empty; it names the metrics that matter most, of {', '.join(keys)}"),
            (lost, f"headline names {lost}; its metrics are {', '.join(keys)}"),
        ):
            if wrong:
                raise ContractError(f"{self.title}: card.{what}")
        for metric in card.metrics:
            if metric.better not in ("higher", "lower"):
                raise ContractError(
                    f"{self.title}: card.metrics: {metric.key!r} is better {metric.better!r}; 'higher' or 'lower'"
                )
        self.prices = self._asked("card", lambda: card.prices())
        fields = getattr(self.prices, "_fields", ())
        for key, (low, high, logarithmic) in card.price_space.items():
            if key not in fields or not low < high or (logarithmic and low <= 0):
                raise ContractError(
                    f"{self.title}: card.price_space[{key!r}] = {(low, high, logarithmic)}; one of "
                    f"{', '.join(fields) or 'no prices'}, lowest < highest, and lowest > 0 on a logarithmic scale"
                )
        return card

    def _state(self) -> Any:
        state = self._asked("state", lambda: self.world.state(0))
        fits = isinstance(state, self.problem.state_type)
        self._require("state", fits, state)
        self._has(state, f"a state of {self.title}", STATE_MEMBERS)
        n = state.agents
        self._shaped("active", self.world.active, (1, n), bool)
        self._shaped("epoch", self.world.epoch, (1,), int)
        self._require("size", self.world.size == 1, self.world.size)
        self._shaped("priority", self._asked("priority", self.world.priority), (1, n))
        return state

    # --- one decision

    def _decide(self, card: Card, state: Any) -> None:
        world, prices, n = self.world, self.prices, state.agents
        options = self._observed(self._asked("observe", world.observe), n)
        game = self._asked("game", lambda: world.game(prices))
        if isinstance(game, CongestionBatch):
            shape, rows = game.private_cost.shape, len(game.options)
            fits = shape == (1, n, options) and rows == options
            self._require("game", fits, f"private costs of shape {shape} and {rows} options")
        option = np.zeros((1, n), np.int64)
        for name in card.baselines:
            option = self._asked("baseline", partial(world.baseline, name, np.random.default_rng(0)))
            self._shaped("baseline", option, (1, n), int)
        self._figures("requested", self._asked("requested", lambda: world.requested(option, prices)), 0, 1)
        plan = self._asked("settle", lambda: world.settle(option, prices))
        self._figures("excess", self._asked("excess", lambda: world.excess(plan)), -np.inf, ROUNDING)
        parts = self._asked("parts", lambda: world.parts(plan, 0))
        allocation = self._parts(card, parts, n)
        found = self._asked("check", lambda: self.problem.check(state, allocation))
        self._require("check", isinstance(found, CapacityCheck), found)
        self._require("check", found.feasible, f"violations ({'; '.join(found.violations)})")
        self._asked("plan_of", lambda: self.problem.world_at(state).plan_of(allocation))
        kept = self._asked("state_dict", world.state_dict)
        self._asked("load_state_dict", lambda: self.problem.worlds([1]).load_state_dict(kept))
        self._facts(card, self._asked("execute", lambda: world.execute(plan)), n)
        self._shaped("drift", self._asked("drift", world.drift), (1,), bool)
        self._asked("restart", lambda: world.restart(np.ones(1, bool)))
        self._asked("reseed", lambda: world.reseed([1]))

    def _observed(self, seen: Any, n: int) -> int:
        self._require("observe", isinstance(seen, Observation), seen)
        told = ", ".join(f"{name} {np.shape(part)}" for name, part in seen._asdict().items())
        options = seen.allowed.shape[-1]
        rows, last = seen.resource.shape[1:2], np.max(seen.resource_of, initial=-1)
        fits = (
            seen.agent.shape[:2] == seen.live.shape == (1, n) and seen.pair.shape[:3] == (1, n, options)
            and seen.allowed.shape == (1, n, options) and seen.resource_of.shape == (options,) and (last,) < rows
            and seen.agent.ndim == seen.resource.ndim == 3 and seen.pair.ndim == 4
        )  # fmt: skip
        self._require("observe", fits, told)
        finite = all(np.isfinite(part).all() for part in (seen.agent, seen.resource, seen.pair))
        self._require("observe", finite, "features that are not finite")
        shut = not seen.allowed[..., 0].all()
        self._require("observe", not shut, "an agent without option 0")
        return int(options)

    def _parts(self, card: Card, parts: Any, n: int) -> SimpleNamespace:
        fits = isinstance(parts, Mapping) and {"option", "served", "shares", "prices"} <= set(parts)
        fits = fits and all(np.shape(parts[name]) == (n,) for name in ("option", "served"))
        families = set(card.families)
        fits = (
            fits
            and set(parts["prices"]) == families
            and set(parts["shares"]) == (families if card.decides == "options" else set())
        )
        fits = fits and all(np.shape(share) == (n,) for share in parts["shares"].values())
        told = parts
        if isinstance(parts, Mapping):
            told = f"{', '.join(f'{k} {_kind(v)}' for k, v in parts.items())}; families are {', '.join(card.families)}"
        self._require("parts", fits, told)
        return SimpleNamespace(**parts)

    def _facts(self, card: Card, facts: Any, n: int) -> None:
        self._require("execute", isinstance(facts, Facts), facts)
        for name, value, axes in (("reward", facts.reward, 2), ("lost", facts.lost, 2), ("carried", facts.carried, 3)):
            shape = np.shape(value)
            fits = len(shape) == axes and shape[:2] == (1, n)
            self._require("execute", fits, f"{name} of shape {shape}")
            finite = bool(np.isfinite(value).all())
            self._require("execute", finite, f"{name} that is not finite")
        for name, value in facts.counts.items():
            fits = np.shape(value)[:1] == (1,) and np.ndim(value) <= 2
            self._require("execute", fits, f"counts[{name!r}] of shape {np.shape(value)}")
        self._figures("execute", facts.elapsed_s, np.nextafter(0, 1), np.inf, "elapsed_s = ")
        try:
            Tally(card.metrics, 1).add(facts.counts, facts.elapsed_s)
        except KeyError as error:
            raise ContractError(f"{self._whose('execute')[0]}: {error.args[0]}") from None

    # --- words

    def _whose(self, member: str) -> tuple[str, str]:
        """Whose member it is, and what it must give."""
        if member in MEMBERS:
            return self.title, MEMBERS[member]
        return f"a world of {self.title}", WORLD_MEMBERS[member]

    def _asked(self, member: str, call: Callable[[], Any]) -> Any:
        """What a member gives; an error of its own is told as its."""
        try:
            return call()
        except Exception as error:  # someone else's code: whatever it raises is told
            title, gives = self._whose(member)
            reason = printable(f"{type(error).__name__}: {error}", 300)
            raise ContractError(f"{title}: {member} failed ({reason}); it needs {gives}") from error

    def _require(self, member: str, fits: Any, given: Any) -> None:
        if not fits:
            title, gives = self._whose(member)
            told = given if isinstance(given, str) else _kind(given)
            raise ContractError(f"{title}: {member} gave {printable(told, 300)}; it needs {gives}")

    def _shaped(self, member: str, given: Any, shape: tuple[int, ...], kind: type = float) -> None:
        array = np.asarray(given)
        kinds = {bool: "b", int: "iu", float: "iufb"}[kind]
        fits = array.shape == shape and array.dtype.kind in kinds
        self._require(member, fits, f"{array.dtype} of shape {array.shape}")

    def _figures(self, member: str, given: Any, low: float, high: float, name: str = "") -> None:
        array = np.asarray(given, float)
        fits = array.shape == (1,) and low <= array[0] <= high
        told = f"{name}{array.tolist()}" if array.shape == (1,) else f"{name}shape {array.shape}"
        self._require(member, fits, told)


def _kind(given: Any) -> str:
    return f"shape {given.shape}" if isinstance(given, np.ndarray) else quoted(given)


def _is_json(given: Any) -> bool:
    try:
        json.dumps(given, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
