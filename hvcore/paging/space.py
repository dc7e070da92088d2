"""Page tables without a guest: what to map is said in runs, tables are made when an address is asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hvcore._native.space import SystemMemory
from hvcore._native.table_builder import TableBuilder
from hvcore.memory import PAGE_SIZE, parse_size
from hvcore.paging.ranges import (
    build_for_targets,
    check_aligned,
    check_cuts,
    check_identity,
    check_range,
    page_shift,
    start_in_tables,
    unmapped,
)
from hvcore.paging.state import PagingState
from hvcore.paging.tables import (
    FOUR_GIB,
    GUEST,
    LARGE,
    NO_EXECUTE,
    SECOND_LEVEL,
    USER,
    WRITE,
    guest_bits,
    guest_builder,
    parse_rights,
    second_level_bits,
    second_level_builder,
    table_area,
)
from hvcore.paging.translator import Translator


class AddressSpace(Translator):
    """Page tables of one or two levels of translation, in a system memory of their own.

    Parameters
    ----------
    levels : int
        Of the guest's tables: 2 (32-bit paging), 3 (PAE), 4, 5, or 0 for no paging.
    nested : int or None
        Levels of the second-level tables, 1 to 5; None or 0 for none: then a GPA is an SPA. Processors have 4 and 5.
    memory : int or str
        Bytes of system memory, as many as `physical_address_bits` reach at most. Only what is touched exists in the
        host: tables are, mapped pages are not.
    nested_page_size : int or str
        Pages of the second level where nothing else is said, and those that map the guest's own tables.
    state : registers of the processor, fields of PagingState
        Anything but what follows from `levels`, as `pkru=...` or `physical_address_bits=...`.

    One GiB of 4 KiB pages below two levels of four levels of tables, and a walk of 24 references::

        space = AddressSpace(levels=4, nested=4)
        space.map(gva=0, gpa=1 << 30, size="1 GiB")
        space.translate_one(0x1234).nested_references    # 20, and 4 of the guest's own

    Raises
    ------
    ValueError
        An argument is out of range; the message names it.
    MemoryError
        The host has no address space for `memory`.
    """

    def __init__(
        self,
        levels: int = 4,
        nested: int | None = 4,
        *,
        memory: int | str = "4 TiB",
        nested_page_size: int | str = "4 KiB",
        **state: int,
    ) -> None:
        if levels not in GUEST:
            raise ValueError(f"levels must be 0, 2, 3, 4 or 5, not {levels!r}")
        if nested and nested not in SECOND_LEVEL:
            raise ValueError(f"nested must be None or 0 to 5 levels, not {nested!r}")
        size = parse_size(memory, "memory", multiple_of=1 << 20)
        if size > 32 << 40:
            raise ValueError(f"memory must be 32 TiB at most, not {size:#x}")
        asked = PagingState.for_levels(levels, **state)
        size = min(size, 1 << asked.physical_address_bits)
        self._layout = GUEST[levels]
        self._second_layout = SECOND_LEVEL[nested] if nested else None
        reserve = max(size // 64, 1 << 20) // PAGE_SIZE * PAGE_SIZE
        self.gpa_limit = min(size, 1 << self._second_layout.address_bits) if self._second_layout else size
        system_memory = SystemMemory(size, reserve, sparse=True)
        tables, tables_end = table_area(self._layout, self.gpa_limit, size)
        self._table_gpas = (tables, tables_end) if levels else (0, 0)
        self._guest: TableBuilder | None = None
        self._second: TableBuilder | None = None
        if levels:
            self._guest = guest_builder(system_memory, self._layout, tables, tables_end)
        if self._second_layout:
            self._default_shift = page_shift(nested_page_size, self._second_layout, "nested_page_size")
            self._second = second_level_builder(system_memory, self._second_layout, size, size + reserve)
            if self._guest:
                self._map_second(tables, tables_end - tables, None, self._default_shift, "rwx", 0)
        registers = replace(asked, cr3=self._guest.root if self._guest else 0)
        super().__init__(
            system_memory,
            registers,
            nested_root=self._second.root if self._second else 0,
            nested_levels=nested or 0,
            guest_tables=self._guest,
            second_level_tables=self._second,
        )

    def map(
        self,
        *,
        gva: int,
        gpa: int,
        size: int | str,
        page_size: int | str = "4 KiB",
        nested_page_size: int | str | None = None,
        access: str = "rwx",
        user: bool = True,
        is_global: bool = False,
        spa: int | None = None,
        nested_access: str = "rwx",
        frames: str = "contiguous",
        seed: int = 0,
    ) -> None:
        """Map [gva, gva + size) to GPAs from `gpa`, and these to SPAs from `spa` where no SPA is mapped yet.

        Parameters
        ----------
        gva, gpa, size : multiples of `page_size`; `size` may be a text like "1 TiB"
        page_size : "4 KiB", "2 MiB", "1 GiB"; "4 MiB" with 2 levels
        nested_page_size : of the second level; default: that of the space. Whole pages of this size are mapped.
        access, user, is_global : rights of the guest's pages
        spa : default: the same number as the GPA
        nested_access : rights at the second level, of "r", "w" and "x"
        frames : "contiguous", or "permuted": pages go to the frames of the run in an order that `seed` gives, at
            both levels
        seed : any int from 0 to 2**32 - 1

        Raises
        ------
        ValueError
            An argument is out of range or not aligned, or would cut a larger page.
        RuntimeError
            Another thread is translating.
        """
        self.require_idle()
        length = parse_size(size, "size")
        shift = page_shift(page_size, self._layout, "page_size")
        check_aligned(shift, gva=gva, gpa=gpa, size=length)
        check_range("gpa", gpa, length, self.gpa_limit)
        if frames not in ("contiguous", "permuted"):
            raise ValueError(f'frames must be "contiguous" or "permuted", not {frames!r}')
        if not isinstance(seed, int) or not 0 <= seed < 1 << 32:
            raise ValueError(f"seed must be 0 to 2**32 - 1, not {seed!r}")
        order = 2 * seed + 1 if frames == "permuted" else 0
        start = start_in_tables("gva", gva, length, self._layout)
        if self._guest is None and gva != gpa:
            raise ValueError(f"gva must equal gpa without paging: {gva:#x} is not {gpa:#x}")
        if self._layout.levels == 2 and gpa + length > (FOUR_GIB if shift == 12 else 1 << 40):
            raise ValueError(f"gpa {gpa:#x} with {length:#x} bytes is beyond what entries of 32-bit paging can hold")
        bits = guest_bits(self._layout, access, user, is_global, shift) if self._guest else 0
        if self._guest:
            check_cuts(self._guest, "gva", start, length)
        if self._second_layout:
            nested_shift = self._default_shift
            if nested_page_size is not None:
                nested_shift = page_shift(nested_page_size, self._second_layout, "nested_page_size")
            self._map_second(gpa, length, spa, nested_shift, nested_access, order and order + 1)
        elif spa not in (None, gpa):
            raise ValueError(f"spa must equal gpa without a second level: {spa:#x} is not {gpa:#x}")
        if self._guest:
            self._guest.map(start, length, gpa, page_shift=shift, bits=bits, seed=order)

    def map_nested(
        self, *, gpa: int, spa: int, size: int | str, page_size: int | str = "4 KiB", access: str = "rwx"
    ) -> None:
        """Map [gpa, gpa + size) to SPAs from `spa` at the second level alone; what was mapped there is forgotten.

        Raises ValueError as `map` does, and if the run holds the guest's own tables.
        """
        self.require_idle()
        second = self._need_second()
        assert self._second_layout
        length, shift = parse_size(size, "size"), page_shift(page_size, self._second_layout, "page_size")
        check_aligned(shift, gpa=gpa, spa=spa, size=length)
        self._check_nested(second, gpa, length)
        check_range("spa", spa, length, self.memory.size)
        second.map(gpa, length, spa, page_shift=shift, bits=second_level_bits(access, shift, "access"))

    def unmap(self, *, gva: int, size: int | str) -> None:
        """Forget what is mapped in [gva, gva + size); the second level stays. Raises ValueError as `map` does."""
        self.require_idle()
        if self._guest is None:
            raise ValueError("levels is 0: without paging there is nothing to unmap, see unmap_nested")
        start, length = self._checked_run(gva, size)
        self._guest.clear(start, length)

    def unmap_nested(self, *, gpa: int, size: int | str) -> None:
        """Forget what the second level maps in [gpa, gpa + size). Raises ValueError as `map_nested` does."""
        self.require_idle()
        second = self._need_second()
        length = parse_size(size, "size")
        check_aligned(12, gpa=gpa, size=length)
        self._check_nested(second, gpa, length)
        second.clear(gpa, length)

    def protect(self, *, gva: int, size: int | str, access: str, user: bool = True) -> None:
        """Change the rights of what is mapped in [gva, gva + size); its accessed and dirty marks start anew."""
        self.require_idle()
        if self._guest is None:
            raise ValueError("levels is 0: without paging there are no rights, see protect_nested")
        bits = guest_bits(self._layout, access, user, False, 12)
        start, length = self._checked_run(gva, size)
        keep = ~(WRITE | USER | NO_EXECUTE) & (1 << 64) - 1
        self._guest.protect(start, length, keep=keep, bits=bits & ~keep)

    def protect_nested(self, *, gpa: int, size: int | str, access: str) -> None:
        """Change the rights of what the second level maps in [gpa, gpa + size)."""
        self.require_idle()
        second = self._need_second()
        length = parse_size(size, "size")
        check_aligned(12, gpa=gpa, size=length)
        self._check_nested(second, gpa, length)
        second.protect(gpa, length, keep=LARGE, bits=parse_rights(access, "access"))

    def build(self) -> None:
        """Make all tables now, not when they are needed. A terabyte of 4 KiB pages has 2 GiB of them a level."""
        self.require_idle()
        for builder, bits in ((self._guest, self._layout.address_bits), (self._second, self.gpa_limit.bit_length())):
            if builder:
                builder.build(0, 1 << bits)

    def _prepare_find(self, targets: NDArray[np.uint64], *, second: bool) -> None:
        self.require_idle()
        build_for_targets(self._second if second else self._guest, targets)
        if self._guest and self._second and not second:
            self._second.build(self._guest.root, self._guest.extent)

    @property
    def tables(self) -> tuple[int, int]:
        """How many tables exist now: the guest's, and of the second level."""
        return (self._guest.tables if self._guest else 0, self._second.tables if self._second else 0)

    @property
    def nested_root(self) -> int | None:
        """SPA of the top table of the second level."""
        return self._second.root if self._second else None

    def _need_second(self) -> TableBuilder:
        if self._second is None:
            raise ValueError("nested is None: this space has no second level")
        return self._second

    def _checked_run(self, gva: int, size: int | str) -> tuple[int, int]:
        length = parse_size(size, "size")
        check_aligned(12, gva=gva, size=length)
        start = start_in_tables("gva", gva, length, self._layout)
        assert self._guest
        check_cuts(self._guest, "gva", start, length)
        return start, length

    def _check_nested(self, second: TableBuilder, gpa: int, size: int) -> None:
        check_range("gpa", gpa, size, self.gpa_limit)
        check_identity(*self._table_gpas, gpa, size)
        check_cuts(second, "gpa", gpa, size)

    def _map_second(self, gpa: int, size: int, spa: int | None, shift: int, access: str, order: int) -> None:
        """Map whole second-level pages over [gpa, gpa + size); with `spa` None only what is not mapped yet."""
        second = self._need_second()
        step = 1 << shift
        start, end = gpa // step * step, -(-(gpa + size) // step) * step
        if end > self.gpa_limit:
            raise ValueError(f"nested_page_size {step:#x} is too large: a page reaches beyond {self.gpa_limit:#x}")
        bits = second_level_bits(access, shift)
        if spa is not None:
            if (spa - gpa) % step:
                raise ValueError(f"spa {spa:#x} must lie in its page as gpa {gpa:#x} does: pages have {step:#x} bytes")
            self._check_nested(second, start, end - start)
            check_range("spa", spa, size, self.memory.size)
            second.map(start, end - start, spa - (gpa - start), page_shift=shift, bits=bits, seed=order)
            return
        for first, last in unmapped(second, start, end, step):
            second.map(first, last - first, first, page_shift=shift, bits=bits, seed=order)
