"""What a terminal is told of long work."""

from __future__ import annotations

import numba

from hybridalloc.experiments.progress import tell_of_compiling


def test_compiling_is_told_once_and_only_when_it_happens(capsys):
    tell_of_compiling()
    tell_of_compiling()  # as by two commands in one process
    assert capsys.readouterr().err == ""
    for shift in (1, 2):
        assert numba.njit(lambda x, shift=shift: x + shift)(1) == 1 + shift
    assert capsys.readouterr().err.count("compiling kernels") == 1
    tell_of_compiling(False)  # as by a quiet one after them
    assert numba.njit(lambda x: x + 3)(1) == 4
    assert capsys.readouterr().err == ""
