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
# # 4. Why: prices, `why(agent)`, what-if
#
# An operator must be able to ask why. An allocation answers with a price for each resource, and with what every option
# would have cost every agent.

# %%
import numpy as np
from matplotlib import pyplot as plt

from hybridalloc import Allocator, make_problem

problem = make_problem("mec", agents=40, servers=6)
allocator = Allocator(problem, method="hybrid")
state = problem.reset(seed=1)
for slot in range(5):
    state, _ = problem.advance(state, allocator.step(state), seed=slot)
allocation = allocator.step(state)

# %% [markdown]
# **Prices.** What one more server like it would save its devices, in cost, at the margin; 0 where nobody is.

# %%
k = np.arange(6)
users = np.bincount(allocation.option[allocation.option > 0] - 1, minlength=6)
figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
axes.bar(k - 0.2, allocation.prices["air"], 0.4, label="air", color="#1d4ed8")
axes.bar(k + 0.2, allocation.prices["cpu"], 0.4, label="cpu", color="#ea580c")
for j in k:
    axes.annotate(
        f"{users[j]} dev.",
        (j, max(allocation.prices[f][j] for f in ("air", "cpu"))),
        ha="center",
        va="bottom",
        fontsize=8,
    )
axes.margins(y=0.12)
axes.set(xlabel="server", ylabel="price", title="Where capacity is worth most in this slot")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# **Why this option?** The rows are one device's options, cheapest first: what is its own (`private`), what the others
# on that server make of it (`congestion`), what the recommender has learned to add (`learned`; none here), and
# `admits`: how much cheaper the option would have to be to be taken.

# %%
agent = int(np.flatnonzero(allocation.option)[0])
print(f"{'option':>6} {'private':>8} {'congestion':>10} {'learned':>8} {'total':>7} {'admits':>7}")
rows = list(allocation.why(agent))
for row in rows:
    mark = " <- chosen" if row["chosen"] else ""
    print(f"{row['option']:6d} {row['private']:8.3f} {row['congestion']:10.3f} {row['learned']:8.3f} "
          f"{row['total']:7.3f} {row['admits']:7.3f}{mark}")  # fmt: skip

# %% [markdown]
# **What if?** Change the state and ask again. Here the server that this device uses becomes slower and slower, until
# the device goes elsewhere.

# %%
from dataclasses import replace

server = allocation.option[agent] - 1
factors = np.linspace(1.0, 0.1, 19)
taken = []
for factor in factors:
    speed = state.server_hz.copy()
    speed[server] *= factor
    taken.append(int(allocator.step(replace(state, server_hz=speed)).option[agent]))
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
axes.step(100 * factors, taken, where="mid", color="#1d4ed8")
axes.invert_xaxis()
axes.set(xlabel=f"speed of server {server}, % of what it is", ylabel=f"option of device {agent}",
         title="When would the answer change?", yticks=sorted(set(taken)))  # fmt: skip
plt.show()
first = next((f for f, o in zip(factors, taken, strict=True) if o != taken[0]), None)
print("never, down to a tenth" if first is None else f"first at {first:.0%} of its speed: option {taken[0]} no longer")
