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
axes.set_xticks(k, [f"{j}\n{users[j]} device{'s' if users[j] != 1 else ''}" for j in k])
axes.set(xlabel="server", ylabel="price", title="Where capacity is worth most in this slot")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# **Why this option?** The rows are one device's options, cheapest first, with the parts of what each costs: its own
# (`private`), what the others on that server make of it (`congestion`), the `toll`, and, with a trained recommender,
# what it has `learned` to add. `admits`: how much cheaper the option would have to be to be taken. The sentence names
# what decided and the smallest change that would change the answer; it was solved again to check.

# %%
agent = int(np.flatnonzero(allocation.option)[0])
allocation.why(agent)

# %% [markdown]
# **Who is left out, and what would admit them?** Where too many want too little, `certificate.unserved` names the
# devices whose deadline is not expected to hold, by priority, and `why` says what would admit each: every remedy was
# tried by solving again.

# %%
crowded = make_problem("mec", agents=80, servers=2)
crowd = crowded.reset(seed=3)
for slot in range(5):
    crowd, _ = crowded.advance(crowd, Allocator(crowded).step(crowd), seed=slot)
short = Allocator(crowded).step(crowd)
print(short.certificate, end="\n\n")
print(short.why(short.certificate.unserved[0]))

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
