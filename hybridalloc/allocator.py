"""``Allocator.step(state)``: a state in, a certified allocation out."""

from __future__ import annotations

import json
import time
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coordinator import Coordinator
from coordinator.coordinator import continuous_wish
from coordinator.merge import clip_prior, flat_prior
from games.certificate import measure_regret
from games.congestion import CongestionBatch, Float
from hybridalloc.allocation import Allocation, Certificate
from hybridalloc.errors import CheckpointError, InvalidStateError, nearest
from hybridalloc.problems import restore_problem
from rl.policy import ArrayPolicy

FORMAT = 1
DEFAULT_TRUST = 5.0


@dataclass(frozen=True)
class _Draft:
    """A joint choice (1, N) on its way to an allocation, and how it came about."""

    option: Any
    log_prior: Float | None = None
    wish: Mapping[str, Float] | None = None
    source: str = "fallback"
    status: str = "ok"
    bound: float = float("inf")


class Allocator:
    """Allocates step by step by one method.

    Args:
        problem: from ``make_problem``.
        method: "hybrid", "rl", "game" or the name of one of the problem's baselines.
        recommender: None (flat prior), "imappo" or "dqn" (fresh, untrained), a path or MLflow URI of a saved
            allocator (its recommender is taken), or an object with ``propose(observation)``. "rl" needs one.
        trust: weight of the game against the recommender, >= 0; 0 is pure RL, inf the pure game. Default 5.
        budget_ms: stop in time: a stage that would not fit is left out, and the status says so.
        prices: the game's tolls and weights; default the problem's.
        seed: of the heuristics' draws.

    Raises:
        ValueError: an unknown method (the nearest are listed), "rl" without a recommender, trust < 0.
    """

    def __init__(
        self,
        problem: Any,
        method: str = "hybrid",
        recommender: Any = None,
        trust: float | None = None,
        budget_ms: float | None = None,
        seed: int = 0,
        prices: Any = None,
        limit: float = 10.0,
        choose: bool = True,
    ) -> None:
        known = ("hybrid", "rl", "game", *problem.baselines)
        if method not in known:
            raise nearest("method", method, known)
        if method == "rl" and recommender is None:
            raise ValueError('method="rl" needs a recommender: a name ("imappo", "dqn"), a path or an object')
        if budget_ms is not None and not budget_ms >= 0:
            raise ValueError(f"budget_ms = {budget_ms}; it must be >= 0, or None for no limit")
        self.problem, self.method = problem, method
        self.prices = problem.prices_type() if prices is None else prices
        self.trust = DEFAULT_TRUST if trust is None else float(trust)
        self.budget_ms, self.seed = budget_ms, seed
        self.recommender = _find_recommender(problem, recommender, seed)
        kind = method if method in ("hybrid", "rl", "game") else "game"
        self.coordinator = Coordinator(kind, self.trust if kind == "hybrid" else 0.0, limit, choose)
        self._rng = np.random.default_rng(seed)
        self._warned: set[str] = set()
        self._cost_ms = {"game": 0.0, "merge": 0.0}  # last measured, for the budget

    def step(self, state: Any) -> Allocation:
        """Allocate for one state: the problem's dataclass, or a dict as it comes from JSON.

        Never raises on a valid state: where a part fails, the best allocation that is left is returned and its
        certificate's source and status say so.

        Raises:
            InvalidStateError: names field, agent, value and the permitted range.
        """
        began = time.perf_counter()
        if isinstance(state, Mapping):
            state = self.problem.state_type.from_dict(state)
        elif not isinstance(state, self.problem.state_type):
            wanted = self.problem.state_type.__name__
            raise InvalidStateError(
                f"a state of {self.problem.name} is a {wanted} or a dict; got {type(state).__name__}"
            )
        situation = self.problem.batch_of(state)
        draft = _Draft(np.zeros((1, state.agents), np.int64))
        try:
            if not self._fits(began, "game"):
                draft = replace(draft, status=f"budget of {self.budget_ms:g} ms: nothing but opting out was in time")
            elif self.method in self.problem.baselines:
                draft = replace(draft, option=situation.baseline(self.method, self._rng), source=self.method)
            else:
                draft = self._decide(situation, began)
        except Exception as error:
            draft = replace(draft, status=f"all agents opt out: {type(error).__name__}: {error}")
            self._warn(draft.status)
        return self._finish(state, situation, draft, began)

    def _decide(self, situation: Any, began: float) -> _Draft:
        """The coordinator's choice; a recommender that fails, or a budget that is spent, leaves the game alone."""
        t0 = time.perf_counter()
        game = situation.game(self.prices)
        status, log_prior, wish = "ok", flat_prior(game), None
        coordinator, proposes = self.coordinator, False
        if coordinator.kind != "game" and not self._fits(began, "merge"):
            status = f"budget of {self.budget_ms:g} ms: the game alone"
            coordinator = Coordinator("game")
        elif coordinator.kind != "game" and self.recommender is not None:
            try:
                observation = situation.observe()
                raw = np.asarray(self.recommender.propose(observation), dtype=np.float64)
                log_prior, proposes = clip_prior(_usable(raw, game), game.allowed, coordinator.limit), True
                wish = continuous_wish(self.recommender, observation)
            except Exception as error:
                status = f"recommender failed ({type(error).__name__}: {error}); the game alone"
                self._warn(status)
                coordinator, log_prior, proposes = Coordinator("game"), flat_prior(game), False  # nothing half-taken
        decision = coordinator.decide_on(game, log_prior, proposes)
        self._cost_ms["game" if coordinator.kind == "game" else "merge"] = 1e3 * (time.perf_counter() - t0)
        if not decision.converged[0] and status == "ok":
            status = "ok: the mean-field sweeps stopped at their limit, the rounding converged"
        return _Draft(decision.option, log_prior, wish, coordinator.kind, status, coordinator.epsilon_bound)

    def _finish(self, state: Any, situation: Any, draft: _Draft, began: float) -> Allocation:
        """Shares, power, fractions; then the certificate."""
        trust = self.coordinator.trust if draft.source != "game" else float("inf")
        plan = situation.settle(draft.option, self.prices, draft.wish, trust)
        game = situation.single_game(self.prices)
        priority = situation.priority()[0]
        unserved = [int(i) for i in np.flatnonzero(~plan.served[0] & state.active)]
        unserved.sort(key=lambda i: -priority[i])
        prior = np.zeros(game.private_cost.shape) if draft.log_prior is None else draft.log_prior[0]
        allocation = Allocation(
            **situation.parts(plan), certificate=_PENDING, game=game, log_prior=prior, trust=self.coordinator.trust
        )
        check = self.problem.check(state, allocation)
        certificate = Certificate(
            feasible=check.feasible,
            max_violation=check.max_violation,
            violations=check.violations,
            regret=measure_regret(game, allocation.option),
            epsilon_bound=draft.bound,
            source=draft.source,
            status=draft.status,
            elapsed_ms=1e3 * (time.perf_counter() - began),
            unserved=tuple(unserved),
        )
        return replace(allocation, certificate=certificate)

    def _fits(self, began: float, stage: str) -> bool:
        if self.budget_ms is None:
            return True
        spent = 1e3 * (time.perf_counter() - began)
        return spent + self._cost_ms[stage] < self.budget_ms

    def _warn(self, message: str) -> None:
        head = message.split(":")[0]
        if head not in self._warned:
            self._warned.add(head)
            warnings.warn(message, RuntimeWarning, stacklevel=4)

    def save(self, path: str | Path) -> Path:
        """Write problem, method, prices, trust and recommender to one ``.npz`` file; :meth:`load` reads it."""
        arrays: dict[str, Any] = {}
        name = None
        if self.recommender is not None:
            if not isinstance(self.recommender, ArrayPolicy):
                raise CheckpointError(f"a {type(self.recommender).__name__} cannot be saved; only trained policies can")
            arrays = {f"policy/{k}": v for k, v in self.recommender.weights.items()}
            name = self.recommender.name
        meta = {
            "format": FORMAT, "problem": self.problem.describe(), "method": self.method, "trust": self.trust,
            "limit": self.coordinator.limit, "choose": self.coordinator.choose, "seed": self.seed,
            "prices": self.prices._asdict(), "recommender": name,
        }  # fmt: skip
        target = Path(path)
        if target.suffix != ".npz":
            target = target.with_name(target.name + ".npz")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial.npz")
        np.savez_compressed(partial, meta=np.array(json.dumps(meta)), **arrays)
        partial.replace(target)
        return target

    @classmethod
    def load(cls, source: str | Path, **changes: Any) -> Allocator:
        """An allocator from a file, or from an MLflow URI such as ``runs:/<id>/allocator.npz``.

        Args:
            changes: arguments of the constructor to replace, such as ``trust=30.0``.

        Raises:
            CheckpointError: no such file, a truncated one, another version, or not an allocator.
        """
        meta, policy = read_checkpoint(source)
        prices = restore_problem(meta["problem"]).prices_type(**meta["prices"])
        settings = {
            "method": meta["method"], "trust": meta["trust"], "limit": meta["limit"], "choose": meta["choose"],
            "seed": meta["seed"], "prices": prices, "recommender": policy,
        }  # fmt: skip
        return cls(changes.pop("problem", None) or restore_problem(meta["problem"]), **settings | changes)


_PENDING = Certificate(False, float("inf"), (), float("inf"), float("inf"), "fallback", "pending", 0.0, ())


def read_checkpoint(source: str | Path) -> tuple[dict[str, Any], ArrayPolicy | None]:
    """Settings and policy of a saved allocator; see :meth:`Allocator.load`."""
    path = _local(source)
    try:
        with np.load(path, allow_pickle=False) as data:
            if "meta" not in data.files:
                raise CheckpointError(f"{path} holds no allocator (no 'meta' entry); Allocator.save writes one")
            meta = json.loads(str(data["meta"]))
            weights = {k.removeprefix("policy/"): data[k] for k in data.files if k.startswith("policy/")}
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint at {path}") from None
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is truncated or not a checkpoint ({error}); it was left as it is") from None
    if meta.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {meta.get('format')}; this version reads format {FORMAT}")
    return meta, ArrayPolicy(weights, meta["recommender"]) if weights else None


def _local(source: str | Path) -> Path:
    text = str(source)
    if text.startswith(("runs:/", "models:/", "mlflow-artifacts:/")):
        import mlflow

        return Path(mlflow.artifacts.download_artifacts(artifact_uri=text))
    return Path(source)


def _find_recommender(problem: Any, given: Any, seed: int) -> Any:
    if given is None or hasattr(given, "propose"):
        return given
    text = str(given)
    if isinstance(given, str) and not text.endswith(".npz") and ":/" not in text and "/" not in text:
        from hybridalloc.training import make_learner
        from rl.networks import Sizes

        return make_learner(text, Sizes.of(problem.batch([0]).observe()), seed).policy
    meta, policy = read_checkpoint(given)
    if meta["problem"]["name"] != problem.name:
        raise CheckpointError(f"{given} was trained on {meta['problem']['name']}; this problem is {problem.name}")
    if policy is None:
        raise CheckpointError(f"{given} holds no recommender: it was saved from method {meta['method']!r}")
    return policy


def _usable(raw: Float, game: CongestionBatch) -> Float:
    """A recommender's answer, or a ValueError that says what is wrong with it."""
    shape = game.private_cost.shape
    if raw.shape != shape:
        raise ValueError(f"log-priors have shape {raw.shape}; this state needs {shape}")
    if np.isnan(raw).any() or np.isposinf(raw).any():
        e, i, o = np.argwhere(np.isnan(raw) | np.isposinf(raw))[0]
        raise ValueError(f"log-prior of agent {i}, option {o} is {raw[e, i, o]}")
    finite = (np.isfinite(raw) & game.allowed).any(axis=-1)
    if not finite.all():
        raise ValueError(f"agent {int(np.argwhere(~finite)[0][1])} is left without an allowed option")
    return raw
