r"""IMAPPO: multi-agent PPO with a centralised critic, trained on what is executed and paid by difference.

In the hybrid the executed mixed strategy is the Gibbs-prior equilibrium sigma, so the log-density, the ratio
and the entropy are those of log_softmax(log prior + bias), where bias = -trust cost is the game's part and is
held constant. Alone, the bias is zero. The advantage is generalised (Schulman et al. 2016) on the difference
reward: an agent's own outcome less what others lose because of it, in the slot and in the next few.

Everything else is :mod:`rl.mappo`'s: the clipped loss, the critic, value normalisation, the leave-one-out baseline.
Two options are IMAPPO's own, each in its file: continuous heads (:mod:`rl.continuous`), so that

    log pi = log pi(mode) + [not local] (log pi(server, channel | mode) + sum over active quantities of log p(y)),

and a memory (:mod:`rl.memory`).

Sources: Yu et al. (2022), "The surprising effectiveness of PPO in cooperative multi-agent games"; Schulman et
al. (2017) for the clipped loss; Huang et al. (2022), "The 37 implementation details of PPO", for the details;
Wolpert and Tumer (2001) for the difference reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl.continuous import ContinuousHeads, log_executed, pull, start_spread
from rl.learner import Blended, Drawn
from rl.levels import log_drawn
from rl.mappo import Mappo, MappoConfig, Taken
from rl.memory import Memory, sequences
from rl.networks import PairScorer, Sizes
from rl.on_policy import Batch, Float, Following
from rl.policy import DENSITIES, ArrayPolicy
from rl.proposal import Observation, Proposal, lens

ALONE_SPREAD = 0.1  # of the range: with which levels alone are drawn at the start


@dataclass(frozen=True)
class ImappoConfig(MappoConfig):
    """Settings of IMAPPO: MAPPO's, paid by difference, with one pass over a rollout in more parts and at a higher rate
    (as good as four passes in the hybrid, at less time: docs/beliefs.md), and its options.

    Attributes:
        continuous: quantities that are learned too, such as ("power", "fraction"); ``ranges`` are their least and
            greatest, which the trainer takes from the problem. density: "clipped", "beta" or "tanh".
        spread: with which what is executed is drawn at the start, in units of the range, at ``trust``.
        alone: levels are all that is decided (:mod:`rl.levels`), as the trainer says where a game is of levels.
        memory: size of each agent's recurrent state; 0 is none.
    """

    credit: str = "difference"
    critic: str = "light"
    rate: float = 6e-3
    epochs: int = 1
    minibatches: int = 8
    continuous: tuple[str, ...] = ()
    ranges: tuple[tuple[float, float], ...] = ()
    density: str = "clipped"
    spread: float = 0.03
    trust: float = 0.0
    alone: bool = False
    memory: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.density not in DENSITIES:
            raise ValueError(f"density = {self.density!r}; it must be one of {', '.join(DENSITIES)}")
        if len(self.ranges) != len(self.continuous):
            raise ValueError(
                f"ranges has {len(self.ranges)} entries for {len(self.continuous)} continuous quantities; give the "
                "least and greatest value of each"
            )
        for k, (low, high) in enumerate(self.ranges):
            if not low < high:
                raise ValueError(f"ranges[{k}] = ({low}, {high}); the first must be below the second")
        if self.alone and (not self.continuous or self.density != "clipped" or self.memory):
            raise ValueError(
                f"alone = True with continuous = {self.continuous}, density = {self.density!r}, memory = "
                f"{self.memory}; levels alone are learned with names, density 'clipped' and memory 0"
            )
        if self.device != "cpu" and (self.continuous or self.memory):
            raise ValueError(
                f"device = {self.device!r} with continuous heads or a memory, which are learned here; set "
                "device = 'cpu'"
            )
        if self.memory and self.replay:
            raise ValueError(
                f"memory = {self.memory} with replay = {self.replay}: an older rollout's memories are not those of "
                "today's weights; set one of them to 0 (dqn and the other off-policy learners replay without a memory)"
            )


class Imappo(Mappo):
    """The learner; ``policy`` is its actor as arrays, refreshed at each update."""

    name = "imappo"
    config: ImappoConfig

    def __init__(self, sizes: Sizes, config: ImappoConfig | None = None, seed: int = 0) -> None:
        c = config or ImappoConfig()
        self.heads: ContinuousHeads | None = None
        self.memory: Memory | None = Memory(sizes, c.memory, seed) if c.memory else None
        super().__init__(sizes._replace(agent=sizes.agent + c.memory), c, seed)
        self.overlaps = self.memory is None and self.heads is None

    def make_actor(self, sizes: Sizes) -> PairScorer:
        c = self.config
        actor = super().make_actor(sizes)
        if c.continuous:
            start = ALONE_SPREAD if c.alone else start_spread(c.spread, c.trust)
            self.heads = ContinuousHeads(sizes, c.continuous, c.ranges, c.density, start, c.hidden)
            actor.add_module("continuous", self.heads)
        if self.memory is not None:
            actor.add_module("memory", self.memory.cell)
        return actor

    def export(self) -> ArrayPolicy:
        policy = super().export()
        if self.heads is None:
            return policy
        alone = {"continuous.alone": np.array(True)} if self.config.alone else {}
        return ArrayPolicy({**policy.weights, **self.heads.arrays(), **alone}, self.name)

    # --- acting

    @property
    def continuous(self) -> tuple[str, ...]:
        return self.config.continuous

    def propose(self, observation: Observation) -> Proposal:
        return self.policy.propose(observation, self._memory_of(observation))

    def seen(self, observation: Observation) -> Observation:
        if self.config.alone:
            return lens(observation)
        return self.policy.seen(observation, self._memory_of(observation))

    def _memory_of(self, observation: Observation) -> NDArray[np.float32] | None:
        return None if self.memory is None else self.memory.of(observation)

    def sample_continuous(
        self, observation: Observation, option: NDArray[np.int64], rng: np.random.Generator
    ) -> Proposal | None:
        """(E, N, D) levels and spreads for the chosen options, drawn: what to execute in training."""
        if self.heads is None or self.config.alone:  # then the game draws
            return None
        x, spread = self.heads.draw(self._raw(self.seen(observation), option), rng)
        low, high = np.array(self.config.ranges).T
        return Proposal(None, low + (high - low) * x, (high - low) * spread, self.config.continuous)

    def _raw(self, seen: Observation, option: NDArray[np.int64]) -> Tensor:
        assert self.heads is not None
        t = torch.from_numpy
        with torch.no_grad():
            of = t(np.asarray(seen.resource_of))
            return self.heads(t(seen.agent), t(seen.pair), t(seen.resource), t(np.asarray(option)), of)

    def record(
        self,
        observation: Observation,
        option: NDArray[np.int64],
        log_prior: Float,
        bias: Float,
        reward: Float,
        carried: Float,
        truncated: NDArray[np.bool_],
        final: Observation | None,
        *,
        elapsed: Float | None = None,
        terminated: NDArray[np.bool_] | None = None,
        left: NDArray[np.bool_] | None = None,
        cost: Float | None = None,
        blended: Blended | Drawn | None = None,
    ) -> None:
        """One executed decision of E networks; see :meth:`rl.learner.Learner.record`."""
        if self.heads is not None and blended is None:
            raise ValueError(
                f"imappo has continuous heads ({', '.join(self.continuous)}) and must be told what was executed: "
                "record(..., blended={'wish': ..., 'responses': ..., 'trust': ...})"
            )
        super().record(
            lens(observation) if self.config.alone else observation, option, log_prior, bias, reward, carried,
            truncated, lens(final) if self.config.alone and final is not None else final, elapsed=elapsed,
            terminated=terminated, left=left,
        )  # fmt: skip
        if self.heads is not None and self.config.alone and blended is not None:
            self._record_drawn(self.heads, self.slots[-1], observation, cast(Drawn, blended))
        elif self.heads is not None and blended is not None:
            self._record_continuous(self.heads, self.slots[-1], observation, cast(Blended, blended))
        if self.memory is not None:
            self.memory.reset(self.slots[-1]["cut"])

    def _record_drawn(
        self, heads: ContinuousHeads, slot: dict[str, Any], observation: Observation, told: Drawn
    ) -> None:
        """Add to the slot what was drawn and the game's part of its density."""
        slot |= {"drawn": np.array(told["drawn"]), "linear": told["linear"], "curvature": told["curvature"]}
        t = torch.from_numpy
        low, high = t(np.array(self.config.ranges)).T
        raw = self._raw(lens(observation), slot["option"])
        log, _ = log_drawn(t(slot["drawn"]), t(slot["linear"]), t(slot["curvature"]), raw, low, high, heads.first)
        slot["old"] = np.where(observation.live, log.numpy(), 0.0).astype(np.float32)

    def _record_continuous(
        self, heads: ContinuousHeads, slot: dict[str, Any], observation: Observation, blended: Blended
    ) -> None:
        """Add to the slot what was executed, before the safety filter: the density is of that."""
        c, trust, wish = self.config, float(blended["trust"]), blended["wish"]
        if wish.levels != c.continuous or wish.mean is None or wish.spread is None:
            raise ValueError(
                f"blended['wish'] is of ({', '.join(wish.levels)}); imappo drew ({', '.join(c.continuous)})"
            )
        low, high = np.array(c.ranges).T
        shape = slot["option"].shape
        x = (wish.mean - low) / (high - low)
        k = pull(wish.spread / (high - low), trust)
        given = np.stack([np.broadcast_to(blended["responses"][n], shape) for n in c.continuous], -1)
        response = (given - low) / (high - low)
        used = (np.asarray(observation.resource_of)[slot["option"]] >= 0) & observation.live
        active = np.isfinite(response) & used[..., None]
        response = np.where(active, response, 0.5)
        y = np.clip((1 - k) * response + k * x, 0.0, 1.0)
        slot |= {
            "drawn": x, "executed": y, "response": response, "active": active,
            "trust": np.full((len(y), 1, 1), trust),
        }  # fmt: skip
        raw = self._raw(observation._replace(agent=slot["agent"]), slot["option"])
        t = torch.from_numpy
        log, _ = log_executed(t(x), t(y), t(response), torch.tensor(trust), raw, c.density, heads.first)
        slot["old"] = (slot["old"] + (log.numpy() * active).sum(-1)).astype(np.float32)

    def following(self, last: Observation) -> Following:
        return super().following(lens(last) if self.config.alone else last)

    def remember(self, observation: Observation) -> dict[str, Any]:
        return {} if self.memory is None else self.memory.step(observation)

    # --- learning

    def taken(self, batch: Batch, part: Tensor) -> Taken:
        if self.memory is not None:
            agent = batch.agent.clone()
            agent[part] = self.memory.replay(batch, part)
            batch = batch._replace(agent=agent)
        taken = super().taken(batch, part)
        if self.heads is None:
            return taken
        agent, pair, resource, option = (x[part] for x in (batch.agent, batch.pair, batch.resource, batch.option))
        if self.config.alone:
            raw = self.heads(agent, pair, resource, option, batch.resource_of)
            drawn, linear, curvature = (batch.more[k][part] for k in ("drawn", "linear", "curvature"))
            low, high = self.heads.get_buffer("low"), self.heads.get_buffer("high")
            log, entropy = log_drawn(drawn, linear, curvature, raw, low, high, self.heads.first)
            log, entropy = (x[taken.row, taken.agent].float() for x in (log, entropy))
            return taken._replace(log_density=log, entropy=entropy.mean(), figures={})
        x, y, response, trust = (batch.more[k][part] for k in ("drawn", "executed", "response", "trust"))
        raw = self.heads(agent, pair, resource, option, batch.resource_of)
        log, entropy = log_executed(x, y, response, trust, raw, self.config.density, self.heads.first)
        active = batch.more["active"][part][taken.row, taken.agent]
        pick = lambda x: torch.where(active, x[taken.row, taken.agent], 0.0).float()
        spread = pick(entropy)
        figures = {
            f"entropy_{n}": float(spread[:, k].sum().detach() / active[:, k].sum().clamp(min=1))
            for k, n in enumerate(self.continuous)
        }
        return taken._replace(
            log_density=taken.log_density + pick(log).sum(-1), entropy=taken.entropy + spread.sum(-1).mean(),
            figures=taken.figures | figures,
        )  # fmt: skip

    def parts(self, batch: Batch) -> Sequence[Tensor]:
        if self.memory is None:
            return super().parts(batch)
        order = torch.randperm(batch.cut.shape[1], generator=self.generator)
        return sequences(order.chunk(self.config.minibatches), *batch.cut.shape)

    def state_dict(self) -> dict[str, Any]:
        memory = None if self.memory is None else self.memory.state
        return super().state_dict() | {"memory_state": memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.memory is not None:
            self.memory.state = state["memory_state"]
