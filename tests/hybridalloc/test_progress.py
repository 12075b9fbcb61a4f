"""What a terminal is told of long work."""

from __future__ import annotations

import numba
from numba.core import event

from hybridalloc.progress import tell_of_compiling


def test_compiling_is_told_once_and_only_when_it_happens(capsys):
    before = list(event._registered["numba:compile"])
    try:
        tell_of_compiling()
        assert capsys.readouterr().err == ""
        for shift in (1, 2):
            assert numba.njit(lambda x, shift=shift: x + shift)(1) == 1 + shift
        assert capsys.readouterr().err.count("compiling kernels") == 1
    finally:
        event._registered["numba:compile"][:] = before
