"""Times that a machine comes to by sleeping: up to 2^62 ticks, 146 years, everything is as it is near 0."""

from __future__ import annotations

from struct import unpack

import pytest
from apic_guest import EOI, INITIAL, LVT_TIMER, MARK, SVR, apic_guest, base, handler, rdmsr, store, wrmsr
from support import HLT, code

from hvcore._native.exits import Halt

TIMER_CONFIG, TIMER_COUNT, TIME_REF_COUNT, REFERENCE_TSC, SYNTHETIC_EOI = (
    0x4000_00B0, 0x4000_00B1, 0x4000_0020, 0x4000_0021, 0x4000_0070)  # fmt: skip
ONE_SHOT, PERIODIC = 0x1401, 0x1403
"""Of a synthetic timer: enabled, direct mode, vector 40h."""
FRAME = 0x30_0000
SLEEP = code("fb f4 fa")  # sti / hlt / cli
NOTE_TIME = code("0f31 48c1e220 4809d0 498b0f 498944cf08 49ff07")
"""rdtsc; RAX behind the words at R15, which begin with their number."""
COUNTER = rdmsr(TIME_REF_COUNT) + code("498b0f 498944cf08 49ff07")


def times_behind(wake: int) -> tuple[list[int], list[int]]:
    """A guest sleeps until `wake`, in 100 ns, by one timer, then by a periodic one and by that of its APIC. When it
    wakes, in ticks behind `wake`; and at its end what its page makes of the TSC, its counter, and the page again."""
    guest = apic_guest()
    handler(guest, 0x40, NOTE_TIME, wrmsr(SYNTHETIC_EOI, 0))
    handler(guest, 0x41, NOTE_TIME, store(EOI, 0))
    guest.load(
        base(), store(SVR, 0x1FF), wrmsr(REFERENCE_TSC, FRAME | 1),
        wrmsr(TIMER_COUNT, wake), wrmsr(TIMER_CONFIG, ONE_SHOT), SLEEP,
        wrmsr(TIMER_COUNT, 10_000), wrmsr(TIMER_CONFIG, PERIODIC), SLEEP * 3, wrmsr(TIMER_CONFIG, 0),
        store(LVT_TIMER, 0x41), store(INITIAL, 100_000), SLEEP,
        NOTE_TIME, COUNTER, NOTE_TIME, HLT,
    )  # fmt: skip
    guest.vp.r15 = MARK
    assert isinstance(guest.vp.run(max_instructions=10_000), Halt)
    assert guest.vp.counters()["instructions"] < 1000, "sleep costs no instructions"
    noted = guest.words(MARK + 8, guest.read(MARK))
    _, scale, offset = unpack("<I4xQq", guest.vp.read_gpa(FRAME, 24))
    before, count, after = noted[-3:]
    by_page = [(tsc * scale >> 64) + offset for tsc in (before, after)]
    return [time - 100 * wake for time in noted[:-2]], [by_page[0], count, by_page[1]]


NEAR, END = 10_000, (1 << 62) // 100
FAR = [(1 << 53) // 100, (1 << 60) // 100, (1 << 61) // 100, END - 1_000_000]


@pytest.mark.parametrize("wake", FAR)
def test_timers_are_as_exact(wake: int) -> None:
    assert times_behind(wake)[0] == times_behind(NEAR)[0]


@pytest.mark.parametrize("wake", [NEAR, *FAR])
def test_counter_and_page_agree(wake: int) -> None:
    """TLFS 12.5: the formula of the page and HV_X64_MSR_TIME_REF_COUNT are one clock."""
    before, count, after = times_behind(wake)[1]
    assert before <= count <= after <= before + 1


@pytest.mark.parametrize("wake", [END, END + 1, (1 << 63) // 100, (1 << 64) // 100, (1 << 64) - 1])
def test_what_is_due_behind_the_end_never_is(wake: int) -> None:
    """So that no time wraps."""
    guest = apic_guest()
    guest.load(base(), store(SVR, 0x1FF), wrmsr(TIMER_COUNT, wake), wrmsr(TIMER_CONFIG, ONE_SHOT), SLEEP, HLT)
    assert isinstance(guest.vp.run(max_instructions=10_000), Halt)
    assert guest.hypervisor.scheduler.now < 100
    assert guest.vp.interrupts.requested == 0


def test_a_run_over_the_end_can_be_cut() -> None:
    """A budget counts from where a processor is, however far that is; and counters of the APIC are no dates."""
    guest = apic_guest()
    handler(guest, 0x40, wrmsr(SYNTHETIC_EOI, 0))
    handler(guest, 0x41, NOTE_TIME, store(EOI, 0))
    loop = code("49ffc0 ebfb")  # inc r8 / jmp
    guest.load(base(), store(SVR, 0x1FF), wrmsr(TIMER_COUNT, END - 10), wrmsr(TIMER_CONFIG, ONE_SHOT), SLEEP, loop)
    guest.vp.r15 = MARK
    guest.vp.run(max_instructions=100)
    now, done = guest.hypervisor.scheduler.now, guest.vp.r8
    assert now > 100 * (END - 10)
    for piece in (0, 1, 3, 9_996):
        guest.vp.run(max_instructions=piece)
    assert guest.vp.tsc == guest.hypervisor.scheduler.now == now + 10_000 > 1 << 62
    assert guest.vp.r8 == done + 5_000
    guest.load(base(), store(LVT_TIMER, 0x41), store(INITIAL, 100_000), SLEEP, HLT)
    guest.vp.r15, begin = MARK, guest.vp.tsc
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    (fired,) = guest.words(MARK + 8, 1)
    # Ten ticks a count; MOV and a store go before, and the stub's JMP behind.
    assert fired - begin == 2 + 10 * 100_000 + 1


