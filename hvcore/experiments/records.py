"""What a trace consists of: records of 16 bytes, and the forms of a trace that every function here takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

RECORD = np.dtype([
    ("address", "<u8"),
    ("size", "<u2"),
    ("asid", "<u2"),
    ("kind", "u1"),
    ("page_shift", "u1"),
    ("nested_page_shift", "u1"),
    ("unused", "u1"),
])  # fmt: skip
"""One access: `record_t` of the native code. `size` in bytes (65535: that or more); page shifts are those of the
translation at both levels, 0 where they are not known."""

ASID_ALL = 0xFFFF
"""`asid` of a flush of every address space."""

LARGEST_SIZE = 0xFFFF
"""`size` of an access of that many bytes or more."""

CHUNK = 1 << 16
"""Records that are looked at together: a megabyte."""

Records: TypeAlias = NDArray[Any]
"""An array of RECORD."""

Trace: TypeAlias = "Records | NDArray[np.uint64] | Iterable[Records]"
"""Records, plain addresses (every one a load), or anything that gives chunks of records, like `read_trace`."""


class Kind(IntEnum):
    """What a record is. The first four are lackey's I, L, S and M; the others empty TLBs."""

    FETCH = 0
    LOAD = 1
    STORE = 2
    MODIFY = 3
    FLUSH = 4
    INVALIDATE = 5


LETTERS = "ILSM"
"""Kinds of accesses by letter."""


def kinds_of(letters: str) -> tuple[Kind, ...]:
    """The kinds that letters of "ILSM" name.

    Raises
    ------
    ValueError
        A letter is none of these, or there is none.
    """
    if not letters or set(letters) - set(LETTERS):
        raise ValueError(f"kinds must be letters of {LETTERS!r}, not {letters!r}")
    return tuple(Kind(LETTERS.index(letter)) for letter in LETTERS if letter in letters)


def make_records(
    address: Any,
    kind: Any = Kind.LOAD,
    *,
    size: Any = 0,
    asid: Any = 0,
    page_shift: Any = 0,
    nested_page_shift: Any = 0,
) -> Records:
    """Records from columns; what is not an array holds for all of them."""
    addresses = np.asarray(address, dtype=np.uint64)
    records = np.zeros(addresses.shape, dtype=RECORD)
    records["address"] = addresses
    for name, value in (("kind", kind), ("size", size), ("asid", asid), ("page_shift", page_shift)):
        records[name] = value
    records["nested_page_shift"] = nested_page_shift
    return records


def chunks_of(trace: Trace) -> Iterator[NDArray[Any]]:
    """The trace in pieces: arrays of RECORD, or of addresses where the trace has nothing else.

    Raises
    ------
    TypeError
        It is neither an array of RECORD or of 64-bit addresses, nor gives such arrays.
    """
    if isinstance(trace, np.ndarray):
        if trace.ndim != 1 or not (trace.dtype == RECORD or (trace.dtype.kind in "ui" and trace.dtype.itemsize == 8)):
            raise TypeError(f"a trace must be of RECORD or of 64-bit addresses in one dimension, not {trace.dtype}")
        for start in range(0, len(trace), CHUNK):
            yield trace[start : start + CHUNK]
        return
    if isinstance(trace, (str, bytes)) or not isinstance(trace, Iterable):
        raise TypeError(f"a trace must be an array or give chunks of records; for a file use read_trace: {trace!r}")
    for chunk in trace:
        if not isinstance(chunk, np.ndarray):
            raise TypeError(f"a trace must give arrays of records, not {type(chunk).__name__}")
        yield from chunks_of(chunk)


def as_records(chunk: NDArray[Any]) -> Records:
    """A piece of a trace as records; plain addresses become loads."""
    return chunk if chunk.dtype == RECORD else make_records(chunk)


def words_of(chunk: NDArray[Any]) -> NDArray[np.uint64]:
    """The same bytes as native code takes them: a row of two words for each record, of one for each address."""
    return np.ascontiguousarray(chunk).view(np.uint64).reshape(len(chunk), chunk.dtype.itemsize // 8)


LOAD_WORD = Kind.LOAD << 32
"""The second word of a record that is a load and says nothing more."""
