"""The command line: ``hybridalloc compare | train | learn-value | evaluate | export | step | report | sync | ...``.

Each command is a dataclass of :mod:`hybridalloc.commands`, whose options are its fields; here they are put together,
and what a user can mend is said in a line.
"""

from __future__ import annotations

import os
import sys
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any

import tyro

from hybridalloc.commands.bench import Bench
from hybridalloc.commands.compare import Compare
from hybridalloc.commands.data import Data
from hybridalloc.commands.evaluate import Evaluate
from hybridalloc.commands.learn_value import LearnValue
from hybridalloc.commands.models import Export, LogModel
from hybridalloc.commands.options import readable
from hybridalloc.commands.reproduce import Reproduce
from hybridalloc.commands.serving import Route, Slurm
from hybridalloc.commands.step import Step
from hybridalloc.commands.stored import Report, Sync
from hybridalloc.commands.terminal import OutputError, output, place_of, write
from hybridalloc.commands.train import Train
from hybridalloc.commands.tune import Tune
from hybridalloc.errors import PlaceError, WorkError
from hybridalloc.limits import check_fields

GUIDE = """Resource allocation by reinforcement learning on top of a game: every step feasible, certified, fast.

First steps:
  hybridalloc step --example | hybridalloc step             one state in, one certified allocation out (JSON)
  hybridalloc step --jobs jobs.csv --servers servers.csv    your own jobs and servers: a table, prices, who is left out
  hybridalloc compare                                       hybrid against pure RL, the game, heuristics: table, report
                                                            (stopped: compare --resume runs goes on)
  hybridalloc bench                                         every method on every domain, one table (stopped: again)
  hybridalloc train --out a.npz; hybridalloc evaluate a.npz one recommender, saved, and its metrics
  hybridalloc log-model a.npz                               into MLflow as a model that `mlflow models serve` serves

Every command has --help. Data: set HYBRIDALLOC_DATA to a folder of data sets, or let `hybridalloc data fetch eua`
download them; `--sites synthetic` needs none. Runs lie under runs/ as JSON lines; MLflow mirrors them.
"""

COMMANDS: dict[str, type[Any]] = {
    "compare": Compare,
    "bench": Bench,
    "tune": Tune,
    "reproduce": Reproduce,
    "train": Train,
    "learn-value": LearnValue,
    "evaluate": Evaluate,
    "export": Export,
    "step": Step,
    "report": Report,
    "sync": Sync,
    "log-model": LogModel,
    "data": Data,
    "route": Route,
    "slurm": Slurm,
}
STORES = ("mlflow", "sqlalchemy", "alembic")  # libraries whose errors say what is wrong with a store


def main(arguments: list[str] | None = None) -> int:
    """Run a command; whatever a user can mend goes to standard error in one line.

    Returns:
        0; 1 where standard output could not take all, or MLflow lacks a part; 2 where the command could not be done;
        130 where it was interrupted. What is a fault of ours is raised.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if sys.stderr is None:  # closed: print would take standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (for the rest of the process)
    try:
        try:
            return _command(words)
        finally:
            if sys.stdout is not None:
                with output():  # a full disk is met here and not as the interpreter leaves
                    sys.stdout.flush()
    except KeyboardInterrupt as error:
        return _fail(str(error) or "interrupted", 130)
    except OutputError as error:
        if sys.stdout is sys.__stdout__:  # let go, so that the interpreter does not try again
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _fail(f"standard output did not take all ({error})", 1)
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        return _fail(told, 2)


def _command(words: list[str]) -> int:
    if sys.stdout is None:
        raise PlaceError("standard output is closed; open it, or send it to a file")
    try:
        here = str(Path.cwd())
    except OSError:
        raise PlaceError("this folder is gone; change to one that is there") from None
    if here not in sys.path:
        sys.path.append(here)  # my_module:MyWorld is found where the command is started; worker processes get it too
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        from hybridalloc.errors import nearest

        raise nearest("command", words[0], COMMANDS)
    if words and words[0] in ("--version", "-V"):
        from hybridalloc import __version__

        write(f"hybridalloc {__version__}")
        return 0
    command: Any
    with output():
        if words and words[0] in COMMANDS:  # its own options alone: what is misspelt is looked for among them
            command = tyro.cli(readable(COMMANDS[words[0]]), args=words[1:], prog=f"hybridalloc {words[0]}")
        else:
            some = (Annotated[readable(c), tyro.conf.subcommand(name)] for name, c in COMMANDS.items())
            choice: Any = reduce(or_, some)
            command = tyro.cli(choice, args=words or ["--help"], prog="hybridalloc", description=GUIDE)
    check_fields(command, flag=True)
    if isinstance(command, Compare | Train | LearnValue | Evaluate | Step):
        from hybridalloc.experiments.progress import tell_of_compiling

        tell_of_compiling(not getattr(command, "quiet", False))
    return int(command.run())


def _told(error: Exception) -> str | None:
    """An error that a user can mend, in words; None of one that is a fault of ours."""
    from games.extras import EXTRAS, missing
    from hybridalloc.data.registry import DataError
    from hybridalloc.experiments.runlog import TrackingError

    if isinstance(error, BrokenPipeError):  # a worker's pipe, a server's
        return None
    if isinstance(error, OSError):
        return place_of(error)
    if isinstance(error, MemoryError):
        return "out of memory: give fewer agents, servers or --workers"
    if type(error).__module__.split(".")[0] in STORES:
        return f"MLflow: {type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}"
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return missing(error.name)
    known = ValueError | FloatingPointError | ImportError | DataError | TrackingError | WorkError
    return str(error) if isinstance(error, known) else None


def _fail(message: str, code: int) -> int:
    from hybridalloc.text import printable

    print(f"hybridalloc: {printable(message, None)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
