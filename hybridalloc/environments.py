"""A problem as a Gymnasium environment (one joint agent) or a PettingZoo one (an agent each).

Whatever is asked for, ``settle`` turns the choices into shares and levels that fit before anything is executed; a
choice that is masked becomes option 0. So no step of any learner executes an infeasible allocation;
``metrics["raw_violation"]`` says how much of what was asked for would have been one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from hybridalloc.errors import nearest
from hybridalloc.problems import make_problem
from hybridalloc.problems.beliefs import make_belief
from hybridalloc.problems.contract import AnyProblem, Ends, Facts, Prices
from hybridalloc.problems.metrics import Tally
from rl.proposal import Observation

BOUND = 20.0  # features are of order one; the few that may grow are clipped here
VIEWS = ("gymnasium", "pettingzoo")
CREDITS = ("own", "difference", "team")

Float32 = NDArray[np.float32]


@overload
def make_env(
    problem: Any = ..., view: Literal["gymnasium"] = ..., *, credit: str | None = ..., prices: Prices | None = ...,
    belief: Any = ..., **settings: Any,
) -> JointEnv: ...  # fmt: skip
@overload
def make_env(
    problem: Any, view: Literal["pettingzoo"], *, credit: str | None = ..., prices: Prices | None = ...,
    belief: Any = ..., **settings: Any,
) -> AgentsEnv: ...  # fmt: skip
@overload
def make_env(
    problem: Any = ..., *, view: Literal["pettingzoo"], credit: str | None = ..., prices: Prices | None = ...,
    belief: Any = ..., **settings: Any,
) -> AgentsEnv: ...  # fmt: skip
@overload
def make_env(
    problem: Any, view: str, *, credit: str | None = ..., prices: Prices | None = ..., belief: Any = ...,
    **settings: Any,
) -> JointEnv | AgentsEnv: ...  # fmt: skip
def make_env(
    problem: Any = "mec",
    view: str = "gymnasium",
    *,
    credit: str | None = None,
    prices: Prices | None = None,
    belief: Any = None,
    **settings: Any,
) -> JointEnv | AgentsEnv:
    """An environment of a problem: ``make_env("mec", view="pettingzoo", agents=50, servers=9)``.

    Args:
        problem: a name with ``settings`` as in ``make_problem``, or a problem object.
        view: "gymnasium" (one joint action, the mean outcome as reward) or "pettingzoo" (each agent its own).
        credit: reward of the PettingZoo view: "own" outcome, "difference" (own outcome less what others lose
            because of the agent, now and through the backlog it left; the default) or "team" (the mean outcome).
        prices: what the settling of shares and levels charges; default the problem's.
        belief: what the features are taken from: None (reports at their face value), a name of the problem's beliefs
            (fresh: it learns as the environment is stepped) or one that has learned, such as
            :func:`hybridalloc.problems.beliefs.load_belief` gives.

    Raises:
        UnknownNameError: an unknown problem, view, credit or setting; the nearest are listed.
        ValueError: settings beside a problem object, ``credit`` for the joint view, or no agents.
    """
    if view not in VIEWS:
        raise nearest("view", str(view), VIEWS)
    if isinstance(problem, str):
        problem = make_problem(problem, **settings)
    elif settings:
        raise ValueError(f"{', '.join(settings)}: settings go with a problem's name, not with a problem object")
    if view == "pettingzoo":
        return AgentsEnv(problem, "difference" if credit is None else credit, prices, belief)
    if credit is not None:
        raise ValueError("credit is of the pettingzoo view; the gymnasium view pays the mean outcome of all")
    return JointEnv(problem, prices, belief)


class _Network:
    """One world of a problem, stepped decision by decision, shown as if it had the card's N agents at all times.

    A world may have fewer in an episode or a slot: who is not there has zeros for features, option 0 alone and an
    outcome of 0.
    """

    def __init__(self, problem: AnyProblem, prices: Prices | None, belief: Any) -> None:
        self.agents = problem.card.agents
        if self.agents < 1:
            raise ValueError("agents = 0; an environment needs at least 1 agent")
        self.problem = problem
        self.prices = problem.card.prices() if prices is None else prices
        self.belief = make_belief(problem, belief)
        self.world = problem.worlds([0], self.belief)
        self.tally = Tally(problem.card.metrics, 1)
        self.seen: Observation = self.world.observe()
        self.width = self.seen.agent.shape[2]
        self.metrics: dict[str, float] = {}

    def start(self, seed: int) -> None:
        self.world = self.problem.worlds([seed], self.belief)
        self.seen = self.world.observe()
        self._room()

    def _room(self) -> None:
        there, most = self.seen.agent.shape[1], self.agents
        if there > most:
            raise ValueError(f"the world has {there} agents now; this environment's spaces were made for {most}")
        if not there:  # of nobody, the width is not known
            self.seen = self.seen._replace(agent=np.zeros((1, 0, self.width), np.float32))

    def whole(self, values: Any) -> NDArray[Any]:
        """(N, ...) from (agents that are there, ...), zeros for the rest."""
        given = np.asarray(values)
        out = np.zeros((self.agents, *given.shape[1:]), given.dtype)
        out[: len(given)] = given
        return out

    def mask(self) -> NDArray[np.int8]:
        """(N, O) 1 where a choice is allowed; an agent with nothing to decide has option 0 alone."""
        allowed = self.whole(self.seen.allowed[0] & self.seen.live[0][:, None])
        allowed[:, 0] = True
        return allowed.astype(np.int8)

    def step(self, option: NDArray[np.int64]) -> tuple[Facts, NDArray[np.int64], bool, bool]:
        """Outcome of those who are there, (N,) executed options, whether the episode ended for good, and whether it was
        cut off at its length."""
        asked = option[None, : self.seen.agent.shape[1]]
        plan = self.world.settle(asked, self.prices)
        requested = self.world.requested(asked, self.prices)
        facts = self.world.execute(plan)
        self.tally.clear()
        self.tally.add(facts.counts, facts.elapsed_s, requested)
        found = {k: float(v[0]) for k, v in self.tally.summary().items()}
        self.metrics = {k: value for k, value in found.items() if not np.isnan(value)}
        executed = self.whole(self.world.parts(plan)["option"])
        over = bool(self.world.drift()[0])
        ended = over and isinstance(self.world, Ends) and bool(self.world.terminated[0])
        self.seen = self.world.observe()
        self._room()
        return facts, executed, ended, over and not ended

    def elapsed(self, facts: Facts) -> float:
        """How long the decision lasted, in the problem's unit of time."""
        return float(facts.elapsed_s[0]) / self.problem.card.unit_s

    def joint(self) -> Float32:
        """All features in one vector: agents, then resources, then pairs."""
        seen = self.seen
        agent, pair = self.whole(seen.agent[0]), self.whole(seen.pair[0])
        return _bounded(np.concatenate([agent.ravel(), seen.resource[0].ravel(), pair.ravel()]))

    def own(self) -> Float32:
        """(N, .) each agent's features, then the broadcast resources', then its pairs'; zeros of who is not there."""
        seen = self.seen
        n, pair = seen.agent.shape[1], seen.pair[0]
        shared = np.broadcast_to(seen.resource[0].ravel(), (n, seen.resource[0].size))
        parts = [seen.agent[0], shared, pair.reshape(n, pair.shape[1] * pair.shape[2])]
        return _bounded(self.whole(np.concatenate(parts, axis=1)))


def _bounded(values: Any) -> Float32:
    return np.clip(values, -BOUND, BOUND).astype(np.float32)


def _box(size: int) -> spaces.Box:
    return spaces.Box(-BOUND, BOUND, (size,), np.float32)


class JointEnv(gymnasium.Env[Float32, NDArray[np.int64]]):
    """All agents as one: MultiDiscrete options, the mean outcome of a decision as reward (0 where nobody is there).

    ``info`` holds the decision's ``metrics`` (after a step; without those that are a mean of nothing), how long it
    lasted (``elapsed``, in the problem's unit of time, by which a learner of one's own discounts), the ``executed``
    options and the next ``action_mask``, a tuple of one int8 array an agent as ``action_space.sample(mask)`` takes it.
    An episode is truncated at its length; it is terminated where the problem's worlds end for good.
    """

    metadata: dict[str, Any] = {"render_modes": [], "name": "hybridalloc"}  # noqa: RUF012

    def __init__(self, problem: AnyProblem, prices: Prices | None = None, belief: Any = None) -> None:
        self.network = _Network(problem, prices, belief)
        options = self.network.seen.allowed.shape[2]
        self.options = options
        self.action_space: Any = spaces.MultiDiscrete([options] * self.network.agents)
        self.observation_space: Any = _box(self.network.joint().size)
        self.spec = EnvSpec(
            f"hybridalloc/{problem.card.name}-v0", "hybridalloc.environments:JointEnv",
            kwargs={"problem": problem, "prices": prices, "belief": belief},
        )  # fmt: skip
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32, dict[str, Any]]:
        """A new network; ``options`` has no effect."""
        super().reset(seed=seed)
        self.network.start(int(self.np_random.integers(2**31)))
        self._running = True
        return self.network.joint(), {"action_mask": tuple(self.network.mask())}

    def step(self, action: NDArray[np.int64]) -> tuple[Float32, float, bool, bool, dict[str, Any]]:
        """Execute one decision.

        Raises:
            ValueError: an action outside the space, or a step before ``reset`` or after the end.
        """
        if not self._running:
            raise ValueError("the episode has ended or not begun: call reset first")
        chosen = np.asarray(action)
        if not self.action_space.contains(chosen):
            n = self.network.agents
            raise ValueError(f"action {chosen.tolist()}: it must be {n} whole numbers, each 0 to {self.options - 1}")
        outcome, executed, ended, cut = self.network.step(chosen.astype(np.int64))
        self._running = not (ended or cut)
        info = {
            "metrics": dict(self.network.metrics), "elapsed": self.network.elapsed(outcome), "executed": executed,
            "action_mask": tuple(self.network.mask()),
        }  # fmt: skip
        reward = float(outcome.reward[0].mean()) if outcome.reward.size else 0.0
        return self.network.joint(), reward, ended, cut, info

    def action_masks(self) -> NDArray[np.bool_]:
        """(N O,) the masks end to end, under the name that sb3-contrib's MaskablePPO looks for."""
        return self.network.mask().astype(bool).ravel()


class AgentsEnv(ParallelEnv[str, Float32, int]):
    """Every agent for itself, under the problem's word: "device_0", "device_1", ...; all act in every
    decision, those too who have nothing to do or whom the world lacks at the time (their mask has option 0 alone).

    ``infos[agent]`` holds ``action_mask`` (int8, as ``action_space(agent).sample(mask)`` takes it); after a step
    also the decision's ``metrics`` (without those that are a mean of nothing), its ``elapsed`` time as in
    :class:`JointEnv` and the ``executed`` option. :meth:`state` is for a central critic.
    """

    metadata: dict[str, Any] = {"render_modes": [], "name": "hybridalloc", "is_parallelizable": True}  # noqa: RUF012

    def __init__(
        self, problem: AnyProblem, credit: str = "difference", prices: Prices | None = None, belief: Any = None
    ) -> None:
        if credit not in CREDITS:
            raise nearest("credit", str(credit), CREDITS)
        self.credit = credit
        self.render_mode = None
        self.network = _Network(problem, prices, belief)
        self.possible_agents = [f"{problem.card.agent_word}_{i}" for i in range(self.network.agents)]
        self.agents: list[str] = []
        options = self.network.seen.allowed.shape[2]
        size = self.network.own().shape[1]
        self.observation_spaces = {a: _box(size) for a in self.possible_agents}
        self.action_spaces = {a: spaces.Discrete(options) for a in self.possible_agents}
        self.state_space = _box(self.network.joint().size)
        self._rng = np.random.default_rng()

    def observation_space(self, agent: str) -> spaces.Box:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Discrete:
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Float32], dict[str, dict[str, Any]]]:
        """A new network; ``options`` has no effect."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.network.start(int(self._rng.integers(2**31)))
        self.agents = list(self.possible_agents)
        return self._seen(), {a: {"action_mask": m} for a, m in zip(self.agents, self.network.mask(), strict=True)}

    def step(
        self, actions: Mapping[str, int]
    ) -> tuple[dict[str, Float32], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Execute one decision; every agent acts.

        Raises:
            ValueError: an agent without an action, an action outside its space, or no episode under way.
        """
        if not self.agents:
            raise ValueError("the episode has ended or not begun: call reset first")
        chosen = np.zeros(len(self.agents), np.int64)
        for i, agent in enumerate(self.agents):
            if agent not in actions:
                raise ValueError(f"{agent} has no action; every agent acts in every decision (0 opts out)")
            if not self.action_spaces[agent].contains(actions[agent]):
                most = int(self.action_spaces[agent].n) - 1
                raise ValueError(f"{agent} has action {actions[agent]!r}; it must be a whole number from 0 to {most}")
            chosen[i] = actions[agent]
        outcome, executed, ended, cut = self.network.step(chosen)
        names = self.agents
        reward = self._reward(outcome)
        mask = self.network.mask()
        shared = {"elapsed": self.network.elapsed(outcome)}
        infos = {
            a: shared | {"action_mask": mask[i], "executed": int(executed[i]), "metrics": dict(self.network.metrics)}
            for i, a in enumerate(names)
        }
        seen = self._seen()
        if ended or cut:
            self.agents = []
        return (
            seen, dict(zip(names, reward.tolist(), strict=True)), dict.fromkeys(names, ended),
            dict.fromkeys(names, cut), infos,
        )  # fmt: skip

    def state(self) -> Float32:
        """Everything the operator is told, in one vector of ``state_space``."""
        return self.network.joint()

    def render(self) -> None:
        return None

    def _seen(self) -> dict[str, Float32]:
        return {a: row.copy() for a, row in zip(self.possible_agents, self.network.own(), strict=True)}

    def _reward(self, outcome: Facts) -> NDArray[np.float64]:
        """(N,) by ``credit``, 0 for who was not there.

        What an agent's leftover backlog costs is paid in the decision in which others lose by it: discounted, that is
        the same return as charging it to the decision that left it.
        """
        own = np.asarray(outcome.reward[0])
        if self.credit == "team" and own.size:
            own = np.full_like(own, own.mean())
        elif self.credit == "difference":
            own = own + outcome.lost[0] + outcome.carried[0].sum(axis=-1)
        return self.network.whole(own)
