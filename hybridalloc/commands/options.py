"""How the options of a command read in its help: a kind of value, and a default only where it says something."""

from __future__ import annotations

import types
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

WORDS: dict[Any, str] = {str: "TEXT", int: "INT", float: "NUMBER", Path: "PATH", bool: "{True,False}"}
NOTHING = (None, "", ())


def readable(command: type[Any]) -> type[Any]:
    """The command, a dataclass, with options that say ``--resume PATH`` where they may be left out, instead of
    ``{None}|PATH``, and no default where that is nothing."""
    hints = get_type_hints(command, include_extras=True)
    for field in fields(command):
        hint, default = hints[field.name], field.default
        if default is MISSING or default not in NOTHING:
            continue
        word = _word(hint)
        hints[field.name] = Annotated[hint, tyro.conf.arg(help_behavior_hint="", metavar=word)]
    own = {name: known for name, known in command.__dataclass_fields__.items() if name in command.__annotations__}
    command.__dataclass_fields__ = own | command.__dataclass_fields__  # what is shared stands last
    command.__annotations__ = {name: hints[name] for name in command.__dataclass_fields__}
    return command


def _word(hint: Any) -> str | None:
    """The kind of value of an option that may be None; None of any other."""
    if get_origin(hint) is Annotated:
        return _word(get_args(hint)[0])
    if get_origin(hint) not in (Union, types.UnionType):
        return None
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    if len(kinds) == len(get_args(hint)):
        return None
    if len(kinds) == 1 and get_origin(kinds[0]) is Literal:
        return "{" + ",".join(map(str, get_args(kinds[0]))) + "}"
    return "|".join(WORDS.get(kind, getattr(kind, "__name__", str(kind)).upper()) for kind in kinds)
