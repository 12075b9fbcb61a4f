"""What Slurm says of jobs and nodes: ``squeue --json`` and ``sinfo --json``, of version 22.05 and later.

A row that cannot be used is named, with the field and what is wrong with it, and passed over; the others count. What is
absent, or said not to be set, has its default.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from hybridalloc.text import printable, quoted

UP = ("idle", "mixed", "allocated")  # states of a node that takes jobs
DOWN = ("down", "drain", "draining", "drained", "fail", "failing", "maint", "not_responding", "powering_down", "reboot")
MOST_TASKS = 1000  # of an array, that are looked at
MOST_HOSTS = 100_000  # in a host list
MOST = 2**53  # of anything that is counted
MOST_ON = 10**6, 2**40, 10**4  # CPUs, MB and GPUs of one node: with more it would draw all jobs
UNSET = (2**32 - 2, 2**32 - 1, 2**64 - 2, 2**64 - 1)  # how earlier versions write that nothing is set, or no limit
HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")  # what goes into ReqNodeList, where a comma begins another
Row = TypeVar("Row")
Skip = Callable[[str], None]


class SlurmError(ValueError):
    """A command of Slurm's failed, or said what cannot be read."""


class Job(NamedTuple):
    """One job, or one task of an array. Demands are of each of its ``nodes``.

    Attributes:
        id: as commands take it, "17" or "17_3". held: by its user. gpu_type: "" for any. on: nodes that it runs on, or
            that were asked for. doubt: why it cannot be placed, "" where it can. submitted: s. begins: s, not before
            which it is to run, 0 for at once.
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
    begins: int = 0


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


def read_jobs(text: str, skip: Skip | None = None) -> list[Job]:
    """The jobs in what ``squeue --json`` said, arrays task by task.

    Args:
        skip: takes a line for each row that cannot be used, which is passed over; without it the first is an error.

    Raises:
        SlurmError: it is no such answer.
    """
    rows = _rows(text, "jobs", "squeue --json")
    return [job for found in _each(rows, "squeue --json", "job_id", "job", _jobs, skip) for job in found]


def read_nodes(text: str, skip: Skip | None = None) -> list[Node]:
    """The nodes in what ``sinfo --json`` (or, of later versions, ``scontrol show nodes --json``) said.

    Args:
        skip: as of :func:`read_jobs`. Of rows of one name that differ none counts; of those that do not, one.

    Raises:
        SlurmError: it is no such answer.
    """
    seen: dict[str, Node] = {}
    differ: set[str] = set()

    def node(row: Mapping[str, Any]) -> Node:
        found = _node(row)
        first = seen.setdefault(found.name, found)
        if first != found:
            differ.add(found.name)
            at = next(k for k, pair in enumerate(zip(first, found, strict=True)) if pair[0] != pair[1])
            values = f"{printable(str(first[at]), 40)} there and {printable(str(found[at]), 40)} here"
            raise SlurmError(f"another row is of that name, {Node._fields[at]} {values}; neither counts")
        return found

    found = _each(_rows(text, "nodes", "sinfo --json"), "sinfo --json", "name", "node", node, skip)
    return list({node.name: node for node in found if node.name not in differ}.values())


def _each(
    rows: list[Any], command: str, key: str, word: str, read: Callable[[Mapping[str, Any]], Row], skip: Skip | None
) -> list[Row]:
    out = []
    for k, row in enumerate(rows):
        try:
            if not isinstance(row, dict):
                raise SlurmError(f"{quoted(row)} is no object")
            out.append(read(row))
        except SlurmError as error:
            named = f" ({word} {printable(str(row[key]), 40)})" if isinstance(row, dict) and key in row else ""
            line = f"{command}: row {k + 1}{named} is passed over: {error}"
            if skip is None:
                raise SlurmError(line) from None
            skip(line)
    return out


def expand(hosts: str) -> tuple[str, ...]:
    """The names in a host list such as "n[1-3,05],login".

    Raises:
        SlurmError: a name that no host can have, or more than :data:`MOST_HOSTS`.
    """
    out: list[str] = []
    for part in re.findall(r"[^,\[]+(?:\[[^\]]*\][^,\[]*)*", hosts):
        names = [""]
        for plain, numbers in re.findall(r"([^\[]*)(?:\[([^\]]*)\])?", part):
            ends = _numbers(numbers) if numbers else [""]
            if len(names) * len(ends) + len(out) > MOST_HOSTS:
                raise SlurmError(f"the host list {quoted(hosts[:80])} is of more than {MOST_HOSTS:,} names")
            names = [name + plain + end for name in names for end in ends]
        out += names
    return tuple(_host(name) for name in out if name)


def _host(name: str) -> str:
    if not HOST.fullmatch(name):
        raise SlurmError(f"{quoted(name[:80])} is no name of a node; letters, digits, '_', '.' and '-' are allowed")
    return name


def _numbers(text: str) -> list[str]:
    out: list[str] = []
    for piece in text.split(","):
        low, _, high = piece.partition("-")
        if high and low.isdigit() and high.isdigit() and low.isascii() and high.isascii():
            if len(high) > 15 or int(high) - int(low) >= MOST_HOSTS or len(out) > MOST_HOSTS:
                raise SlurmError(f"{quoted(piece[:80])} is of more than {MOST_HOSTS:,} numbers")
            out += [f"{k:0{len(low)}d}" for k in range(int(low), int(high) + 1)]
        else:
            out.append(piece)
    return out


def _rows(text: str, name: str, command: str) -> list[Any]:
    try:
        told = json.loads(text)
        rows = told[name]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise SlurmError(f"{command} said {quoted(text[:80])}; an object with {name!r} is needed") from None
    errors = told.get("errors") or []  # a controller that is down: no jobs, and the command ended well
    for error in errors if isinstance(errors, list) else [errors]:
        said = error.get("description") or error.get("error") if isinstance(error, dict) else error
        raise SlurmError(f"{command}: {printable(str(said), 200)}")
    if not isinstance(rows, list):
        raise SlurmError(f"{command}: {name!r} is no list")
    return rows


def _number(row: Mapping[str, Any], field: str, otherwise: int = 0, most: int = MOST) -> int:
    """A whole number; later versions say {"set": true, "infinite": false, "number": 4}."""
    told = value = row.get(field)
    if isinstance(value, dict):
        value = value.get("number") if value.get("set") and not value.get("infinite") else None
    if value is None or value in UNSET:
        return otherwise
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most
    if not fits or value != int(value):
        to = f" to {most:,}" if most < MOST else ""
        raise SlurmError(f"{field} is {quoted(told)}; a whole number from 0{to} is needed")
    return int(value)


def _word(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def gpus_of(text: str) -> dict[str, int]:
    """GPUs by type ("" without one) in "gpu:a100:4(S:0-1),gpu:2", "gpu:(null):2(IDX:0-1)" or "gres/gpu:a100=4", with or
    without "gres:".

    Raises:
        SlurmError: a part is of GPUs and cannot be read.
    """
    found: dict[str, int] = {}
    bare = re.sub(r"\([^)]*\)", "", text or "")
    for part in re.split(r"[,+]", bare):
        named = re.fullmatch(r"(?:gres[:/])?gpu(?![\w-])(.*)", part.strip())
        if not named:
            continue
        hit = re.fullmatch(r"(?:[:/]([A-Za-z][\w.-]*)?)?(?:[:=](\d{1,9}))?", named.group(1))
        if not hit:
            raise SlurmError(f"{quoted(part.strip()[:80])} is no number of GPUs")
        kind = hit.group(1) or ""
        found[kind] = found.get(kind, 0) + int(hit.group(2) or 1)
    return found


def _jobs(row: Mapping[str, Any]) -> list[Job]:
    state, number = _word(row.get("job_state")).split(" ")[0], _number(row, "job_id")
    if not number:
        raise SlurmError("it has no job_id")
    if not state:
        raise SlurmError("it has no job_state")
    count, most = max(_number(row, "node_count", 1), 1), _number(row, "max_nodes")
    count = min(count, most) if most else count  # Slurm guesses a node a task, whatever "-N 1" says
    cpus, memory = -(-max(_number(row, "cpus", 1), 1) // count), _memory(row, count)
    cpus = max(cpus, _number(row, "minimum_cpus_per_node"))
    gpus, gpu_type, doubt = _gpus(row, count)
    held = state == "PENDING" and _word(row.get("state_reason")) == "JobHeldUser"
    features = _word(row.get("features"))
    if not _word(row.get("name")).isprintable():  # it counts as there, and is left to who can see what it is
        doubt = "its name holds characters that cannot be printed"
    if re.search(r"[|\[\]*!()]", features):
        doubt = doubt or f"its constraint {printable(features)} is more than names joined by &"
    if _word(row.get("dependency")):
        doubt = doubt or f"it depends on {printable(_word(row.get('dependency')))}"
    doubt = doubt or _more_than_counts(row)
    if most > count:  # it would start on as many as it may, beside those that it was told
        doubt = doubt or f"it may run on {count} to {most} nodes"
    where = _word(row.get("nodes")) or _word(row.get("required_nodes"))
    one = Job(
        str(number), _word(row.get("name")), state, held, _word(row.get("partition")), _word(row.get("account")),
        _word(row.get("user_name")), count, cpus, memory, gpus, gpu_type,
        tuple(re.split("[&,]", features)) if features else (), expand(_word(row.get("excluded_nodes"))), expand(where),
        _number(row, "submit_time"), doubt, _number(row, "eligible_time"),
    )  # fmt: skip
    tasks, whole = _word(row.get("array_task_string")), _number(row, "array_job_id")
    if not tasks:
        task = row.get("array_task_id")
        named = whole and task is not None and (not isinstance(task, dict) or task.get("set"))
        return [one._replace(id=f"{whole}_{_number(row, 'array_task_id')}")] if named else [one]
    return [one._replace(id=f"{whole or number}_{n}") for n in _tasks(tasks)[:MOST_TASKS]]


def _more_than_counts(row: Mapping[str, Any]) -> str:
    """What a job asks for beside nodes, CPUs, memory and GPUs, "" for nothing."""
    if _word(row.get("licenses")):
        return "it asks for licences"
    if {"none", "user", "mcs"} & set(_word(row.get("shared")).split()):
        return "it wants nodes for itself (--exclusive)"
    if _number(row, "het_job_id"):
        return "it is a part of a heterogeneous job"
    if _word(row.get("resv_name")):
        return f"it is of the reservation {printable(_word(row.get('resv_name')), 40)}"
    for field in ("sockets_per_node", "cores_per_socket", "threads_per_core", "tasks_per_socket"):
        if _number(row, field):
            return f"it asks for {field.replace('_', ' ')}"
    if _number(row, "minimum_tmp_disk_per_node"):
        return "it asks for disk space"
    return "it asks for nodes side by side (--contiguous)" if row.get("contiguous") is True else ""


def _tasks(text: str) -> list[int]:
    """The tasks in "0-8:2,9%2", of which Slurm cuts off a long one by "..."."""
    out: list[int] = []
    for piece in text.partition("%")[0].split(","):
        numbers, _, step = piece.partition(":")
        if piece == "...":
            continue
        if not re.fullmatch(r"[0-9]{1,15}(-[0-9]{1,15})?(:[1-9][0-9]{0,8})?", piece):
            raise SlurmError(f"array_task_string is {quoted(text[:80])}; numbers and ranges are needed")
        out += [int(n) for n in _numbers(numbers)[:: int(step or 1)]]
    return out


def _memory(row: Mapping[str, Any], count: int) -> int:
    """MB of each node: what the scheduler counts for the whole job, divided; else what was asked for."""
    said = _word(row.get("tres_req_str"))
    told = re.search(r"(?:^|,)mem=(\d{1,15}(?:\.\d*)?)([KMGTP]?)(?:,|$)", said)
    if not told and re.search(r"(?:^|,)mem=", said):
        raise SlurmError(f"tres_req_str is {quoted(said[:80])}; its memory cannot be read")
    if told:
        scale = {"K": 1 / 1024, "": 1.0, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "P": 1024.0**3}[told.group(2)]
        return math.ceil(float(told.group(1)) * scale / count)
    by_cpu = _number(row, "memory_per_cpu") * -(-_number(row, "cpus", 1) // count)
    return _number(row, "memory_per_node") or by_cpu


def _gpus(row: Mapping[str, Any], count: int) -> tuple[int, str, str]:
    """GPUs of each node, their type, and a doubt."""
    tasks = max(_number(row, "tasks", 1), 1)
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
    gpus, (cpus, megabytes, most) = gpus_of(_word(row.get("gres"))), MOST_ON
    if sum(gpus.values()) > most:
        raise SlurmError(f"gres is {quoted(row.get('gres'))}; a node has up to {most:,} GPUs")
    return Node(
        _host(_word(row.get("name"))), up, tuple(_word(row.get("partitions")).split()),
        tuple(features.split(",")) if features else (), _number(row, "cpus", 0, cpus),
        _number(row, "real_memory", 0, megabytes), gpus, _number(row, "alloc_cpus", 0, cpus),
        _number(row, "alloc_memory", 0, megabytes), gpus_of(_word(row.get("gres_used"))),
    )  # fmt: skip
