r"""Q-learning's targets and gradients by compiled passes over the pair scorer, for :mod:`rl.dqn` and what builds on it.

    a(i, o)   as :mod:`rl.pairs` scores a pair, its resource's features beside the pair's own
    Q(i, o) = a(i, o)                                     plain
    Q(i, o) = V(i) + a(i, o) - mean over allowed o' of a(i, o')     dueling

Some agents at a time go all the way. Plain, only the pairs of options that were taken or would be are looked at; the
next choice needs all of them. Weights, optimizer and mixers stay torch's, which is the reference: the gradients agree
to float32's rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor, nn

from rl.pairs import BLOCK, ONE, RULES, ZERO, Scorer, backward, forward, no_slopes, scorer_of
from rl.perceptron import slopes, values
from rl.q_network import QNetwork

Float32 = NDArray[np.float32]
ALONE = 8 * BLOCK  # agents at a time where one pair of each is looked at


class Part(NamedTuple):
    """K = B N agents of B slots, as the passes read them; ``of`` (O,) is ``resource_of``."""

    agent: Float32  # (K, A)
    pair: Float32  # (K, O, P)
    resource: Float32  # (B, R, S)
    of: NDArray[np.int64]
    allowed: NDArray[np.bool_]  # (K, O)
    option: NDArray[np.int64]  # (K,)
    bias: Float32  # (K, O)


def part_of(slot: dict[str, Tensor], of: Tensor) -> Part:
    """Arrays of a batch of joint slots, (B, N, ...)."""
    flat = lambda name: slot[name].flatten(0, 1).contiguous().numpy()
    resource = slot["resource"].contiguous().numpy()
    return Part(flat("agent"), flat("pair"), resource, of.numpy(), flat("allowed"), flat("option"), flat("bias"))


Weights = tuple[Float32, ...]


class Net(NamedTuple):
    """A network as arrays: H hidden; the scorer's pairs have P + S features; ``value`` are V's, where dueling."""

    agent: Float32  # (H, A)
    agent_bias: Float32  # (H,)
    scorer: Scorer
    value: Weights | None

    def own(self, part: Part) -> Float32:
        """(K, H) of the agents' own features."""
        return np.asarray(part.agent @ self.agent.T + self.agent_bias)


@njit(cache=True)
def _pairs(pair, resource, of, option, every, first, last, x):
    """Fill ``x`` with the features of the agents' pairs from ``first`` on, of all options or of ``option`` (K,) alone,
    each with its resource's."""
    options, p, s = pair.shape[1], pair.shape[2], resource.shape[2]
    per = len(pair) // len(resource)
    r = 0
    for k in range(first, last):
        for j in range(options if every else 1):
            o = j if every else option[k]
            here = x[r]
            for f in range(p):
                here[f] = pair[k, o, f]
            if of[o] >= 0:
                there = resource[k // per, of[o]]
                for f in range(s):
                    here[p + f] = there[f]
            else:
                here[p : p + s] = ZERO
            r += 1


@njit(cache=True, error_model="numpy", fastmath=RULES, nogil=True)
def bootstrap(pair, resource, of, allowed, bias, own, slow_own, w, slow, double, dueling, temperature, limit, out):
    """Fill ``out`` (K,) with the slow network's a(i, o*) of what would be executed, less its mean where dueling.

    o* is the option of the greatest clipped log-prior Q / ``temperature`` plus the game's part, by ``w`` if ``double``
    and by ``slow`` otherwise. own, slow_own: (K, H) of either.
    """
    agents, options = allowed.shape
    hidden, mixed, features = w.mix.shape[0], w.mix.shape[1], w.pair.shape[0]
    x_room = np.empty((BLOCK * options, features), np.float32)
    z_room, y_room = np.empty((BLOCK * options, hidden), np.float32), np.empty((BLOCK * options, mixed), np.float32)
    lone = np.empty((BLOCK, features), np.float32)
    none, row, taken = np.zeros((1, options, hidden), np.float32), np.zeros(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    for first in range(0, agents, BLOCK):
        last = min(first + BLOCK, agents)
        count = last - first
        x, z, y = x_room[: count * options], z_room[: count * options], y_room[: count * options]
        _pairs(pair, resource, of, taken, True, first, last, x)
        if double:
            forward(x, own[first:last], none, row[:count], w, z, y)
            score = np.dot(y, w.out)
        if dueling or not double:
            forward(x, slow_own[first:last], none, row[:count], slow, z, y)
            value = np.dot(y, slow.out)
            if not double:
                score = value
        for k in range(first, last):
            base = (k - first) * options
            taken[k - first] = _executed(
                score[base : base + options], allowed[k], bias[k], w.scale / temperature, limit
            )  # fmt: skip
        if dueling or not double:
            for k in range(first, last):
                base, count_, mean = (k - first) * options, ZERO, ZERO
                if dueling:
                    for o in range(options):
                        if allowed[k, o]:
                            count_ += ONE
                            mean += value[base + o]
                    out[k] = slow.scale * (value[base + taken[k - first]] - mean / count_)
                else:
                    out[k] = slow.scale * (value[base + taken[k - first]] + slow.out_bias[0])
            continue
        for r in range(count):
            lone[r] = x[r * options + taken[r]]
        forward(lone[:count], slow_own[first:last], none[:, :1], row[:count], slow, z[:count], y[:count])
        value = np.dot(y[:count], slow.out)
        for r in range(count):
            out[first + r] = slow.scale * (value[r] + slow.out_bias[0])


@njit(cache=True)
def _executed(score, allowed, bias, scale, limit):
    """The first allowed option of the greatest clipped log-prior plus the game's part."""
    top, most, found = np.float32(-np.inf), np.float32(-np.inf), 0
    for o in range(len(score)):
        if allowed[o]:
            top = max(top, scale * score[o])
    for o in range(len(score)):
        if allowed[o]:
            here = max(scale * score[o] - top, -limit) + bias[o]
            if here > most:
                most, found = here, o
    return found


@njit(cache=True, error_model="numpy", fastmath=RULES, nogil=True)
def regress(pair, resource, of, allowed, option, own, w, dueling, learning, target, weight, huber, q, slope, d):
    """Q of the options taken, and, ``learning``, the gradient of their loss, added to ``d``; returns the loss.

    Args:
        q: (K,), filled; where dueling it holds V and that is added to. target: (K,), towards which q moves by the mean
            of weight (K,) times Huber's loss; empty: ``slope`` (K,) is given. slope: (K,), filled otherwise.
    """
    agents, options = allowed.shape
    width, together = (options, BLOCK) if dueling else (1, ALONE)
    hidden, mixed, features = w.mix.shape[0], w.mix.shape[1], w.pair.shape[0]
    x_room, room = (
        np.empty((together * width, features), np.float32),
        np.empty((2, together * width, hidden), np.float32),
    )
    y_room, s_room = np.empty((together * width, mixed), np.float32), np.empty(together * width, np.float32)
    none, row = np.zeros((1, width, hidden), np.float32), np.zeros(together, np.int64)
    mix = np.ascontiguousarray(w.mix.T)
    share, loss = ONE / np.float32(agents), 0.0
    for first in range(0, agents, together):
        last = min(first + together, agents)
        many = (last - first) * width
        x, z, y, s = x_room[:many], room[0, :many], y_room[:many], s_room[:many]
        _pairs(pair, resource, of, option, dueling, first, last, x)
        forward(x, own[first:last], none, row[: last - first], w, z, y)
        score = np.dot(y, w.out)
        for k in range(first, last):
            base, able, mean = (k - first) * width, ONE, -w.out_bias[0]
            if dueling:
                able, mean = ZERO, ZERO
                for o in range(options):
                    if allowed[k, o]:
                        able += ONE
                        mean += score[base + o]
                mean /= able
                q[k] += w.scale * (score[base + option[k]] - mean)
            else:
                q[k] = w.scale * (score[base] - mean)
            if len(target):
                error = q[k] - target[k]
                size, down = abs(error), error
                if size > huber:  # and not where it is not a number
                    down = huber if error > ZERO else -huber
                    loss += weight[k] * huber * (size - np.float32(0.5) * huber)
                else:
                    loss += weight[k] * np.float32(0.5) * size * size
                slope[k] = weight[k] * down * share
            if not dueling:
                s[base] = w.scale * slope[k]
                continue
            for o in range(options):
                s[base + o] = -w.scale * slope[k] / able if allowed[k, o] else ZERO
            s[base + option[k]] += w.scale * slope[k]
        if learning:
            backward(x, z, y, s, row[: last - first], w, mix, room[1, :many], d, first)
    return loss * share


class Lesson(NamedTuple):
    """What one step learned from: the loss, the values (B, N) or (B,) and their errors, target less value."""

    loss: float
    value: Tensor
    delta: Tensor


class Passes:
    """The passes over an online network and its target. Both stay torch's: the weights are read where they are."""

    def __init__(self, online: QNetwork, target: QNetwork) -> None:
        self.online, self.target = online, target
        self._utility = [dict(network.utility.named_parameters()) for network in (online, target)]
        self._value = [[] if n.value is None else list(n.value.parameters()) for n in (online, target)]

    def net(self, which: int) -> Net:
        """The online network (0) or the target (1) as it is."""
        w = {name: p.detach().numpy() for name, p in self._utility[which].items()}
        wide = w | {"pair.weight": np.concatenate([w["pair.weight"], w["resource.weight"]], axis=1)}
        value = tuple(np.ascontiguousarray(p.detach().numpy().T) for p in self._value[which])
        return Net(w["agent.weight"], w["agent.bias"], scorer_of(wide, self.online.utility.scale), value or None)

    def ahead(self, then: dict[str, Tensor], of: Tensor, double: bool, temperature: float, limit: float) -> Tensor:
        """(B, N) or, mixed, (B,) the target network's value of what would be executed next."""
        part, slow = part_of(then, of), self.net(1)
        fast = self.net(0) if double else slow
        out, f = np.empty(len(part.option), np.float32), np.float32
        bootstrap(
            part.pair, part.resource, part.of, part.allowed, part.bias, fast.own(part), slow.own(part), fast.scorer,
            slow.scorer, double, slow.value is not None, f(temperature), f(limit), out,
        )  # fmt: skip
        if slow.value is not None:
            value = np.empty_like(out)
            values(_state(then), slow.value, value)
            out += value
        with torch.no_grad():
            return self.target.mix(torch.from_numpy(out).view(then["option"].shape), then)

    def set_gradients(self, now: dict[str, Tensor], of: Tensor, goal: Tensor, weight: Tensor, huber: float) -> Lesson:
        """Set the gradients of the mean of ``weight`` (B,) times Huber's loss of the value of what was taken.

        Args:
            goal: (B, N) or, mixed, (B,) what the value moves to. huber: width of the loss's quadratic part.
        """
        part, net = part_of(now, of), self.net(0)
        agents, shape, f = len(part.option), now["option"].shape, np.float32
        dueling = net.value is not None
        d = no_slopes(agents, 1, len(part.of) if dueling else 1, net.scorer)
        q, slope = np.zeros(agents, f), np.zeros(agents, f)
        state = q[:0, None]
        if net.value is not None:
            state = _state(now)
            values(state, net.value, q)
        given = part.pair, part.resource, part.of, part.allowed, part.option, net.own(part), net.scorer, dueling
        if self.online.mixer is None:
            wide = weight[:, None].expand(shape).flatten().numpy()
            loss = regress(*given, True, goal.flatten().numpy(), wide, f(huber), q, slope, d)
            value = torch.from_numpy(q).view(shape)
        else:
            none = np.zeros(0, f)
            regress(*given, False, none, none, f(huber), q, slope, d)
            utility = torch.from_numpy(q).view(shape).requires_grad_()
            value = self.online.mix(utility, now)
            error = nn.functional.huber_loss(value, goal, reduction="none", delta=huber)
            total = (weight * error).mean()
            total.backward()
            assert utility.grad is not None
            loss, value, slope = float(total.detach()), value.detach(), utility.grad.flatten().numpy()
            regress(*given, True, none, none, f(huber), q.copy(), slope, d)
        t = lambda x: torch.from_numpy(np.ascontiguousarray(x))
        if net.value is not None:
            layers = tuple(np.zeros_like(x) for x in net.value)
            slopes(state, slope, net.value, layers)
            for p, x in zip(self._value[0], layers, strict=True):
                p.grad = t(x.T)
        features = part.pair.shape[2]
        found = {
            "agent.weight": d.own.T @ part.agent, "agent.bias": d.own.sum(axis=0), "pair.weight": d.pair[:features].T,
            "resource.weight": d.pair[features:].T, "mix.weight": d.mix, "mix.bias": d.mix_bias,
            "out.weight": d.out[None], "out.bias": d.out_bias,
        }  # fmt: skip
        for name, p in self._utility[0].items():
            p.grad = t(found[name])
        return Lesson(float(loss), value, goal - value)


def _state(slot: dict[str, Tensor]) -> Float32:
    """(K, A + 3 P + S) what the dueling network's V reads: an agent's summary and the mean of the resources."""
    own, resource = slot["own"].numpy(), slot["resource"].numpy()
    out = np.empty((own.shape[0] * own.shape[1], own.shape[2] + resource.shape[2]), np.float32)
    _beside(own, resource, out)
    return out


@njit(cache=True, error_model="numpy", nogil=True)
def _beside(own, resource, out):
    n, size = own.shape[1], own.shape[2]
    count = np.float32(resource.shape[1])
    for b in range(len(own)):
        mean = out[b * n, size:]
        mean[:] = ZERO
        for r in range(resource.shape[1]):
            for f in range(resource.shape[2]):
                mean[f] += resource[b, r, f]
        for f in range(resource.shape[2]):
            mean[f] /= count
        for i in range(n):
            here = out[b * n + i]
            for f in range(size):
                here[f] = own[b, i, f]
            for f in range(resource.shape[2]):
                here[size + f] = mean[f]
