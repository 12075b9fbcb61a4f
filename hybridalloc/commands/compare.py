"""``hybridalloc compare``: the hybrid against its rivals."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hybridalloc.commands.shared import Comparing
from hybridalloc.commands.terminal import pairs, print_json, say, write
from rl.registry import learner_names


@dataclass(frozen=True)
class Compare(Comparing):
    """Compare the hybrid with pure RL, the game and heuristics: tune, train, evaluate, log to MLflow, report."""

    problem: str = "mec"
    """mec, custom, cluster, voltage, balancer, or one of your own (entry point group hybridalloc.problems)."""
    agents: int = 50
    servers: int = 9
    scenario: str = ""
    """Of the problem; default its own: H of mec (H, A, S, F), synthetic of cluster (openb, openb-gpushare100)
    and of balancer (azure, mooncake)."""
    sites: Literal["eua", "synthetic"] = "eua"
    """eua: real base stations and users (needs the data). synthetic: a hexagonal grid (needs nothing)."""
    settings: tuple[str, ...] = ()
    """More settings of the problem, such as --settings transition=my_module:Farm episode=100."""
    from_runs: str | None = None
    """Run nothing: table and report again from a folder under runs/, from runs/ itself (the newest), or from an MLflow
    experiment's name or a comparison's id (with --tracking-uri)."""
    resume: Path | None = None
    """Go on with a stopped comparison, its folder or runs/ (the newest): what ended is kept, learners go on from their
    checkpoints, and settings are its own."""
    allow_code: bool = False
    """With --resume or --from-runs: load the code that its record names though it is no installed entry point."""
    full: bool = False
    """The table of docs/results.md: 5 training seeds, 100 reporting seeds, 2 million agent-steps, 150 tuning trials."""
    learners: tuple[str, ...] = ("imappo", "dqn")
    """Recommenders to compare, alone and in the hybrid; "all" for every one."""
    methods: tuple[str, ...] = ()
    """Rows of the table; default those of the learners, the games and the heuristics."""
    runs: str = "runs"
    report: str = "report.html"
    json: bool = False
    """The whole comparison as JSON on standard output instead of tables."""

    def run(self) -> int:
        from hybridalloc.experiments.compare import FULL, Settings, compare, summary_lines
        from hybridalloc.reports.verdict import verdict_lines

        if self.from_runs is not None:
            return self._again()
        changes: dict[str, Any] = (dict(FULL) if self.full else {}) | self.budget()
        settings = replace(
            Settings(
                self.problem, self.agents, self.servers, self.scenario, self.sites,
                learners=learner_names() if self.learners == ("all",) else self.learners, methods=self.methods,
                runs=self.runs, report=self.report, tracking_uri=self.tracking_uri, quiet=self.quiet,
                settings=tuple(pairs(self.settings).items()), workers=self.workers, engine=self.engine,
                address=self.address,
            ),
            **changes,
        )  # fmt: skip
        comparison = compare(settings, self.resume, self.allow_code)
        if self.json:
            return print_json(comparison)
        say(comparison["tables"]["text"] + "\n")
        say("".join(f"{note}\n" for note in comparison["notes"]) + "\n".join(verdict_lines(comparison)) + "\n")
        say("\n".join(summary_lines(comparison)))
        ran = comparison["seeds"] | comparison["budget"]
        if len(ran["train"]) < FULL["train_seeds"] or ran["agent_steps"] < FULL["agent_steps"]:
            write(
                f"\nA sketch: {len(ran['train'])} training seeds, {len(ran['report'])} reporting seeds, "
                f"{ran['agent_steps']:,} agent-steps. `hybridalloc compare --full` makes the table of docs/results.md."
            )
        write(f"\nreport     {Path(settings.report).resolve()}")
        say(f"record     {comparison['folder']}")
        say(f"MLflow     {comparison['mirror']}")
        say(f"           {comparison['open']}")
        return 0

    def _again(self) -> int:
        from hybridalloc.experiments.stored import comparison_from
        from hybridalloc.places import check_file
        from hybridalloc.reports.report import text_table, write_report

        check_file("--report", self.report)
        comparison = comparison_from(str(self.from_runs), self.tracking_uri, self.allow_code)
        page = write_report(self.report, comparison)
        if self.json:
            return print_json(comparison)
        say(text_table(comparison))
        for note in (*comparison.get("notes", ()), *filter(None, [comparison.get("note")])):
            say(f"\n{note}")
        say(f"\nfrom       {comparison['source']}\nreport     {page.resolve()}")
        return 0
