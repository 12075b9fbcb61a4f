"""The pictures of docs/architecture.md: the data's way through a step, a training decision and a comparison.

Run: ``python docs/figures/architecture.py``. A picture is a list of stations in the order in which data pass them; each
stands in the column of its package, names the file that does it, and says what it hands on.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
WIDTH, LEFT, COLUMN, BOX, ROW, TOP = 1040, 20, 200, 184, 74, 64


class Station(NamedTuple):
    """One stop: a column by index, the file, what it does, and what it hands to the next."""

    column: int
    file: str
    does: str
    hands: str = ""


STEP = (
    ("hybridalloc", "problems/<domain>", "coordinator", "games", "rl"),
    (
        Station(0, "hybridalloc/allocator.py", "reads the state", "state, memory"),
        Station(1, "hybridalloc/problems/mec/world.py", "stands there, believes", "World of one"),
        Station(1, "hybridalloc/problems/mec/build.py", "game(prices)", "costs, weights, capacities"),
        Station(2, "coordinator/coordinator.py", "decide: the only place", "observation"),
        Station(4, "rl/policy.py", "propose", "log-prior, levels, spreads"),
        Station(2, "coordinator/merge.py", "tilts costs by the proposal", "tilted game"),
        Station(3, "games/gibbs.py", "mean field, best replies", "joint choice"),
        Station(3, "games/admission.py", "seats by class, floors", "places"),
        Station(1, "hybridalloc/problems/mec/settling.py", "settle: shares and levels", "plan that fits"),
        Station(0, "hybridalloc/certify.py", "asks for a second reading", "allocation"),
        Station(1, "hybridalloc/problems/mec/audit.py", "reads it from the definitions", "times, places, costs"),
        Station(3, "games/certificate.py", "regret, envy, limits", "verdict"),
        Station(0, "hybridalloc/allocation.py", "Allocation, Certificate, why()"),
    ),
)
DECISION = (
    ("training", "problems/<domain>", "coordinator", "games", "rl"),
    (
        Station(0, "hybridalloc/training/rollout.py", "step: the only loop", "E worlds"),
        Station(1, "hybridalloc/problems/mec/world.py", "observe", "features"),
        Station(4, "rl/imappo.py", "propose", "log-prior"),
        Station(1, "hybridalloc/problems/mec/world.py", "game(prices)", "E games"),
        Station(3, "games/gibbs.py", "equilibrium under the tilt", "costs"),
        Station(2, "coordinator/merge.py", "draws from the mixed choice", "options, bias"),
        Station(1, "hybridalloc/problems/mec/execution.py", "settle, execute", "plan, then facts"),
        Station(0, "hybridalloc/problems/metrics.py", "tallies the counts", "facts"),
        Station(1, "hybridalloc/problems/mec/law.py", "drift; restart what is over", "next worlds"),
        Station(0, "hybridalloc/training/trainer.py", "pays by difference", "reward, time, ends"),
        Station(4, "rl/on_policy.py", "record, update", "new weights"),
        Station(0, "hybridalloc/training/checkpoints.py", "keeps all of it, now and then"),
    ),
)
COMPARISON = (
    ("cli, reports", "experiments", "training", "files and MLflow"),
    (
        Station(0, "hybridalloc/cli.py", "hybridalloc compare", "settings"),
        Station(1, "hybridalloc/experiments/compare.py", "the order of the work", "problem, rows"),
        Station(1, "hybridalloc/experiments/jobs.py", "jobs for worker processes", "job"),
        Station(2, "hybridalloc/training/tuning.py", "prices, on tuning seeds", "prices"),
        Station(2, "hybridalloc/training/beliefs.py", "beliefs, one a seed", "belief"),
        Station(2, "hybridalloc/training/trainer.py", "trains each learner", "policy"),
        Station(2, "hybridalloc/training/calibration.py", "its trust, on tuning seeds", "trust"),
        Station(2, "hybridalloc/training/evaluation.py", "runs on reporting seeds", "metrics by seed"),
        Station(3, "hybridalloc/experiments/runlog.py", "JSON lines, first", "record"),
        Station(0, "hybridalloc/reports/statistics.py", "paired differences", "intervals"),
        Station(0, "hybridalloc/reports/report.py", "table, figures, page", "report"),
        Station(3, "hybridalloc/experiments/mirror.py", "MLflow, a copy of the record"),
    ),
)
PICTURES = {"step": STEP, "decision": DECISION, "comparison": COMPARISON}


def drawn(columns: tuple[str, ...], stations: tuple[Station, ...]) -> str:
    """The picture as SVG; light and dark pages alike."""
    height = TOP + ROW * len(stations) + 10
    column = (WIDTH - 2 * LEFT) / len(columns)
    middle = lambda c: LEFT + column * (c + 0.5)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" '
        'font-size="12">',
        "<style>.t{fill:#1f2937}.m{fill:#4b5563;font-family:ui-monospace,monospace;font-size:10.5px}.h{fill:#374151;"
        "font-weight:600;font-size:13px}.d{fill:#b45309;font-size:11px}.b{fill:#f8fafc;stroke:#64748b}.l{stroke:"
        "#e2e8f0}.a{stroke:#b45309;fill:none}.p{fill:#b45309}@media(prefers-color-scheme:dark){.t{fill:#e5e7eb}.m{fill:"
        "#9ca3af}.h{fill:#d1d5db}.d{fill:#fbbf24}.b{fill:#1f2937;stroke:#94a3b8}.l{stroke:#334155}.a{stroke:#fbbf24}"
        ".p{fill:#fbbf24}}</style>",
        '<marker id="p" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="p" d="M0 0L8 4L0 8z"/></marker>',
    ]
    for c, name in enumerate(columns):
        x = middle(c)
        out.append(f'<text class="h" x="{x:.0f}" y="24" text-anchor="middle">{escape(name)}</text>')
        out.append(f'<line class="l" x1="{x:.0f}" y1="36" x2="{x:.0f}" y2="{height - 6}"/>')
    for k, station in enumerate(stations):
        x, y = middle(station.column), TOP + ROW * k
        out.append(f'<rect class="b" x="{x - BOX / 2:.0f}" y="{y - 16}" width="{BOX}" height="42" rx="6"/>')
        out.append(f'<text class="t" x="{x:.0f}" y="{y + 1}" text-anchor="middle">{escape(station.does)}</text>')
        name = station.file.removeprefix("hybridalloc/")
        out.append(f'<text class="m" x="{x:.0f}" y="{y + 17}" text-anchor="middle">{escape(name)}</text>')
        if k + 1 < len(stations):
            to, low, high = middle(stations[k + 1].column), y + 26, y + ROW - 16
            turn = (low + high) / 2
            path = f"M{x:.0f} {low}V{turn:.0f}H{to:.0f}V{high}" if x != to else f"M{x:.0f} {low}V{high}"
            out.append(f'<path class="a" d="{path}" marker-end="url(#p)"/>')
            at, anchor = ((x + to) / 2, "middle") if x != to else (x + 8, "start")
            lift = -4 if x != to else 4
            out.append(
                f'<text class="d" x="{at:.0f}" y="{turn + lift:.0f}" text-anchor="{anchor}">{escape(station.hands)}'
                "</text>"
            )
    return "\n".join([*out, "</svg>"]) + "\n"


if __name__ == "__main__":
    for name, picture in PICTURES.items():
        (HERE / f"architecture-{name}.svg").write_text(drawn(*picture), encoding="utf-8")
