"""The shadow of STI holds an instruction that its parent has to see to first, until it has run (SDM 3C 24.4.2)."""

from __future__ import annotations

import pytest
from support import CODE, HLT, Guest, mov

from hvcore._native.exits import ExceptionRaised, Halt, Mmio

UD, VECTOR = 6, 0x50
DEVICE = 0x30_0000              # an address that leads to where no memory is


@pytest.fixture
def guest() -> Guest:
    made = Guest()
    made.map(DEVICE, 0xFD00_0000)
    return made


def load(guest: Guest, *parts: bytes | str) -> None:
    """An interrupt waits, and interrupts are off."""
    guest.load(mov("rbx", DEVICE), *parts)
    guest.vp.interrupts.assert_interrupt(VECTOR)


def test_a_read_of_device_memory(guest: Guest) -> None:
    load(guest, "fb 8b03 90", HLT)  # sti / mov eax, [rbx] / nop
    exit_ = guest.vp.run(max_instructions=100)
    assert isinstance(exit_, Mmio) and exit_.rip == CODE + 11
    assert guest.vp.interrupt_state & 1, "the parent is told of the shadow"
    exit_.complete(0x1234)
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert (guest.taken(), guest.frame()[0], guest.vp.rax) == (VECTOR, CODE + 13, 0x1234)


def test_without_a_shadow_there_is_none(guest: Guest) -> None:
    guest.load(mov("rbx", DEVICE), "fb 90 8b03 90", HLT)
    assert isinstance(guest.vp.run(max_instructions=100), Mmio)
    assert guest.vp.interrupt_state & 1 == 0


def test_a_write_is_done_when_it_leaves(guest: Guest) -> None:
    load(guest, "fb 8903 90", HLT)
    exit_ = guest.vp.run(max_instructions=100)
    assert isinstance(exit_, Mmio) and exit_.write
    assert guest.vp.interrupt_state & 1 == 0
    guest.vp.run(max_instructions=100)
    assert (guest.taken(), guest.frame()[0]) == (VECTOR, CODE + 13)


def test_an_intercepted_exception_that_is_let_pass(guest: Guest) -> None:
    guest.partition.core.set_exception_intercept(UD, True)
    load(guest, "fb 0f0b")  # sti / ud2
    assert isinstance(guest.vp.run(max_instructions=100), ExceptionRaised)
    assert guest.vp.interrupt_state & 1
    guest.vp.run(max_instructions=100)
    assert (guest.taken(), guest.frame()[0]) == (UD, CODE + 11)


def test_an_injected_event_does_not_wait_for_the_shadow(guest: Guest) -> None:
    guest.partition.core.set_exception_intercept(UD, True)
    load(guest, "fb 0f0b")
    guest.vp.run(max_instructions=100)
    guest.vp.pending_interruption = 13 << 16 | 1 << 4 | 3 << 1 | 1
    guest.vp.run(max_instructions=100)
    assert (guest.taken(), guest.frame(True)[:2]) == (13, (0, CODE + 11))
    assert guest.vp.interrupt_state & 1 == 0


