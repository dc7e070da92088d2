"""The lowest clock goes first: interrupts between processors arrive exactly when they are sent, shares of logical
processors are fair, and idle processors cost no time (issue 5, lines 3 and 4; hyperv-abi 6.3, 6.4)."""

from __future__ import annotations

import random
from hashlib import sha256
from itertools import pairwise
from struct import pack
from typing import Any

import pytest
from support import HLT, IDT, IRETQ, JMP_SELF, RAM, STACK, STUBS, Guest, code, gate, mov, q

from hvcore._native.exits import Budget, Halt, Unsupported
from hvcore.enums import Hypercall, PartitionProperty, Privilege, Status
from hvcore.hypervisor import Hypervisor

SEED = 20261123
VECTOR, TIMER, EOI, ICR, TIMERS = 0x40, 0x50, 0x40000070, 0x40000071, 0x400000B0
LOG = 0x300000  # a page of words per processor: a count, then times
HANDLERS = 0x40000


def wrmsr(index: int, value: int) -> bytes:
    return code("b9", pack("<I", index), "b8", pack("<I", value & 0xFFFFFFFF), "ba", pack("<I", value >> 32), "0f30")


def send(to: int, vector: int = VECTOR) -> bytes:
    """A fixed IPI through the ICR: four instructions, the last of which sends."""
    return wrmsr(ICR, to << 56 | vector)


# rdtsc / shl rdx, 32 / or rax, rdx / mov rcx, [r15] / mov [r15 + rcx * 8 + 8], rax / inc qword [r15]
SPAN = 10
# From the RDTSC of NOTE_TIME to the WRMSR of `send` behind it are nine, and one is the stub's JMP.
NOTE_TIME = code("0f31 48c1e220 4809d0 498b0f 498944cf08 49ff07")


class Processors(Guest):
    """`vps` processors, each with a handler of its own for VECTOR, R15 at its log, and a stack."""

    def __init__(self, vps: int, processors: int, **options: Any) -> None:
        hypervisor = Hypervisor(memory="64 MiB", processors=processors, **options)
        super().__init__(hypervisor=hypervisor, vps=vps, privileges=sum(Privilege))

    def prepare(self, index: int, program: bytes, *, handler: bytes = NOTE_TIME) -> None:
        """Handlers share the IDT: the stub jumps through R14 to that of its processor."""
        vp = self.partition.vps[index]
        self.load(program, at=0x2000 + 0x4000 * index, vp=vp)
        at = HANDLERS + 0x1000 * index
        self.write(at, handler + wrmsr(EOI, 0) + IRETQ)
        self.write(STUBS + 16 * VECTOR, code("41ffe6"))  # jmp r14
        vp.r14, vp.r15, vp.rsp = at, LOG + 0x1000 * index, STACK - 0x1000 * index
        vp.interrupts.apic_enabled = True
        vp.explicit_suspend = 0

    def log(self, index: int) -> list[int]:
        base = LOG + 0x1000 * index
        return list(self.words(base + 8, self.read(base)))


def pause(ticks: int) -> bytes:
    """So many instructions that do nothing."""
    return b"\x90" * ticks


@pytest.mark.parametrize(("vps", "processors"), [(2, 2), (3, 3), (4, 3)])
@pytest.mark.parametrize("asleep", [True, False])
def test_ipis_arrive_at_the_instruction_that_sends_them(vps: int, processors: int, asleep: bool) -> None:
    """One tick is one instruction, and delivery takes none: the handler starts at the time of the WRMSR."""
    rng = random.Random(f"{SEED} {vps} {processors}")
    guest = Processors(vps, processors)
    receivers = list(range(1, min(vps, processors)))
    sent: dict[int, list[int]] = {index: [] for index in receivers}
    program = b""
    for number in range(60):
        receiver = rng.choice(receivers)
        # The handler's own 12 instructions and what comes before the next one of the same receiver
        program += pause(rng.randrange(30, 60)) + NOTE_TIME + send(receiver)
        sent[receiver].append(number)
    guest.prepare(0, program + JMP_SELF)
    for index in range(1, vps):
        guest.prepare(index, code("fb") + (code("f4ebfd") if asleep or index not in receivers else JMP_SELF))
    assert isinstance(guest.vp.run(max_instructions=6000), Budget)
    times = guest.log(0)
    assert len(times) == 60
    for receiver in receivers:
        late = [got - times[at] - SPAN for got, at in zip(guest.log(receiver), sent[receiver], strict=True)]
        if asleep:
            assert not any(late)
        else:   # it may have run ahead, by no more than the last send was ago or 64 ticks
            assert 0 <= min(late) <= max(late) <= max(64, max(b - a for a, b in pairwise(times)))


@pytest.mark.parametrize("wait", [JMP_SELF, code("f4ebfd")])
def test_ping_pong_takes_ticks_not_quanta(wait: bytes) -> None:
    guest = Processors(2, 2, quantum=50_000)
    answer = [NOTE_TIME + send(1 - index) for index in range(2)]
    guest.prepare(0, send(1) + code("fb") + wait, handler=answer[0])
    guest.prepare(1, code("fb") + wait, handler=answer[1])
    guest.vp.run(max_instructions=9000)
    there, back = guest.log(1), guest.log(0)
    assert len(there) > 300
    assert {second - first for first, second in zip(there, back, strict=False)} == {SPAN}
    assert {first - second for first, second in zip(there[1:], back, strict=False)} == {SPAN}


def test_nothing_arrives_before_it_is_sent() -> None:
    """Four processors in a ring on two logical ones: late because another one runs, but never early."""
    guest = Processors(4, 2, quantum=700)
    for index in range(4):
        following = (index + 1) % 4
        loop = pause(37 + 11 * index) + NOTE_TIME + send(following)
        program = code("fb") + loop + code("e9", pack("<i", -len(loop) - 5))
        handler = code("0f31 48c1e220 4809d0 49898700080000")  # mov [r15 + 0x800], rax
        handler = code("50 51 52") + handler + code("49ff8708080000") + wrmsr(EOI, 0) + code("5a 59 58", IRETQ)
        guest.prepare(index, program, handler=handler)
    for _ in range(40):
        guest.hypervisor.run(max_instructions=997)
        for index in range(4):
            last = guest.read(LOG + 0x1000 * index + 0x800)
            sends = guest.log((index - 1) % 4)
            assert not last or min(sends) <= last
    assert all(guest.read(LOG + 0x1000 * index + 0x808) > 10 for index in range(4))


def test_nmi_wakes_a_processor_with_interrupts_off() -> None:
    guest = Processors(2, 2)
    guest.write(IDT + 16 * 2, gate(0x60000))
    guest.write(0x60000, NOTE_TIME + IRETQ)
    guest.prepare(0, pause(500) + NOTE_TIME + wrmsr(ICR, 1 << 56 | 4 << 8) + JMP_SELF)
    guest.prepare(1, HLT + JMP_SELF)
    guest.vp.run(max_instructions=2000)
    assert guest.log(1) == [guest.log(0)[0] + SPAN - 1]


def test_a_suspended_processor_shows_what_was_sent_to_it() -> None:
    guest = Processors(2, 2)
    guest.prepare(1, JMP_SELF)
    guest.partition.vps[1].explicit_suspend = 1
    guest.prepare(0, pause(100) + send(1) + JMP_SELF)
    guest.vp.run(max_instructions=300)
    assert guest.partition.vps[1].interrupts.requested == 1 << VECTOR


def test_startup_message_wakes_a_processor_that_waits() -> None:
    """INIT, then SIPI with page 9: real mode at 9000h, which is not executed yet."""
    guest = Processors(2, 2)
    second = guest.partition.vps[1]
    guest.prepare(1, JMP_SELF)
    second.reset()
    assert second.internal_activity_state == 1
    guest.prepare(0, pause(400) + wrmsr(ICR, 1 << 56 | 0x4500) + wrmsr(ICR, 1 << 56 | 0x4609) + JMP_SELF)
    exit_ = guest.hypervisor.run(max_instructions=2000)
    assert isinstance(exit_, Unsupported)
    assert second.internal_activity_state == 0
    assert (second.cs.selector, second.cs.base, second.rip) == (0x900, 0x9000, 0)


def busy(guest: Processors) -> None:
    for index in guest.partition.vps:
        guest.prepare(index, code("48ffc0 ebfb"))  # inc rax / jmp


def set_property(guest: Guest, name: PartitionProperty, value: int) -> Status:
    root = guest.hypervisor.root
    return root.hypercall(Hypercall.SET_PARTITION_PROPERTY, pack("<QIIQ", guest.partition.id, name, 0, value)).status


@pytest.mark.parametrize(("vps", "processors"), [(2, 1), (5, 1), (5, 2), (3, 2), (7, 3)])
def test_shares_are_fair(vps: int, processors: int) -> None:
    guest = Processors(vps, processors, quantum=1000)
    busy(guest)
    guest.hypervisor.run(max_instructions=300_000)
    runtimes = [vp.counters()["runtime_ticks"] for vp in guest.partition.vps.values()]
    assert sum(runtimes) == 300_000
    assert max(runtimes) - min(runtimes) <= 2 * 1000


def contenders() -> tuple[Guest, Guest]:
    """Two partitions that are never idle, on one logical processor."""
    first = Processors(1, 1, quantum=500)
    second = Guest(hypervisor=first.hypervisor, privileges=sum(Privilege))
    busy(first)
    second.load("48ffc0 ebfb")
    second.vp.explicit_suspend = 0
    return first, second


def test_weight_decides_what_is_contended() -> None:
    """HV_PARTITION_PROPERTY CPU_WEIGHT (hyperv-abi 6.3): 300 against 100 is three quarters."""
    first, second = contenders()
    set_property(first, PartitionProperty.CPU_WEIGHT, 300)
    first.hypervisor.run(max_instructions=200_000)
    got = first.vp.counters()["runtime_ticks"], second.vp.counters()["runtime_ticks"]
    assert abs(got[0] - 150_000) <= 1000
    assert sum(got) == 200_000


@pytest.mark.parametrize("cap", [0x1, 0x1000, 0x4000, 0x8000, 0xC000, 0xFFFF, 0x10000])
def test_cap_of_one_that_is_alone(cap: int) -> None:
    """HV_PARTITION_PROPERTY CPU_CAP (hyperv-abi 6.3): the part of a logical processor that each of its processors gets
    at most, in 65536ths."""
    guest = Processors(2, 2, quantum=5000)
    set_property(guest, PartitionProperty.CPU_CAP, cap)
    busy(guest)
    guest.hypervisor.run(max_instructions=100_000)
    elapsed = guest.hypervisor.scheduler.now
    for vp in guest.partition.vps.values():
        got = vp.counters()["runtime_ticks"]
        assert abs(got * 0x10000 - elapsed * cap) <= 5001 * 0x10000, "more or less than the rest of one turn"
    assert sum(vp.counters()["runtime_ticks"] for vp in guest.partition.vps.values()) == 100_000


def test_cap_leaves_the_rest_to_others() -> None:
    """A quarter for the one that may have no more, three quarters for the other; no credit when the cap is lifted."""
    capped, other = contenders()
    set_property(capped, PartitionProperty.CPU_CAP, 0x4000)
    capped.hypervisor.run(max_instructions=200_000)
    got = capped.vp.counters()["runtime_ticks"], other.vp.counters()["runtime_ticks"]
    assert abs(got[0] - 50_000) <= 1000
    assert sum(got) == capped.hypervisor.scheduler.now == 200_000
    set_property(capped, PartitionProperty.CPU_CAP, 0x10000)
    capped.hypervisor.run(max_instructions=20_000)
    assert abs(capped.vp.counters()["runtime_ticks"] - got[0] - 10_000) <= 1000


def test_cap_counts_sleep_as_rest() -> None:
    """A handler of a hundred ticks in each million is late for no cap that leaves it them."""
    logs = []
    for cap in (0x10000, 0x40):
        guest = Processors(1, 1)
        set_property(guest, PartitionProperty.CPU_CAP, cap)
        guest.prepare(0, wrmsr(TIMERS + 1, 10_000) + wrmsr(TIMERS, 0x1403) + code("fb f4 ebfd"))
        guest.hypervisor.run(max_instructions=1000)
        logs.append(guest.log(0))
    assert len(logs[0]) > 20
    assert logs[0] == logs[1]


def test_cap_of_nothing() -> None:
    """It does not run; what others send it waits, and it goes on when the cap is lifted."""
    guest = Processors(1, 1)
    guest.prepare(0, code("fb") + pause(3) + HLT)
    set_property(guest, PartitionProperty.CPU_CAP, 0)
    guest.vp.interrupts.assert_interrupt(VECTOR)
    assert isinstance(guest.vp.run(max_instructions=1000), Halt)
    assert guest.vp.counters()["runtime_ticks"] == 0
    set_property(guest, PartitionProperty.CPU_CAP, 1)
    assert isinstance(guest.hypervisor.run(max_instructions=1000), Halt)
    assert len(guest.log(0)) == 1


def test_cap_and_reserve_agree() -> None:
    """"The reserve value cannot be greater than the CPU cap", and the other way round."""
    guest = Processors(1, 1)
    set_property(guest, PartitionProperty.CPU_RESERVE, 0x4000)
    set_property(guest, PartitionProperty.CPU_CAP, 0x4000)
    for name, value in ((PartitionProperty.CPU_CAP, 0x3FFF), (PartitionProperty.CPU_RESERVE, 0x4001)):
        assert set_property(guest, name, value) == Status.PROPERTY_VALUE_OUT_OF_RANGE


def test_sleep_is_no_credit() -> None:
    """A processor that slept long does not get the machine for itself afterwards."""
    guest = Processors(2, 1, quantum=1000)
    busy(guest)
    guest.partition.vps[1].explicit_suspend = 1
    guest.hypervisor.run(max_instructions=100_000)
    guest.partition.vps[1].explicit_suspend = 0
    guest.hypervisor.run(max_instructions=20_000)
    assert abs(guest.partition.vps[1].counters()["runtime_ticks"] - 10_000) <= 1000


def test_partition_keeps_to_its_processors() -> None:
    first = Processors(1, 2, quantum=1000)
    second = Processors.__new__(Processors)
    Guest.__init__(second, hypervisor=first.hypervisor, vps=3, privileges=sum(Privilege))
    first.partition.processors = (0,)
    second.partition.processors = [1]
    assert (first.partition.processors, second.partition.processors) == ((0,), (1,))
    busy(first)
    busy(second)
    first.hypervisor.run(max_instructions=120_000)
    alone = first.vp.counters()["runtime_ticks"]
    shared = [vp.counters()["runtime_ticks"] for vp in second.partition.vps.values()]
    assert abs(alone - 60_000) <= 1000
    assert all(abs(ticks - 20_000) <= 1000 for ticks in shared)


def test_arguments_of_the_scheduler() -> None:
    for quantum in (0, -1, (1 << 32) + 1):
        with pytest.raises(ValueError, match="quantum must be 1 to"):
            Hypervisor(memory="32 MiB", quantum=quantum)
    with Hypervisor(memory="32 MiB", processors=3, quantum=77) as hypervisor:
        assert hypervisor.quantum == 77
        hypervisor.quantum = 1
        with pytest.raises(ValueError, match="quantum must be 1 to"):
            hypervisor.quantum = 0
        child = hypervisor.root.create_partition()
        assert child.processors == (0, 1, 2)
        with pytest.raises(ValueError, match="processors must name at least one"):
            child.processors = []
        for wrong in ([3], [-1], [0, 7]):
            with pytest.raises(ValueError, match="each of processors must be 0 to 2"):
                child.processors = wrong
        with pytest.raises(ValueError, match="root"):
            hypervisor.root.processors = [0]


def test_time_jumps_over_idleness() -> None:
    """A millisecond between two ticks of the timer costs the instructions of the handler alone."""
    guest = Processors(3, 2)
    for index in range(3):
        guest.prepare(index, wrmsr(TIMERS + 1, 10_000 + index) + wrmsr(TIMERS, 0x1403) + code("fb f4 ebfd"))
    guest.hypervisor.run(max_instructions=3000)
    assert guest.hypervisor.scheduler.now > 30_000_000
    for index in range(3):
        times = guest.log(index)
        period = 100 * (10_000 + index)
        assert len(times) > 20
        assert [second - first for first, second in pairwise(times)] == [period] * (len(times) - 1)


STATE = ("rax", "rcx", "rdx", "rbx", "rsp", "rip", "rflags", "r14", "r15", "tsc")


def state(guest: Processors) -> dict[str, Any]:
    found: dict[str, Any] = {"memory": sha256(guest.ram[0:RAM]).hexdigest(), "now": guest.hypervisor.scheduler.now}
    for index, vp in guest.partition.vps.items():
        found |= {f"{index}.{name}": getattr(vp, name) for name in STATE}
        found |= {f"{index}.{name}": value for name, value in vp.counters().items() if name != "exits"}
        found |= {f"{index}.{name}": value for name, value in vp.interrupts.counters().items()}
        found |= {f"{index}.irr": vp.interrupts.requested, f"{index}.isr": vp.interrupts.in_service}
    return found


def talk(rng: random.Random, guest: Processors, vps: int) -> None:
    """Processors that compute on shared words, send to each other, sleep, and have timers."""
    for index in range(vps):
        program = b""
        if rng.random() < 0.5:
            program += wrmsr(TIMERS + 1, rng.randrange(5, 60)) + wrmsr(TIMERS, 0x1003 | VECTOR << 4)
        program += code("fb", mov("rbx", 0x380000))
        loop = b""
        for _ in range(rng.randrange(2, 6)):
            loop += pause(rng.randrange(50)) + code("48ff03 488b03")  # inc [rbx] / mov rax, [rbx]
            if rng.random() < 0.7:
                loop += send(rng.randrange(vps))
            if rng.random() < 0.3:
                loop += HLT
        program += loop + code("e9", pack("<i", -len(loop) - 5))
        handler = code("50 51 52 49ff07 48ff03") + wrmsr(EOI, 0) + code("5a 59 58")
        guest.prepare(index, program, handler=handler + IRETQ)


@pytest.mark.parametrize("case", range(18))
def test_cuts_change_nothing(case: int) -> None:
    """run(n) and run(m) are run(n + m), bit for bit, wherever the cuts fall, by budget of one and of all."""
    total = 20_000
    expected: dict[str, Any] | None = None
    for attempt in range(4):
        rng = random.Random(f"{SEED} {case}")
        vps, processors = rng.randrange(2, 6), rng.randrange(1, 4)
        guest = Processors(vps, processors, quantum=rng.choice((100, 1000, 10_000)))
        if case >= 12:
            set_property(guest, PartitionProperty.CPU_CAP, rng.choice((0x800, 0x8000, 0xE000)))
        talk(rng, guest, vps)
        one = rng.random() < 0.5 and case < 12      # of those behind, some wait for ever
        cuts = random.Random(f"{SEED} {case} {attempt}")
        left = total
        while left:
            piece = left if attempt == 0 else min(left, cuts.choice((0, 1, 1, 2, 3, 10, 100, 700, 3000)))
            exit_ = (guest.vp if one else guest.hypervisor).run(max_instructions=piece)
            if isinstance(exit_, Halt):
                break
            left -= piece
        found = state(guest)
        expected = expected or found
        wrong = {name: (expected[name], found[name]) for name in found if found[name] != expected[name]}
        assert not wrong, (SEED, case, attempt, vps, processors, one)


def test_many_idle_processors_take_no_part() -> None:
    """256 halted processors: the counts of the one that runs are those without them."""
    results = []
    for vps in (1, 256):
        guest = Processors(vps, 2)
        for index in range(1, vps):
            vp = guest.partition.vps[index]
            guest.load(HLT, at=0x1000, vp=vp)
            vp.explicit_suspend = 0
        guest.prepare(0, code("48ffc0 ebfb"))
        guest.vp.run(max_instructions=100_000)
        results.append((guest.vp.rax, guest.vp.counters()["runtime_ticks"]))
    assert results[0] == results[1]
    assert q(1) == pack("<Q", 1)
