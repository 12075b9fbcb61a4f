"""``custom`` of jobs that hold what they ask for: GPUs, GB, licences, seats; whole, or not at all.

What is held cannot be shared out in time: a job of 64 GB stands on a server of 80 GB or it does not, and two of them
never do. Shares of a speed are the other kind of ``custom``, with ``work`` and ``capacity``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from coordinator.why import Names
from games.certificate import CapacityCheck
from games.errors import InvalidStateError
from hybridalloc.errors import nearest
from hybridalloc.problems.contract import Card
from hybridalloc.problems.custom.held.audit import check_held
from hybridalloc.problems.custom.held.state import NEVER, HeldState
from hybridalloc.problems.custom.held.world import BASELINES, HeldPrices, HeldWorld, Standing
from hybridalloc.problems.metrics import RAW_VIOLATION, Metric, Ratio
from hybridalloc.problems.slots import StateSlots
from hybridalloc.problems.state import name_list
from hybridalloc.text import printable, quoted

METRICS = (
    Metric("completion", "served", "% of active", "higher", Ratio("served", "active", 100)),
    Metric("held", "held of the scarcest resource", "%", "higher", Ratio("held", scale=100)),
    Metric("moved", "moved", "a step", "lower", Ratio("moved")),
    RAW_VIOLATION,
)
GROUPED = ("apart", "team")  # given as names, or as numbers


@dataclass(frozen=True, eq=False)
class Held(StateSlots[HeldState, Standing, HeldPrices]):
    """The problem; make it with ``make_problem("custom", demand=..., held=...)``, see :func:`make_held`."""

    resources: tuple[str, ...]
    hosts: tuple[str, ...]
    teams: tuple[str, ...]
    start: HeldState

    state_type: ClassVar[type[HeldState]] = HeldState
    world_type: ClassVar[type[HeldWorld]] = HeldWorld

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash((self.resources, self.hosts))

    @cached_property
    def card(self) -> Card:
        n = self.start.agents
        return Card(
            "custom", n, 1, HeldPrices, METRICS, ("completion", "held"), variant="held", agent_word="job",
            size=f"{n} jobs, {len(self.hosts)} servers", options=("opt out", *self.hosts), families=self.resources,
            baselines=BASELINES, price_space={"tight": (0.01, 10.0, True)}, change_cost=0.0,
        )  # fmt: skip

    def first(self, rng: np.random.Generator) -> HeldState:
        return self.start

    def names(self, state: HeldState, agent: int) -> Names:
        """What a job, the options and the resources are called, as it prints; limits of a team's and of jobs that stand
        apart come after the servers'."""
        options = ("opting out", *map(printable, self.hosts))
        resources = [f"{printable(r)} of {printable(server)}" for server in self.hosts for r in self.resources]
        if len(state.quota):
            resources += [f"{printable(r)} of team {printable(t)}" for r in self.resources for t in self.teams]
        apart = range(int(state.apart.max(initial=-1)) + 1)
        resources += [f"jobs of group {g} on {printable(server)}" for g in apart for server in self.hosts]
        return Names(printable(state.label(agent)), options, tuple(resources))

    def agent(self, state: HeldState, name: str) -> int:
        """The job of that name."""
        names = state.names or ()
        if name not in names:
            raise nearest("job", name, names)
        return names.index(name)

    def check(self, state: HeldState, allocation: Any) -> CapacityCheck:
        """Feasibility of an allocation from the definitions, by code that no solver shares."""
        return check_held(state, allocation, self.resources, self.hosts)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "custom", "held": list(self.resources), "servers": list(self.hosts), "teams": list(self.teams),
            "start": self.start.to_dict(),
        }  # fmt: skip

    @classmethod
    def restore(cls, description: Mapping[str, Any]) -> Held:
        """The problem that :meth:`describe` described.

        Raises:
            InvalidStateError: the description is not one.
        """
        lacking = [name for name in ("held", "servers", "teams", "start") if name not in description]
        if lacking or not isinstance(description["start"], Mapping):
            raise InvalidStateError(f"a description of custom lacks {', '.join(lacking) or 'a state in start'}")
        start = HeldState.from_dict(description["start"])
        return _checked(
            name_list("held", description["held"]), name_list("servers", description["servers"]),
            tuple(description["teams"]), start,
        )  # fmt: skip


def make_held(
    demand: Mapping[str, Any], held: Mapping[str, Any], servers: Sequence[str] | None = None,
    quota: Mapping[str, Mapping[str, float]] | None = None, names: Sequence[str] | None = None, **arrays: Any,
) -> Held:  # fmt: skip
    """``make_problem("custom", demand={"gpu": [...], "memory_gb": [...]}, held={"gpu": [...], "memory_gb": [...]})``.

    Args:
        demand: by resource, (N,) that each job takes; one that is not named is not taken. held: by resource, (K,) that
            each server has.
        servers: K names. names: N names of the jobs. apart, team: (N,) names of groups and teams, None or "" for none.
        quota: by team, by resource, what it may have in all.
        arrays: other fields of :class:`HeldState`: count, allowed, cost, priority, previous, moving_cost, active.

    Raises:
        InvalidStateError: names the field, the value and what is permitted.
    """
    known = [n for n in HeldState.__dataclass_fields__ if n not in ("demand", "capacity", "quota", "names")]
    for name in arrays:
        if name not in known:
            raise nearest("setting of custom", name, [*known, "demand", "held", "servers", "quota", "names"])
    for label, given in (("demand", demand), ("held", held)):
        if not isinstance(given, Mapping) or not given:
            raise InvalidStateError(f"{label} = {quoted(given)}; it must be a mapping of resources to numbers")
    resources = name_list("held", list(held))
    for name in demand:
        if name not in held:
            raise InvalidStateError(f"demand of {quoted(name)}: no server has it; held names {', '.join(resources)}")
    columns = {name: np.atleast_1d(np.asarray(values, float)) for name, values in held.items()}
    asked = {name: np.atleast_1d(np.asarray(values, float)) for name, values in demand.items()}
    for label, table in (("held", columns), ("demand", asked)):
        lengths = {name: len(values) for name, values in table.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidStateError(f"{label}: {', '.join(f'{k} has {v} entries' for k, v in lengths.items())}")
    k, n = len(next(iter(columns.values()))), len(next(iter(asked.values())))
    teams: tuple[str, ...] = tuple(quota or ())
    for label in GROUPED:
        if label in arrays:
            arrays[label], found = _numbered(label, arrays[label], teams if label == "team" else ())
            teams = found if label == "team" else teams
    limit = np.full((len(teams), len(resources)), NEVER)
    for u, team in enumerate(teams):
        for name, most in (quota or {}).get(team, {}).items():
            if name not in resources:
                raise InvalidStateError(f"quota of {quoted(team)}: {quoted(name)} is none of {', '.join(resources)}")
            limit[u, resources.index(name)] = most
    start = HeldState(
        np.stack([asked.get(name, np.zeros(n)) for name in resources], 1),
        np.stack([columns[name] for name in resources], 1), quota=limit,
        names=None if names is None else tuple(names), **arrays,
    )  # fmt: skip
    called = tuple(f"server {j}" for j in range(k)) if servers is None else name_list("servers", servers)
    return _checked(resources, called, teams, start)


def _numbered(label: str, given: Any, known: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """Groups by number, -1 for none, and their names."""
    values = list(given)
    if all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values):
        return values, known or tuple(str(j) for j in range(max(values, default=-1) + 1))
    names = list(known)
    out = []
    for value in values:
        word = "" if value is None else str(value).strip()
        if word and word not in names:
            names.append(word)
        out.append(names.index(word) if word else -1)
    return out, tuple(names)


def _checked(resources: tuple[str, ...], servers: tuple[str, ...], teams: tuple[str, ...], start: HeldState) -> Held:
    for label, names, size in (
        ("servers", servers, len(start.capacity)), ("held", resources, start.capacity.shape[1]),
        ("teams", teams, len(start.quota)),
    ):  # fmt: skip
        if len(names) != size:
            raise InvalidStateError(f"{label} has {len(names)} names; the arrays have {size}")
        for j, name in enumerate(names):
            if name in names[:j]:
                raise InvalidStateError(f"{label}[{j}] = {quoted(name)} is used already; names are unique")
    return Held(resources, servers, teams, start)
