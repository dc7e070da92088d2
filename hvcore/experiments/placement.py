"""Accesses of a trace where an address space puts them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvcore.experiments.records import Kind, Records

_ACCESS = np.array([4, 1, 2, 3, 1], np.uint8)
"""Rights that each kind needs, as AddressSpace.translate takes them: execute, read, write, both, and any for events."""


def require_levels(space: Any, levels: tuple[int, int]) -> None:
    """Raise ValueError if `space` is walked in other levels than a model's, guest and nested."""
    wanted = getattr(space, "walk_levels", levels)
    if wanted != levels:
        raise ValueError(f"levels and nested_levels of the model are {levels}, those of the space {wanted}")


def placed(records: Records, space: Any) -> tuple[Records, NDArray[np.uint64], NDArray[np.bool_]]:
    """The records that `space` translates, with its page sizes, their guest-physical addresses, and which they are."""
    found = space.translate(records["address"], _ACCESS[np.minimum(records["kind"], Kind.FLUSH)])
    reached = (np.asarray(found.status) == 0) | (records["kind"] >= Kind.FLUSH)
    placed = records[reached]
    placed["page_shift"] = np.asarray(found.page_shift)[reached]
    placed["nested_page_shift"] = np.asarray(found.nested_page_shift)[reached]
    return placed, np.ascontiguousarray(np.asarray(found.gpa)[reached], dtype=np.uint64), reached
