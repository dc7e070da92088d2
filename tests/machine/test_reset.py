"""A root that resets itself finds its hardware as after power on (TLFS: HV_X64_MSR_RESET of the root; VT-d 11)."""

from __future__ import annotations

import pytest
from devices_by_hand import Configuration
from root_code import prepare

from hvcore.hypervisor import Hypervisor
from hvcore.machine.device import Device, DmaStatus
from hvcore.machine.virtio_block import VirtioBlock

GCMD, GSTS, RTADDR, IQA, FECTL = 0x18, 0x1C, 0x20, 0x90, 0x38
COM1 = 0x3F8
RESET = "b903000040b80100000031d20f30"  # mov ecx, 40000003h; mov eax, 1; xor edx, edx; wrmsr


@pytest.fixture
def hypervisor():
    with Hypervisor(memory="16 MiB", processors=1) as made:
        yield made


def reset(hypervisor: Hypervisor) -> None:
    """By guest code, which does not come back from it."""
    vp = prepare(hypervisor, RESET)
    vp.run(max_instructions=4)
    assert vp.cr0 & 1 == 0


def test_the_unit_of_the_root_is_off(hypervisor):
    unit = hypervisor.machine.attach_unit()
    fresh = {offset: unit.read(offset) for offset in range(0, unit.region_size, 4)}
    device = Device(hypervisor, requester_id=0x0308)
    for offset, value in ((IQA, 0x20_0000), (RTADDR, 0x21_0000)):
        unit.write(offset, 8, value)
    unit.write(FECTL, 4, 0)
    for command in (1 << 26, 1 << 30, 1 << 31):
        unit.write(GCMD, 4, unit.read(GSTS) & ~(1 << 30) | command)
    assert device.write(0x5000, b"data") is DmaStatus.BLOCKED and unit.read(0x34) & 2
    reset(hypervisor)
    assert {offset: unit.read(offset) for offset in fresh} == fresh
    assert device.write(0x5000, b"data") is DmaStatus.DONE and hypervisor.memory.read(0x5000, 4) == b"data"


def test_a_unit_of_the_hypervisor_goes_on(hypervisor):
    unit = hypervisor.machine.attach_unit(driver="hypervisor")
    device = Device(hypervisor, requester_id=0x0308)
    status = unit.read(GSTS)
    hypervisor.reset(hypervisor.root)
    assert unit.read(GSTS) == status and status >> 31
    assert device.write(0x5000, b"data") is DmaStatus.DONE


def test_devices_of_the_root_alone(hypervisor):
    """PCI functions decode nothing and are no masters, virtio has no driver, MSI-X is off with every vector masked."""
    child = hypervisor.root.create_partition(vps=1)
    disks = [VirtioBlock(hypervisor, bytearray(4096), requester_id=place) for place in (0x18, 0x20)]
    disks[1].owner = child
    for disk in disks:
        configuration = Configuration(hypervisor, disk.requester_id)
        configuration.write(4, 2, 6)
        disk.set_status(3)
        disk.msix.write(0, 8, 0xFEE0_0000)
        disk.msix.write(8, 8, 0x41)
        configuration.write(disk.msix.offset + 2, 2, 0xC000)
    places = [disk.bar_address(0) for disk in disks]
    reset(hypervisor)
    first, second = disks
    assert (first.command, first.status_bits, first.msix.enabled) == (0, 0, False)
    assert first.msix.read(0, 8) == 0 and first.msix.read(8, 8) == 1 << 32
    assert first.get(first.msix.offset + 2, 2) == first.msix.vectors - 1
    assert (second.command, second.status_bits, second.msix.enabled) == (6, 3, True)
    assert [disk.bar_address(0) for disk in disks] == places


def test_the_console(hypervisor):
    machine = hypervisor.machine
    machine.console.feed(b"x")
    for offset, value in ((1, 1), (4, 8), (7, 0x5A)):
        machine.ports.write(COM1 + offset, 1, value)
    assert machine.ports.read(COM1 + 5, 1) & 1
    reset(hypervisor)
    assert [machine.ports.read(COM1 + offset, 1) for offset in (1, 2, 4, 5, 7)] == [0, 1, 0, 0x60, 0]


def test_a_child_resets_nothing_of_it(hypervisor):
    unit = hypervisor.machine.attach_unit()
    unit.write(FECTL, 4, 0)
    child = hypervisor.root.create_partition(vps=1)
    hypervisor.reset(child)
    assert unit.read(FECTL) == 0
