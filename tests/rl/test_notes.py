"""What training leaves beside a policy's weights: typed in memory, by the same names as ever in a file."""

from __future__ import annotations

import numpy as np
import pytest

from hybridalloc import Allocator, CheckpointError, make_problem
from hybridalloc.saved import read_checkpoint
from rl.imappo import Imappo
from rl.policy import ArrayPolicy, Carried, Notes, notes_of, wrong_weights
from rl.proposal import Sizes


@pytest.fixture(scope="module")
def problem():
    return make_problem("mec", agents=6, servers=2)


@pytest.fixture
def learner(problem):
    return Imappo(Sizes.of(problem.worlds([0]).observe()))


def ranges_of(problem):
    seen = problem.worlds([0]).observe()
    edge = lambda x: np.stack([np.full(x.shape[-1], -1.0), np.full(x.shape[-1], 2.0)]).astype(np.float32)
    return {kind: edge(getattr(seen, kind)) for kind in ("agent", "resource", "pair")}


def test_notes_go_to_arrays_and_back_and_weights_stay_weights(problem, learner):
    notes = Notes(30.0, 8.25, ranges_of(problem))
    arrays = learner.policy.weights | notes.arrays()
    assert set(notes.arrays()) == {"trained_trust", "trust", "ranges/agent", "ranges/resource", "ranges/pair"}
    assert not wrong_weights(arrays) and not Notes().arrays()
    weights, found = Notes.split(arrays)
    assert weights.keys() == learner.policy.weights.keys()
    assert (found.trained_trust, found.learned_trust) == (30.0, 8.25)
    for kind, bounds in notes.ranges.items():
        np.testing.assert_array_equal(found.ranges[kind], bounds)


def test_a_recommenders_notes_are_its_policys(learner):
    learner.policy.notes = Notes(trained_trust=3.0)
    policy = learner.policy
    for recommender in (policy, learner, Carried(policy)):
        assert notes_of(recommender) is policy.notes
    assert notes_of(None) == notes_of(object()) == notes_of(ArrayPolicy({})) == Notes()


def test_a_file_keeps_notes_where_they_were_and_reads_them_there(problem, learner, tmp_path):
    """A file whose notes lie among the policy's weights, as every file has them; a damaged note is still refused."""
    allocator = Allocator(problem, "hybrid", learner.policy, trust=30.0)
    bare = allocator.save(tmp_path / "bare")
    found = read_checkpoint(bare).policy
    assert found.notes == Notes(trained_trust=30.0)  # what the allocator was set to
    with np.load(bare) as file:
        arrays = dict(file)
    noted = arrays | {"policy/trust": np.float64(8.25), "policy/trained_trust": np.float64(20.0)}
    noted |= {f"policy/ranges/{k}": v for k, v in ranges_of(problem).items()}
    np.savez(tmp_path / "noted.npz", **noted)
    loaded = Allocator.load(tmp_path / "noted.npz", trust="learned")
    assert loaded.trust_rule.now == 8.25 and loaded.drift.active
    assert loaded.recommender.notes.trained_trust == 20.0
    assert loaded.recommender.weights.keys() == learner.policy.weights.keys()
    with np.load(loaded.save(tmp_path / "again")) as file:
        assert {k for k in file if k.startswith("policy/")} == {k for k in noted if k.startswith("policy/")}
        for name in ("policy/trust", "policy/ranges/pair"):
            np.testing.assert_array_equal(file[name], noted[name])
    np.savez(tmp_path / "bad.npz", **noted | {"policy/ranges/agent": np.full((2, 3), np.inf)})
    with pytest.raises(CheckpointError, match="ranges/agent holds what is not finite"):
        Allocator.load(tmp_path / "bad.npz")
