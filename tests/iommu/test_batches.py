"""A batch is its requests one after the other: results, counts, caches, faults, marks and memory.

One machine gets batches, its twin the same requests singly, which the reference of random_unit.py answers for. Tables
are sound for the most part, as drivers build them, so that walks fly; and some DMA writes go into the tables.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from hvcore._native.iommu import COLUMNS, Geometry

from .unit_machine import CCMD, DATA, FIRST, IOTLB, PAGE, READ, RECORDS, SOURCE, TOP, WRITE, UnitMachine

SIZE, TABLES_FROM, TABLES_END = 8 << 20, 0x100000, 0x200000
NONE: dict[str, Any] = {"iotlb": None, "pde": None, "pdpte": None, "pml4e": None}
SMALL = {"iotlb": Geometry(4, 3, "lru"), "pde": Geometry(2, 2), "pdpte": Geometry(1), "pml4e": Geometry(1, 2, "fifo")}
CACHES = {
    "default": {}, "none but contexts": NONE, "none at all": None, "small": SMALL,
    "direct": dict(NONE, iotlb=Geometry(16)), "wide": dict(SMALL, iotlb=Geometry(1, 24, "srrip")),
    "walks alone": dict(SMALL, iotlb=None),
}  # fmt: skip


def second_level(machine: UnitMachine, random: Random, iova: int, page: int, spoil: float) -> int:
    """A page of the second level: mostly there and with all rights, sometimes a large one."""
    bits = random.choice([1, 2, 0, 3 | 1 << 11]) if random.random() < spoil else 3
    if iova >> 21 & 7 == 5:
        return machine.map(TOP, iova & ~0x1FFFFF, page & ~0x1FFFFF, leaf=2, bits=bits)
    return machine.map(TOP, iova, page, bits=bits)


def build(machine: UnitMachine, random: Random, kind: str) -> list[int]:
    """Tables for some hundred pages; where they are."""
    if kind == "nested":
        for gpa in range(0, SIZE, PAGE):
            second_level(machine, random, gpa, gpa, 0.004 if gpa >= DATA else 0)
    iovas = []
    for _ in range(300):
        iova = random.choice([0, 1, 5, 513, 512 * 512 * 3]) << 21 | random.randrange(64) << 12
        page = random.randrange(DATA, SIZE, PAGE) if random.random() < 0.9 else random.randrange(
            TABLES_FROM, TABLES_END, PAGE)
        if kind == "nested":
            bits = random.choice([0x67] * 12 + [0x27, 0x07, 0x65, 0x63, 0])
            if iova >> 21 == 5:
                machine.map(FIRST, iova & ~0x1FFFFF, page & ~0x1FFFFF, leaf=2, bits=bits, table=0x27)
            else:
                machine.map(FIRST, iova, page, bits=bits, table=0x27)
        else:
            second_level(machine, random, iova, page, 0.05)
        iovas.append(iova)
    return [*iovas, 0x7F << 40, 1 << 48, 0xFEE00000]


def twins(seed: int, kind: str, caches: Any, moved: bool) -> tuple[UnitMachine, UnitMachine, list[int]]:
    found = []
    for _ in range(2):
        random = Random(seed)
        machine = UnitMachine(caches=caches)
        if moved:                   # some GPAs are not their own SPAs, and one is nowhere
            machine.space.map(1600, np.array([1601, 1600], np.uint64), rights=7)
            machine.space.unmap(1700, 1)
        if kind == "legacy":
            machine.legacy()
        else:
            machine.scalable({"second": 2, "nested": 3}[kind])
        iovas = build(machine, random, kind)
        found.append(machine)
    return found[0], found[1], iovas


def addresses(random: Random, iovas: list[int], count: int) -> Any:
    """Runs within pages, runs of pages, and leaps."""
    found: list[int] = []
    chosen = random.sample(iovas, 40) if random.random() < 0.5 else iovas
    while len(found) < count:
        iova = random.choice(chosen) + random.randrange(0, PAGE, 8)
        found += [iova + step * random.choice([0, 8, PAGE]) for step in range(random.choice([1, 1, 2, 6]))]
    return np.array(found[:count], np.uint64)


def disturb(machine: UnitMachine, random: Random) -> None:
    """Change an entry of some table, or let two change places; perhaps say so."""
    if random.random() < 0.3:
        table = random.choice([TOP, FIRST])
        for _ in range(random.choice([1, 2, 2])):
            table = machine.load(table) & 0xFFFFF000
        if table >= TABLES_FROM:
            first, second = machine.load(table), machine.load(table + 8)
            machine.store(table, second or first, first)
    slot = random.randrange(TABLES_FROM, machine.free, PAGE) + 8 * random.randrange(64)
    entry = machine.load(slot)
    if entry and random.random() < 0.5:
        machine.store(slot, entry ^ random.choice([1, 2, 1 << 12, 1 << 13, 0x40]))
    draw = random.random()
    if draw < 0.3:
        machine.unit.write(IOTLB, 8, 1 << 63 | random.choice([1, 2]) << 60 | 7 << 32)
    elif draw < 0.4:
        machine.unit.write(CCMD, 8, 1 << 63 | 1 << 61)


def bytes_of(machine: UnitMachine) -> memoryview:
    """Of memory, as words: what is compared the quickest."""
    return memoryview(machine.memory.view(0, SIZE)).cast("B").cast("Q")


def same(batch: UnitMachine, single: UnitMachine) -> None:
    assert batch.unit.counters() == single.unit.counters()
    for name in batch.unit.counters()["structures"]:
        assert batch.unit.contents(name) == single.unit.contents(name), name
    assert bytes_of(batch) == bytes_of(single)
    assert [batch.unit.read(RECORDS + 4 * i) for i in range(32)] == [single.unit.read(RECORDS + 4 * i)
                                                                     for i in range(32)]


@pytest.mark.parametrize("moved", [False, True], ids=["identical", "moved"])
@pytest.mark.parametrize("caches", CACHES)
@pytest.mark.parametrize("kind", ["legacy", "second", "nested"])
def test_a_batch_is_its_requests(kind: str, caches: str, moved: bool) -> None:
    random = Random(f"{kind} {caches} {moved}")
    granted = 0
    for seed in range(2):
        batch, single, iovas = twins(seed, kind, CACHES[caches], moved)
        for _ in range(12):
            state = random.getrandbits(64)
            for machine in (batch, single):
                disturb(machine, Random(state))
            asked = addresses(random, iovas, random.choice([3, 40, 150]))
            granted += translate_both(batch, single, asked, random.choice([READ, WRITE, READ | WRITE]))
            copy_both(batch, single, asked, random.choice([0, 8, 8, 64, 24, 5000]), random)
            same(batch, single)
    assert granted > 100


def translate_both(batch: UnitMachine, single: UnitMachine, asked: Any, access: int) -> int:
    """How many were granted."""
    found = batch.unit.translate(SOURCE, asked, access)
    alone = [single.unit.translate(SOURCE, asked[i:i + 1], access) for i in range(len(asked))]
    for name in COLUMNS:
        assert found[name].tolist() == [int(row[name][0]) for row in alone], name
    return int((found["status"] == 0).sum())


def copy_both(batch: UnitMachine, single: UnitMachine, asked: Any, size: int, random: Random) -> None:
    """Write words that are usable as entries, so that a table that is written leads somewhere else; read them back."""
    words = [random.randrange(DATA, SIZE, PAGE) | 0x67 for _ in range(size // 8 * len(asked))]
    data = np.array(words, np.uint64).view(np.uint8).reshape(len(asked), size)
    if size:
        assert batch.unit.write_batch(SOURCE, asked, data.data) == sum(
            single.unit.write_memory(SOURCE, int(iova), data[i].tobytes()) for i, iova in enumerate(asked))
    got = np.zeros((len(asked), 16), np.uint8)
    batch.unit.read_batch(SOURCE, asked, got.data)
    assert got.tobytes() == b"".join(single.unit.read_memory(SOURCE, int(iova), 16) for iova in asked)


@pytest.mark.parametrize("kind", ["legacy", "second", "nested"])
def test_writes_to_tables_hold_for_the_next_request(kind: str) -> None:
    """Without caches of translations each request reads its tables, also where the one before it has written them."""
    machine = UnitMachine(caches=NONE)
    if kind == "legacy":
        machine.legacy()
    else:
        machine.scalable({"second": 2, "nested": 3}[kind])
    if kind == "nested":
        for gpa in range(0, SIZE, PAGE):
            machine.map(TOP, gpa, gpa)
    top, bits = (FIRST, 0x67) if kind == "nested" else (TOP, 3)
    slots = [machine.map(top, i * PAGE, DATA + i * PAGE, bits=bits, table=0x27) for i in range(16)]
    tables = 16 * PAGE
    machine.map(top, tables, slots[0] & -PAGE, bits=bits)
    for _ in range(40):                                     # what may fly is found bit by bit
        machine.unit.translate(SOURCE, np.arange(0, 16 * PAGE, PAGE, dtype=np.uint64), WRITE)
    iovas, words = [], []
    for i in range(16):
        iovas += [tables + (slots[i] & 0xFFF), i * PAGE + 8]
        words += [DATA + (32 + i) * PAGE | bits, 0x1000 + i]
    assert machine.unit.write_batch(SOURCE, np.array(iovas, np.uint64), np.array(words, np.uint64).data) == 256
    assert [machine.load(DATA + (32 + i) * PAGE + 8) for i in range(16)] == [0x1000 + i for i in range(16)]
    assert [machine.load(DATA + i * PAGE + 8) for i in range(16)] == [0] * 16
