"""Exceptions and interrupts through the 64-bit IDT: frames, stacks, error codes, priorities, and who may stop them."""

from __future__ import annotations

from typing import Any

import pytest
from support import (
    CODE,
    FLAT,
    HLT,
    IDT,
    IRETQ,
    KERNEL_CS,
    KERNEL_SS,
    RSP0,
    STACK,
    STUBS,
    TSS,
    USER_CS,
    USER_SS,
    USER_STACK,
    Guest,
    code,
    gate,
    mov,
    q,
)  # fmt: skip

from hvcore._native.engine import Segment
from hvcore._native.exits import Budget, ExceptionRaised, Halt, IoPort, TripleFault
from hvcore.enums import Privilege
from hvcore.hypervisor import Hypervisor

DE, DB, NMI, BP, UD, DF, NP, SS, GP, PF = 0, 1, 2, 3, 6, 8, 11, 12, 13, 14
IF, TF, RF, IOPL3, FIXED = 0x200, 0x100, 0x10000, 0x3000, 2
TIMER_CONFIG, TIMER_COUNT, REFERENCE_TIME = 0x400000B0, 0x400000B1, 0x40000020


@pytest.fixture
def guest() -> Guest:
    return Guest()


def set_gate(guest: Guest, vector: int, **options: Any) -> None:
    guest.write(IDT + 16 * vector, gate(STUBS + 16 * vector, **options))


def wrmsr(index: int, value: int) -> bytes:
    """Ten and more bytes, four instructions."""
    return code("b9", index.to_bytes(4, "little"), "b8", (value & FLAT).to_bytes(4, "little"), "ba",
                (value >> 32).to_bytes(4, "little"), "0f30")  # fmt: skip


FAULTS = [
    ("0f0b", UD, None),  # ud2
    ("31c9 f7f1", DE, None),  # xor ecx, ecx / div ecx
    ("b840000000 8ed8", GP, 0x40),  # a selector outside the GDT
    ("488b042500000070", PF, 0),  # mov rax, [0x70000000]
    ("4889042500000070", PF, 2),
]


@pytest.mark.parametrize(("text", "vector", "error"), FAULTS)
@pytest.mark.parametrize("user", [False, True])
def test_faults(guest: Guest, text: str, vector: int, error: int | None, user: bool) -> None:
    """The frame is on RSP0 from CPL 3 and below the old stack from CPL 0; RIP is the faulting instruction's."""
    guest.halted(text, user=user)
    assert guest.taken() == vector
    frame = guest.frame(error is not None)
    if error is not None:
        expected = error | (4 if vector == PF and user else 0)
        assert frame[0] == expected
        frame = frame[1:]
    start = {DE: CODE + 2, GP: CODE + 5}.get(vector, CODE)
    assert frame[0] == start
    assert frame[1] == (USER_CS if user else KERNEL_CS)
    assert frame[2] & (RF | FIXED) == RF | FIXED
    assert frame[3:] == ((USER_STACK, USER_SS) if user else (STACK, KERNEL_SS))
    assert guest.vp.rsp == (RSP0 if user else STACK) - (40 if error is None else 48)
    assert (guest.vp.cpl, guest.vp.cs.selector) == (0, KERNEL_CS)
    assert guest.vp.ss.selector == (0 if user else KERNEL_SS)


@pytest.mark.parametrize("misalignment", [0, 1, 8, 15])
def test_stack_is_aligned(guest: Guest, misalignment: int) -> None:
    guest.halted(mov("rsp", STACK + misalignment), "0f0b")
    assert guest.vp.rsp == (STACK + misalignment & ~15) - 40
    assert guest.frame()[3] == STACK + misalignment


@pytest.mark.parametrize("ist", range(1, 8))
@pytest.mark.parametrize("user", [False, True])
def test_interrupt_stack_table(guest: Guest, ist: int, user: bool) -> None:
    set_gate(guest, UD, ist=ist)
    guest.halted("0f0b", user=user)
    assert guest.vp.rsp == RSP0 - ist * 0x1000 - 40
    assert guest.frame()[3] == (USER_STACK if user else STACK)


def test_trap_gate_keeps_interrupts(guest: Guest) -> None:
    for kind, kept in ((0x8E, 0), (0x8F, IF)):
        set_gate(guest, UD, kind=kind)
        guest.load("0f0b")
        guest.vp.rflags = FIXED | IF
        assert isinstance(guest.vp.run(max_instructions=10), Budget | Halt)
        assert guest.vp.rflags & IF == kept
        assert guest.frame()[2] == FIXED | IF | RF


def test_int_n_and_int3(guest: Guest) -> None:
    """They return behind themselves, without RF, and count as instructions."""
    for text, vector, length in (("cd40", 0x40, 2), ("cc", BP, 1), ("cd0d", GP, 2), ("f1", DB, 1)):
        before = guest.vp.counters()["instructions"]
        guest.halted(text)
        assert (guest.taken(), guest.frame()[0]) == (vector, CODE + length)
        assert guest.frame()[2] & RF == 0
        assert guest.vp.counters()["instructions"] - before == 2


def test_privilege_of_gates(guest: Guest) -> None:
    """From CPL 3, INT n needs DPL 3: else #GP with the gate's number; hardware exceptions do not."""
    guest.halted("cd40", user=True)
    assert (guest.taken(), guest.frame(True)[:2]) == (GP, (0x40 * 8 + 2, CODE))
    set_gate(guest, 0x40, kind=0xEE)
    guest.halted("cd40", user=True)
    assert (guest.taken(), guest.frame()[0]) == (0x40, CODE + 2)
    guest.halted("cc", user=True)
    assert (guest.taken(), guest.frame(True)[0]) == (GP, BP * 8 + 2)


def test_bad_gates(guest: Guest) -> None:
    set_gate(guest, 0x40, kind=0x0E)
    guest.halted("cd40")
    assert (guest.taken(), guest.frame(True)[0]) == (NP, 0x40 * 8 + 2)
    set_gate(guest, 0x40, kind=0x85)
    guest.halted("cd40")
    assert (guest.taken(), guest.frame(True)[0]) == (GP, 0x40 * 8 + 2)
    set_gate(guest, 0x40, selector=KERNEL_SS)
    guest.halted("cd40")
    assert (guest.taken(), guest.frame(True)[0]) == (GP, KERNEL_SS)
    set_gate(guest, 0x40, selector=0)
    guest.halted("cd40")
    assert (guest.taken(), guest.frame(True)[0]) == (GP, 0)
    guest.load("cd40")
    guest.vp.idtr = guest.vp.idtr._replace(limit=0x3FF)
    guest.vp.run(max_instructions=10)
    assert (guest.taken(), guest.frame(True)[0]) == (GP, 0x40 * 8 + 2)


def test_double_fault(guest: Guest) -> None:
    """#GP whose gate is not present: #NP on top of it makes a double fault, error code 0."""
    set_gate(guest, GP, kind=0x0E)
    guest.halted(mov("rbx", 0x8000_0000_0000), "8b03")
    assert guest.taken() == DF
    assert guest.frame(True)[:2] == (0, CODE + 10)
    # A page fault with a bad stack: the push faults again.
    set_gate(guest, DF, ist=1)
    guest.halted(mov("rsp", 0x7000_0000), mov("rbx", 0x6000_0000), "8b03")
    assert guest.taken() == DF
    assert guest.frame(True)[4] == 0x7000_0000


def test_benign_then_fault_is_no_double_fault(guest: Guest) -> None:
    """SDM 2A, INT n: EXT is 0 when INT n or INT3 met the fault, else 1, "including INT1"."""
    for text, vector, external in (("0f0b", UD, 1), ("cc", BP, 0), ("f1", DB, 1), ("cd42", 0x42, 0)):
        set_gate(guest, vector, kind=0x0E)
        guest.halted(text)
        assert (guest.taken(), guest.frame(True)[0]) == (NP, vector * 8 + 2 + external)


def test_triple_fault(guest: Guest) -> None:
    exit_ = guest.run(mov("rsp", 0x7000_0000), "0f0b")
    assert isinstance(exit_, TripleFault)
    assert (exit_.rip, guest.vp.rsp) == (CODE + 10, 0x7000_0000)
    assert isinstance(guest.vp.run(max_instructions=10), TripleFault)
    guest.halted("90", HLT)


def test_endless_faults_use_up_time(guest: Guest) -> None:
    """A handler on an IST stack that faults at once retires nothing, but time passes: the budget ends it."""
    set_gate(guest, UD, ist=1)
    guest.write(STUBS + 16 * UD, code("0f0b"))
    before = guest.vp.counters()
    exit_ = guest.run("0f0b", budget=1000)
    after = guest.vp.counters()
    assert isinstance(exit_, Budget)
    assert after["exceptions"] - before["exceptions"] == 1000
    assert after["instructions"] == before["instructions"]
    assert after["runtime_ticks"] - before["runtime_ticks"] == 1000


def test_to_user_and_back(guest: Guest) -> None:
    """IRETQ to CPL 3; INT 40h comes back on RSP0; the stub returns, and the user code goes on."""
    set_gate(guest, 0x40, kind=0xEE)
    guest.write(STUBS + 0x400, code("ffc0", IRETQ))  # inc eax / iretq
    guest.write(0x2000, code("cd40 cd40 8cc9 0f0b"))  # int 40h, twice / mov ecx, cs / ud2
    push = b"".join(b"\x68" + v.to_bytes(4, "little") for v in (USER_SS, USER_STACK, FIXED | IF, USER_CS, 0x2000))
    guest.halted("31c0", push, IRETQ)
    assert guest.taken() == UD
    assert (guest.vp.rax, guest.vp.rcx) == (2, USER_CS)
    assert guest.frame()[:2] == (0x2004 + 2, USER_CS)
    assert guest.frame()[2] & (IF | RF) == IF | RF


def test_iretq_faults(guest: Guest) -> None:
    for index, value, error in ((1, 0x40, 0x40), (1, 0, 0), (4, 0x40, 0x40), (0, 1 << 47, 0)):
        words = [0x2000, USER_CS, FIXED, USER_STACK, USER_SS]
        words[index] = value
        guest.write(STACK - 40, q(*words))
        guest.halted(mov("rsp", STACK - 40), IRETQ)
        assert (guest.taken(), guest.frame(True)[:2]) == (GP, (error, CODE + 10)), (index, value)


def test_user_cannot_change_interrupt_flag(guest: Guest) -> None:
    """POPF keeps IF and IOPL above IOPL; CLI, STI and HLT are #GP."""
    guest.halted("68023200 00 9d 9c 58 0f0b", user=True)  # push 0x3202 / popfq / pushfq / pop rax / ud2
    assert guest.vp.rax & (IF | IOPL3) == 0
    for text in ("fa", "fb", "f4", "0f20d8", "0f30", "0f013b", "0f01f8"):
        guest.halted(text, user=True)
        assert (guest.taken(), guest.frame(True)[0]) == (GP, 0), text
    guest.load("fb 9c 58 fa 0f0b", user=True)
    guest.vp.rflags = FIXED | IOPL3
    guest.vp.run(max_instructions=10)
    assert (guest.taken(), guest.vp.rax & IF) == (UD, IF)


def test_pushf_and_popf(guest: Guest) -> None:
    every = 0x247FD7 & ~TF  # what POPF can set at CPL 0
    guest.halted(mov("rax", every), "50 9d 9c 58", "6a02 9d", HLT)
    assert guest.vp.rax == every


def test_syscall_and_sysret(guest: Guest) -> None:
    guest.load("0f05 0f0b", user=True)  # syscall / ud2
    guest.write(0x2000, code("8cca 48 0f07"))  # mov edx, cs / sysretq
    guest.vp.star = (USER_SS - 8) << 48 | KERNEL_CS << 32
    guest.vp.lstar, guest.vp.sfmask = 0x2000, IF
    guest.vp.rflags = FIXED | IF | 1
    guest.vp.run(max_instructions=100)
    assert guest.taken() == UD
    assert (guest.vp.rcx, guest.vp.r11, guest.vp.rdx) == (CODE + 2, FIXED | IF | 1, KERNEL_CS)
    assert guest.frame()[:2] == (CODE + 2, USER_CS)
    assert guest.frame()[2] & ~RF == FIXED | IF | 1
    assert guest.frame()[3:] == (USER_STACK, USER_SS)
    guest.load("0f05")
    guest.vp.efer &= ~1
    guest.vp.run(max_instructions=10)
    assert guest.taken() == UD


def test_sti_shadow(guest: Guest) -> None:
    """A pending interrupt is taken behind the instruction after STI, also when the run is cut between them."""
    for cut in (100, 1):
        guest.load("fb 90 90", HLT)
        guest.vp.interrupts.assert_interrupt(0x50)
        exit_ = guest.vp.run(max_instructions=cut)
        while isinstance(exit_, Budget):
            exit_ = guest.vp.run(max_instructions=cut)
        assert (guest.taken(), guest.frame()[0]) == (0x50, CODE + 2)
        guest.vp.interrupts.reset()


def test_sti_then_hlt_is_woken(guest: Guest) -> None:
    """The classic idle: an interrupt cannot slip in between STI and HLT."""
    guest.load("fb", HLT, "90")
    guest.vp.interrupts.assert_interrupt(0x50)
    guest.vp.run(max_instructions=100)
    assert (guest.taken(), guest.frame()[0]) == (0x50, CODE + 2)


def test_mov_ss_shadow(guest: Guest) -> None:
    guest.load("b810000000 8ed0 90 90", HLT)  # mov eax, 10h / mov ss, eax
    guest.vp.rflags = FIXED | IF
    assert isinstance(guest.vp.run(max_instructions=1), Budget)
    assert isinstance(guest.vp.run(max_instructions=1), Budget)
    guest.vp.interrupts.assert_interrupt(0x50)
    guest.vp.run(max_instructions=100)
    assert (guest.taken(), guest.frame()[0]) == (0x50, CODE + 8)


def test_interrupt_priority(guest: Guest) -> None:
    """The higher vector first; CR8 holds the lower back; IRETQ without EOI lets nothing lower in."""
    guest.load("90", HLT)
    guest.vp.rflags = FIXED | IF
    for vector in (0x51, 0x62):
        guest.vp.interrupts.assert_interrupt(vector)
    guest.vp.run(max_instructions=10)
    assert (guest.taken(), guest.frame()[0]) == (0x62, CODE)
    guest.vp.interrupts.reset()
    guest.load("fb 90 90 31c0 440f22c0 90", HLT)  # sti / nops / xor eax, eax / mov cr8, rax / nop
    guest.vp.cr8 = 5
    guest.vp.interrupts.assert_interrupt(0x51)
    guest.vp.run(max_instructions=10)
    assert (guest.taken(), guest.frame()[0]) == (0x51, CODE + 9)


def test_nmi(guest: Guest) -> None:
    """Taken with IF 0, masked until IRETQ, before an interrupt."""
    guest.load("90", HLT)
    guest.vp.rflags = FIXED | IF
    guest.vp.interrupts.assert_interrupt(0x50)
    guest.vp.interrupts.assert_nmi()
    guest.vp.run(max_instructions=10)
    assert (guest.taken(), guest.frame()[0]) == (NMI, CODE)
    guest.vp.interrupts.assert_nmi()
    assert isinstance(guest.vp.run(max_instructions=0), Budget | Halt)
    assert guest.taken() == NMI
    guest.vp.interrupts.reset()
    guest.write(STUBS + 16 * NMI, code("ffc3", IRETQ))  # inc ebx / iretq
    guest.load("90 90 90", HLT)
    guest.vp.rbx = 0
    for _ in range(3):
        guest.vp.interrupts.assert_nmi()
        guest.vp.run(max_instructions=3)
    assert guest.vp.rbx == 3


def test_injected_nmi_blocks_nmis(guest: Guest) -> None:
    """PendingInterruption with type 2: until IRET, as one that came by itself."""
    guest.write(STUBS + 16 * NMI, code("90 90", IRETQ))
    guest.load("90 90", HLT)
    guest.vp.pending_interruption = NMI << 16 | 2 << 1 | 1
    guest.vp.run(max_instructions=1)
    assert guest.vp.rip == STUBS + 16 * NMI + 1
    guest.vp.interrupts.assert_nmi()
    guest.vp.run(max_instructions=1)
    assert guest.vp.rip == STUBS + 16 * NMI + 2 and guest.vp.interrupts.nmi_pending
    guest.vp.run(max_instructions=1)
    assert guest.vp.rip == STUBS + 16 * NMI and guest.frame()[0] == CODE


def test_single_step(guest: Guest) -> None:
    """One trap behind each instruction, with DR6.BS; POPF that sets TF traps behind the next one."""
    guest.write(STUBS + 16 * DB, code("4983c001 488b1c24", IRETQ))  # add r8, 1 / mov rbx, [rsp] / iretq
    guest.halted("4d31c0 6802010000 9d 90 90 6a02 9d 90", HLT)  # xor r8, r8 / TF on / nop nop / TF off / nop
    # Traps behind: nop, nop, push, and the popf that clears TF.
    assert guest.vp.r8 == 4
    assert guest.vp.dr6 & 0x4000


def test_int1_needs_no_privilege(guest: Guest) -> None:
    """SDM 2A, INT n: the check of the gate's DPL "does not apply to INT1", to INT 1 it does. No RF, no DR6."""
    guest.load("f1 90", user=True)
    guest.vp.run(max_instructions=10)
    assert (guest.taken(), guest.frame()[0], guest.frame()[2] & RF, guest.vp.dr6 & 0x4000) == (DB, CODE + 1, 0, 0)
    guest.load("cd01 90", user=True)
    guest.vp.run(max_instructions=10)
    assert guest.taken() == GP


@pytest.mark.parametrize("masked", [False, True])
def test_single_step_through_a_system_call(guest: Guest, masked: bool) -> None:
    """SYSCALL and SYSRET trap by the TF that they leave: one that SFMASK clears is silent (or user code would step
    into the kernel), and the trap of the way back comes before the next instruction of the program."""
    # r8 += 1; r14 = r9; r9 = r15; r15 = RIP
    guest.write(STUBS + 16 * DB, code("4983c001 4d89ce 4d8bcf 4c8b3c24", IRETQ))
    guest.load("90 0f05 90 0f0b", user=True)  # nop / syscall / nop / ud2
    guest.write(0x2000, code("90 48 0f07"))  # nop / sysretq
    guest.vp.star = (USER_SS - 8) << 48 | KERNEL_CS << 32
    guest.vp.lstar, guest.vp.sfmask = 0x2000, TF if masked else 0
    guest.vp.rflags = FIXED | TF
    guest.vp.r8 = 0
    guest.vp.run(max_instructions=100)
    assert guest.taken() == UD
    # nop, (syscall, nop,) sysret, nop
    assert guest.vp.r8 == (3 if masked else 5)
    assert (guest.vp.r9, guest.vp.r15) == (CODE + 3, CODE + 4)
    assert guest.vp.r14 == (CODE + 1 if masked else 0x2001)


def test_single_step_over_a_port(guest: Guest) -> None:
    """The exit comes first, then the trap; neither is lost."""
    guest.load("ec 90", HLT)  # in al, dx
    guest.vp.rflags = FIXED | TF
    exit_ = guest.vp.run(max_instructions=10)
    assert isinstance(exit_, IoPort)
    exit_.complete(0x55)
    assert isinstance(guest.vp.run(max_instructions=10), Halt)
    assert (guest.taken(), guest.frame()[0], guest.vp.rax & 0xFF) == (DB, CODE + 1, 0x55)


def test_single_step_of_a_repeated_string(guest: Guest) -> None:
    guest.load("f3aa", HLT)
    guest.vp.rflags, guest.vp.rcx, guest.vp.rdi = FIXED | TF, 5, 0x300000
    assert isinstance(guest.vp.run(max_instructions=10), Halt)
    assert (guest.taken(), guest.frame()[0], guest.vp.rcx) == (DB, CODE, 4)


@pytest.mark.parametrize(
    ("text", "vector", "error", "address"), [("0f0b", UD, None, 0), ("8b042500000070", PF, 0, 0x70000000)]
)
def test_exceptions_intercepted(guest: Guest, text: str, vector: int, error: int | None, address: int) -> None:
    guest.partition.core.set_exception_intercept(vector, True)
    exit_ = guest.run(text)
    assert isinstance(exit_, ExceptionRaised)
    assert (exit_.vector, exit_.error_code, exit_.address, exit_.rip) == (vector, error, address, CODE)
    assert guest.vp.rip == CODE
    assert isinstance(guest.vp.run(max_instructions=10), Halt)
    assert guest.taken() == vector


def test_intercepted_exception_that_the_parent_mends(guest: Guest) -> None:
    """What the parent lets pass is that exception, not the next one."""
    guest.partition.core.set_exception_intercept(UD, True)
    assert isinstance(guest.run("0f0b 0f0b"), ExceptionRaised)
    guest.vp.rip = CODE + 2
    second = guest.vp.run(max_instructions=10)
    assert isinstance(second, ExceptionRaised)
    assert second.rip == CODE + 2
    assert isinstance(guest.vp.run(max_instructions=10), Halt)
    assert guest.taken() == UD


def test_intercepted_single_step(guest: Guest) -> None:
    guest.partition.core.set_exception_intercept(DB, True)
    guest.load("90 90", HLT)
    guest.vp.rflags = FIXED | TF
    exit_ = guest.vp.run(max_instructions=10)
    assert isinstance(exit_, ExceptionRaised)
    assert (exit_.vector, guest.vp.rip) == (DB, CODE + 1)
    assert isinstance(guest.vp.run(max_instructions=10), Halt)
    assert (guest.taken(), guest.frame()[0]) == (DB, CODE + 1)


def test_software_interrupts_are_not_intercepted(guest: Guest) -> None:
    guest.partition.core.set_exception_intercept(BP, True)
    guest.halted("cc")
    assert guest.taken() == BP


def timer_guest(**options: Any) -> Guest:
    return Guest(privileges=sum(Privilege), **options)


def arm(wait: int) -> bytes:
    """One-shot timer in direct mode, vector 50h, `wait` units of 100 ns from now; the time it is set to in R12."""
    read = "b920000040 0f32 48c1e220 4809d0"  # mov ecx, REFERENCE_TIME / rdmsr / shl rdx, 32 / or rax, rdx
    add = code("4805", wait.to_bytes(4, "little"), "4989c4 4889c2 48c1ea20")  # add rax, wait / mov r12, rax / rdx: high
    return code(read, add, "b9b1000040 0f30", wrmsr(TIMER_CONFIG, 0x1501))


def woken_at(guest: Guest) -> int:
    """When the stub of vector 50h ran: it is RDTSC / HLT."""
    assert guest.vp.rip == STUBS + 16 * 0x50 + 3
    return (guest.vp.rdx << 32 | guest.vp.rax) - guest.partition.core.creation_time


@pytest.mark.parametrize("wait", [1, 7, 1000, 123_456_789])
def test_halt_is_woken_at_the_exact_time(wait: int) -> None:
    guest = timer_guest()
    guest.write(STUBS + 16 * 0x50, code("0f31", HLT))
    guest.load(arm(wait), "fb", HLT)
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert woken_at(guest) == guest.vp.r12 * 100


def test_halt_with_interrupts_off_is_for_good() -> None:
    """A timer that ticks on cannot wake a VP that takes no interrupts: the run ends."""
    guest = timer_guest()
    exit_ = guest.run(wrmsr(TIMER_COUNT, 100), wrmsr(TIMER_CONFIG, 0x1503), HLT)
    assert isinstance(exit_, Halt)
    assert guest.taken() is None


@pytest.mark.parametrize("wait", [3, 1000, 50_000])
def test_timer_interrupts_a_loop_at_the_exact_instruction(wait: int) -> None:
    guest = timer_guest()
    guest.write(STUBS + 16 * 0x50, code("0f31", HLT))
    # again: add rbx, 1 / jmp again
    guest.load(arm(wait), "fb 4831db 0f31 4989c5 4883c301 ebfa")
    assert isinstance(guest.vp.run(max_instructions=10_000_000), Halt)
    assert woken_at(guest) == guest.vp.r12 * 100
    start = guest.vp.r13 + 2 - guest.partition.core.creation_time  # behind RDTSC / mov r13, rax
    assert guest.vp.rbx == (guest.vp.r12 * 100 - start + 1) // 2


def test_tss_is_used_from_memory(guest: Guest) -> None:
    guest.write(TSS + 4, q(0x660000))
    guest.halted("0f0b", user=True)
    assert guest.vp.rsp == 0x660000 - 40
    guest.load("0f0b", user=True)
    guest.vp.tr = Segment(TSS, 10, 0x28, 0x8B)
    assert isinstance(guest.vp.run(max_instructions=10), TripleFault)


def test_cr8_and_the_tpr_msr_are_one_register() -> None:
    """CR8 is bits 7 to 4 of the TPR, whichever of the two wrote it (hyperv-abi 10.1)."""
    # mov ecx, 0x40000072; mov eax, 0x50; xor edx, edx; wrmsr; mov rbx, cr8; mov eax, 7; mov cr8, rax; rdmsr; hlt
    code = bytes.fromhex("b972000040 b850000000 31d2 0f30 440f20c3 b807000000 440f22c0 0f32 f4")
    with Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        child = hypervisor.root.create_partition(vps=1)
        child.map_memory(gpa=0, size="4 MiB")[0x1000 : 0x1000 + len(code)] = code
        vp = child.vps[0]
        vp.reset(mode="long64", rip=0x1000, rsp=0x8000)
        vp.run(max_instructions=100)
        assert (vp.rbx, vp.rax, vp.cr8) == (5, 0x70, 7)
