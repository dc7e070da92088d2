"""Reference time, its page, the TSC, and their registers against digest 2, 6.3, 9.6 and the vectors of 12.5."""
import random
import struct

import pytest
from msr_code import rdmsr, wrmsr
from support import CODE, HLT, Guest, code, mov

from hvcore import msrs, stack
from hvcore._native.engine import reference_from_tsc, reference_scale
from hvcore._native.exits import Halt
from hvcore.enums import Hypercall, Privilege, Status
from hvcore.hypervisor import Hypervisor
from hvcore.interrupts import InterruptEvent

ALL_MSRS = 0xFFFF
TIME_REF_COUNT, REFERENCE_TSC, TSC_FREQUENCY, APIC_FREQUENCY = range(0x40000020, 0x40000024)
TSC, TSC_ADJUST = 0x10, 0x3B
TIME_FREEZE, APIC_HZ, REFERENCE_TIME, CLOCK_HZ = 0x30003, 0x30004, 0x30005, 0x60009
PAGE = 0x300000


RDTSC = code("0f31 48c1e220 4809d0")


class TimeGuest(Guest):
    """A guest whose TSC has another frequency: it is set before there are processors."""

    def __init__(self, hertz, **keywords):
        create = keywords["hypervisor"].root.create_partition

        def with_frequency(*, vps, privileges):
            partition = create(vps=0, privileges=privileges)
            assert set_property(partition, CLOCK_HZ, hertz) == 0
            for index in range(vps):
                root = partition.hypervisor.root
                stack.deposit(root, partition, 64)
                words = struct.pack("<QIIQQQ", partition.id, index, 0, 0, 0, 0)
                assert root.hypercall(Hypercall.CREATE_VP, words).status == 0
            return partition

        keywords["hypervisor"].root.create_partition = with_frequency
        super().__init__(**keywords)


def new_guest(hertz=None, **keywords):
    keywords.setdefault("hypervisor", Hypervisor(memory="64 MiB", processors=1))
    if hertz is not None:
        return TimeGuest(hertz, privileges=ALL_MSRS, **keywords)
    return Guest(privileges=ALL_MSRS, **keywords)


def get_property(guest, number):
    result = guest.hypervisor.root.hypercall(Hypercall.GET_PARTITION_PROPERTY,
                                             struct.pack("<QII", guest.partition.id, number, 0))
    assert result.status == 0
    return struct.unpack("<Q", result.output)[0]


def set_property(partition, number, value):
    return partition.hypervisor.root.hypercall(Hypercall.SET_PARTITION_PROPERTY,
                                               struct.pack("<QIIQ", partition.id, number, 0, value)).status


def page(guest):
    """Sequence, scale, offset as the guest's memory has them."""
    return struct.unpack("<I4xQq", guest.vp.read_gpa(PAGE, 24))


def spin(guest, ticks):
    """Let time pass: JMP to itself."""
    guest.write(CODE + 0x800, b"\xeb\xfe")
    guest.vp.rip = CODE + 0x800
    guest.vp.run(max_instructions=ticks)


def counter(guest):
    """What the guest reads from the MSR, and the tick at which it does."""
    start = guest.hypervisor.scheduler.now
    guest.run(rdmsr(TIME_REF_COUNT), budget=4)
    return guest.vp.rax, start + 1


# Pure functions.

@pytest.mark.parametrize(("hertz", "scale"), [(10**9, 0x028F5C28F5C28F5C), (24 * 10**8, 0x0111111111111111),
                                              (3 * 10**9, 0x00DA740DA740DA74)])
def test_vector_scales(hertz, scale):
    """12.5."""
    assert reference_scale(hertz) == scale == (10**7 << 64) // hertz


def test_vector_five_seconds_at_2400_mhz():
    """12.5: floor; one below the ideal."""
    assert reference_from_tsc(5 * 24 * 10**8, reference_scale(24 * 10**8), 0) == 49_999_999


def test_the_formula_is_a_product_of_128_bits():
    randomness = random.Random(20261123)
    for _ in range(2000):
        tsc, hertz = randomness.getrandbits(64), randomness.randrange(10**9, 10**10)
        offset = randomness.getrandbits(60) - (1 << 59)
        expected = (tsc * ((10**7 << 64) // hertz) >> 64) + offset
        assert reference_from_tsc(tsc, reference_scale(hertz), offset) == expected % (1 << 64)
    with pytest.raises(ValueError, match="tsc_frequency"):
        reference_scale(0)


# The counter.

def test_the_counter_starts_at_0_and_has_units_of_100_ns():
    guest = new_guest()
    spin(guest, 100_000)
    value, tick = counter(guest)
    assert value == tick // 100


def test_reads_are_strictly_increasing_over_processors():
    """9.6 (R): one more when equal."""
    guest = new_guest(vps=2)
    program = rdmsr(TIME_REF_COUNT) + code("48ab") + rdmsr(TIME_REF_COUNT) + code("48ab") + HLT    # stosq
    seen = []
    for vp in (guest.vp, guest.partition.vps[1], guest.vp):
        guest.load(program, vp=vp)
        vp.rdi = 0x400000
        vp.run(max_instructions=1000)
        seen += guest.words(0x400000, 2)
    assert seen == sorted(set(seen))


def test_time_stands_while_all_processors_are_explicitly_suspended():
    """9.6 (T)."""
    guest = new_guest(vps=3)
    one, two = guest.partition.vps[1], guest.partition.vps[2]
    one.reset(), two.reset()                        # they wait for start-up messages, and never run
    other = new_guest(hypervisor=guest.hypervisor)
    assert not other.partition.time.running and other.partition.reference_time == 0
    spin(other, 5_000)
    one.explicit_suspend = False
    spin(other, 5_000)
    assert guest.partition.reference_time == 50
    two.explicit_suspend, one.explicit_suspend = False, True
    spin(other, 5_000)
    assert guest.partition.time.running and guest.partition.reference_time == 100
    two.explicit_suspend = True
    assert not guest.partition.time.running
    spin(other, 70_000)
    assert guest.partition.reference_time == 100
    one.explicit_suspend = False
    spin(other, 1_000)
    assert guest.partition.reference_time == 110


def test_a_partition_without_processors_has_no_time():
    hypervisor = Hypervisor(memory="64 MiB", processors=1)
    child = hypervisor.root.create_partition(vps=0)
    guest = new_guest(hypervisor=hypervisor)
    spin(guest, 10_000)
    assert child.reference_time == 0 and not child.time.running


def test_time_freeze_and_a_timer_that_waits_for_the_thaw():
    guest = new_guest()
    timer = wrmsr(0x400000B1, 1000) + wrmsr(0x400000B0, 0x1501)       # one-shot, direct, vector 50h, at 1000
    guest.load(timer, "fb", b"\xeb\xfe")
    guest.vp.run(max_instructions=10_000)
    assert set_property(guest.partition, TIME_FREEZE, 1) == 0
    assert get_property(guest, TIME_FREEZE) == 1
    before = guest.partition.reference_time
    assert before == 100
    guest.vp.run(max_instructions=200_000)
    assert guest.partition.reference_time == before == get_property(guest, REFERENCE_TIME)
    assert guest.taken() is None and guest.vp.counters()["timers_expired"] == 0
    assert set_property(guest.partition, TIME_FREEZE, 0) == 0
    guest.vp.run(max_instructions=89_999)
    assert guest.taken() is None
    assert isinstance(guest.vp.run(max_instructions=10), Halt) and guest.taken() == 0x50
    assert set_property(guest.partition, TIME_FREEZE, 2) == Status.PROPERTY_VALUE_OUT_OF_RANGE


@pytest.mark.parametrize("value", [0, 7, 10**12])
def test_reference_time_can_be_set(value):
    """6.3; a parent sets it after a restore, also back."""
    guest = new_guest()
    spin(guest, 50_000)
    assert set_property(guest.partition, REFERENCE_TIME, value) == 0
    assert get_property(guest, REFERENCE_TIME) == value
    spin(guest, 10_000)
    assert guest.partition.reference_time == value + 100
    read, _ = counter(guest)
    assert value + 100 <= read <= value + 101
    assert set_property(guest.partition, REFERENCE_TIME, 1 << 63) == Status.PROPERTY_VALUE_OUT_OF_RANGE


def test_timers_keep_their_reference_time_over_a_restore():
    guest = new_guest()
    guest.load(wrmsr(0x400000B1, 5000), wrmsr(0x400000B0, 0x1501), "fb", b"\xeb\xfe")
    guest.vp.run(max_instructions=1_000)
    set_property(guest.partition, REFERENCE_TIME, 4_999)
    assert isinstance(guest.vp.run(max_instructions=101), Halt) and guest.taken() == 0x50


def test_restore_partition_time():
    """4.13, call 0103: reference time, TSC and the sequence that the page goes on from."""
    guest = new_guest(vps=2)
    guest.halted(wrmsr(REFERENCE_TSC, PAGE | 1), HLT)
    root = guest.hypervisor.root

    def restore(reserved=0, time=10**10, sequence=77):
        words = struct.pack("<QIIQQ", guest.partition.id, sequence, reserved, time, 5 * 10**12)
        return root.hypercall(Hypercall.RESTORE_PARTITION_TIME, words).status

    assert restore() == 0
    assert guest.partition.reference_time == 10**10
    assert guest.vp.tsc_virtual_offset == guest.partition.vps[1].tsc_virtual_offset
    assert guest.vp.tsc_virtual_offset + guest.hypervisor.scheduler.now == 5 * 10**12
    sequence, scale, offset = page(guest)
    assert sequence == 78
    assert reference_from_tsc(5 * 10**12, scale, offset) == 10**10
    assert restore(sequence=0xFFFFFFFE) == 0 and page(guest)[0] == 1
    assert restore(reserved=1) == restore(time=1 << 63) == Status.INVALID_PARAMETER


# The page.

def agree(guest, seed, rounds=40):
    """The MSR and the formula over the page in guest code, at random times: never backwards, never apart."""
    print("seed", seed)
    randomness = random.Random(seed)
    formula = RDTSC + code("48f72425", struct.pack("<I", PAGE + 8), "48031425", struct.pack("<I", PAGE + 16),
                           "4889d0")                            # mul [scale]; add rdx, [offset]; mov rax, rdx
    program = formula + code("48ab") + rdmsr(TIME_REF_COUNT) + code("48ab") + formula + code("48ab") + HLT
    for _ in range(rounds):
        spin(guest, randomness.randrange(300, 5_000))
        guest.write(CODE, program)
        guest.vp.rip, guest.vp.rdi = CODE, 0x400000
        guest.vp.run(max_instructions=1000)
        before, count, after = guest.words(0x400000, 3)
        assert before <= count <= after <= before + 1


@pytest.mark.parametrize("hertz", [10**9, 24 * 10**8, 3 * 10**9, 1_234_567_891, 10**10])
def test_page_and_counter_agree(hertz):
    hypervisor = Hypervisor(memory="64 MiB", processors=1)
    guest = new_guest(hypervisor=hypervisor, hertz=hertz)
    guest.halted(wrmsr(TSC, 123_456_789_012_345), wrmsr(REFERENCE_TSC, PAGE | 1), HLT)
    assert page(guest)[:2] == (1, (10**7 << 64) // hertz)
    agree(guest, hertz)
    set_property(guest.partition, TIME_FREEZE, 1)
    spin(guest, 12_345)
    set_property(guest.partition, TIME_FREEZE, 0)
    agree(guest, hertz + 1)
    guest.vp.tsc = 17
    agree(guest, hertz + 2)


def test_the_sequence():
    """9.6: 0 while the page cannot be used; the next one with each new relation."""
    guest = new_guest(vps=2)
    other = guest.partition.vps[1]
    guest.halted(wrmsr(REFERENCE_TSC, PAGE | 1), HLT)
    assert page(guest)[0] == 1
    set_property(guest.partition, TIME_FREEZE, 1)
    assert page(guest)[0] == guest.partition.time.page_sequence == 0
    set_property(guest.partition, TIME_FREEZE, 0)
    assert page(guest)[0] == guest.partition.time.page_sequence == 2
    guest.vp.tsc += 1000
    assert page(guest)[0] == 0, "the processors' counters differ"
    other.tsc_virtual_offset = guest.vp.tsc_virtual_offset
    assert page(guest)[0] == 3
    guest.halted(wrmsr(TSC_ADJUST, 5), HLT)
    assert page(guest)[0] == 0
    set_property(guest.partition, REFERENCE_TIME, 1000)
    assert page(guest)[0] == 0
    other.tsc_virtual_offset = guest.vp.tsc_virtual_offset
    set_property(guest.partition, REFERENCE_TIME, 2000)
    assert page(guest)[0] == 5
    guest.vp.explicit_suspend = other.explicit_suspend = True
    assert page(guest)[0] == 0
    guest.vp.explicit_suspend = False
    assert page(guest)[0] == 6
    guest.halted(wrmsr(REFERENCE_TSC, PAGE), rdmsr(REFERENCE_TSC), HLT)
    assert guest.vp.rax == PAGE and guest.partition.time.page_sequence == 0


def test_a_processor_that_has_not_run_since_a_thaw_can_have_its_tsc_set():
    """Its own time is before the tick at which reference time began anew."""
    guest = new_guest()
    other = new_guest(hypervisor=guest.hypervisor)
    guest.halted(wrmsr(REFERENCE_TSC, PAGE | 1), HLT)
    set_property(guest.partition, TIME_FREEZE, 1)
    spin(other, 400_000)
    set_property(guest.partition, TIME_FREEZE, 0)
    spin(other, 1_000)
    before = guest.partition.reference_time
    guest.vp.tsc = 12_345
    _, scale, offset = page(guest)
    tsc = guest.hypervisor.scheduler.now + guest.vp.tsc_virtual_offset
    assert reference_from_tsc(tsc, scale, offset) == guest.partition.reference_time
    assert before <= guest.partition.reference_time <= before + 1


def test_the_page_is_readable_only():
    guest = new_guest()
    guest.halted(wrmsr(REFERENCE_TSC, PAGE | 1), HLT)
    assert guest.vp.write_gpa(PAGE, b"\1") is False


# Frequencies and the TSC.

def test_frequency_msrs_and_properties():
    """2: 40000022 and 40000023 in Hz; 6.3: properties 00060009 and 00030004."""
    guest = new_guest()
    guest.halted(rdmsr(TSC_FREQUENCY), code("4889c3"), rdmsr(APIC_FREQUENCY), HLT)
    assert (guest.vp.rbx, guest.vp.rax) == (10**9, 200 * 10**6)
    assert (get_property(guest, CLOCK_HZ), get_property(guest, APIC_HZ)) == (10**9, 200 * 10**6)
    assert set_property(guest.partition, CLOCK_HZ, 2 * 10**9) == Status.OPERATION_DENIED
    child = guest.hypervisor.root.create_partition(vps=0)
    assert set_property(child, CLOCK_HZ, 10**9 - 1) == Status.PROPERTY_VALUE_OUT_OF_RANGE
    assert set_property(child, CLOCK_HZ, 3 * 10**9) == set_property(child, APIC_HZ, 10**8) == 0
    assert (child.time.tsc_frequency, child.time.apic_frequency) == (3 * 10**9, 10**8)
    with pytest.raises(ValueError, match="tsc_frequency"):
        child.time.tsc_frequency = 5
    with pytest.raises(RuntimeError, match="processors"):
        guest.partition.time.apic_frequency = 10**8


@pytest.mark.parametrize("hertz", [10**9, 25 * 10**8])
def test_the_tsc_agrees_with_itself(hertz):
    """RDTSC, RDTSCP, IA32_TSC and the register are one counter (SDM 3B 18.17)."""
    guest = new_guest(hertz=hertz)
    spin(guest, 100_000)
    start = guest.hypervisor.scheduler.now
    guest.halted(RDTSC, code("4889c3"), rdmsr(TSC), code("4989c0"), "0f01f9 48c1e220 4809d0", HLT)
    ticks = start + 13
    read = [start * hertz // 10**9, (start + 5) * hertz // 10**9, (start + 9) * hertz // 10**9]
    assert [guest.vp.rbx, guest.vp.r8, guest.vp.rax] == read
    assert guest.vp.tsc == ticks * hertz // 10**9, "twelve instructions, and HLT"


def test_tsc_adjust_moves_with_the_counter():
    """SDM 3B 18.17.3: a write to either changes the other by as much."""
    guest = new_guest()
    spin(guest, 1000)
    guest.halted(rdmsr(TSC_ADJUST), code("4889c3"), wrmsr(TSC, 10**12), rdmsr(TSC_ADJUST), HLT)
    assert guest.vp.rbx == 0
    assert guest.vp.rax == 10**12 - 1008, "WRMSR is the ninth instruction"
    assert guest.vp.tsc == 1014 + guest.vp.rax
    before = guest.hypervisor.scheduler.now
    guest.halted(wrmsr(TSC_ADJUST, 50), RDTSC, HLT)
    assert guest.vp.rax == before + 4 + 50
    guest.vp.tsc += 7
    assert guest.vp.tsc_adjust == 50, "a move by the hypervisor does not show"
    guest.vp.reset()
    assert guest.vp.tsc_adjust == guest.vp.tsc_virtual_offset == 0


def test_tsc_invariant_control():
    """2, 40000118: b0 alone; CPUID.80000007:EDX[8] says what it says."""
    cpuid = mov("rax", 0x80000007) + code("0fa2")
    guest = new_guest()
    guest.halted(cpuid, HLT)
    assert guest.vp.rdx == 0
    guest.halted(wrmsr(0x40000118, 1), cpuid, HLT)
    assert guest.vp.rdx == 1 << 8
    guest.halted(rdmsr(0x40000118), HLT)
    assert guest.vp.rax == 1
    guest.halted(wrmsr(0x40000118, 2))
    assert guest.taken() == 13


@pytest.mark.parametrize(("index", "defined"), [(0x40000106, 0xFFFFFFFF000100FF), (0x40000107, 1), (0x40000108, 1)])
def test_reenlightenment_registers(index, defined):
    guest = new_guest()
    guest.halted(wrmsr(index, defined), rdmsr(index), HLT)
    assert guest.vp.rax == defined
    guest.halted(wrmsr(index, defined ^ 1 << 20))
    assert guest.taken() == 13


@pytest.mark.parametrize(("index", "privilege"), [
    (TIME_REF_COUNT, Privilege.ACCESS_PARTITION_REFERENCE_COUNTER), (REFERENCE_TSC, 1 << 9), (TSC_FREQUENCY, 1 << 11),
    (APIC_FREQUENCY, 1 << 11), (0x400000F0, 1 << 10), (0x40000106, 1 << 13), (0x40000107, 1 << 13),
    (0x40000108, 1 << 13), (0x40000118, 1 << 15), (0x40000114, 1 << 3), (0x40000115, 1 << 3), (0x40000010, 1)])
def test_privileges(index, privilege):
    """1.2: without the privilege #GP."""
    guest = Guest(privileges=ALL_MSRS & ~int(privilege))
    guest.halted(rdmsr(index), HLT)
    assert guest.taken() == 13
    guest = Guest(privileges=int(privilege))
    guest.load("fb", rdmsr(index), HLT)
    assert isinstance(guest.vp.run(max_instructions=100), Halt) and guest.taken() is None


@pytest.mark.parametrize("index", [TIME_REF_COUNT, TSC_FREQUENCY, APIC_FREQUENCY, 0x400000F0, 0x40000010])
def test_registers_that_can_only_be_read(index):
    guest = new_guest()
    guest.halted(wrmsr(index, 0))
    assert guest.taken() == 13


def test_registers_of_time():
    """7.1: names of the timers and of time, for a parent."""
    guest = new_guest()
    guest.halted(wrmsr(REFERENCE_TSC, PAGE | 1), HLT)
    machine = guest.hypervisor

    def read(name):
        return msrs.read_register(machine, guest.vp, name)

    def write(name, value):
        return msrs.write_register(machine, guest.vp, name, value)

    assert (read(0x240), read(0x241), read(0x9001A)) == (10**9, 200 * 10**6, 1)
    assert read(0x90004) == guest.partition.reference_time
    assert write(0x90004, 0) == write(0x240, 0) == Status.INVALID_REGISTER_VALUE
    later = guest.partition.reference_time + 1000
    assert write(0xB0002, 1 << 12 | 0x50 << 4 | 1) == write(0xB0003, later) == 0
    assert (read(0xB0002), read(0xB0003)) == (1 << 12 | 0x50 << 4 | 1, later)
    assert write(0xB0000, 1 << 63) == Status.INVALID_REGISTER_VALUE
    assert write(0xB0100, 0x50) == write(0xB0101, 7) == 0 and (read(0xB0100), read(0xB0101)) == (0x50, 7)
    guest.load("fb", b"\xeb\xfe")
    begin = machine.scheduler.now
    assert isinstance(guest.vp.run(max_instructions=200_000), Halt) and guest.taken() == 0x50
    assert 99_900 <= guest.vp.tsc - begin <= 100_101


@pytest.mark.parametrize("seed", range(3))
def test_timers_are_never_early_and_not_late_while_their_processor_runs(seed):
    """9.7, order; one-shots by the trace: the first tick at which reference time reaches the count."""
    print("seed", seed)
    rng = random.Random(seed)
    guest = new_guest()
    guest.write(0x620000, b"\xeb\xfe")
    guest.load(b"\xeb\xfe")
    guest.vp.run(max_instructions=rng.randrange(1, 1000))
    expected = []
    with guest.hypervisor.trace_interrupts() as trace:
        for _ in range(30):
            timers = rng.sample(range(4), rng.randrange(1, 5))
            for timer in timers:
                now, count = guest.hypervisor.scheduler.now, rng.randrange(1, 3000)
                count += guest.partition.reference_time - 100
                guest.vp.interrupts.write_msr(0x400000B0 + 2 * timer, 0x1508, guest.partition.reference_time)
                guest.vp.interrupts.write_msr(0x400000B1 + 2 * timer, max(count, 1), guest.partition.reference_time)
                expected.append((max(now, 100 * max(count, 1)), timer))
            guest.vp.run(max_instructions=350_000)
    events = trace.events()
    fired = events[events["kind"] == InterruptEvent.TIMER_EXPIRED]
    found = list(zip(fired["time"].tolist(), fired["value"].tolist(), strict=True))
    assert sorted(found) == sorted(expected)
