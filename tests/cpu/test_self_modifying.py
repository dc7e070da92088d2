"""Code that is written while it runs: every way a store can reach decoded instructions takes effect.

`mov eax, imm32; ret` (B8 imm32 C3) is the victim throughout; the immediate is what gets changed.
"""

from __future__ import annotations

from struct import pack
from typing import Any

import pytest
from support import CODE, HLT, RAM, STACK, TABLES, Guest, code, mov, q

from hvcore._native.exits import Budget, Halt
from hvcore.enums import Hypercall

VICTIM = 0x300000
ALIAS = 0x380000
FUNCTION = "b811111111c3"  # mov eax, 0x11111111 / ret
CALL = (mov("rbx", VICTIM), "ffd3")  # call rbx


@pytest.fixture
def guest() -> Guest:
    made = Guest()
    made.write(VICTIM, code(FUNCTION))
    return made


def test_same_block(guest: Guest) -> None:
    """A store to the next instruction but one of its own block."""
    # mov dword [rip + 5], 0x22222222 / nop / mov eax, 0x11111111 / hlt: the immediate is 2 bytes behind the store
    guest.halted("c7050200000022222222 90 b811111111", HLT)
    assert guest.vp.rax == 0x22222222


def test_next_instruction(guest: Guest) -> None:
    guest.halted("c7050100000022222222 b811111111", HLT)
    assert guest.vp.rax == 0x22222222


@pytest.mark.parametrize("distance", [0, 0x40, 0x800, 0xFF0])
def test_other_block(guest: Guest, distance: int) -> None:
    """Called, patched, called again; in the same granule, in the same page, at its end."""
    victim = VICTIM + distance
    guest.write(victim, code(FUNCTION))
    guest.halted(mov("rbx", victim), "ffd3 4889c7 c7430122222222 ffd3", HLT)  # call / mov rdi, rax / patch / call
    assert (guest.vp.rdi, guest.vp.rax) == (0x11111111, 0x22222222)


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
def test_store_sizes(guest: Guest, size: int) -> None:
    stores = {1: "c6430122", 2: "66c743012222", 4: "c7430122222222", 8: "48890b", 16: "0f1103"}
    guest.load(*CALL, stores[size], "ffd3", HLT)
    guest.vp.rcx = 0xC322222222B8
    guest.vp.xmm0 = 0xC322222222B8
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert guest.vp.rax == {1: 0x11111122, 2: 0x11112222}.get(size, 0x22222222)


@pytest.mark.parametrize(
    ("text", "target", "count"),
    [("f3a4", VICTIM, 6), ("f348a5", VICTIM, 1), ("f3aa", VICTIM + 1, 4), ("f3ab", VICTIM + 1, 1)],
    ids=["rep movsb", "rep movsq", "rep stosb", "rep stosd"],
)
def test_strings(guest: Guest, text: str, target: int, count: int) -> None:
    guest.write(ALIAS, code("b822222222c39090"))
    registers = mov("rdi", target) + mov("rsi", ALIAS) + mov("rcx", count) + mov("rax", 0x22222222)
    guest.halted(*CALL, registers, text, "ffd3", HLT)
    assert guest.vp.rax == 0x22222222


def test_read_modify_write(guest: Guest) -> None:
    guest.halted(*CALL, "83430101 ffd3", HLT)  # add dword [rbx + 1], 1
    assert guest.vp.rax == 0x11111112


def test_push_and_call_into_code(guest: Guest) -> None:
    """The stack in the victim's page: PUSH writes the immediate."""
    guest.load(*CALL, mov("rsp", VICTIM + 8), mov("rax", 0xC3222222B8909090), "50", mov("rsp", STACK), "ffd3", HLT)
    guest.vp.run(max_instructions=100)
    assert guest.vp.rax & 0xFFFFFF == 0x222222


@pytest.mark.parametrize("distance", range(0xFFB, 0x1000))
def test_instruction_over_a_page_end(guest: Guest, distance: int) -> None:
    """Both halves of a crossing instruction are looked at each time."""
    victim = VICTIM + distance
    guest.write(victim, code(FUNCTION))
    for offset in range(1, 5):
        guest.halted(mov("rbx", victim), "ffd3", code("c643"), bytes((offset, 0x77)), "ffd3", HLT)
        assert guest.vp.rax >> 8 * (offset - 1) & 0xFF == 0x77


def test_through_an_alias(guest: Guest) -> None:
    guest.map(ALIAS, VICTIM)
    guest.halted(*CALL, mov("rdx", ALIAS), "c7420122222222 ffd3", HLT)  # mov dword [rdx + 1], 0x22222222
    assert guest.vp.rax == 0x22222222


def test_through_an_alias_that_was_written_before(guest: Guest) -> None:
    """The fast write entry of the alias exists before the page holds decoded code."""
    guest.map(ALIAS, VICTIM)
    guest.halted(mov("rdx", ALIAS), "c7420111111111", *CALL, "c7420122222222 ffd3", HLT)
    assert guest.vp.rax == 0x22222222


def test_write_entry_that_shares_its_slot_with_a_code_page(guest: Guest) -> None:
    """8 MiB apart, two pages share a slot of the TLB: a store to watched code must not leave the other page's
    entry behind where nobody finds it."""
    first, second = 0x100000, 0x100000 + 0x800000
    guest.write(first, code(FUNCTION))
    guest.write(second, code(FUNCTION))
    guest.halted(
        mov("rbx", first), mov("rdx", second),
        "c7420111111111 ffd2",  # a store to `second`, then it is run: watched
        "c7430111111111",  # a store to `first`: a fast entry
        "c7420111111111",  # a store to `second`, watched: the same slot
        "ffd3 c7430122222222 ffd3", HLT,  # run `first`, patch it, run it again
    )  # fmt: skip
    assert guest.vp.rax == 0x22222222


def test_blocks_of_a_page_that_aliases_its_neighbour(guest: Guest) -> None:
    """Page A and A + 1 are one frame, C + 1 is another: code that runs off A's end into A + 1 says nothing of C."""
    frame, other = 0x200000, 0x210000
    a, c = 0x300000, 0x320000
    guest.write(frame + 0xFFE, code("eb00"))  # jmp to the next page
    guest.write(frame, code("b801000000c3"))  # mov eax, 1 / ret
    guest.write(other, code("b802000000c3"))  # mov eax, 2 / ret
    for gva, gpa in ((a, frame), (a + 0x1000, frame), (c, frame), (c + 0x1000, other)):
        guest.map(gva, gpa)
    guest.halted(
        mov("rbx", a + 0xFFE), mov("rdx", c + 0xFFE),
        "ffd3 ffd3 4889c6 ffd2 4889c7 ffd3", HLT,  # call a, a / mov rsi, rax / call c / mov rdi, rax / call a
    )  # fmt: skip
    assert (guest.vp.rsi, guest.vp.rdi, guest.vp.rax) == (1, 2, 1)


@pytest.mark.parametrize("flush", ["0f013b", "0f20d8 0f22d8"])  # invlpg [rbx] / mov rax, cr3; mov cr3, rax
def test_remapped_page(guest: Guest, flush: str) -> None:
    guest.write(ALIAS, code("b822222222c3"))
    guest.halted(
        *CALL, "4889c6", mov("rdi", guest.entry(VICTIM)), mov("rdx", ALIAS | 7), "488917",  # mov [rdi], rdx
        flush, "ffd3", HLT,
    )  # fmt: skip
    assert (guest.vp.rsi, guest.vp.rax) == (0x11111111, 0x22222222)


def test_neighbour_remapped_behind_a_linked_branch(guest: Guest) -> None:
    """The victim jumps into the next page, which is its own frame again, then another one."""
    frame, other, a = 0x200000, 0x210000, 0x300000
    guest.write(frame + 0xFFE, code("eb00"))
    guest.write(frame, code("b801000000c3"))
    guest.write(other, code("b802000000c3"))
    guest.map(a, frame)
    guest.map(a + 0x1000, frame)
    guest.halted(
        mov("rbx", a + 0xFFE), mov("rbp", a + 0x1000), mov("rdi", guest.entry(a + 0x1000)), mov("rdx", other | 7),
        "ffd3 ffd3 488917 0f017d00 ffd3", HLT,  # call, call / mov [rdi], rdx / invlpg [rbp] / call
    )  # fmt: skip
    assert guest.vp.rax == 2


SPIN = (*CALL, "ebfc")  # again: call rbx / jmp again


def run_some(guest: Guest) -> int:
    assert isinstance(guest.vp.run(max_instructions=1000), Budget)
    value: int = guest.vp.rax
    return value


def test_python_writes(guest: Guest) -> None:
    guest.load(*SPIN)
    assert run_some(guest) == 0x11111111
    guest.ram[VICTIM + 1 : VICTIM + 5] = b"\x22" * 4
    assert run_some(guest) == 0x22222222
    guest.ram[VICTIM + 1] = 0x33
    assert run_some(guest) == 0x22222233
    assert guest.vp.write_gpa(VICTIM + 1, b"\x44" * 4)
    assert run_some(guest) == 0x44444444


def test_numpy_view_writes(guest: Guest) -> None:
    guest.load(*SPIN)
    view = guest.ram.view
    for value in (0x22, 0x33, 0x44):
        view[VICTIM + 1 : VICTIM + 5] = value
        assert run_some(guest) == value * 0x01010101
    del view
    assert run_some(guest) == 0x44444444


def map_pages_of(source: Guest, target: Guest, gpa: int, spa: int, count: int) -> None:
    header = pack("<QQII", target.partition.id, gpa >> 12, 7, 0)
    pages = q(*(range(spa >> 12, (spa >> 12) + count)))
    assert source.hypervisor.root.hypercall(Hypercall.MAP_GPA_PAGES, header + pages, reps=count).status == 0


def test_another_partition_writes(guest: Guest) -> None:
    """A second partition maps the victim's frame and stores into it."""
    other = Guest(hypervisor=guest.hypervisor)
    map_pages_of(guest, other, VICTIM, guest.ram.spa + VICTIM, 1)
    guest.load(*SPIN)
    assert run_some(guest) == 0x11111111
    guest.vp.explicit_suspend = 1       # or else it runs on, beside the other one
    other.halted(mov("rbx", VICTIM), "c7430122222222", HLT)
    assert run_some(guest) == 0x22222222


def test_another_processor_writes() -> None:
    """One VP runs the victim, another counts its immediate up, on one logical processor and on two."""
    for processors in (1, 2):
        guest = Guest(vps=2, processors=processors)
        guest.write(VICTIM, code("b800000000c3"))
        runner, writer = guest.partition.vps[0], guest.partition.vps[1]
        # again: call rbx / cmp eax, 1000 / jne again / hlt
        guest.load(mov("rbx", VICTIM), "ffd3 3de8030000 75f7", HLT)
        # again: add dword [rbx + 1], 1 / mov ecx, 50 / loop $ / jmp again ... until 1000
        guest.load(mov("rbx", VICTIM), "83430101 b932000000 e2fe 817b01e8030000 75ec", HLT, at=0x2000, vp=writer)
        writer.rsp = STACK - 0x10000
        writer.explicit_suspend = 0
        exit_: Any = runner.run(max_instructions=10_000_000)
        assert isinstance(exit_, Halt), exit_
        assert runner.rax == 1000


def test_table_in_a_code_page_does_not_thrash(guest: Guest) -> None:
    """A loop that stores into a table beside it decodes itself once: it must run about as fast as one that does not.

    Counted, not timed: the look-ups of the code page stay at one."""
    before = guest.vp.counters()
    # again: mov [rbx + rcx * 4], ecx / dec ecx / jnz again
    guest.load(mov("rbx", CODE + 0x100), mov("rcx", 64), "890c8b ffc9 75f9", HLT)
    assert isinstance(guest.vp.run(max_instructions=1000), Halt)
    after = guest.vp.counters()
    assert after["tlb_lookups"] - before["tlb_lookups"] == 64 + 1
    assert guest.read(CODE + 0x100 + 64 * 4, 4) == 64


def test_code_that_writes_its_own_page_tables(guest: Guest) -> None:
    """A page-table page that is code as well: stores to entries are stores to code."""
    target = TABLES + 0x1F000
    guest.write(target, code(FUNCTION))
    guest.halted(mov("rbx", target), "ffd3 c7430122222222 ffd3", HLT)
    assert guest.vp.rax == 0x22222222
    assert target < RAM
