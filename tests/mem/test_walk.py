"""The nested walk: reference counts, rights, accessed and dirty bits, faults, stale translations, table pages.

References are compared with a walker of its own in Python, which reads the live tables of both levels.
"""

from __future__ import annotations

from struct import pack, unpack
from typing import Any

import pytest
from support import (
    ACCESSED,
    CODE,
    DIRTY,
    HLT,
    IDT,
    LARGE,
    NX,
    PRESENT,
    RAM,
    STACK,
    STUBS,
    TABLES,
    USER,
    WRITE,
    Guest,
    code,
    gate,
    mov,
    q,
)  # fmt: skip

from hvcore._native.engine import Segment
from hvcore._native.exits import Budget, GpaViolation, Halt, Mmio
from hvcore.enums import Hypercall
from hvcore.hypervisor import Hypervisor

DATA = 0x300000
GP, SS, PF = 13, 12, 14
OK, NOT_PRESENT, RIGHTS, RESERVED, NOT_CANONICAL, TABLE, NESTED = range(7)
WALKS = {(True, "4 KiB"): 24, (True, "2 MiB"): 19, (False, "4 KiB"): 19, (False, "2 MiB"): 15}
SECOND_LEVEL_CODE = {"r": 1, "rw": 3, "rx": 5, "rwx": 7}


def second_level_root(guest: Guest) -> int:
    """The deposited page that holds table entries and that no other table names."""
    memory = guest.hypervisor.memory
    tables = {page << 12: unpack("<512Q", memory.read(page << 12, 4096)) for page in guest.partition.deposits}
    named = {e & 0xFFFFFFFFFF000 for entries in tables.values() for e in entries if e & 7 and not e & LARGE}
    (root,) = (spa for spa, entries in tables.items() if any(e & 7 for e in entries) and spa not in named)
    return root


class Walker:
    """GVA -> SPA over both levels, by the book; `references` counts the entries of each level that are read."""

    def __init__(self, guest: Guest) -> None:
        self.read = lambda spa: int.from_bytes(guest.hypervisor.memory.read(spa, 8), "little")
        self.root, self.cr3 = second_level_root(guest), guest.vp.cr3
        self.guest_references = self.second_references = 0

    def second(self, gpa: int) -> int:
        table = self.root
        for level in (3, 2, 1, 0):
            shift = 12 + 9 * level
            entry = self.read(table + (gpa >> shift & 511) * 8)
            self.second_references += 1
            assert entry & 7
            if level == 0 or entry & LARGE:
                return entry & 0xFFFFFFFFFF000 & -(1 << shift) | gpa & (1 << shift) - 1
            table = entry & 0xFFFFFFFFFF000
        raise AssertionError

    def walk(self, gva: int) -> int:
        table = self.cr3
        for level in (3, 2, 1, 0):
            shift = 12 + 9 * level
            entry = self.read(self.second(table + (gva >> shift & 511) * 8))
            self.guest_references += 1
            assert entry & PRESENT
            if level == 0 or (entry & LARGE and level < 3):
                return self.second(entry & 0xFFFFFFFFFF000 & -(1 << shift) | gva & (1 << shift) - 1)
            table = entry & 0xFFFFFFFFFF000
        raise AssertionError


@pytest.fixture(scope="module")
def shared() -> Guest:
    """A guest of 4 KiB pages at both levels; tests that change its tables put them back."""
    return Guest()


@pytest.fixture
def guest(shared: Guest) -> Any:
    shared.enter(shared.vp)
    tables = shared.ram[TABLES : TABLES + 0x20000]
    yield shared
    shared.write(TABLES, tables)


def fault(guest: Guest) -> tuple[int | None, int, int]:
    """(vector, error code, CR2) of the exception that the guest has halted in."""
    return guest.taken(), guest.words(guest.vp.rsp, 1)[0], guest.vp.cr2


@pytest.mark.parametrize(("small", "page_size"), WALKS)
def test_references(small: bool, page_size: str) -> None:
    guest = Guest(small=small, page_size=page_size)
    for gva in (0, 0x1234, 0x765432, RAM - 1):
        walker = Walker(guest)
        spa = walker.walk(gva)
        status, gpa, found, *_, first, second = guest.vp.walk(gva)
        assert (status, gpa, found) == (OK, gva, spa)
        assert (first, second) == (walker.guest_references, walker.second_references)
        assert first + second == WALKS[small, page_size]


@pytest.mark.parametrize(("small", "page_size"), WALKS)
def test_counters_of_one_access(small: bool, page_size: str) -> None:
    """One instruction page, one data page: two look-ups, two misses, two whole walks."""
    guest = Guest(small=small, page_size=page_size)
    before = guest.vp.counters()
    guest.halted(mov("rbx", DATA), "8b03", HLT)  # mov eax, [rbx]
    after = guest.vp.counters()
    change = {name: after[name] - before[name] for name in after}
    assert change["instructions"] == 3
    assert (change["tlb_lookups"], change["tlb_misses"]) == (2, 2)
    assert change["guest_references"] + change["second_level_references"] == 2 * WALKS[small, page_size]


def test_counters_of_loops(guest: Guest) -> None:
    """100 stores to two pages: one look-up each, one miss a page; the code page is looked up once."""
    before = guest.vp.counters()
    # again: mov [rbx], eax / mov [rbx + 0x1000], eax / dec ecx / jnz again
    guest.halted(mov("rbx", DATA), mov("rcx", 100), "8903 898300100000 ffc9 75f4", HLT)
    after = guest.vp.counters()
    assert after["instructions"] - before["instructions"] == 3 + 400
    assert after["tlb_lookups"] - before["tlb_lookups"] == 1 + 200
    assert after["tlb_misses"] - before["tlb_misses"] == 1 + 2


def test_counters_of_calls_between_pages(guest: Guest) -> None:
    """CALL and RET look the stack up, and every change of the page the code; reads and writes miss separately."""
    guest.write(CODE + 0x1000, code("c3"))
    before = guest.vp.counters()
    guest.halted("e8fb0f0000 e8f60f0000", HLT)  # call CODE + 0x1000, twice
    after = guest.vp.counters()
    assert after["instructions"] - before["instructions"] == 5
    assert after["tlb_lookups"] - before["tlb_lookups"] == 4 + 5
    assert after["tlb_misses"] - before["tlb_misses"] == 2 + 2


def test_large_page_of_one_gib(guest: Guest) -> None:
    guest.write(TABLES + 0x1000 + 8, q(LARGE | 7))
    status, gpa, _, shift, _, first, second = guest.vp.walk((1 << 30) + DATA)
    assert (status, gpa, shift, first, second) == (OK, DATA, 30, 2, 3 * 4)
    guest.write(DATA, q(0x1234))
    guest.halted(mov("rbx", (1 << 30) + DATA), "488b03", HLT)  # mov rax, [rbx]
    assert guest.vp.rax == 0x1234
    assert guest.read(TABLES + 0x1000 + 8) == LARGE | ACCESSED | 7
    guest.write(TABLES + 0x1000 + 8, q(LARGE | 7 | 1 << 13))
    guest.halted(mov("rbx", (1 << 30) + DATA), "488b03", HLT)
    assert fault(guest) == (PF, 9, (1 << 30) + DATA)


PATH = (TABLES, TABLES + 0x1000, TABLES + 0x2008, TABLES + 0x10000 + (DATA >> 12) * 8)


def marks(guest: Guest) -> list[int]:
    """Accessed and dirty bits along the path to DATA."""
    return [guest.read(entry) & (ACCESSED | DIRTY) for entry in PATH]


def clear_marks(guest: Guest) -> None:
    for entry in PATH:
        guest.write(entry, q(guest.read(entry) & ~(ACCESSED | DIRTY)))


def test_marks_of_a_read_and_a_write(guest: Guest) -> None:
    guest.halted(mov("rbx", DATA), "8b03", HLT)  # mov eax, [rbx]
    assert marks(guest) == [ACCESSED] * 4
    guest.halted(mov("rbx", DATA), "8903", HLT)  # mov [rbx], eax
    assert marks(guest) == [ACCESSED] * 3 + [ACCESSED | DIRTY]


def test_a_store_marks_a_page_that_was_only_read(guest: Guest) -> None:
    guest.halted(mov("rbx", DATA), "8b03 8903", HLT)
    assert marks(guest)[3] == ACCESSED | DIRTY


def test_no_marks_without_the_right(guest: Guest) -> None:
    guest.map(DATA, DATA, PRESENT | USER)
    guest.halted(mov("rbx", DATA), "8903", HLT)
    assert fault(guest) == (PF, 3, DATA)
    # The path above leads to other pages of the same tables too: only the leaf is the store's own.
    assert marks(guest)[3] == 0


def test_walk_has_no_side_effects(guest: Guest) -> None:
    clear_marks(guest)
    for access in (1, 3, 4):
        guest.vp.walk(DATA, access)
    assert marks(guest) == [0] * 4


READ_IT, WRITE_IT, RUN_IT = "8b03", "8903", "ffe3"  # mov eax, [rbx] / mov [rbx], eax / jmp rbx
P, W, U, I = 1, 2, 4, 16  # of the error code  # noqa: E741


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("wp", [False, True])
@pytest.mark.parametrize("access", [READ_IT, WRITE_IT, RUN_IT])
@pytest.mark.parametrize("leaf", [0, 1, 3, 5, 7, 1 | NX, 3 | NX, 7 | NX])
@pytest.mark.parametrize("upper", [7, 5, 3, 7 | NX])
def test_rights(guest: Guest, user: bool, wp: bool, access: str, leaf: int, upper: int) -> None:
    """Every combination of the rights of two levels, against the rule of SDM 3A 4.6."""
    guest.write(PATH[2], q(guest.read(PATH[2]) & ~7 | upper))
    guest.map(DATA, DATA, leaf)
    guest.write(DATA, HLT)
    guest.load(mov("rbx", DATA), access, "cc", user=user)
    guest.vp.cr0 = 0x80010031 if wp else 0x80000031
    assert isinstance(guest.vp.run(max_instructions=1000), Halt)
    both = leaf & upper
    granted = bool(leaf & 1)
    if user:
        granted &= bool(both & USER)
    if access == WRITE_IT and (user or wp):
        granted &= bool(both & WRITE)
    if access == RUN_IT:
        granted &= not (leaf | upper) & NX
    if granted:
        # HLT is for CPL 0, and INT3 for gates of DPL 3: in either case #GP at the instruction behind the access.
        assert guest.taken() == (GP if user else 3 if access != RUN_IT else None)
        return
    error = (leaf & 1) * P | (access == WRITE_IT) * W | user * U | (access == RUN_IT) * I
    assert fault(guest) == (PF, error, DATA)


def test_fetch_bit_needs_nxe(guest: Guest) -> None:
    guest.map(DATA, DATA, 0)
    guest.load(mov("rbx", DATA), RUN_IT)
    guest.vp.efer &= ~0x800
    guest.vp.run(max_instructions=100)
    assert fault(guest) == (PF, 0, DATA)
    guest.map(DATA, DATA, 7 | NX)
    guest.load(mov("rbx", DATA), READ_IT)
    guest.vp.efer &= ~0x800
    guest.vp.run(max_instructions=100)
    assert fault(guest) == (PF, 9, DATA)


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("access", [READ_IT, WRITE_IT, RUN_IT])
def test_reserved_bits(guest: Guest, level: int, access: str) -> None:
    """A bit above MAXPHYADDR, at each level of a path of its own: present, reserved, whatever else holds."""
    gva, address = 0x80_4020_1000, TABLES + 0x40000
    for depth in range(4):
        slot = (TABLES if depth == 0 else address + (depth - 1) * 0x1000) + 8
        target = DATA if depth == 3 else address + depth * 0x1000
        guest.write(slot, q(target | 7 | (depth == level) << 50))
    guest.halted(mov("rbx", gva), access, HLT)
    error = 9 | {READ_IT: 0, WRITE_IT: W, RUN_IT: I}[access]
    assert fault(guest) == (PF, error, gva)
    assert guest.vp.walk(gva)[0] == RESERVED
    guest.write(TABLES + 8, bytes(8))


def test_bit_7_of_the_top_level_is_reserved(guest: Guest) -> None:
    guest.write(TABLES + 8, q(guest.read(TABLES) | LARGE))
    guest.halted(mov("rbx", 1 << 39), READ_IT, HLT)
    assert fault(guest) == (PF, 9, 1 << 39)
    guest.write(TABLES + 8, bytes(8))


@pytest.mark.parametrize(
    ("text", "register", "vector"),
    [
        (READ_IT, "rbx", GP),
        (WRITE_IT, "rbx", GP),
        ("8b0424", "rsp", SS),  # mov eax, [rsp]
        ("50", "rsp", SS),  # push rax
        ("8b4500", "rbp", SS),  # mov eax, [rbp]
        ("3e8b4500", "rbp", SS),  # mov eax, ds:[rbp]: in 64-bit mode DS is no override
        ("a4", "rsi", GP),  # movsb
        ("f30f6f03", "rbx", GP),  # movdqu xmm0, [rbx]
    ],
)
def test_not_canonical(guest: Guest, text: str, register: str, vector: int) -> None:
    if register == "rsp":
        # #SS with an unusable stack needs one of its own: IST 1.
        guest.write(IDT + vector * 16, gate(STUBS + vector * 16, ist=1))
    guest.halted(mov(register, 0x8000_0000_1000), text, HLT)
    assert fault(guest)[:2] == (vector, 0)


def test_walk_of_an_address_that_is_not_canonical(guest: Guest) -> None:
    assert guest.vp.walk(0x8000_0000_0000)[0] == NOT_CANONICAL
    assert guest.vp.walk(0x1234_0000_0000_1000)[0] == NOT_CANONICAL
    assert guest.vp.walk(0x1000)[0] == OK


def test_jump_to_an_address_that_is_not_canonical(guest: Guest) -> None:
    guest.halted(mov("rbx", 0x8000_0000_0000), RUN_IT)
    assert fault(guest)[:2] == (GP, 0)
    assert guest.words(guest.vp.rsp, 2)[1] == CODE + 10
    with pytest.raises(ValueError, match="rip"):
        guest.vp.rip = 1 << 63


def modify(guest: Guest, gpn: int, access: str | None) -> None:
    """Map a page of the child anew with other rights, or unmap it."""
    root = guest.hypervisor.root
    if access is None:
        result = root.hypercall(Hypercall.UNMAP_GPA_PAGES, pack("<QQII", guest.partition.id, gpn, 0, 0), reps=1)
    else:
        spn = (guest.ram.spa >> 12) + gpn
        header = pack("<QQII", guest.partition.id, gpn, SECOND_LEVEL_CODE[access], 0)
        result = root.hypercall(Hypercall.MAP_GPA_PAGES, header + q(spn), reps=1)
    assert result.status == 0, result


@pytest.mark.parametrize("access", ["r", "rx", None])
@pytest.mark.parametrize("text", [READ_IT, WRITE_IT, RUN_IT])
def test_rights_of_the_second_level(access: str | None, text: str) -> None:
    guest = Guest()
    guest.write(DATA, HLT)
    modify(guest, DATA >> 12, access)
    exit_ = guest.run(mov("rbx", DATA), text, HLT)
    letter = {READ_IT: "r", WRITE_IT: "w", RUN_IT: "x"}[text]
    if access is not None and letter in access:
        assert isinstance(exit_, Halt)
    elif access is None and letter != "x":
        assert isinstance(exit_, Mmio)
        assert (exit_.gpa, exit_.gva, exit_.write, exit_.size) == (DATA, DATA, letter == "w", 4)
    else:
        assert isinstance(exit_, GpaViolation)
        assert (exit_.gpa, exit_.gva, exit_.gva_valid, exit_.access) == (DATA, DATA, True, letter)
        # The parent allows it, and the instruction runs.
        modify(guest, DATA >> 12, "rwx")
        assert isinstance(guest.vp.run(max_instructions=10), Halt)


@pytest.mark.parametrize("table", [TABLES + 0x1000, TABLES + 0x2000, TABLES + 0x11000])
def test_table_page_not_mapped(table: int) -> None:
    """The exit names the entry that could not be read, and says that no GVA belongs to it."""
    guest = Guest()
    guest.load(mov("rbx", DATA), READ_IT, HLT)
    guest.map(0x200000 | CODE, CODE)
    assert isinstance(guest.vp.run(max_instructions=1), Budget)
    modify(guest, table >> 12, None)
    exit_ = guest.vp.run(max_instructions=100)
    assert isinstance(exit_, GpaViolation)
    assert exit_.gpa & ~0xFFF == table
    assert not exit_.gva_valid
    modify(guest, table >> 12, "rwx")
    assert isinstance(guest.vp.run(max_instructions=100), Halt)


def test_marks_need_a_writable_table() -> None:
    """A table that the second level lets only be read: reading it is fine, setting an accessed bit is not."""
    guest = Guest()
    table = TABLES + 0x11000
    modify(guest, table >> 12, "r")
    exit_ = guest.run(mov("rbx", DATA), READ_IT, HLT)
    assert isinstance(exit_, GpaViolation)
    assert (exit_.gpa, exit_.gva_valid) == (guest.entry(DATA), False)
    modify(guest, table >> 12, "rwx")
    guest.map(DATA, DATA, 7 | ACCESSED)
    modify(guest, table >> 12, "r")
    assert isinstance(guest.vp.run(max_instructions=10), Halt)


@pytest.mark.parametrize("flush", ["0f013b", "0f20d8 0f22d8"])  # invlpg [rbx] / mov rax, cr3; mov cr3, rax
def test_a_flush_ends_stale_translations(guest: Guest, flush: str) -> None:
    guest.write(DATA, q(1))
    guest.write(DATA + 0x1000, q(2))
    guest.halted(
        mov("rbx", DATA), mov("rdi", guest.entry(DATA)), mov("rsi", DATA + 0x1000 | 7),
        "4c8b03 488937 4c8b0b",  # mov r8, [rbx] / mov [rdi], rsi / mov r9, [rbx]
        flush, "4c8b13", HLT,  # mov r10, [rbx]
    )  # fmt: skip
    assert guest.vp.r8 == 1
    assert guest.vp.r9 in (1, 2)
    assert guest.vp.r10 == 2


@pytest.mark.parametrize("flush", ["0f013b", "0f20d8 0f22d8"])
def test_a_flush_ends_stale_rights(guest: Guest, flush: str) -> None:
    guest.halted(
        mov("rbx", DATA), mov("rdi", guest.entry(DATA)), mov("rsi", DATA | 5),
        "488903 488937", flush, "488903", HLT,  # mov [rbx], rax / mov [rdi], rsi / flush / mov [rbx], rax
    )  # fmt: skip
    assert fault(guest) == (PF, 3, DATA)


def test_invlpg_keeps_other_pages(guest: Guest) -> None:
    before = guest.vp.counters()["tlb_misses"]
    # mov eax, [rbx] / mov eax, [rbx + 0x1000] / invlpg [rbx] / mov eax, [rbx] / mov eax, [rbx + 0x1000]
    guest.halted(mov("rbx", DATA), "8b03 8b8300100000 0f013b 8b03 8b8300100000", HLT)
    assert guest.vp.counters()["tlb_misses"] - before == 1 + 2 + 1


def test_unmapping_takes_effect_at_once() -> None:
    guest = Guest()
    guest.load(mov("rbx", DATA), "8b03 8903 ebfa")  # again: mov eax, [rbx] / mov [rbx], eax / jmp again
    assert isinstance(guest.vp.run(max_instructions=1000), Budget)
    modify(guest, DATA >> 12, None)
    assert isinstance(guest.vp.run(max_instructions=1000), Mmio)


def test_unmapping_code_takes_effect_at_once() -> None:
    guest = Guest()
    guest.load("ebfe")
    assert isinstance(guest.vp.run(max_instructions=1000), Budget)
    modify(guest, CODE >> 12, None)
    exit_ = guest.vp.run(max_instructions=1000)
    assert isinstance(exit_, GpaViolation)
    assert (exit_.gpa, exit_.access, exit_.rip) == (CODE, "x", CODE)


def test_freed_tables_return_to_the_pool() -> None:
    hypervisor = Hypervisor(memory="64 MiB", processors=1)
    child = hypervisor.root.create_partition()
    low = child.map_memory(gpa=0, size="2 MiB")
    held, used = child.pool.available + child.pool.in_use, child.pool.in_use
    region = child.map_memory(gpa=1 << 40, size="4 MiB")
    # A table each for 512 GiB and 1 GiB, and two of 2 MiB.
    assert child.pool.in_use == used + 4
    region.close()
    assert child.pool.in_use == used
    assert child.pool.available + child.pool.in_use >= held
    large = child.map_memory(gpa=1 << 40, size="4 MiB", page_size="2 MiB")
    assert child.pool.in_use == used + 2
    large.close()
    low.close()
    assert child.pool.in_use == used - 3
    assert child.space.lookup(0) is None


def test_splitting_a_large_page_takes_one_table() -> None:
    guest = Guest(page_size="2 MiB")
    used = guest.partition.pool.in_use
    modify(guest, DATA >> 12, "r")
    assert guest.partition.pool.in_use == used + 1
    assert guest.partition.space.lookup(DATA) == (guest.ram.spa + DATA, 1, 12)
    assert guest.partition.space.lookup(DATA + 0x1000) == (guest.ram.spa + DATA + 0x1000, 7, 12)
    assert guest.partition.space.lookup(0)[2] == 21


@pytest.mark.parametrize("entry", [TABLES | 7, (1 << 40) | 7, 0x3FFF_FFFF_F000 | 7, RAM | 7, TABLES | LARGE | 7, ~0, 2])
@pytest.mark.parametrize("level", range(4))
def test_entries_that_lead_astray(guest: Guest, level: int, entry: int) -> None:
    """Tables that name themselves, the end of memory or nothing: an exit or a fault, never more."""
    entry &= (1 << 64) - 1
    guest.load(mov("rbx", DATA), WRITE_IT, READ_IT, RUN_IT)
    path = (TABLES, TABLES + 0x1000, TABLES + 0x2008, guest.entry(DATA))
    guest.write(path[level], q(entry))
    guest.vp.cr3 = TABLES
    exit_ = guest.vp.run(max_instructions=1000)
    assert type(exit_).__name__ in ("Halt", "Mmio", "GpaViolation", "TripleFault", "Budget")


def test_root_table_anywhere(guest: Guest) -> None:
    for root in (RAM, 0x3FFF_FFFF_F000, 0, CODE, STACK & ~0xFFF):
        guest.load(HLT)
        guest.vp.cr3 = root
        guest.vp.run(max_instructions=1000)
    with pytest.raises(ValueError, match="cr3"):
        guest.vp.cr3 = 1 << 50
    guest.load(mov("rax", 1 << 50), "0f22d8", HLT)  # mov cr3, rax
    guest.vp.run(max_instructions=100)
    assert guest.taken() == GP


def test_without_paging_gva_is_gpa(guest: Guest) -> None:
    guest.write(DATA, q(77))
    guest.load(mov("rbx", DATA), "488b03", HLT)
    guest.vp.cr0 = 0x31
    assert isinstance(guest.vp.run(max_instructions=10), Halt)
    assert guest.vp.rax == 77
    assert guest.vp.walk(DATA)[5:] == (0, 4)


def test_user_pages_do_not_leak_between_levels(guest: Guest) -> None:
    """A translation that CPL 0 has used is no way in for CPL 3: each has a TLB of its own."""
    guest.map(DATA, DATA, 3)
    guest.halted(mov("rbx", DATA), "8903", HLT)
    guest.write(CODE, code(mov("rbx", DATA), "8903", HLT))
    guest.vp.cs = Segment(0, 0xFFFFFFFF, 0x23, 0xA0FB)
    guest.vp.ss = Segment(0, 0xFFFFFFFF, 0x1B, 0xC0F3)
    guest.vp.rip, guest.vp.rsp = CODE, 0x480000
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert fault(guest) == (PF, 7, DATA)
