"""The 8259 pair, rule by rule. Clauses are headings of the Intel 8259A data sheet (231468)."""

from __future__ import annotations

import pytest

from hvcore._native.platform import InterruptPlatform

MASTER, SLAVE = 0x20, 0xA0
NON_SPECIFIC, SPECIFIC, ROTATE_NON_SPECIFIC, ROTATE_SPECIFIC, SET_PRIORITY = 0x20, 0x60, 0xA0, 0xE0, 0xC0
NESTED, AUTO_EOI = 0x10, 2


def initialize(chip: InterruptPlatform, *, icw4: int = 0, level: bool = False) -> InterruptPlatform:
    """As a PC does it: vectors 20h and 28h, the slave at input 2."""
    for port, base, wiring, last in ((MASTER, 0x20, 4, icw4), (SLAVE, 0x28, 2, 0)):
        chip.write_port(port, 0x11 | level << 3)
        for value in (base, wiring, 1 | last):
            chip.write_port(port + 1, value)
    return chip


@pytest.fixture
def chip() -> InterruptPlatform:
    return initialize(InterruptPlatform())


def isr(chip: InterruptPlatform, port: int = MASTER) -> int:
    chip.write_port(port, 0x0B)
    return chip.read_port(port)


def irr(chip: InterruptPlatform, port: int = MASTER) -> int:
    chip.write_port(port, 0x0A)
    return chip.read_port(port)


def test_power_up_is_masked_and_silent() -> None:
    chip = InterruptPlatform()
    chip.set_pin(3, True)
    assert not chip.intr
    assert (chip.read_port(0x21), chip.read_port(0xA1)) == (0xFF, 0xFF)


def test_icw1_clears_mask_service_priorities_and_edges(chip: InterruptPlatform) -> None:
    """ICW1 (a) to (e): a line that is high must fall and rise again."""
    chip.set_pin(3, True)
    assert chip.acknowledge() == 0x23
    chip.set_pin(4, True)
    for value in (SET_PRIORITY | 2, 0x68, 0x0B):
        chip.write_port(MASTER, value)
    chip.write_port(0x21, 0xF0)
    initialize(chip)
    state = chip.pics[0]
    assert (state["imr"], state["isr"], state["irr"], state["lowest"], state["special_mask"]) == (0, 0, 0, 7, False)
    assert chip.read_port(MASTER) == 0      # status read is IRR again
    assert not chip.intr
    chip.set_pin(4, False)
    chip.set_pin(4, True)
    assert chip.intr


def test_no_interrupt_before_the_sequence_is_complete(chip: InterruptPlatform) -> None:
    chip.write_port(MASTER, 0x11)
    chip.write_port(0x21, 0x40)
    chip.set_pin(3, True)
    assert not chip.intr
    chip.write_port(0x21, 4)
    chip.write_port(0x21, 1)
    assert chip.intr
    assert chip.acknowledge() == 0x43


def test_without_icw4_and_icw3() -> None:
    """SNGL and IC4 = 0: ICW2 is the whole sequence, and all functions of ICW4 are off, 8086 mode among them."""
    chip = InterruptPlatform()
    chip.write_port(MASTER, 0xB6)           # single, interval 4, A7..A5 = 101
    chip.write_port(0x21, 0x20)
    chip.write_port(0x21, 0x08)             # OCW1 already
    assert chip.read_port(0x21) == 0x08
    chip.set_pin(1, True)
    assert chip.acknowledge() == 0xA0 | 1 << 2      # low byte of the CALL's address


def test_vector_is_icw2_and_the_input(chip: InterruptPlatform) -> None:
    for line in (1, 3, 4, 5, 6, 7):
        chip.set_pin(line, True)
        assert chip.acknowledge() == 0x20 | line
        chip.write_port(MASTER, NON_SPECIFIC)


def test_cascade(chip: InterruptPlatform) -> None:
    """The master's input 2 is in service too, and both chips want an EOI."""
    chip.set_pin(12, True)
    assert (irr(chip), irr(chip, SLAVE)) == (4, 0x10)
    assert chip.acknowledge() == 0x2C
    assert (isr(chip), isr(chip, SLAVE)) == (4, 0x10)
    chip.write_port(SLAVE, NON_SPECIFIC)
    assert (isr(chip), isr(chip, SLAVE)) == (4, 0)
    chip.write_port(MASTER, NON_SPECIFIC)
    assert isr(chip) == 0


def test_priority_of_the_slave_is_between_1_and_3(chip: InterruptPlatform) -> None:
    for line in (3, 9, 15, 1):
        chip.set_pin(line, True)
    taken = []
    for _ in range(4):
        vector = chip.acknowledge()
        taken.append(vector - 0x20)
        if vector >= 0x28:
            chip.write_port(SLAVE, NON_SPECIFIC)
        chip.write_port(MASTER, NON_SPECIFIC)
    assert taken == [1, 9, 15, 3]


def test_fully_nested(chip: InterruptPlatform) -> None:
    """While one is in service, lower and equal ones wait, and higher ones come."""
    chip.set_pin(4, True)
    chip.acknowledge()
    chip.set_pin(5, True)
    chip.set_pin(4, False)
    chip.set_pin(4, True)
    assert not chip.intr
    chip.set_pin(3, True)
    assert chip.acknowledge() == 0x23
    chip.write_port(MASTER, NON_SPECIFIC)
    assert not chip.intr
    chip.write_port(MASTER, NON_SPECIFIC)
    assert chip.acknowledge() == 0x24


def test_a_line_that_falls_leaves_the_default_input(chip: InterruptPlatform) -> None:
    """Edge and level triggered modes: 'If the IR input goes low before this time a DEFAULT IR7 will occur'."""
    chip.pulse(5)
    assert not chip.intr
    assert chip.acknowledge() == 0x27
    assert isr(chip) == 0
    assert chip.counters()["master_spurious"] == 1


def test_a_masked_input_of_the_slave_is_no_request_of_the_master(chip: InterruptPlatform) -> None:
    chip.set_pin(10, True)
    chip.write_port(0xA1, 0xFF)
    assert not chip.intr
    assert chip.acknowledge() == 0x27
    assert (isr(chip), isr(chip, SLAVE), irr(chip, SLAVE)) == (0, 0, 4)


def test_edge_needs_a_new_edge_and_level_does_not(chip: InterruptPlatform) -> None:
    chip.set_pin(5, True)
    assert chip.acknowledge() == 0x25
    chip.write_port(MASTER, NON_SPECIFIC)
    assert not chip.intr
    chip.write_port(0x4D0, 1 << 6)
    chip.set_pin(6, True)
    assert chip.acknowledge() == 0x26
    chip.write_port(MASTER, NON_SPECIFIC)
    assert chip.intr
    chip.set_pin(6, False)
    assert not chip.intr


def test_ltim_makes_every_input_a_level() -> None:
    chip = initialize(InterruptPlatform(), level=True)
    chip.set_pin(5, True)
    chip.acknowledge()
    chip.write_port(MASTER, NON_SPECIFIC)
    assert chip.intr


def test_elcr_cannot_change_inputs_0_1_2_8_13(chip: InterruptPlatform) -> None:
    chip.write_port(0x4D0, 0xFFFF, 2)
    assert chip.read_port(0x4D0, 2) == 0xDEF8


def test_specific_eoi(chip: InterruptPlatform) -> None:
    for line in (5, 3):
        chip.set_pin(line, True)
        chip.acknowledge()
    chip.write_port(MASTER, SPECIFIC | 5)
    assert isr(chip) == 1 << 3


def test_rotation_on_non_specific_eoi(chip: InterruptPlatform) -> None:
    """Automatic rotation (equal priority devices): what was served becomes the lowest."""
    chip.set_pin(4, True)
    chip.acknowledge()
    chip.write_port(MASTER, ROTATE_NON_SPECIFIC)
    assert chip.pics[0]["lowest"] == 4
    chip.set_pin(4, False)
    for line in (4, 6):
        chip.set_pin(line, True)
    assert chip.acknowledge() == 0x26


def test_specific_rotation_and_set_priority(chip: InterruptPlatform) -> None:
    chip.write_port(MASTER, SET_PRIORITY | 5)
    for line in (3, 6):
        chip.set_pin(line, True)
    assert chip.acknowledge() == 0x26
    chip.write_port(MASTER, ROTATE_SPECIFIC | 6)
    assert (chip.pics[0]["lowest"], isr(chip)) == (6, 0)


@pytest.mark.parametrize("rotate", [False, True])
def test_automatic_eoi(rotate: bool) -> None:
    """The ISR bit falls at the end of the acknowledge cycle, and with rotation its input becomes the lowest."""
    chip = initialize(InterruptPlatform(), icw4=AUTO_EOI)
    chip.write_port(MASTER, 0x80 if rotate else 0)
    chip.set_pin(3, True)
    assert chip.acknowledge() == 0x23
    assert isr(chip) == 0
    assert chip.pics[0]["lowest"] == (3 if rotate else 7)


def test_special_mask_mode(chip: InterruptPlatform) -> None:
    """A masked input in service does not hold lower ones back, nor does a non-specific EOI end it."""
    chip.set_pin(3, True)
    chip.acknowledge()
    chip.set_pin(5, True)
    assert not chip.intr
    chip.write_port(0x21, 1 << 3)
    assert not chip.intr
    chip.write_port(MASTER, 0x68)
    assert chip.acknowledge() == 0x25
    chip.write_port(MASTER, NON_SPECIFIC)
    chip.write_port(MASTER, NON_SPECIFIC)
    assert isr(chip) == 1 << 3
    chip.write_port(MASTER, 0x48)
    assert not chip.pics[0]["special_mask"]
    chip.write_port(MASTER, NON_SPECIFIC)
    assert isr(chip) == 0


def test_special_fully_nested_mode() -> None:
    """A higher input of the slave that is in service is not locked out by the master."""
    for nested in (False, True):
        chip = initialize(InterruptPlatform(), icw4=NESTED * nested)
        chip.set_pin(12, True)
        assert chip.acknowledge() == 0x2C
        chip.set_pin(9, True)
        assert chip.intr is nested
        if nested:
            assert chip.acknowledge() == 0x29
            assert (isr(chip), isr(chip, SLAVE)) == (4, 0x12)


def test_poll(chip: InterruptPlatform) -> None:
    """The next read is an acknowledge: bit 7 and the input, and the ISR bit is set. Nothing waits: 0."""
    chip.set_pin(4, True)
    chip.write_port(MASTER, 0x0C)
    assert chip.read_port(MASTER) == 0x84
    assert isr(chip) == 1 << 4
    chip.write_port(MASTER, 0x0C)
    assert chip.read_port(MASTER) == 0
    assert not chip.intr


def test_poll_is_frozen_from_the_write_to_the_read(chip: InterruptPlatform) -> None:
    chip.set_pin(4, True)
    chip.write_port(MASTER, 0x0C)
    chip.set_pin(3, True)
    assert chip.read_port(MASTER) == 0x84


def test_mask(chip: InterruptPlatform) -> None:
    """OCW1: a masked request stays in IRR."""
    chip.write_port(0x21, 1 << 3)
    chip.set_pin(3, True)
    assert (chip.intr, irr(chip), chip.read_port(0x21)) == (False, 8, 8)
    chip.write_port(0x21, 0)
    assert chip.intr


def test_status_register_choice_is_kept(chip: InterruptPlatform) -> None:
    chip.set_pin(3, True)
    chip.acknowledge()
    chip.set_pin(4, True)
    assert isr(chip) == 8
    assert chip.read_port(MASTER) == 8
    assert irr(chip) == 16
    assert chip.read_port(MASTER) == 16


def test_a_slave_with_another_number_stays_silent(chip: InterruptPlatform) -> None:
    """Nobody drives the bus in the acknowledge cycle."""
    for value in (0x11, 0x28, 5, 1):
        chip.write_port(SLAVE if value == 0x11 else SLAVE + 1, value)
    chip.set_pin(9, True)
    assert chip.acknowledge() == 0xFF


def test_wide_accesses_take_the_next_port_along(chip: InterruptPlatform) -> None:
    chip.write_port(0x20, 0xAA0B, 2)
    assert chip.read_port(0x21) == 0xAA
    assert chip.read_port(0x20, 4) == 0xFFFF_AA00


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda chip: chip.set_pin(24, True), ValueError, "pin must be 0..23"),
        (lambda chip: chip.set_pin(2, True), ValueError, "pin must not be 2"),
        (lambda chip: chip.pulse("a"), TypeError, "pin must be an integer"),
        (lambda chip: chip.read_port(0x3F8), ValueError, "port must be one of"),
        (lambda chip: chip.read_port(0x20, 3), ValueError, "size must be a power of two"),
        (lambda chip: chip.write_memory(0xFEC01000, 0), ValueError, "gpa must be in the I/O APIC's page"),
        (lambda chip: chip.advance(-1), ValueError, "now must be"),
        (lambda chip: InterruptPlatform(version=5), ValueError, "version must be"),
    ],
)
def test_bad_arguments(chip: InterruptPlatform, call, error, text) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=text):
        call(chip)
