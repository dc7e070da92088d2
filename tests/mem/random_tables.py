"""Random page tables of both levels, random registers and accesses: the walker against tests/mem/reference.py.

`python tests/mem/random_tables.py --cases 400000 --seed 1` compares as many as you like; the suite does some thousands.

Every page of memory is a table with random entries, so paths run in circles, into tables of the other kind and past
the end of memory. The second level's tables and everything else lie apart: what a guest writes never changes them.
"""

from __future__ import annotations

import argparse
import random
import struct
from collections import Counter

from reference import Memory, Processor, Second, walk

from hvcore._native.engine import PartitionCore, VirtualProcessor
from hvcore._native.irqchip import InterruptController
from hvcore._native.space import GpaSpace, PagePool, SystemMemory

TABLES_A_LEVEL = 3
TABLES = 1 + 5 * TABLES_A_LEVEL  # of the second level, in the first pages of memory; page 0 is none
PAGES = TABLES + 16
CASES_A_MEMORY = 250
MODES = ("none", "32-bit", "pse", "pae", "4-level", "5-level")


def chance(rng: random.Random, probability: float) -> bool:
    return rng.random() < probability


def second_level_entry(rng: random.Random, level: int, wild: float) -> int:
    """An entry of EPT's layout for a table of this level; it nearly always leads somewhere."""
    if chance(rng, wild):
        return rng.getrandbits(64) & rng.getrandbits(64)
    entry = 0x407 | rng.getrandbits(2) << 8
    if chance(rng, 0.02):
        entry &= ~rng.choice((1, 2, 4, 0x400, 0x402, 0x407))
    if level == 1:
        return entry | rng.randrange(TABLES, PAGES) << 12 | rng.choice((0, 6)) << 3
    if level <= 3 and chance(rng, 0.2):
        return entry | 0x80 | rng.choice((0, 6)) << 3  # a page of RAM's beginning
    return entry | (1 + TABLES_A_LEVEL * (level - 2) + rng.randrange(TABLES_A_LEVEL)) << 12


def place(rng: random.Random, width: int) -> int:
    """A GPA that a large page of the second level maps to what the guest may have, or any."""
    page = rng.getrandbits(width - 12)
    if chance(rng, 0.7):
        page = page & ~0x3FFFF | rng.randrange(TABLES, PAGES)
    return page << 12


def guest_entry(rng: random.Random, mode: str, width: int, wild: float) -> int:
    """An entry of the processor's layout; any table may be of any level."""
    if chance(rng, wild):
        return rng.getrandbits(64) if chance(rng, 0.2) else 7 | place(rng, width) | 1 << rng.randrange(7, 64)
    entry = 7 | rng.getrandbits(4) << 8 | rng.getrandbits(2) << 5 | chance(rng, 0.05) << 63
    if chance(rng, 0.06):
        entry &= ~rng.choice((1, 2, 4, 6))
    if mode == "long":
        entry |= rng.getrandbits(11) << 52
    if chance(rng, 0.12):
        return entry | 0x80 | place(rng, width) & ~0x3FFFE000
    return entry | place(rng, width)


def narrow_entry(rng: random.Random, width: int, wild: float) -> int:
    """An entry of 32-bit paging."""
    if chance(rng, wild):
        large = 0x87 | rng.getrandbits(10) << 22 | 1 << rng.randrange(12, 22)
        return rng.getrandbits(32) if chance(rng, 0.2) else large
    entry = 7 | rng.getrandbits(2) << 5 | rng.getrandbits(1) << 8
    if chance(rng, 0.1):
        entry &= ~rng.choice((1, 2, 4, 6))
    if chance(rng, 0.3):
        return entry | 0x80 | rng.getrandbits(10) << 22 | rng.getrandbits(min(width, 40) - 32) << 13
    return entry | place(rng, 32)


class Machine:
    """A processor over random tables, and the same for the reference."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.memory = SystemMemory(PAGES << 12, 0)
        pool = PagePool(self.memory)
        self.levels = rng.choice((3, 4, 5))
        self.root = 1 + TABLES_A_LEVEL * (self.levels - 1)
        pool.deposit(self.root)
        self.gpa_bits = rng.randrange(32, min(52, 12 + 9 * self.levels) + 1) if chance(rng, 0.3) else \
            min(46, 12 + 9 * self.levels)  # fmt: skip
        self.marks, self.mode_based = chance(rng, 0.5), chance(rng, 0.5)
        space = GpaSpace(self.memory, pool, gpa_bits=self.gpa_bits, levels=self.levels, marks=self.marks,
                         mode_based_execute=self.mode_based)  # fmt: skip
        assert space.create()
        self.core = PartitionCore()
        self.core.physical_bits = rng.choice((36, 39, 46, 46, 52))
        pages = [bytearray(4096), bytearray(4096)]
        chip = InterruptController(apic_id=0, message_page=pages[0], event_page=pages[1])
        self.vp = VirtualProcessor(self.core, space, chip, 0)
        self.mode = rng.choice(("narrow", "pae", "long", "long"))
        width = min(self.gpa_bits, self.core.physical_bits)
        wild = rng.choice((0.0, 0.005, 0.02))
        second = [second_level_entry(rng, 1 + i // TABLES_A_LEVEL, wild) for i in range(TABLES - 1) for _ in range(512)]
        count = (PAGES - TABLES) * 512
        if self.mode == "narrow":
            guest = struct.pack(f"<{2 * count}I", *(narrow_entry(rng, width, wild) for _ in range(2 * count)))
        else:
            guest = struct.pack(f"<{count}Q", *(guest_entry(rng, self.mode, width, wild) for _ in range(count)))
        self.memory.write(0x1000, struct.pack(f"<{len(second)}Q", *second) + guest)
        self.width = width

    def set_mode(self) -> Processor:
        """Registers of a random mode, in the processor and for the reference."""
        rng, vp = self.rng, self.vp
        kinds = {"narrow": MODES[1:3], "pae": MODES[3:4], "long": MODES[4:]}[self.mode]
        mode = rng.choice(kinds) if chance(rng, 0.95) else "none"
        cr0 = 0x31 | rng.getrandbits(1) << 16 | (mode != "none") << 31
        cr4 = sum(rng.getrandbits(1) << bit for bit in (7, 20, 21, 22, 24, 28))
        cr4 |= (mode not in ("32-bit", "pse", "none")) << 5 | (mode == "5-level") << 12 | (mode == "pse") << 4
        efer = chance(rng, 0.8) << 11 | (mode in ("4-level", "5-level")) * 0x500
        cr3 = place(rng, min(self.width, 52 if mode in ("4-level", "5-level") else 32)) | rng.getrandbits(7) << 5
        if efer & 0x400 and chance(rng, 0.5):
            cr3 |= rng.getrandbits(2) << 61
        vp.pkru, vp.pkrs = (rng.getrandbits(32) & rng.getrandbits(32) & rng.getrandbits(32) for _ in range(2))
        vp.cr0, vp.cr4, vp.efer, vp.cr3 = cr0, cr4, efer, cr3
        return Processor(cr0, cr3, cr4, efer, vp.pkru, vp.pkrs, self.core.physical_bits)

    def address(self, processor: Processor) -> int:
        gva = self.rng.getrandbits(64)
        width = 9 * processor.levels + 12 if processor.long else 32
        if chance(self.rng, 0.9):
            gva &= (1 << width) - 1
            if processor.long and gva >> width - 1:
                gva |= (1 << 64) - (1 << width)
        if processor.long and chance(self.rng, 0.3):
            gva ^= self.rng.getrandbits(15) << 48
        return gva if processor.paging else place(self.rng, self.gpa_bits) | gva & 0xFFF

    def compare(self, count: int, outcomes: Counter[str], label: str) -> None:
        """`count` random accesses; the memory that they leave behind is compared too."""
        rng = self.rng
        contents = Memory(self.memory.read(0, PAGES << 12))
        second = Second(contents, self.root << 12, self.levels, 1 << self.gpa_bits, self.marks, self.mode_based)
        for case in range(count):
            processor = self.set_mode()
            gva = self.address(processor)
            access = rng.choice((1, 3, 4)) | rng.choice((0, 0, 8)) | rng.choice((0, 0, 64))
            if not access & 8 and chance(rng, 0.2):
                access |= 32
            set_marks = chance(rng, 0.5)
            expected = walk(processor, second, gva, access, set_marks)
            found = self.vp.probe(gva, access, set_marks=set_marks)
            wrong = {name: (getattr(found, name), value) for name, value in expected.items()
                     if getattr(found, name) != value}  # fmt: skip
            about = f"{label}, case {case}: {processor}, {gva=:#x}, {access=:#x}, {set_marks=}, {self.levels=}"
            assert not wrong, f"{about}: (found, expected) {wrong}\n{found}\n{expected}"
            after = self.memory.read(0, PAGES << 12)
            assert after == contents, f"{about}: memory differs"
            outcomes[f"{processor.levels if processor.paging else 0} {found.status}"] += 1


def run(cases: int, seed: int) -> Counter[str]:
    """Compare `cases` accesses; how often each status came out, by levels of the guest's tables."""
    outcomes: Counter[str] = Counter()
    for number in range(-(-cases // CASES_A_MEMORY)):
        label = f"seed {seed}, memory {number}"
        Machine(random.Random(f"{seed}/{number}")).compare(min(cases, CASES_A_MEMORY), outcomes, label)
    return outcomes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=400_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for outcome, times in sorted(run(arguments.cases, arguments.seed).items()):
        print(f"levels and status {outcome}: {times}")
