"""What page tables can say, by number of levels: page sizes, rights, limits (SDM 3A chapter 4, 3C 29.3)."""

from __future__ import annotations

from dataclasses import dataclass

from hvcore._native.space import SystemMemory
from hvcore._native.table_builder import TableBuilder

PRESENT, WRITE, USER, LARGE, GLOBAL, NO_EXECUTE = 1, 2, 4, 1 << 7, 1 << 8, 1 << 63
FOUR_GIB = 1 << 32
_LEGACY_TABLES = 16 << 20
"""Bytes for tables of 32-bit and PAE paging: enough for 4 GiB of small pages."""
RIGHTS = {"r": 1, "w": 2, "x": 4}


@dataclass(frozen=True, slots=True)
class Layout:
    """Tables of one kind."""

    levels: int
    address_bits: int
    """That the tables translate."""
    index_bits: int
    page_shifts: tuple[int, ...]
    signed: bool
    """Addresses are canonical: the bits above are copies of the highest one."""
    has_no_execute: bool


GUEST = {
    0: Layout(0, 46, 9, (12,), False, False),
    2: Layout(2, 32, 10, (12, 22), False, False),
    3: Layout(3, 32, 9, (12, 21), False, True),
    4: Layout(4, 48, 9, (12, 21, 30), True, True),
    5: Layout(5, 57, 9, (12, 21, 30), True, True),
}
"""Tables of processors, by levels; 0 is no paging."""

SECOND_LEVEL = {
    levels: Layout(levels, 12 + 9 * levels, 9, (12, 21, 30)[: min(levels, 3)], False, True) for levels in range(1, 6)
}
"""Second-level tables in the layout of EPT. Processors have 4 and 5 levels; fewer are for experiments."""


def parse_rights(access: str, argument: str) -> int:
    """The sum of 1 (r), 2 (w) and 4 (x). Raises ValueError, naming `argument`, for any other text."""
    if not isinstance(access, str) or not access or set(access) - set(RIGHTS) or len(set(access)) != len(access):
        raise ValueError(f'{argument} must be a text of "r", "w" and "x", not {access!r}')
    return sum(RIGHTS[letter] for letter in access)


def guest_bits(layout: Layout, access: str, user: bool, is_global: bool, page_shift: int) -> int:
    """Bits of a guest's leaf entry. Raises ValueError if the format cannot say it."""
    rights = parse_rights(access, "access")
    if not rights & 1:
        raise ValueError(f'access must contain "r", not {access!r}: pages of x86 processors can always be read')
    bits = PRESENT | (WRITE if rights & 2 else 0) | (USER if user else 0) | (GLOBAL if is_global else 0)
    if not rights & 4:
        if not layout.has_no_execute:
            raise ValueError(f'access must contain "x", not {access!r}: entries of 32-bit paging cannot forbid it')
        bits |= NO_EXECUTE
    return bits | (LARGE if page_shift > 12 else 0)


def second_level_bits(access: str, page_shift: int, argument: str = "nested_access") -> int:
    """Bits of a second-level leaf entry."""
    return parse_rights(access, argument) | (LARGE if page_shift > 12 else 0)


def table_area(layout: Layout, gpa_limit: int, memory: int) -> tuple[int, int]:
    """Where a guest's tables go, (start, end): the top of what they can reach, at the same numbers as GPAs and SPAs."""
    end = gpa_limit
    size = min(end // 8, max(memory // 64, 1 << 20))
    if layout.levels in (2, 3):
        end = min(end, FOUR_GIB)
        size = min(end // 8, _LEGACY_TABLES)
    unit = 1 << 30 if size >= 1 << 30 else 2 << 20 if size >= 2 << 20 else 1 << 12
    return (end - size) // unit * unit, end


def guest_builder(memory: SystemMemory, layout: Layout, tables: int, tables_end: int) -> TableBuilder:
    """Tables of a processor in [tables, tables_end). Entries that name tables allow everything, those of PAE's top
    table say no more than that they are present."""
    return TableBuilder(
        memory,
        tables,
        tables_end,
        levels=layout.levels,
        index_bits=layout.index_bits,
        present=PRESENT,
        table_bits=PRESENT | WRITE | USER,
        top_bits=PRESENT if layout.levels == 3 else PRESENT | WRITE | USER,
    )


def second_level_builder(memory: SystemMemory, layout: Layout, tables: int, tables_end: int) -> TableBuilder:
    """Tables of the second level in [tables, tables_end)."""
    every = sum(RIGHTS.values())
    return TableBuilder(
        memory, tables, tables_end, levels=layout.levels, index_bits=9, present=every, table_bits=every, top_bits=every
    )
