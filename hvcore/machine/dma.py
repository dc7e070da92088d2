"""What an access by DMA is made of: checked arguments, pages, and the columns of translated addresses."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hvcore._native.iommu import COLUMNS, device_addresses
from hvcore.paging.results import Translations
from hvcore.wiring import MSI_ADDRESSES

_PAGE = 4096


class DeviceTranslations(Translations):
    """Columns of translated device addresses: those of a processor's, with numbers of RemapStatus as `status`,
    `reason`, the fault reason of the unit, for the error code, and `table_references`, entries of root, context and
    PASID tables that were read."""

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name in COLUMNS:
            return self.columns[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name)


def integer(value: Any, name: str) -> int:
    """An argument as an integer. Raises TypeError, naming it."""
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None


def buffer(value: Any, name: str, *, writable: bool = False) -> memoryview:
    """The bytes of an argument. References to Python objects are none that a device may see, or change."""
    try:
        view = memoryview(value)
        if "O" in view.format:
            raise TypeError("its elements are Python objects")
        found = view.cast("B")
    except TypeError as error:
        raise TypeError(f"{name} must be a contiguous buffer, not {type(value).__name__}: {error}") from None
    if writable and found.readonly:
        raise TypeError(f"{name} must be writable")
    return found


def are_messages(addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which stores of four bytes are interrupt messages."""
    first, last = map(np.uint64, MSI_ADDRESSES)
    found: NDArray[np.bool_] = (addresses >= first) & (addresses <= last) & (addresses & np.uint64(3) == 0)
    return found


def require_range(iova: int, size: int) -> None:
    """TypeError or ValueError unless it is a range of addresses."""
    iova, size = integer(iova, "iova"), integer(size, "size")
    if size < 0 or not 0 <= iova <= (1 << 64) - size:
        raise ValueError(f"iova {iova:#x} with {size:#x} bytes is no range of 64-bit addresses")


def parts(iovas: ArrayLike, size: int) -> tuple[NDArray[np.uint64], int]:
    """The addresses, and the bytes of each part."""
    addresses = device_addresses(iovas)
    if not addresses.size or size % addresses.size:
        raise ValueError(f"{size} bytes do not divide into {addresses.size} equal parts")
    return addresses, size // addresses.size


def require_room(addresses: NDArray[np.uint64], part: int) -> None:
    """ValueError if a part of a batch would end behind 2**64."""
    if part and int(addresses.max()) > (1 << 64) - part:
        raise ValueError(f"iovas must leave room for {part} bytes below 2**64, not be {addresses.max():#x}")


def pages(iova: int, size: int) -> list[tuple[int, int]]:
    """(address, bytes) of what a range has in each page."""
    found = []
    end = iova + size
    while iova < end:
        piece = min(end - iova, _PAGE - iova % _PAGE)
        found.append((iova, piece))
        iova += piece
    return found
