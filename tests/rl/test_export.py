"""A policy run by numpy and as ONNX by onnxruntime: equal to torch to 1e-5 for any numbers of agents and options."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rl.export import OPSET, onnx_inputs, write_onnx
from rl.networks import PairScorer, Sizes
from rl.policy import ArrayPolicy
from rl.proposal import Observation

onnxruntime = pytest.importorskip("onnxruntime")
SIZES = Sizes(7, 5, 6)


def observation(rng, e, n, o, r):
    f = lambda *shape: rng.normal(size=shape).astype(np.float32)
    rows = rng.integers(-1, r, o)
    rows[0] = -1
    live = rng.random((e, n)) < 0.8
    return Observation(
        f(e, n, SIZES.agent), f(e, r, SIZES.resource), f(e, n, o, SIZES.pair), live, np.ones((e, n, o), bool), rows
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    actor = PairScorer(SIZES, 16)
    torch.nn.init.normal_(actor.out.weight, 0, 0.1)
    torch.nn.init.normal_(actor.out.bias)
    policy = ArrayPolicy(actor.export(), "imappo")
    path = write_onnx(policy, tmp_path_factory.mktemp("onnx") / "deep" / "actor.onnx", {"trust": "5.0"})
    return actor, policy, onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]), path


@pytest.mark.parametrize(("e", "n", "o", "r"), [(1, 1, 1, 1), (2, 10, 4, 3), (3, 50, 10, 9), (1, 200, 19, 18)])
def test_torch_numpy_and_onnx_agree(exported, e, n, o, r):
    actor, policy, session, _ = exported
    seen = observation(np.random.default_rng(n), e, n, o, r)
    t = torch.from_numpy
    row = torch.arange(e).repeat_interleave(n)
    with torch.no_grad():
        flat = lambda x: t(x).flatten(0, 1)
        want = actor(flat(seen.agent), flat(seen.pair), t(seen.resource), row, t(seen.resource_of)).view(e, n, o)
    want = np.where(seen.live[..., None], want.numpy(), 0.0)
    (got,) = session.run(None, onnx_inputs(seen))
    assert got.shape == (e, n, o) and (np.abs(want).max() > 0.1 or not seen.live.any())
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(policy.propose(seen).log_prior, want, rtol=1e-5, atol=1e-5)


def test_the_file_says_what_it_is(exported):
    import onnx

    model = onnx.load(exported[3])
    assert [i.version for i in model.opset_import] == [OPSET] and model.graph.name == "imappo"
    assert {p.key: p.value for p in model.metadata_props} == {"trust": "5.0"}
    assert [p.name for p in exported[3].parent.iterdir()] == ["actor.onnx"]


def test_weights_that_the_graph_has_no_place_for_are_named(exported, tmp_path):
    weights = dict(exported[1].weights)
    with pytest.raises(ValueError, match=r"imappo is not a pair scorer .*: memory.weight is unknown"):
        write_onnx(ArrayPolicy(weights | {"memory.weight": np.ones(3)}, "imappo"), tmp_path / "x.onnx")
    weights.pop("mix.bias")
    with pytest.raises(ValueError, match=r"mix\.bias is missing"):
        write_onnx(ArrayPolicy(weights, "imappo"), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_a_policy_runs_and_is_exported_without_torch(exported, tmp_path):
    np.savez(tmp_path / "weights.npz", **exported[1].weights)
    code = f"""
import sys, numpy as np
from rl.export import write_onnx
from rl.policy import ArrayPolicy
policy = ArrayPolicy(dict(np.load({str(tmp_path / "weights.npz")!r})), "imappo")
write_onnx(policy, {str(tmp_path / "again.onnx")!r}, {{"trust": "5.0"}})
print("torch" in sys.modules)
"""
    house = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=house)
    assert done.stdout.strip() == "False", done.stderr
    assert (tmp_path / "again.onnx").read_bytes() == exported[3].read_bytes()


def test_without_onnx_the_user_is_told_what_to_install(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'hybridalloc\[export\]'"):
        write_onnx(exported[1], tmp_path / "x.onnx")
