"""run(): its exits and their answers, how it is stopped, and who may call it (api.md)."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from support import CODE, HLT, JMP_SELF, RAM, Guest, code, mov, q

from hvcore._native.exits import (
    Budget,
    Canceled,
    Cpuid,
    ExitNotCompleted,
    Halt,
    IoPort,
    Mmio,
    Msr,
    Unsupported,
)  # fmt: skip
from hvcore.enums import Hypercall
from hvcore.hypervisor import Hypervisor

DEVICE = RAM - 0x2000
"""A GVA that is mapped to device memory: its GPA lies behind RAM."""


@pytest.fixture
def guest() -> Guest:
    made = Guest()
    for page in range(2):
        made.map(DEVICE + page * 0x1000, RAM + page * 0x1000)
    return made


def finish(guest: Guest) -> None:
    exit_ = guest.vp.run(max_instructions=1000)
    assert isinstance(exit_, Halt), exit_
    assert guest.taken() is None


CHILD = """
import os, signal, sys, threading, time
sys.path[:0] = {path!r}
from support import Guest, JMP_SELF
guest = Guest()
guest.load(JMP_SELF)
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    guest.vp.run()
except KeyboardInterrupt:
    print(time.process_time(), guest.vp.rip, type(guest.vp.run(max_instructions=10)).__name__)
"""


def test_ctrl_c() -> None:
    tests = Path(__file__).parents[1]
    script = CHILD.format(path=[str(tests), str(tests.parent)])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    _, rip, kind = done.stdout.split()
    assert (int(rip), kind) == (CODE, "Budget")


@pytest.mark.parametrize("text", ["ebfe", "0fa2 ebfc"])  # jmp $ / again: cpuid; jmp again
def test_cancel(guest: Guest, text: str) -> None:
    guest.partition.core.set_cpuid_intercept(0x12345678, True)
    guest.load(text)
    timer = threading.Timer(0.1, guest.vp.cancel)
    timer.start()
    start = time.thread_time()
    exit_ = guest.vp.run()
    assert isinstance(exit_, Canceled)
    assert time.thread_time() - start < 0.1 + 0.2
    assert CODE <= guest.vp.rip <= CODE + 2
    assert isinstance(guest.vp.run(max_instructions=10), Budget)


def test_one_thread_at_a_time(guest: Guest) -> None:
    guest.load(JMP_SELF)
    thread = threading.Thread(target=guest.vp.run)
    before = guest.vp.counters()["runtime_ticks"]
    thread.start()
    while guest.vp.counters()["runtime_ticks"] == before:
        time.sleep(0.001)
    attempts: list[Any] = [
        lambda: guest.vp.run(max_instructions=1),
        lambda: guest.hypervisor.run(max_instructions=1),
        lambda: guest.hypervisor.root.hypercall(Hypercall.GET_PARTITION_ID),
        lambda: guest.hypervisor.root.create_partition(),
        guest.hypervisor.close,
    ]
    try:
        for attempt in attempts:
            with pytest.raises(RuntimeError, match="thread"):
                attempt()
    finally:
        guest.hypervisor.cancel()
        thread.join()
    assert isinstance(guest.vp.run(max_instructions=1), Budget)


def test_close_with_live_views(guest: Guest) -> None:
    view = guest.ram.view
    view[0x300000] = 77
    vp = guest.vp
    guest.hypervisor.close()
    assert view[0x300000] == 77
    with pytest.raises(RuntimeError, match="does not exist any more"):
        vp.run(max_instructions=1)


def test_removed_processor() -> None:
    hypervisor = Hypervisor(memory="64 MiB", processors=1)
    child = hypervisor.root.create_partition()
    vp = child.vps[0]
    child.destroy()
    with pytest.raises(RuntimeError, match="does not exist any more"):
        vp.run()


def test_budget(guest: Guest) -> None:
    guest.load("90" * 20, HLT)
    for piece in (0, 1, 5):
        assert isinstance(guest.vp.run(max_instructions=piece), Budget)
    assert guest.vp.rip == CODE + 6
    for run in (guest.vp.run, guest.vp.partition.hypervisor.run):
        for wrong in (-1, (1 << 62) + 1, 1 << 70):
            with pytest.raises(ValueError, match="max_instructions must be"):
                run(max_instructions=wrong)
        for kind in (1.5, "1", b"1"):
            with pytest.raises(TypeError, match="max_instructions must be an integer"):
                run(max_instructions=kind)  # type: ignore[arg-type]


def test_a_call_that_is_refused_does_not_resume(guest: Guest) -> None:
    """A run clears ExplicitSuspend; one with a wrong argument does nothing."""
    child = guest.vp.partition.hypervisor.root.create_partition()
    with pytest.raises(TypeError):
        child.vps[0].run(max_instructions=1.5)  # type: ignore[arg-type]
    assert child.vps[0].read_register(0) == 1  # HvRegisterExplicitSuspend


def test_unsupported_mode(guest: Guest) -> None:
    guest.load(HLT)
    guest.vp.efer = 0
    exit_ = guest.vp.run(max_instructions=10)
    assert isinstance(exit_, Unsupported)
    assert exit_.rip == CODE
    guest.vp.reset()
    assert isinstance(guest.vp.run(max_instructions=10), Unsupported)


@pytest.mark.parametrize(("text", "size"), [("ec", 1), ("66ed", 2), ("ed", 4)])
def test_port_reads(guest: Guest, text: str, size: int) -> None:
    guest.load(mov("rdx", 0x3F8), text, HLT)
    guest.vp.rax = (1 << 64) - 1
    exit_ = guest.vp.run(max_instructions=100)
    assert isinstance(exit_, IoPort)
    assert (exit_.port, exit_.write, exit_.size, exit_.value, exit_.rip) == (0x3F8, False, size, None, CODE + 10)
    with pytest.raises((ExitNotCompleted, RuntimeError), match="complete"):
        guest.vp.run(max_instructions=1)
    with pytest.raises(ValueError, match="value"):
        exit_.complete(1 << 8 * size)
    exit_.complete(0x12345678 & (1 << 8 * size) - 1)
    with pytest.raises(RuntimeError, match="before"):
        exit_.complete(0)
    finish(guest)
    assert guest.vp.rax == {1: 0xFFFFFFFFFFFFFF78, 2: 0xFFFFFFFFFFFF5678, 4: 0x12345678}[size]


@pytest.mark.parametrize(("text", "size"), [("ee", 1), ("66ef", 2), ("ef", 4)])
def test_port_writes(guest: Guest, text: str, size: int) -> None:
    exit_ = guest.run(mov("rdx", 0x3F8), mov("rax", 0x8877665544332211), text, HLT)
    assert isinstance(exit_, IoPort)
    assert (exit_.write, exit_.size, exit_.value) == (True, size, 0x44332211 & (1 << 8 * size) - 1)
    with pytest.raises(ValueError, match="write"):
        exit_.complete(0)
    finish(guest)


def test_repeated_port_strings(guest: Guest) -> None:
    target = 0x300000
    exit_ = guest.run(mov("rdx", 0x10), mov("rdi", target), mov("rcx", 3), "f3666d", mov("rsi", target),
                      mov("rcx", 3), "f3666f", HLT)  # rep insw / rep outsw  # fmt: skip
    for value in (0x1111, 0x2222, 0x3333):
        assert isinstance(exit_, IoPort)
        assert (exit_.port, exit_.string, exit_.write, exit_.size) == (0x10, True, False, 2)
        exit_.complete(value)
        exit_ = guest.vp.run(max_instructions=100)
    for value in (0x1111, 0x2222, 0x3333):
        assert isinstance(exit_, IoPort)
        assert (exit_.string, exit_.write, exit_.value) == (True, True, value)
        exit_ = guest.vp.run(max_instructions=100)
    assert isinstance(exit_, Halt)
    assert guest.vp.rcx == 0


SIZES = [(1, "8a03", "8803"), (2, "668b03", "668903"), (4, "8b03", "8903"), (8, "488b03", "488903"),
         (16, "0f1003", "0f1103")]  # fmt: skip


@pytest.mark.parametrize("offset", [0, 3, 0xFF8, 0xFFF])
@pytest.mark.parametrize(("size", "load", "store"), SIZES)
def test_device_memory(guest: Guest, size: int, load: str, store: str, offset: int) -> None:
    """Every size; at 0xFFF over the end of a device page into the next: one access, at the address of the first."""
    value = int.from_bytes(bytes(range(1, size + 1)), "little")
    guest.load(mov("rbx", DEVICE + offset), load, store, HLT)
    exit_ = guest.vp.run(max_instructions=10)
    assert isinstance(exit_, Mmio)
    assert (exit_.gpa, exit_.gva, exit_.size, exit_.write) == (RAM + offset, DEVICE + offset, size, False)
    assert (exit_.value, exit_.rip) == (None, CODE + 10)
    exit_.complete(value)
    exit_ = guest.vp.run(max_instructions=10)
    assert isinstance(exit_, Mmio)
    assert (exit_.gpa, exit_.size, exit_.write, exit_.value) == (RAM + offset, size, True, value)
    finish(guest)


@pytest.mark.parametrize(("size", "load", "store"), SIZES[1:])
def test_from_memory_into_device_memory(guest: Guest, size: int, load: str, store: str) -> None:
    """The first bytes are RAM, the last one is the device's."""
    at = DEVICE - size + 1
    guest.write(DEVICE - size + 1, bytes(range(1, size)))
    guest.load(mov("rbx", at), load, store, HLT)
    exit_ = guest.vp.run(max_instructions=10)
    assert isinstance(exit_, Mmio)
    assert (exit_.gpa, exit_.size, exit_.write) == (RAM, 1, False)
    exit_.complete(0xAA)
    exit_ = guest.vp.run(max_instructions=10)
    assert isinstance(exit_, Mmio)
    assert (exit_.gpa, exit_.size, exit_.write, exit_.value) == (RAM, 1, True, 0xAA)
    finish(guest)
    assert guest.ram[at:DEVICE] == bytes(range(1, size))


@pytest.mark.parametrize("offset", [0, 0xFFE])
def test_read_modify_write_of_device_memory(guest: Guest, offset: int) -> None:
    exit_ = guest.run(mov("rbx", DEVICE + offset), "830305", HLT)  # add dword [rbx], 5
    assert isinstance(exit_, Mmio)
    assert (exit_.write, exit_.size) == (False, 4)
    exit_.complete(0x10)
    exit_ = guest.vp.run(max_instructions=10)
    assert isinstance(exit_, Mmio)
    assert (exit_.gpa, exit_.write, exit_.size, exit_.value) == (RAM + offset, True, 4, 0x15)
    finish(guest)


def test_string_between_device_memory(guest: Guest) -> None:
    """REP MOVSB from device to device: read, write, read, write."""
    exit_ = guest.run(mov("rsi", DEVICE), mov("rdi", DEVICE + 0x100), mov("rcx", 3), "f3a4", HLT)
    for index in range(3):
        assert isinstance(exit_, Mmio)
        assert (exit_.gpa, exit_.write) == (RAM + index, False)
        exit_.complete(index + 7)
        exit_ = guest.vp.run(max_instructions=100)
        assert isinstance(exit_, Mmio)
        assert (exit_.gpa, exit_.write, exit_.value) == (RAM + 0x100 + index, True, index + 7)
        exit_ = guest.vp.run(max_instructions=100)
    assert isinstance(exit_, Halt)


def test_msr_exits(guest: Guest) -> None:
    header = pack("<QIIQ", guest.partition.id, 3, 1, 0)
    assert guest.hypervisor.root.hypercall(Hypercall.INSTALL_INTERCEPT, header).status == 0
    exit_ = guest.run("b934120000 0f32", mov("rax", 7), mov("rdx", 1), "0f30", HLT)
    assert isinstance(exit_, Msr)
    assert (exit_.index, exit_.write, exit_.rip) == (0x1234, False, CODE + 5)
    exit_.complete(0x1122334455667788)
    assert (guest.vp.rax, guest.vp.rdx) == (0x55667788, 0x11223344)
    exit_ = guest.vp.run(max_instructions=10)
    assert isinstance(exit_, Msr)
    assert (exit_.index, exit_.write, exit_.value) == (0x1234, True, 1 << 32 | 7)
    finish(guest)


def test_unknown_msr_without_intercept(guest: Guest) -> None:
    guest.halted("b934120000 0f32")
    assert (guest.taken(), guest.frame(True)[:2]) == (13, (0, CODE + 5))


def test_cpuid_exits(guest: Guest) -> None:
    guest.partition.core.set_cpuid_intercept(1, True)
    exit_ = guest.run("b801000000 31c9 0fa2", HLT)
    assert isinstance(exit_, Cpuid)
    assert (exit_.leaf, exit_.subleaf, exit_.rip) == (1, 0, CODE + 7)
    assert guest.vp.rax == exit_.default[0]
    exit_.complete((1, 2, 3, 0xFFFFFFFF))
    finish(guest)
    assert (guest.vp.rax, guest.vp.rbx, guest.vp.rcx, guest.vp.rdx) == (1, 2, 3, 0xFFFFFFFF)
    guest.halted("31c0 0fa2", HLT)


def test_two_partitions(guest: Guest) -> None:
    """Each run brings the exits of its own VP; the other's wait."""
    other = Guest(hypervisor=guest.hypervisor)
    for index, one in enumerate((guest, other)):
        one.load(mov("rax", index), "e680", HLT)  # out 80h, al
    other.vp.explicit_suspend = 0
    first = guest.vp.run(max_instructions=10)
    assert isinstance(first, IoPort)
    assert (first.vp, first.value) == (guest.vp, 0)
    finish(guest)
    second = other.vp.run(max_instructions=10)
    assert isinstance(second, IoPort)
    assert (second.vp, second.value) == (other.vp, 1)
    finish(other)
    assert guest.read(CODE) != q(0) and code("f4") == HLT


@pytest.mark.parametrize("waiting", ["cli; hlt", "sti; hlt", "suspended"])
def test_a_processor_that_nobody_wakes_ends_its_run(waiting: str) -> None:
    """Its neighbour spins on: what that one runs counts while this one waits for it."""
    with Hypervisor(memory="64 MiB", processors=2) as hypervisor:
        child = hypervisor.root.create_partition(vps=2)
        ram = child.map_memory(gpa=0, size="4 MiB")
        spinning, waits = child.vps[0], child.vps[1]
        for vp, place in ((spinning, 0x1000), (waits, 0x2000)):
            sleep = code("fa" if waiting == "cli; hlt" else "fb", HLT)
            ram[place : place + 2] = sleep if vp is waits else code(JMP_SELF)
            vp.reset("long64", rip=place, rsp=0x8000)
        spinning.explicit_suspend = False
        if waiting == "suspended":
            waits.suspend_for_intercept()
        before = spinning.counters().instructions
        assert isinstance(waits.run(max_instructions=100), Budget)
        assert spinning.counters().instructions - before <= 100 + hypervisor.quantum


def test_an_instruction_of_many_reads_ends_in_a_child() -> None:
    """FXRSTOR from device memory asks 16 times; the rest floats and is counted (docs/devices.md)."""
    with Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        child = hypervisor.root.create_partition(vps=1)
        ram = child.map_memory(gpa=0, size="4 MiB")
        machine_code = code(mov("rax", 0xFED0_0000), "480fae08", HLT)  # fxrstor64 [rax]
        ram[CODE : CODE + len(machine_code)] = machine_code
        vp = child.vps[0]
        vp.reset("long64", rip=CODE, rsp=0x8000, identity_map="4 GiB", tables=0x10_0000)
        reads = 0
        while isinstance(exit_ := vp.run(max_instructions=1000), Mmio):
            exit_.complete(0)
            reads += 1
        assert isinstance(exit_, Halt) and reads == 16 and vp.counters().device_reads_lost > 0
