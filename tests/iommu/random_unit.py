"""Random tables and requests: the unit against the reference, without caches and after global invalidation.

python tests/iommu/random_unit.py --count 1000000 --seed 1
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from hvcore._native.iommu import COLUMNS, PRESETS, Geometry, RemappingUnit
from hvcore._native.space import GpaSpace, SystemMemory
from tests.iommu.reference_unit import Reference

PAGES, TABLES, FRAMES = 64, 40, 72
SMALL = {"contexts": Geometry(2), "pasids": Geometry(1, 2), "iotlb": Geometry(2, 3, "srrip"), "pde": Geometry(1, 2),
         "pdpte": Geometry(1), "pml4e": Geometry(1), "pml5e": Geometry(1), "interrupts": Geometry(1, 20)}


class Copy:
    """The reference's own memory: a copy of the bytes, and the same map of the partition's pages."""

    def __init__(self, pages: dict[int, tuple[int, int]], data: bytes) -> None:
        self.pages, self.data = pages, np.frombuffer(bytearray(data), np.uint64)

    def reach(self, gpa: int, access: int) -> int | None:
        spn, rights = self.pages.get(gpa >> 12, (0, 0))
        return spn << 12 | gpa & 0xFFF if rights and rights & access == access else None

    def read64(self, gpa: int) -> int | None:
        spa = self.reach(gpa, 1)
        return None if spa is None else int(self.data[spa >> 3])

    def mark(self, gpa: int, marks: int) -> bool:
        """Set bits of an entry that has not got them all; False: it cannot be written."""
        spa = self.reach(gpa, 1)
        assert spa is not None
        if marks & ~int(self.data[spa >> 3]):
            if self.reach(gpa, 3) is None:
                return False
            self.data[spa >> 3] |= np.uint64(marks)
        return True


class Machine:
    """A unit, without caches or with tiny ones, and the reference over a copy of its memory."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.memory = SystemMemory(FRAMES << 12, 1 << 18)
        self.space = GpaSpace(self.memory, self.memory.reserve_pool, gpa_bits=36)
        self.space.create()
        spns = list(range(PAGES))
        if random.random() < 0.7:
            random.shuffle(spns)
        self.pages = {}
        for gpn, spn in enumerate(spns):
            rights = random.choice([7] * 30 + [1, 0])
            if rights:
                self.space.map(gpn, np.array([spn], np.uint64), rights=rights)
                self.pages[gpn] = (spn, rights)
        preset = random.choice(["full", "full", "full", "qemu-q35"])
        self.cap, self.ecap = PRESETS[preset]
        for number in (2, 7, 26, 31, 34, 40, 43, 45, 46, 47, 48, 49, 53, 6):
            if random.random() < 0.05:
                self.ecap &= ~(1 << number)
        for number in (9, 10, 11, 22, 34, 35, 56, 60):
            if random.random() < 0.05:
                self.cap &= ~(1 << number)
        bits = random.choice([36, 39, 46])
        self.unit = RemappingUnit(self.memory, self.space, cap=self.cap, ecap=self.ecap, host_address_bits=bits,
                                  caches=random.choice([None, SMALL]))
        self.fill(preset)
        self.copy = Copy(self.pages, self.memory.read(0, FRAMES << 12))
        self.reference = Reference(self.copy, self.cap, self.ecap, bits)

    def pointer(self) -> int:
        """A page of tables, mostly."""
        draw = self.random.random()
        return self.random.randrange(TABLES if draw < 0.97 else PAGES + 2) << 12

    def noise(self, chance: float) -> int:
        return 1 << self.random.randrange(64) if self.random.random() < chance else 0

    def page_entry(self, large: float) -> int:
        """An entry that both levels can read: present, user, writable; sometimes large, marked, or spoiled."""
        random = self.random
        entry = self.pointer() | random.choice([7] * 12 + [3, 5, 1, 2, 0])
        entry |= random.choice([0, 0, 1 << 5, 1 << 6, 1 << 8, 3 << 8, 1 << 10, 1 << 11])if random.random() < 0.3 else 0
        if random.random() < large:
            entry = entry & ~0x3FFFF000 | 1 << 7
        return entry ^ self.noise(0.04)

    def fill(self, preset: str) -> None:
        """Every table page gets entries of several kinds at the places where walks look."""
        random, words = self.random, np.zeros((FRAMES, 512), np.uint64)
        self.scalable = preset == "full" and random.random() < 0.75
        for gpn, (spn, _) in self.pages.items():
            for slot in (0, 1, 2, 3, 256, 511):
                words[spn, slot] = self.page_entry(0.1)
            if gpn < 6:
                self.fill_contexts(words[spn], gpn)
        self.memory.write(0, words.tobytes())
        self.root = (0 if random.random() < 0.98 else self.pointer()) | (1 << 10 if self.scalable else 0)
        self.root |= random.choice([0] * 40 + [1 << 11])

    def fill_contexts(self, page: Any, gpn: int) -> None:
        """Page 0: roots. 1 and 2: contexts. 3: PASID directories. 4 and 5: PASID tables."""
        random = self.random
        for i in range(0, 512, 2):
            if gpn == 0:
                page[i] = (random.choice([1, 1, 1, 2]) << 12 | random.choice([1] * 30 + [0])) ^ self.noise(0.02)
                page[i + 1] = page[i] if self.scalable else self.noise(0.02)
            elif gpn < 3 and self.scalable:
                self.scalable_context(page, i)
            elif gpn < 3:
                kind = random.choice([0] * 6 + [1, 1, 2, 3])
                page[i] = (self.pointer() | kind << 2 | random.choice([1] * 15 + [0, 3])) ^ self.noise(0.02)
                page[i + 1] = (random.choice([1, 2, 2, 3]) | random.randrange(8) << 8) ^ self.noise(0.02)
            elif gpn == 3:
                page[i] = page[i + 1] = (
                    random.choice([4, 5]) << 12 | random.choice([1] * 20 + [0, 3])) ^ self.noise(0.02)
            elif i % 8 == 0:
                self.pasid_entry(page, i)

    def scalable_context(self, page: Any, i: int) -> None:
        random = self.random
        if i % 4 == 0:
            page[i] = (3 << 12 | random.choice([0, 4, 8, 8, 12]) | random.choice([1] * 20 + [0, 3])) ^ self.noise(0.02)
            page[i + 1] = (random.randrange(128) | random.choice([0, 0, 1 << 20])) ^ self.noise(0.02)
        else:
            page[i] = self.noise(0.01)

    def pasid_entry(self, page: Any, i: int) -> None:
        random = self.random
        page[i] = (self.pointer() | random.choice([1, 2, 2, 3]) << 2 | random.choice([1, 1, 2, 2, 3, 3, 3, 4, 5]) << 6
                   | random.choice([0, 1 << 9]) | random.choice([1] * 20 + [0, 3])) ^ self.noise(0.02)
        page[i + 1] = random.randrange(8) | self.noise(0.02)
        page[i + 2] = (self.pointer() | random.choice([0, 1]) | random.choice([0, 0, 1]) << 2
                       | random.choice([0, 1 << 4]) | random.choice([0, 0, 1 << 7])) ^ self.noise(0.02)
        page[i + 3] = self.noise(0.01)

    def start(self) -> None:
        """Point the units at the tables and turn them on."""
        on = self.random.random() < 0.97
        self.unit.write(0x20, 8, self.root)
        self.unit.write(0x18, 4, 1 << 30)
        self.unit.write(0x18, 4, 1 << 31 if on else 0)
        self.reference.root, self.reference.translating = self.unit.read(0x20, 8), on

    def request(self) -> tuple[int, int, int, int | None, int]:
        random = self.random
        levels = range(random.choice([3, 4, 5]))
        iova = sum(random.choice([0, 0, 0, 0, 1, 2, 3, 256, 511]) << 12 + 9 * level for level in levels)
        iova |= random.randrange(4096)
        if random.random() < 0.3:
            iova = random.randrange(PAGES + 2) << 12 | iova & 0xFFF
        if random.random() < 0.05:
            iova |= random.choice([0xFFFF << 48, 0xFE << 56, 1 << random.randrange(64)])
        if random.random() < 0.02:
            iova = 0xFEE00000 | iova & 0xFFFFF
        access = random.choice([1, 2, 3, 1, 2, 5, 9, 10])
        pasid = random.randrange(200) if (self.scalable and random.random() < 0.4) or random.random() < 0.02 else None
        at = random.choice([0] * 20 + [1, 2])
        return random.randrange(1 << 16) if random.random() < 0.3 else random.randrange(16), iova, access, pasid, at

    def forget(self) -> None:
        """Global invalidation by registers, which scalable mode has not got; and by the root pointer."""
        unit = self.unit
        unit.write(0x28, 8, 1 << 63 | 1 << 61)
        unit.write((self.ecap >> 8 & 0x3FF) * 16 + 8, 8, 1 << 63 | 1 << 60)
        unit.write(0x18, 4, unit.read(0x1C) | 1 << 30)

    def compare(self) -> None:
        """One request to both; a unit with caches forgets all of them first."""
        source, iova, access, pasid, at = asked = self.request()
        expected = self.reference.request(source, iova, access, pasid, at)
        self.forget()
        found = self.unit.translate(source, np.array([iova], np.uint64), access, pasid=pasid, at=at)
        for column in COLUMNS:
            assert found[column][0] == getattr(expected, column), (
                column, {key: hex(value[0]) for key, value in found.items()}, expected,
                [hex(part or 0) for part in asked])
        assert self.memory.read(0, FRAMES << 12) == self.copy.data.tobytes(), ("marks", asked)
        self.compare_record(asked)

    def compare_record(self, asked: tuple[int, int, int, int | None, int]) -> None:
        """The fault record, if there should be one; afterwards it is cleared."""
        status, recorded = self.unit.read(0x34), self.reference.recorded
        assert status & 3 == (2 if recorded else 0), ("recorded", asked, recorded)
        if recorded:
            source, page, reason, rights = recorded.pop()
            record = (self.cap >> 24 & 0x3FF) * 16 + 16 * (status >> 8 & 255)
            high = self.unit.read(record + 8, 8)
            assert (high & 0xFFFF, self.unit.read(record, 8), high >> 32 & 255, high >> 62) == (
                source, page, reason, 2 | rights & 1), ("record", asked)
            assert high >> 28 & 1 == (rights == 3), ("record", asked)
            assert high >> 60 & 3 == asked[4] and high >> 31 & 1 == (asked[3] is not None), ("record", asked)
            self.unit.write(record + 12, 4, 1 << 31)


def run(count: int, seed: int, requests: int = 100) -> dict[int, int]:
    """Compare `count` requests; how often each fault reason (0: none) came."""
    random, reasons = Random(seed), dict[int, int]()
    for first in range(0, count, requests):
        machine = Machine(random)
        machine.start()
        for _ in range(min(requests, count - first)):
            machine.compare()
            reason = machine.reference.answer.reason
            reasons[reason] = reasons.get(reason, 0) + 1
    return reasons


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for code, times in sorted(run(arguments.count, arguments.seed).items()):
        print(f"{code:#4x} {times:8}")
