"""Whether the numbers of a learner's settings can be what they say, told before a learner is made of them."""

from __future__ import annotations

from dataclasses import fields
from math import inf
from numbers import Integral, Real
from typing import Any

NONE = ("memory", "replay", "wait", "warmup")  # counts that may be 0
SHARES = ("gamma", "gae", "rate_floor", "target_rate")  # at most 1
# of which 0 would leave nothing
ABOVE = ("clip", "gradient_norm", "huber", "limit", "relaxation", "spread", "temperature", "truncation")


def check_numbers(config: Any) -> None:
    """Settings of a learner, a dataclass: each is a number, a truth value or text as its default is.

    Raises:
        ValueError: names the setting, its value and what it must be.
    """
    for field in fields(config):
        value, like = getattr(config, field.name), field.default
        if isinstance(like, bool):
            if not isinstance(value, bool):
                raise ValueError(f"{field.name} = {value!r:.60}; it must be true or false")
        elif isinstance(like, int):
            least = 0 if field.name in NONE else 1
            if not _is(value, Integral) or value < least:
                raise ValueError(f"{field.name} = {value!r:.60}; it must be a whole number >= {least}")
        elif isinstance(like, float):
            high, above = 1.0 if field.name in SHARES else inf, field.name in ABOVE
            if not _is(value, Real) or not 0 <= value <= high or (above and value == 0):
                wanted = "from 0 to 1" if high == 1 else "> 0" if above else ">= 0"
                raise ValueError(f"{field.name} = {value!r:.60}; it must be a number {wanted}")
        elif isinstance(like, str) and not isinstance(value, str):
            raise ValueError(f"{field.name} = {value!r:.60}; it must be text, such as {like!r}")


def _is(value: Any, kind: type[Any]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
