"""What a trace consists of: records of 16 bytes, and the forms of a trace that every function here takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

RECORD = np.dtype(
    {
        "names": ["address", "size", "asid", "kind", "page_shift", "nested_page_shift"],
        "formats": ["<u8", "<u2", "<u2", "u1", "u1", "u1"],
        "offsets": [0, 8, 10, 12, 13, 14],
        "itemsize": 16,
    }
)
"""One access: `record_t` of the native code. `size` in bytes (65535: that or more); page shifts are those of the
translation at both levels, 0 where they are not known."""

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


def chunks_of(trace: Trace) -> Iterator[Records]:
    """The trace as chunks of records.

    Raises
    ------
    TypeError
        It is neither an array of RECORD or of unsigned 64-bit addresses, nor gives such arrays.
    """
    if isinstance(trace, np.ndarray):
        if trace.ndim != 1:
            raise TypeError(f"a trace must have one dimension, not {trace.ndim}")
        for start in range(0, len(trace), CHUNK):
            yield _records(trace[start : start + CHUNK])
    else:
        if isinstance(trace, (str, bytes)) or not isinstance(trace, Iterable):
            raise TypeError(f"a trace must be an array or give chunks of records; for a file use read_trace: {trace!r}")
        for chunk in trace:
            if not isinstance(chunk, np.ndarray):
                raise TypeError(f"a trace must give arrays of records, not {type(chunk).__name__}")
            yield from chunks_of(chunk)


def _records(part: NDArray[Any]) -> Records:
    if part.dtype == RECORD:
        return part
    if part.dtype.kind in "ui" and part.dtype.itemsize == 8:
        return make_records(part)
    raise TypeError(f"a trace must be of hvcore.experiments.RECORD or of unsigned 64-bit addresses, not {part.dtype}")
