"""A driver that changes tables at random and invalidates exactly what it must, over a unit with caches: after each
change that unit answers as one without caches over the same tables does. A million requests by command:

    python tests/iommu/random_driver.py --count 1000000 --seed 1

What has to be invalidated when is what operating systems rely on (VT-d 6.5; iommu-facts.md 4 and 8): a page of a domain
by its address, a page of a first level by PASID and address, a context or an entry of a PASID table by itself and then
its domain or its PASID; without caching mode nothing for what was absent or refused before.
"""

from __future__ import annotations

import argparse
from random import Random
from typing import Any

import numpy as np

from hvcore._native.iommu import CACHE_NAMES, PRESETS, Geometry, RemappingUnit
from hvcore._native.space import GpaSpace, SystemMemory

PAGE = 4096
ROOT, QUEUE, STATUS, ENTRY_TABLE, TABLES, DATA = 0x10000, 0x11000, 0x12000, 0x13000, 0x20000, 0x600000
ENTRIES = 32
SOURCES = (0x0308, 0x0309, 0x0388, 0x0410)
PASIDS = (0, 1, 70)
DOMAINS = (3, 4, 5)
FIRST, SECOND, NESTED, PASS = 1, 2, 3, 4
READ, WRITE, LARGE = 1, 2, 1 << 7
COLUMNS = ("status", "reason", "gpa", "spa", "page_shift", "nested_page_shift")
PAGES_OF_DEVICES = [base + page * PAGE for base in (1 << 31, 0x80200000, 1 << 30, 1 << 39) for page in (0, 1, 2, 511)]


class Tables:
    """One tree of four levels; which entries link tables, `link`, tells its format."""

    def __init__(self, driver: Driver, link: int) -> None:
        self.driver, self.link = driver, link
        self.top = driver.page()

    def slot(self, address: int, leaf: int) -> tuple[int, bool]:
        """Where the entry of that level is, below tables that are made; whether a large page had to go for them."""
        table, replaced = self.top, False
        for level in range(4, leaf, -1):
            place = table + 8 * (address >> 3 + 9 * level & 511)
            entry = self.driver.load(place)
            if not entry & 1 or entry & LARGE:
                replaced |= bool(entry & LARGE)
                self.driver.store(place, self.driver.page() | self.link)
            table = self.driver.load(place) & ~0xFFF
        return table + 8 * (address >> 3 + 9 * leaf & 511), replaced


class Driver:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.memory = SystemMemory(8 << 20, 1 << 20)
        space = GpaSpace(self.memory, self.memory.reserve_pool)
        space.create()
        space.map(0, np.arange(2048, dtype=np.uint64), rights=7)
        self.caching, self.scalable = random.random() < 0.3, random.random() < 0.6
        cap, ecap = PRESETS["full"]
        cap |= self.caching << 7
        if random.random() < 0.2:
            cap &= ~(1 << 39)                                           # no page-selective invalidation
        caches = {name: Geometry(random.choice([1, 2, 8]), random.choice([1, 2, 4])) for name in CACHE_NAMES}
        if random.random() < 0.3:
            caches = {name: caches[name] for name in ("contexts", "iotlb")}
        self.cap = cap
        self.units = [RemappingUnit(self.memory, space, cap=cap, ecap=ecap, caches=found) for found in (caches, None)]
        self.unit = self.units[0]
        self.free, self.tail, self.asked = TABLES, 0, 0
        self.seconds = {did: Tables(self, 3) for did in DOMAINS}
        for tables in self.seconds.values():
            for gpa in range(0, DATA, 1 << 21):                         # where the tables of first levels lie
                self.store(tables.slot(gpa, 2)[0], gpa | LARGE | 3)
        self.firsts = [Tables(self, 7) for _ in range(2)]
        self.pasids: dict[tuple[int, int], tuple[int, int, int]] = {}   # kind, domain, which first level
        self.contexts: dict[int, tuple[int, int]] = {}                  # kind, domain
        for unit in self.units:
            for offset, value in ((0x88, 0), (0x90, QUEUE | 1 << 11)):
                unit.write(offset, 8, value)
            unit.write(0x18, 4, 1 << 26)
            unit.write(0x20, 8, ROOT | self.scalable << 10)
            unit.write(0xB8, 8, ENTRY_TABLE | 4)
            for command in (1 << 30, 1 << 24, 1 << 25 | 1 << 31):
                unit.write(0x18, 4, 1 << 26 | command)

    # Memory ---------------------------------------------------------------------------------------------------------

    def page(self) -> int:
        self.free += PAGE
        assert self.free < DATA
        return self.free - PAGE

    def load(self, gpa: int) -> int:
        return int.from_bytes(self.memory.read(gpa, 8), "little")

    def store(self, gpa: int, *words: int) -> None:
        self.memory.write(gpa, b"".join(word.to_bytes(8, "little") for word in words))

    # Invalidation ---------------------------------------------------------------------------------------------------

    def invalidate(self, low: int, high: int = 0) -> None:
        """By the queue; what registers can do, sometimes by them."""
        unit, kind, granularity = self.unit, low & 15, low >> 4 & 3
        if not self.scalable and self.random.random() < 0.5:
            if kind == 1:
                unit.write(0x28, 8, 1 << 63 | granularity << 61 | low >> 16 & 0xFFFF | (low >> 32 & 0xFFFF) << 16)
                assert unit.read(0x28, 8) >> 63 == 0
                return
            unit.write(0xF0, 8, high)
            unit.write(0xF8, 8, 1 << 63 | granularity << 60 | (low >> 16 & 0xFFFF) << 32)
            assert unit.read(0xF8, 8) >> 57 & 3 in range(1, granularity + 1)
            return
        self.queue(low, high)

    def queue(self, low: int, high: int = 0) -> None:
        """A descriptor, and one that waits for it."""
        self.store(QUEUE + self.tail, low, high, 0, 0)
        self.store(QUEUE + (self.tail + 32) % PAGE, 5 | 1 << 5 | self.tail + 1 << 32, STATUS, 0, 0)
        done, self.tail = self.tail + 1, (self.tail + 64) % PAGE
        self.unit.write(0x88, 8, self.tail)
        assert self.load(STATUS) == done and self.unit.read(0x34) >> 4 & 7 == 0

    def forget_pages(self, did: int, address: int, leaf: int, hint: bool) -> None:
        """What an entry of that level covers."""
        mask = 9 * (leaf - 1)
        if not self.cap >> 39 & 1 or mask > self.cap >> 48 & 63 or self.random.random() < 0.1:
            self.forget_domain(did)
        else:
            self.invalidate(2 | 3 << 4 | did << 16, address >> 12 + mask << 12 + mask | hint << 6 | mask)

    def forget_domain(self, did: int) -> None:
        self.invalidate(2 | 2 << 4 | did << 16)

    def forget_pasid(self, kind: int, did: int, pasid: int) -> None:
        """An entry of a PASID table is another now."""
        self.invalidate(7 | 1 << 4 | did << 16 | pasid << 32)
        if kind in (FIRST, PASS):
            self.invalidate(6 | 2 << 4 | did << 16 | pasid << 32)
        else:
            self.forget_domain(did)

    # Changes --------------------------------------------------------------------------------------------------------

    def change_second(self) -> None:
        did = self.random.choice(DOMAINS)
        self.change_page(self.seconds[did], self.random.choice([0, READ, WRITE, 3]), [(did, None)])

    def change_first(self) -> None:
        number = self.random.randrange(2)
        users = {(did, pasid) for (_, pasid), (kind, did, first) in self.pasids.items()
                 if kind in (FIRST, NESTED) and first == number}
        self.change_page(self.firsts[number], self.random.choice([0, 5, 7, 3]), sorted(users))

    def change_page(self, tables: Tables, rights: int, users: list[tuple[int, Any]]) -> None:
        """One page of 4 KiB, 2 MiB or 1 GiB; `users`: domains, or PASIDs in them."""
        random = self.random
        address, leaf = random.choice(PAGES_OF_DEVICES), random.choice([1, 1, 1, 2, 3])
        slot, replaced = tables.slot(address, leaf)
        before = self.load(slot)
        entry = 0
        if rights:
            page = DATA | random.randrange(256) << 12
            if tables.link == 7 and random.random() < 0.7:
                page = random.choice(PAGES_OF_DEVICES)                  # a nested one finds something beneath
            entry = page >> 3 + 9 * leaf << 3 + 9 * leaf | rights | (leaf > 1) << 7
        self.store(slot, entry)
        if replaced:
            leaf = 3                                                    # all that the large page may have covered
        elif not self.caching and self.is_harmless(before, entry, tables.link):
            return
        hint = not replaced and (leaf == 1 or bool(before & LARGE) or not before & 1)
        for did, pasid in users:
            if pasid is None:
                self.forget_pages(did, address, leaf, hint)
            elif random.random() < 0.2:
                self.invalidate(6 | 2 << 4 | did << 16 | pasid << 32)
            else:
                mask = 9 * (leaf - 1)
                self.invalidate(6 | 3 << 4 | did << 16 | pasid << 32,
                                address >> 12 + mask << 12 + mask | hint << 6 | mask)

    def is_harmless(self, before: int, after: int, link: int) -> bool:
        """Whether nothing that the unit may remember of an entry is wrong now."""
        rights = link & before
        return not before & link & (1 if link == 7 else 3) or (
            (before ^ after) & ~7 & ~0x60 == 0 and rights & after == rights)

    def change_context(self) -> None:
        """Legacy mode: another domain, pass-through, or none."""
        source = self.random.choice(SOURCES)
        entry = self.below(ROOT + 16 * (source >> 8)) + 16 * (source & 255)
        before = self.contexts.pop(source, None)
        self.store(entry, 0)
        if before:
            self.invalidate(1 | 3 << 4 | before[1] << 16 | source << 32)
            self.forget_domain(before[1])
        if self.random.random() < 0.8:
            kind, did = self.random.choice([SECOND, SECOND, PASS]), self.random.choice(DOMAINS)
            self.contexts[source] = kind, did
            self.store(entry + 8, did << 8 | 2)
            self.store(entry, self.seconds[did].top | (2 << 2 if kind == PASS else 0) | 1)
            if self.caching:
                self.invalidate(1 | 3 << 4 | source << 32)
                self.forget_domain(did)

    def context_of(self, source: int) -> int:
        """Where its context of scalable mode is."""
        return self.below(ROOT + 16 * (source >> 8) + 8 * (source >> 7 & 1), source) + 32 * (source & 127)

    def switch_context(self) -> None:
        """Scalable mode: a device is turned off with all of its PASIDs, or on again."""
        source = self.random.choice(SOURCES)
        context = self.context_of(source)
        entry = self.load(context)
        if not entry or (entry & 1 and self.random.random() < 0.8):
            return
        self.store(context, entry ^ 1)
        if entry & 1:
            self.invalidate(1 | 3 << 4 | source << 32)
            for did in {did for (owner, _), (_, did, _) in self.pasids.items() if owner == source}:
                self.invalidate(7 | did << 16)
                self.forget_domain(did)
        elif self.caching:
            self.invalidate(1 | 3 << 4 | source << 32)
            self.invalidate(7 | 3 << 4)

    def change_pasid(self) -> None:
        source, pasid = self.random.choice(SOURCES), self.random.choice(PASIDS)
        context = self.context_of(source)
        if self.load(context) and not self.load(context) & 1:
            return
        table = self.below(self.below(context, source, 8) + 8 * (pasid >> 6))
        entry = table + 64 * (pasid & 63)
        before = self.pasids.pop((source, pasid), None)
        self.store(entry, 0)
        if before:
            self.forget_pasid(before[0], before[1], pasid)
        if self.random.random() < 0.8:
            did = self.random.choice(DOMAINS)
            # Who has the domain and the PASID of another has its tables too: they are the tags of translations.
            kind = self.random.choice([FIRST if did == DOMAINS[0] else NESTED, SECOND, PASS])
            number = (did + pasid) % 2
            self.pasids[source, pasid] = kind, did, number
            self.store(entry + 8, did, self.firsts[number].top if kind in (FIRST, NESTED) else 0)
            second = self.seconds[did].top | 2 << 2 if kind in (SECOND, NESTED) else 0
            self.store(entry, second | kind << 6 | 1)
            if self.caching:
                self.invalidate(7 | 1 << 4 | did << 16 | pasid << 32)
                self.forget_pasid(kind, did, pasid)

    def change_entry(self) -> None:
        """One interrupt entry, or some in a row, with one invalidation."""
        random, mask = self.random, self.random.choice([0, 0, 1, 3])
        first = random.randrange(ENTRIES) >> mask << mask
        harmless = not self.caching
        for index in range(first, first + (1 << mask)):
            harmless &= not self.load(ENTRY_TABLE + 16 * index) & 1
            low = random.randrange(16, 256) << 16 | random.choice([0, 1, 1, 1])
            self.store(ENTRY_TABLE + 16 * index, low, random.choice([0, 1 << 18 | random.choice(SOURCES)]))
        if not harmless:
            self.queue(4 | 1 << 4 | mask << 27 | first << 32 if random.random() < 0.8 else 4)

    def below(self, place: int, source: int | None = None, bits: int = 0) -> int:
        """The table that an entry names, made if it names none; a context that was absent may have been remembered."""
        if not self.load(place) & 1:
            self.store(place, self.page() | bits | 1)
            if self.caching:
                self.invalidate(1 | 1 << 4)
                if self.scalable:
                    self.invalidate(7 | 3 << 4)
        return self.load(place) & ~0xFFF

    # Requests -------------------------------------------------------------------------------------------------------

    def compare(self) -> int:
        random = self.random
        source, process, access = random.choice(SOURCES), random.choice(PASIDS), random.choice([READ, WRITE, 3])
        if self.pasids and random.random() < 0.9:
            source, process = random.choice(list(self.pasids))
        pasid = process if self.scalable and process else None          # PASID 0 is that of requests without
        count = random.choice([1, 8, 8, 40])
        iovas = np.array([random.choice(PAGES_OF_DEVICES) | random.randrange(PAGE) for _ in range(count)], np.uint64)
        found, expected = (unit.translate(source, iovas, access, pasid=pasid) for unit in self.units)
        for column in COLUMNS:
            assert (found[column] == expected[column]).all(), (
                column, found[column], expected[column], hex(source), pasid, access, [hex(iova) for iova in iovas],
                self.pasids, self.contexts)
        self.compare_message()
        self.asked += count
        return int((found["status"] == 0).sum())

    def compare_message(self) -> None:
        """The same for an interrupt request."""
        source, index = self.random.choice(SOURCES), self.random.randrange(ENTRIES)
        found, expected = (unit.accept_interrupt(source, 0xFEE00010 | index << 5, 0) for unit in self.units)
        assert found == expected, (found, expected, hex(source), index)


def run(count: int, seed: int, each: int = 16000) -> tuple[int, int]:
    """Compare `count` requests, a new machine every `each`; how many, and how many of them got through."""
    random, asked, passed = Random(seed), 0, 0
    while asked < count:
        driver = Driver(random)
        changes = [driver.change_second] * 5 + [driver.change_entry] * 2 + (
            [driver.change_pasid] * 2 + [driver.switch_context] + [driver.change_first] * 6 if driver.scalable
            else [driver.change_context])
        for _ in range(each // 32):
            if driver.free > DATA - 64 * PAGE:
                break
            random.choice(changes)()
            for _ in range(2):
                passed += driver.compare()
        asked += driver.asked
    return asked, passed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    total, through = run(arguments.count, arguments.seed)
    print(f"{total} requests, {through} of them got through")
