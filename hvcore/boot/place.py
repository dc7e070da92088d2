"""Puts bytes and programs into the memory of a partition, at guest physical addresses.

Overlay pages and the second level count, as for the guest's own stores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hvcore.memory import PAGE_SIZE, clear

if TYPE_CHECKING:
    from hvcore.boot.elf import Image
    from hvcore.partition import Partition


def top_of_ram(partition: Partition) -> int:
    """The first address behind the RAM of the root, or behind the regions that were mapped into a child."""
    if partition.parent is None:
        return partition.hypervisor.memory.size
    return max((region.gpa + region.size for region in partition.regions), default=0)


def write(partition: Partition, gpa: int, data: bytes) -> None:
    """Store `data` at `gpa`. Raises ValueError, before anything is stored, if a page of it is not mapped."""
    memory = partition.hypervisor.memory
    done = 0
    for spa, size in list(_pieces(partition, gpa, len(data))):
        memory.write(spa, data[done : done + size])
        done += size


def zero(partition: Partition, gpa: int, size: int) -> None:
    """Clear `size` bytes at `gpa`. Raises ValueError, before anything is cleared, if a page of it is not mapped."""
    memory = partition.hypervisor.memory
    for spa, length in list(_pieces(partition, gpa, size)):
        if spa % PAGE_SIZE or length % PAGE_SIZE:
            memory.zero(spa, length)
        else:
            clear(memory, spa, length)


def place(partition: Partition, image: Image) -> None:
    """Copy the segments of a program to their addresses, zeros behind them."""
    for segment in image.segments:
        write(partition, segment.address, segment.data)
        zero(partition, segment.address + len(segment.data), segment.memory_size - len(segment.data))


def _pieces(partition: Partition, gpa: int, size: int) -> Iterator[tuple[int, int]]:
    """(SPA, bytes) of each page that a range touches."""
    while size:
        found = partition.space.resolve(gpa)
        if found is None:
            raise ValueError(f"no memory is mapped at gpa {gpa:#x}")
        spa, _, shift, _ = found
        piece = min(size, (1 << shift) - (gpa & (1 << shift) - 1))
        yield spa, piece
        gpa += piece
        size -= piece
