"""Memory as Python sees it: sizes like "64 MiB", free runs of root RAM, and regions that share their storage.

Nothing here maps pages; partition.py does, through hypercalls. Regions keep the machine's RAM alive.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvcore._native.space import SystemMemory

PAGE_SIZE = 4096
LARGE_PAGE_SIZE = 2 << 20

_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}


def parse_size(size: int | str, argument: str = "size", *, multiple_of: int = 1) -> int:
    """Bytes in `size`, an int or a text like "64 MiB".

    Raises
    ------
    ValueError
        `size` is no such text, not positive, or not a multiple of `multiple_of`. The message names `argument`.
    TypeError
        `size` is neither int nor str.
    """
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]*)\s*", size)
        if match is None or match[2].upper() not in _UNITS:
            raise ValueError(f'{argument} must be a size like "64 MiB", not {size!r}')
        count = int(match[1]) * _UNITS[match[2].upper()]
    elif isinstance(size, int):
        count = size
    else:
        raise TypeError(f"{argument} must be an int or a text like '64 MiB', not {type(size).__name__}")
    if count <= 0 or count % multiple_of:
        raise ValueError(f"{argument} must be a positive multiple of {multiple_of:#x}, not {count:#x}")
    return count


def parse_page_size(size: int | str, argument: str = "page_size") -> int:
    """4 KiB or 2 MiB in bytes. Raises ValueError, naming `argument`, for anything else."""
    page = parse_size(size, argument)
    if page not in (PAGE_SIZE, LARGE_PAGE_SIZE):
        raise ValueError(f'{argument} must be "4 KiB" or "2 MiB", not {size!r}')
    return page


def clear(memory: SystemMemory, spa: int, size: int) -> None:
    """Make every byte zero, without committing host pages that were never touched."""
    for start in range(spa, spa + size, LARGE_PAGE_SIZE):
        length = min(LARGE_PAGE_SIZE, spa + size - start)
        export: Any = memory.view(start, length)
        if np.frombuffer(export, np.uint64).any():
            memory.zero(start, length)


class FreePages:
    """The pages of root RAM that nobody uses yet, as runs. Python's own allocator: a guest root has its own.

    Runs are taken from the top of RAM, so that low memory stays free for what is loaded into the root.
    """

    def __init__(self, first: int, count: int) -> None:
        self._runs: list[tuple[int, int]] = [(first, count)]
        self._taken = np.zeros(first + count, np.bool_)

    @property
    def available(self) -> int:
        """Pages in all runs."""
        return sum(count for _, count in self._runs)

    def allocate(self, count: int, *, align: int = 1) -> int:
        """The first page number of `count` consecutive pages. Raises MemoryError when no run is long enough."""
        for position in range(len(self._runs) - 1, -1, -1):
            first, length = self._runs[position]
            start = (first + length - count) // align * align
            if start >= first:
                after = start + count
                parts = [(first, start - first), (after, first + length - after)]
                self._runs[position : position + 1] = [part for part in parts if part[1]]
                self._taken[start:after] = True
                return start
        raise MemoryError(f"root RAM has no run of {count} free pages aligned to {align}")

    def release(self, pages: NDArray[np.uint64]) -> None:
        """Give pages back; those that `allocate` did not give out are left to whoever has them."""
        pages = np.unique(pages)
        pages = pages[self._taken[pages]]
        self._taken[pages] = False
        breaks = np.flatnonzero(np.diff(pages) != 1) + 1
        returned = [(int(run[0]), run.size) for run in np.split(pages, breaks) if run.size]
        merged: list[tuple[int, int]] = []
        for start, length in sorted(self._runs + returned):
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((start, length))
        self._runs = merged


class MemoryRegion:
    """A run of RAM mapped into a partition: bytes by slices, and `view`, a NumPy array that shares the storage.

    Offsets count from the start of the region. `close` unmaps it, which is an error while a view is alive.
    """

    def __init__(self, memory: SystemMemory, *, gpa: int, spa: int, size: int, unmap: Callable[[], None]) -> None:
        self.gpa = gpa
        self.spa = spa
        self.size = size
        self._memory = memory
        self._export = memory.view(spa, size)
        self._unmap: Callable[[], None] | None = unmap

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"MemoryRegion(gpa={self.gpa:#x}, size={self.size:#x}, spa={self.spa:#x})"

    @property
    def closed(self) -> bool:
        """The region was unmapped."""
        return self._unmap is None

    @property
    def view(self) -> NDArray[np.uint8]:
        """All bytes, writable, sharing storage with the guest."""
        self._require_open()
        export: Any = self._export
        return np.frombuffer(export, np.uint8)

    def __getitem__(self, key: int | slice) -> Any:
        self._require_open()
        if isinstance(key, slice):
            start, stop = self._bounds(key)
            return self._memory.read(self.spa + start, stop - start)
        return self._memory.read(self.spa + self._offset(key), 1)[0]

    def __setitem__(self, key: int | slice, value: Any) -> None:
        self._require_open()
        if isinstance(key, slice):
            start, stop = self._bounds(key)
            length = memoryview(value).nbytes
            if length != stop - start:
                raise ValueError(f"value has {length} bytes, the slice {stop - start}: a region cannot change its size")
            self._memory.write(self.spa + start, value)
        else:
            self._memory.write(self.spa + self._offset(key), bytes([value]))

    def require_no_views(self) -> None:
        """Raise BufferError while a NumPy view of the region is alive."""
        if self._export.exports:
            raise BufferError(f"{self!r} has {self._export.exports} live views: delete them before unmapping")

    def close(self) -> None:
        """Unmap the region and give its pages back to the root.

        Raises
        ------
        BufferError
            A NumPy view of the region is still alive.
        """
        if self._unmap is not None:
            self.require_no_views()
            self._unmap()
            self._unmap = None

    def _require_open(self) -> None:
        if self._unmap is None:
            raise ValueError(f"{self!r} was unmapped")

    def _offset(self, key: int) -> int:
        offset = key + self.size if key < 0 else key
        if not 0 <= offset < self.size:
            raise IndexError(f"offset {key:#x} is outside {self!r}")
        return offset

    def _bounds(self, key: slice) -> tuple[int, int]:
        if key.step not in (None, 1):
            raise ValueError("a region is sliced without a step: use view for that")
        start = 0 if key.start is None else key.start
        stop = self.size if key.stop is None else key.stop
        if not 0 <= start <= stop <= self.size:
            raise IndexError(f"slice [{start:#x}:{stop:#x}] is outside {self!r}")
        return start, stop
