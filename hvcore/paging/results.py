"""What a translation gives: a status, one translation, columns of many, and runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class TranslationStatus(IntEnum):
    """How a translation ended."""

    OK = 0
    NOT_PRESENT = 1
    """#PF: an entry of the guest's tables is not present."""
    DENIED = 2
    """#PF: the rights of the guest's tables, or a protection key, forbid the access."""
    RESERVED_BIT = 3
    """#PF: an entry of the guest's tables has a reserved bit set."""
    NOT_CANONICAL = 4
    """#GP or #SS: the address does not exist at this number of levels."""
    BEYOND_MEMORY = 5
    """Without a second level: a table, or the result, lies outside system memory."""
    TABLE_UNMAPPED = 6
    """The GPA of an entry of the guest's tables is mapped to nothing. TABLE_... and GPA_... are intercepts."""
    TABLE_DENIED = 7
    TABLE_OVERLAY = 8
    """A page of the hypervisor lies there that does not grant the access."""
    TABLE_MISCONFIGURED = 9
    """A second-level entry that no table may hold."""
    GPA_UNMAPPED = 10
    """The GPA that the guest's tables give is mapped to nothing."""
    GPA_DENIED = 11
    GPA_OVERLAY = 12
    GPA_MISCONFIGURED = 13


COLUMNS: Mapping[str, type[np.unsignedinteger[Any]]] = {
    "gpa": np.uint64,
    "spa": np.uint64,
    "page_shift": np.uint8,
    "nested_page_shift": np.uint8,
    "status": np.uint8,
    "error_code": np.uint8,
    "references": np.uint8,
    "nested_references": np.uint8,
}
"""The columns of a batch and their types."""


class Translation(NamedTuple):
    """One translation. What a failed one does not reach is 0; for TABLE_... `gpa` is that of the entry."""

    gpa: int
    spa: int
    page_shift: int
    nested_page_shift: int
    status: TranslationStatus
    error_code: int
    """Of the page fault; 0 for anything else."""
    references: int
    """Entries of the guest's tables that were read."""
    nested_references: int
    """Entries of the second level that were read for these and for the result."""


class Translations:
    """Columns of many translations, as attributes: arrays of the shape of the addresses.

    gpa, spa : uint64
    page_shift, nested_page_shift : uint8, base-two logarithms of the page sizes of both levels
    status : uint8, numbers of TranslationStatus
    error_code : uint8, of the page fault
    references, nested_references : uint8, table entries read at each level

    `out=` of a later call takes such an object and writes its arrays anew.
    """

    gpa: NDArray[np.uint64]
    spa: NDArray[np.uint64]
    page_shift: NDArray[np.uint8]
    nested_page_shift: NDArray[np.uint8]
    status: NDArray[np.uint8]
    error_code: NDArray[np.uint8]
    references: NDArray[np.uint8]
    nested_references: NDArray[np.uint8]

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        self.columns = dict(columns)

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name in COLUMNS:
            if name in self.columns:
                return self.columns[name]
            raise AttributeError(f"column {name!r} was not asked for: columns are {', '.join(self.columns)}", name=name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which succeeded."""
        return np.equal(self.status, TranslationStatus.OK)

    def __repr__(self) -> str:
        return f"Translations({', '.join(self.columns)}; {len(self)} addresses)"


RUN = np.dtype(
    [
        *((name, np.uint64) for name in ("gva", "gpa", "spa", "size")),
        *((name, np.uint8) for name in ("status", "error_code")),
    ],
    align=True,
)
"""One run as native code writes it."""


class Runs(NamedTuple):
    """Runs of addresses that go to consecutive places, or fail alike: arrays of equal length."""

    gva: NDArray[np.uint64]
    gpa: NDArray[np.uint64]
    """0 where the guest's tables give none."""
    spa: NDArray[np.uint64]
    """0 where there is none."""
    size: NDArray[np.uint64]
    """Bytes."""
    status: NDArray[np.uint8]
    error_code: NDArray[np.uint8]
