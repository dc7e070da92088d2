"""Guest code that programs the 8259 pair, the 8254 and the I/O APIC, and takes their interrupts."""

from __future__ import annotations

from typing import Any

import pytest
from apic_guest import EOI, MARK, apic_guest, handler
from random_platform import nanoseconds
from reference_pit import clocks
from support import CODE, HLT, JMP_SELF, STUBS, Guest, code, mov

from hvcore import Hypervisor
from hvcore._native.exits import Budget, Halt, IoPort
from hvcore._native.platform import InterruptPlatform

APIC_PAGE, IOAPIC_PAGE = 0xFEE0_0000, 0xFEC0_0000
LVT_LINT0, EXTINT = 0x350, 0x700
STI_HLT = b"\xfb\xf4"
RDTSC_TO_R13 = b"\x0f\x31\x49\x89\xc5"
READ_TSC = b"\x0f\x31\xf4"
"""A stub's body: RDTSC, HLT."""


def out(port: int, *values: int) -> bytes:
    """mov al, value / out port, al"""
    return b"".join(bytes((0xB0, value, 0xE6, port)) for value in values)


def store(page: int, offset: int, value: int) -> bytes:
    """mov dword [page + offset], value"""
    return mov("rbx", page) + b"\xc7\x83" + offset.to_bytes(4, "little") + value.to_bytes(4, "little")


def entry(pin: int, low: int) -> bytes:
    """The low half of a redirection entry; the destination stays APIC 0."""
    return store(IOAPIC_PAGE, 0, 0x10 + 2 * pin) + store(IOAPIC_PAGE, 0x10, low)


def pic(mask: int) -> bytes:
    """Both 8259s as a PC has them, vectors 20h and 28h."""
    return out(0x20, 0x11) + out(0x21, 0x20, 4, 1, mask) + out(0xA0, 0x11) + out(0xA1, 0x28, 2, 1, 0xFF)


VIRTUAL_WIRE = store(APIC_PAGE, LVT_LINT0, EXTINT)


def rate(count: int) -> bytes:
    return out(0x43, 0x34) + out(0x40, count & 255, count >> 8)


@pytest.fixture
def guest() -> Guest:
    made: Guest = apic_guest()
    made.partition.attach_platform()
    return made


def platform_of(guest: Guest) -> InterruptPlatform:
    platform = guest.partition.platform
    assert platform is not None
    return platform


def tsc(guest: Guest) -> int:
    return int(guest.vp.rdx << 32 | guest.vp.rax)


def run(guest: Guest, *parts: str | bytes, budget: int = 1_000_000) -> Any:
    guest.load(*parts)
    return guest.vp.run(max_instructions=budget)


@pytest.mark.parametrize("wait", [STI_HLT, b"\xfb" + JMP_SELF])
@pytest.mark.parametrize("count", [2, 10, 1000, 65535])
@pytest.mark.parametrize("through", ["pic", "pin 2"])
def test_one_shot_at_the_exact_tick(guest: Guest, through: str, count: int, wait: bytes) -> None:
    """Mode 0: OUT rises count + 1 CLK pulses after the OUT that wrote the count, and the handler runs right there."""
    vector = 0x20 if through == "pic" else 0x50
    guest.write(STUBS + 16 * vector, READ_TSC)
    setup = VIRTUAL_WIRE + pic(0xFE) if through == "pic" else entry(2, vector)
    start = out(0x43, 0x30) + out(0x40, count & 255) + RDTSC_TO_R13 + out(0x40, count >> 8)
    exit_ = run(guest, setup, start, wait, budget=100_000_000)
    assert isinstance(exit_, Halt)
    assert guest.vp.rip == STUBS + 16 * vector + 3
    written = guest.vp.r13 + 3              # RDTSC, MOV, MOV, and then the OUT starts
    expected = nanoseconds(clocks(written) + count + 1)
    # STI and its shadow may end behind the edge.
    assert tsc(guest) == max(expected, written + 3 if wait is not STI_HLT else 0)


def test_periodic_interrupts_do_not_drift(guest: Guest) -> None:
    """Mode 2, 1000 CLK pulses: in 100 ms there are 119 periods."""
    handler(guest, 0x20, "ff0425", MARK.to_bytes(4, "little"), "50", out(0x20, 0x20), "58")
    guest.write(MARK, bytes(8))
    run(guest, VIRTUAL_WIRE, pic(0xFE), rate(1000), "fb f4 ebfd", budget=20_000)
    guest.hypervisor.run(max_instructions=1)
    served, now = guest.read(MARK, 4), guest.hypervisor.scheduler.now
    assert served > 100
    assert abs(served - clocks(now) // 1000) <= 1
    counters = platform_of(guest).counters()
    assert counters["master_acknowledged"] in (served, served + 1)
    assert counters["master_spurious"] == 0


def test_masked_by_the_guest(guest: Guest) -> None:
    for setup in (VIRTUAL_WIRE + pic(0xFF), pic(0xFE), VIRTUAL_WIRE + pic(0xFE) + entry(2, 1 << 16 | 0x50)):
        waits = "fa" if setup is not pic(0xFE) else "fb"
        exit_ = run(guest, setup, rate(100), waits, JMP_SELF, budget=10_000)
        assert isinstance(exit_, Budget)
        assert guest.vp.counters()["interrupts"] == 0


def test_lint0_that_is_masked_takes_nothing(guest: Guest) -> None:
    assert isinstance(run(guest, pic(0xFE), rate(100), "fb", JMP_SELF, budget=10_000), Budget)
    assert platform_of(guest).intr


def test_a_timer_that_reaches_nobody_does_not_keep_a_machine_running(guest: Guest) -> None:
    """With interrupts off the guest has halted for good; with them on and LINT0 masked its budget ends."""
    for setup in (VIRTUAL_WIRE + pic(0xFE), pic(0xFE)):
        assert isinstance(run(guest, setup, rate(100), HLT), Halt)
    assert isinstance(run(guest, pic(0xFE), rate(100), STI_HLT, budget=5000), Budget)


def test_the_vector_is_that_of_the_acknowledge_cycle(guest: Guest) -> None:
    """Input 3 asks first; input 1 comes before the processor acknowledges, and is the one that it gets."""
    platform = platform_of(guest)
    run(guest, VIRTUAL_WIRE, pic(0xF5), JMP_SELF, budget=200)
    platform.set_pin(3, True)
    guest.vp.run(max_instructions=10)
    platform.set_pin(1, True)
    guest.vp.rflags |= 0x200
    assert isinstance(guest.vp.run(max_instructions=10), Halt)
    assert guest.taken() == 0x21


def test_a_request_that_is_gone_is_not_taken_and_by_message_it_is_spurious(guest: Guest) -> None:
    """The wire follows INT; an ExtINT message of pin 0 is latched, and its acknowledge cycle finds input 7."""
    platform = platform_of(guest)
    for setup, vector in ((VIRTUAL_WIRE + pic(0xF7), None), (entry(0, EXTINT) + pic(0xF7), 0x27)):
        run(guest, store(APIC_PAGE, LVT_LINT0, 1 << 16), setup, JMP_SELF, budget=200)
        platform.pulse(3)
        guest.vp.rflags |= 0x200
        exit_ = guest.vp.run(max_instructions=10)
        assert isinstance(exit_, Budget if vector is None else Halt)
        assert vector is None or guest.taken() == vector


def test_level_through_the_io_apic_until_the_device_is_quiet(guest: Guest) -> None:
    platform = platform_of(guest)
    handler(guest, 0x51, "ff0425", MARK.to_bytes(4, "little"), store(APIC_PAGE, EOI, 0))
    guest.write(MARK, bytes(8))
    run(guest, entry(5, 0x8051), "fb", JMP_SELF, budget=200)
    platform.set_pin(5, True)
    guest.vp.run(max_instructions=1000)
    times = guest.read(MARK, 4)
    assert times > 100
    platform.set_pin(5, False)
    guest.vp.run(max_instructions=1000)
    assert guest.read(MARK, 4) - times <= 1
    assert platform.pin_counters(5)["eois"] == platform.pin_counters(5)["delivered"]


def test_edge_through_the_io_apic_wakes_a_halted_processor(guest: Guest) -> None:
    assert isinstance(run(guest, entry(5, 0x51), STI_HLT), Halt)
    assert guest.taken() is None
    platform_of(guest).pulse(5)
    assert isinstance(guest.vp.run(max_instructions=10), Halt)
    assert guest.taken() == 0x51


def test_intr_wakes_a_halted_processor(guest: Guest) -> None:
    assert isinstance(run(guest, VIRTUAL_WIRE, pic(0xF7), STI_HLT), Halt)
    platform_of(guest).set_pin(3, True)
    assert isinstance(guest.vp.run(max_instructions=10), Halt)
    assert guest.taken() == 0x23


def test_a_message_wakes_a_halted_processor(guest: Guest) -> None:
    assert isinstance(run(guest, STI_HLT), Halt)
    assert guest.partition.send_msi(0xFEE0_0000, 0x61) == 1
    assert isinstance(guest.vp.run(max_instructions=10), Halt)
    assert guest.taken() == 0x61


def test_one_processor_programs_the_timer_that_wakes_another() -> None:
    """INT of the pair is wired to LINT0 of both; the second one has it unmasked and sleeps."""
    guest = apic_guest(vps=2, processors=2)
    guest.partition.attach_platform()
    first, second = guest.partition.vps[0], guest.partition.vps[1]
    guest.write(STUBS + 16 * 0x20, READ_TSC)
    guest.load(VIRTUAL_WIRE, STI_HLT, at=CODE + 0x800, vp=second)
    start = out(0x43, 0x30) + out(0x40, 20) + RDTSC_TO_R13 + out(0x40, 0)
    guest.load(*("90" for _ in range(40)), pic(0xFE), start, JMP_SELF, vp=first)
    assert isinstance(second.run(max_instructions=100), Halt)
    assert isinstance(first.run(max_instructions=100_000), Budget)
    assert second.rip == STUBS + 16 * 0x20 + 3
    assert second.rdx << 32 | second.rax == nanoseconds(clocks(first.r13 + 3) + 21)


def test_ports_of_the_platform_never_exit(guest: Guest) -> None:
    """They are the hypervisor's own before any intercept (TLFS; hyperv-abi 8.2); those beside them are the parent's."""
    text = "b0 34 e6 43 e4 40 e4 61 66ba d004 ec 66ba 2000 b9 02000000 be 00002000 f3 6e bf 00002000 6c"
    assert isinstance(run(guest, text, HLT), Halt)
    exit_ = run(guest, "e4 60", HLT)
    assert isinstance(exit_, IoPort) and exit_.port == 0x60


def test_without_a_platform_they_are_ports_as_any_other() -> None:
    guest = Guest()
    exit_ = run(guest, "e4 20", HLT)
    assert isinstance(exit_, IoPort) and exit_.port == 0x20
    guest.partition.attach_platform()
    assert isinstance(run(guest, "e4 21", HLT), Halt)
    assert guest.vp.rax & 0xFF == 0xFF
    guest.partition.detach_platform()
    assert isinstance(run(guest, "e4 20", HLT), IoPort)


def test_guest_and_python_see_the_same_io_apic(guest: Guest) -> None:
    run(guest, entry(7, 0x1A077), mov("rbx", IOAPIC_PAGE), "8b4310", HLT)
    assert guest.vp.rax == 0x1A077 == platform_of(guest).entries[7]


def test_speaker_timer_by_polling(guest: Guest) -> None:
    """How guests calibrate: gate counter 2, mode 0, and wait for bit 5 of port 61h."""
    text = ("e461 24fd 0c01 e661", out(0x43, 0xB0), out(0x42, 0x9B), out(0x42, 0x2E), RDTSC_TO_R13,
            "e461 a820 74fa 0f31", HLT)  # fmt: skip
    assert isinstance(run(guest, *text, budget=100_000_000), Halt)
    assert abs(tsc(guest) - guest.vp.r13 - 10_000_000) < 2000


def test_reset_of_the_partition_resets_its_platform(guest: Guest) -> None:
    run(guest, pic(0), entry(7, 0x77), HLT)
    guest.hypervisor.reset(guest.partition)
    platform = platform_of(guest)
    assert platform.entries == (1 << 16,) * 24
    assert platform.read_port(0x21) == 0xFF


def test_the_uart_of_the_machine_is_interrupt_4_of_the_root() -> None:
    hypervisor = Hypervisor(memory="64 MiB", processors=1)
    platform, ports = hypervisor.root.platform, hypervisor.machine.ports
    assert platform is not None
    ports.write(0x3F9, 1, 2)                # transmitter empty
    ports.write(0x3F8, 1, 65)
    assert not platform.pin_level(4)
    ports.write(0x3FC, 1, 8)                # OUT2
    assert platform.pin_level(4)
    assert ports.read(0x3FA, 1) == 2        # reading IIR acknowledges it
    assert not platform.pin_level(4)


def test_code_parts_are_what_they_say() -> None:
    assert code(out(0x43, 0x34)).hex() == "b034e643"
