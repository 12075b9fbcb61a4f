"""Seed 002: a survey. Its first three experiments and its next checks, on voltage control and on edge computing."""

from __future__ import annotations

from hybridalloc.experiments.seeds.figures import converged, wavering
from hybridalloc.experiments.seeds.table import Again, Cell, Claim, Column, Part, Table
from hybridalloc.experiments.suite import Row

COST = Column("cost", "loss and breaches, kW", "lower")
INSIDE = Column("cr", "steps with all buses inside %")
LOSS = Column("loss", "line loss, kW", "lower")
WELFARE = Column("welfare", "welfare", digits=4)
COMPLETION = Column("completion", "completion %")
STEP = Column("step_ms", "ms a decision, batched", "lower", 3)
CONVERGED = Column("converged", "thousand agent-steps to converge", "lower", 0, converged)
WAVERING = Column("wavering", "spread in training", "lower", 4, wavering)
INDEPENDENT = {"iql": "IQL (DTDE)", "ippo": "IPPO (DTDE)"}
CENTRAL = {"vdn": "VDN (CTDE)", "qmix": "QMIX (CTDE)", "maddpg": "MADDPG (CTDE)", "mappo": "MAPPO (CTDE)"}
RULES = {
    "none": "no reactive power",
    "droop": "deadband droop",
    "game-tuned": "the game",
    "opf_now": "OPF now (a bound)",
}
ON_FEEDER = (*(f"rl-{name}" for name in INDEPENDENT | CENTRAL), "hybrid-imappo", *RULES)
SIZES = {10: 3, 100: 15}
ON_EDGE = ("hybrid-imappo", "rl-iql", "rl-mappo", "game-tuned")
WHO = {"hybrid-imappo": "hybrid, IMAPPO", "rl-iql": "IQL alone", "rl-mappo": "MAPPO alone"}
LAWS = ("path loss + 6 dB", "correlation squared", "load x 2", "CPU / 2", "reports two slots old")


def _edge(agents: int, servers: int) -> Row:
    return Row("mec", (("sites", "synthetic"), ("agents", agents), ("servers", servers)))


def experiments() -> Table:
    laws = {f"law-{k}": Again("n10", _edge(10, 3), tuple(WHO), law) for k, law in enumerate(LAWS, start=1)}
    again = {"n1000": Again("n100", _edge(1000, 150), tuple(WHO), most_seeds=2)} | laws
    feeder = "feeder"
    baseline = (
        Cell("IQL (DTDE)", feeder, "rl-iql"),
        *(Cell(label, feeder, name) for name, label in RULES.items()),
    )
    paradigms = (
        *(Cell(label, feeder, f"rl-{name}") for name, label in (INDEPENDENT | CENTRAL).items()),
        Cell("hybrid, IMAPPO", feeder, "hybrid-imappo"),
    )
    sizes = [Cell(f"N = {n}: {label}", f"n{n}", name) for n in SIZES for name, label in WHO.items()]
    sizes += [Cell(f"N = 1,000, as trained at 100: {label}", "n1000", name) for name, label in WHO.items()]
    gap = [Cell(f"as trained: {label}", "n10", name) for name, label in WHO.items()]
    gap += [
        Cell(f"{law}: {label}", f"law-{k}", name)
        for k, law in enumerate(LAWS, start=1)
        for name, label in WHO.items()
    ]  # fmt: skip
    return Table(
        "The survey's experiments and checks (002)",
        {feeder: (Row("voltage", (), "none", (("variant", "mapdn"), ("reward", "cost"))), ON_FEEDER)}
        | {f"n{n}": (_edge(n, k), ON_EDGE) for n, k in SIZES.items()},
        (
            Part(
                (COST, INSIDE, LOSS), baseline, (), "1. IQL as a baseline",
                ("Voltage control on 33 buses with MAPDN's sizing: 6 inverters choose among 11 shares of their room.",),
            ),
            Part(
                (COST, INSIDE, LOSS, CONVERGED, WAVERING), paradigms,
                tuple(
                    Claim(f"CTDE above IQL: {label}", feeder, COST, f"rl-{name}", ("rl-iql",))
                    for name, label in CENTRAL.items()
                ),
                "2. CTDE against IQL",
                ("The same feeder. MAPPO and IPPO learn the level itself, the others choose among the 11 shares.",),
            ),
            Part(
                (WELFARE, COMPLETION, CONVERGED, WAVERING, STEP), tuple(sizes), (), "3. 10, 100 and 1,000 agents",
                (
                    "Edge computing, set H, where more agents cost least: 3, 15 and 150 servers. 1,000 agents are not "
                    "trained; the allocators of 100 decide there, on two reporting seeds. On feeders of 12, 102 and "
                    "1,002 inverters: `python benchmarks/voltage_survey.py scale`.",
                ),
            ),
            Part(
                (WELFARE, COMPLETION), tuple(gap), (), "4. The reality gap",
                (
                    "Trained at N = 10 under one law, then run under another of which nobody is told.",
                ),
            ),
            Part(
                (), (), (), "5. Reward monotonicity",
                (
                    "Where value decomposition breaks is enumerated, not trained: payoff tables of two inverters, and "
                    "the best sum (VDN) and monotone table (QMIX) for each, in `notebooks/06_voltage.ipynb` and "
                    "`python benchmarks/voltage_survey.py monotonicity`.",
                ),
            ),
        ),
        (
            "A survey: it reports no figures of its own, so that there is no order to keep.",
            "It asks whether CTDE beats independent learners on voltage control, and names QMIX and MADDPG; MAPDN's "
            "rewards pay more for doing nothing than for the least loss, so ours is loss with a charge for leaving "
            "the band.",
        ),
        again=again,
    )  # fmt: skip


TABLES = {"002-experiments": experiments()}
