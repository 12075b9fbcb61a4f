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
# # 6. Voltage: inverters on a feeder
#
# Solar inverters feed in reactive power so that a feeder's voltages stay in their band at the least loss. Nobody opts
# for anything: it is a game of levels. One sunny step first.

# %%
import warnings

import numpy as np
from matplotlib import pyplot as plt

warnings.filterwarnings("ignore", message="IProgress")  # a widget that is not needed

from hybridalloc import Allocator, make_problem
from hybridalloc.problems.voltage.payoffs import closeness, payoffs, two_inverters
from rl.expressible import additive, monotone

problem = make_problem("voltage", information="now")
world = problem.worlds([0])
world.stand(np.array([150 * 96 + 50]))  # half past twelve at the end of May
state = world.state(0)
fig, ax = plt.subplots(figsize=(7, 3))
for method in ("none", "droop", "game"):
    allocation = Allocator(problem, method).step(state)
    found = world._react(world.plan_of(allocation), world.truth)
    ax.plot(found.voltage[0], label=f"{method}: {1e3 * found.loss[0]:.0f} kW")
ax.axhline(problem.high, color="k", lw=0.8, ls="--")
ax.set(xlabel="bus, in the feeder's order", ylabel="voltage, p.u.")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Where value decomposition breaks
#
# VDN's team value is a sum of the agents' own, QMIX's grows in each of them. Two inverters, five levels each: all 25
# joint choices are paid exactly, so what either *can* say of that table is no matter of training (`rl/expressible.py`).
# Both inverters near each other can mend the same bus; each alone should draw, both together draw too much. What one
# does then decides what the other should do, and no sum says that.
#
# Swept: how close they are (the share of reactance that their paths have in common) and how wide the band is. Regret is
# what the best fit's greedy choice misses, as a share of (best - median) of the table; reward: loss and 50 kW a mpu.

# %%
PAIRS = [(16, 17), (30, 32), (14, 17), (28, 32), (12, 17), (8, 17), (12, 32), (17, 32), (24, 32), (21, 32)]
BANDS = [0.01, 0.02, 0.03, 0.05]
STATES = 30


def regret(fit, table):
    span = (table.max((1, 2)) - np.median(table, axis=(1, 2))).mean()
    return fit(table).regret.mean() / span


near = np.array([closeness(two_inverters(a, b, 0.05)) for a, b in PAIRS])
missed = {"VDN": np.zeros((len(PAIRS), len(BANDS))), "QMIX": np.zeros((len(PAIRS), len(BANDS)))}
for i, (a, b) in enumerate(PAIRS):
    for j, band in enumerate(BANDS):
        table = payoffs(two_inverters(a, b, band, levels=5), "loss", STATES)
        missed["VDN"][i, j], missed["QMIX"][i, j] = regret(additive, table), regret(monotone, table)

# %%
fig, axes = plt.subplots(1, 3, figsize=(12, 4), width_ratios=(1, 1, 1.1))
for ax, (name, share) in zip(axes, missed.items(), strict=False):
    ax.imshow(100 * share, vmin=0, vmax=150, cmap="magma_r", aspect="auto")
    for i, j in np.ndindex(share.shape):
        ax.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", color="w" if share[i, j] > 0.7 else "k")
    ax.set_xticks(range(len(BANDS)), [f"± {band:g}" for band in BANDS])
    ax.set_yticks(range(len(PAIRS)), [f"{a}, {b}: {c:.2f}" for (a, b), c in zip(PAIRS, near, strict=True)])
    ax.set(title=f"{name}: regret, %", xlabel="band, p.u.")
axes[0].set_ylabel("buses: closeness")
for name, share in missed.items():
    axes[2].plot(near, 100 * share.mean(1), "o", label=name)
axes[2].set(xlabel="electrical closeness", ylabel="regret, %, mean over bands")
axes[2].legend(frameon=False)
fig.tight_layout()
plt.show()

# %% [markdown]
# It is closeness that breaks them, and with this reward hardly the width of the band. Under MAPDN's rewards nothing
# breaks: they are near sums of what each inverter does.

# %%
for reward in ("l1", "bowl"):
    table = payoffs(two_inverters(16, 17, 0.05, levels=5), reward, STATES)
    print(f"{reward}: VDN {100 * regret(additive, table):.1f} %, QMIX {100 * regret(monotone, table):.1f} %")
