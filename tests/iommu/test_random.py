"""The unit against the pure-Python reference, on random tables. A million: python tests/iommu/random_unit.py."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from .random_unit import Machine, run

COUNT, SEED = 4000, 20261123


def test_requests_end_as_the_reference_says() -> None:
    reasons = run(COUNT, SEED)
    assert reasons[0] > COUNT // 20 and len(reasons) > 30, reasons


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
