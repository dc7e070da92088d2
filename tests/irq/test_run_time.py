"""GUEST_IDLE and the time-unhalted timer against digest 2, 2.1 and 9.7; deadlines of halted processors."""
import random
import struct

import pytest
from msr_code import one_shot, rdmsr, wrmsr
from support import CODE, HLT, IRETQ, STUBS, Guest, code, mov

from hvcore._native.exits import Budget, Halt

GUEST_IDLE, UNHALTED_CONFIG, UNHALTED_COUNT, VP_ASSIST = 0x400000F0, 0x40000114, 0x40000115, 0x40000073
PAGE = 0x300000


def test_guest_idle_waits_with_interrupts_off():
    """2, 400000F0: until any interrupt arrives, even if IF=0; the read gives 0. The interrupt stays requested."""
    guest = Guest()
    start = guest.hypervisor.scheduler.now
    guest.load(one_shot(1000), "b8ffffffff", rdmsr(GUEST_IDLE), "4889c3", "0f31", HLT)
    guest.vp.rax = 5
    assert isinstance(guest.vp.run(max_instructions=1000), Halt)
    assert guest.vp.rbx == 0 and guest.taken() is None
    assert (guest.vp.rdx << 32 | guest.vp.rax) == start + 100_000 + 3, "SHL, OR, MOV, then RDTSC"
    assert guest.vp.interrupts.requested == 1 << 0x50
    assert guest.vp.counters()["idle_ticks"] > 99_000


def test_guest_idle_with_interrupts_on_takes_the_interrupt_first():
    guest = Guest()
    guest.write(STUBS + 16 * 0x50, code("49ffc7", IRETQ))       # inc r15
    guest.load(one_shot(1000), "fb", rdmsr(GUEST_IDLE), "4d89fe", HLT)
    assert isinstance(guest.vp.run(max_instructions=1000), Halt)
    assert (guest.vp.r14, guest.vp.r15) == (1, 1)


def test_guest_idle_shows_and_an_interrupt_that_waits_ends_it_at_once():
    guest = Guest()
    guest.load(rdmsr(GUEST_IDLE), HLT)
    assert isinstance(guest.vp.run(max_instructions=1000), Halt)
    assert guest.vp.rip == CODE + 7 and guest.vp.internal_activity_state == 4
    guest.vp.interrupts.assert_interrupt(0x50)
    assert isinstance(guest.vp.run(max_instructions=1000), Halt)
    assert guest.vp.rip == CODE + 15 and guest.vp.internal_activity_state == 2
    guest.vp.rip = CODE
    guest.vp.run(max_instructions=1000)
    assert guest.vp.rip == CODE + 15


def test_guest_idle_is_not_ended_below_the_task_priority():
    guest = Guest()
    guest.load(rdmsr(GUEST_IDLE), HLT)
    guest.vp.cr8 = 6
    guest.vp.run(max_instructions=1000)
    guest.vp.interrupts.assert_interrupt(0x50)
    guest.vp.run(max_instructions=1000)
    assert guest.vp.rip == CODE + 7
    guest.vp.interrupts.assert_nmi()
    guest.vp.run(max_instructions=1000)
    assert guest.taken() == 2


def unhalted_guest(program, vector=0x50, period=10):
    guest = Guest()
    guest.write(STUBS + 16 * vector, code("49ffc7 50 51 52", wrmsr(0x40000070, 0), "5a 59 58", IRETQ))
    guest.load(wrmsr(VP_ASSIST, PAGE | 1), wrmsr(UNHALTED_COUNT, period), wrmsr(UNHALTED_CONFIG, 0x100 | vector),
               "fb", program)
    return guest


def test_unhalted_timer_counts_what_the_processor_runs():
    guest = unhalted_guest(b"\xeb\xfe")
    guest.vp.run(max_instructions=12)        # armed by the twelfth
    armed = guest.vp.counters()["runtime_ticks"] - 1
    assert guest.read(PAGE + 56, 1) == 0
    assert isinstance(guest.vp.run(max_instructions=1000 * 10 - 13), Budget)
    guest.vp.run(max_instructions=20)
    assert guest.vp.r15 == (guest.vp.counters()["runtime_ticks"] - armed) // 1000
    assert guest.vp.read_gpa(PAGE + 56, 1) == b"\1"
    assert guest.vp.counters()["unhalted_expired"] == guest.vp.r15
    assert guest.vp.counters().by_kind("interrupts_requested") == {"UNHALTED_TIMER": guest.vp.r15}


def test_unhalted_timer_does_not_count_halted_time():
    """A synthetic timer wakes the processor every 0.1 ms for some ten instructions; a period of them is 1000."""
    guest = unhalted_guest(HLT + b"\xeb\xfd")
    guest.write(STUBS + 16 * 0x60, code("50 51 52", wrmsr(0x40000070, 0), "5a 59 58", IRETQ))
    guest.write(CODE, wrmsr(0x400000B1, 1000) + wrmsr(0x400000B0, 0x1603) + wrmsr(UNHALTED_COUNT, 10)
                + wrmsr(UNHALTED_CONFIG, 0x150) + code("fb", HLT, "ebfd"))
    guest.vp.run(max_instructions=20_000)
    counters = guest.vp.counters()
    assert counters["runtime_ticks"] == 20_000 and guest.hypervisor.scheduler.now > 10**8
    assert guest.vp.r15 in (19, 20)
    assert counters["timers_expired"] > 1000


def test_an_idle_processor_is_not_woken_by_its_unhalted_timer():
    """Time jumps to the next event, and a halted processor's run time has none."""
    guest = unhalted_guest(HLT)
    assert isinstance(guest.vp.run(max_instructions=10_000), Halt)
    assert guest.vp.counters()["unhalted_expired"] == 0 and guest.vp.counters()["runtime_ticks"] < 20


def test_unhalted_timer_as_nmi():
    guest = unhalted_guest(b"\xeb\xfe", vector=2)
    guest.write(STUBS + 32, HLT)
    guest.vp.run(max_instructions=1100)
    assert guest.taken() == 2 and guest.vp.counters()["nmis_delivered"] == 1


@pytest.mark.parametrize("value", [0x101, 0x10F, 0x100, 0x200, 1 << 63, 0x103])
def test_unhalted_configurations_that_fault(value):
    guest = Guest()
    guest.halted(wrmsr(UNHALTED_CONFIG, value))
    assert guest.taken() == 13


def test_unhalted_registers_are_kept_and_reset():
    guest = Guest()
    guest.halted(wrmsr(UNHALTED_CONFIG, 0x050), wrmsr(UNHALTED_COUNT, 77), rdmsr(UNHALTED_CONFIG), "4889c3",
                 rdmsr(UNHALTED_COUNT), HLT)
    assert (guest.vp.rbx, guest.vp.rax) == (0x50, 77)
    guest.vp.interrupts.reset()
    assert guest.vp.interrupts.read_msr(UNHALTED_CONFIG, 0) == guest.vp.interrupts.read_msr(UNHALTED_COUNT, 0) == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_is_cut_is_the_same_run(seed):
    """Run time, idle states and lazy EOIs go on over a cut as if it had not been."""
    print("seed", seed)
    rng = random.Random(seed)
    states = []
    for cuts in (1, 40):
        guest = Guest()
        for vector in (0x50, 0x60):
            guest.write(STUBS + 16 * vector, b"\xe9" + struct.pack("<i", 0x610000 - (STUBS + 16 * vector) - 5))
        eoi = code("50 51 52", wrmsr(0x40000070, 0), "5a 59 58")
        guest.write(0x610000, code("49ffc7", "f00fba3425", struct.pack("<I", PAGE), "00", "72", bytes([len(eoi)]), eoi,
                                   IRETQ))
        body = code("90" * 37, rdmsr(GUEST_IDLE), "90" * 5, "fb", "90" * 60, "fa")
        guest.load(wrmsr(VP_ASSIST, PAGE | 1), wrmsr(0x400000B1, 11), wrmsr(0x400000B0, 0x1603),
                   wrmsr(UNHALTED_COUNT, 7), wrmsr(UNHALTED_CONFIG, 0x150), body,
                   b"\xe9" + struct.pack("<i", -len(body) - 5))
        left, end = 12_000, 0
        for cut in range(cuts, 0, -1):
            part = left if cut == 1 else rng.randrange(left // cut * 2)
            guest.vp.run(max_instructions=part)
            left, end = left - part, guest.vp.tsc
        counters = guest.vp.counters()
        states.append((end, guest.vp.registers(), dict(counters), bytes(guest.ram[PAGE : PAGE + 64])))
        assert counters["unhalted_expired"] > 10 and counters["eois_saved"] > 10 and counters["timers_expired"] > 10
    assert states[0] == states[1]


@pytest.mark.parametrize(("leaf", "register", "bit"), [
    (0x40000003, "rdx", 5), (0x40000003, "rdx", 8), (0x40000003, "rdx", 17), (0x40000003, "rdx", 19),
    (0x40000003, "rdx", 23), (0x40000006, "rax", 0), (7, "rbx", 1)])
def test_cpuid_says_what_is_there(leaf, register, bit):
    """1.1: guest idle state, frequency MSRs, SINT polling, direct and time-unhalted timers; 1.4: APIC assist;
    TSC_ADJUST."""
    guest = Guest()
    guest.halted(mov("rax", leaf), mov("rcx", 0), "0fa2", HLT)
    assert getattr(guest.vp, register) >> bit & 1


def test_idle_processors_cost_nothing():
    """A thousand seconds until a timer are one step."""
    guest = Guest()
    guest.load(one_shot(10_000_000_000), "fb", HLT)
    assert isinstance(guest.vp.run(max_instructions=100), Halt) and guest.taken() == 0x50
    assert guest.vp.counters()["instructions"] < 20
    assert guest.partition.reference_time >= 10_000_000_000
