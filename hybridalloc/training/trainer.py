"""Train a recommender on what is executed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from coordinator import Coordinator
from coordinator.drift import Ranges
from coordinator.learned_trust import LearnedTrust
from hybridalloc.errors import WorkError
from hybridalloc.problems.contract import AnyProblem, Belief, Prices, Responds
from hybridalloc.reports.statistics import mean_of
from hybridalloc.training.beliefs import learn_belief
from hybridalloc.training.checks import check_training
from hybridalloc.training.config import TUNE_SEEDS, TrainConfig
from hybridalloc.training.evaluation import evaluate
from hybridalloc.training.learners import learner_settings
from hybridalloc.training.rollout import Explore, Rollout
from rl.learner import Blended, Drawn, Executed, Learner
from rl.policy import Notes
from rl.proposal import Sizes
from rl.registry import make_learner
from rl.value import StoreValue, Valuer

if TYPE_CHECKING:  # torch is imported where training starts and not before
    from hybridalloc.training.checkpoints import Checkpoints
    from hybridalloc.training.crew import Crew, Hires


@dataclass
class Trained:
    """What a training run leaves.

    Attributes:
        learner: networks, optimizers and ``policy``. belief: learned beside it, None without.
        updates: one row of figures an update. curve: one row a check, welfare and completion of what the policy
            executes (no exploration) on the tuning seeds; a figure that is a mean of nothing is left out.
        allocations, violations: executed in training, and how many of them broke a capacity or power limit by
            the certificate's count.
        overloads: of them, how many would have overloaded a resource had the learner's own choice been executed raw.
        seconds: time by stage. agent_steps: done, at most the budget (see :meth:`TrainConfig.extent`). value: of the
            agents' stores, under which it was trained.
    """

    learner: Learner
    belief: Any
    updates: list[dict[str, float]]
    curve: list[dict[str, float]]
    allocations: int
    violations: int
    overloads: int
    seconds: dict[str, float]
    agent_steps: int
    value: Valuer | None = None


@threadpool_limits.wrap(limits=1, user_api="blas")
def train(
    problem: AnyProblem,
    prices: Prices,
    config: TrainConfig,
    report: Callable[[int, dict[str, float]], None] | None = None,
    belief: Belief | None = None,
    checkpoints: Checkpoints | None = None,
    value: StoreValue | None = None,
    hires: Hires | None = None,
) -> Trained:
    """Train one recommender, alone or inside the hybrid.

    Args:
        problem: any; its card says what counts. prices: the game's and the settling's, tuned beforehand.
        belief: one to go on from where ``config.belief`` asks for one; default a fresh one.
        report: called with the agent-steps done and the figures of each update.
        checkpoints: where the run keeps its state, and what it goes on from; default nowhere and nothing.
        value: of what is left in the agents' stores, which the game charges; a run that goes on has its own.
        hires: what makes the ``config.actors`` that collect roll-outs, such as what
            :func:`hybridalloc.training.on_ray.hiring` gives; by default this process is all of them, one after the
            other. It has no part in the result.

    Returns:
        Trained; ``learner.policy`` is the recommender to execute.

    Raises:
        UnknownNameError, ValueError: what the problem or the learner cannot have (:mod:`.checks`), first of all.
        CheckpointError: the checkpoint to go on from is unreadable or of another run.
        FloatingPointError: a gradient is not finite; the message names the last good checkpoint.
        WorkError: with ``overlap``, the learner's process ended otherwise, or an actor was lost for good; so does this
            message.
    """
    import torch

    from hybridalloc.training.ahead import Ahead
    from hybridalloc.training.crew import Crew

    check_training(problem, config, hires is not None)
    torch.set_num_threads(1)
    card = problem.card
    settings = learner_settings(problem, config)
    resumed = checkpoints is not None and checkpoints.open(problem, prices, config)
    if resumed and checkpoints is not None:
        found = checkpoints.part("value")
        value = None if found is None else StoreValue.of(found)
    watch = replace(config, belief_steps=0) if resumed else config  # what it watched is in the checkpoint
    belief, allocations, violations = learn_belief(problem, prices, watch, belief)
    agents = max(card.agents, 1)
    networks, slots = config.extent_on(card)
    rng = np.random.default_rng([config.seed, 77])
    seeds = rng.integers(0, 2**31, networks)
    shared = config.actors > 1 or hires is not None
    # of a crew's networks the first says what all look like
    run: Rollout | Crew = Rollout(problem, seeds[:1] if shared else seeds, belief, spread=True, value=value)
    trust = config.trust if config.kind == "hybrid" else 0.0
    learner = make_learner(config.learner, Sizes.of(run.observation), config.seed, settings)
    explore = Explore(Coordinator(config.kind, trust, learner.config.limit), prices, rng, learner)
    crew: Crew | None = None
    if shared:
        run = crew = Crew(problem, prices, seeds, config.actors, explore, learner, belief, value, hires)
    # a learner paid by the team or by its own outcome is not charged for what others lose
    credit = config.credit if learner.credit == "difference" else 0.0
    short = slots % learner.config.horizon > 0  # the budget ends inside a rollout
    due = [round(slots * k / max(config.checks, 1)) for k in range(config.checks + 1)] if config.checks else []
    seconds = {"policy": 0.0, "game": 0.0, "environment": 0.0, "update": 0.0}
    done = Progress(0, due, [], [], allocations, violations, 0, seconds)
    ranges, learned = Ranges(seed=config.seed), LearnedTrust(config.trust) if config.learn_trust else None
    parts = {"learner": learner, "rollout": run, "belief": belief, "rng": rng, "ranges": ranges, "trust": learned}
    parts |= {} if value is None else {"value": value}
    ahead = Ahead(learner) if config.overlap else None
    parts |= {} if ahead is None else {"ahead": ahead}
    if resumed:
        assert checkpoints is not None
        done = Progress(**checkpoints.restore(parts))
    watched = dict.fromkeys((*card.headline, "raw_violation"))

    def steps() -> int:
        return done.slot * networks * agents

    def stopped(error: Exception) -> Exception:
        left = "nothing was kept" if checkpoints is None else checkpoints.last_good()
        return type(error)(f"training stopped after {steps():,} agent-steps: {error}; {left}")

    def wait() -> None:
        """Until nothing is being learned."""
        if ahead is not None:
            try:
                ahead.settle()
            except (FloatingPointError, WorkError) as error:
                raise stopped(error) from error

    def check() -> None:
        while done.due and done.slot >= done.due[0]:
            done.due.pop(0)
            known = None if belief is None else belief.copy(learning=False)
            seeds = TUNE_SEEDS[: config.check_seeds]
            means = evaluate(
                problem,
                prices,
                explore.coordinator,
                learner.policy,
                seeds,
                slots=config.check_slots,
                belief=known,
                value=value,
            ).means()
            figures = {f"check_{k}": means[k] for k in card.headline if k in means}
            done.curve.append({"agent_steps": float(steps())} | figures)
            if report is not None:
                report(steps(), figures)
            if checkpoints is not None:
                wait()
                score = card.aim.sign * means.get(card.aim.key, -card.aim.sign * np.inf)
                checkpoints.judge(score, steps(), parts, vars(done))

    def trust_in(slot: int) -> float:
        if learned is not None:
            return learned.trust
        return config.trust_at(slot / slots) if config.trust_end is not None and config.kind == "hybrid" else trust

    def ahead_of_us() -> int:
        """Decisions until something is learned, checked or kept, before which a crew may go on by itself."""
        assert crew is not None
        count = min(slots - done.slot, crew.room)
        if done.due:
            count = min(count, max(done.due[0] - done.slot, 1))
        if checkpoints is not None:
            count = min(count, max(-(-checkpoints.left(steps()) // (networks * agents)), 1))
        return count

    check()
    while done.slot < slots:
        progress = done.slot / slots
        explore.coordinator = replace(explore.coordinator, trust=trust_in(done.slot))
        if crew is not None and crew.waits:
            try:
                crew.expect([trust_in(k) for k in range(done.slot, done.slot + ahead_of_us())])
            except WorkError as error:
                raise stopped(error) from error
        observation, merged_at = run.observation, explore.coordinator.trust
        if done.slot % 16 == 0:
            ranges.update(observation)
        violated, overloaded = run.violations, run.overloads
        step = run.step(explore, prices, final=True)
        done.allocations += networks
        done.violations += run.violations - violated
        done.overloads += run.overloads - overloaded
        following, t0 = run.observation, time.perf_counter()
        chosen, facts = step.chosen, step.facts
        log_prior, bias, allowed = chosen.log_prior, chosen.bias, chosen.allowed
        reward = facts.reward + credit * facts.lost
        blended: Blended | Drawn | None = None
        if log_prior is None or bias is None:  # levels are all that is decided
            assert chosen.drawn is not None and chosen.pull is not None
            log_prior = bias = np.zeros((*chosen.option.shape, 1))
            allowed = np.ones(log_prior.shape, bool)
            blended = {"drawn": chosen.drawn, "linear": chosen.pull.linear, "curvature": chosen.pull.curvature}
        assert allowed is not None
        if chosen.levels is not None and isinstance(run, Rollout) and isinstance(run.world, Responds):
            blended = {"wish": chosen.levels, "responses": run.world.responses, "trust": merged_at}
        cut = step.over if step.terminated is None else step.over & ~step.terminated
        cost = step.requested if learner.wants_cost else None
        learner.record(Executed(
            observation, chosen.option, log_prior, bias, reward, facts.carried, cut, step.final, step.elapsed,
            step.terminated, facts.left, cost, blended,
        ))  # fmt: skip
        if learned is not None:
            learned.record(log_prior, bias, allowed, observation.live, chosen.option, reward, step.elapsed)
        try:
            full = learner.ready() or (short and done.slot + 1 == slots and learner.ready(final=True))
            figures = None
            if full:
                figures = learner.update(following, progress) if ahead is None else ahead.turn(following, progress)
            if ahead is not None and done.slot + 1 == slots:
                last = ahead.finish()
                done.updates += [] if figures is None else [{"agent_steps": float(steps())} | figures]
                figures = last or figures
        except (FloatingPointError, WorkError) as error:
            raise stopped(error) from error
        done.slot += 1
        settling = step.deciding_s - chosen.policy_s - chosen.game_s
        spent = (chosen.policy_s, chosen.game_s, settling + step.moving_s, time.perf_counter() - t0)
        for name, amount in zip(done.seconds, spent, strict=True):
            done.seconds[name] += amount
        if figures is not None:
            summary = run.tally.summary()
            means = {k: mean_of(summary[k]) for k in watched if k in summary}
            figures |= {k: mean for k, mean in means.items() if not np.isnan(mean)}
            figures |= {"trust": merged_at} | done.timing(steps())
            figures |= belief.figures() if belief is not None else {}
            figures |= {"trust_gradient": learned.update()} if learned is not None else {}
            run.tally.clear()
            done.updates.append({"agent_steps": float(steps())} | figures)
            if report is not None:
                report(steps(), figures)
        check()
        if checkpoints is not None and (done.slot == slots or checkpoints.due(steps())):
            wait()
            checkpoints.keep(steps(), parts, vars(done))
    if ahead is not None:
        ahead.close()
    if crew is not None:
        crew.close()
    learned_trust = None if learned is None else learned.trust
    learner.policy.notes = Notes(learned_trust=learned_trust, ranges=ranges.bounds())  # drift, and trust="learned"
    return Trained(
        learner, belief, done.updates, done.curve, done.allocations, done.violations, done.overloads, done.seconds,
        steps(), value,
    )  # fmt: skip


@dataclass
class Progress:
    """How far a run has come: slots done, checks still due, and what :class:`Trained` will hold."""

    slot: int
    due: list[int]
    updates: list[dict[str, float]]
    curve: list[dict[str, float]]
    allocations: int
    violations: int
    overloads: int
    seconds: dict[str, float]

    def timing(self, agent_steps: int) -> dict[str, float]:
        """Agent-steps a second since the start, checks left out, and each stage's share of the time."""
        total = max(sum(self.seconds.values()), 1e-9)
        shares = {f"time/{name}": spent / total for name, spent in self.seconds.items()}
        return {"time/agent_steps_per_second": agent_steps / total} | shares
