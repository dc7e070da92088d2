"""The unit against the pure-Python reference, on random tables. A million: python tests/iommu/random_unit.py, and
random_driver.py for invalidations."""

from __future__ import annotations

from random import Random
from typing import ClassVar

import numpy as np
import pytest

from .random_driver import run as drive
from .random_unit import Machine, run
from .reference_unit import Context, Fault, Reference
from .unit_machine import FIRST, UnitMachine

COUNT, SEED = 4000, 20261123


def test_requests_end_as_the_reference_says() -> None:
    reasons = run(COUNT, SEED)
    assert reasons[0] > COUNT // 20 and len(reasons) > 30, reasons


def test_what_a_driver_invalidates_is_forgotten() -> None:
    """In every mode, with and without caching mode, by the narrowest invalidation that will do."""
    asked, passed = drive(100_000, SEED)
    assert asked >= 100_000 and passed > asked // 20, passed


@pytest.mark.parametrize("seed", range(3))
def test_random_registers_and_tables_do_no_harm(seed: int) -> None:
    """Any register may hold anything: requests end, and memory outside the partition keeps its bytes."""
    random = Random(seed)
    machine = Machine(random)
    outside = [spn for spn in range(72) if spn not in {spn for spn, _ in machine.pages.values()}]
    canary = bytes(random.randrange(256) for _ in range(4096))
    for spn in outside:
        machine.memory.write(spn << 12, canary)
    machine.start()
    unit = machine.unit
    offsets = [0x18, 0x20, 0x28, 0x2C, 0x34, 0x38, 0x64, 0x68, 0x6C, 0x88, 0x90, 0x9C, 0xA0, 0xB8, 0xF0, 0xF8, 0xFC,
        0x22C]
    for _ in range(400):
        size = random.choice([4, 8, 4, 2])
        value = random.getrandbits(64) if random.random() < 0.5 else machine.pointer() | random.getrandbits(12)
        unit.write(random.choice(offsets) if random.random() < 0.8 else random.randrange(0x1000), size,
            value & (1 << 8 * size) - 1)
        source, iova, access, pasid, at = machine.request()
        unit.translate(source, np.array([iova] * 3, np.uint64), access, pasid=pasid, at=at)
        unit.write_memory(source, iova, b"\x5a" * random.randrange(1, 6000), pasid=pasid)
        unit.accept_interrupt(source, 0xFEE00000 | random.getrandbits(20), random.getrandbits(32))
    for spn in outside:
        assert machine.memory.read(spn << 12, 4096) == canary


def test_a_table_that_names_itself_is_marked_by_position() -> None:
    """One entry may be first and last of a walk. It gets its dirty bit as the last, and none if the walk fails before:
    the unit and the reference agree."""
    machine = UnitMachine()
    table, read_only = FIRST, FIRST + 0x3000
    # L4: table[0], L3: read_only[0], L2: table[1], L1: table[0] again.
    machine.store(table, read_only | 7, table | 7)
    machine.store(read_only, table | 7)
    machine.scalable(1)
    machine.space.map(read_only >> 12, np.array([read_only >> 12], np.uint64), rights=1)
    assert machine.ask(1 << 21, 2)["reason"] == 0x91
    assert machine.load(table) == read_only | 0x27

    class Memory:
        """Where the second entry cannot be written."""

        marks: ClassVar[list[tuple[int, int]]] = []

        def read64(self, place: int) -> int:
            return 0

        def mark(self, place: int, bits: int) -> bool:
            self.marks.append((place, bits))
            return place != read_only

    reference = Reference.__new__(Reference)
    reference.memory, reference.ecap = Memory(), 1 << 48
    with pytest.raises(Fault):
        reference.mark_first(Context(kind="first"), [table, read_only, table + 8, table], 2)
    assert Memory.marks == [(table, 0x20), (read_only, 0x20)]
