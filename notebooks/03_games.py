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
# # 3. The games: a potential, an equilibrium, and nashpy's view of two devices
#
# `games/` stands on its own. Agents choose options; an option loads resources; a loaded resource costs those on it.
# The game has an exact potential: whoever moves changes it by just what the move saves. So selfish moves end.

# %%
import numpy as np
from matplotlib import pyplot as plt

from games import CongestionGame, best_response_dynamics, gibbs_equilibrium

rng = np.random.default_rng(4)
agents, servers = 12, 4
game = CongestionGame(
    options=[[k] for k in range(servers)], weight=rng.uniform(0.5, 1.5, (agents, servers)),
    capacity=rng.uniform(1, 3, servers), private_cost=rng.uniform(0, 1, (agents, servers)), toll=0.0,
)  # fmt: skip
choice = np.zeros(agents, dtype=int)  # everyone on the first server
potential, social = [game.potential(choice)], [game.social_cost(choice)]
moved = True
while moved:
    moved = False
    for i in range(agents):
        costs = game.costs(choice)[i]
        best = int(costs.argmin())
        if costs[best] < costs[choice[i]] - 1e-12:
            gain, before = costs[choice[i]] - costs[best], game.potential(choice)
            choice[i] = best
            assert abs((before - game.potential(choice)) - gain) < 1e-9  # exact
            potential.append(game.potential(choice))
            social.append(game.social_cost(choice))
            moved = True
print(f"{len(potential) - 1} moves; regret at the end {game.regret(choice):.1e}")

# %%
figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
axes.step(range(len(potential)), potential, where="post", color="#1d4ed8", label="potential: falls with every move")
axes.step(range(len(social)), social, where="post", color="#ea580c", label="social cost: need not")
axes.set(xlabel="moves", ylabel="cost", title="Best responses from everyone on one server", xticks=range(0, 18, 3))
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# **An equilibrium explored.** What each agent would pay for each option, given the others; the dot is what it chose.
# No row has a lighter cell than its dot's: nobody gains by moving alone.

# %%
settled = best_response_dynamics(game)
costs = game.costs(settled.choice)
figure, axes = plt.subplots(figsize=(5.2, 4.6), layout="constrained")
image = axes.imshow(costs, cmap="Blues", aspect="auto")
axes.scatter(settled.choice, range(agents), color="#ea580c", s=40, label="chosen")
axes.set(xlabel="server", ylabel="agent", xticks=range(servers), yticks=range(agents), title="Cost of each option")
figure.colorbar(image, label="cost")
axes.legend(loc="upper left", bbox_to_anchor=(0, -0.12), frameon=False)
plt.show()
print("largest gain of a deviation:", f"{settled.regret:.1e}", "| loads:", game.loads(settled.choice).round(2))

# %% [markdown]
# **A toll changes where it ends**, and a **prior** leans it: with `trust` the game's weight, agent i plays
# $\sigma_i(o) \propto \pi_i(o) \exp(-\mathrm{trust} \cdot cost_i(o; \sigma_{-i}))$.

# %%
for toll in (0.0, 0.5, 1.0):
    tolled = CongestionGame(game.options, game.weight, game.capacity, game.private_cost, toll=toll)
    print(f"toll {toll}: social cost {game.social_cost(best_response_dynamics(tolled).choice):.3f}")
prior = np.zeros((agents, servers))
prior[:, 0] = -3.0  # a recommender that has learned to keep off server 0
shares = []
trusts = np.geomspace(0.1, 100, 25)
for trust in trusts:
    mixed = gibbs_equilibrium(game, prior, trust).mixed
    shares.append(mixed.mean(axis=0))
figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
for k in range(servers):
    axes.semilogx(trusts, np.array(shares)[:, k], label=f"server {k}" + (" (advised against)" if k == 0 else ""))
axes.set(xlabel="trust in the game", ylabel="mean probability", title="From the recommender's view to the game's")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# **nashpy's view of two devices.** Hold all but two agents; what remains is a two-player game that
# `games.normal_form` hands to nashpy, checking each answer by its regret.

# %%
from games.normal_form import equilibria
from games.slices import bimatrix_slice

two = bimatrix_slice(game, settled.choice, 0, 1)
for row, column, regret in equilibria(two.A, two.B):
    print("agent 0 plays", np.round(row, 2), "| agent 1 plays", np.round(column, 2), f"| regret {regret:.1e}")
print("chosen in the whole game:", settled.choice[:2], "- itself an equilibrium of the slice")
