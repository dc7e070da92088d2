"""Calls 94, 55, 56 and E5: virtual interrupts (hyperv-abi.md 4.7, 10.2)."""

from struct import unpack_from

import pytest
from hypercall_machine import UNKNOWN_ID

from hvcore.enums import Hypercall, Status

FIXED, LOWEST, SMI, REMOTE_READ, NMI, INIT, SIPI, EXTINT, LINT0, LINT1 = range(10)
LEVEL, LOGICAL = 1, 2
WITHDRAW = 0xFFFFFFFF


def assert_interrupt(machine, partition_id, kind, vector, *, flags=0, destination=0, vtl=0, **keywords):
    values = (partition_id, kind, flags, destination, vector, vtl)
    machine.call(Hypercall.ASSERT_VIRTUAL_INTERRUPT, "QIIQIB3x", *values, **keywords)


@pytest.fixture
def child(machine):
    child = machine.child(vps=3)
    for vp in child.vps.values():
        vp.interrupts.apic_enabled = True
    return child


def requested(child):
    return [vp.interrupts.requested.bit_length() - 1 for _, vp in sorted(child.vps.items())]


def test_fixed_goes_to_the_apic_id(machine, child):
    assert_interrupt(machine, child.id, FIXED, 0x31, destination=1)
    assert requested(child) == [-1, 0x31, -1]
    assert_interrupt(machine, child.id, FIXED, 0xFF, destination=0xFF)
    assert requested(child) == [0xFF, 0xFF, 0xFF]


def test_level_is_withdrawn_and_edge_is_not(machine, child):
    assert_interrupt(machine, child.id, FIXED, 0x30)
    assert_interrupt(machine, child.id, FIXED, 0x41, flags=LEVEL)
    assert_interrupt(machine, child.id, FIXED, WITHDRAW)
    assert requested(child)[0] == 0x41
    assert_interrupt(machine, child.id, FIXED, WITHDRAW, flags=LEVEL)
    assert requested(child)[0] == 0x30


def test_lowest_priority_picks_one(machine, child):
    child.vps[0].interrupts.assert_interrupt(0x80)
    child.vps[0].interrupts.acknowledge()
    assert_interrupt(machine, child.id, LOWEST, 0x50, destination=0xFFFFFFFF)
    assert requested(child)[1] == 0x50
    assert requested(child)[2] == -1


@pytest.mark.parametrize(("kind", "vector"), [(NMI, 0), (INIT, 0), (SIPI, 0x10), (LINT0, 0), (LINT1, 0)])
def test_other_kinds(machine, child, kind, vector):
    assert_interrupt(machine, child.id, kind, vector)
    assert child.vps[0].interrupts.nmi_pending == (kind == NMI)


def test_external(machine, child):
    assert_interrupt(machine, child.id, EXTINT, 8, flags=LEVEL)
    assert_interrupt(machine, child.id, EXTINT, 9, flags=LEVEL)
    assert_interrupt(machine, child.id, EXTINT, WITHDRAW, flags=LEVEL)
    assert_interrupt(machine, child.id, EXTINT, 8, flags=LEVEL, destination=1, expect=Status.INVALID_VP_INDEX)


def test_external_acknowledged(machine, child):
    child.vps[0].external_acknowledged = True
    assert_interrupt(machine, child.id, EXTINT, 8, flags=LEVEL, expect=Status.ACKNOWLEDGED)


@pytest.mark.parametrize(
    ("kind", "vector", "flags"),
    [
        (FIXED, 15, 0),
        (FIXED, 256, 0),
        (FIXED, 0x30, 8),
        (FIXED, 0x30, 1 << 31),
        (LOWEST, 0x30, 0),
        (SMI, 0, 0),
        (REMOTE_READ, 0, 0),
        (NMI, 2, 0),
        (NMI, 0, LEVEL),
        (INIT, 1, 0),
        (INIT, 0, LEVEL),
        (SIPI, 256, 0),
        (EXTINT, 8, 0),
        (EXTINT, 256, LEVEL),
        (LINT0, 1, 0),
        (10, 0x30, 0),
        (0xFFFFFFFF, 0x30, 0),
    ],
)
def test_bad_parameters(machine, child, kind, vector, flags):
    assert_interrupt(machine, child.id, kind, vector, flags=flags, expect=Status.INVALID_PARAMETER)
    assert requested(child) == [-1, -1, -1]


def test_targets(machine, child):
    assert_interrupt(machine, UNKNOWN_ID, FIXED, 0x30, expect=Status.INVALID_PARTITION_ID)
    assert_interrupt(machine, machine.root.id, FIXED, 0x30, expect=Status.ACCESS_DENIED)
    assert_interrupt(machine, child.id, FIXED, 0x30, caller=child, expect=Status.ACCESS_DENIED)
    assert_interrupt(machine, child.id, FIXED, 0x30, destination=9, expect=Status.INVALID_VP_INDEX)
    assert_interrupt(machine, child.id, FIXED, 0x30, destination=1 << 40, expect=Status.INVALID_VP_INDEX)
    assert_interrupt(machine, child.id, FIXED, 0x30, vtl=0x11, expect=Status.INVALID_VTL_STATE)
    assert_interrupt(machine, child.id, FIXED, 0x30, vtl=0x80, expect=Status.INVALID_PARAMETER)


def test_the_old_call_is_the_same_without_a_vtl(machine, child):
    machine.call(Hypercall.ASSERT_VIRTUAL_INTERRUPT_OLD, "QIIQI4x", child.id, FIXED, 0, 2, 0x77)
    assert requested(child) == [-1, -1, 0x77]
    machine.call(Hypercall.ASSERT_VIRTUAL_INTERRUPT_OLD, "QIIQI4x", child.id, SMI, 0, 2, 0, expect=Status(5))
    machine.call(Hypercall.ASSERT_VIRTUAL_INTERRUPT_OLD, "QIIQI4x", child.id, FIXED, 0, 7, 0x77, expect=Status(0xE))


def test_external_is_cleared_before_the_next_one(machine, child):
    """16 ACKNOWLEDGED until call 56; 14 if there is nothing to clear."""
    machine.call(Hypercall.CLEAR_VIRTUAL_INTERRUPT, "Q", child.id, expect=Status(0x14))
    child.vps[0].external_acknowledged = True
    assert_interrupt(machine, child.id, EXTINT, 8, flags=LEVEL, expect=Status(0x16))
    machine.call(Hypercall.CLEAR_VIRTUAL_INTERRUPT, "Q", child.id)
    assert_interrupt(machine, child.id, EXTINT, 8, flags=LEVEL)
    machine.call(Hypercall.CLEAR_VIRTUAL_INTERRUPT, "Q", child.id, expect=Status.NOT_ACKNOWLEDGED)
    machine.call(Hypercall.CLEAR_VIRTUAL_INTERRUPT, "Q", UNKNOWN_ID, expect=Status.INVALID_PARTITION_ID)
    machine.call(Hypercall.CLEAR_VIRTUAL_INTERRUPT, "Q", machine.root.id, expect=Status.ACCESS_DENIED)


@pytest.mark.parametrize(
    ("destination", "logical", "members"),
    [(0, 0, 0b001), (2, 0, 0b100), (0xFF, 0, 0b111), (0xFFFFFFFF, 0, 0b111), (9, 0, 0), (1 << 32, 0, 0), (6, 1, 0b110)],
)
def test_vp_set_of_a_destination(machine, child, destination, logical, members):
    for index, vp in child.vps.items():
        vp.interrupts.apic.write(0xD0, 1 << 24 + index)  # LDR of the flat model
    output = machine.call(Hypercall.GET_VP_SET_FROM_MDA, "QQBB6x", child.id, destination, 0, logical)
    assert len(output) == 528
    assert unpack_from("<QQQ", output) == (0, int(members != 0), members)
    assert not any(output[24:])


def test_errors_of_vp_sets(machine, child):
    call = Hypercall.GET_VP_SET_FROM_MDA
    machine.call(call, "QQBB6x", child.id, 0, 0x11, 0, expect=Status.INVALID_VTL_STATE)
    machine.call(call, "QQBB6x", child.id, 0, 0, 2, expect=Status.INVALID_PARAMETER)
    machine.call(call, "QQBBB5x", child.id, 0, 0, 0, 1, expect=Status.INVALID_PARAMETER)
    machine.call(call, "QQBB6x", UNKNOWN_ID, 0, 0, 0, expect=Status.INVALID_PARTITION_ID)
    machine.call(call, "QQBB6x", machine.root.id, 0, 0, 0, expect=Status.ACCESS_DENIED)
