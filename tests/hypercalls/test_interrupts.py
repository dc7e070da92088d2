"""Call 94: virtual interrupts (hyperv-abi.md 4.7, 10.2)."""

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
