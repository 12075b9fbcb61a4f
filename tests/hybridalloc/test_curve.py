"""The figures of a training run in a file of its own."""

from __future__ import annotations

import json

from hybridalloc.training.curve import Curve


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_writes_as_it_goes_and_begins_afresh(tmp_path):
    path = tmp_path / "a.curve.jsonl"
    path.write_text("another run's\n")
    curve = Curve(path)
    curve.note(0, {"check_welfare": 0.25})
    curve.note(24, {"kl": float("nan")})
    assert rows(path) == [{"agent_steps": 0, "check_welfare": 0.25}, {"agent_steps": 24, "kl": None}]


def test_a_run_that_goes_on_drops_what_came_after_its_checkpoint_and_what_was_cut_off(tmp_path):
    path = tmp_path / "a.curve.jsonl"
    before = Curve(path)
    for steps in (0, 24, 48):
        before.note(steps, {"x": 1.0})
    with path.open("a") as file:
        file.write('{"agent_st')
    again = Curve(path, resume=True)
    again.note(48, {"x": 2.0})
    again.note(72, {"x": 2.0})
    assert [(row["agent_steps"], row["x"]) for row in rows(path)] == [(0, 1.0), (24, 1.0), (48, 2.0), (72, 2.0)]
