"""run(n) and run(m) are run(n + m): registers, memory and counters, wherever the cut falls; and two runs are one."""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from support import CODE, HLT, IDT, IRETQ, RAM, STUBS, Guest, code, mov

from hvcore._native.exits import Budget
from hvcore.enums import Privilege

SEED = 20261122
TOTAL = 60_000
TIMER, REGISTERS = 0x50, 0x400000B0
GENERAL = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
STATE = (*GENERAL, "rip", "rflags", "cr0", "cr2", "cr3", "cr8", "dr6", "xmm0", "xmm1", "cs", "ss", "tsc", "mxcsr")


def wrmsr(index: int, value: int) -> bytes:
    low, high = (value & 0xFFFFFFFF).to_bytes(4, "little"), (value >> 32).to_bytes(4, "little")
    return code("b9", index.to_bytes(4, "little"), "b8", low, "ba", high, "0f30")


# Direct mode, vector 50h, periodic: bits 0, 1, [11:4], 12. EOI is MSR 70h, write-only.
EVERY_3_MICROSECONDS = wrmsr(REGISTERS + 1, 30) + wrmsr(REGISTERS, 0x1503)
COUNTING_STUB = code("50 51 52", "49ffc7", wrmsr(0x40000070, 0), "5a 59 58", IRETQ)  # inc r15, EOI


def arithmetic(guest: Guest) -> None:
    """Calls, a table walk and stores over many pages."""
    # again: imul rax, rax, 1103515245 / add rax, 12345 / mov rdx, rax / and edx, 0x3ffff8 / add [rdx + 0x200000], rax
    # / inc rcx / jmp again
    guest.load(mov("rcx", 0), "4869c06d4ec641 480539300000 4889c2 81e2f8ff0f00 48018200002000 48ffc1 ebde")


def strings(guest: Guest) -> None:
    """REP MOVSB, STOSQ, SCASB and CMPSB over page ends, from odd addresses."""
    guest.load(
        mov("rax", 0x4142434445464748),
        mov("rdi", 0x300FF1), mov("rcx", 700), "f348ab",
        mov("rsi", 0x300FF3), mov("rdi", 0x340FF5), mov("rcx", 5001), "f3a4",
        mov("rsi", 0x300FF3), mov("rdi", 0x340FF5), mov("rcx", 5001), "f3a6",
        mov("rdi", 0x300FF1), mov("rcx", 5001), "30c0 f2ae", "48ffc3",
        b"\xe9", (-(10 + 23 + 32 + 32 + 20 + 4 + 3 + 5) + 10).to_bytes(4, "little", signed=True),
    )  # fmt: skip


def faults(guest: Guest) -> None:
    """#UD, #PF and INT 3 by turns; the stubs skip what faulted."""
    guest.write(STUBS + 16 * 6, code("4883042402", IRETQ))  # add qword [rsp], 2 / iretq
    guest.write(STUBS + 16 * 3, IRETQ)
    guest.write(IDT + 14 * 16, guest.ram[IDT + 6 * 16 : IDT + 7 * 16])
    guest.write(STUBS + 16 * 6, code("4883042402", IRETQ))
    # again: ud2 / inc rbx / int3 / inc rcx / jmp again
    guest.load("0f0b 48ffc3 cc 48ffc1 ebf5")


def timer(guest: Guest) -> None:
    """A periodic timer through the IDT, beside a loop that stores."""
    guest.write(STUBS + 16 * TIMER, COUNTING_STUB)
    guest.load(mov("rbx", 0x300000), "4d31ff", EVERY_3_MICROSECONDS, "fb", "48ff03 488b03 ebf8")


def timer_and_strings(guest: Guest) -> None:
    """The same beside REP STOSB: interrupted in its midst."""
    guest.write(STUBS + 16 * TIMER, COUNTING_STUB)
    guest.load("4d31ff", EVERY_3_MICROSECONDS, "fb", mov("rdi", 0x300000), mov("rcx", 9999), "f3aa ebe8")


def idle(guest: Guest) -> None:
    """HLT until the next tick, and a little work."""
    guest.write(STUBS + 16 * TIMER, COUNTING_STUB)
    guest.load("4d31ff", EVERY_3_MICROSECONDS, "fb", HLT, "48ffc3 ebfa")


def single_step(guest: Guest) -> None:
    guest.write(STUBS + 16, code("49ffc7", IRETQ))
    guest.load("6802010000 9d", mov("rdi", 0x300000), mov("rcx", 99), "f3aa 48ffc3 ebe5")


def self_modifying(guest: Guest) -> None:
    """again: inc dword [rip + 3 ... the immediate behind] / mov eax, imm / add rbx, rax / jmp again"""
    guest.load("ff0501000000 b800000000 4801c3 ebf0")


def code_over_a_page_end(guest: Guest) -> None:
    at = CODE + 0x1000 - 3
    guest.write(at, code("4805010000004883c301e9edffffff"))
    guest.load(mov("rdx", at), "ffe2")
    guest.write(at + 10, b"\xe9" + (-15).to_bytes(4, "little", signed=True))


PROGRAMS = [
    arithmetic, strings, faults, timer, timer_and_strings, idle, single_step, self_modifying, code_over_a_page_end,
]  # fmt: skip


def state(guest: Guest) -> dict[str, Any]:
    """Everything that must not depend on cuts. Exits are cuts, so they are not counted."""
    found: dict[str, Any] = {}
    for index, vp in guest.partition.vps.items():
        found.update({f"{index}.{name}": getattr(vp, name) for name in STATE})
        counters = dict(vp.counters())
        counters.pop("exits")
        found.update({f"{index}.{name}": value for name, value in counters.items()})
        found[f"{index}.requested"] = vp.interrupts.requested
        found[f"{index}.in_service"] = vp.interrupts.in_service
        found.update({f"{index}.{name}": value for name, value in vp.interrupts.counters().items()})
    found["memory"] = sha256(guest.ram[0:RAM]).hexdigest()
    return found


def differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {name: (first[name], second[name]) for name in first if first[name] != second[name]}


def run_in_pieces(guest: Guest, pieces: list[int]) -> None:
    for piece in pieces:
        exit_ = guest.vp.run(max_instructions=piece)
        assert isinstance(exit_, Budget), exit_


def cuts(rng: random.Random, total: int) -> list[int]:
    pieces = []
    while total:
        piece = min(total, rng.choice((0, 1, 1, 2, 3, 7, 64, 65, 300, 1000, 5000)))
        pieces.append(piece)
        total -= piece
    return pieces


@pytest.mark.parametrize("program", PROGRAMS)
def test_cuts(program: Callable[[Guest], None]) -> None:
    print("seed", SEED)
    rng = random.Random(f"{SEED} {program.__name__}")
    whole = Guest(privileges=sum(Privilege))
    program(whole)
    run_in_pieces(whole, [TOTAL])
    expected = state(whole)
    assert expected["0.runtime_ticks"] == TOTAL
    for pieces in ([TOTAL], cuts(rng, TOTAL), cuts(rng, TOTAL), [1] * 3000 + [TOTAL - 3000]):
        guest = Guest(privileges=sum(Privilege))
        program(guest)
        run_in_pieces(guest, pieces)
        assert not differences(expected, state(guest))


def two_processors(guest: Guest) -> None:
    """Both count in one word with LOCK XADD; the first sends the second an IPI every so often, both have timers."""
    for vp in guest.partition.vps.values():
        guest.enter(vp)
        vp.explicit_suspend = 0
    guest.write(STUBS + 16 * TIMER, COUNTING_STUB)
    # again: mov eax, 1 / lock xadd [rbx], eax / jmp again
    loop = code("b801000000 f00fc103 ebf5")
    prologue = code(mov("rbx", 0x300000), "4d31ff")
    guest.load(prologue, EVERY_3_MICROSECONDS, "fb", loop)
    guest.load(prologue, wrmsr(REGISTERS + 1, 70), wrmsr(REGISTERS, 0x1503), "fb", loop, at=0x3000,
               vp=guest.partition.vps[1])  # fmt: skip
    guest.partition.vps[1].rsp = 0x440000
    guest.partition.vps[1].explicit_suspend = 0


@pytest.mark.parametrize("processors", [1, 2])
def test_cuts_with_two_processors(processors: int) -> None:
    """The budget counts one VP; the other comes as far as lock-step lets it, and so must be where it was."""
    print("seed", SEED)
    rng = random.Random(f"{SEED} {processors}")
    expected: dict[str, Any] | None = None
    for pieces in ([TOTAL], [TOTAL], cuts(rng, TOTAL), cuts(rng, TOTAL)):
        guest = Guest(privileges=sum(Privilege), vps=2, processors=processors)
        two_processors(guest)
        run_in_pieces(guest, pieces)
        found = state(guest)
        assert guest.partition.vps[1].r15 > 0
        expected = expected or found
        assert not differences(expected, found)
