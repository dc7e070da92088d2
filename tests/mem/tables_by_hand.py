"""A processor over tables that a test builds by hand, in any paging mode over any second level."""

from __future__ import annotations

import numpy as np
from reference import Memory, Processor, Second

from hvcore._native.engine import PartitionCore, VirtualProcessor
from hvcore._native.irqchip import InterruptController
from hvcore._native.space import GpaSpace, PagePool, SystemMemory

PAGE, MIB2, GIB = 1 << 12, 1 << 21, 1 << 30
SIZES = {12: "4 KiB", 21: "2 MiB", 22: "4 MiB", 30: "1 GiB"}
ROOT, TARGET = 0x100000, 0x400000  # where the guest's tables begin, and what its addresses are mapped to
GVA = {"none": TARGET, "32-bit": 0xC0A1_2345, "pae": 0xC0A1_2345, "4-level": 0x7654_3210_1234,
       "5-level": 0x12_3456_7890_1234}  # fmt: skip


class LiveMemory(Memory):
    """System memory as the reference reads it: not a copy, the thing itself."""

    def __init__(self, memory: SystemMemory) -> None:
        super().__init__()
        self.memory = memory

    def __len__(self) -> int:
        return self.memory.size + self.memory.reserve

    def get(self, place: int, size: int) -> int:
        return int.from_bytes(self.memory.read(place, size), "little")

    def put(self, place: int, value: int, size: int) -> None:
        self.memory.write(place, value.to_bytes(size, "little"))


class Machine:
    """System memory, a GPA space and a processor. The GPA space is the identity where something is mapped."""

    def __init__(self, *, size: int = 64 << 20, levels: int = 4, gpa_bits: int = 39, physical_bits: int = 46,
                 marks: bool = False, mode_based_execute: bool = False) -> None:  # fmt: skip
        self.memory = SystemMemory(size, 1 << 20)
        self.second = {"levels": levels, "limit": 1 << gpa_bits, "marks": marks, "mode_based": mode_based_execute}
        pool = PagePool(self.memory)
        self.root = pool_root = (size >> 12) + 255
        for page in range(size >> 12, (size >> 12) + 256):
            pool.deposit(page)
        self.space = GpaSpace(self.memory, pool, gpa_bits=gpa_bits, levels=levels, marks=marks,
                              mode_based_execute=mode_based_execute)  # fmt: skip
        assert self.space.create()
        assert pool_root == self.root
        core = PartitionCore()
        core.physical_bits = physical_bits
        chip = InterruptController(apic_id=0, message_page=bytearray(4096), event_page=bytearray(4096))
        self.vp = VirtualProcessor(core, self.space, chip, 0)
        self.physical_bits = physical_bits
        self.free = self.top = ROOT

    def map(self, gpa: int, shift: int = 12, rights: int = 7, spa: int | None = None) -> None:
        """One page of the second level."""
        page = np.array([(gpa if spa is None else spa) >> 12], dtype=np.uint64)
        assert self.space.map(gpa >> 12, page, rights=rights, large=shift == 21, huge=shift == 30) == 1

    def put(self, gpa: int, value: int, size: int = 8) -> None:
        self.memory.write(gpa, value.to_bytes(size, "little"))

    def get(self, gpa: int, size: int = 8) -> int:
        return int.from_bytes(self.memory.read(gpa, size), "little")

    def table(self) -> int:
        """The next page for a table of the guest's."""
        self.free += PAGE
        return self.free - PAGE

    def enter(self, mode: str, *, cr0: int = 0x10000, cr4: int = 0, efer: int = 0x800, cr3: int = 0) -> None:
        """Registers of a paging mode, and what else is to be set in them."""
        vp, long = self.vp, mode in ("4-level", "5-level")
        vp.cr0 = 0x31 | cr0 | (mode != "none") << 31
        vp.cr4 = cr4 | (long or mode == "pae") << 5 | (mode == "5-level") << 12 | 0x10
        vp.efer = efer | long * 0x500
        vp.cr3 = self.top | cr3

    def build(self, mode: str, shift: int, flags: int = 7, target: int = TARGET, gva: int | None = None) -> list[int]:
        """Tables for one address of `mode`, its page of 1 << `shift` bytes: where the entries lie, from the top down.

        Tables are the pages that `table` gives, from ROOT on. PDPTEs of PAE are registers, and not in the list."""
        gva = GVA[mode] if gva is None else gva
        self.free, places = ROOT, []
        width, size = (10, 4) if mode == "32-bit" else (9, 8)
        tops = {"none": 0, "32-bit": 22, "pae": 30, "4-level": 39, "5-level": 48}
        if mode == "none":
            return []
        at = tops[mode]
        self.top = table = self.table()
        while True:
            place = table + (gva >> at & (1 << width) - 1) * size
            places.append(place)
            if at == shift:
                self.put(place, target & -(1 << shift) | flags | (0x80 if shift > 12 else 0), size)
                break
            table = self.table()
            self.put(place, table | (1 if mode == "pae" and at == 30 else 7), size)
            at -= width
        return places[1:] if mode == "pae" else places

    def reference(self) -> tuple[Processor, Second]:
        """The same for the reference walker, over the live tables."""
        vp = self.vp
        processor = Processor(vp.cr0, vp.cr3, vp.cr4, vp.efer, vp.pkru, vp.pkrs, self.physical_bits)
        return processor, Second(LiveMemory(self.memory), self.root << 12, **self.second)
