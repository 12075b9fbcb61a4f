"""Every notebook runs, on a small setting, and its stored outputs belong to the script beside it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
SMALLER = {
    "02_hybrid_and_rl": {
        "agent_steps=16_000": "agent_steps=4_000", "report_seeds=8": "report_seeds=3", "tuning=4": "tuning=1",
        "quiet=True": "quiet=True, workers=1",
    },
    "06_learned_routing": {"agent_steps = 6_000": "agent_steps = 500", "steps=150": "steps=20"},
    "05_your_own_problem": {"agent_steps=20_000": "agent_steps=3_000", "slots=40": "slots=5"},
    "06_voltage": {"STATES = 30": "STATES = 5", "BANDS = [0.01, 0.02, 0.03, 0.05]": "BANDS = [0.02, 0.05]"},
}  # fmt: skip


def maker():
    spec = importlib.util.spec_from_file_location("make_notebooks", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", maker().scripts(), ids=lambda path: path.stem)
def test_it_runs(script, monkeypatch):
    house = str(FOLDER.parent)
    monkeypatch.setenv("PYTHONPATH", house)
    notebook = maker().run(script, smaller=SMALLER.get(script.stem))
    kinds = [o["output_type"] for c in notebook.cells for o in c.get("outputs", [])]
    assert "error" not in kinds and ("display_data" in kinds or "execute_result" in kinds)


@pytest.mark.parametrize("script", maker().scripts(), ids=lambda path: path.stem)
def test_the_stored_notebook_is_the_scripts_with_outputs(script):
    import jupytext

    stored = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
    fresh = jupytext.read(script)
    text = lambda source: "".join(source) if isinstance(source, list) else source
    assert [text(c["source"]) for c in stored["cells"]] == [c.source for c in fresh.cells]
    outputs = [o for c in stored["cells"] for o in c.get("outputs", [])]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    assert not any(o.get("name") == "stderr" or o["output_type"] == "error" for o in outputs)
