"""The inputs of ``attack.py``: states, tables, checkpoints and requests with faults, and valid ones at floats' ends.

Every input has faults that are known: the field, and where one entry was spoilt its index. What may come back: an
allocation that is certified and whose answer is strict JSON, or the project's own error, in one line that names the
field (and index and value). An input without a fault may not be refused.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.attacks.steps import Noise
from hybridalloc import Allocator, InvalidStateError, make_problem
from hybridalloc.errors import CheckpointError
from rl.proposal import Proposal

KINDS = ("states", "extreme", "tables", "checkpoints", "requests")
SHARE = {"states": 0.35, "extreme": 0.3, "tables": 0.2, "checkpoints": 0.03, "requests": 0.12}  # of all inputs
ENDS = (5e-324, 1e-320, 1e-300, 1e-150, 1e-30, 1e-9, 1e-3, 1.0, 1e3, 1e9, 1e30, 1e150, 1e300, 1.7e308)
LONGEST = 400  # characters of a message


class Fault(NamedTuple):
    """What was spoilt: a field or column, "" for the input as a whole; the entry, where it cannot be right there."""

    field: str
    entry: str = ""


class Spread:
    """Proposes noise, with spreads that floats can hardly hold."""

    def __init__(self, seed: int, spread: float) -> None:
        self.noise, self.spread = Noise(seed), spread

    def propose(self, observation: Any) -> Proposal:
        given = self.noise.propose(observation)
        return given._replace(spread=np.full((*observation.live.shape, 2), self.spread))


def problems() -> list[Any]:
    """One of each kind, small."""
    two = {"options": [[0, 2], [1, 3], [0, -1]], "families": ["air", "air", "cpu", "cpu"]}
    return [
        make_problem("mec", agents=4, servers=2), make_problem("mec", agents=5, servers=2, scenario="A"),
        make_problem("custom", work=np.full((4, 3), 2.0), capacity=[1.0, 2.0, 3.0], deadline_s=[3.0] * 4),
        make_problem("custom", work=np.full((3, 4), 2.0), capacity=[2.0, 3.0, 5.0, 4.0], **two),
    ]  # fmt: skip


def allocators(problem: Any, seed: int) -> list[Allocator]:
    """Of every method, at the default prices and at odd ones."""
    out = [Allocator(problem, b, seed=seed) for b in problem.card.baselines]
    defaults = problem.card.prices()
    odd = [defaults] * 3
    odd += [defaults._replace(**{name: 0.0}) for name in defaults._fields if name not in ("margin", "caution")]
    odd += [defaults._replace(**{next(iter(problem.card.price_space)): 1e9}), defaults._replace(margin=1e-9)]
    for k, prices in enumerate(odd):
        speaker = Noise(seed + k) if k % 2 else Spread(seed + k, (1e-200, 0.0, 5e-324, 1e300)[k // 2 % 4])
        out.append(Allocator(problem, "hybrid", speaker, (0.3, 5.0, 1e9)[k % 3], prices=prices, seed=seed))
        out.append(Allocator(problem, "game", prices=prices, seed=seed))
        out.append(Allocator(problem, "rl", speaker, prices=prices, seed=seed))
    return out


# --- states


def custom_state(problem: Any, rng: np.random.Generator) -> dict[str, Any]:
    """A valid state of a custom problem as JSON gives it."""
    n, r, o = int(rng.integers(1, 6)), len(problem.resources), len(problem.options) + 1
    some = {
        "work": rng.uniform(0.1, 4, (n, r)), "capacity": rng.uniform(1, 9, r), "deadline_s": rng.uniform(0.3, 5, n),
        "delay_cost": rng.uniform(0.1, 2, n), "private_cost": rng.uniform(-1, 1, (n, o)),
        "opt_out_cost": rng.uniform(0, 3, n), "allowed": np.ones((n, o), bool),
        "priority": rng.integers(0, 3, n).astype(float), "wait_s": rng.uniform(0, 0.5, r),
        "full_power_w": rng.uniform(0, 5, (n, r)), "power_limit_w": rng.uniform(0.5, 8, n),
        "active": rng.random(n) < 0.9,
    }  # fmt: skip
    data = {k: v.tolist() for k, v in some.items() if k in ("work", "capacity") or rng.random() < 0.6}
    if rng.random() < 0.3:
        data["names"] = [f"job {i}" for i in range(n)]
    return data


def valid_state(problem: Any, rng: np.random.Generator, known: dict[int, str]) -> dict[str, Any]:
    if problem.name == "custom":
        return custom_state(problem, rng)
    key = id(problem) * 50 + int(rng.integers(20))
    if key not in known:
        known[key] = json.dumps(problem.reset(key % 50).to_dict())
    data = dict(json.loads(known[key]))
    if rng.random() < 0.6:
        del data["truth"]
    return data


WRONG = (None, "x", "1e9", "", "\x1b[31mred", "a\nb", "y" * 3000, float("nan"), float("inf"), -float("inf"),
         {"a": 1}, [1], [[2.0]], 10**400, 1j)  # fmt: skip


def spoil_state(data: dict[str, Any], problem: Any, rng: np.random.Generator, count: int) -> list[Fault]:
    """``count`` faults put into a state, each into another field."""
    faults: list[Fault] = []
    whole = [k for k in data if k != "truth"]
    for name in rng.permutation(whole)[:count]:
        faults.append(_spoil_field(data, str(name), problem, rng))
    return faults


def _spoil_field(data: dict[str, Any], name: str, problem: Any, rng: np.random.Generator) -> Fault:
    specs = {f.name: f.metadata.get("spec") for f in fields(problem.state_type)}
    spec, kind = specs[name], int(rng.integers(8))
    if kind == 0 and spec is not None and spec.fill is None:
        del data[name]
        return Fault(name)
    if kind == 1:
        wrong = str(rng.choice(["slots", "\x1b[2Jx", "z" * 400, "wrok", "transition", "__class__"]))
        data[wrong] = 1
        return Fault("unknown field")
    if kind == 2:
        data[name] = WRONG[int(rng.integers(1, len(WRONG)))]
        return Fault(name)
    if kind == 3 and isinstance(data[name], list) and len(data[name]) > 1:
        data[name] = data[name][:-1]
        return Fault("")  # which of two lengths is wrong cannot be known
    if spec is None:
        data[name] = WRONG[7] if name == "slot" else "x"
        return Fault(name)
    part, index = data[name], []
    for _ in spec.axes:
        if not part:  # an axis of length 0
            data[name] = WRONG[int(rng.integers(1, len(WRONG)))]
            return Fault(name)
        index.append(int(rng.integers(len(part))))
        if len(index) < len(spec.axes):
            part = part[index[-1]]
    wrong_values = list(WRONG)
    if spec.dtype is bool:
        wrong_values += [2, -1, 0.5]
    else:
        wrong_values += [True] * 2
        if math.isfinite(spec.low):
            wrong_values += [spec.low - 1.5] * 3
        if math.isfinite(spec.above):
            wrong_values += [spec.above, -1.0]
        if math.isfinite(spec.high):
            wrong_values += [spec.high + 1.5] * 2
    part[index[-1]] = wrong = wrong_values[int(rng.integers(len(wrong_values)))]
    entry = f"{name}[{', '.join(map(str, index))}] = "
    return Fault(name, "" if isinstance(wrong, list) else entry)  # lists may make another regular shape


def stretch_state(data: dict[str, Any], problem: Any, rng: np.random.Generator) -> None:
    """Values at the ends of what floats hold, every one of them permitted."""
    data.pop("truth", None)
    n = len(data["work"] if problem.name == "custom" else data["active"])
    if problem.name == "custom":
        data |= {"deadline_s": data.get("deadline_s", [1.0] * n), "power_limit_w": data.get("power_limit_w", [1.0] * n)}
    specs = {f.name: f.metadata["spec"] for f in fields(problem.state_type) if "spec" in f.metadata}
    names = [name for name in data if name in specs and specs[name].dtype is float]
    for name in rng.choice(names, int(rng.integers(1, 5)), replace=False):
        spec, value = specs[str(name)], np.array(data[name], float)
        ends = np.array([0.0, *ENDS, *(-np.array(ENDS))])
        fits = (ends >= spec.low) & (ends > spec.above) & (ends <= spec.high)
        if name in ("task_bits", "task_cycles"):
            fits &= ends > 0
        some = rng.random(value.shape) < rng.choice([0.2, 0.5, 1.0])
        value[some] = rng.choice(ends[fits], value.shape)[some] if rng.random() < 0.5 else rng.choice(ends[fits])
        data[str(name)] = value.tolist()


# --- tables


def tables(rng: np.random.Generator) -> dict[str, dict[str, list[Any]]]:
    """Valid tables as columns."""
    n, k = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    num = lambda count, low, high: [float(x) for x in rng.uniform(low, high, count)]
    jobs = {
        "name": [f"job {i}" for i in range(n)], "work": num(n, 0.5, 5), "deadline_s": num(n, 0.5, 5),
        "priority": num(n, 0, 3), "delay_cost": num(n, 0.1, 2), "opt_out_cost": num(n, 0, 3),
        "power_limit_w": num(n, 1, 9),
    }  # fmt: skip
    servers = {"name": [f"s{i}" for i in range(k)], "capacity": num(k, 1, 9), "wait_s": num(k, 0, 1),
               "full_power_w": num(k, 0, 5)}  # fmt: skip
    keep = lambda t: {c: v for c, v in t.items() if c in ("name", "work", "capacity") or rng.random() < 0.6}
    out: dict[str, dict[str, list[Any]]] = {"jobs": keep(jobs), "servers": keep(servers)}
    if rng.random() < 0.4:
        pairs = [(i, r) for i in range(n) for r in range(k) if i % k == r or rng.random() < 0.6]
        pairs += [(0, r) for r in range(k) if all(q != r for _, q in pairs)]
        out["links"] = {
            "job": [f"job {i}" for i, _ in pairs], "server": [f"s{r}" for _, r in pairs],
            "cost": num(len(pairs), -1, 1),
        }  # fmt: skip
    return out


def spoil_table(given: dict[str, dict[str, list[Any]]], rng: np.random.Generator) -> Fault:
    """One fault put into a table: a cell, a column, or rows."""
    which = str(rng.choice(list(given)))
    table = given[which]
    column = str(rng.choice(list(table)))
    kind = int(rng.integers(6))
    text = column in ("name", "job", "server")
    if kind == 0 and column in ("name", "work", "capacity", "job", "server") and (which, column) != ("links", "work"):
        del table[column]
        return Fault(f"column '{column}'")
    if kind == 1:
        wrong = str(rng.choice(["wrok", "deadlines", "\x1b[2Jc", "q" * 300]))
        table[wrong] = [1.0] * len(table[column])
        return Fault("column")
    row = int(rng.integers(len(table[column])))
    if text and kind == 2 and which != "links" and len(table[column]) > 1:
        table[column][row] = table[column][row - 1]
        return Fault(which, "row|line")
    if text:
        table[column][row] = [None, "", "  ", "nan", "NA", float("nan")][int(rng.integers(6))]
    else:
        values: list[Any] = ["x", "1,5", "0x10", "\x1b[31m", "1e", "--1", "9" * 400, float("inf"), "inf", True, [1]]
        if column in ("work", "capacity", "deadline_s", "delay_cost", "power_limit_w"):
            values += [0.0, -1.0, "-0", "0"]
        if column in ("wait_s", "full_power_w"):
            values += [-1.0, "-1e-9"]
        table[column][row] = values[int(rng.integers(len(values)))]
    return Fault(f"column '{column}'", "row|line")


def as_csv(table: dict[str, list[Any]]) -> str:
    """A table as CSV text; None and NaN are empty cells."""
    cell = lambda v: "" if v is None or v != v else '"' + str(v).replace('"', '""') + '"'
    rows = zip(*table.values(), strict=True)
    return "\n".join(",".join(map(cell, row)) for row in [tuple(table), *rows]) + "\n"


# --- what came back


def judge(found: Counter[str], what: str, faults: list[Fault], run: Callable[[], Any]) -> None:
    """Run one input and count what may not be."""
    try:
        answer = run()
    except (InvalidStateError, CheckpointError) as error:
        text = str(error)
        if not faults:
            found[f"{what}: refused though valid: {text[:120]}"] += 1
        elif not text.isprintable() or len(text) > LONGEST:
            found[f"{what}: not one short line: {text[:120]!r}"] += 1
        elif not any(f.field in text and any(e in text for e in f.entry.split("|")) for f in faults):
            found[f"{what}: refused without {faults[0]}: {text[:160]}"] += 1
        found[f"# {what} refused"] += 1
        return
    except Exception as error:
        found[f"{what}: {type(error).__name__}: {str(error)[:160]}"] += 1
        return
    for allocation in answer if isinstance(answer, list) else [answer]:
        try:
            if isinstance(allocation, dict):
                text, fine = json.dumps(allocation, allow_nan=False), allocation["certificate"]["feasible"]
            else:
                text, fine = json.dumps(allocation.to_dict(), allow_nan=False), allocation.certificate.feasible
        except ValueError:
            text, fine = "", True
            found[f"{what}: an answer that is no strict JSON"] += 1
        if not fine:
            found[f"{what}: not certified: {text[:0]}{_reason(allocation)}"] += 1
    found[f"# {what} answered"] += 1


def _reason(allocation: Any) -> str:
    c = allocation["certificate"] if isinstance(allocation, dict) else vars(allocation.certificate)
    return f"{list(c['violations'])[:1]} {c['status'][:100]}"


def attack_states(count: int, seed: int) -> Counter[str]:
    """States with one to three faults, a few with none."""
    return _step_states("states", count, seed, lambda rng: int(rng.choice([0, 1, 1, 1, 2, 3])), False)


def attack_extreme(count: int, seed: int) -> Counter[str]:
    """States without a fault, at the ends of what floats hold."""
    return _step_states("extreme", count, seed, lambda rng: 0, True)


def _step_states(
    what: str, count: int, seed: int, faulty: Callable[[np.random.Generator], int], far: bool
) -> Counter[str]:
    found: Counter[str] = Counter()
    rng = np.random.default_rng([seed, 1 + far])
    known: dict[int, str] = {}
    pool = [(p, allocators(p, seed)) for p in problems()]
    for k in range(count):
        problem, some = pool[k % len(pool)]
        data = valid_state(problem, rng, known)
        if far:
            stretch_state(data, problem, rng)
        faults = [] if far else spoil_state(data, problem, rng, faulty(rng))
        allocator = some[int(rng.integers(len(some)))]
        judge(found, f"{what} of {problem.name}", faults, lambda a=allocator, d=data: a.step(d))
    return found


def attack_tables(count: int, seed: int) -> Counter[str]:
    """Tables as columns and as files."""
    found: Counter[str] = Counter()
    rng = np.random.default_rng([seed, 3])
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(count):
            given: dict[str, Any] = tables(rng)
            faults = [spoil_table(given, rng) for _ in range(int(rng.choice([0, 1, 1, 1])))]
            if rng.random() < 0.4:
                for name, table in given.items():
                    given[name] = Path(folder, f"{name}.csv")
                    given[name].write_text(as_csv(table))
            method = ("game", "balanced", "fastest")[int(rng.integers(3))]

            def run(given: Any = given, method: str = method) -> Any:
                problem = make_problem("custom", **given)
                return Allocator(problem, method).step(problem.start)

            judge(found, "tables", faults, run)
    return found


def _mutate_meta(meta: Any, rng: np.random.Generator) -> None:
    """One entry somewhere in an allocator's settings is replaced, added or left out."""
    here = meta
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            return
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(here[key], dict | list) and here[key] and rng.random() < 0.8:
            here = here[key]
            continue
        kind = int(rng.integers(5))
        if kind == 0:
            del here[key]
        elif kind == 1 and isinstance(here, dict):
            here[str(rng.choice(["os:system", "\x1b[2J", "k" * 500]))] = here[key]
        else:
            odd = [None, True, -1, 0, 1e308, 10**30, 2**63, "os:system", "x" * 1000, "\x1b[2J", [], {}, [1, "a"], "nan",
                   {"address": "os:system", "settings": {"command": "false"}}, float("nan"), -1e-9, 0.5]  # fmt: skip
            here[key] = odd[int(rng.integers(len(odd)))]
        return


def attack_checkpoints(count: int, seed: int) -> Counter[str]:
    """Files of allocators with flipped bits, cut, or with other settings; what loads is stepped."""
    found: Counter[str] = Counter()
    rng = np.random.default_rng([seed, 4])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "a.npz")
        sources = []
        for problem in problems()[::2]:
            for settings in (("game",), ("hybrid", "imappo", 5.0), ("hybrid", None, "hedge")):
                Allocator(problem, *settings).save(place)
                with np.load(place) as archive:
                    sources.append((place.read_bytes(), {k: archive[k] for k in archive.files}))
        for k in range(count):
            raw, arrays = sources[int(rng.integers(len(sources)))]
            kind = k % 4
            if kind < 2:
                spoilt = bytearray(raw)
                for _ in range(int(rng.integers(1, 4))):
                    spoilt[int(rng.integers(len(spoilt)))] ^= 1 << int(rng.integers(8))
                place.write_bytes(bytes(spoilt))
            elif kind == 2 and rng.random() < 0.3:
                place.write_bytes(raw[: int(rng.integers(len(raw)))])
            else:
                meta = json.loads(str(arrays["meta"]))
                for _ in range(int(rng.integers(1, 3))):
                    _mutate_meta(meta, rng)
                with place.open("wb") as stream:
                    np.savez(stream, **arrays | {"meta": np.array(json.dumps(meta))})

            def run() -> Any:
                made = Allocator.load(place)
                made.belief = None
                return made.step(made.problem.example(1) if hasattr(made.problem, "example") else _small(made.problem))

            judge(found, "checkpoints", [Fault("a.npz")], run)
    return found


def _small(problem: Any) -> Any:
    """A state of a problem whose size a file has set: of at most 20 devices, whatever it says."""
    return problem.reset(1) if problem.agents <= 20 and problem.servers <= 9 else make_problem("mec", 4, 2).reset(1)


def attack_requests(count: int, seed: int) -> Counter[str]:
    """What a server passes on: frames, mappings and lists with states in them, and what is none."""
    import pandas as pd
    from mlflow.exceptions import MlflowException

    from hybridalloc.serving.served_model import AllocatorModel

    found: Counter[str] = Counter()
    rng = np.random.default_rng([seed, 5])
    known: dict[int, str] = {}
    pool = []
    for problem in problems():
        model = AllocatorModel()
        model.allocator = Allocator(problem, "game", seed=seed)
        pool.append((problem, model))
    for k in range(count):
        problem, model = pool[k % len(pool)]
        states = [valid_state(problem, rng, known) for _ in range(int(rng.integers(1, 3)))]
        faults = [fault for s in states for fault in spoil_state(s, problem, rng, int(rng.choice([0, 0, 1])))]
        rows: Any = [{"state": s} for s in states]
        kind = int(rng.integers(8))
        if kind == 0:
            rows[0] = [1, None, "x", {}, {"stat": 1}, [rows[0]]][int(rng.integers(6))]
            faults.append(Fault("'state'"))
        elif kind == 1:
            rows[0]["state"] = [1, None, "x", [], [1, 2], float("nan")][int(rng.integers(6))]
            faults.append(Fault("state"))
        elif kind == 2:
            rows = pd.DataFrame(rows)
        elif kind == 3 and len(rows) == 1:
            rows = rows[0]

        def run(rows: Any = rows, model: Any = model) -> Any:
            try:
                return model.predict(None, rows)
            except MlflowException as error:
                if error.error_code != "INVALID_PARAMETER_VALUE":
                    raise
                raise InvalidStateError(error.message) from None

        judge(found, "requests", faults, run)
    return found


def attack_inputs(kind: str, count: int, seed: int) -> Counter[str]:
    """``count`` inputs of one kind; "answered" and "refused" count them, every other entry is a finding."""
    attacks = {"states": attack_states, "extreme": attack_extreme, "tables": attack_tables,
               "checkpoints": attack_checkpoints, "requests": attack_requests}  # fmt: skip
    return attacks[kind](count, seed)
