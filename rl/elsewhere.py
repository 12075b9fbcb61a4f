"""Gradients computed on another device of torch's, a GPU say; weights, optimizers and roll-outs stay here.

A minibatch costs two transfers, of all weights there and of all gradients back, each as one vector; a rollout is sent
once. So checkpoints, policies and resumption know nothing of the device.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rl.batch import Batch


def device_of(name: str) -> torch.device:
    """A device of torch's that is at hand.

    Raises:
        ValueError: torch knows no device of this name, or none is here.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device = {name!r}: {reason}; 'cpu' is always there") from error
    return device


class Twin:
    """A module's copy on ``device``, which computes gradients for the one here."""

    def __init__(self, here: nn.Module, device: torch.device) -> None:
        self.here, self.there = here, copy.deepcopy(here).to(device)

    def fetch(self) -> None:
        """The copy takes the weights from here."""
        weights = nn.utils.parameters_to_vector(p.detach() for p in self.here.parameters())
        kept = list(self.there.parameters())
        for p, new in zip(kept, weights.to(kept[0].device).split([p.numel() for p in kept]), strict=True):
            p.data, p.grad = new.view_as(p), None

    def descend(self, loss: Tensor) -> None:
        """Set the gradients here to those of ``loss``, which the copy has computed."""
        loss.backward()
        found = nn.utils.parameters_to_vector(
            torch.zeros_like(p) if p.grad is None else p.grad for p in self.there.parameters()
        ).cpu()
        kept = list(self.here.parameters())
        for p, gradient in zip(kept, found.split([p.numel() for p in kept]), strict=True):
            p.grad = gradient.view_as(p)


class Twins:
    """Of an actor and its critic."""

    def __init__(self, actor: nn.Module, critic: nn.Module, name: str) -> None:
        self.device = device_of(name)
        self.actor, self.critic = Twin(actor, self.device), Twin(critic, self.device)


def sent(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on ``device``."""
    moved: Any = {k: v.to(device) for k, v in batch._asdict().items() if isinstance(v, Tensor)}
    return batch._replace(**moved)
