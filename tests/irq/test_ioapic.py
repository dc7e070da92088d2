"""The I/O APIC, rule by rule. Clauses are those of the 82093AA data sheet (290566) unless another is named."""

from __future__ import annotations

from typing import Any

import pytest

from hvcore import Hypervisor
from hvcore._native.platform import InterruptPlatform
from hvcore.wiring import IOAPIC_ADDRESS

PAGE = 0xFEC0_0000
SELECT, WINDOW, EOI_REGISTER = PAGE, PAGE + 0x10, PAGE + 0x40
EOI_MSR = 0x4000_0070
LOGICAL, STATUS, LOW, REMOTE_IRR, LEVEL, MASKED = 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16
PIN = 5


class Board:
    """A machine of two processors, its I/O APIC by the registers of its page."""

    def __init__(self, **options: Any) -> None:
        self.hypervisor = Hypervisor(memory="64 MiB", processors=2)
        self.chip = self.hypervisor.root.attach_platform(InterruptPlatform(**options))
        self.apics = [vp.interrupts for vp in self.hypervisor.root.vps.values()]
        for apic in self.apics:
            apic.apic_enabled = True

    def read(self, index: int) -> int:
        self.chip.write_memory(SELECT, index)
        return self.chip.read_memory(WINDOW)

    def write(self, index: int, value: int) -> None:
        self.chip.write_memory(SELECT, index)
        self.chip.write_memory(WINDOW, value)

    def entry(self, low: int, destination: int = 0, pin: int = PIN) -> None:
        self.write(0x11 + 2 * pin, destination << 24)
        self.write(0x10 + 2 * pin, low)

    def low(self, pin: int = PIN) -> int:
        return self.read(0x10 + 2 * pin)

    def requested(self, vp: int = 0) -> list[int]:
        return [vector for vector in range(256) if self.apics[vp].requested >> vector & 1]

    def serve(self, vp: int = 0) -> int:
        """Acknowledge and end what is pending."""
        vector: int = self.apics[vp].acknowledge()
        self.apics[vp].write_msr(EOI_MSR, 0, 0)
        return vector

    def count(self, name: str, pin: int = PIN) -> int:
        return self.chip.pin_counters(pin)[name]


@pytest.fixture
def board() -> Board:
    return Board()


def test_power_up(board: Board) -> None:
    """3.2: ID 0, version and 23 as the highest entry, every entry masked and otherwise 0."""
    assert [board.read(index) for index in (0, 1, 2, 3)] == [0, 23 << 16 | 0x20, 0, 0]
    assert [board.read(0x10 + index) for index in range(48)] == [MASKED, 0] * 24
    assert Board(version=0x11).read(1) == 23 << 16 | 0x11


def test_select_and_window(board: Board) -> None:
    """3.1: IOREGSEL has eight bits, IOWIN is the register that it names; what is not there reads 0."""
    board.chip.write_memory(SELECT, 0xFFFF_FF3E)
    assert board.chip.read_memory(SELECT) == 0x3E
    board.chip.write_memory(WINDOW, 0x55)
    assert board.low(23) == 0x55
    assert [board.chip.read_memory(PAGE + offset) for offset in (4, 0x20, 0x40, 0xFFC)] == [0] * 4
    assert board.read(0x40) == 0


def test_narrow_accesses(board: Board) -> None:
    board.write(0x10 + 2 * PIN, 0x18055)
    assert board.chip.read_memory(WINDOW, 1) == 0x55
    assert board.chip.read_memory(WINDOW + 1, 1) == 0x80
    assert board.chip.read_memory(WINDOW, 8) == 0x18055
    before = board.chip.counters()["accesses_ignored"]
    board.chip.write_memory(WINDOW + 2, 0, 2)
    assert board.low() == 0x18055
    assert board.chip.counters()["accesses_ignored"] == before + 1


def test_identification_and_arbitration(board: Board) -> None:
    """3.2.1, 3.2.3: four bits; ARB is loaded with the ID and read-only."""
    board.write(0, 0xFFFF_FFFF)
    assert (board.read(0), board.read(2)) == (15 << 24, 15 << 24)
    board.write(2, 0)
    board.write(1, 0)
    assert (board.read(2), board.read(1) >> 16) == (15 << 24, 23)


def test_writable_bits_of_an_entry(board: Board) -> None:
    """3.2.4: bits 12 and 14 are read-only, 17 to 55 reserved."""
    board.entry(0xFFFF_FFFF, 0xFF)
    board.write(0x11 + 2 * PIN, 0xFFFF_FFFF)
    assert (board.low(), board.read(0x11 + 2 * PIN)) == (0x1AFFF, 0xFF00_0000)


def test_edge(board: Board) -> None:
    board.entry(0x35)
    board.chip.set_pin(PIN, True)
    assert board.requested() == [0x35]
    assert not board.apics[0].level_triggered
    board.serve()
    assert board.requested() == []
    board.chip.pulse(PIN)
    assert board.requested() == []          # it was high: no edge
    board.chip.pulse(PIN)
    assert board.requested() == [0x35]
    assert (board.count("asserted"), board.count("delivered"), board.count("merged")) == (2, 2, 1)


def test_a_masked_edge_is_lost(board: Board) -> None:
    """3.2.4 bit 16: 'ignored (i.e., not delivered or held pending)'."""
    board.entry(0x35 | MASKED)
    board.chip.set_pin(PIN, True)
    board.entry(0x35)
    assert board.requested() == []
    assert board.count("masked") == 1


def test_a_masked_level_comes_when_the_mask_goes(board: Board) -> None:
    board.entry(0x35 | LEVEL | MASKED)
    board.chip.set_pin(PIN, True)
    assert board.requested() == []
    board.entry(0x35 | LEVEL)
    assert (board.requested(), board.low()) == ([0x35], 0x35 | LEVEL | REMOTE_IRR)


def test_level_comes_again_after_its_eoi_while_the_line_is_high(board: Board) -> None:
    """3.2.4 bit 14: set when accepted, cleared by the EOI message."""
    board.entry(0x35 | LEVEL)
    board.chip.set_pin(PIN, True)
    assert board.apics[0].level_triggered == 1 << 0x35
    for _ in range(3):
        assert board.serve() == 0x35
        assert board.low() & REMOTE_IRR
    board.apics[0].acknowledge()
    board.chip.set_pin(PIN, False)
    assert board.low() & REMOTE_IRR
    board.apics[0].write_msr(EOI_MSR, 0, 0)
    assert (board.requested(), board.low()) == ([], 0x35 | LEVEL)
    assert (board.count("delivered"), board.count("eois")) == (4, 4)


def test_level_that_rises_again_before_the_eoi_is_held(board: Board) -> None:
    board.entry(0x35 | LEVEL)
    board.chip.set_pin(PIN, True)
    board.apics[0].acknowledge()
    board.chip.pulse(PIN)
    board.chip.set_pin(PIN, True)
    assert (board.requested(), board.count("held")) == ([], 1)
    board.apics[0].write_msr(EOI_MSR, 0, 0)
    assert board.requested() == [0x35]


def test_active_low(board: Board) -> None:
    """3.2.4 bit 13."""
    board.chip.set_pin(PIN, True)
    board.entry(0x35 | LEVEL | LOW)
    assert board.requested() == []
    board.chip.set_pin(PIN, False)
    assert board.requested() == [0x35]


def test_polarity_that_changes_under_a_line_is_an_edge(board: Board) -> None:
    board.entry(0x35)
    board.entry(0x35 | LOW)
    assert board.requested() == [0x35]


def test_leaving_level_mode_forgets_remote_irr(board: Board) -> None:
    """How software ends an interrupt of version 11h by hand: masked edge, and back."""
    board.entry(0x35 | LEVEL)
    board.chip.set_pin(PIN, True)
    board.apics[0].acknowledge()
    board.entry(0x35 | MASKED)
    assert board.low() == 0x35 | MASKED
    board.entry(0x35 | LEVEL)
    assert (board.requested(), board.low() & REMOTE_IRR) == ([0x35], REMOTE_IRR)


def test_masking_and_unmasking_does_not_send_twice(board: Board) -> None:
    """'Changing the mask bit after the interrupt is accepted has no effect on that interrupt.'"""
    board.entry(0x35 | LEVEL)
    board.chip.set_pin(PIN, True)
    board.apics[0].acknowledge()
    board.entry(0x35 | LEVEL | MASKED)
    board.entry(0x35 | LEVEL)
    assert (board.requested(), board.count("delivered")) == ([], 1)


def test_a_new_vector_does_not_hear_the_eoi_of_the_old_one(board: Board) -> None:
    board.entry(0x35 | LEVEL)
    board.chip.set_pin(PIN, True)
    board.apics[0].acknowledge()
    board.entry(0x36 | LEVEL)
    board.apics[0].write_msr(EOI_MSR, 0, 0)
    assert board.low() & REMOTE_IRR
    board.chip.write_memory(EOI_REGISTER, 0x36)
    assert board.requested() == [0x36]


def test_two_pins_share_a_vector_and_one_eoi_ends_both(board: Board) -> None:
    for pin in (PIN, 17):
        board.entry(0x35 | LEVEL, pin=pin)
        board.chip.set_pin(pin, True)
    board.apics[0].acknowledge()
    board.chip.set_pin(PIN, False)
    board.apics[0].write_msr(EOI_MSR, 0, 0)
    assert (board.low() & REMOTE_IRR, board.low(17) & REMOTE_IRR, board.requested()) == (0, REMOTE_IRR, [0x35])


def test_eoi_register_is_there_from_version_20(board: Board) -> None:
    """ICH data sheets, EOIR: a write ends every level entry of that vector."""
    for version, cleared in ((0x20, True), (0x11, False)):
        other = Board(version=version)
        other.entry(0x35 | LEVEL)
        other.chip.set_pin(PIN, True)
        other.chip.set_pin(PIN, False)
        other.chip.write_memory(EOI_REGISTER, 0x35)
        assert (other.low() & REMOTE_IRR == 0) is cleared


@pytest.mark.parametrize(("destination", "targets"), [(0, [0]), (1, [1]), (0xFF, [0, 1]), (7, [])])
def test_physical_destinations(board: Board, destination: int, targets: list[int]) -> None:
    board.entry(0x35, destination)
    board.chip.set_pin(PIN, True)
    assert [vp for vp in range(2) if board.requested(vp)] == targets
    assert board.count("lost") == (not targets)


def test_logical_destinations(board: Board) -> None:
    """3.2.4 bit 11: the message destination address of flat mode, all bits ones for both of them."""
    board.entry(0x35 | LOGICAL, 0xFF)
    board.chip.set_pin(PIN, True)
    assert (board.requested(0), board.requested(1)) == ([0x35], [0x35])


def test_lowest_priority_goes_to_one(board: Board) -> None:
    board.apics[0].assert_interrupt(0x90)
    board.entry(0x35 | 1 << 8, 0xFF)
    board.chip.set_pin(PIN, True)
    assert (board.requested(0), board.requested(1)) == ([0x90], [0x35])


def test_nmi_is_an_edge_even_when_programmed_as_level(board: Board) -> None:
    board.entry(4 << 8 | LEVEL)
    board.chip.set_pin(PIN, True)
    assert board.apics[0].nmi_pending
    assert board.low() & REMOTE_IRR == 0


def test_level_that_nobody_accepts_waits(board: Board) -> None:
    """3.2.4 bit 12: send pending. It goes out when the entry finds a receiver, and no more when the line falls."""
    board.entry(0x35 | LEVEL, 9)
    board.chip.set_pin(PIN, True)
    assert board.low() == 0x35 | LEVEL | STATUS
    board.write(0x11 + 2 * PIN, 1 << 24)
    assert (board.requested(1), board.low()) == ([0x35], 0x35 | LEVEL | REMOTE_IRR)
    board.entry(0x35 | LEVEL, 9, pin=6)
    board.chip.pulse(6)
    assert board.low(6) == 0x35 | LEVEL


def test_extended_destinations() -> None:
    """CPUID 40000082h EAX.b2: bits 55:49 are destination bits 14:8."""
    board = Board(extended_destinations=True)
    board.write(0x11 + 2 * PIN, 0xFFFF_FFFF)
    assert board.read(0x11 + 2 * PIN) == 0xFFFE_0000
    board.entry(0x35)
    board.write(0x11 + 2 * PIN, 1 << 24 | 1 << 17)      # APIC 101h, which is not there
    board.chip.set_pin(PIN, True)
    assert (board.requested(1), board.count("lost")) == ([], 1)


def test_isa_interrupts_reach_both_chips(board: Board) -> None:
    """Input 4 of the 8259 and pin 4; interrupts from 16 on have no 8259."""
    board.entry(0x35, pin=4)
    board.chip.pulse(4)
    board.chip.set_pin(4, True)
    board.chip.set_pin(20, True)
    assert board.requested() == [0x35]
    assert board.chip.pics[0]["lines"] & 0x10


def test_the_timer_is_pin_2(board: Board) -> None:
    board.entry(0x30, pin=2)
    for port, value in ((0x43, 0x30), (0x40, 50), (0x40, 0)):
        board.chip.write_port(port, value)
    assert board.chip.next_deadline() is not None
    assert board.requested() == []


def test_the_8259_pair_is_pin_0_in_extint_mode(board: Board) -> None:
    board.entry(7 << 8, pin=0)
    for port, value in ((0x20, 0x13), (0x21, 0x20), (0x21, 1), (0x21, 0)):
        board.chip.write_port(port, value)
    board.chip.set_pin(3, True)
    assert (board.count("delivered", 0), board.requested()) == (1, [])


def test_a_partition_keeps_its_platform_until_it_dies() -> None:
    hypervisor = Hypervisor(memory="64 MiB", processors=1)
    child = hypervisor.root.create_partition(platform=True)
    platform = child.platform
    assert platform is not None and platform.attached
    with pytest.raises(ValueError, match="platform must be free"):
        hypervisor.root.attach_platform(platform)
    assert hypervisor.root.create_partition().platform is None
    child.destroy()
    assert not platform.attached and child.platform is None
    platform.set_pin(5, True)               # on its own again, and harmless
    with pytest.raises(ValueError, match="does not exist"):
        child.attach_platform()
    hypervisor.root.attach_platform(platform)
    assert platform.pin_level(5)
    hypervisor.close()
    assert not platform.attached


def test_a_hypervisor_that_is_dropped_lets_go_of_its_platforms() -> None:
    platform = Hypervisor(memory="64 MiB", processors=1).root.platform
    assert platform is not None
    import gc

    gc.collect()
    assert not platform.attached
    platform.set_pin(5, True)


def test_msi(board: Board) -> None:
    """SDM 3A 11.11: destination in address bits 19:12, vector and delivery mode in the data."""
    root = board.hypervisor.root
    assert root.send_msi(0xFEE0_1000, 0x51) == 1
    assert (board.requested(0), board.requested(1)) == ([], [0x51])
    assert root.send_msi(0xFEE0_9000, 0x51) == 0
    for name, arguments in (("address", (0xFED0_0000, 0)), ("data", (0xFEE0_0000, 1 << 32))):
        with pytest.raises(ValueError, match=f"{name} must be"):
            root.send_msi(*arguments)


def test_where_its_page_is() -> None:
    """The constant for the MADT, and what a wrong address is told."""
    assert IOAPIC_ADDRESS == PAGE == 0xFEC0_0000
    with pytest.raises(ValueError, match="gpa must be in the I/O APIC's page at 0xfec00000, not 0x1000"):
        InterruptPlatform().read_memory(0x1000)
