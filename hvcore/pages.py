"""Who uses which page of RAM, and what each partition's GPA space names (TLFS 5.7, 7; hyperv-abi.md 4.3, 4.4, 11.2).

`PageOwners` has one row per page of the machine. `Mappings` pairs the second-level tables of one partition with a
record of what is mapped where, so that a page withdrawn by a parent also leaves the spaces below (section 13, #43).
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from hvcore._native.space import EXECUTE, READ, WRITE, GpaSpace

Pages = NDArray[np.uint64]

RWX = READ | WRITE | EXECUTE
LARGE = 512

# An entry of a Mappings record: rights in bits 2:0, then these two bits, then the system page number.
PRESENT = 1 << 3
LOCKED = 1 << 4
SPN_SHIFT = 5


class PageOwners:
    """The uses of every page of RAM, as one column per question."""

    def __init__(self, page_count: int) -> None:
        self.page_count = page_count
        self.pool = np.zeros(page_count, np.uint32)
        """Id of the partition whose pool holds the page; 0 while it is ordinary RAM."""
        self.shared = np.zeros(page_count, np.uint32)
        """How many mappings in partitions below the root name the page."""
        self.held = np.zeros(page_count, np.bool_)
        """The page backs a memory region that Python code holds."""
        self.denied = np.zeros(page_count, np.uint8)
        """Rights that the root took from itself."""


def spns_of(entries: Pages) -> Pages:
    """The system page numbers in record entries."""
    return entries >> np.uint64(SPN_SHIFT)


def run_of(first: int, count: int) -> Pages:
    """Consecutive page numbers."""
    return np.arange(first, first + count, dtype=np.uint64)


class Mappings:
    """The GPA space of one partition below the root: its tables, and the record of what they map."""

    def __init__(self, space: GpaSpace, owners: PageOwners) -> None:
        self.space = space
        self.owners = owners
        self.below: list[Mappings] = []
        """The spaces of the child partitions, and of device domains, whose mappings name pages of this one."""
        self.on_loss: list[Callable[[], None]] = []
        """Called when pages have left the space, or have lost rights: whoever caches translations forgets them."""
        self._chunks: dict[int, Pages] = {}

    def entries(self, gpns: Pages) -> Pages:
        """The record of each page in `gpns`: 0 where nothing is mapped."""
        found = np.zeros(gpns.size, np.uint64)
        for key, where in self._by_chunk(gpns):
            chunk = self._chunks.get(key)
            if chunk is not None:
                found[where] = chunk[gpns[where] % LARGE]
        return found

    def place(self, gpn: int, spns: Pages, rights: int, *, large: bool = False) -> int:
        """Map consecutive pages from `gpn`; how many were mapped before the pool ran out of pages for tables."""
        placed = self.space.map(gpn, spns, rights=rights, large=large)
        spns = (spns[:placed, None] + run_of(0, LARGE)).ravel() if large else spns[:placed]
        self._replace(run_of(gpn, spns.size), (spns << np.uint64(SPN_SHIFT)) | np.uint64(PRESENT | rights))
        return placed

    def remove(self, gpn: int, count: int, *, large: bool = False) -> int:
        """Unmap consecutive pages; fewer when splitting a large page found the pool empty."""
        removed = self.space.unmap(gpn, count, large=large)
        gpns = run_of(gpn, removed * LARGE if large else removed)
        self._replace(gpns, np.zeros(gpns.size, np.uint64))
        return removed

    def lock(self, gpn: int, spn: int) -> bool:
        """Take the page at `gpn` out of the space while a pool holds it; False when the tables could not be split."""
        if not self.space.unmap(gpn, 1):
            return False
        self._replace(run_of(gpn, 1), np.array([(spn << SPN_SHIFT) | LOCKED], np.uint64))
        return True

    def unlock(self, gpn: int, spn: int) -> bool:
        """Map a page that `lock` took away again, with every right; False when there is no page for a table."""
        return self.place(gpn, np.array([spn], np.uint64), RWX) == 1

    def clear(self) -> None:
        """Forget every mapping and give the tables back."""
        for chunk in self._chunks.values():
            self._count(chunk, -1)
        self._chunks.clear()
        self.space.destroy()
        self._lost()

    def revoke(self, spns: Pages) -> None:
        """Take pages that this partition lost out of every space below it (section 13, #43)."""
        shared = spns[self.owners.shared[spns] > 0]
        if shared.size:
            for below in self.below:
                below.drop(shared)

    def drop(self, spns: Pages) -> None:
        """Unmap every page whose system page is in `spns`, here and below."""
        for key, chunk in list(self._chunks.items()):
            hit = ((chunk & np.uint64(PRESENT)) != 0) & np.isin(spns_of(chunk), spns)
            for offset in np.flatnonzero(hit):
                self.remove(key * LARGE + int(offset), 1)

    def _replace(self, gpns: Pages, entries: Pages) -> None:
        before = self.entries(gpns)
        self._store(gpns, entries)
        self._count(entries, +1)
        self._count(before, -1)
        moved = spns_of(before) != spns_of(entries)
        weaker = (before & ~entries & np.uint64(RWX | PRESENT)) != 0
        gone = spns_of(before[((before & np.uint64(PRESENT)) != 0) & (moved | weaker)])
        self.revoke(gone)
        if gone.size:
            self._lost()

    def _lost(self) -> None:
        for forget in self.on_loss:
            forget()

    def _store(self, gpns: Pages, entries: Pages) -> None:
        for key, where in self._by_chunk(gpns):
            self._chunks.setdefault(key, np.zeros(LARGE, np.uint64))[gpns[where] % LARGE] = entries[where]

    def _count(self, entries: Pages, step: int) -> None:
        spns = spns_of(entries[(entries & np.uint64(PRESENT)) != 0])
        np.add.at(self.owners.shared, spns, np.uint32(step % (1 << 32)))

    @staticmethod
    def _by_chunk(gpns: Pages) -> Iterator[tuple[int, NDArray[np.intp]]]:
        keys = gpns // LARGE
        for key in np.unique(keys):
            yield int(key), np.flatnonzero(keys == key)


class RootMappings(Mappings):
    """The root's space: every page of RAM at its own address, but for deposited pages and rights given up."""

    def entries(self, gpns: Pages) -> Pages:
        """The record of each page in `gpns`, computed from the owners table."""
        inside = gpns < self.owners.page_count
        spns = np.where(inside, gpns, np.uint64(0))
        deposited = self.owners.pool[spns] != 0
        rights = np.uint64(RWX) & ~self.owners.denied[spns].astype(np.uint64)
        state = np.where(deposited, np.uint64(LOCKED), np.uint64(PRESENT) | rights)
        return np.where(inside, (spns << np.uint64(SPN_SHIFT)) | state, np.uint64(0))

    def protect(self, gpn: int, count: int, rights: int, *, large: bool = False) -> int:
        """Change the root's own rights on consecutive pages; fewer when a large page could not be split.

        The identity is mapped anew, because tables do not remember a page without rights.
        """
        step = LARGE if large else 1
        changed = self.space.map(gpn, gpn + run_of(0, count) * np.uint64(step), rights=rights, large=large)
        spns = run_of(gpn, changed * step)
        weaker = spns[(~self.owners.denied[spns] & RWX & ~rights) != 0]
        self.owners.denied[spns] = RWX & ~rights
        self.revoke(weaker)
        if weaker.size:
            self._lost()
        return changed

    def _store(self, gpns: Pages, entries: Pages) -> None:
        unlocked = (entries & np.uint64(LOCKED)) == 0
        self.owners.denied[gpns[unlocked]] = 0

    def _count(self, entries: Pages, step: int) -> None:
        """The root's own identity mapping is not a sharing."""
