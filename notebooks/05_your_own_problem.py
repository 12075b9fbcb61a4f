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
# # 5. Your own problem
#
# Tables in, a certified allocation out; no simulator needed. Jobs have work (in units), servers a speed (units a
# second). Deadlines, priorities, private costs and power limits are optional.

# %%
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from hybridalloc import Allocator, make_problem
from hybridalloc.reports.step import as_text

jobs = pd.DataFrame({
    "name": ["render", "encode", "index", "transcode", "report"], "work": [40, 25, 10, 60, 15],
    "deadline_s": [9, 4, np.nan, 6, 5], "priority": [2, 1, 0, 1, 3],
})  # fmt: skip
servers = pd.DataFrame({"name": ["old", "new"], "capacity": [4, 12], "wait_s": [0.5, 0]})
problem = make_problem("custom", jobs=jobs, servers=servers)
state = problem.reset()
allocation = Allocator(problem).step(state)
print(as_text(problem, state, allocation))

# %% [markdown]
# **What if the new server were faster?** The same step for a range of speeds: who is served, and what one more such
# server would be worth.

# %%
speeds = np.linspace(6, 40, 18)
served, price = [], []
for speed in speeds:
    faster = make_problem("custom", jobs=jobs, servers=servers.assign(capacity=[4, speed]))
    answer = Allocator(faster).step(faster.reset())
    served.append(answer.served.sum())
    price.append(answer.prices["share"][1])
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.step(speeds, served, where="mid", color="#1d4ed8")
left.set(xlabel="units/s of the new server", ylabel="jobs served in time", ylim=(0, 5.3))
right.plot(speeds, price, color="#ea580c")
right.set(xlabel="units/s of the new server", ylabel="its price")
plt.show()

# %% [markdown]
# **A world of your own.** With three methods, `reset`, `advance` and `reward`, the same learners train on it. This one
# is `hybridalloc.problems.farm.Farm`: a node that is not done when the step ends makes the next step's jobs wait.

# %%
import inspect

from hybridalloc.problems.farm import Farm

print(inspect.getsource(Farm.advance))
print(inspect.getsource(Farm.reward))

# %%
from coordinator import Coordinator
from hybridalloc.training import TrainConfig, evaluate, train

farm = make_problem("custom", transition=Farm(tenants=6, nodes=2, load=0.7))
prices = farm.card.prices()
seeds = range(10000, 10008)
scores = {}
for baseline in ("random", "fastest", "balanced"):
    scores[baseline] = evaluate(farm, prices, None, None, seeds, baseline, slots=40).metrics["welfare"].mean()
scores["game"] = evaluate(farm, prices, Coordinator("game"), None, seeds, slots=40).metrics["welfare"].mean()
config = TrainConfig("imappo", "hybrid", agent_steps=20_000, networks=16, checks=0)
trained = train(farm, prices, config)
hybrid = evaluate(farm, prices, Coordinator("hybrid"), trained.learner.policy, seeds, slots=40)
scores["hybrid, IMAPPO"] = hybrid.metrics["welfare"].mean()
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
axes.barh(list(scores), list(scores.values()), color=["#9ca3af"] * 3 + ["#15803d", "#1d4ed8"])
axes.invert_yaxis()
axes.margins(x=0.12)  # room for the numbers
axes.set(xlabel="welfare, an agent and step (8 held-out seeds; one short training run: a sketch)")
for k, value in enumerate(scores.values()):
    axes.annotate(f"{value:.3f}", (value, k), va="center", xytext=(4, 0), textcoords="offset points")
plt.show()
print("violations in training:", trained.violations, "of", trained.allocations)
