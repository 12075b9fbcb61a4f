r"""Shares of several resource families at once, with deadlines that couple them: cvxpy, compiled once a shape.

Agent i uses a share :math:`f_{im}` of one resource in each family m (air time, CPU). Minimise the weighted
delay :math:`\sum_{im} w_{im}^2 / f_{im}` subject to capacity of each resource, boxes
:math:`l_{im} \le f_{im} \le h_{im}`, and a joint floor: :math:`\sum_m t_{im} / f_{im} \le \tau_i`, where
:math:`t_{im}` is the time the part would take with the whole resource. No closed form covers the joint floor.

The problem is written once with parameters (DPP), so later calls only refill them. Where the deadlines cannot
all hold, two more programs say who cannot be served (least total lateness) and by how much capacity falls short
(least extra capacity).

Source: Agrawal et al. (2019), "Differentiable convex optimization layers", for DPP; Goulart and Chen (2024) for
Clarabel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from games.congestion import Bool, Float, whole_numbers
from games.errors import InvalidStateError, floats
from games.extras import required


@dataclass(frozen=True)
class JointShares:
    """Shares of every family.

    Attributes:
        share: (N, M) fraction of each resource used.
        price: (M, R) dual of each resource's capacity, in the objective's unit per capacity.
        lateness_price: (N,) dual of each deadline: what one more second would save.
        objective: sum of w^2 / f; inf where infeasible.
        gap: relative duality gap, recomputed from the shares and prices.
        served: (N,) bool, False for those who are late in the least-lateness answer.
        shortfall: (M, R) capacity, in capacities, that would have to be added (0 if feasible).
        status: "optimal", "infeasible", or the solver's failure.
    """

    share: Float
    price: Float
    lateness_price: Float
    objective: float
    gap: float
    served: Bool
    shortfall: Float
    status: str


def joint_shares(
    weight: ArrayLike,
    time: ArrayLike,
    deadline: ArrayLike,
    resource: ArrayLike,
    resources: int,
    *,
    floor: ArrayLike | None = None,
    ceiling: ArrayLike | None = None,
) -> JointShares:
    """Least weighted delay under joint deadlines and boxes.

    Args:
        weight: (N, M) w_im = sqrt of the weight of its time, >= 0.
        time: (N, M) s with the whole resource, >= 0.
        deadline: (N,) s, > 0; inf for none.
        resource: (N, M) resource of each agent in each family, 0 to R - 1.
        resources: R, in each family.
        floor, ceiling: (N, M) boxes, default 0 and 1.

    Raises:
        InvalidStateError: names field, index, value and what is permitted.
    """
    w, t = floats("weight", weight), floats("time", time)
    if w.ndim != 2:
        raise InvalidStateError(f"weight has shape {w.shape}; it is (agents, families)")
    where = whole_numbers("resource", resource)
    if not isinstance(resources, int | np.integer) or resources < 0:
        raise InvalidStateError(f"resources = {resources!r:.60}; it is a whole number >= 0")
    low = np.zeros(w.shape) if floor is None else floats("floor", floor)
    high = np.ones(w.shape) if ceiling is None else floats("ceiling", ceiling)
    tau = floats("deadline", deadline)
    for name, array in (("time", t), ("resource", where), ("floor", low), ("ceiling", high)):
        if array.shape != w.shape:
            raise InvalidStateError(f"{name} has shape {array.shape}; weight has {w.shape}")
    if tau.shape != w.shape[:1]:
        raise InvalidStateError(f"deadline has shape {tau.shape}; weight needs {w.shape[:1]}")
    for name, array, good, rule in (
        ("weight", w, np.isfinite(w) & (w >= 0), "a weight is finite and >= 0"),
        ("time", t, np.isfinite(t) & (t >= 0), "a time is finite and >= 0"),
        ("deadline", tau, tau > 0, "a deadline is > 0"),
        ("resource", where, (where >= 0) & (where < resources), f"a resource is 0 to {resources - 1}"),
        ("floor", low, (low >= 0) & (low <= 1), "a floor is in [0, 1]"),
        ("ceiling", high, (high >= low) & (high > 0), "a ceiling is > 0 and at least the floor"),
    ):
        if not good.all():
            at = tuple(int(v) for v in np.argwhere(~good)[0])
            raise InvalidStateError(f"{name}[{', '.join(map(str, at))}] = {array[at]}; {rule}")
    with np.errstate(over="ignore"):
        part = t / tau[:, None]  # of the deadline, with the whole resource
    if not np.isfinite(part).all():
        i, j = (int(v) for v in np.argwhere(~np.isfinite(part))[0])
        raise InvalidStateError(f"time[{i}, {j}] = {t[i, j]} is beyond float64 deadlines of {tau[i]}; change a unit")
    n, m = w.shape
    if not n or not m:
        return JointShares(
            np.zeros((n, m)), np.zeros((m, resources)), np.zeros(n), 0.0, 0.0, np.ones(n, bool),
            np.zeros((m, resources)), "optimal",
        )  # fmt: skip
    compiled = _compile(n, m, resources)
    timed = np.isfinite(tau)
    # deadlines in units of themselves, so that every joint floor reads sum t / (tau f) <= 1
    # and weights in units of the largest, which moves no share
    top = float(w.max(initial=0.0)) or 1.0
    w = w / top
    compiled.weight.value = w**2
    compiled.time.value = np.where(timed[:, None], t / np.where(timed, tau, 1.0)[:, None], 0.0)
    compiled.low.value, compiled.high.value = low, np.minimum(high, 1.0)
    for family in range(m):
        compiled.use[family].value = (where[:, family][None] == np.arange(resources)[:, None]).astype(float)
    status = compiled.solve(compiled.main)
    nobody = np.ones(n, bool)
    if status == "optimal":
        share = np.asarray(compiled.share.value)
        price = np.stack([c.dual_value for c in compiled.capacity])
        late = np.maximum(np.asarray(compiled.deadline.dual_value), 0)
        # the dual value at these prices, each cell minimised on its own, against the objective
        cost = w**2 + late[:, None] * compiled.time.value
        charge = np.maximum(price[np.arange(m)[None], where], 1e-300)
        ideal = np.clip(np.sqrt(cost / charge), low, compiled.high.value)
        terms = np.divide(cost, ideal, out=np.zeros_like(cost), where=cost > 0) + charge * ideal
        objective = float(np.divide(w**2, share, out=np.zeros_like(w), where=w > 0).sum())
        gap = abs(objective - float(terms.sum() - price.sum() - late.sum())) / max(objective, 1e-300)
        late = late / np.where(timed, tau, np.inf)
        back = top * top  # what was taken out of the objective
        return JointShares(
            share, price * back, late * back, objective * back, gap, nobody, np.zeros((m, resources)), "optimal"
        )
    # elastic programs: who is late, and what capacity is missing
    blank = np.zeros((m, resources))
    if compiled.solve(compiled.lateness) != "optimal":
        none = np.full((n, m), np.nan)
        return JointShares(none, blank, np.zeros(n), np.inf, np.inf, ~nobody, blank, f"solver failed: {status}")
    share = np.asarray(compiled.share.value)
    served = np.asarray(compiled.late.value) <= 1e-6
    extra = blank
    if compiled.solve(compiled.shortage) == "optimal":
        extra = np.maximum(np.stack([np.asarray(e.value) for e in compiled.extra]), 0)
    if served.all() and not (extra > 1e-6).any():  # nothing is missing: it was the solver
        return JointShares(share, blank, np.zeros(n), np.inf, np.inf, served, extra, f"solver failed: {status}")
    return JointShares(share, blank, np.zeros(n), np.inf, np.inf, served, extra, "infeasible")


class _Compiled:
    """The three programs for one shape."""

    def __init__(self, n: int, m: int, resources: int) -> None:
        cp = required("cvxpy")  # here, since it takes most of a second and few users need it

        self.failure: Any = cp.SolverError
        self.weight = cp.Parameter((n, m), nonneg=True)
        self.time = cp.Parameter((n, m), nonneg=True)
        self.low, self.high = cp.Parameter((n, m), nonneg=True), cp.Parameter((n, m), nonneg=True)
        self.use = [cp.Parameter((resources, n), nonneg=True) for _ in range(m)]
        self.share = cp.Variable((n, m))
        inverse = cp.inv_pos(self.share)
        spent = cp.sum(cp.multiply(self.time, inverse), axis=1)
        self.capacity = [self.use[f] @ self.share[:, f] <= 1 for f in range(m)]
        box = [self.share >= self.low, self.share <= self.high]
        self.deadline = spent <= 1
        delay = cp.sum(cp.multiply(self.weight, inverse))
        self.main = cp.Problem(cp.Minimize(delay), [*self.capacity, *box, self.deadline])
        self.late = cp.Variable(n, nonneg=True)
        self.lateness = cp.Problem(cp.Minimize(cp.sum(self.late)), [*self.capacity, *box, spent <= 1 + self.late])
        self.extra = [cp.Variable(resources, nonneg=True) for _ in range(m)]
        over = [self.use[f] @ self.share[:, f] <= 1 + self.extra[f] for f in range(m)]
        # with capacity added, a share may exceed one: only floors hold
        self.shortage = cp.Problem(
            cp.Minimize(sum(cp.sum(e) for e in self.extra)), [*over, self.share >= self.low, spent <= 1]
        )

    def solve(self, problem: Any) -> str:
        try:
            problem.solve(solver="CLARABEL", ignore_dpp=False)
        except self.failure as error:
            return str(error)
        return str(problem.status)


@lru_cache(maxsize=16)
def _compile(n: int, m: int, resources: int) -> _Compiled:
    return _Compiled(n, m, resources)
