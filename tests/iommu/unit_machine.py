"""A unit over a partition with its memory, and the tables and descriptors that a driver would write."""

from __future__ import annotations

from typing import Any

import numpy as np

from hvcore._native.iommu import RemappingUnit
from hvcore._native.space import GpaSpace, SystemMemory

PAGE = 4096
GCMD, GSTS, RTADDR, CCMD, FSTS, FECTL, IQT, IQA, ICS, IECTL, IRTA = (
    0x18, 0x1C, 0x20, 0x28, 0x34, 0x38, 0x88, 0x90, 0x9C, 0xA0, 0xB8)  # fmt: skip
IQH, IQERCD, RECORDS, IVA, IOTLB = 0x80, 0xB0, 0x220, 0xF0, 0xF8
TE, RTP, QIE, IRE, IRTP, CFI = (1 << bit for bit in (31, 30, 26, 25, 24, 23))
ROOT, CONTEXTS, DIRECTORY, PASIDS, QUEUE, IRT, STATUS, TOP, FIRST = (0x10000 * (1 + i) for i in range(9))
SOURCE = 0x0308
"""Bus 3, device 1, function 0."""
DATA = 0x200000
READ, WRITE = 1, 2


class UnitMachine:
    """8 MiB of RAM at their own addresses, and a unit that is off."""

    def __init__(self, **arguments: Any) -> None:
        self.memory = SystemMemory(8 << 20, 1 << 20)
        self.space = GpaSpace(self.memory, self.memory.reserve_pool)
        self.space.create()
        self.space.map(0, np.arange(2048, dtype=np.uint64), rights=7)
        self.unit = RemappingUnit(self.memory, self.space, **arguments)
        self.tail = 0
        self.free = 0x100000

    def store(self, gpa: int, *words: int) -> None:
        self.memory.write(gpa, b"".join(word.to_bytes(8, "little") for word in words))

    def load(self, gpa: int) -> int:
        return int.from_bytes(self.memory.read(gpa, 8), "little")

    def command(self, change: int, clear: int = 0) -> int:
        """Write GCMD as drivers do: status without one-shots, with a change. The status afterwards."""
        status = self.unit.read(GSTS) & ~(RTP | IRTP)
        self.unit.write(GCMD, 4, (status | change) & ~clear)
        return self.unit.read(GSTS)

    def map(self, top: int, address: int, page: int, *, levels: int = 4, leaf: int = 1, bits: int = 3,
            table: int = 3) -> int:
        """Map one page in tables of either format; where its entry is."""
        for level in range(levels, leaf, -1):
            slot = top + 8 * (address >> 3 + 9 * level & 511)
            if not self.load(slot):
                self.store(slot, self.free | table)
                self.free += PAGE
            top = self.load(slot) & ~0xFFF
        slot = top + 8 * (address >> 3 + 9 * leaf & 511)
        self.store(slot, page | bits | (1 << 7 if leaf > 1 else 0))
        return slot

    def legacy(self, *, kind: int = 0, width: int = 2, did: int = 7, low: int = 1) -> None:
        """Root and context of SOURCE, and translation on."""
        self.store(ROOT + 16 * (SOURCE >> 8), CONTEXTS | 1, 0)
        self.store(CONTEXTS + 16 * (SOURCE & 255), TOP | kind << 2 | low, width | did << 8)
        self.start(ROOT)

    def scalable(self, kind: int, *, q0: int = 0, q2: int = 0, context: int = 0, pasid: int = 0, did: int = 7) -> None:
        """The same in scalable mode; `kind`: 1 first level, 2 second, 3 nested, 4 pass-through."""
        self.store(ROOT + 16 * (SOURCE >> 8), CONTEXTS | 1, CONTEXTS | 1)
        self.store(CONTEXTS + 32 * (SOURCE & 127), DIRECTORY | 1 | context, 0, 0, 0)
        self.store(DIRECTORY + 8 * (pasid >> 6), PASIDS | 1)
        self.store(PASIDS + 64 * (pasid & 63), TOP | 2 << 2 | kind << 6 | 1 | q0, did, FIRST | q2, 0, 0, 0, 0, 0)
        self.start(ROOT | 1 << 10)

    def start(self, root: int) -> None:
        self.unit.write(RTADDR, 8, root)
        assert self.command(RTP) & RTP
        assert self.command(TE) & TE

    def queue(self, width: int = 0) -> None:
        """An empty queue of one page, on."""
        self.tail = 0
        self.unit.write(IQT, 8, 0)
        self.unit.write(IQA, 8, QUEUE | width << 11)
        assert self.command(QIE) & QIE

    def submit(self, *descriptors: tuple[int, ...]) -> None:
        """Descriptors of two words each, or four; the tail moves once."""
        for words in descriptors:
            self.store(QUEUE + self.tail, *words)
            self.tail = (self.tail + 8 * len(words)) % PAGE
        self.unit.write(IQT, 8, self.tail)

    def ask(self, iova: int, access: int = READ, source: int = SOURCE, **options: Any) -> dict[str, int]:
        """One request: its columns."""
        found = self.unit.translate(source, np.array([iova], np.uint64), access, **options)
        return {name: int(column[0]) for name, column in found.items()}

    def record(self, index: int = 0) -> tuple[int, int]:
        return self.unit.read(RECORDS + 16 * index, 8), self.unit.read(RECORDS + 16 * index + 8, 8)
