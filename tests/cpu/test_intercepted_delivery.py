"""The second level refuses the stack while an event is delivered: the event is pending again, and says what it is.

Types are those of register 00010002, PendingInterruption: 0 external, 2 NMI, 3 exception, 4 INT n, 5 INT1, 6 INT3.
"""

from __future__ import annotations

import pytest
from support import CODE, HLT, IRETQ, STACK, STUBS, Guest, code

from hvcore._native.exits import GpaViolation

NMI, INTERRUPT, NOBODY = 2, 0x50, 0xFD00_0000
PAGE = STACK - 0x1000


@pytest.mark.parametrize(
    ("text", "kind", "vector", "length", "error"),
    [
        ("90", 0, INTERRUPT, 0, None),
        ("90", 2, NMI, 0, None),
        ("0f0b", 3, 6, 0, None),
        ("8ed8", 3, 13, 0, 0x1234),
        ("cd40", 4, 0x40, 2, None),
        ("cd03", 4, 3, 2, None),
        ("f1", 5, 1, 1, None),
        ("cc", 6, 3, 1, None),
    ],
)
def test_event_is_pending_again(
    guest: Guest, text: str, kind: int, vector: int, length: int, error: int | None
) -> None:
    guest.load(text, HLT)
    guest.map(PAGE, NOBODY)
    guest.vp.rax, guest.vp.rflags = 0x1234, 0x202
    if kind == 0:
        guest.vp.interrupts.assert_interrupt(INTERRUPT)
    elif kind == 2:
        guest.vp.interrupts.assert_nmi()
    exit_ = guest.vp.run(max_instructions=100)
    assert isinstance(exit_, GpaViolation), exit_
    assert guest.vp.rip == CODE
    expected = 1 | kind << 1 | (error is not None) << 4 | vector << 16 | (error or 0) << 32
    assert guest.vp.pending_interruption & ~(15 << 5) == expected
    if length:
        assert guest.vp.pending_interruption >> 5 & 15 == length
    guest.map(PAGE, PAGE)
    guest.vp.run(max_instructions=100)
    assert guest.taken() == vector
    assert guest.frame(error is not None)[-5] == CODE + length
    assert guest.vp.interrupt_state == (2 if kind == 2 else 0)


@pytest.fixture
def guest() -> Guest:
    return Guest()


def test_an_nmi_that_was_refused_is_one(guest: Guest) -> None:
    """NMIs stay blocked from the first try to the IRET of the handler."""
    guest.write(STUBS + 16 * NMI, code("90", IRETQ))
    guest.load("90", HLT)
    guest.map(PAGE, NOBODY)
    guest.vp.interrupts.assert_nmi()
    guest.vp.run(max_instructions=100)
    guest.vp.interrupts.assert_nmi()
    guest.map(PAGE, PAGE)
    guest.vp.run(max_instructions=1)
    assert guest.vp.rip == STUBS + 16 * NMI + 1 and guest.vp.interrupts.nmi_pending
    guest.vp.run(max_instructions=1)
    assert guest.vp.rip == STUBS + 16 * NMI and not guest.vp.interrupts.nmi_pending
