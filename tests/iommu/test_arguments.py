"""Arguments of a unit's Python face: an exception names what makes no sense."""

from __future__ import annotations

import pytest

from hvcore._native.iommu import RemappingUnit
from hvcore.hypervisor import Hypervisor

from .unit_machine import UnitMachine


@pytest.fixture
def machine():
    return UnitMachine()


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda unit: unit.read(-1), ValueError, "offset"),
        (lambda unit: unit.read(0, 0), ValueError, "size"),
        (lambda unit: unit.write(0, 4, 1 << 32), ValueError, "value"),
        (lambda unit: unit.write(0, 8, 1 << 64), ValueError, "value"),
        (lambda unit: unit.write(0, 8, "1"), TypeError, "value"),
        (lambda unit: unit.translate(1, [0], columns=["zz"]), ValueError, "columns"),
        (lambda unit: unit.accept_interrupt(1 << 16, 0xFEE00000, 0), ValueError, "source"),
        (lambda unit: unit.accept_interrupt(1, 0x1000, 0), ValueError, "address"),
        (lambda unit: unit.interrupt(1 << 16, 0xFEE00000, 0), ValueError, "source"),
        (lambda unit: unit.interrupt(1, 0x1FEE00000, 0), ValueError, "address"),
        (lambda unit: unit.read_memory(1, 0, -1), ValueError, "size"),
        (lambda unit: unit.translate(-1, [0]), ValueError, "source"),
        (lambda unit: unit.translate(1.0, [0]), TypeError, "source"),
        (lambda unit: unit.translate(1, [0], "r"), TypeError, "access"),
        (lambda unit: unit.translate(1, [0], 0), ValueError, "access"),
        (lambda unit: unit.translate(1, [0], 4), ValueError, "access"),
        (lambda unit: unit.translate(1, [0], 1 << 64), ValueError, "access"),
        (lambda unit: unit.translate(1, [0], at=3), ValueError, "at"),
        (lambda unit: unit.translate(1, [0], at=-1), ValueError, "at"),
        (lambda unit: unit.translate(1, [0], pasid=1 << 20), ValueError, "pasid"),
        (lambda unit: unit.translate(1, [0], pasid="1"), TypeError, "pasid"),
        (lambda unit: unit.read_memory(1 << 16, 0, 4), ValueError, "source"),
        (lambda unit: unit.write_memory(1, 0, b"", pasid=-1), ValueError, "pasid"),
        (lambda unit: RemappingUnit(unit.memory, unit.space, cap=-1), ValueError, "cap"),
        (lambda unit: RemappingUnit(unit.memory, unit.space, ecap="1"), TypeError, "ecap"),
        (lambda unit: RemappingUnit(unit.memory, unit.space, host_address_bits=64), ValueError, "host_address_bits"),
        (lambda unit: RemappingUnit(unit.memory, unit.space, caches={"iotlb": "64/4"}), TypeError, "iotlb"),
    ],
)
def test_arguments_are_named(machine, call, error, name):
    with pytest.raises(error, match=rf"^{name} must be"):
        call(machine.unit)


def test_the_interrupt_controllers_are_of_the_same_memory(machine):
    with Hypervisor(memory="16 MiB", processors=1) as hypervisor:
        with pytest.raises(ValueError, match=r"core must be of a partition in the memory of the unit"):
            machine.unit.connect(hypervisor.root.core)
        own = RemappingUnit(hypervisor.memory, hypervisor.root.space)
        own.connect(hypervisor.root.core)
