"""Tiny environments whose optima are enumerated, driven as hybridalloc.training.trainer drives the real ones."""

from __future__ import annotations

from itertools import product

import numpy as np

from coordinator.merge import clip_prior, explore
from games.congestion import CongestionBatch
from rl.learner import Executed
from rl.proposal import Observation

OPTIONS = 3  # opt out, and two resources
HORIZON = 5


class Slots:
    """Every decision lasts one unit, and no episode ends for good."""

    elapsed = ended = None


def observation_of(context, live, allowed, contexts):
    """Agents know who they are and the context; pairs which option they are; resources say nothing."""
    e, n = live.shape
    agent = np.zeros((e, n, n + contexts), np.float32)
    agent[:, np.arange(n), np.arange(n)] = 1.0
    agent[np.arange(e), :, n + context] = 1.0
    pair = np.broadcast_to(np.eye(OPTIONS, dtype=np.float32), (e, n, OPTIONS, OPTIONS)).copy()
    resource = np.zeros((e, OPTIONS - 1, 1), np.float32)
    return Observation(agent, resource, pair, live, allowed, np.array([-1, 0, 1]))


class Crowd(Slots):
    """3 agents, 3 options, 3 contexts drawn afresh each slot; each agent is paid by a table of its own.

    ``value[context, agent, option]`` falls by .25 for each other agent on the option (not for opting out). The
    difference reward makes each agent's gain the team's. In this table each context has another best joint choice,
    and no other from which no agent alone would move (:meth:`stable_choices`), so that good learners cannot be stuck.
    """

    agents, contexts, episode = 3, 3, 20

    def __init__(self, networks, seed, idle=0.0):
        self.rng = np.random.default_rng(seed)
        table = np.random.default_rng(168).uniform(0.2, 1.0, (self.contexts, self.agents, OPTIONS))
        table[:, :, 0] *= 0.3
        self.value = table
        self.networks, self.idle = networks, idle
        self.age = np.arange(networks) % self.episode
        self.allowed = np.ones((networks, self.agents, OPTIONS), bool)
        self.allowed[:, 2, 1] = False  # agent 2 does not reach resource 1
        self.draw()

    def draw(self):
        self.context = self.rng.integers(0, self.contexts, self.networks)
        self.live = self.rng.random((self.networks, self.agents)) >= self.idle

    def observe(self):
        return observation_of(self.context, self.live.copy(), self.allowed.copy(), self.contexts)

    def paid(self, context, option, live):
        """(N,) of one network."""
        out = np.zeros(self.agents)
        for i in range(self.agents):
            if live[i]:
                crowd = sum(1 for j in range(self.agents) if live[j] and option[j] == option[i])
                out[i] = self.value[context, i, option[i]] - (0.25 * (crowd - 1) if option[i] else 0.0)
        return out

    def step(self, option):
        """(E, N) rewards with what others lost, (E, N, H) carried, (E,) team reward; then the next slot."""
        reward = np.zeros((self.networks, self.agents))
        team = np.zeros(self.networks)
        for e in range(self.networks):
            own = self.paid(self.context[e], option[e], self.live[e])
            team[e] = own.sum()
            for i in range(self.agents):
                without = self.live[e].copy()
                without[i] = False
                others = np.arange(self.agents) != i
                lost = self.paid(self.context[e], option[e], without)[others].sum() - own[others].sum()
                reward[e, i] = own[i] - (lost if self.live[e, i] else 0.0)
        self.age += 1
        self.draw()
        return reward, np.zeros((self.networks, self.agents, HORIZON)), team

    def restart(self, which):
        self.age[which] = 0

    def joint_choices(self):
        for option in product(range(OPTIONS), repeat=self.agents):
            if all(self.allowed[0, i, o] for i, o in enumerate(option)):
                yield option

    def stable_choices(self, context):
        """Joint choices from which no agent alone raises the team's reward."""
        every = np.ones(self.agents, bool)
        team = {o: self.paid(context, o, every).sum() for o in self.joint_choices()}
        near = lambda o: ((*o[:i], k, *o[i + 1 :]) for i in range(self.agents) for k in range(OPTIONS))
        return [o for o, v in team.items() if all(team.get(x, -1.0) <= v for x in near(o))]

    def best(self):
        """Mean over contexts of the best joint choice's team reward, all agents live."""
        every = np.ones(self.agents, bool)
        return float(
            np.mean([max(self.paid(c, o, every).sum() for o in self.joint_choices()) for c in range(self.contexts)])
        )

    def score(self, option_of):
        """Mean over contexts of what ``option_of(observation)`` is paid."""
        live = np.ones((self.contexts, self.agents), bool)
        seen = observation_of(np.arange(self.contexts), live, self.allowed[: self.contexts], self.contexts)
        option = option_of(seen)
        return float(np.mean([self.paid(c, option[c], live[c]).sum() for c in range(self.contexts)]))

    def misleading(self, strength):
        """(N, O) a game that is sure of the wrong options: costs for the best joint choice of context 0."""
        every = np.ones(self.agents, bool)
        right = max(self.joint_choices(), key=lambda o: self.paid(0, o, every).sum())
        cost = np.zeros((self.agents, OPTIONS))
        cost[np.arange(self.agents), right] = strength
        return cost


class TwoSlots(Slots):
    """Slots come in pairs. In the first, option 1 pays more but leaves work that costs each other agent in the second.

    Nobody's own reward shows the cost, only ``carried`` does: with it option 2 is best, without it option 1.
    """

    agents, contexts, episode = 3, 2, 10
    tempting, modest, harm = 0.8, 0.5, 0.4

    def __init__(self, networks, seed):
        self.rng = np.random.default_rng(seed)
        self.networks = networks
        self.age = 2 * (np.arange(networks) % (self.episode // 2))
        self.messy = np.zeros((networks, self.agents), bool)
        self.allowed = np.ones((networks, self.agents, OPTIONS), bool)
        self.live = np.ones((networks, self.agents), bool)

    def observe(self):
        return observation_of(self.age % 2, self.live.copy(), self.allowed.copy(), self.contexts)

    def step(self, option):
        first = self.age % 2 == 0
        pay = np.array([0.0, self.tempting, self.modest])[option]
        suffered = self.harm * (self.messy.sum(axis=1, keepdims=True) - self.messy)
        own = np.where(first[:, None], pay, 0.5 * (option > 0) - suffered)
        carried = np.zeros((self.networks, self.agents, HORIZON))
        carried[:, :, 0] = np.where(first[:, None], 0.0, -self.harm * (self.agents - 1) * self.messy)
        self.messy = first[:, None] & (option == 1)
        self.age = self.age + 1
        return own, carried, own.sum(axis=1)

    def restart(self, which):
        self.age[which] = 0
        self.messy[which] = False

    def score(self, option_of):
        """Team reward of one pair of slots."""
        live = np.ones((2, self.agents), bool)
        seen = observation_of(np.arange(2), live, np.ones((2, self.agents, OPTIONS), bool), 2)
        option = option_of(seen)
        return self.pair(option[0], option[1])

    def pair(self, first, second):
        pay = np.array([0.0, self.tempting, self.modest])[np.asarray(first)].sum()
        left = np.asarray(first) == 1
        suffered = sum(self.harm * (left.sum() - left[i]) for i in range(self.agents))
        return float(pay + 0.5 * (np.asarray(second) > 0).sum() - suffered)

    def best(self):
        every = list(product(range(OPTIONS), repeat=self.agents))
        return max(self.pair(a, b) for a in every for b in every)


class Errands:
    """One agent that is paid for an errand when it sets out, and decides again when it is back: semi-Markov.

    In each context, drawn afresh, an errand pays ``pay[context, option]`` and lasts ``lasts[context, option]``. In the
    first context the long one pays more a decision and less a unit of time.
    """

    contexts, episode, ended = 2, 40, None
    pay = np.array([[0.1, 1.0, 1.6], [0.1, 0.3, 2.0]])
    lasts = np.array([[1.0, 1.0, 4.5], [1.0, 1.0, 2.5]])

    def __init__(self, networks, seed):
        self.rng = np.random.default_rng(seed)
        self.networks = networks
        self.age = np.arange(networks) % self.episode
        self.elapsed = np.ones(networks)
        self.draw()

    def draw(self):
        self.context = self.rng.integers(0, self.contexts, self.networks)

    def view(self, context):
        ones = np.ones((len(context), 1), bool)
        return observation_of(context, ones, np.ones((len(context), 1, OPTIONS), bool), self.contexts)

    def observe(self):
        return self.view(self.context)

    def step(self, option):
        own = self.pay[self.context, option[:, 0]][:, None]
        self.elapsed = self.lasts[self.context, option[:, 0]]
        self.age = self.age + 1
        self.draw()
        return own, np.zeros((self.networks, 1, 1)), own.sum(axis=1)

    def restart(self, which):
        self.age[which] = 0

    def values(self, gamma, lasts):
        """(contexts, options) by value iteration."""
        q = np.zeros((self.contexts, OPTIONS))
        for _ in range(2000):
            q = self.pay + gamma**lasts * q.max(axis=1).mean()
        return q

    def table(self, option_of):
        """What is executed in each context."""
        return option_of(self.view(np.arange(self.contexts)))[:, 0].tolist()


class Farewell(Errands):
    """To take (1) pays 1 and ends the episode for good, to wait (2) pays ``waiting`` and goes on."""

    contexts = 1
    lasts = np.ones((1, OPTIONS))

    def __init__(self, networks, seed, waiting):
        super().__init__(networks, seed)
        self.pay = np.array([[0.0, 1.0, waiting]])

    def step(self, option):
        self.ended = option[:, 0] == 1
        return super().step(option)


class Places(Slots):
    """Jobs in places, many decisions in a unit of time: 60 as the cluster's rounds of a minute are of an hour.

    A job has 1 to ``longest`` rounds to do. It waits (0), or runs where a round's work is done for sure (1) or every
    second time (2). Each round that it is there costs a round's time, whatever it does; who is done leaves, and the
    next job comes into its place at once. So no place is ever paid for what was done in it: only a job is, by its end.
    """

    agents, longest, episode = 4, 15, 60
    chance = np.array([0.0, 1.0, 0.5])

    def __init__(self, networks, seed):
        self.rng = np.random.default_rng(seed)
        self.networks, self.elapsed = networks, np.full(networks, 1 / 60)
        self.age = np.arange(networks) % self.episode
        self.rounds = self.rng.integers(1, self.longest + 1, (networks, self.agents))
        self.left = np.zeros((networks, self.agents), bool)

    def view(self, rounds):
        e, n = rounds.shape
        agent = np.eye(self.longest + 1, dtype=np.float32)[rounds]
        pair = np.broadcast_to(np.eye(OPTIONS, dtype=np.float32), (e, n, OPTIONS, OPTIONS)).copy()
        resource, ones = np.zeros((e, OPTIONS - 1, 1), np.float32), np.ones((e, n), bool)
        return Observation(agent, resource, pair, ones, np.ones((e, n, OPTIONS), bool), np.array([-1, 0, 1]))

    def observe(self):
        return self.view(self.rounds)

    def step(self, option):
        self.rounds = self.rounds - (self.rng.random(option.shape) < self.chance[option])
        self.left = self.rounds == 0
        fresh = self.rng.integers(1, self.longest + 1, option.shape)
        self.rounds = np.where(self.left, fresh, self.rounds)
        self.age = self.age + 1
        reward = np.full(option.shape, -1 / 60)
        return reward, np.zeros((*option.shape, 1)), reward.sum(axis=1)

    def restart(self, which):
        self.age[which] = 0

    def table(self, option_of):
        """What is executed with 1, 2, ... rounds to do."""
        return option_of(self.view(np.arange(1, self.longest + 1)[:, None]))[:, 0].tolist()

    def values(self, gamma):
        """(longest, OPTIONS) by value iteration: the best of each option with 1, 2, ... rounds to do."""
        value, g = np.zeros(self.longest + 1), gamma ** (1 / 60)
        for _ in range(200):
            after = np.stack([value[1:], value[:-1]])
            q = -1 / 60 + g * (self.chance[:, None] * after[1] + (1 - self.chance[:, None]) * after[0])
            value[1:] = q.max(axis=0)
        return q.T


def game_of(cost, allowed, live):
    """A game without congestion whose costs are ``cost`` (N, O)."""
    e, n, o = allowed.shape
    options = np.array([[-1], [0], [1]])
    private = np.broadcast_to(cost, (e, n, o)).copy()
    return CongestionBatch(options, np.zeros((e, n, 2)), np.ones((e, 2)), private, allowed, live, np.zeros((e, 2)))


def executes(learner, cost=None):
    """Observation -> (E, N) options, the argmax of log prior - cost, as the coordinator executes."""

    def option_of(observation):
        log_prior = clip_prior(learner.propose(observation).log_prior, observation.allowed, learner.config.limit)
        score = log_prior - (0.0 if cost is None else cost)
        return np.where(observation.allowed, score, -np.inf).argmax(axis=-1)

    return option_of


def drive(learner, toy, slots, seed=0, cost=None, stop=None):
    """Train as :func:`hybridalloc.training.trainer` does; ``cost`` (N, O) is a game's, at trust 1.

    ``stop`` is called after each update and ends the training where it returns True. Returns the slots used.
    """
    rng = np.random.default_rng(seed)
    observation = toy.observe()
    for slot in range(slots):
        game = game_of(np.zeros(OPTIONS) if cost is None else cost, observation.allowed, observation.live)
        log_prior = clip_prior(learner.propose(observation).log_prior, game.allowed, learner.config.limit)
        merged = explore(game, log_prior, 0.0 if cost is None else 1.0, rng.random(observation.live.shape))
        reward, carried, _ = toy.step(merged.option)
        truncated = toy.age >= toy.episode
        final = toy.observe() if truncated.any() else None
        toy.restart(truncated if toy.ended is None else truncated | toy.ended)
        following = toy.observe()
        learner.record(Executed(
            observation, merged.option, log_prior, merged.bias, reward, carried, truncated, final, elapsed=toy.elapsed,
            terminated=toy.ended, left=getattr(toy, "left", None),
        ))  # fmt: skip
        observation = following
        if learner.ready():
            learner.update(observation, slot / slots)
            if stop is not None and stop():
                return slot + 1
    return slots
