"""What Slurm says of jobs and nodes: ``squeue --json`` and ``sinfo --json``, of version 22.05 and later."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from hybridalloc.text import printable, quoted

UP = ("idle", "mixed", "allocated")  # states of a node that takes jobs
DOWN = ("down", "drain", "draining", "drained", "fail", "failing", "maint", "not_responding", "powering_down", "reboot")
MOST_TASKS = 1000  # of an array, that are looked at


class SlurmError(ValueError):
    """A command of Slurm's failed, or said what cannot be read."""


class Job(NamedTuple):
    """One job, or one task of an array. Demands are of each of its ``nodes``.

    Attributes:
        id: as commands take it, "17" or "17_3". held: by its user. gpu_type: "" for any. on: nodes that it runs on, or
            that were asked for. doubt: why it cannot be placed, "" where it can. submitted: s.
    """

    id: str
    name: str
    state: str
    held: bool
    partition: str
    account: str
    user: str
    nodes: int
    cpus: int
    memory: int
    gpus: int
    gpu_type: str
    features: tuple[str, ...]
    excluded: tuple[str, ...]
    on: tuple[str, ...]
    submitted: int
    doubt: str = ""


class Node(NamedTuple):
    """One node: what it has (``cpus``, ``memory`` in MB, ``gpus`` by type) and what of that is taken."""

    name: str
    up: bool
    partitions: tuple[str, ...]
    features: tuple[str, ...]
    cpus: int
    memory: int
    gpus: Mapping[str, int]
    used_cpus: int
    used_memory: int
    used_gpus: Mapping[str, int]


def read_jobs(text: str) -> list[Job]:
    """The jobs in what ``squeue --json`` said, arrays task by task.

    Raises:
        SlurmError: it is no such answer.
    """
    return [job for row in _rows(text, "jobs", "squeue --json") for job in _jobs(row)]


def read_nodes(text: str) -> list[Node]:
    """The nodes in what ``sinfo --json`` (or, of later versions, ``scontrol show nodes --json``) said.

    Raises:
        SlurmError: it is no such answer.
    """
    return [_node(row) for row in _rows(text, "nodes", "sinfo --json")]


def expand(hosts: str) -> tuple[str, ...]:
    """The names in a host list such as "n[1-3,05],login"."""
    out: list[str] = []
    for part in re.findall(r"[^,\[]+(?:\[[^\]]*\][^,\[]*)*", hosts):
        names = [""]
        for plain, numbers in re.findall(r"([^\[]*)(?:\[([^\]]*)\])?", part):
            ends = _numbers(numbers) if numbers else [""]
            names = [name + plain + end for name in names for end in ends]
        out += names
    return tuple(name for name in out if name)


def _numbers(text: str) -> list[str]:
    out = []
    for piece in text.split(","):
        low, _, high = piece.partition("-")
        if high and low.isdigit() and high.isdigit():
            out += [f"{k:0{len(low)}d}" for k in range(int(low), min(int(high), int(low) + 100_000) + 1)]
        else:
            out.append(piece)
    return out


def _rows(text: str, name: str, command: str) -> list[Mapping[str, Any]]:
    try:
        told = json.loads(text)
        rows = told[name]
    except (ValueError, TypeError, KeyError):
        raise SlurmError(f"{command} said {quoted(text[:80])}; an object with {name!r} is needed") from None
    for error in told.get("errors") or []:  # a controller that is down: no jobs, and the command ended well
        said = error.get("description") or error.get("error") if isinstance(error, dict) else error
        raise SlurmError(f"{command}: {printable(str(said), 200)}")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SlurmError(f"{command}: {name!r} is no list of objects")
    return rows


def _number(value: Any, otherwise: int = 0) -> int:
    """A whole number; later versions say {"set": true, "infinite": false, "number": 4}."""
    if isinstance(value, dict):
        value = value.get("number") if value.get("set") and not value.get("infinite") else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return otherwise
    return int(value)


def _word(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def gpus_of(text: str) -> dict[str, int]:
    """GPUs by type ("" without one) in "gpu:a100:4(S:0-1),gpu:2" or "gres/gpu:a100=4", with or without "gres:"."""
    found: dict[str, int] = {}
    bare = re.sub(r"\([^)]*\)", "", text or "")
    for part in re.split(r"[,+]", bare):
        hit = re.fullmatch(r"(?:gres[:/])?gpu(?:[:/]([A-Za-z][\w.-]*))?(?:[:=](\d+))?", part.strip())
        if hit:
            kind = hit.group(1) or ""
            found[kind] = found.get(kind, 0) + int(hit.group(2) or 1)
    return found


def _jobs(row: Mapping[str, Any]) -> list[Job]:
    state = _word(row.get("job_state")).split(" ")[0]
    count = max(_number(row.get("node_count"), 1), 1)
    cpus, memory = -(-max(_number(row.get("cpus"), 1), 1) // count), _memory(row, count)
    gpus, gpu_type, doubt = _gpus(row, count)
    held = state == "PENDING" and _word(row.get("state_reason")) == "JobHeldUser"
    features = _word(row.get("features"))
    if re.search(r"[|\[\]*!()]", features):
        doubt = doubt or f"its constraint {printable(features)} is more than names joined by &"
    if _word(row.get("dependency")):
        doubt = doubt or f"it depends on {printable(_word(row.get('dependency')))}"
    if _word(row.get("licenses")):
        doubt = doubt or "it asks for licences"
    where = _word(row.get("nodes")) or _word(row.get("required_nodes"))
    one = Job(
        str(_number(row.get("job_id"))), _word(row.get("name")), state, held, _word(row.get("partition")),
        _word(row.get("account")), _word(row.get("user_name")), count, cpus, memory, gpus, gpu_type,
        tuple(re.split("[&,]", features)) if features else (), expand(_word(row.get("excluded_nodes"))), expand(where),
        _number(row.get("submit_time")), doubt,
    )  # fmt: skip
    tasks = _word(row.get("array_task_string"))
    if not tasks:
        task = row.get("array_task_id")
        whole = _number(row.get("array_job_id"))
        named = whole and task is not None and (not isinstance(task, dict) or task.get("set"))
        return [one._replace(id=f"{whole}_{_number(task)}")] if named else [one]
    whole = _number(row.get("array_job_id")) or _number(row.get("job_id"))
    steps = [piece.partition(":") for piece in tasks.partition("%")[0].split(",")]
    numbers = [n for piece, _, step in steps for n in _numbers(piece)[:: max(int(step or 1), 1)] if n.isdigit()]
    return [one._replace(id=f"{whole}_{int(n)}") for n in numbers[:MOST_TASKS]]


def _memory(row: Mapping[str, Any], count: int) -> int:
    """MB of each node: what the scheduler counts for the whole job, divided; else what was asked for."""
    told = re.search(r"(?:^|,)mem=([\d.]+)([KMGTP]?)", _word(row.get("tres_req_str")))
    if told:
        scale = {"K": 1 / 1024, "": 1.0, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "P": 1024.0**3}[told.group(2)]
        return math.ceil(float(told.group(1)) * scale / count)
    by_cpu = _number(row.get("memory_per_cpu")) * -(-_number(row.get("cpus"), 1) // count)
    return _number(row.get("memory_per_node")) or by_cpu


def _gpus(row: Mapping[str, Any], count: int) -> tuple[int, str, str]:
    """GPUs of each node, their type, and a doubt."""
    tasks = max(_number(row.get("tasks"), 1), 1)
    for field, times in (("tres_per_node", 1.0), ("tres_per_job", 1 / count), ("tres_per_task", tasks / count)):
        found = gpus_of(_word(row.get(field)))
        if len(found) > 1:
            return 0, "", f"it asks for GPUs of {len(found)} types"
        for kind, many in found.items():
            return math.ceil(many * times), kind, ""
    if "gpu" in _word(row.get("tres_per_socket")):
        return 0, "", "it asks for GPUs by socket"
    return 0, "", ""


def _node(row: Mapping[str, Any]) -> Node:
    words = f"{_word(row.get('state'))} {_word(row.get('state_flags'))}".lower().split()
    up = any(word in UP for word in words) and not any(word.rstrip("*$~#") in DOWN for word in words)
    features = _word(row.get("active_features"))
    return Node(
        _word(row.get("name")), up, tuple(_word(row.get("partitions")).split()),
        tuple(features.split(",")) if features else (), _number(row.get("cpus")), _number(row.get("real_memory")),
        gpus_of(_word(row.get("gres"))), _number(row.get("alloc_cpus")), _number(row.get("alloc_memory")),
        gpus_of(_word(row.get("gres_used"))),
    )  # fmt: skip
