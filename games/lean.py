"""Options of compiled functions.

``KEPT`` keeps what was compiled beside the source, and leaves out what C would call it by, which nobody does here.
The others are for functions that allocate nothing.

Numba counts references to every array that a function takes from a tuple, and a count is an atomic operation: in a
function that takes a microsecond and reads twenty arrays, that is most of its time. ``LEAN`` leaves the counts out,
which is right where a function makes no array of its own; views of what it was given are none. ``INLINE`` also has the
caller contain it: a tuple of fifty arrays is otherwise copied, word by word, in each call. Who is called inherits the
options that it does not set: ``ROOMY`` is for those that do make arrays. ``INNER`` leaves out what unpacks the
arguments of a call from Python, most of the compile time of a short function of a long tuple: such a call would crash.
"""

from __future__ import annotations

from typing import Any

KEPT: dict[str, Any] = {"cache": True, "no_cfunc_wrapper": True}
LEAN = KEPT | {"error_model": "numpy", "nogil": True, "_nrt": False, "no_cpython_wrapper": False}
ROOMY = LEAN | {"_nrt": True}
INNER = LEAN | {"no_cpython_wrapper": True}
INLINE = LEAN | {"forceinline": True}
