r"""Replay of joint slots: uniform or prioritised draws of slots or of single agents' transitions, n-step returns.

A slot whose network was reset after it starts no transition: its successor is another episode. An n-step return
stops short of that slot and bootstraps from it, so that it never crosses a cut; its discount is gamma to the power of
the time that its m slots last (gamma^m where each lasts one unit), and 0 once an episode, or an agent's part in it, has
ended for good: then nothing is added of what follows. It is of n slots, and of more until they last a given time.
Rewards of the slots between are those of what was executed then, not corrected (as in Hessel et al. 2018).

A reward that may yet be charged (see :meth:`Replay.add`) is not drawn, neither as a transition's own nor between an
n-step return's ends.

Prioritised, the proportional variant: P(k) = p_k / sum p, p_k = (|delta_k| + eps)^alpha, in strata of equal mass; the
importance weight (K P(k))^-beta over the largest of all that could have been drawn, so that it only scales down, and a
transition's weight does not hang on what else is in the batch; a new one has the largest priority so far.

Source: Schaul et al. (2016), "Prioritized experience replay".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from rl.elapsed import discounts, durations, ends, parted
from rl.pairs import summarise
from rl.proposal import Observation

Slot = dict[str, Tensor]
DRAWN = ("agent", "pair", "resource", "live", "allowed", "option", "bias")  # of a slot, with what was executed in it
TINY_PRIORITY = 1e-6


class SumTree:
    """Weights >= 0 of ``size`` items as the leaves of a binary tree of sums: draws and changes in O(log size)."""

    def __init__(self, size: int) -> None:
        self.depth = max(size - 1, 1).bit_length()
        self.first = 1 << self.depth
        self.nodes = np.zeros(2 * self.first)

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.nodes[self.first + index]

    @property
    def total(self) -> float:
        return float(self.nodes[1])

    @property
    def least(self) -> float:
        """The smallest weight that is not 0."""
        leaves = self.nodes[self.first :]
        return float(leaves.min(where=leaves > 0, initial=np.inf))

    def set(self, index: NDArray[np.int64], weight: NDArray[np.float64] | float) -> None:
        node = self.first + index
        self.nodes[node] = weight
        for _ in range(self.depth):
            node = node >> 1
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1]

    def find(self, mass: NDArray[np.float64]) -> NDArray[np.int64]:
        """The item at which the running sum of weights passes each ``mass`` in [0, total); never one of weight 0."""
        node = np.ones(len(mass), np.int64)
        for _ in range(self.depth):
            node *= 2
            left = self.nodes[node]
            right = (mass >= left) & (self.nodes[node + 1] > 0)
            mass = np.where(right, mass - left, mass)
            node += right
        return node - self.first


class Sample(NamedTuple):
    """B transitions of joint slots, or of single agents as slots with N = 1.

    now, then: observation, own (B, N, A + 3 P) where the replay tells it, option (B, N), bias (B, N, O) at the first
    and after the last slot, in room that the next draw fills again;
    reward (B, N) discounted over the m slots between; discount (B, N) gamma^elapsed, 0 past an end; weight (B,)
    importance; place (B,) for :meth:`Replay.prioritise`.
    """

    now: Slot
    then: Slot
    reward: Tensor
    discount: Tensor
    weight: Tensor
    place: NDArray[np.int64]


class Replay:
    """The last ``capacity`` slots of E networks, as arrays (capacity, E, ...).

    An agent that is not live has option 0 alone, so that a value can pass through the slots it sits out.

    Args:
        agents: draws are of single agents' transitions, not of joint slots.
        alpha: power of the priorities; None draws uniformly.
        own: draws tell the summary of each agent's pairs (:func:`rl.proposal.own_features`).
    """

    def __init__(self, capacity: int, agents: bool = False, alpha: float | None = None, own: bool = True) -> None:
        self.capacity, self.agents, self.alpha, self.own = capacity, agents, alpha, own
        self.size, self.newest, self.top, self.wait = 0, -1, 1.0, 1
        self.arrays: dict[str, NDArray[Any]] = {}
        self.tree: SumTree | None = None
        self._room: list[dict[str, NDArray[Any]]] = [{}, {}]  # of what a draw gives, now and then
        self._starts: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None  # slot and network of what can be drawn

    def __len__(self) -> int:
        return self.size

    def add(
        self,
        observation: Observation,
        option: NDArray[np.int64],
        bias: NDArray[np.float64],
        reward: NDArray[np.float64],
        cut: NDArray[np.bool_],
        elapsed: NDArray[np.float64] | None = None,
        ended: NDArray[np.bool_] | None = None,
        late: int = 0,
        left: NDArray[np.bool_] | None = None,
    ) -> None:
        """One executed slot of E networks.

        Args:
            cut: (E,) the network was reset after it, and what would have come next is not known.
            elapsed: (E,) time to the next slot; None is one unit. ended: (E,) the episode is over for good. left:
                (E, N) an agent's part in it is.
            late: slots after it in which it may still be charged (:meth:`add_reward`); it is drawn when they are in.

        Raises:
            ValueError: no slot would be kept until it can be drawn.
        """
        self.wait = max(late, 1)  # and its successor must be there
        if self.wait >= self.capacity:
            raise ValueError(
                f"capacity = {self.capacity}; a slot is drawn {self.wait} slots later, so that at least "
                f"{self.wait + 1} must be kept"
            )
        allowed = observation.allowed & observation.live[..., None]
        allowed[~observation.live, 0] = True
        slot = {
            "agent": observation.agent, "pair": observation.pair, "resource": observation.resource,
            "allowed": allowed, "live": observation.live, "option": option,
            "bias": np.where(allowed, bias, 0.0).astype(np.float32), "reward": reward.astype(np.float32), "cut": cut,
            "elapsed": durations(elapsed, len(cut)), "ended": parted(ends(ended, len(cut)), left, option.shape[1]),
        }  # fmt: skip
        if not self.arrays:
            self.arrays = {k: np.zeros((self.capacity, *v.shape), v.dtype) for k, v in slot.items()}
            self._plant()
        self._starts = None
        self.newest = (self.newest + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)
        for k, v in slot.items():
            self.arrays[k][self.newest] = v
        if self.tree is not None:
            self.tree.set(self._leaves(self.newest), 0.0)
            if self.size > self.wait:
                ripe = (self.newest - self.wait) % self.capacity
                fresh = np.where(self.arrays["cut"][ripe], 0.0, self.top)
                self.tree.set(self._leaves(ripe), np.repeat(fresh, self._each))

    @property
    def pace(self) -> float:
        """How long a kept slot lasts in the mean."""
        return float(self.arrays["elapsed"][: self.size].mean())

    def elapsed(self, lag: int) -> NDArray[np.float64]:
        """(E,) how long the slot ``lag`` before the newest lasted."""
        return np.asarray(self.arrays["elapsed"][(self.newest - lag) % self.capacity])

    def add_reward(self, lag: int, amount: NDArray[np.float64]) -> None:
        """Credit that came late: to the slot ``lag`` before the newest."""
        self.arrays["reward"][(self.newest - lag) % self.capacity] += amount.astype(np.float32)

    def sample(
        self, rng: np.random.Generator, count: int, gamma: float, steps: int = 1, beta: float = 1.0, span: float = 0.0
    ) -> Sample | None:
        """``count`` transitions over ``steps`` slots, and on until they last ``span``, or as far as there are any; None
        where there is none yet."""
        drawn = self._draw(rng, count, beta)
        if drawn is None:
            return None
        at, network, agent, weight, index = drawn
        cut, lasted = self.arrays["cut"], self.arrays["elapsed"]
        own = lambda x, slot: x[slot, network] if agent is None else x[slot, network, agent][:, None]
        paid = lambda slot: own(self.arrays["reward"], slot)
        passed = lambda slot: np.where(
            own(self.arrays["ended"], slot), 0.0, discounts(gamma, lasted[slot, network])[:, None]
        )
        reward, discount, ahead = paid(at), passed(at), (at + 1) % self.capacity
        taken, since = 1, lasted[at, network]
        while True:
            on = ~cut[ahead, network] & ((self.newest - ahead) % self.capacity >= self.wait)
            on &= (discount > 0).any(axis=1) & ((taken < steps) | (since < span))
            if not on.any():
                break
            reward = reward + np.where(on[:, None], discount, 0.0).astype(np.float32) * paid(ahead)
            discount = np.where(on[:, None], discount * passed(ahead), discount)
            since = np.where(on, since + lasted[ahead, network], since)
            ahead = np.where(on, (ahead + 1) % self.capacity, ahead)
            taken += 1
        f32 = lambda x: torch.from_numpy(np.asarray(x, np.float32))
        now, then = (self._gather(k, slot, network, agent) for k, slot in enumerate((at, ahead)))
        return Sample(now, then, f32(reward), f32(discount), f32(weight), index)

    def prioritise(self, index: NDArray[np.int64], error: NDArray[np.float64]) -> None:
        """Priorities of drawn transitions from their errors |delta| (B,)."""
        assert self.tree is not None and self.alpha is not None
        weight = (np.abs(error) + TINY_PRIORITY) ** self.alpha
        self.top = max(self.top, float(weight.max()))
        self.tree.set(index, weight)

    def state_dict(self) -> dict[str, Any]:
        """The slots that are kept, where they stand in the ring, and their priorities."""
        state: dict[str, Any] = {k: v[: self.size] for k, v in self.arrays.items()}
        state |= {"newest": self.newest, "top": self.top, "wait": self.wait}
        if self.tree is not None:
            state["priority"] = self.tree[np.arange(self.size * self._per)]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        arrays = {k: v for k, v in state.items() if k not in ("newest", "top", "wait", "priority")}
        self.newest, self.top, self.wait = state["newest"], state["top"], state.get("wait", 1)
        self.size = len(arrays["cut"]) if arrays else 0
        if arrays and arrays["ended"].ndim == 2:  # older ones say it of whole episodes
            arrays["ended"] = np.repeat(arrays["ended"][..., None], arrays["option"].shape[2], axis=2)
        self.arrays = {k: np.zeros((self.capacity, *v.shape[1:]), v.dtype) for k, v in arrays.items()}
        for k, v in arrays.items():
            self.arrays[k][: self.size] = v
        self.tree, self._starts, self._room = None, None, [{}, {}]
        if arrays:
            self._plant()
        if self.tree is not None:
            self.tree.set(np.arange(len(state["priority"])), state["priority"])

    def _plant(self) -> None:
        """An empty tree over transitions: ``_per`` of them a slot, ``_each`` a network."""
        if self.alpha is not None:
            self.tree = SumTree(self.capacity * self._per)

    @property
    def _each(self) -> int:
        return self.arrays["option"].shape[2] if self.agents else 1

    @property
    def _per(self) -> int:
        return self.arrays["option"].shape[1] * self._each

    def _leaves(self, slot: int) -> NDArray[np.int64]:
        return slot * self._per + np.arange(self._per)

    def _draw(self, rng: np.random.Generator, count: int, beta: float) -> tuple[Any, ...] | None:
        """Slot, network, agent (None for whole slots), importance weight and index of each draw."""
        if self.size <= self.wait:
            return None
        if self._starts is None:
            here = (self.newest - np.arange(self.wait, self.size)) % self.capacity
            row, begins = np.nonzero(~self.arrays["cut"][here])
            self._starts = here[row], begins
        slots, networks = self._starts
        if not len(slots):
            return None
        if self.tree is None:
            pick = rng.integers(0, len(slots), count)
            agent = rng.integers(0, self._each, count) if self.agents else None
            return slots[pick], networks[pick], agent, np.ones(count), pick
        mass = (np.arange(count) + rng.random(count)) / count * self.tree.total
        index = self.tree.find(mass)
        weight = (self.tree[index] / self.tree.least) ** -beta  # K and sum p cancel
        slot, rest = np.divmod(index, self._per)
        network, agent = np.divmod(rest, self._each)
        return slot, network, agent if self.agents else None, weight, index

    def _gather(self, which: int, at: Any, network: Any, agent: Any) -> Slot:
        """What is drawn of the slots ``at`` (B,) of networks, of all their agents or of one each."""
        room, count = self._room[which], len(at)
        if not room or len(room["option"]) != count:
            agents = 1 if self.agents else self.arrays["option"].shape[2]
            for k in DRAWN:
                rest = self.arrays[k].shape[2:] if k == "resource" else (agents, *self.arrays[k].shape[3:])
                room[k] = np.empty((count, *rest), self.arrays[k].dtype)
            if self.own:
                room["own"] = np.empty((count, agents, room["agent"].shape[2] + 3 * room["pair"].shape[3]), np.float32)
        who = np.zeros(0, np.int64) if agent is None else agent
        _take(tuple(self.arrays[k] for k in DRAWN), at, network, who, tuple(room[k] for k in DRAWN))
        if self.own:
            summarise(room["agent"], room["pair"], room["own"])
        return {k: torch.from_numpy(v) for k, v in room.items()}


@njit(cache=True, nogil=True)
def _take(kept, at, network, who, room):
    """Fill ``room``, batches (B, N, ...) of what is ``DRAWN``, from what is kept (T, E, N, ...) of slots ``at`` (B,)
    of networks (B,): of the agents ``who`` (B,) alone, or of all where that is empty."""
    agent, pair, resource, live, allowed, option, bias = kept
    agent_out, pair_out, resource_out, live_out, allowed_out, option_out, bias_out = room
    alone = len(who) > 0
    options = pair.shape[3]
    for b in range(len(at)):
        t, e = at[b], network[b]
        for r in range(resource.shape[2]):
            for f in range(resource.shape[3]):
                resource_out[b, r, f] = resource[t, e, r, f]
        for n in range(option_out.shape[1]):
            i = who[b] if alone else n
            live_out[b, n], option_out[b, n] = live[t, e, i], option[t, e, i]
            for f in range(agent.shape[3]):
                agent_out[b, n, f] = agent[t, e, i, f]
            for k in range(bias.shape[3]):  # of levels: what the learner keeps in its place
                bias_out[b, n, k] = bias[t, e, i, k]
            for o in range(options):
                allowed_out[b, n, o] = allowed[t, e, i, o]
                for f in range(pair.shape[4]):
                    pair_out[b, n, o, f] = pair[t, e, i, o, f]
