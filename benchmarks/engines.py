"""What compiled passes bring in training: agent-steps per process-second, and where they go.

    python benchmarks/engines.py [dqn iql vdn qmix imappo]

mec, set H, 50 devices x 9 servers, 32 networks, inside the hybrid, each learner's own settings, one thread; IMAPPO also
beside a belief that is learned. Seconds are the process's CPU time, so that a busy machine counts less.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # benchmarks/games.py would hide the package games

import torch  # noqa: E402

from hybridalloc import make_problem  # noqa: E402
from hybridalloc.training import trainer  # noqa: E402
from hybridalloc.training.config import TrainConfig  # noqa: E402


def measured(learner: str, engine: str, belief: str, slots: int) -> tuple[float, dict[str, float]]:
    """Agent-steps a process-second, and process-seconds of the learner's updates, of the belief and of the rest."""
    problem = make_problem("mec", agents=50, servers=9)
    spent = {"update": 0.0, "belief": 0.0}

    def timed(key: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent[key] += time.process_time() - began

        return run

    def make(*args: Any) -> Any:
        made = real(*args)
        made.update = timed("update", made.update)
        return made

    known = problem.card.beliefs[belief](seed=0) if belief else None
    if known is not None:
        made = known.copy

        def copy(*args: Any, **kwargs: Any) -> Any:
            one = made(*args, **kwargs)
            one.look, one.reveal = timed("belief", one.look), timed("belief", one.reveal)
            return one

        known.copy = copy
    real, trainer.make_learner = trainer.make_learner, make
    try:
        steps = slots * 32 * 50
        config = TrainConfig(
            learner, "hybrid", steps, networks=32, checks=0, belief=belief, belief_steps=0,
            settings=(("engine", engine),),
        )  # fmt: skip
        began = time.process_time()
        trainer.train(problem, problem.card.prices(), config, belief=known)
        total = time.process_time() - began
    finally:
        trainer.make_learner = real
    return steps / total, spent | {"rest": total - sum(spent.values())}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("learners", nargs="*", default=["dqn", "iql", "vdn", "qmix", "imappo"])
    parser.add_argument("--slots", type=int, default=128)
    a = parser.parse_args()
    torch.set_num_threads(1)
    print("| learner | belief | engine | agent-steps per process-second | update, s | belief, s | rest, s |")
    print("|---|---|---|---:|---:|---:|---:|")
    for learner in a.learners:
        for belief in ("", "learned") if learner == "imappo" else ("",):
            for engine in ("torch", "auto"):
                measured(learner, engine, belief, 34)  # compiles
                rate, spent = measured(learner, engine, belief, a.slots)
                parts = " | ".join(f"{spent[k]:.2f}" for k in ("update", "belief", "rest"))
                print(f"| {learner} | {belief or 'none'} | {engine} | {rate:,.0f} | {parts} |", flush=True)


if __name__ == "__main__":
    main()
