"""Gradients that a twin computes on a device of torch's: those of here, and the same training.

"cpu:0" is, for torch, the processor again: the path of a GPU where there is none.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rl.elsewhere import Twin
from rl.networks import Critic, Sizes
from rl.registry import make_learner

sys.path.insert(0, str(Path(__file__).parent))
from toys import Crowd, drive

SIZES = Sizes(agent=5, resource=4, pair=3)
DEVICES = ["cpu:0", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


@pytest.mark.parametrize("device", DEVICES)
def test_a_twin_has_the_weights_of_here_and_gives_its_gradients_back(device):
    here, device = Critic(SIZES, 8), torch.device(device)
    twin = Twin(here, device)
    own, resource = torch.randn(6, 3, 14), torch.randn(6, 2, 4)
    with torch.no_grad():
        for p in here.parameters():
            p.add_(0.1)
    here(own, resource).square().mean().backward()
    wanted = [p.grad.clone() for p in here.parameters()]
    twin.fetch()
    twin.descend(twin.there(own.to(device), resource.to(device)).square().mean())
    for p, gradient in zip(here.parameters(), wanted, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), gradient.numpy(), atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("imappo", {}), ("imappo", {"replay": 1}), ("mappo", {"network": "graph"}), ("ippo", {"network": "pooled"}),
        ("mappo", {"critic": "light"}),
    ],
)  # fmt: skip
def test_training_by_a_twin_is_training_here(device, name, settings):
    found = {}
    for where in ("cpu", device):
        toy = Crowd(4, 0)
        learner = make_learner(
            name, Sizes.of(toy.observe()), 0, settings | {"device": where, "horizon": 8, "hidden": 8, "gain": 0.5}
        )
        drive(learner, toy, 24)
        assert where == "cpu" or learner.engine == "torch"
        assert learner.updates == 3
        found[where] = learner.policy.weights
    for key, weight in found["cpu"].items():
        # Adam makes whole steps, of 6e-3 at most and 24 of them, of gradients that are nought but for rounding: of a
        # dead unit's, and of the last bias, which no softmax sees
        assert key == "out.bias" or np.median(abs(found[device][key] - weight)) < 5e-4, key


def test_what_a_device_cannot_do_is_said():
    make = lambda name, **settings: make_learner(name, SIZES, 0, settings)
    with pytest.raises(ValueError, match=r"device = 'nonsense': .*'cpu' is always there"):
        make("imappo", device="nonsense")
    with pytest.raises(ValueError, match=r"device = 'cpu:0' with engine = 'compiled'.*'torch' or 'auto'"):
        make("mappo", device="cpu:0", engine="compiled")
    with pytest.raises(ValueError, match=r"device = 'cpu:0' with a leave-one-out baseline"):
        make("mappo", device="cpu:0", baseline="leave_one_out")
    for settings in ({"memory": 4}, {"continuous": ("power",), "ranges": ((0.0, 1.0),)}):
        with pytest.raises(ValueError, match=r"device = 'cpu:0' with continuous heads or a memory"):
            make("imappo", device="cpu:0", **settings)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"device = 'cuda': .*'cpu' is always there"):
            make("imappo", device="cuda")
