"""The one error for input that no solver can make sense of."""

from __future__ import annotations


class InvalidStateError(ValueError):
    """An input is outside its permitted range.

    The message names the field, the index, the value and what is permitted:
    ``"task_bits[3] = -2.0; bits must be finite and >= 0"``.
    """


class InvalidGameError(InvalidStateError):
    """A game's arrays are inconsistent or outside their permitted range."""
