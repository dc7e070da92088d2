"""Messages between APICs: destinations, delivery modes, pins, MSIs (SDM 3A 11.5, 11.6, 11.11)."""

from __future__ import annotations

import pytest
from test_lapic_registers import (
    ALL,
    BASE,
    CURRENT,
    DFR,
    DIVIDE,
    EOI,
    ERROR,
    ESR,
    ICR,
    ICR_HIGH,
    INITIAL,
    LDR,
    LINT0,
    LINT1,
    OTHERS,
    SELF,
    SVR,
    TIMER,
    TPR,
    Machine,
)

LOGICAL, ASSERT, LEVEL = 1 << 11, 1 << 14, 1 << 15
LOWEST, SMI, NMI, INIT, STARTUP, EXTINT = (mode << 8 for mode in (1, 2, 4, 5, 6, 7))


def who(machine: Machine, vector: int = 0x40) -> list[int]:
    """Which controllers have the vector requested."""
    return [number for number, one in enumerate(machine) if one.requested >> vector & 1]


def send(machine: Machine, destination: int, command: int, sender: int = 0) -> None:
    machine[sender].apic.write(ICR_HIGH, destination << 24)
    machine[sender].apic.write(ICR, command)


@pytest.mark.parametrize(("destination", "expected"), [(0, [0]), (2, [2]), (7, []), (0xFF, [0, 1, 2])])
def test_physical_destinations(destination: int, expected: list[int]) -> None:
    """11.6.2.1: an id, or FFh for everybody."""
    machine = Machine(0, 1, 2)
    send(machine, destination, 0x40)
    assert who(machine) == expected
    assert machine[0].counters()["ipis_unanswered"] == (not expected)


@pytest.mark.parametrize(("destination", "expected"), [(1, [0]), (6, [1, 2]), (8, []), (0xFF, [0, 1, 2]), (0x80, [])])
def test_flat_logical_destinations(destination: int, expected: list[int]) -> None:
    """11.6.2.2: any bit of the MDA in the logical id."""
    machine = Machine(0, 1, 2)
    for bit, one in enumerate(machine):
        one.apic.write(LDR, 1 << 24 + bit)
    send(machine, destination, LOGICAL | 0x40)
    assert who(machine) == expected


@pytest.mark.parametrize(
    ("destination", "expected"),
    [(0x11, [0]), (0x13, [0, 1]), (0x2F, [2]), (0x1C, []), (0x31, []), (0xFF, [0, 1, 2])],
)
def test_cluster_logical_destinations(destination: int, expected: list[int]) -> None:
    """11.6.2.2: the upper four bits are the cluster, the lower four its members."""
    machine = Machine(0, 1, 2)
    for logical, one in zip((0x11, 0x12, 0x21), machine, strict=True):
        one.apic.write(DFR, 0x0FFF_FFFF)
        one.apic.write(LDR, logical << 24)
    send(machine, destination, LOGICAL | 0x40)
    assert who(machine) == expected


@pytest.mark.parametrize(
    ("destination", "command", "expected"),
    [(17, 0, [2]), (0xFFFF_FFFF, 0, [0, 1, 2, 3]), (0xFF, 0, []), (255 + 45, 0, [3]), (3, LOGICAL, [0, 1]),
     (1 << 16 | 2, LOGICAL, [2]), (1 << 16 | 1, LOGICAL, []), (18 << 16 | 1 << 12, LOGICAL, [3]),
     (0xFFFF_FFFF, LOGICAL, [0, 1, 2, 3])],
)  # fmt: skip
def test_x2apic_destinations(destination: int, command: int, expected: list[int]) -> None:
    """11.12.10: ids of 32 bits, clusters of sixteen, FFFFFFFFh for everybody."""
    machine = Machine(0, 1, 17, 300, x2apic=True)
    assert machine[0].apic.write_msr(0x830, destination << 32 | command | 0x40)
    assert who(machine) == expected


@pytest.mark.parametrize(("shorthand", "expected"), [(SELF, [1]), (ALL, [0, 1, 2]), (OTHERS, [0, 2])])
@pytest.mark.parametrize("x2apic", [False, True])
def test_shorthands(shorthand: int, expected: list[int], x2apic: bool) -> None:
    machine = Machine(0, 1, 2, x2apic=x2apic)
    if x2apic:
        assert machine[1].apic.write_msr(0x830, shorthand | 0x40)
    else:
        send(machine, 2, shorthand | 0x40, sender=1)
    assert who(machine) == expected


def test_lowest_priority() -> None:
    """11.6.2.4: the lowest APR; the focus processor first, where checking for it is on; then the first of equals."""
    machine = Machine(0, 1, 2)
    for one, priority in zip(machine, (0x50, 0x30, 0x30), strict=True):
        one.apic.write(TPR, priority)
    send(machine, 0xFF, LOWEST | 0x40)
    assert who(machine) == [1]
    machine[1].apic.write(TPR, 0x60)
    send(machine, 0xFF, LOWEST | 0x41)
    assert who(machine, 0x41) == [2]
    send(machine, 0xFF, LOWEST | 0x40)      # 1 has it already
    assert who(machine) == [1]
    machine[1].apic.write(SVR, 0x3FF)
    machine[2].apic.write(TPR, 0x20)
    send(machine, 0xFF, LOWEST | 0x40)
    assert who(machine) == [1, 2]
    machine[2].apic.write(SVR, 0xFF)        # software-disabled: does not take part
    send(machine, 0xFF, LOWEST | 0x42)
    assert who(machine, 0x42) == [0]


def test_nmi_smi_and_reserved_modes() -> None:
    """NMIs do not look at the vector; SMIs are ignored with a count (hyperv-abi 10.1)."""
    machine = Machine(0, 1)
    send(machine, 1, NMI | 3)
    assert machine[1].nmi_pending
    send(machine, 1, SMI)
    send(machine, 1, 3 << 8 | 0x40)
    assert machine[1].counters()["smis_ignored"] == 1
    assert machine[0].counters()["ipis_unanswered"] == 2
    assert machine[1].requested == 0


def test_init_and_its_level_deassertion() -> None:
    """11.6.1: a level de-assert has no effect; INIT takes an older SIPI back, a later one is kept, the first counts."""
    machine = Machine(0, 1)
    send(machine, 1, INIT | LEVEL)
    assert machine[1].apic.take_reset_messages() == (False, None)
    send(machine, 1, STARTUP | 0x11)
    send(machine, 1, INIT | LEVEL | ASSERT)
    assert machine[1].apic.take_reset_messages() == (True, None)
    send(machine, 1, INIT | ASSERT)
    send(machine, 1, STARTUP | 0x12)
    send(machine, 1, STARTUP | 0x13)
    assert machine[1].apic.take_reset_messages() == (True, 0x12)
    assert machine[1].counters()["startups_ignored"] == 1


def test_extint_waits_for_its_acknowledge_cycle() -> None:
    """It is not subject to priorities, and works with a software-disabled APIC."""
    machine = Machine(0, 1, enabled=False)
    send(machine, 1, EXTINT)
    assert machine[1].apic.external_pending
    assert machine[1].pending_vector() is None


@pytest.mark.parametrize(("address", "expected"), [
    (0xFEE01000, [1]), (0xFEEFF000, [0, 1, 2]), (0xFEE06004, [1, 2]), (0xFEE0600C, [1]), (0xFEE05000, []),
    (0xFED01000, []),
])  # fmt: skip
def test_message_signaled_interrupts(address: int, expected: list[int]) -> None:
    """11.11.1: destination [19:12], redirection hint b3 (one of those meant), logical b2."""
    machine = Machine(0, 1, 2)
    for bit, one in enumerate(machine):
        one.apic.write(LDR, 1 << 24 + bit)
    assert machine.fabric.send_msi(address, 0x40) == len(expected)
    assert who(machine) == expected


def test_trigger_mode_of_an_msi() -> None:
    """11.11.2: level-triggered with b15, a de-assertion without b14 has no effect."""
    machine = Machine(0)
    assert machine.fabric.send_msi(0xFEE00000, 0x40 | 1 << 15) == 0
    assert machine.fabric.send_msi(0xFEE00000, 0x40 | 1 << 15 | 1 << 14) == 1
    assert machine[0].level_triggered == 1 << 0x40


# Local sources.

def test_pins_by_their_entries() -> None:
    """11.5.1: masked, fixed, NMI; ExtINT is a level."""
    controller = Machine()[0]
    apic = controller.apic
    assert apic.set_pin(1, True) is False
    apic.set_pin(1, False)
    apic.write(LINT1, 4 << 8)
    assert apic.set_pin(1, True) is True
    assert controller.nmi_pending
    apic.write(LINT0, 7 << 8)
    assert apic.set_pin(0, True) is False
    assert apic.external_pending
    apic.set_pin(0, False)
    assert not apic.external_pending
    apic.write(LINT0, 0x44)
    assert apic.set_pin(0, True) is True
    assert controller.requested == 1 << 0x44


def test_a_level_triggered_lint0_interrupts_until_it_falls() -> None:
    """11.5.1: remote IRR is set when the interrupt is accepted and reset by the EOI; LINT1 is an edge always."""
    controller = Machine()[0]
    apic = controller.apic
    for entry in (LINT0, LINT1):
        apic.write(entry, LEVEL | 0x44 + (entry == LINT1))
    apic.set_pin(0, True)
    apic.set_pin(1, True)
    assert controller.level_triggered == 1 << 0x44
    assert (apic.read(LINT0) >> 14 & 1, apic.read(LINT1) >> 14 & 1) == (1, 0)
    for _ in range(2):
        while controller.acknowledge() is not None:
            apic.write(EOI, 0)
            if controller.requested == 1 << 0x44:
                break
    apic.set_pin(0, False)
    assert controller.acknowledge() == 0x44
    apic.write(EOI, 0)
    assert controller.requested == 0
    assert apic.read(LINT0) == LEVEL | 0x44


def test_pins_of_a_disabled_apic_are_intr_and_nmi() -> None:
    """11.4.3."""
    controller = Machine()[0]
    assert controller.apic.write_msr(BASE, 0xFEE00000)
    controller.apic.set_pin(0, True)
    controller.apic.set_pin(1, True)
    assert controller.apic.external_pending
    assert controller.nmi_pending


def test_other_local_sources() -> None:
    controller = Machine()[0]
    for entry, offset in ((1, 0x330), (2, 0x340), (6, 0x2F0)):
        assert controller.apic.raise_local(entry) is False
        controller.apic.write(offset, 0x60 + entry)
        assert controller.apic.raise_local(entry) is True
    assert controller.requested == 1 << 0x61 | 1 << 0x62 | 1 << 0x66


# The timer, by the clock of the fabric.

def test_divide_change_goes_on_with_the_count_that_is_left() -> None:
    machine = Machine()
    apic = machine[0].apic
    apic.write(DIVIDE, 11)
    apic.write(TIMER, 0x50)
    apic.write(INITIAL, 100)
    machine.fabric.now = 5 * 40 + 3
    assert (apic.read(CURRENT), apic.read(INITIAL)) == (60, 100)
    apic.write(DIVIDE, 0)
    assert apic.next_event == 5 * 40 + 3 + 60 * 10
    machine.fabric.now = 5 * 40 + 2 + 60 * 10
    assert (apic.read(CURRENT), machine[0].requested) == (1, 0)
    machine.fabric.now += 1
    assert (apic.read(CURRENT), machine[0].requested) == (0, 1 << 0x50)
    assert apic.next_event is None


def test_mode_changes_of_the_timer() -> None:
    """11.5.4: between one-shot and periodic it counts on; to and from TSC-deadline it is disarmed."""
    machine = Machine()
    apic = machine[0].apic
    apic.write(DIVIDE, 11)
    apic.write(INITIAL, 10)
    apic.write(TIMER, 0x20050)
    assert apic.next_event == 50
    machine.fabric.now = 130
    assert apic.next_event == 150
    apic.write(TIMER, 0x50)
    assert apic.read(CURRENT) == 4
    apic.write(TIMER, 0x40050)
    assert (apic.next_event, apic.read(CURRENT)) == (None, 0)
    assert apic.write_msr(0x6E0, 700)
    assert apic.next_event == 700
    apic.write(TIMER, 0x50)
    assert (apic.next_event, apic.read_msr(0x6E0)) == (None, 0)
    assert apic.write_msr(0x6E0, 900)
    assert apic.read_msr(0x6E0) == 0        # ignored in other modes


def test_a_timer_with_an_illegal_vector_is_a_receive_error() -> None:
    machine = Machine()
    apic = machine[0].apic
    apic.write(TIMER, 0x0F)
    apic.write(ERROR, 0x71)
    apic.write(INITIAL, 1)
    machine.fabric.now = 10
    apic.write(ESR, 0)
    assert (apic.read(ESR), machine[0].requested) == (1 << 6, 1 << 0x71)


def test_stopped_by_an_initial_count_of_zero() -> None:
    machine = Machine()
    apic = machine[0].apic
    apic.write(TIMER, 0x20050)
    apic.write(INITIAL, 1000)
    apic.write(INITIAL, 0)
    assert (apic.next_event, apic.read(CURRENT)) == (None, 0)


def test_the_state_image() -> None:
    """hyperv-abi 10.4, and back."""
    machine = Machine(3)
    controller = machine[0]
    apic = controller.apic
    for offset, value in ((LDR, 0x0800_0000), (TIMER, 0x20050), (INITIAL, 1000), (LINT1, 0x400), (TPR, 0x20)):
        apic.write(offset, value)
    controller.assert_interrupt(0x93)
    machine.fabric.now = 10 * 100
    words = [int.from_bytes(apic.state()[at : at + 4], "little") for at in range(0, 176, 4)]
    assert words[:5] == [3, 0x01060014, 0x0800_0000, 0xFFFF_FFFF, 0x1FF]
    assert words[21 + 4] == 1 << 0x93 - 128
    assert (words[32], words[36], words[40], words[41]) == (0x20050, 0x400, 1000, 900)
    other = Machine(3)
    other[0].apic.restore(apic.state())
    assert other[0].apic.state() == apic.state()
    assert other[0].pending_vector() == 0x93
    assert other[0].apic.next_event == 900 * 10
    with pytest.raises(ValueError, match="image"):
        apic.restore(bytes(175))
    with pytest.raises(ValueError, match="version"):
        apic.restore(bytes(176))
