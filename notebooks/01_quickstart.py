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
# # 1. Quickstart: one step and its certificate
#
# An `Allocator` answers a state with an allocation that can be executed as it is. It also says how it knows: a
# certificate, computed by code that shares nothing with the solvers.

# %%
import numpy as np
from matplotlib import pyplot as plt

from hybridalloc import Allocator, make_problem

problem = make_problem("mec", agents=30, servers=5)  # devices that offload tasks to edge servers
state = problem.reset(seed=0)
allocator = Allocator(problem, method="hybrid")  # no recommender yet: the flat prior, so this is the game
allocation = allocator.step(state)
allocation.option  # 0 = compute on the device, k = offload to server k - 1

# %% [markdown]
# What each offloading device gets: fractions of its server's air time and CPU, and its transmit power.

# %%
for i in np.flatnonzero(allocation.option)[:5]:
    air, cpu = allocation.shares["air"][i], allocation.shares["cpu"][i]
    where = allocation.option[i] - 1
    print(
        f"device {i:2d} -> server {where}: {air:.0%} of its air time, {cpu:.0%} of its CPU, {allocation.power[i]:.2f} W"
    )

# %% [markdown]
# The certificate. `regret` is the most that one device could gain by deviating alone, measured; `epsilon_bound` is
# what it cannot exceed.

# %%
c = allocation.certificate
print(f"feasible {c.feasible}, worst excess {c.max_violation:.1e}, regret {c.regret:.1e} (bound {c.epsilon_bound:g})")
print(f"by {c.source}, {c.status}; deadlines not expected to hold: {list(c.unserved)}")

# %%
site, place = state.truth.site, state.truth.position
figure, axes = plt.subplots(figsize=(6, 5.4), layout="constrained")
for i in np.flatnonzero(state.active & (allocation.option > 0)):
    k = allocation.option[i] - 1
    axes.plot(*np.stack([place[i], site[k]]).T, color=f"C{k}", lw=1, alpha=0.6)
served = state.active & (allocation.option > 0)
axes.scatter(*place[~state.active].T, s=10, color="#c4c8ce", label="no task in this slot")
axes.scatter(*place[state.active & ~served].T, s=28, facecolors="none", edgecolors="#374151", label="computes itself")
axes.scatter(*place[served].T, s=20, color="#1d4ed8", label="offloads")
axes.scatter(*site.T, marker="s", s=110, c=[f"C{k}" for k in range(len(site))], edgecolors="black", zorder=3)
axes.set(aspect="equal", xlabel="east, m", ylabel="north, m", title="Who is served where, one slot")
axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# Moving on: execute it, see what happened, and step again.

# %%
welfare = []
for slot in range(40):
    state, outcome = problem.advance(state, allocator.step(state), seed=slot)
    welfare.append(outcome["welfare"])
print(f"welfare, a device and slot, over 40 slots: {np.mean(welfare):.3f}; last slot: ", end="")
print({k: round(v, 2) for k, v in outcome.items() if k in ("completion", "latency", "aoi")})

# %% [markdown]
# A state that is wrong is refused with the field, the index, the value and what is permitted.

# %%
from hybridalloc import InvalidStateError

broken = state.to_dict() | {"deadline_s": [-1.0] * 30}
try:
    allocator.step(broken)
except InvalidStateError as error:
    print(error)
