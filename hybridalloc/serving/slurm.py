"""In front of Slurm: jobs that are held are placed by the packing game, and released onto the nodes that it names.

    hybridalloc slurm --partition batch --dry-run

Each round reads ``squeue --json`` and ``sinfo --json``, plays the game, and for each job that has a place says
``scontrol update JobId=... ReqNodeList=...`` and ``scontrol release ...``; the rest waits, held. Slurm starts them,
ends them and has the last word: a job that it does not start waits for its nodes, and counts as there.

A job is touched only if its user holds it, and a partition, an account or ``held`` names it.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from games.congestion import Float, Int
from games.packing import Packing, pack, packing_game
from games.packing_certificate import certify_packing
from hybridalloc.limits import check_fields
from hybridalloc.serving.slurm_read import HOST, Job, Node, Skip, SlurmError, read_jobs, read_nodes
from hybridalloc.text import printable

Runner = Callable[[Sequence[str]], str]
CANDIDATES = 24  # sets of nodes that a job on several is offered
CURVE = 9  # points of a node's potential
STAND_IN = 1e-3  # of a node's worth, by which its CPU and memory count beside its GPUs


class Plan(NamedTuple):
    """What is to be done with one job: ``nodes``, () while it waits, and why."""

    job: Job
    nodes: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        j = self.job
        on = f" on each of {j.nodes} nodes" if j.nodes > 1 else ""
        gpus = f"{j.gpus} {j.gpu_type + ' ' if j.gpu_type else ''}GPU{'s' if j.gpus != 1 else ''}, " if j.gpus else ""
        asks = f"{gpus}{j.cpus} CPU{'s' if j.cpus != 1 else ''}, {j.memory:,} MB{on}"
        where = f"-> {','.join(self.nodes)}" if self.nodes else "waits"
        return f"job {j.id} ({printable(j.name, 40)}; {asks}) {where}: {self.why}"


@dataclass(frozen=True)
class Given:
    """Which jobs may be touched: user-held ones of these partitions and accounts; ``held`` alone: all that are held.

    Raises:
        ValueError: nothing names any.
    """

    partitions: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    held: bool = False

    def __post_init__(self) -> None:
        if not (self.partitions or self.accounts or self.held):
            raise ValueError("no jobs are named: give --partition, --account, or --held for all that users hold")

    def names(self, job: Job) -> bool:
        """Whether a job is one of them."""
        part = not self.partitions or bool(set(job.partition.split(",")) & set(self.partitions))
        return job.held and part and (not self.accounts or job.account in self.accounts)


def plan_round(jobs: Sequence[Job], nodes: Sequence[Node], given: Given, patience_s: float, now_s: float) -> list[Plan]:
    """What to do with each job that is given, the oldest first; the placement is certified before it is returned.

    Args:
        patience_s: a job that has waited longer and fits nowhere holds back those that came after it, until it fits.

    Raises:
        SlurmError: the placement did not pass its certificate; nothing is to be done.
    """
    mine = sorted((job for job in jobs if given.names(job)), key=_age)
    mine = [job if job.doubt else job._replace(doubt=_too_early(job, now_s)) for job in mine]
    able = [job for job in mine if not job.doubt]
    free = _free(jobs, nodes, now_s)
    sets = [_sets(job, nodes, free) for job in able]
    game = _game(able, sets, nodes, free)
    option = pack(game).option if able else np.zeros(0, np.int64)
    stuck = next(
        (k for k, job in enumerate(able) if not option[k] and sets[k] and now_s - job.submitted > patience_s), None
    )
    if stuck is not None:  # whoever came later waits with it
        game = game._replace(ok=game.ok & (np.arange(len(able)) <= stuck)[:, None])
        option = pack(game).option
    if able:
        found = certify_packing(game, option)
        if not found.holds():
            raise SlurmError(f"the placement did not pass its certificate ({found}); nothing was done")
    plans = {job.id: Plan(job, (), job.doubt) for job in mine if job.doubt}
    for k, job in enumerate(able):
        chosen = tuple(nodes[n].name for n in sets[k][option[k] - 1]) if option[k] else ()
        blocked = stuck is not None and k > stuck
        first = able[stuck] if stuck is not None and blocked else None
        plans[job.id] = Plan(job, chosen, _why(job, chosen, sets[k], game, k, option, first))
    return [plans[job.id] for job in mine]


def _age(job: Job) -> tuple[int, list[int]]:
    """The older first; of one second, by number and task."""
    return job.submitted, [int(part) for part in re.findall(r"[0-9]+", job.id)]


def _too_early(job: Job, now_s: float) -> str:
    """Who is released before its time keeps its nodes idle until then."""
    return f"it is not to begin for {job.begins - now_s:,.0f} s" if job.begins > now_s else ""


def _free(jobs: Sequence[Job], nodes: Sequence[Node], now_s: float) -> Float:
    """(K, 3) CPUs, MB and GPUs of each node that nobody has, or was released onto and has not started on."""
    rows = [
        (n.cpus - n.used_cpus, n.memory - n.used_memory, sum(n.gpus.values()) - sum(n.used_gpus.values()))
        for n in nodes
    ]
    free, at = np.array(rows, float).reshape(-1, 3), {node.name: k for k, node in enumerate(nodes)}
    for job in jobs:
        if job.state == "PENDING" and not job.held and not _too_early(job, now_s):
            for name in job.on:
                if name in at:
                    free[at[name]] -= job.cpus, job.memory, job.gpus
    return np.maximum(free, 0.0)


def _sets(job: Job, nodes: Sequence[Node], free: Float) -> list[tuple[int, ...]]:
    """Sets of nodes that could hold a job if they were empty: single ones, or for several the tightest that have room
    now side by side, and if there are none those that have none."""
    fits = [k for k, node in enumerate(nodes) if _could_hold(node, job)]
    if job.nodes == 1:
        return [(k,) for k in fits]
    room = [k for k in fits if (free[k] >= (job.cpus, job.memory, job.gpus)).all()]
    room = sorted(room if len(room) >= job.nodes else fits, key=lambda k: tuple(free[k][::-1]))
    windows = range(max(len(room) - job.nodes + 1, 0))
    return [tuple(room[k : k + job.nodes]) for k in windows][:CANDIDATES]


def _could_hold(node: Node, job: Job) -> bool:
    """Whether a job, or its part on one node, may run there and fits if it is empty."""
    gpus = node.gpus.get(job.gpu_type, 0) if job.gpu_type else sum(node.gpus.values())
    named = not job.on or node.name in job.on
    may = node.up and named and node.name not in job.excluded and set(job.features) <= set(node.features)
    large = job.cpus <= node.cpus and job.memory <= node.memory and job.gpus <= gpus
    return may and large and bool(set(job.partition.split(",")) & set(node.partitions))


def _game(
    jobs: Sequence[Job], sets: Sequence[Sequence[tuple[int, ...]]], nodes: Sequence[Node], free: Float
) -> Packing:
    """Places are sets of nodes; the older a job the higher its class; a node's potential falls the faster the fuller
    its GPUs are, so that jobs fill what is begun and leave whole nodes to who needs them."""
    types = sorted({job.gpu_type for job in jobs if job.gpu_type})
    k, most = len(nodes), max((len(s) for s in sets), default=0)
    legs = (3 + bool(types)) * max((job.nodes for job in jobs), default=1)
    rows = np.full((len(jobs), 1 + most, legs), -1)
    demand, ok = np.zeros(rows.shape), np.zeros(rows.shape[:2], bool)
    for i, (job, places) in enumerate(zip(jobs, sets, strict=True)):
        for o, place in enumerate(places, 1):
            ok[i, o] = True
            needs = [(3 * n + part, many) for n in place for part, many in enumerate((job.cpus, job.memory, job.gpus))]
            if job.gpu_type:
                needs += [(3 * k + types.index(job.gpu_type) * k + n, job.gpus) for n in place]
            for leg, (row, many) in enumerate(needs):
                rows[i, o, leg], demand[i, o, leg] = row, many
    typed = [max(n.gpus.get(t, 0) - n.used_gpus.get(t, 0), 0) for t in types for n in nodes]
    capacity = np.concatenate([free.ravel(), np.array(typed, float)])
    full = np.array([(n.cpus, n.memory, sum(n.gpus.values())) for n in nodes], float).reshape(-1, 3)
    curve = np.zeros((len(capacity), CURVE))
    for n in range(k):
        for part in range(3):
            has = max(full[n, part], 1.0)
            fill = (full[n, part] - free[n, part] + np.linspace(0, free[n, part], CURVE)) / has
            curve[3 * n + part] = -(1.0 if part == 2 else STAND_IN) * has**0.5 * fill**2
    waste = np.array([
        [0.0, *(sum(full[n, 2] for n in place) for place in places), *[0.0] * (most - len(places))] for places in sets
    ]).reshape(len(jobs), 1 + most)  # fmt: skip
    idle = np.array([job.gpus == 0 for job in jobs], float)[:, None]
    return packing_game(rows, demand, capacity, curve=curve, private=idle * waste, ok=ok, rank=np.arange(len(jobs)))


def _why(
    job: Job, chosen: tuple[str, ...], places: Sequence[tuple[int, ...]], game: Packing, k: int, option: Int,
    before: Job | None,
) -> str:  # fmt: skip
    if not places:
        return "no node that is up, in its partition and with its features is as large"
    if chosen:
        return f"the tightest of {len(places)} where it can run; {_left(game, k, option)}"
    if before is not None:
        return f"job {before.id} has waited longer than is to be borne and goes first"
    return f"none of {len(places)} places where it can run has room beside jobs that run or came before"


def _left(game: Packing, k: int, option: Int) -> str:
    """What is free on a job's first node once all are there."""
    used = np.zeros(len(game.capacity))
    for i, o in enumerate(option):
        np.add.at(used, np.maximum(game.rows[i, o], 0), game.demand[i, o])
    first = int(game.rows[k, option[k], 0])
    cpus, memory, gpus = (game.capacity - used)[first : first + 3]
    return f"{gpus:g} GPUs, {cpus:g} CPUs and {memory:,.0f} MB stay free there"


def ask_slurm(words: Sequence[str], limit_s: float = 30.0) -> str:
    """What a command of Slurm's prints.

    Raises:
        SlurmError: it is not installed, fails, or does not answer in time; says what it said.
    """
    try:
        done = subprocess.run(list(words), capture_output=True, text=True, timeout=limit_s, check=False)
    except FileNotFoundError:
        raise SlurmError(f"{words[0]} is not installed here; run this where Slurm's commands are") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{' '.join(words)} did not answer within {limit_s:g} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise SlurmError(f"{' '.join(words)}: {printable(said[0], 200) if said else f'ended with {done.returncode}'}")
    return done.stdout


@dataclass
class Bridge:
    """Rounds in front of one Slurm.

    Args:
        given: the jobs that may be touched. dry_run: say what would be done, and do nothing. patience_s: see
            :func:`plan_round`. ask: runs a command. say: takes a line for whoever watches.
    """

    given: Given
    dry_run: bool = False
    patience_s: float = 600.0
    ask: Runner = ask_slurm
    say: Callable[[str], None] = print
    passed_over: set[str] = field(default_factory=set)  # rows of the last round that were told

    def __post_init__(self) -> None:
        check_fields(self)

    def round(self) -> list[Plan]:
        """Read, decide, and place; the plans that were carried out, or would have been.

        Raises:
            SlurmError: the controller does not answer, or not in words that can be read.
        """
        bad: list[str] = []
        jobs, nodes = read_jobs(self.ask(["squeue", "--json"]), bad.append), self._nodes(bad.append)
        for line in dict.fromkeys(bad):
            if line not in self.passed_over:
                self.say(line)
        self.passed_over = set(bad)
        done = []
        for plan in plan_round(jobs, nodes, self.given, self.patience_s, time.time()):
            self.say(str(plan))
            if plan.nodes and (self.dry_run or self._place(plan)):
                done.append(plan)
        return done

    def _nodes(self, skip: Skip) -> list[Node]:
        told = self.ask(["sinfo", "--json"])
        try:
            return read_nodes(told, skip)
        except SlurmError:  # later versions group nodes there
            return read_nodes(self.ask(["scontrol", "show", "nodes", "--json"]), skip)

    def _place(self, plan: Plan) -> bool:
        """Name the nodes, then release; a job that cannot be told where to go stays held."""
        odd = [name for name in plan.nodes if not HOST.fullmatch(name)]  # whoever made the plan
        if odd or not re.fullmatch(r"[0-9]+(_[0-9]+)?", plan.job.id):
            self.say(f"job {printable(plan.job.id, 40)} is as it was: {printable(str(odd), 80)} is not given to Slurm")
            return False
        try:
            self.ask(["scontrol", "update", f"JobId={plan.job.id}", f"ReqNodeList={','.join(plan.nodes)}"])
            self.ask(["scontrol", "release", plan.job.id])
        except SlurmError as error:
            self.say(f"job {plan.job.id} is as it was: {error}")
            return False
        return True

    def run(self, every_s: float, rounds: float = float("inf"), sleep: Callable[[float], None] = time.sleep) -> None:
        """A round every ``every_s``; while the controller does not answer nothing is done, and that is said once."""
        silent, k = "", 0
        while k < rounds:
            try:
                self.round()
                if silent:
                    self.say("Slurm answers again")
                silent = ""
            except SlurmError as error:
                if str(error) != silent:
                    self.say(f"Slurm does not answer ({error}); nothing is done until it does")
                silent = str(error)
            k += 1
            if k < rounds:
                sleep(every_s)
