"""Checks of addresses and sizes that users give; every complaint names the argument."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hvcore._native.table_builder import TableBuilder
from hvcore.memory import parse_size
from hvcore.paging.tables import Layout

_NAMES = {12: "4 KiB", 21: "2 MiB", 22: "4 MiB", 30: "1 GiB"}


def page_shift(page_size: int | str, layout: Layout, argument: str) -> int:
    """The base-two logarithm of a page size that tables of this layout have."""
    shift = parse_size(page_size, argument).bit_length() - 1
    if parse_size(page_size, argument) != 1 << shift or shift not in layout.page_shifts:
        sizes = " or ".join(_NAMES[one] for one in layout.page_shifts)
        raise ValueError(f"{argument} must be {sizes} with {layout.levels} levels, not {page_size!r}")
    return shift


def check_aligned(shift: int, **arguments: int) -> None:
    """Addresses and lengths are multiples of a page, and not negative."""
    for name, value in arguments.items():
        if not isinstance(value, int):
            raise TypeError(f"{name} must be an int, not {type(value).__name__}")
        if value < 0 or value % (1 << shift):
            raise ValueError(f"{name} must be a multiple of {1 << shift:#x}, not {value:#x}")


def check_range(name: str, address: int, size: int, limit: int) -> None:
    """[address, address + size) lies below `limit`."""
    if address + size > limit:
        raise ValueError(f"{name} {address:#x} with {size:#x} bytes reaches beyond {limit:#x}")


def start_in_tables(name: str, gva: int, size: int, layout: Layout) -> int:
    """`gva` without its sign extension, once it is sure that the run lies in what the tables can translate."""
    limit = 1 << layout.address_bits
    if layout.signed:
        half, top = limit >> 1, (1 << 64) - (limit >> 1)
        if gva + size > (half if gva < half else 1 << 64) or half <= gva < top:
            raise ValueError(f"{name} {gva:#x} with {size:#x} bytes is not canonical at {layout.levels} levels")
        return gva & (limit - 1)
    check_range(name, gva, size, limit)
    return gva


def check_cuts(builder: TableBuilder, name: str, start: int, size: int) -> None:
    """No page larger than what a change is about is cut by it."""
    for border in (start, start + size):
        if cut := builder.splits_page(border):
            raise ValueError(f"{name}: the change from {start:#x} with {size:#x} bytes would cut a page of {cut:#x}")


def check_identity(first: int, last: int, start: int, size: int) -> None:
    """A run of GPAs spares those of the guest's own tables, [first, last)."""
    if start < last and first < start + size:
        raise ValueError(f"gpa {start:#x} with {size:#x} bytes holds the guest's tables, {first:#x} to {last:#x}")


def unmapped(builder: TableBuilder, start: int, end: int, step: int) -> list[tuple[int, int]]:
    """The runs (first, end) of [start, end) that nothing maps. Raises ValueError unless they are pages of `step`."""
    gaps, position = [], start
    for first, length, *_ in builder.mappings:
        if first < end and first + length > position:
            gaps.append((position, first))
            position = first + length
    gaps = [(first, last) for first, last in [*gaps, (position, end)] if first < last]
    for first, last in gaps:
        if first % step or last % step:
            page = first // step * step if first % step else last // step * step
            raise ValueError(f"nested_page_size {step:#x} is too large: a part of the page at gpa {page:#x} is mapped")
    return gaps


def build_for_targets(builder: TableBuilder | None, targets: NDArray[np.uint64]) -> None:
    """Make the tables that map something to one of these places."""
    if builder is not None:
        for target in targets.tolist():
            for address in builder.find(target):
                builder.build(address, 1)
