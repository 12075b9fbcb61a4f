"""Problems small enough to enumerate, and the trainer's loop around them."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from coordinator.merge import clip_prior
from rl.learner import Executed
from rl.networks import Sizes
from rl.proposal import Observation

torch.set_num_threads(1)


class MatrixGame:
    """One slot, over and over: ``payoff`` has one axis an agent; all are paid the same."""

    def __init__(self, payoff, networks=32):
        self.payoff = np.asarray(payoff, float)
        self.n, self.o, self.networks = self.payoff.ndim, max(self.payoff.shape), networks
        e, n, o = networks, self.n, self.o
        agent = np.tile(np.eye(n, dtype=np.float32), (e, 1, 1))
        pair = np.tile(np.eye(o, dtype=np.float32), (e, n, 1, 1))
        allowed = np.arange(o) < np.array(self.payoff.shape)[:, None]
        self.view = Observation(
            agent, np.zeros((e, 1, 1), np.float32), pair, np.ones((e, n), bool), np.tile(allowed, (e, 1, 1)),
            np.full(o, -1),
        )  # fmt: skip
        self.optimum = self.payoff.max()

    def observe(self):
        return self.view

    def step(self, option, rng):
        value = self.payoff[tuple(option[:, i] for i in range(self.n))]
        return np.repeat(value[:, None], self.n, axis=1)

    def greedy(self, learner, bias=0.0):
        """Payoff of the choice that is executed without exploration."""
        return float(self.payoff[tuple(greedy(learner, self.view, bias)[0])])


class ServerContexts:
    """Three agents with a private context (a small or a large task) choose local or one of two servers.

    outcome_i = -cost_i(o_i) - load of the server on agent i; enumerable: 2^3 contexts, 9 policies an agent.
    """

    size = np.array([0.4, 1.0])  # of a task by context
    local = np.array([[2.0, 2.1], [0.5, 2.0], [1.6, 1.1]])  # (agent, context) cost of computing locally
    reach = np.array([[0.0, 0.6], [0.2, 0.7], [0.3, 0.0]])  # (agent, server) cost of sending
    speed = np.array([1.0, 0.7])

    def __init__(self, networks=32, seed=0, credit="own"):
        self.networks, self.credit = networks, credit
        self.rng = np.random.default_rng(seed)
        self.contexts = np.array(list(itertools.product((0, 1), repeat=3)))
        self._draw()

    def _draw(self):
        self.context = self.contexts[self.rng.integers(0, 8, self.networks)]

    def observe(self):
        return self.view_of(self.context)

    def view_of(self, context):
        e = len(context)
        agent = np.zeros((e, 3, 4), np.float32)
        agent[:, :, :3], agent[:, :, 3] = np.eye(3), context
        pair = np.zeros((e, 3, 3, 5), np.float32)
        pair[..., :3] = np.eye(3)
        pair[:, :, 0, 3] = self.local[np.arange(3), context]
        pair[:, :, 1:, 4] = self.reach
        resource = np.tile(self.speed[:, None].astype(np.float32), (e, 1, 1))
        live, allowed = np.ones((e, 3), bool), np.ones((e, 3, 3), bool)
        return Observation(agent, resource, pair, live, allowed, np.array([-1, 0, 1]))

    def outcome(self, context, option):
        """(E, 3) own outcomes of joint choices."""
        work = self.size[context]
        own = np.where(option == 0, self.local[np.arange(3), context], 0.0)
        for s in range(2):
            on = option == s + 1
            load = (work * on).sum(1, keepdims=True) / self.speed[s]
            own = own + on * (self.reach[:, s] + work * load)
        return -own

    def lost(self, context, option):
        """(E, 3) <= 0: what the others lose because of an agent's choice, against its staying local."""
        out = np.zeros(option.shape)
        full = self.outcome(context, option)
        for i in range(3):
            without = option.copy()
            without[:, i] = 0
            others = np.arange(3) != i
            out[:, i] = (full - self.outcome(context, without))[:, others].sum(1)
        return out

    def step(self, option, rng):
        reward = self.outcome(self.context, option)
        if self.credit == "difference":
            reward = reward + self.lost(self.context, option)
        self._draw()
        return reward

    def enumerate(self):
        """Decentralised deterministic policies, axes (agent 0 context 0, agent 0 context 1, ...): own outcomes.

        Returns (3, 3, 3, 3, 3, 3, agents) expected outcomes.
        """
        tables = np.array(list(itertools.product(range(3), repeat=6))).reshape(-1, 3, 2)
        own = np.zeros((len(tables), 3))
        for context in self.contexts:
            own += self.outcome(np.tile(context, (len(tables), 1)), tables[:, np.arange(3), context]) / 8
        return own.reshape((3,) * 6 + (3,))

    def team_optima(self):
        """Every policy table (6,) that no change of one agent in one context improves for the team."""
        value = self.enumerate().mean(-1)
        return np.argwhere(np.all([value >= value.max(axis=k, keepdims=True) - 1e-12 for k in range(6)], axis=0))

    def equilibria(self):
        """Every pure Bayesian Nash equilibrium (6,): no agent gains in any of its contexts."""
        own = self.enumerate()
        best = [own[..., k // 2] >= own[..., k // 2].max(axis=k, keepdims=True) - 1e-12 for k in range(6)]
        return np.argwhere(np.all(best, axis=0))

    def table(self, learner):
        """(6,) what the learner executes for each agent and context."""
        both = greedy(learner, self.view_of(np.array([[0, 0, 0], [1, 1, 1]])))
        return both.T.ravel()


class Chain:
    """E chains of N agents, each alone: position 0..3, option 0 steps back (paid .2 at 0), 1 steps on (paid 1 at 3)."""

    length = 4

    def __init__(self, agents=2, networks=32, seed=0):
        self.rng = np.random.default_rng(seed)
        self.at = self.rng.integers(0, self.length, (networks, agents))

    def view_of(self, at):
        e, n = at.shape
        agent = np.eye(self.length, dtype=np.float32)[at]
        pair = np.tile(np.eye(2, dtype=np.float32), (e, n, 1, 1))
        ones = np.ones((e, n), bool)
        return Observation(agent, np.zeros((e, 1, 1), np.float32), pair, ones, np.ones((e, n, 2), bool), np.full(2, -1))

    def observe(self):
        return self.view_of(self.at)

    def step(self, option, rng):
        last = self.length - 1
        reward = np.where((self.at == last) & (option == 1), 1.0, 0.0)
        reward = np.where((self.at == 0) & (option == 0), 0.2, reward)
        self.at = np.clip(self.at + 2 * option - 1, 0, last)
        return reward

    def q_star(self, gamma):
        """(length, 2) by value iteration."""
        q = np.zeros((self.length, 2))
        s = np.arange(self.length)
        for _ in range(1000):
            v = q.max(1)
            q[:, 0] = np.where(s == 0, 0.2, 0.0) + gamma * v[np.maximum(s - 1, 0)]
            q[:, 1] = np.where(s == self.length - 1, 1.0, 0.0) + gamma * v[np.minimum(s + 1, self.length - 1)]
        return q


def greedy(learner, view, bias=0.0):
    prior = clip_prior(learner.policy.propose(view).log_prior, view.allowed, learner.config.limit)
    return np.where(view.allowed, prior + bias, -np.inf).argmax(-1)


def play(learner, game, updates, *, bias=0.0, uniform=False, episode=0, seed=0, carried=0):
    """The trainer's loop: propose, draw from softmax(clipped log prior + bias), record, update."""
    rng = np.random.default_rng(seed)
    view = game.observe()
    slot, logs = 0, []
    for _ in range(updates):
        while not learner.ready():
            prior = clip_prior(learner.propose(view).log_prior, view.allowed, learner.config.limit)
            part = np.broadcast_to(bias, prior.shape)
            logits = np.where(view.allowed, 0.0 if uniform else prior + part, -np.inf)
            option = (logits + rng.gumbel(size=logits.shape)).argmax(-1)
            option[~view.live] = 0
            reward = game.step(option, rng)
            following = game.observe()
            slot += 1
            truncated = np.full(len(option), episode > 0 and slot % episode == 0)
            late = np.zeros((*option.shape, carried))
            learner.record(
                Executed(view, option, prior, part, reward, late, truncated, following if truncated.any() else None)
            )
            view = following
        logs.append(learner.update(view, len(logs) / updates))
    return logs


@pytest.fixture(scope="session")
def lab():
    return SimpleNamespace(
        MatrixGame=MatrixGame, ServerContexts=ServerContexts, Chain=Chain, play=play, greedy=greedy, Sizes=Sizes
    )
