"""Training and evaluation: paired, reproducible, never infeasible, and it learns."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator import Coordinator
from hybridalloc import Allocator, make_problem
from hybridalloc.training.config import REPORT_SEEDS, TRAIN_SEEDS, TUNE_SEEDS, TrainConfig
from hybridalloc.training.evaluation import evaluate
from hybridalloc.training.learners import learner_settings
from hybridalloc.training.trainer import train
from hybridalloc.training.tuning import tune_prices
from rl.proposal import Sizes
from rl.registry import make_learner, resolved, settings_for
from tests.rl.toys import Places, drive, executes


@pytest.fixture(scope="module")
def problem():
    return make_problem("mec", agents=16, servers=3)


def learned(trained):
    """The rows of figures but for how long they took."""
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in trained.updates]


def test_seed_ranges_do_not_meet():
    assert not set(TRAIN_SEEDS) & set(TUNE_SEEDS)
    assert not (set(TRAIN_SEEDS) | set(TUNE_SEEDS)) & set(REPORT_SEEDS)


def test_the_hybrid_starts_at_the_games_level(problem):
    prices = problem.card.prices()
    config = TrainConfig("imappo", "hybrid", 16 * 32 * 32, checks=1, check_seeds=8, check_slots=30)
    trained = train(problem, prices, config)
    flat = evaluate(problem, prices, Coordinator("hybrid", config.trust), None, TUNE_SEEDS[:8], slots=30)
    assert trained.curve[0]["agent_steps"] == 0
    assert trained.curve[0]["check_welfare"] == pytest.approx(flat.metrics["welfare"].mean(), abs=1e-12)


@pytest.mark.parametrize("learner", ["imappo", "dqn"])
def test_learning_rises_well_above_the_untrained_self_and_the_heuristics(problem, learner):
    prices = problem.card.prices()
    config = TrainConfig(learner, "rl", 300_000, checks=0)
    trained = train(problem, prices, config)
    seeds = TUNE_SEEDS[:24]
    alone = evaluate(problem, prices, Coordinator("rl"), trained.learner.policy, seeds, slots=60)
    others = {b: evaluate(problem, prices, None, None, seeds, b, slots=60) for b in ("local", "random", "nearest")}
    learned = alone.metrics["welfare"].mean()
    assert trained.violations == alone.violations == 0
    assert learned > others["local"].metrics["welfare"].mean() + 0.1  # what an untrained score executes
    assert learned > others["random"].metrics["welfare"].mean() + 0.1  # what it explores with
    assert learned > others["nearest"].metrics["welfare"].mean()


@pytest.mark.parametrize("learner", ["imappo", "dqn"])
def test_training_is_reproducible_by_seed(problem, learner):
    prices = problem.card.prices()
    config = TrainConfig(learner, "hybrid", 16 * 32 * 96, checks=0, seed=5)
    first, second = train(problem, prices, config), train(problem, prices, config)
    for name, array in first.learner.policy.weights.items():
        np.testing.assert_array_equal(array, second.learner.policy.weights[name])
    assert learned(first) == learned(second)
    third = train(problem, prices, TrainConfig(learner, "hybrid", 16 * 32 * 96, checks=0, seed=6))
    assert learned(third)[0] != learned(first)[0]


@pytest.mark.parametrize(
    ("agents", "budget", "networks", "slots"),
    [
        (50, 5_000, 32, 3),
        (50, 1_600, 32, 1),
        (50, 1_599, 31, 1),
        (50, 49, 1, 1),
        (16, 32 * 16 * 64, 32, 64),
        (16, 32 * 16 * 64 - 1, 32, 63),
    ],
)
def test_a_budget_is_a_ceiling(agents, budget, networks, slots):
    """Whole slots within it; fewer networks where one slot is too much; a slot of one network is the least."""
    assert TrainConfig(agent_steps=budget).extent(agents) == (networks, slots)
    assert networks * slots * agents <= max(budget, agents)


def test_a_short_budget_sees_more_than_the_beginnings():
    """Seed 001's setting, 48 jobs: 40,000 agent-steps are 26 rounds of 32 clusters, or an episode of 120 of 6."""
    assert TrainConfig(agent_steps=40_000).extent(48) == (32, 26)
    assert TrainConfig(agent_steps=40_000).extent(48, 120) == (6, 138)
    assert TrainConfig(agent_steps=40).extent(48, 120) == (1, 1)
    assert TrainConfig(agent_steps=400_000).extent(48, 120) == (32, 260)


@pytest.mark.parametrize("learner", ["imappo", "dqn", "a3c", "coma"])
def test_training_does_no_more_than_its_budget_and_learns_from_its_last_rollout(learner):
    problem = make_problem("mec", agents=5, servers=2)
    budget = 5 * 8 * 45 + 7  # a rollout of 32 or 16 slots, a part of one, and less than a slot
    config = TrainConfig(learner, agent_steps=budget, networks=8, checks=1, check_seeds=2, check_slots=2)
    trained = train(problem, problem.card.prices(), config)
    assert trained.agent_steps == 5 * 8 * 45 == trained.allocations * 5
    assert trained.updates[-1]["agent_steps"] == trained.curve[-1]["agent_steps"] == trained.agent_steps


def test_a_learner_that_does_not_exist_is_refused_before_anything_runs(problem, monkeypatch):
    monkeypatch.setattr("hybridalloc.training.trainer.learn_belief", lambda *_: 1 / 0)
    with pytest.raises(ValueError, match="unknown learner 'imapo'; did you mean 'imappo'"):
        train(problem, problem.prices_type(), TrainConfig("imapo"))


def test_every_method_meets_the_same_world(problem):
    """The tasks of a seed do not depend on what was executed, so differences are paired."""
    prices = problem.card.prices()
    runs = [evaluate(problem, prices, None, None, [7, 8], b, slots=20) for b in ("local", "random")]
    counts = []
    for name in ("local", "random"):
        batch = problem.worlds([7, 8])
        rng, made = np.random.default_rng(0), np.zeros(batch.active.shape)
        for _ in range(20):
            made += batch.execute(batch.settle(batch.baseline(name, rng), prices)).counts["generated_by"]
            batch.drift()
        counts.append(made)
    np.testing.assert_array_equal(*counts)
    assert runs[0].allocations == runs[1].allocations == 2 * 35


def test_tuning_never_ends_below_the_default_and_uses_its_own_seeds(problem):
    tuned = tune_prices(problem, Coordinator("game"), 6, seeds=8, slots=20)
    assert len(tuned.trials) == 7
    assert tuned.welfare == max(w for _, w in tuned.trials) >= tuned.trials[0][1]
    again = tune_prices(problem, Coordinator("game"), 6, seeds=8, slots=20)
    assert again.prices == tuned.prices
    for name, (low, high, _) in problem.card.price_space.items():
        for prices, _welfare in tuned.trials[1:]:
            assert low - 1e-12 <= getattr(prices, name) <= high + 1e-12


# --- continuous heads, and a memory


def test_continuous_heads_are_trained_on_what_is_executed_and_served(problem, tmp_path):
    """Untrained nearly the game; the responses recorded are those it was pulled towards; saved, loaded, feasible."""
    prices = problem.card.prices()
    assert problem.card.levels == {"power": (0.001, 1.0), "fraction": (0.0, 1.0)}
    settings = (("continuous", ("power", "fraction")), ("horizon", 8))
    trained = train(problem, prices, TrainConfig("imappo", "hybrid", 16 * 32 * 24, checks=1, settings=settings))
    flat = evaluate(problem, prices, Coordinator("hybrid", 5.0), None, TUNE_SEEDS[:16], slots=60)
    assert trained.violations == 0
    assert trained.curve[0]["check_welfare"] == pytest.approx(flat.metrics["welfare"].mean(), abs=3e-3)
    figures = trained.updates[-1]
    assert {"entropy_mode", "entropy_server", "entropy_power", "entropy_fraction", "critic_norm"} <= figures.keys()
    saved = Allocator(problem, "hybrid", trained.learner.policy).save(tmp_path / "a.npz")
    state = problem.reset(3)
    first, second = (
        a.step(state) for a in (Allocator(problem, "hybrid", trained.learner.policy), Allocator.load(saved))
    )
    np.testing.assert_array_equal(first.power, second.power)
    assert first.certificate.feasible and first.certificate.source == "hybrid"
    batch, rng = problem.worlds([1, 2]), np.random.default_rng(0)
    seen = batch.observe()
    option = np.where(seen.live, 1, 0)
    wish = trained.learner.sample_continuous(seen, option, rng)
    plan = batch.settle(option, prices, wish, 5.0)
    r, x, s = batch.responses["power"], wish.mean[..., 0], wish.spread[..., 0] / 0.999
    blended = np.clip((5 * s * s * r + x) / (5 * s * s + 1), 0.001, 1.0)
    pulled = np.isfinite(r)
    assert pulled.any() and not pulled[~seen.live].any()
    paid = pulled & (plan.fraction > 0) & (plan.power_w >= blended - 1e-9)  # a battery may afford less
    assert paid.sum() > 0.5 * pulled.sum()
    np.testing.assert_allclose(plan.power_w[paid], blended[paid], rtol=1e-9)
    assert not np.isfinite(batch.settle(option, prices) and batch.responses["power"]).any()


def test_who_has_no_continuous_heads_and_which_quantities_there_are_is_said(problem):
    prices = problem.card.prices()
    with pytest.raises(ValueError, match=r"dqn proposes options alone; imappo has continuous heads"):
        train(problem, prices, TrainConfig("dqn", settings=(("continuous", ("power",)),)))
    with pytest.raises(ValueError, match=r"no continuous quantity 'colour' as it is set; it has: power, fraction"):
        train(problem, prices, TrainConfig("imappo", settings=(("continuous", ("colour",)),)))
    binary = make_problem("mec", agents=4, servers=2, partial=False)
    with pytest.raises(ValueError, match=r"no continuous quantity 'fraction' as it is set; it has: power"):
        train(binary, prices, TrainConfig("imappo", settings=(("continuous", ("fraction",)),)))


def test_a_memory_is_carried_through_an_evaluation_and_from_none_to_the_next(problem):
    prices = problem.card.prices()
    config = TrainConfig("imappo", "rl", 16 * 32 * 16, checks=0, settings=(("memory", 4), ("horizon", 8)))
    policy = train(problem, prices, config).learner.policy
    policy.weights["out.weight"] += 0.3
    run = lambda p, seeds: evaluate(problem, prices, Coordinator("rl"), p, seeds, slots=20, chunk=1).metrics["welfare"]
    both, alone = run(policy, [5, 6]), run(policy, [6])
    assert both[1] == alone[0]
    forgetful = type("Forgetful", (), {"name": "x", "propose": lambda self, o: policy.propose(o)})()
    assert run(forgetful, [6])[0] != alone[0]


def test_trust_is_learned_beside_the_policy_and_ranges_are_noted(tmp_path):
    """What training leaves is what ``trust="learned"`` and the drift watch start from; trust moved, nothing broke."""
    problem = make_problem("mec", agents=6, servers=2)
    config = TrainConfig(agent_steps=6 * 4 * 64, networks=4, trust=3.0, learn_trust=True, checks=0)
    trained = train(problem, problem.card.prices(), config)
    assert trained.violations == 0
    trusts = [row["trust"] for row in trained.updates]
    assert trusts[0] == 3.0 and len(set(trusts)) == len(trusts) == 2
    notes = trained.learner.policy.notes
    assert notes.learned_trust != 3.0 and notes.ranges["agent"].shape[0] == 2
    path = Allocator(problem, "hybrid", trained.learner.policy, trust="learned").save(tmp_path / "a")
    again = Allocator.load(path)
    assert again.trust == "learned" and again.trust_rule.now == notes.learned_trust and again.drift.active
    assert again.step(problem.reset(0)).certificate.feasible


class Nearby:
    """Proposes the offloading that is best by its first feature, and never the device itself."""

    def propose(self, observation):
        score = np.where(observation.allowed, observation.pair[..., 0], -50.0).astype(float)
        score[..., 0] = -50.0
        return score - score.max(axis=-1, keepdims=True)


def test_prices_are_sought_for_what_a_recommender_alone_chooses(problem):
    tuned = tune_prices(problem, Coordinator("rl"), 3, seeds=4, slots=10, recommender=Nearby())
    for prices, earned in tuned.trials:
        seen = evaluate(problem, prices, Coordinator("rl"), Nearby(), TUNE_SEEDS[:4], slots=10)
        assert earned == seen.means()["welfare"]
    assert len({earned for _, earned in tuned.trials}) >= 3  # they decide what its choices settle to


def test_a_learner_alone_has_prices_of_its_own_by_as_many_trials(problem, monkeypatch):
    """Half of them with one policy, half with another that was trained under the best so far."""
    from hybridalloc.training import tuning

    asked = []

    def watched(problem, prices, config):
        asked.append((prices, config.learner, config.kind, config.agent_steps))
        return train(problem, prices, config)

    monkeypatch.setattr(tuning, "train", watched)
    tuned = tuning.tune_alone(problem, "imappo", "", 5, agent_steps=16 * 32 * 4)
    assert len(tuned.trials) == 5 + 2 and np.isfinite([w for _, w in tuned.trials]).all()
    first, second = tuned.trials[:4], tuned.trials[4:]
    best = max(first, key=lambda tried: tried[1])[0]
    assert asked == [(prices, "imappo", "rl", 16 * 32 * 4) for prices in (problem.card.prices(), best)]
    assert second[0][0] == best and (tuned.prices, tuned.welfare) == max(second, key=lambda tried: tried[1])
    asked.clear()
    assert tuning.tune_alone(problem, "imappo", "", 0).prices == problem.card.prices() and not asked


def test_prices_that_are_held_are_not_searched(problem):
    tuned = tune_prices(problem, Coordinator("game"), 4, seeds=2, slots=5, held={"leakage": 0.0, "toll": 0.7})
    assert all(prices.leakage == 0.0 and prices.toll == 0.7 for prices, _ in tuned.trials)
    assert len({prices.delay for prices, _ in tuned.trials}) > 1


def test_a_clipped_learner_alone_learns_where_decisions_are_many_and_jobs_come_and_go():
    """:class:`toys.Places`, whose best choice is known: to run for sure (1). A critic that begins with values of its
    own turns this seed to waiting, and rollouts of 32 decisions leave two updates of a fifth."""
    problem = make_problem("cluster", scenario="seed001", hours=2.0)
    toy = Places(8, 0)
    learner = make_learner("ippo", Sizes.of(toy.observe()), 0, learner_settings(problem, TrainConfig("ippo", "rl")))
    drive(learner, toy, 64)
    every = toy.view(np.arange(1, toy.longest + 1)[:, None])
    said = np.exp(learner.propose(every).log_prior)[:, 0]
    assert toy.table(executes(learner)).count(1) >= toy.longest - 1
    assert (said[:, 1] / said.sum(-1)).mean() > 0.9


@pytest.mark.parametrize("name", ["imappo", "mappo", "ippo"])
def test_its_settings_hold_there_alone(name):
    config = lambda kind: TrainConfig(name, kind)
    late = learner_settings(make_problem("cluster", scenario="seed001", hours=2.0), config("rl"))
    for kind in ("rl", "hybrid"):
        usual = resolved(name, settings_for(name, kind))
        assert usual["replay"] == 0 and usual["critic_gain"] == 1.0 and late != usual
        for other in ("mec", "balancer", "cluster"):
            assert learner_settings(make_problem(other), config(kind)) == usual
    queue = make_problem("cluster", scenario="seed001", hours=2.0)
    assert learner_settings(queue, config("hybrid")) == resolved(name, settings_for(name, "hybrid"))
