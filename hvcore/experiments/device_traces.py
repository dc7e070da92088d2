"""What devices ask for as records: a trace of device addresses, one record for each request that an IOMMU would see."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hvcore.experiments.records import LARGEST_SIZE, Kind, Records, make_records

PAGE = 4096


def requests_of(iovas: ArrayLike, size: int, kind: Kind = Kind.LOAD, *, asid: int = 0) -> Records:
    """Records of a device that reads or writes `size` bytes at each address, cut where a page of 4 KiB ends.

    Parameters
    ----------
    iovas : uint64, any number of device addresses.
    size : bytes at each of them, positive.
    kind : Kind.LOAD or Kind.STORE.
    asid : what tells the device's address space from others: its domain, 0 to 65534.

    Returns
    -------
    records
        In order: all requests of the first address, then those of the second. Behind 2^64 - 1 comes 0.

    Raises
    ------
    ValueError
        `size` is not positive.
    """
    first = np.ascontiguousarray(iovas, np.uint64).reshape(-1)
    if size <= 0:
        raise ValueError(f"size must be positive, not {size}")
    start = first & np.uint64(PAGE - 1)
    counts = (start + np.uint64(size + PAGE - 1)) // np.uint64(PAGE)
    if first.size == 0 or counts.max() == 1:
        return make_records(first, kind, size=min(size, LARGEST_SIZE), asid=asid)
    which = np.repeat(np.arange(first.size), counts.astype(np.intp))
    piece = np.arange(which.size, dtype=np.uint64) - np.repeat(np.cumsum(counts) - counts, counts.astype(np.intp))
    begins = np.where(piece == 0, first[which], (first - start)[which] + piece * np.uint64(PAGE))
    room: Any = np.uint64(PAGE) - (begins & np.uint64(PAGE - 1))
    left = np.uint64(size) - (begins - first[which])
    return make_records(begins, kind, size=np.minimum(room, left), asid=asid)
