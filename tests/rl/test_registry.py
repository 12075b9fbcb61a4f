"""The registry of learners, and what is said of it elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hybridalloc.experiments.methods import methods_of
from hybridalloc.problems import make_problem
from rl.proposal import Sizes
from rl.registry import LEARNERS, label, learner_names, make_learner

HOUSE = Path(__file__).resolve().parents[2]
COUNTS = dict(zip(
    ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
     "twenty"), range(10, 21), strict=True,
))  # fmt: skip
PAGES = sorted([HOUSE / "README.md", *(HOUSE / "docs").rglob("*.md")])


def test_every_module_with_a_learner_is_named_once():
    """A class with a name of its own and an update is a learner, and it is in the registry."""
    from rl.off_policy import OffPolicy
    from rl.on_policy import OnPolicy

    for name in LEARNERS:
        make_learner(name, Sizes(2, 2, 2), 0)
        if LEARNERS[name].levels:
            make_learner(name, Sizes(2, 2, 2), 0, {"continuous": ("q",), "ranges": ((0.0, 1.0),), "alone": True})
    found, waiting = set(), [OnPolicy, OffPolicy]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith("rl.") and "name" in vars(kind) and kind not in (OnPolicy, OffPolicy):
            found.add((kind.name, kind.__module__, kind.__name__))
    named = {(name, entry.module, entry.learner) for name, entry in LEARNERS.items()}
    assert found == named | {(name, *entry.levels[:2]) for name, entry in LEARNERS.items() if entry.levels}
    assert len({entry.label for entry in LEARNERS.values()}) == len(LEARNERS) == len(learner_names())
    assert all(entry.what and "\n" not in entry.what for entry in LEARNERS.values())


def test_an_unknown_learner_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"unknown learner 'imapo'; known: imappo, dqn, .*qmix"):
        make_learner("imapo", Sizes(2, 2, 2), 0)


def test_the_registry_needs_no_torch():
    code = "import sys, rl.registry, rl.learner, hybridalloc.experiments.methods; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOUSE, check=True)
    assert done.stdout.strip() == "False"


def test_tables_call_a_learner_what_the_registry_does():
    rows = methods_of(make_problem("mec").card)
    for name in learner_names():
        assert label(name) in rows[f"hybrid-{name}"].label and label(name) in rows[f"rl-{name}"].label


def test_the_help_names_every_learner():
    code = "import sys; from hybridalloc.cli import main; sys.exit(main(['train', '--help']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOUSE)
    words = set(re.findall(r"\w+", done.stdout))
    assert set(LEARNERS) <= words


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_pages_count_the_learners_right(page):
    text = page.read_text(encoding="utf-8")
    for word in re.findall(r"(\w+)\s+(?:learners|recommenders|algorithms)\b", text):
        count = COUNTS.get(word.lower(), int(word) if word.isdigit() else None)
        assert count in (None, len(LEARNERS)), f"{page.name} counts {word} learners; there are {len(LEARNERS)}"


def test_the_page_of_every_learner_knows_each_of_them():
    text = (HOUSE / "docs" / "learners.md").read_text(encoding="utf-8")
    assert not [name for name in LEARNERS if not re.search(rf"\b{name}\b", text)]
