"""Calls 7C, 7D and 7E: interrupts of devices (hyperv-abi.md 4.11)."""

from struct import unpack_from

import pytest
from hypercall_machine import ALL_PRIVILEGES, SELF, UNKNOWN_ID

from hvcore.enums import Hypercall, Status

DEVICE = 1 << 62 | 0x0018
MSI, EDGE, LEVEL, MULTICAST, PROCESSOR_SET = 1, 0, 1, 1, 2
MAP = "QQIIIIIIIIIIIIQ"


@pytest.fixture
def child(machine):
    child = machine.child(vps=3, privileges=ALL_PRIVILEGES)
    for vp in child.vps.values():
        vp.interrupts.apic_enabled = True
    return child


def map_interrupt(machine, target, *, count=1, vector=0x60, flags=0, mask=1, trigger=EDGE, source=MSI, kind=0, **more):
    words = (target, DEVICE, 0, 0, source, 0, 0, 0, kind, trigger, count, 0, vector, flags, mask)
    output = machine.call(Hypercall.MAP_DEVICE_INTERRUPT, MAP, *words, **more)
    return unpack_from("<IIII", output) if output else None


def retarget(machine, caller, address, data, vector, *, flags=0, mask=1, device=DEVICE, source=MSI, **more):
    words = (SELF, device, source, 0, address, data, 0, vector, flags, mask)
    machine.call(Hypercall.RETARGET_DEVICE_INTERRUPT, "QQIIIIQIIQ", *words, caller=caller, **more)


def requested(child):
    return [vp.interrupts.requested.bit_length() - 1 for _, vp in sorted(child.vps.items())]


def test_a_mapped_interrupt_reaches_its_processors(machine, child):
    source, reserved, address, data = map_interrupt(machine, child.id, mask=0b10)
    assert (source, reserved) == (MSI, 0)
    assert address >> 20 == 0xFEE
    assert machine.hypervisor.interrupts.deliver_msi(DEVICE, address, data) == 1
    assert requested(child) == [-1, 0x60, -1]


def test_a_source_of_zero_is_the_devices_own(machine, child):
    """The entry of a call that maps says nothing yet: Linux's root partition leaves all of it zero."""
    source, _, address, data = map_interrupt(machine, child.id, source=0)
    assert source == MSI
    assert machine.hypervisor.interrupts.deliver_msi(DEVICE, address, data) == 1


def test_several_vectors_and_multicast(machine, child):
    _, _, address, data = map_interrupt(machine, child.id, count=4, mask=0b101, flags=MULTICAST)
    assert machine.hypervisor.interrupts.deliver_msi(DEVICE, address, data + 3) == 2
    assert requested(child) == [0x63, -1, 0x63]
    assert map_interrupt(machine, child.id)[2] != address


def test_processor_set(machine, child):
    """With flag 2 the mask is a set's format, and a variable header has valid banks and banks."""
    _, _, address, data = map_interrupt(
        machine, child.id, flags=MULTICAST | PROCESSOR_SET, mask=0, elements=[1, 0b110]
    )
    assert machine.hypervisor.interrupts.deliver_msi(DEVICE, address, data) == 2
    assert requested(child) == [-1, 0x60, 0x60]
    bad = Status.INVALID_HYPERCALL_INPUT
    map_interrupt(machine, child.id, flags=PROCESSOR_SET, mask=0, elements=[3, 1], expect=bad)
    map_interrupt(machine, child.id, flags=PROCESSOR_SET, mask=2, elements=[1, 1], expect=Status.INVALID_PARAMETER)
    map_interrupt(machine, child.id, mask=1, elements=[1, 1], expect=bad)


@pytest.mark.parametrize(
    "wrong",
    [{"count": 3}, {"count": 0}, {"vector": 15}, {"vector": 256}, {"vector": 255, "count": 2}, {"trigger": 2},
     {"source": 2}, {"source": 3}, {"kind": 4}, {"flags": 8}, {"mask": 0}],
)  # fmt: skip
def test_bad_parameters(machine, child, wrong):
    map_interrupt(machine, child.id, **wrong, expect=Status.INVALID_PARAMETER)


def test_targets(machine, child):
    map_interrupt(machine, child.id, mask=8, expect=Status.INVALID_VP_INDEX)
    map_interrupt(machine, UNKNOWN_ID, expect=Status.INVALID_PARTITION_ID)
    map_interrupt(machine, machine.root.id, caller=child, expect=Status.ACCESS_DENIED)
    without = machine.child(vps=1)
    map_interrupt(machine, child.id, caller=without, expect=Status.ACCESS_DENIED)


def test_unmapped_interrupts_are_the_roots_again(machine, child):
    _, _, address, data = map_interrupt(machine, child.id, count=2)
    unmap = Hypercall.UNMAP_DEVICE_INTERRUPT
    machine.call(unmap, "QQIIIIII", child.id, DEVICE, MSI, 0, address, data, 0, 0)
    assert not machine.hypervisor.interrupts.knows(DEVICE)
    assert machine.hypervisor.interrupts.entry(DEVICE, address, data + 1) is None
    machine.call(
        unmap, "QQIIIIII", child.id, DEVICE, MSI, 0, address, data, 0, 0, expect=Status.INVALID_DEVICE_ID
    )
    machine.call(
        unmap, "QQIIIIII", child.id, DEVICE, 2, 0, address, data, 0, 0, expect=Status.INVALID_PARAMETER
    )


def test_guest_retargets_its_device(machine, child):
    """Any caller on SELF (section 13, #26), for devices of its own."""
    retarget(machine, child, 0xFEE00000, 0x31, 0x70, expect=Status.INVALID_DEVICE_ID)
    machine.hypervisor.interrupts.give_device(DEVICE, child)
    retarget(machine, child, 0xFEE00000, 0x31, 0x70, mask=0b100)
    assert machine.hypervisor.interrupts.deliver_msi(DEVICE, 0xFEE00000, 0x31) == 1
    retarget(machine, child, 0xFEE00000, 0x31, 0x71, mask=0b001)
    assert machine.hypervisor.interrupts.deliver_msi(DEVICE, 0xFEE00000, 0x31) == 1
    assert requested(child) == [0x71, -1, 0x70]
    other = machine.child(vps=1)
    retarget(machine, other, 0xFEE00000, 0x31, 0x70, expect=Status.ACCESS_DENIED)


def test_errors_of_retargeting(machine, child):
    machine.hypervisor.interrupts.give_device(DEVICE, child)
    for wrong in ({"vector": 15}, {"vector": 256}, {"vector": 0x40, "flags": 8}, {"vector": 0x40, "source": 2}):
        retarget(machine, child, 0xFEE00000, 0x31, **wrong, expect=Status.INVALID_PARAMETER)
    retarget(machine, child, 0xFEE00000, 0x31, 0x40, mask=1 << 5, expect=Status.INVALID_VP_INDEX)


def test_the_root_retargets_what_is_nobodys(machine):
    retarget(machine, machine.root, 0xFEE00000, 0x31, 0x70, mask=2)
    for vp in machine.root.vps.values():
        vp.interrupts.apic_enabled = True
    assert machine.hypervisor.interrupts.deliver_msi(DEVICE, 0xFEE00000, 0x31) == 1
    assert machine.root.vps[1].interrupts.requested == 1 << 0x70
