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
# # 2. Hybrid against pure RL, read back from MLflow
#
# One comparison: prices are tuned, the same learner is trained alone and inside the hybrid on what is executed, and
# everything is evaluated on common held-out seeds. MLflow gets one parent run, and one child a method and seed. The
# setting here is small so that this notebook runs in a minute: expect wide intervals. `hybridalloc compare --full`
# makes the table of the README.

# %%
import tempfile
import warnings
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

warnings.filterwarnings("ignore", message="IProgress")  # a widget that is not needed
import mlflow

from hybridalloc.experiments.compare import Settings, compare

place = Path(tempfile.mkdtemp())
uri = f"sqlite:///{place}/mlflow.db"
methods = ("hybrid-imappo", "rl-imappo", "game-tuned")
comparison = compare(Settings(
    agents=12, servers=3, sites="synthetic", methods=methods, agent_steps=16_000, train_seeds=2, report_seeds=8,
    tuning=4, runs=str(place / "runs"), report=str(place / "report.html"), tracking_uri=uri, quiet=True,
))  # fmt: skip
print(comparison["mirror"].split("(")[0])

# %% [markdown]
# Read back with `search_runs`: parameters, tags and final metrics of every child.

# %%
mlflow.set_tracking_uri(uri)
runs = mlflow.search_runs(experiment_names=["hybridalloc"])
children = runs[runs["tags.mlflow.parentRunId"].notna()]
columns = {"tags.method": "method", "tags.seed": "seed", "metrics.final/welfare": "welfare",
           "metrics.final/completion": "completion %", "metrics.final/violations": "violations"}  # fmt: skip
children[list(columns)].rename(columns=columns).sort_values(["method", "seed"]).round(3).reset_index(drop=True)

# %% [markdown]
# Learning curves, from MLflow's metric histories. The hybrid starts at the game's level, pure RL from scratch; it stays
# there until its first update, after one batch of 12,288 agent-steps.

# %%
client = mlflow.MlflowClient(uri)
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for method, colour in (("hybrid-imappo", "#1d4ed8"), ("rl-imappo", "#ea580c")):
    curves = []
    for run_id in children[children["tags.method"] == method]["run_id"]:
        history = client.get_metric_history(run_id, "check_welfare")
        curves.append([(m.step, m.value) for m in history])
    steps = np.array(curves)[0, :, 0] / 1e3
    values = np.array(curves)[:, :, 1]
    axes.plot(steps, values.mean(0), color=colour, label=method)
    axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, lw=0)
level = next(row["value"] for row in comparison["levels"] if row["label"] == "game, tuned")
axes.axhline(level, color="#15803d", ls=":", label="game, tuned")
axes.set(xlabel="thousand agent-steps of training", ylabel="welfare (tuning seeds)", title="Mean and range of 2 seeds")
axes.legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# Paired differences on the held-out seeds, with two intervals: by resampling seeds, and the t-interval that also counts
# how few training seeds there are. With 2 seeds the latter is very wide, as it should be.

# %%
for d in comparison["differences"]:
    if d["metric"] == "welfare":
        low, high = d["conservative"] or (float("nan"), float("nan"))
        print(f"{d['label']:55s} {d['mean']:+.4f}  [{d['low']:+.4f}, {d['high']:+.4f}]  t [{low:+.3f}, {high:+.3f}]")
print(f"violations in {comparison['counts']['allocations']:,} executed allocations, training included: "
      f"{comparison['counts']['violations']}")  # fmt: skip
