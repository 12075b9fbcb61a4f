"""Allocators on file: arrays and JSON alone, so that reading one runs nothing. Also MLflow addresses of such files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from coordinator.coordinator import Coordinator
from coordinator.improve import Improve
from coordinator.shortlisted import Lists
from coordinator.trust import Trust
from games.extras import required
from hybridalloc.errors import CheckpointError, nearest
from hybridalloc.files import read_kept, whole_file
from hybridalloc.problems import restore_problem
from hybridalloc.problems.beliefs import belief_arrays, restore_belief
from hybridalloc.problems.contract import AnyProblem, Belief, Prices
from hybridalloc.text import printable, quoted
from rl.policy import ArrayPolicy, Notes, wrong_weights
from rl.proposal import Recommender, Sizes
from rl.registry import LEARNERS, make_learner
from rl.value import StoreValue, Valuer

FORMAT = 1
ADDRESSES = ("runs:/", "models:/", "mlflow-artifacts:/")
_NUMBER = (int, float)
_FIELDS: dict[str, tuple[type, ...]] = {
    "problem": (dict,), "method": (str,), "trust": (str, *_NUMBER), "limit": _NUMBER, "choose": (bool,), "seed": (int,),
    "prices": (dict,), "recommender": (str, type(None)),
}  # fmt: skip
_LATER: dict[str, tuple[type, ...]] = {  # may be absent
    "hysteresis": _NUMBER, "trust_state": (dict, type(None)), "improve": (bool, dict),
}  # fmt: skip


class Kept(Protocol):
    """What of an allocator is written: all that it was made of and what its rules have learned."""

    problem: AnyProblem
    method: str
    seed: int
    prices: Prices
    hysteresis: float
    improve: bool | Improve
    belief: Belief | None
    value: Valuer | None
    recommender: Recommender | None
    coordinator: Coordinator
    trust_rule: Trust

    @property
    def trust(self) -> float | str: ...


@runtime_checkable
class Speaks(Protocol):
    """Anything that proposes, named or not."""

    def propose(self, observation: Any) -> Any: ...


A = TypeVar("A", bound=Kept)


class Checkpoint(NamedTuple):
    """A saved allocator as it lies in its file: settings, the recommender (None without one), arrays by name."""

    meta: dict[str, Any]
    policy: ArrayPolicy | None
    arrays: dict[str, Any]


def write_allocator(allocator: Kept, path: str | Path) -> Path:
    """Write problem, method, prices, trust, recommender, belief and value to ``path``; ``.npz`` is added where it is
    missing.

    Raises:
        CheckpointError: the recommender or the value is an object of one's own.
    """
    a = allocator
    arrays: dict[str, Any] = {}
    name = None
    if a.recommender is not None:
        if not isinstance(a.recommender, ArrayPolicy):
            raise CheckpointError(f"a {type(a.recommender).__name__} cannot be saved; only trained policies can")
        arrays = {f"policy/{k}": v for k, v in {**a.recommender.weights, **a.recommender.notes.arrays()}.items()}
        name = a.recommender.name
    meta = {
        "format": FORMAT, "problem": a.problem.describe(), "method": a.method, "trust": a.trust,
        "limit": a.coordinator.limit, "choose": a.coordinator.choose, "seed": a.seed, "prices": a.prices._asdict(),
        "recommender": name, "trust_state": a.trust_rule.state(), "hysteresis": a.hysteresis,
        "improve": a.improve if isinstance(a.improve, bool) else asdict(a.improve),
        "lists": None if a.coordinator.lists is None else asdict(a.coordinator.lists),
    }  # fmt: skip
    if a.belief is not None:
        arrays |= belief_arrays(a.belief)
    if a.value is not None:
        if not isinstance(a.value, StoreValue):
            raise CheckpointError(f"a {type(a.value).__name__} cannot be saved; only learned values can")
        arrays |= {f"value/{k}": v for k, v in a.value.state_dict().items()}
    target = _with_suffix(Path(path))
    with whole_file(target) as stream:
        np.savez_compressed(stream, meta=np.array(json.dumps(meta)), **arrays)
    return target


def read_checkpoint(source: str | Path) -> Checkpoint:
    """What a saved allocator's file holds.

    Raises:
        CheckpointError: no such file, a damaged one, another version, or not an allocator; the file is left as it was.
    """
    path = local(source)
    arrays = read_kept(path, "checkpoint")
    if "meta" not in arrays:
        raise CheckpointError(f"{path} holds no allocator (no 'meta' entry); Allocator.save writes one")
    meta = _settings(path, arrays["meta"])
    weights: dict[str, Any] = {k.removeprefix("policy/"): v for k, v in arrays.items() if k.startswith("policy/")}
    if not weights:
        return Checkpoint(meta, None, arrays)
    wrong = wrong_weights(weights) if meta["recommender"] is not None else "they have no name"
    if wrong:
        raise CheckpointError(f"{path}: the recommender's weights are damaged: {wrong}; the file was left as it is")
    weights, notes = Notes.split(weights)
    if notes.trained_trust is None and not isinstance(meta["trust"], str):  # what training and calibration left
        notes = replace(notes, trained_trust=float(meta["trust"]))
    return Checkpoint(meta, ArrayPolicy(weights, meta["recommender"], notes), arrays)


def made_from(kind: Callable[..., A], source: str | Path, trust_code: bool, changes: dict[str, Any]) -> A:
    """The allocator that ``source`` holds, with some of the constructor's arguments changed; see ``Allocator.load``."""
    saved = read_checkpoint(source)
    changes = dict(changes)
    problem = changes.pop("problem", None)
    if problem is None:
        with _blaming(source, "its problem"):
            problem = restore_problem(saved.meta["problem"], trust_code)
    meta = saved.meta
    with _blaming(source, "its settings"):
        settings = {
            "method": meta["method"], "trust": meta["trust"], "limit": meta["limit"], "choose": meta["choose"],
            "seed": meta["seed"], "prices": saved_prices(problem, meta["prices"]), "recommender": saved.policy,
            "hysteresis": meta.get("hysteresis", 0.0), "belief": restore_belief(problem, saved.arrays),
            "improve": _improve(meta.get("improve", False)),
            "value": restore_value(saved.arrays), "lists": _lists(meta.get("lists", asdict(Lists()))),
        }  # fmt: skip
        made = kind(problem, **settings)  # what is wrong here is the file's; below it is the caller's
        _restore_trust(made.trust_rule, meta.get("trust_state"))
    if not changes:
        return made
    made = kind(problem, **settings | changes)
    if "trust" not in changes:
        made.trust_rule.restore(meta.get("trust_state"))
    return made


def find_recommender(problem: AnyProblem, given: Any, seed: int) -> Any:
    """A recommender from None, an object, a learner's name (fresh and untrained), or the address of a saved allocator.

    Raises:
        UnknownNameError: no such learner. CheckpointError: another problem's, or an allocator without one.
    """
    if given is None or isinstance(given, Speaks):
        return given
    text = str(given)
    if isinstance(given, str) and not text.endswith(".npz") and ":/" not in text and "/" not in text:
        if text not in LEARNERS and not _with_suffix(Path(text)).is_file():
            raise nearest("recommender", text, LEARNERS)
        if text in LEARNERS:
            return make_learner(text, Sizes.of(problem.worlds([0]).observe()), seed).policy
    meta, policy, _ = read_checkpoint(given)
    of = meta["problem"].get("name")
    if of != problem.card.name:
        raise CheckpointError(f"{given} was trained on {printable(of)}; this problem is {problem.card.name}")
    if policy is None:
        raise CheckpointError(f"{given} holds no recommender: it was saved from method {quoted(meta['method'])}")
    return policy


def restore_value(arrays: Mapping[str, Any]) -> StoreValue | None:
    """The value of stores among a saved allocator's arrays, None where there is none.

    Raises:
        ValueError: something of it is missing, of another shape, or not finite.
    """
    state = {name.removeprefix("value/"): array for name, array in arrays.items() if name.startswith("value/")}
    return StoreValue.of(state) if state else None


def find_value(given: Valuer | str | Path | None) -> Valuer | None:
    """A value from None, an object, or the address of a saved allocator that has one (see :func:`saved_value`)."""
    return saved_value(given) if isinstance(given, str | Path) else given


def saved_value(source: str | Path) -> StoreValue:
    """The value of stores that a saved allocator has.

    Raises:
        CheckpointError: no such file, or an allocator without a value.
    """
    saved = read_checkpoint(source)
    with _blaming(source, "its value"):
        value = restore_value(saved.arrays)
    if value is None:
        raise CheckpointError(f"{source} holds no value of stores: it was saved without one")
    return value


def local(source: str | Path) -> Path:
    """A file on this machine: a path, with ``.npz`` where only that exists, or what an MLflow address names.

    Raises:
        CheckpointError: MLflow has nothing there.
    """
    text = str(source)
    if text.startswith(ADDRESSES):
        mlflow = required("mlflow")
        try:
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=text))
        except Exception as error:  # a store that is away, a run that is not there: MLflow says it in many ways
            reason = printable(str(error).split("\n")[0], 200)
            raise CheckpointError(f"no checkpoint at {text}: {reason}; is MLFLOW_TRACKING_URI set?") from None
    path = Path(source)
    longer = _with_suffix(path)
    return longer if not path.exists() and longer.is_file() else path


class _blaming:
    """A block that makes something of what a file says: whatever fails in it is the file's fault, in one line."""

    def __init__(self, source: str | Path, part: str) -> None:
        self.source, self.part = source, part

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, CheckpointError):
            name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            reason = printable(f"{name}{error}", 300)
            raise CheckpointError(
                f"{self.source} is damaged or of another version: {self.part} cannot be made ({reason}); it was left "
                "as it is"
            ) from None


def _with_suffix(path: Path) -> Path:
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def _settings(path: Path, text: Any) -> dict[str, Any]:
    """The JSON of an allocator's settings, every field of its kind."""
    try:
        meta = json.loads(str(text))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its settings are not JSON ({printable(error)})") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        found = quoted(meta.get("format")) if isinstance(meta, dict) else "none"
        raise CheckpointError(f"{path} has format {found}; this version reads format {FORMAT}")
    for name, kinds in (_FIELDS | _LATER).items():
        if name not in meta and name in _LATER:
            continue
        value = meta.get(name)
        if name not in meta or type(value) not in kinds:
            wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise CheckpointError(f"{path} is damaged: {name} = {quoted(value)}; it must be {wanted}")
    return meta


def _improve(told: bool | dict[str, Any]) -> bool | Improve:
    """As it was written; a file that says nothing of it was made without."""
    if isinstance(told, bool):
        return told
    starts = told.get("starts", ())
    if not isinstance(starts, list | tuple) or not all(isinstance(name, str) for name in starts):
        raise ValueError(f"improve.starts = {quoted(starts)}; it is a list of names")
    unknown = set(told) - {f.name for f in fields(Improve)}
    if unknown:
        raise ValueError(f"improve has no {quoted(min(unknown))}")
    return Improve(**told | {"starts": tuple(starts)})


def _lists(told: Any) -> Lists | None:
    """As it was written; a file that says nothing of it was made before there were lists, and has them as they are by
    default."""
    if told is None:
        return None
    if not isinstance(told, dict) or set(told) != {f.name for f in fields(Lists)}:
        raise ValueError(f"lists = {quoted(told)}; it is null, or a width and an above")
    return Lists(**told)


def _restore_trust(rules: Trust, state: dict[str, Any] | None) -> None:
    """What a rule of trust has learned, if it is one: plain numbers that give a distribution over its grid."""
    for name, value in (state or {}).items():
        counts = type(value) is int and 0 <= value < 2**63
        if not (counts if name == "steps" else value is None or _finite(value)):
            raise ValueError(f"trust_state.{printable(name)} = {quoted(value)}; numbers that are finite are needed")
    rules.restore(state)
    if rules.rule is not None:
        weights = np.asarray(rules.rule.weights)
        if weights.shape != rules.rule.grid.shape or not (weights >= 0).all() or not abs(weights.sum() - 1) < 1e-6:
            raise ValueError(f"trust_state gives no distribution over {len(rules.rule.grid)} trusts")


def _finite(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind in "if" and bool((np.abs(array) < 1e300).all())


def saved_prices(problem: AnyProblem, given: Mapping[str, Any]) -> Any:
    """As :func:`finite_prices`, from a file: a price that it does not know was not charged where it was written."""
    return finite_prices(problem, dict(problem.card.unpriced) | dict(given) if given else given)


def finite_prices(problem: AnyProblem, given: Mapping[str, Any]) -> Any:
    """Prices of a problem by name, as floats; the defaults for those that are left out.

    Raises:
        ValueError: one that the problem does not have, or that is no finite number.
    """
    for name, value in given.items():
        if name not in problem.card.prices._fields:
            raise ValueError(
                f"prices.{printable(name)} is unknown; {problem.card.name} has {', '.join(problem.card.prices._fields)}"
            )
        number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        if not number or not abs(value) < 1e300:
            raise ValueError(f"prices.{printable(name)} = {quoted(value)}; it must be a finite number")
    return problem.card.prices(**{name: float(value) for name, value in given.items()})
