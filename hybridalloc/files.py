"""Files written whole or not at all, and archives of arrays read as data, whatever is in them."""

from __future__ import annotations

import math
import os
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hybridalloc.errors import CheckpointError
from hybridalloc.text import printable

MOST_ENTRIES, MOST_BYTES = 10_000, 2**30  # arrays of an archive, and what they may take in memory together
KINDS = "biufU"  # dtypes that are read: flags, numbers and text


@contextmanager
def whole_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A stream whose bytes become ``path`` when the block ends; an error in it leaves what was there before.

    The bytes go to a file beside the target, under a name that no other process or thread has, which then takes the
    target's place: of several writers the last one wins, and a reader never sees half a file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name[:100]}.{os.getpid()}-{secrets.token_hex(6)}.partial")
    try:
        with partial.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` as UTF-8, see :func:`whole_file`."""
    with whole_file(path) as stream:
        stream.write(text.encode())
    return Path(path)


def read_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name. Nothing is unpickled, and no memory is taken before its size is known.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no such archive, is damaged, or holds more than ``MOST_BYTES``; says what and where.
    """
    try:
        with Path(path).open("rb") as stream, zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
            _check_directory(entries, _stated(stream))
            return {_name(entry): _read_array(archive, entry) for entry in entries}
    except FileNotFoundError:
        raise
    except Exception as error:  # of damaged bytes zipfile, zlib and numpy say so in a dozen ways
        raise ValueError(str(error).split("\n")[0] or type(error).__name__) from None


def read_kept(path: str | Path, what: str) -> dict[str, NDArray[Any]]:
    """:func:`read_arrays` of a file that holds ``what``, such as "belief".

    Raises:
        CheckpointError: no such file, or a damaged one, which is left as it is.
    """
    try:
        return read_arrays(path)
    except FileNotFoundError:
        raise CheckpointError(f"no {what} at {path}") from None
    except ValueError as error:
        reason = printable(error, 200)
        raise CheckpointError(f"{path} is truncated or not a {what} ({reason}); it was left as it is") from None


def _stated(stream: IO[bytes]) -> int:
    """The number of entries that an archive's last record states, which zipfile does not compare with its directory."""
    here = stream.tell()
    stream.seek(-22, os.SEEK_END)
    record = stream.read(22)
    stream.seek(here)
    if record[:4] != b"PK\5\6":
        raise ValueError("something follows its last record")
    return int.from_bytes(record[10:12], "little")


def _check_directory(entries: list[zipfile.ZipInfo], stated: int) -> None:
    if len(entries) != stated:
        raise ValueError(f"its directory has {len(entries)} entries where {stated} are stated")
    names = [entry.filename for entry in entries]
    if len(names) > MOST_ENTRIES or len(set(names)) < len(names):
        raise ValueError(f"its {len(names)} entries are more than {MOST_ENTRIES:,}, or two have one name")
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"an entry is compressed by method {entry.compress_type}; stored and deflated are read")
    total = sum(entry.file_size for entry in entries)
    if total > MOST_BYTES:
        raise ValueError(f"it holds {total:,} bytes; at most {MOST_BYTES:,} are read")


def _name(entry: zipfile.ZipInfo) -> str:
    if not entry.filename.endswith(".npy"):
        raise ValueError("an entry is not an array (.npy)")
    return entry.filename.removesuffix(".npy")


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """One array; its header must account for every byte that the directory states."""
    with archive.open(entry) as stream:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind not in KINDS or min(shape, default=0) < 0 or stream.tell() + size != entry.file_size:
            raise ValueError(f"an array of shape {shape} and dtype {dtype} does not fit its {entry.file_size:,} bytes")
    with archive.open(entry) as stream:
        array = np.asarray(npy.read_array(stream, allow_pickle=False))
        stream.read(1)  # to the end, where the check sum is compared
        return array
