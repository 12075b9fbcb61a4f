"""Train a recommender on what is executed, and evaluate any method on common seeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coordinator import Coordinator, clip_prior
from coordinator.drift import Ranges
from coordinator.health import FleetWatch
from coordinator.learned_trust import LearnedTrust
from coordinator.merge import flat_prior
from hybridalloc.beliefs import make_belief
from hybridalloc.runlog import strict
from hybridalloc.statistics import mean_of
from rl.networks import Sizes
from rl.proposal import Proposal, Recommender, proposal_of
from rl.schedules import scheduled

if TYPE_CHECKING:  # torch is imported where training starts and not before
    from hybridalloc.checkpoints import Checkpoints

Float = NDArray[np.float64]
TRAIN_SEEDS, TUNE_SEEDS, REPORT_SEEDS = range(0, 5000), range(5000, 5100), range(10000, 10100)
WARMUP_SLOTS, REPORT_SLOTS = 15, 120
TOLERANCE = 1e-9
BELIEF_STEPS = 262_144
BEST_TRUST = {"": 5.0} | dict.fromkeys(("learned", "bayesian", "base_law"), 20.0)  # best of a sweep on the tuning seeds


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        learner: a name in ``LEARNERS``. kind: "hybrid" or "rl" (alone).
        agent_steps: budget, devices times slots over all networks.
        networks: environments stepped together.
        trust: at which the mixed choice is sampled in training and the pure one taken afterwards; with ``trust_end``
            it moves there by a line, and the pure choice is taken at ``final_trust``.
        learn_trust: move trust by the policy's gradient, from ``trust``; an allocator can then take "learned" for it.
        rate_schedule: of the learner's learning rate: "constant", "linear" or "cosine".
        belief: "" (reports at their face value), "learned" or "bayesian", see the problem's ``beliefs``.
        belief_steps: agent-steps of the game's own exploration in which a belief is learned before the learner starts;
            it goes on learning ever after.
        credit: weight of what others lose in the slot because of an agent, for a learner paid by its difference.
        checks: evaluations of the executed policy on the first ``check_seeds`` tuning seeds, from step 0 to the end.
    """

    learner: str = "imappo"
    kind: str = "hybrid"
    agent_steps: int = 4_000_000
    networks: int = 32
    trust: float = 5.0
    trust_end: float | None = None
    learn_trust: bool = False
    rate_schedule: str = "linear"
    belief: str = ""
    belief_steps: int = BELIEF_STEPS
    credit: float = 1.0
    seed: int = 0
    checks: int = 10
    check_seeds: int = 16
    check_slots: int = 60
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not (self.trust >= 0 and self.final_trust >= 0):
            raise ValueError(f"trust = {self.trust}, trust_end = {self.trust_end}; both must be >= 0")
        scheduled(1.0, 0.0, 0.0, self.rate_schedule)

    @property
    def final_trust(self) -> float:
        return self.trust if self.trust_end is None else self.trust_end

    def trust_at(self, progress: float) -> float:
        return scheduled(self.trust, self.final_trust, progress, "linear")


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
        seconds: time by stage.
    """

    learner: Any
    belief: Any
    updates: list[dict[str, float]]
    curve: list[dict[str, float]]
    allocations: int
    violations: int
    overloads: int
    seconds: dict[str, float]


LEARNERS = {  # name: module, learner and its settings
    "imappo": ("rl.imappo", "Imappo", "ImappoConfig"),
    "dqn": ("rl.dqn", "Dqn", "DqnConfig"),
    "mappo": ("rl.mappo", "Mappo", "MappoConfig"),
    "ippo": ("rl.mappo", "Ippo", "IppoConfig"),
    "ppo": ("rl.ppo", "Ppo", "PpoConfig"),
    "a2c": ("rl.a2c", "A2c", "A2cConfig"),
    "a3c": ("rl.a3c", "A3c", "A3cConfig"),
    "coma": ("rl.coma", "Coma", "ComaConfig"),
    "mappo_lagrangian": ("rl.lagrangian", "Lagrangian", "LagrangianConfig"),
    "mappo_penalty": ("rl.lagrangian", "Penalty", "PenaltyConfig"),
    "counterfactual": ("rl.counterfactual", "Counterfactual", "CounterfactualConfig"),
    "maddpg": ("rl.maddpg", "Maddpg", "MaddpgConfig"),
    "iql": ("rl.value_decomposition", "Iql", "IqlConfig"),
    "vdn": ("rl.value_decomposition", "Vdn", "VdnConfig"),
    "qmix": ("rl.value_decomposition", "Qmix", "QmixConfig"),
}


def make_learner(name: str, sizes: Sizes, seed: int, settings: dict[str, Any] | None = None) -> Any:
    """A fresh learner by name; torch is imported here and not before."""
    import importlib

    from hybridalloc.errors import nearest

    if name not in LEARNERS:
        raise nearest("recommender", name, tuple(LEARNERS))
    module, learner, config = LEARNERS[name]
    found = importlib.import_module(module)
    return getattr(found, learner)(sizes, getattr(found, config)(**(settings or {})), seed)


def continuous_settings(problem: Any, learner: str, settings: dict[str, Any], trust: float) -> dict[str, Any]:
    """A learner's settings, with the problem's ranges of the continuous quantities it is asked to learn.

    Raises:
        ValueError: the learner has options alone, or the problem has no such quantity; those that do are named.
    """
    names = tuple(settings.get("continuous", ()))
    if not names:
        return settings
    if learner != "imappo":
        raise ValueError(f"{learner} proposes options alone; imappo has continuous heads (continuous = {names})")
    known = getattr(problem, "continuous", {})
    for name in names:
        if name not in known:
            raise ValueError(
                f"{problem.name} has no continuous quantity {name!r} as it is set; it has: {', '.join(known) or 'none'}"
            )
    return {"ranges": tuple(known[n] for n in names), "trust": trust} | settings


def learn_belief(problem: Any, prices: Any, config: TrainConfig, prior: Any = None) -> tuple[Any, int, int]:
    """A belief that has watched ``config.belief_steps`` of the game's own exploration; None where none is asked for.

    Args:
        prior: a belief to go on from, instead of a fresh one; it is left as it is.

    Returns:
        the belief, and how many allocations were executed and violated a limit.
    """
    if not config.belief:
        return None, 0, 0
    belief = prior.copy() if prior is not None else make_belief(problem, config.belief, config.seed)
    if not belief.learns or not config.belief_steps:
        return belief, 0, 0
    rng = np.random.default_rng([config.seed, 78])
    batch = problem.batch(rng.integers(0, 2**31, config.networks), belief)
    batch.age[:] = problem.scenario.episode * np.arange(config.networks) // config.networks
    coordinator = Coordinator("hybrid", config.trust)
    slots = -(-config.belief_steps // (config.networks * max(problem.agents, 1)))
    violations = 0
    for _ in range(slots):
        game = batch.game(prices)
        option = coordinator.explore(game, flat_prior(game), rng.random(game.live.shape)).option
        plan = batch.settle(option, prices)
        violations += int((batch.excess(plan) > TOLERANCE).sum())
        batch.execute(plan)
        batch.drift()
        batch.restart(batch.age >= problem.scenario.episode)
    return belief, slots * config.networks, violations


def train(
    problem: Any,
    prices: Any,
    config: TrainConfig,
    report: Callable[[int, dict[str, float]], None] | None = None,
    belief: Any = None,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train one recommender, alone or inside the hybrid.

    Args:
        belief: one to go on from where ``config.belief`` asks for one; default a fresh one.
        problem: with ``batch(seeds)``. prices: the game's and the settling's, tuned beforehand.
        report: called with the agent-steps done and the figures of each update.
        checkpoints: where the run keeps its state, and what it goes on from; default nowhere and nothing.

    Returns:
        Trained; ``learner.policy`` is the recommender to execute.

    Raises:
        CheckpointError: the checkpoint to go on from is unreadable or of another run.
        FloatingPointError: a gradient is not finite; the message names the last good checkpoint.
    """
    import torch

    torch.set_num_threads(1)
    resumed = checkpoints is not None and checkpoints.open(problem, prices, config)
    watch = replace(config, belief_steps=0) if resumed else config  # what it watched is in the checkpoint
    belief, allocations, violations = learn_belief(problem, prices, watch, belief)
    rng = np.random.default_rng([config.seed, 77])
    batch = problem.batch(rng.integers(0, 2**31, config.networks), belief)
    stagger = problem.scenario.episode * np.arange(config.networks) // config.networks
    batch.age[:] = stagger
    observation = batch.observe()
    trust = config.trust if config.kind == "hybrid" else 0.0
    settings = {} if config.rate_schedule == "linear" else {"schedule": config.rate_schedule}
    settings = continuous_settings(problem, config.learner, settings | dict(config.settings), trust)
    learner = make_learner(config.learner, Sizes.of(observation), config.seed, settings)
    coordinator = Coordinator(config.kind, trust, learner.config.limit)
    # a learner paid by the team or by its own outcome is not charged for what others lose
    credit = config.credit if getattr(learner, "credit", "difference") == "difference" else 0.0
    agents = max(problem.agents, 1)
    slots = -(-config.agent_steps // (config.networks * agents))
    horizon = learner.config.horizon
    slots = -(-slots // horizon) * horizon
    due = [round(slots * k / max(config.checks, 1)) for k in range(config.checks + 1)] if config.checks else []
    seconds = {"policy": 0.0, "game": 0.0, "environment": 0.0, "update": 0.0}
    done = Progress(0, due, [], [], allocations, violations, 0, seconds)
    ranges, learned = Ranges(seed=config.seed), LearnedTrust(config.trust) if config.learn_trust else None
    parts = {"learner": learner, "batch": batch, "belief": belief, "rng": rng, "ranges": ranges, "trust": learned}
    if resumed:
        assert checkpoints is not None
        done = Progress(**checkpoints.restore(parts))
        observation = batch.observe()

    def steps() -> int:
        return done.slot * config.networks * agents

    def check() -> None:
        while done.due and done.slot >= done.due[0]:
            done.due.pop(0)
            seen = evaluate(
                problem,
                prices,
                coordinator,
                learner.policy,
                TUNE_SEEDS[: config.check_seeds],
                slots=config.check_slots,
                belief=belief.copy(learning=False) if belief is not None else None,
            )
            means = seen.means()
            figures = {f"check_{k}": means[k] for k in ("welfare", "completion") if k in means}
            done.curve.append({"agent_steps": float(steps())} | figures)
            if report is not None:
                report(steps(), figures)
            if checkpoints is not None:
                checkpoints.judge(figures.get("check_welfare", -np.inf), steps(), parts, vars(done))

    check()
    while done.slot < slots:
        progress = done.slot / slots
        if config.trust_end is not None and config.kind == "hybrid":
            coordinator = replace(coordinator, trust=config.trust_at(progress))
        if learned is not None:
            coordinator = replace(coordinator, trust=learned.trust)
        if done.slot % 16 == 0:
            ranges.update(observation)
        t0 = time.perf_counter()
        raw = proposal_of(learner.propose(observation)).log_prior
        assert raw is not None  # there are options
        t1 = time.perf_counter()
        game = batch.game(prices)
        log_prior = clip_prior(raw, game.allowed, learner.config.limit)
        merged = coordinator.explore(game, log_prior, rng.random(observation.live.shape))
        assert merged.bias is not None
        t2 = time.perf_counter()
        wish = learner.sample_continuous(observation, merged.option, rng) if settings.get("continuous") else None
        names = tuple(settings.get("continuous", ()))
        levels = None if wish is None else Proposal(
            None, np.stack([wish[n] for n in names], -1), np.stack([wish[f"{n}_spread"] for n in names], -1), names
        )  # fmt: skip
        plan = batch.settle(merged.option, prices, levels, coordinator.trust)
        overload = batch.overload(merged.option, prices)
        done.violations += int((batch.excess(plan) > TOLERANCE).sum())
        done.overloads += int((overload > 0).sum())
        done.allocations += config.networks
        outcome = batch.execute(plan, overload)
        batch.drift()
        truncated = batch.age >= problem.scenario.episode
        final = batch.observe() if truncated.any() else None
        batch.restart(truncated)
        following = batch.observe()
        t3 = time.perf_counter()
        reward = outcome.reward + credit * outcome.lost
        more: dict[str, Any] = {"cost": overload} if getattr(learner, "wants_cost", False) else {}
        if wish is not None:
            more["blended"] = {"wish": wish, "responses": batch.responses, "trust": coordinator.trust}
        carried = outcome.carried
        learner.record(observation, merged.option, log_prior, merged.bias, reward, carried, truncated, final, **more)
        if learned is not None:
            learned.record(log_prior, merged.bias, game.allowed, game.live, merged.option, reward)
        observation = following
        try:
            figures = learner.update(observation, progress) if learner.ready() else None
        except FloatingPointError as error:
            left = "nothing was kept" if checkpoints is None else checkpoints.last_good()
            raise FloatingPointError(f"training stopped after {steps():,} agent-steps: {error}; {left}") from error
        t4 = time.perf_counter()
        done.slot += 1
        for name, spent in zip(done.seconds, (t1 - t0, t2 - t1, t3 - t2, t4 - t3), strict=True):
            done.seconds[name] += spent
        if figures is not None:
            summary = batch.summary()
            means = {k: mean_of(summary[k]) for k in ("welfare", "completion", "raw_violation")}
            figures |= {k: mean for k, mean in means.items() if not np.isnan(mean)}
            figures |= {"trust": coordinator.trust} | done.timing(steps())
            figures |= belief.figures() if belief is not None else {}
            figures |= {"trust_gradient": learned.update()} if learned is not None else {}
            batch.clear_tallies()
            done.updates.append({"agent_steps": float(steps())} | figures)
            if report is not None:
                report(steps(), figures)
        check()
        if checkpoints is not None and (done.slot == slots or checkpoints.due(steps())):
            checkpoints.keep(steps(), parts, vars(done))
    notes = ranges.bounds() | ({} if learned is None else {"trust": np.float64(learned.trust)})
    learner.policy.weights = {**learner.policy.weights, **notes}  # for the allocator: drift, and trust="learned"
    return Trained(
        learner, belief, done.updates, done.curve, done.allocations, done.violations, done.overloads, done.seconds
    )


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


@dataclass(frozen=True)
class Evaluation:
    """Metrics (V,) of one method on V held-out seeds, NaN where one has none, and the certificate's count."""

    metrics: dict[str, Float]
    allocations: int
    violations: int
    step_ms: float

    def means(self) -> dict[str, float]:
        """Each metric's mean over the seeds that have it; a metric that none has is left out."""
        found = {key: mean_of(values) for key, values in self.metrics.items()}
        return {key: mean for key, mean in found.items() if not np.isnan(mean)}

    def as_dict(self) -> dict[str, Any]:
        """For JSON; None stands for a metric that a seed has not."""
        out: dict[str, Any] = strict(asdict(self))
        return out


def evaluate(
    problem: Any,
    prices: Any,
    coordinator: Coordinator | None,
    recommender: Recommender | None,
    seeds: Sequence[int],
    baseline: str | None = None,
    slots: int = REPORT_SLOTS,
    chunk: int = 50,
    belief: Any = None,
    health: bool = False,
) -> Evaluation:
    """Run one method on common seeds; randomness of the world is the same for every method.

    Each seed is one network for ``slots`` slots, after ``WARMUP_SLOTS`` that are not counted. ``step_ms`` is
    the time of the decision (observe, propose, equilibrate, settle, filter), a network and slot, batched. A
    ``belief`` goes on learning in each chunk of networks as it would in service (``copy(learning=False)`` does not);
    the one given is left as it is. With ``health`` the metrics count agents that oscillate or are lazy.
    """
    parts: list[dict[str, Float]] = []
    allocations = violations = 0
    spent = 0.0
    seeds = list(seeds)
    for start in range(0, len(seeds), chunk):
        some = seeds[start : start + chunk]
        batch = problem.batch(some, belief.copy(belief.learning) if belief is not None else None)
        rng = np.random.default_rng([some[0], 99])
        carrying = getattr(recommender, "carrying", None)  # a policy with a memory keeps it from slot to slot
        speaker = recommender if carrying is None else carrying()
        yardstick = problem.prices_type()  # the same for every method, whatever its own prices
        watch = FleetWatch(len(some), worth=float(getattr(yardstick, "migration", 0.1))) if health else None
        for slot in range(WARMUP_SLOTS + slots):
            if slot == WARMUP_SLOTS:
                batch.clear_tallies()
            t0 = time.perf_counter()
            if baseline is not None:
                raw, log_prior = batch.baseline(baseline, rng), None
                plan = batch.settle(raw, prices)
            else:
                assert coordinator is not None
                decision = coordinator.decide(batch, speaker, prices)
                raw, log_prior = decision.raw, decision.log_prior
                plan = coordinator.settle(batch, decision, prices)
            spent += time.perf_counter() - t0
            violations += int((batch.excess(plan) > TOLERANCE).sum())
            allocations += len(some)
            if watch is not None and slot >= WARMUP_SLOTS:
                game = batch.game(yardstick)
                watch.see(game, plan.option, np.zeros(game.private_cost.shape) if log_prior is None else log_prior)
            batch.execute(plan, batch.overload(raw, prices))
            batch.drift()
        parts.append(batch.summary() | (watch.summary() if watch is not None else {}))
    metrics = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    return Evaluation(metrics, allocations, violations, 1e3 * spent / max(allocations, 1))
