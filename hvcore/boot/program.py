"""Boots a static program in a partition: in 64-bit mode, with a stack and its tables at the top of RAM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvcore.boot.long_mode import block_size, enter_long_mode
from hvcore.boot.place import place, top_of_ram, write
from hvcore.memory import LARGE_PAGE_SIZE, PAGE_SIZE, parse_size

if TYPE_CHECKING:
    from hvcore.boot.elf import Image
    from hvcore.partition import Partition
    from hvcore.processor import VirtualProcessor

STACK_SIZE = 64 << 10


def boot(
    partition: Partition,
    vp: VirtualProcessor,
    image: Image,
    *,
    stack: int | str = STACK_SIZE,
    page_size: int | str = "2 MiB",
    table: bytes = b"",
) -> None:
    """Load `image` and make `vp` begin at its entry point: RDI = bytes of RAM, RSP = the top of a stack.

    All RAM is mapped at its own address in pages of `page_size`. RSI = where `table` lies, if it is not empty: an ACPI
    table, say, that tells the program of the machine.

    Raises
    ------
    ValueError
        The image does not fit into RAM below the stack and the tables.
    """
    ram = top_of_ram(partition)
    mapped = -(-ram // LARGE_PAGE_SIZE) * LARGE_PAGE_SIZE
    tables = (ram - block_size(mapped, page_size)) & -PAGE_SIZE
    top = tables - len(table) & -PAGE_SIZE
    image.require_inside(max(0, top - parse_size(stack, "stack", multiple_of=PAGE_SIZE)))
    place(partition, image)
    write(partition, top, table)
    enter_long_mode(partition, vp, rip=image.entry, rsp=top, identity_map=mapped, tables=tables, page_size=page_size)
    vp.rdi, vp.rsi = ram, top if table else 0
    vp.explicit_suspend = False
