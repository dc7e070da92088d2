"""Puts a virtual processor into 64-bit mode, as a boot loader leaves it: flat segments, memory mapped at its own
addresses, interrupts off (SDM 3A 10.8.5).

What must lie in memory for that is one block: a GDT page, an IDT page of empty gates, and the page tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from hvcore._native.engine import Segment, Table
from hvcore.boot.place import top_of_ram, write
from hvcore.memory import LARGE_PAGE_SIZE, PAGE_SIZE, parse_page_size, parse_size

if TYPE_CHECKING:
    from hvcore.partition import Partition
    from hvcore.processor import VirtualProcessor

CODE: Final = 0x08
DATA: Final = 0x10
USER_CODE: Final = 0x1B
USER_DATA: Final = 0x23

_GDT = (0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x00AF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF)
_CODE_ATTRIBUTES = 0xA09B
_DATA_ATTRIBUTES = 0xC093
_USER_LEVEL = 3 << 5
"""DPL 3."""
_LDT_ATTRIBUTES = 0x0082
_TSS_ATTRIBUTES = 0x008B
_FLAT_LIMIT = 0xFFFF_FFFF

_CR0 = 0x8001_0031
"""PG, WP, NE, ET, PE."""
_CR4 = 0x0000_0620
"""OSXMMEXCPT, OSFXSR, PAE."""
_EFER = 0x0000_0D01
"""NXE, LMA, LME, SCE."""
_RFLAGS = 0x2
_MXCSR = 0x1F80

_TABLE_BITS = 9
_TABLE_ENTRIES = 1 << _TABLE_BITS
_LEAF = 0x63
"""Present, writable, accessed, dirty."""
_LARGE = 0x80
_LINK = 0x27
"""Present, writable, user, accessed: the leaves decide."""
_USER = 0x4
_DESCRIPTOR_PAGES = 2


def block_size(identity_map: int | str, page_size: int | str = "2 MiB") -> int:
    """Bytes that descriptor tables and page tables take for an identity map of that size."""
    mapped, large = _sizes(identity_map, page_size)
    counts = [-(-mapped // (LARGE_PAGE_SIZE << _TABLE_BITS * level)) for level in range(4)]
    return (_DESCRIPTOR_PAGES + sum(counts[large:])) * PAGE_SIZE


def enter_long_mode(
    partition: Partition,
    vp: VirtualProcessor,
    *,
    rip: int,
    rsp: int,
    identity_map: int | str,
    tables: int | None = None,
    page_size: int | str = "2 MiB",
    user: bool = False,
) -> None:
    """Write the tables and set the registers; the general registers other than RSP are zero.

    The local APIC is software-enabled, with the spurious vector FFh, as firmware would leave it; after a mere reset it
    is not (SDM 3A 11.4.7.1), and interrupts of SINTs are lost.

    Parameters
    ----------
    identity_map : bytes from address 0 that are mapped at their own address, readable, writable, executable.
    tables : GPA of the block, a multiple of 4096. Default: the top of RAM.
    page_size : "4 KiB" or "2 MiB".
    user : run at CPL 3; memory is then accessible there.

    Raises
    ------
    ValueError
        A size or address is illegal, or the block does not lie in mapped RAM.
    """
    size = block_size(identity_map, page_size)
    if tables is None:
        tables = top_of_ram(partition) - size & -PAGE_SIZE
    if tables % PAGE_SIZE or tables < 0:
        raise ValueError(f"tables must be a multiple of 0x1000 with {size:#x} bytes of RAM behind it, not {tables:#x}")
    gdt, idt, root = tables, tables + PAGE_SIZE, tables + _DESCRIPTOR_PAGES * PAGE_SIZE
    block = np.zeros(size // 8, np.uint64)
    block[: len(_GDT)] = _GDT
    _fill(block[_DESCRIPTOR_PAGES * _TABLE_ENTRIES :], root, *_sizes(identity_map, page_size), user=user)
    write(partition, tables, block.astype("<u8").tobytes())

    vp.reset()
    level = _USER_LEVEL if user else 0
    code = Segment(0, _FLAT_LIMIT, USER_CODE if user else CODE, _CODE_ATTRIBUTES | level)
    data = Segment(0, _FLAT_LIMIT, USER_DATA if user else DATA, _DATA_ATTRIBUTES | level)
    vp.efer, vp.cr4, vp.cr3, vp.cr0 = _EFER, _CR4, root, _CR0
    vp.cs, vp.ss, vp.ds, vp.es, vp.fs, vp.gs = code, data, data, data, data, data
    vp.ldtr = Segment(0, 0xFFFF, 0, _LDT_ATTRIBUTES)
    vp.tr = Segment(0, 0x67, 0, _TSS_ATTRIBUTES)
    vp.gdtr, vp.idtr = Table(gdt, len(_GDT) * 8 - 1), Table(idt, PAGE_SIZE - 1)
    vp.rflags, vp.mxcsr = _RFLAGS, _MXCSR
    vp.rip, vp.rsp = rip, rsp
    vp.interrupts.apic_enabled = True


def _sizes(identity_map: int | str, page_size: int | str) -> tuple[int, bool]:
    """Bytes that are mapped, and whether by large pages."""
    page = parse_page_size(page_size)
    mapped = parse_size(identity_map, "identity_map", multiple_of=page)
    if mapped > 1 << 47:
        raise ValueError(f"identity_map must be at most 128 TiB, not {mapped:#x}")
    return mapped, page == LARGE_PAGE_SIZE


def _fill(words: NDArray[np.uint64], root: int, mapped: int, large: bool, *, user: bool) -> None:
    """The table pages, from the PML4 down, each level's tables in one run."""
    page = LARGE_PAGE_SIZE if large else PAGE_SIZE
    spans = [page << _TABLE_BITS * level for level in range(3 - large, -1, -1)]
    at = 0
    for depth, span in enumerate(spans):
        count = -(-mapped // span)
        tables_here = -(-count // _TABLE_ENTRIES)
        index = np.arange(count, dtype=np.uint64)
        if depth == len(spans) - 1:
            entries = index * np.uint64(page) | np.uint64(_LEAF | _LARGE * large | _USER * user)
        else:
            below = root + (at + tables_here) * PAGE_SIZE
            entries = (np.uint64(below) + index * np.uint64(PAGE_SIZE)) | np.uint64(_LINK)
        words[at * _TABLE_ENTRIES : at * _TABLE_ENTRIES + count] = entries
        at += tables_here
