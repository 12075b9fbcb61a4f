"""Mutated states, JSON texts and tables: what comes in is valid, or refused by name in one line; never anything else.

Each case is a valid input with a few faults, drawn from a seed. The oracle is independent of the code that reads: an
input without a fault is accepted, and a refusal names a field (of a table: a column, or the table), and where a fault
was put into a single entry its index and value. For more, ``CASES=200000 pytest tests/hybridalloc/test_fuzz_input.py``.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from dataclasses import fields
from functools import cache

import numpy as np
import pytest

from hybridalloc import Allocator, InvalidStateError, make_problem
from hybridalloc.problems.custom.problem import CustomState
from hybridalloc.problems.custom.tables import JOBS, LINKS, SERVERS
from hybridalloc.problems.mec.problem import MecState
from hybridalloc.problems.state import DEEPEST, read_json

CASES = int(os.environ.get("CASES", "4000"))  # in all, over the tests of this file

MEC = make_problem("mec", agents=4, servers=2)
ODD = (
    None, True, False, "x", "", "1e9", "nan", "\x1b[31mred", "line\nbreak", "\ud800", "x" * 5000, b"bytes", 1.5, -1, 0,
    -0.0, 5e-324, 1e308, -1e308, float("nan"), float("inf"), -float("inf"), 2**53 + 1, 2**63 - 1, 2**63, -(2**63),
    2**64, 10**30, -(10**30), 10**400, 10**6000, 1j, [], [1, 2], [[1]], (), {}, {"a": 1}, {1, 2}, np.float32(1.5),
    np.int8(3), np.bool_(True), np.datetime64("2020-01-01"), np.array([]), np.array([1.0, 2.0]), np.array("x"),
    object(), range(3), len,
)  # fmt: skip


@cache
def nested(depth):
    out: list = []
    for _ in range(depth):
        out = [out]
    return out


def entry(rng):
    return nested(int(rng.choice([1, 3, 70, 100_000]))) if rng.random() < 0.05 else ODD[rng.integers(len(ODD))]


def check_message(error, names):
    text = str(error)
    assert text.isprintable() and len(text) < 300, text
    assert any(name in text for name in names), text
    return text


@cache
def first_state(seed):
    return MEC.reset(seed).to_dict()


def copied(value, levels=4):
    return [copied(part, levels - 1) for part in value] if isinstance(value, list) and levels else value


def mec_state(rng):
    data = dict(first_state(int(rng.integers(20))))
    if rng.random() < 0.7:
        del data["truth"]
    return data


def custom_state(rng):
    n, r = int(rng.integers(0, 5)), int(rng.integers(1, 4))
    data = {
        "work": rng.uniform(1, 5, (n, r)).tolist(), "capacity": rng.uniform(1, 5, r).tolist(),
        "deadline_s": rng.uniform(1, 5, n).tolist(), "private_cost": rng.uniform(0, 1, (n, 1 + r)).tolist(),
        "allowed": [[True] * (1 + r)] * n, "priority": [0] * n, "active": [True] * n,
        "names": [f"job {i}" for i in range(n)],
        "hidden": {"a": [1, {"b": 2}]},
    }  # fmt: skip
    return {k: v for k, v in data.items() if k in ("work", "capacity") or rng.random() < 0.8}


def mutate(rng, data):
    """One fault in a state; the field, and index and value where it went into one entry that cannot be right."""
    name = str(rng.choice(list(data)))
    target, where = data, name
    if name == "truth" and rng.random() < 0.7:
        target = data["truth"] = dict(data["truth"])
        name = str(rng.choice(list(target)))
        where = f"truth: {name}"
    kind = rng.integers(7)
    value = target[name]
    if kind == 0:
        del target[name]
    elif kind == 1:
        target[str(rng.choice(["slots", "\x1b[2J", "z" * 400, "wrok", "names "]))] = 1
    elif kind == 2:
        target[name] = entry(rng)
    elif kind == 3 and isinstance(value, list) and value:
        target[name] = value[:-1]
    elif kind == 4 and isinstance(value, list):
        target[name] = nested(int(rng.choice([1, 2, 70, 100_000])))
    elif isinstance(value, list) and value:
        target[name] = part = copied(value)
        index = []
        while True:
            k = int(rng.integers(len(part)))
            index.append(k)
            if not isinstance(part[k], list) or not part[k] or rng.random() < 0.1:
                break
            part = part[k]
        leaf = not isinstance(part[index[-1]], list)
        part[index[-1]] = odd = entry(rng)
        known = {f.name: f for f in (*fields(MecState), *fields(CustomState))}
        text = isinstance(odd, str) and name != "names"
        surely = leaf and (odd is None or text or isinstance(odd, dict | set | complex))
        if surely and name in known:
            return where, index, odd
    else:
        target[name] = entry(rng)
    return where, None, None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [MecState, CustomState])
def test_a_mutated_state_is_valid_or_refused_by_field_index_and_value(kind):
    rng = np.random.default_rng(11)
    names = [f.name for f in fields(kind)]
    refused = exact = 0
    draw = mec_state if kind is MecState else custom_state
    for case in range(CASES // 3):
        data = draw(rng)
        if case % 10 == 0:
            assert kind.from_dict(data) == kind.from_dict(json.loads(json.dumps(data)))
        where, index, odd = mutate(rng, data)
        extra = rng.random() < 0.2
        if extra:
            mutate(rng, data)
        try:
            state = kind.from_dict(data)
        except InvalidStateError as error:
            refused += 1
            text = check_message(error, [*names, *(f.name for f in fields(kind)), "unknown field", "truth"])
            if index is not None and not extra:
                exact += 1
                assert text.startswith(f"{where}[{', '.join(map(str, index))}] = "), (case, text)
                assert not isinstance(odd, str) or repr(odd[:8])[1:-1] in text, (case, text)
        else:
            assert index is None or extra, (case, where, index)
            told = state.to_dict()
            assert kind.from_dict(told) == state, case
            told.pop("hidden", None)  # the user's own
            assert kind.from_dict(json.loads(json.dumps(told, allow_nan=False))).to_dict() == told, case
    assert refused > CASES // 12 and exact > CASES // 100  # the faults are real


def test_what_is_no_object_is_refused():
    for given in (*ODD, nested(100_000)):
        if not isinstance(given, dict):
            for kind in (MecState, CustomState):
                with pytest.raises(InvalidStateError) as caught:
                    kind.from_dict(given)
                check_message(caught.value, ["state", "field"])
    for given in (None, [1, 2], 5, "x", {}):
        with pytest.raises(InvalidStateError):
            Allocator(MEC, "game").step(given)


def test_json_text_with_flipped_characters_is_read_or_refused_in_one_line():
    rng = np.random.default_rng(12)
    whole = json.dumps(MEC.reset(0).to_dict())
    for text, words in (
        ("[" * 100_000 + "]" * 100_000, "standard input is nested too deep"),
        ('{"slot": ' + "9" * 5000 + "}", "standard input holds a number that cannot be read"),
        ('{"slot": 1', "standard input is not JSON: line 1, column 11"),
        ("", "standard input is not JSON: line 1, column 1"),
        (b"\xff{}", "standard input is not text in UTF-8: byte 0"),
    ):
        with pytest.raises(InvalidStateError, match=words) as caught:
            read_json(text, "standard input")
        check_message(caught.value, ["standard input"])
    deep = {"work": [[1.0]], "capacity": [1.0], "hidden": {"a": nested(DEEPEST + 2)}}
    with pytest.raises(InvalidStateError, match=f"hidden is nested more than {DEEPEST} levels deep"):
        CustomState.from_dict(deep)
    for _ in range(CASES // 30):
        letters = list(whole)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(letters)))
            letters[at] = str(rng.choice(list('0123456789.eE-+[]{},:" ntfa\0\x1b')))
        try:
            MecState.from_dict(read_json("".join(letters), "standard input"))
        except InvalidStateError as error:
            check_message(error, ["standard input", "field", "state", *(f.name for f in fields(MecState)), "truth"])


TEXTS = (
    "", " ", "x", "1,5", "1,000", "1_000", "0x10", "\u0661\u0662", "nan", "inf", "-inf", "1e999", "-1", "0", "1e-320",
    "True", "NA", "None", "null", "\x1b[31m", "a\nb", "\u202e", "y" * 3000, "1" * 5000, "\u00a05\u00a0", "+5",
    ".5", "5.",
)  # fmt: skip


def tables(rng):
    n, k = int(rng.integers(0, 5)), int(rng.integers(1, 4))
    column = lambda low, count: [f"{x:.3f}" for x in rng.uniform(low, 5, count)]
    jobs = {
        "name": [f"j{i}" for i in range(n)], "work": column(1, n), "deadline_s": column(1, n),
        "delay_cost": column(1, n), "priority": column(-1, n), "opt_out_cost": column(0, n),
        "power_limit_w": column(1, n),
    }  # fmt: skip
    servers = {
        "name": [f"s{r}" for r in range(k)], "capacity": column(1, k), "wait_s": column(0, k),
        "full_power_w": column(0, k),
    }  # fmt: skip
    pairs = [(i, r) for i in range(n) for r in range(k)]
    links = {
        "job": [f"j{i}" for i, _ in pairs], "server": [f"s{r}" for _, r in pairs], "cost": column(0, n * k),
        "work": column(1, n * k),
    }  # fmt: skip
    return {"jobs": jobs, "servers": servers, "links": links}


def as_csv(columns):
    quote = lambda text: '"' + str(text).replace('"', '""') + '"' if re.search(r'[",\n]', str(text)) else str(text)
    rows = [list(columns), *zip(*columns.values(), strict=True)]
    return "\n".join(",".join(map(quote, row)) for row in rows) + "\n"


def wrong_number(value, rule):
    """Whether a cell of a number column cannot be right, by a reading of its own."""
    text = value.strip() if isinstance(value, str) else value
    if text is None or (isinstance(text, float) and text != text):
        return rule.required
    if isinstance(text, str):
        if not text:
            return rule.required
        if not re.fullmatch("[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?", text):
            return True
    if isinstance(text, bool | np.bool_ | complex) or not isinstance(text, str | int | float | np.number):
        return True
    number = float(text) if not isinstance(text, int) or abs(text) < 10**308 else float("inf")
    return not (np.isfinite(number) and number >= rule.low and number > rule.above)


@pytest.mark.filterwarnings("error", "always::hybridalloc.problems.custom.tables.TableNote")
@pytest.mark.parametrize("how", ["csv", "columns"])
def test_a_mutated_table_is_served_or_refused_by_table_row_column_and_value(tmp_path, how):
    rng = np.random.default_rng(13)
    rules = {"jobs": JOBS, "servers": SERVERS, "links": LINKS}
    refused = exact = noted = 0
    for case in range(CASES // 6):
        given = tables(rng)
        label = str(rng.choice(["jobs", "servers", "links"]))
        table = given[label]
        column = str(rng.choice(list(table)))
        rows = len(table[column])
        wrong = row = None
        kind = rng.integers(6)
        if kind == 0:
            del table[column]
        elif kind == 1:
            table[str(rng.choice(["wrok", "", "z" * 300, "\x1b[2J", "wörk"]))] = ["1"] * rows
        elif kind == 2 and how == "columns":
            table[column] = entry(rng)
        elif rows:
            row = int(rng.integers(rows))
            value = entry(rng) if how == "columns" and rng.random() < 0.6 else TEXTS[rng.integers(len(TEXTS))]
            if how == "csv" or not isinstance(value, str) or "\ud800" not in value:
                table[column][row] = value
                if not rules[label][column].text:
                    wrong = wrong_number(value, rules[label][column])
        if how == "csv":
            sent = {}
            for name, columns in given.items():
                sent[name] = tmp_path / f"{name}.csv"
                sent[name].write_text(as_csv(columns), encoding="utf-8")
        else:
            sent = given
        try:
            with warnings.catch_warnings(record=True) as notes:
                problem = make_problem("custom", **sent)
            for note in notes:
                noted += 1
                assert kind == 1 and re.search(f"{label}.* ignored; known", check_message(note.message, [label]))
        except InvalidStateError as error:
            refused += 1
            text = check_message(error, ["jobs", "servers", "links"])
            if wrong is not None:
                exact += 1
                assert wrong, (case, label, column, text)
                place = rf"{label}\.csv, line \d+" if how == "csv" else f"{label}, row {row}"
                assert re.search(f"{place}, column '{column}': ", text), (case, text)
        else:
            assert not wrong, (case, label, column, table.get(column))
            if case % 10 == 0 and wrong is None:
                assert Allocator(problem, "game").step(problem.reset()).certificate.status == "ok"
    assert refused > CASES // 24 and exact > CASES // 100 and noted > CASES // 100


def test_bytes_that_are_flipped_cut_or_put_in_make_no_other_error(tmp_path):
    rng = np.random.default_rng(14)
    path = tmp_path / "jobs.csv"
    servers = {"name": ["s"], "capacity": [1.0]}
    whole = b'name,work,deadline_s\n"a, b",1.5,2\nc,3,\nd,4,1e3\n'
    for _ in range(CASES // 6):
        raw = bytearray(whole)
        for _ in range(int(rng.integers(1, 5))):
            at = int(rng.integers(len(raw) + 1))
            raw[at : at + int(rng.integers(2))] = bytes(
                [int(rng.choice([0, 10, 13, 34, 44, 127, 200, 255, 27, 48, 46]))]
            )
        path.write_bytes(bytes(raw[: int(rng.integers(len(raw) + 1))] if rng.random() < 0.1 else raw))
        try:
            make_problem("custom", jobs=path, servers=servers)
        except InvalidStateError as error:
            assert re.search("jobs.csv", check_message(error, ["jobs.csv"]))
