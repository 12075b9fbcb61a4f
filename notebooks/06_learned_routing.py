# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6. What learned routers do
#
# Two routers in front of four replicas of unequal speed learn where to send requests, each from its own decisions: by
# policy gradient (`imappo`) and by Q-learning (`dqn`). What have they found out, and do the two do different things?

# %%
import warnings

import numpy as np
from matplotlib import pyplot as plt

warnings.filterwarnings("ignore", message="IProgress")  # a widget that is not needed
from coordinator import Coordinator
from hybridalloc import make_problem
from hybridalloc.training.config import TrainConfig
from hybridalloc.training.evaluation import evaluate
from hybridalloc.training.trainer import train

problem = make_problem("balancer", replicas=4, dispatchers=2, requests=100, report_s=1.0)
prices = problem.card.prices()
agent_steps = 6_000
policies = {
    name: train(problem, prices, TrainConfig(name, "rl", agent_steps, networks=16, checks=0)).learner.policy
    for name in ("imappo", "dqn")
}

# %% [markdown]
# **How good are they?** On requests from a part of the trace that none has seen; the clairvoyant knows what truly is.

# %%
seeds = range(10_000, 10_006)
rows = {"random by capacity": (None, None, "weighted_random"), "own over capacity": (None, None, "own_over_capacity")}
rows |= {name: (Coordinator("rl"), policy, "") for name, policy in policies.items()}
rows |= {"game": (Coordinator("game"), None, ""), "clairvoyant": (None, None, "clairvoyant")}
for name, (coordinator, policy, rule) in rows.items():
    found = evaluate(problem, prices, coordinator, policy, seeds, *([rule] if rule else [])).means()
    first, late = (found.get(key, np.nan) for key in ("ttft_mean", "ttft_p99"))
    print(f"{name:20s} first token {first:.2f} s, p99 {late:.2f} s")

# %% [markdown]
# Every decision of each, with what its router saw: whose request it was, the reports' ages, and the requests that each
# replica reported, by its capacity.


# %%
def watched(coordinator, policy, steps=150):
    """Of each request that was sent: its replica, router, prompt, the reports' ages and loads (.., R)."""
    world, seen = problem.worlds(range(20_000, 20_008)), []
    for _ in range(steps):
        seen_now = world.seen
        load = seen_now.told[..., :2].sum(2) / seen_now.share
        age, prompt = seen_now.age_s.copy(), seen_now.prompt[:, 0].copy()
        option = coordinator.decide(world, policy, prices).choice.option[:, 0]
        for e in np.flatnonzero((prompt > 0) & (option > 0)):
            router = world.sim(int(e)).trace.dispatcher[world.who[e, 0]]
            seen.append((option[e] - 1, router, prompt[e], age[e], load[e]))
        world.execute(world.settle(option[:, None], prices))
        over = world.drift()
        if over.any():
            world.restart(over)
    return tuple(np.array(column) for column in zip(*seen, strict=True))


decisions = {name: watched(*rows[name][:2]) for name in ("imappo", "dqn", "game")}

# %% [markdown]
# **Routing shares.** The part of the requests that each replica gets, beside its part of the fleet's capacity.

# %%
r = np.arange(4)
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
axes.bar(r - 0.3, problem.fleet.share, 0.2, label="capacity", color="#94a3b8")
for k, (name, (where, *_)) in enumerate(decisions.items()):
    axes.bar(r - 0.1 + 0.2 * k, np.bincount(where, minlength=4) / len(where), 0.2, label=name)
axes.set_xticks(r, ["fast", "mid", "mid", "slow"])
axes.set(xlabel="replica", ylabel="part of the requests", title="Who gets the requests")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# **Load and age.** How often a request goes to the replica that reported the least load, by how old that report is. Who
# trusts old reports too far keeps on sending to where it looked empty.

# %%
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
edges = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
for name, (where, _, _, age, load) in decisions.items():
    least = load.argmin(1)
    old = np.digitize(np.take_along_axis(age, least[:, None], 1)[:, 0], edges[1:-1])
    share = [np.mean(where[old == k] == least[old == k]) if (old == k).any() else np.nan for k in range(4)]
    axes.plot((edges[1:] + edges[:-1]) / 2, share, "o-", label=name)
    print(f"{name:8s} by age, youngest first: " + ", ".join(f"{part:.2f}" for part in share))
axes.axhline(0.25, color="#94a3b8", linewidth=1)
axes.set(
    xlabel="age of its report, s", ylabel="sent to the least reported", ylim=(0, 1), title="Trust in what was told"
)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# **Specialisation.** How much the router says about the replica, and how much the length of the prompt does, as
# normalised mutual information; beside it what as many decisions give by chance, when who decided is shuffled.


# %%
def information(x, y):
    """Mutual information of two labels over the entropy of the second."""
    table = np.histogram2d(x, y, (np.arange(x.max() + 2), np.arange(y.max() + 2)))[0] / len(x)
    apart = table.sum(1, keepdims=True) * table.sum(0)
    both = table > 0
    rows_ = table.sum(0)[table.sum(0) > 0]
    return (table[both] * np.log(table[both] / apart[both])).sum() / max(-(rows_ * np.log(rows_)).sum(), 1e-12)


rng = np.random.default_rng(0)
for name, (where, router, prompt, *_) in decisions.items():
    size = np.digitize(prompt, np.quantile(prompt, [1 / 3, 2 / 3]))
    chance = lambda label, where=where: np.mean([information(rng.permutation(label), where) for _ in range(50)])
    print(
        f"{name:8s} router {information(router, where):.4f} (by chance {chance(router):.4f}), "
        f"prompt {information(size, where):.4f} (by chance {chance(size):.4f})"
    )
