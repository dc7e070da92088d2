"""What a guest may and must see of cached translations: PCIDs, global pages, and every way to invalidate (SDM 3A 4.10).

Each scenario reads a page, changes its entry in memory, does something, and reads again: the old page or the new one.
New is demanded by the SDM where it says "invalidates". Old is what hvcore promises beyond it: nothing else is dropped.
"""

from __future__ import annotations

import pytest
from support import HLT, LARGE, TABLES, Guest, code, mov, q

from hvcore._native.exits import Budget, Halt

DATA, DESCRIPTOR, OTHER = 0x300000, 0x304000, 0x308000
GP, UD, PF = 13, 6, 14
PGE, PCIDE, SMEP, LAM_U57 = 0x80, 0x20000, 0x100000, 1 << 61
KEEP = 1 << 63
GLOBAL = 0x100
PCID = 5
OLD, NEW = 1, 2
MOV_CR3, MOV_CR4, MOV_CR0, INVLPG = "0f22d8", "0f22e0", "0f22c0", "0f013b"  # of rax; of [rbx]


def invpcid(kind: int, pcid: int, gva: int = 0) -> tuple[bytes, ...]:
    """Code that executes INVPCID RAX, [DESCRIPTOR] with this descriptor; its two words are stored first."""
    word = [mov("rax", value) + code("48a3") + q(DESCRIPTOR + 8 * i) for i, value in enumerate((pcid, gva))]
    return *word, mov("rax", kind), bytes.fromhex("660f38820425") + DESCRIPTOR.to_bytes(4, "little")


@pytest.fixture(scope="module")
def shared() -> Guest:
    return Guest()


@pytest.fixture
def guest(shared: Guest) -> Guest:
    shared._write_tables(True)
    shared.write(DATA, q(OLD))
    shared.write(DATA + 0x1000, q(NEW))
    return shared


def start(guest: Guest, *parts: str | bytes, cr4: int = PGE | PCIDE, pcid: int = PCID, user: bool = False) -> None:
    guest.load(*parts, user=user)
    guest.vp.cr4 = 0x620 | cr4
    guest.vp.cr3 = TABLES | pcid


def second_read(guest: Guest, flags: int, *between: str | bytes, cr4: int = PGE | PCIDE, pcid: int = PCID) -> int:
    """What the page reads as after its entry has been changed and `between` has run."""
    guest.map(DATA, DATA, 7 | flags)
    start(
        guest, mov("rbx", DATA), mov("rdi", guest.entry(DATA)), mov("rsi", DATA + 0x1000 | 7 | flags),
        "4c8b03 488937", *between, mov("rbx", DATA), "4c8b13", HLT,  # mov r8, [rbx]; mov [rdi], rsi; mov r10, [rbx]
        cr4=cr4, pcid=pcid,
    )  # fmt: skip
    exit_ = guest.vp.run(max_instructions=1000)
    assert isinstance(exit_, Halt) and guest.taken() is None, (exit_, guest.taken())
    assert guest.vp.r8 == OLD
    return guest.vp.r10


SAME, AGAIN = mov("rax", TABLES | PCID), mov("rax", TABLES | PCID | KEEP)
CR4 = 0x620 | PGE | PCIDE
WAYS = {  # what is done: (code, an ordinary page then reads as, a global one)
    "nothing": ((), OLD, OLD),
    "MOV CR3": ((SAME, MOV_CR3), NEW, OLD),
    "MOV CR3, keeping": ((AGAIN, MOV_CR3), OLD, OLD),
    "there and back, keeping": ((mov("rax", TABLES | 9 | KEEP), MOV_CR3, AGAIN, MOV_CR3), OLD, OLD),
    "there and back": ((mov("rax", TABLES | 9), MOV_CR3, AGAIN, MOV_CR3), OLD, OLD),
    "there, keeping, and back": ((mov("rax", TABLES | 9 | KEEP), MOV_CR3, SAME, MOV_CR3), NEW, OLD),
    "MOV CR3, other LAM": ((mov("rax", TABLES | PCID | KEEP | LAM_U57), MOV_CR3), NEW, NEW),
    "INVLPG": ((INVLPG,), NEW, NEW),
    "INVLPG of another page": ((mov("rbx", OTHER), INVLPG), OLD, OLD),
    "INVLPG under another PCID": ((mov("rax", TABLES | 9 | KEEP), MOV_CR3, INVLPG, AGAIN, MOV_CR3), NEW, NEW),
    "INVPCID of the address": (invpcid(0, PCID, DATA), NEW, OLD),
    "INVPCID of the address, another PCID": (invpcid(0, PCID + 1, DATA), OLD, OLD),
    "INVPCID of another address": (invpcid(0, PCID, OTHER), OLD, OLD),
    "INVPCID of the PCID": (invpcid(1, PCID), NEW, OLD),
    "INVPCID of another PCID": (invpcid(1, PCID + 1), OLD, OLD),
    "INVPCID of all": (invpcid(2, 0), NEW, NEW),
    "INVPCID of all but global": (invpcid(3, 0), NEW, OLD),
    "MOV CR4, PGE": ((mov("rax", CR4 ^ PGE), MOV_CR4), NEW, NEW),
    "MOV CR4, PGE twice": ((mov("rax", CR4 ^ PGE), MOV_CR4, mov("rax", CR4), MOV_CR4), NEW, NEW),
    "MOV CR4, PCIDE": ((mov("rax", TABLES), MOV_CR3, mov("rax", CR4 ^ PCIDE), MOV_CR4), NEW, NEW),
    "MOV CR4, the same": ((mov("rax", CR4), MOV_CR4), OLD, OLD),
    "MOV CR0, the same": ((mov("rax", 0x80010031), MOV_CR0), OLD, OLD),
    "MOV CR0, WP": ((mov("rax", 0x80000031), MOV_CR0), NEW, NEW),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_global", [False, True])
def test_invalidation(guest: Guest, way: str, is_global: bool) -> None:
    parts, ordinary, of_global = WAYS[way]
    assert second_read(guest, GLOBAL if is_global else 0, *parts) == (of_global if is_global else ordinary)


@pytest.mark.parametrize("is_global", [False, True])
def test_global_needs_pge(guest: Guest, is_global: bool) -> None:
    reload = "0f20d8 0f22d8"  # mov rax, cr3 / mov cr3, rax
    assert second_read(guest, GLOBAL * is_global, reload, cr4=0, pcid=0) == NEW
    assert second_read(guest, GLOBAL * is_global, reload, cr4=PGE, pcid=0) == (OLD if is_global else NEW)


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_invpcid_without_pcids(guest: Guest, kind: int) -> None:
    assert second_read(guest, 0, *invpcid(kind, 0, DATA), cr4=0, pcid=0) == NEW


def test_invlpg_drops_all_of_a_large_page() -> None:
    guest = Guest(small=False)
    old, new = 0x20_5000, 0x40_5000
    guest.write(old, q(OLD))
    guest.write(new, q(NEW))
    guest.load(
        mov("rbx", 0x20_0000), mov("rdi", TABLES + 0x2008), mov("rsi", 0x40_0000 | LARGE | 7),
        "4c8b8300500000 4c8b0b 488937", INVLPG, "4c8b9300500000", HLT,  # the same at +0x5000; INVLPG at +0
    )  # fmt: skip
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert (guest.vp.r8, guest.vp.r10) == (OLD, NEW)


def test_each_pcid_has_its_own_translations(guest: Guest) -> None:
    """More of them than TLBs are kept for, each with its own page at DATA; the kept ones need no walk."""
    pcids = range(1, 8)
    for number in pcids:
        tables = TABLES + 0x100000 + number * 0x4000
        guest.write(tables, q(tables + 0x1000 | 7))
        guest.write(tables + 0x1000, q(tables + 0x2000 | 7))
        guest.write(tables + 0x2000, q(*guest.words(TABLES + 0x2000, 512)))
        guest.write(tables + 0x2008, q(tables + 0x3000 | 7))
        guest.write(tables + 0x3000, q(*guest.words(TABLES + 0x11000, 512)))
        guest.write(tables + 0x3000 + (DATA >> 12 & 511) * 8, q(DATA + number * 0x1000 | 7))
        guest.write(DATA + number * 0x1000, q(number))
    visits = [1, 2, 1, 2, 3, 4, 1, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 7, 6, 5, 4]
    program = [mov("rbx", DATA), mov("rdi", OTHER)]
    for number in visits:
        program += [mov("rax", TABLES + 0x100000 + number * 0x4000 | number | KEEP), MOV_CR3,
                    "488b03 488907 4883c708"]  # mov rax, [rbx] / mov [rdi], rax / add rdi, 8  # fmt: skip
    start(guest, *program, HLT)
    assert isinstance(guest.vp.run(max_instructions=1000), Halt)
    assert list(guest.words(OTHER, len(visits))) == visits
    before = guest.vp.counters()["tlb_misses"]
    # One of the last four once more: it is still there.
    back = [mov("rbx", DATA), mov("rax", TABLES + 0x100000 + 5 * 0x4000 | 5 | KEEP), MOV_CR3, "488b03"]
    guest.write(0x1000, code(*back, HLT))
    guest.vp.rip = 0x1000
    assert isinstance(guest.vp.run(max_instructions=10), Halt)
    assert guest.vp.rax == 5
    assert guest.vp.counters()["tlb_misses"] == before


REFUSED = [
    invpcid(4, 0), invpcid(0xFFFF_FFFF, 0), invpcid(1 << 32, 0), invpcid(0, 1 << 12), invpcid(1, 1 << 63),
    invpcid(2, 1 << 12), invpcid(3, 1 << 12), invpcid(0, 0, 1 << 47), invpcid(0, 0, 1 << 63),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_invpcid_refuses(guest: Guest, number: int) -> None:
    start(guest, *REFUSED[number], HLT)
    guest.vp.run(max_instructions=100)
    assert guest.taken() == GP


@pytest.mark.parametrize(("kind", "vector"), [(0, GP), (1, GP), (2, None), (3, None)])
def test_invpcid_of_a_pcid_without_pcids(guest: Guest, kind: int, vector: int | None) -> None:
    start(guest, *invpcid(kind, 1), HLT, cr4=0, pcid=0)
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert guest.taken() == vector


def test_invpcid_of_an_address_accepts_any_in_other_types(guest: Guest) -> None:
    for kind in (1, 2, 3):
        start(guest, *invpcid(kind, 0, 1 << 47), HLT)
        assert isinstance(guest.vp.run(max_instructions=100), Halt)
        assert guest.taken() is None


@pytest.mark.parametrize("text", [b"".join(invpcid(2, 0)), "0f0138"])  # invpcid; invlpg [rax]
def test_only_the_kernel_invalidates(guest: Guest, text: bytes | str) -> None:
    start(guest, text, user=True)
    guest.vp.run(max_instructions=100)
    assert guest.taken() == GP


def test_invpcid_reads_its_descriptor(guest: Guest) -> None:
    guest.map(DESCRIPTOR, 0, 0)
    start(guest, mov("rax", 2), bytes.fromhex("660f38820425") + DESCRIPTOR.to_bytes(4, "little"))
    guest.vp.run(max_instructions=100)
    assert (guest.taken(), guest.vp.cr2) == (PF, DESCRIPTOR)
    start(guest, "660f3882c0", HLT)  # invpcid rax, rax: no such instruction
    guest.vp.run(max_instructions=100)
    assert guest.taken() == UD


MOVES = [  # what is written where, with these bits of CR4 and this PCID before: #GP or not (SDM 3A 2.5, 4.1.1, 4.10.1)
    (MOV_CR3, TABLES | KEEP, 0, 0, GP), (MOV_CR3, TABLES | KEEP, PCIDE, 0, None), (MOV_CR3, TABLES | 0xFFF, 0, 0, None),
    (MOV_CR3, TABLES | 1 << 46, 0, 0, GP), (MOV_CR3, TABLES | 1 << 52, 0, 0, GP), (MOV_CR3, TABLES | 1 << 60, 0, 0, GP),
    (MOV_CR3, TABLES | 3 << 61, 0, 0, None), (MOV_CR4, 0x620 | PCIDE, 0, 1, GP), (MOV_CR4, 0x620 | PCIDE, 0, 0x18, GP),
    (MOV_CR4, 0x620 | PCIDE, 0, 0, None), (MOV_CR4, 0x620 | PCIDE, PCIDE, 7, None), (MOV_CR4, 0x620, PCIDE, 7, None),
    (MOV_CR4, 0x620 | 0x1000, 0, 0, GP), (MOV_CR4, 0x620 | 1 << 14, 0, 0, GP), (MOV_CR4, 0x620 | 1 << 23, 0, 0, GP),
    (MOV_CR4, 0x620 | 1 << 32, 0, 0, GP), (MOV_CR4, 0x600, 0, 0, GP),
    (MOV_CR4, 0x620 | SMEP | 0x200000 | 0x400000 | 0x1000000 | 0x10000000, 0, 0, None),
]  # fmt: skip


@pytest.mark.parametrize(("move", "value", "cr4", "pcid", "vector"), MOVES)
def test_what_control_registers_take(
    guest: Guest, move: str, value: int, cr4: int, pcid: int, vector: int | None
) -> None:
    guest.write(TABLES + 0x10000, q(*(i << 12 | 3 for i in range(4096))))
    start(guest, mov("rax", value), move, "f4", cr4=cr4, pcid=pcid)
    before = guest.vp.cr3, guest.vp.cr4
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert guest.taken() == vector
    if vector:
        assert (guest.vp.cr3, guest.vp.cr4) == before
    else:
        assert (guest.vp.cr3 if move == MOV_CR3 else guest.vp.cr4) == value & ~KEEP


def test_a_slice_ends_in_any_context(guest: Guest) -> None:
    """A switch of address spaces between two runs: the processor goes on where it was."""
    start(guest, AGAIN, MOV_CR3, mov("rbx", DATA), "4c8b03", HLT)
    while isinstance(guest.vp.run(max_instructions=1), Budget):
        pass
    assert guest.vp.r8 == OLD
