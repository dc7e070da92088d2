"""Reuse distances of a trace, and the miss curves of all LRU structures that follow from them in one pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hvcore._native.models import StackCore
from hvcore.experiments.records import LETTERS, Records, Trace, chunks_of, kinds_of
from hvcore.experiments.structures import page_shift


class StackDistances:
    """How many other pages of its set were used between two uses of a page, counted over a trace.

    Under true LRU a structure with this number of sets hits exactly the uses whose distance is below its ways
    (Mattson, Gecsei, Slutz, Traiger: Evaluation techniques for storage hierarchies, 1970). A page's set is its number
    modulo `sets`; one set is a fully associative structure.

    Parameters
    ----------
    sets : positive.
    page_size : 4 KiB, 2 MiB, 4 MiB or 1 GiB; all accesses are taken to be of this size.
    kinds : accesses that count, letters of "ILSM".

    Raises
    ------
    ValueError
        A parameter is out of range.
    """

    def __init__(self, *, sets: int = 1, page_size: int | str = "4 KiB", kinds: str = LETTERS) -> None:
        if not 1 <= sets <= 1 << 24:
            raise ValueError(f"sets must be 1 to {1 << 24}, not {sets}")
        self.sets, self.page_shift, self.kinds = sets, page_shift(page_size), kinds
        self._mask = sum(1 << kind for kind in kinds_of(kinds))
        self._core = StackCore(sets)

    def consume(self, records: Records) -> None:
        """Count one chunk of records."""
        self._core.add(records["address"], records["kind"], self.page_shift, self._mask, None)

    def distances(self, records: Records) -> NDArray[np.int64]:
        """Count one chunk, and say the distance of each access: -1 for a first use or another kind."""
        found = np.empty(len(records), np.int64)
        self._core.add(records["address"], records["kind"], self.page_shift, self._mask, found)
        return found

    @property
    def uses(self) -> int:
        """Accesses that counted."""
        return self._core.uses

    @property
    def pages(self) -> int:
        """Different pages: as many as first uses."""
        return self._core.cold

    @property
    def histogram(self) -> NDArray[np.uint64]:
        """Uses by distance; first uses are not in it."""
        return np.array(self._core.histogram(), dtype=np.uint64)

    def miss_curve(self) -> NDArray[np.uint64]:
        """Misses of LRU structures with these sets, by ways: element 0 (no way) is all uses, the last the first uses."""
        later = self.histogram[::-1].cumsum()[::-1]
        return np.append(later, np.uint64(0)).astype(np.uint64) + np.uint64(self.pages)

    def misses(self, ways: int) -> int:
        """Misses with so many ways in each set."""
        curve = self.miss_curve()
        return int(curve[min(ways, len(curve) - 1)])


def stack_distances(
    trace: Trace, *, sets: int = 1, page_size: int | str = "4 KiB", kinds: str = LETTERS
) -> StackDistances:
    """The stack distances of a whole trace; parameters as of StackDistances."""
    found = StackDistances(sets=sets, page_size=page_size, kinds=kinds)
    for chunk in chunks_of(trace):
        found.consume(chunk)
    return found
