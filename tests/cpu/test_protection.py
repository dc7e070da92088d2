"""SMEP, SMAP, protection keys, LAM and 57-bit addresses as guest code meets them (SDM 3A 4.5-4.7)."""

from __future__ import annotations

import pytest
from support import CODE, FLAT, GDT, HLT, IDT, STACK, TABLES, TSS, USER, Guest, code, mov, q

from hvcore._native.engine import Segment
from hvcore._native.exits import Halt, TripleFault

DATA, TEXT = 0x300000, 0x310000
UD, GP, PF = 6, 13, 14
LA57, SMEP, SMAP, PKE, PKS, LAM_SUP = 0x1000, 1 << 20, 1 << 21, 1 << 22, 1 << 24, 1 << 28
AC, LAM_U57, LAM_U48 = 0x40000, 1 << 61, 1 << 62
STAC, CLAC, RDPKRU, WRPKRU, RDMSR, WRMSR = "0f01cb", "0f01ca", "0f01ee", "0f01ef", "0f32", "0f30"
LOAD, STORE, CALL = "8b03", "8903", "ffd3"  # mov eax, [rbx] / mov [rbx], eax / call rbx
IA32_PKRS = 0x6E1


@pytest.fixture(scope="module")
def shared() -> Guest:
    return Guest()


@pytest.fixture
def guest(shared: Guest) -> Guest:
    """All pages are the supervisor's but DATA, TEXT and the second half of the RAM."""
    shared._write_tables(True)
    shared.write(TABLES + 0x10000, q(*(i << 12 | 3 for i in range(4096))))
    shared.map(DATA, DATA, 7)
    shared.map(TEXT, TEXT, 7)
    shared.write(TEXT, code("c3"))
    return shared


def run(guest: Guest, *parts: str | bytes, cr4: int = 0, user: bool = False, **registers: int) -> int | None:
    """Run code to its HLT or the stub of a vector: that vector."""
    if user:
        for page in (CODE, 0x47F000):
            guest.map(page, page, 7)
    guest.load(*parts, HLT, user=user)
    guest.vp.cr4 = 0x620 | cr4
    for name, value in registers.items():
        setattr(guest.vp, name, value)
    exit_ = guest.vp.run(max_instructions=1000)
    assert isinstance(exit_, Halt), exit_
    return guest.taken()


def page_fault(guest: Guest) -> tuple[int, int]:
    return guest.words(guest.vp.rsp, 1)[0], guest.vp.cr2


@pytest.mark.parametrize(("cr4", "vector"), [(0, None), (SMEP, PF), (SMAP, None)])
def test_the_kernel_runs_user_code(guest: Guest, cr4: int, vector: int | None) -> None:
    assert run(guest, mov("rbx", TEXT), CALL, cr4=cr4) == vector
    assert vector is None or page_fault(guest) == (0x11, TEXT)


def test_smep_takes_effect_at_once(guest: Guest) -> None:
    """Code that has run, and whose translation is known, does not run again."""
    assert run(guest, mov("rbx", TEXT), CALL, mov("rax", 0x620 | SMEP), "0f22e0", CALL) == PF


@pytest.mark.parametrize("access", [LOAD, STORE])
@pytest.mark.parametrize(("before", "granted"), [("", False), (STAC, True), (STAC + CLAC, False)])
@pytest.mark.parametrize("smap", [False, True])
def test_smap(guest: Guest, access: str, before: str, granted: bool, smap: bool) -> None:
    vector = run(guest, mov("rbx", DATA), before, access, cr4=SMAP if smap else 0)
    assert vector == (PF if smap and not granted else None)
    assert vector is None or page_fault(guest) == (3 if access == STORE else 1, DATA)


def test_ac_is_looked_at_for_every_access(guest: Guest) -> None:
    """A page that was reached under STAC is out of reach after CLAC, whatever is cached of it, and the other way."""
    parts = [mov("rbx", DATA), STAC, LOAD, STORE, CLAC, LOAD]
    assert run(guest, *parts, cr4=SMAP) == PF
    assert guest.frame(error_code=True)[1] == CODE + len(code(*parts)) - 2
    popf_ac = [mov("rax", AC | 2), "50 9d"]  # push rax / popfq
    assert run(guest, mov("rbx", DATA), *popf_ac, LOAD, cr4=SMAP) is None
    assert run(guest, mov("rbx", DATA), *popf_ac, LOAD, "6a02 9d", LOAD, cr4=SMAP) == PF  # push 2 / popfq


def test_iret_takes_ac_along(guest: Guest) -> None:
    frame = ["6a10", mov("rax", STACK), "50", mov("rax", AC | 2), "50", "6a08"]  # ss, rsp, rflags, cs
    to_load = ["488d0503000000 50 48cf"]  # lea rax, [rip + 3] / push rax / iretq
    assert run(guest, mov("rbx", DATA), *frame, *to_load, LOAD, cr4=SMAP) is None
    assert guest.vp.rflags & AC


def test_supervisor_pages_are_no_affair_of_smap(guest: Guest) -> None:
    assert run(guest, mov("rbx", 0x302000), LOAD, STORE, cr4=SMAP) is None


def test_user_accesses_are_no_affair_of_smap(guest: Guest) -> None:
    assert run(guest, mov("rbx", DATA), STORE, LOAD, cr4=SMAP | SMEP, user=True) == GP  # of the HLT


def test_descriptors_are_read_without_ac(guest: Guest) -> None:
    """The GDT on a user page: an implicit access, for which EFLAGS.AC is no excuse."""
    guest.map(GDT, GDT, 7)
    parts = [STAC, "b810000000 8ed8"]  # mov eax, 0x10 / mov ds, eax
    assert run(guest, *parts, cr4=0) is None
    # The #PF goes through the IDT to a code segment of the same GDT, so it cannot be delivered.
    guest.load(*parts, HLT)
    guest.vp.cr4 = 0x620 | SMAP
    assert isinstance(guest.vp.run(max_instructions=100), TripleFault)


@pytest.mark.parametrize("page", [IDT, TSS])
def test_gates_and_task_state_are_read_without_ac(guest: Guest, page: int) -> None:
    guest.map(page, page, USER | 3)
    guest.write(IDT + 3 * 16 + 4, bytes([1 if page == TSS else 0]))  # INT3 by IST 1
    guest.load(STAC, "cc")
    guest.vp.cr4 = 0x620 | SMAP
    exit_ = guest.vp.run(max_instructions=100)
    if page == IDT:
        assert isinstance(exit_, TripleFault)
    else:
        assert guest.taken() == PF and page_fault(guest) == (1, TSS + 0x24)
    guest.write(IDT + 3 * 16 + 4, bytes(1))


def test_the_stack_of_a_handler_is_an_explicit_access(guest: Guest) -> None:
    """Pushed with EFLAGS.AC as it was: a stack on a user page takes a frame under AC, and no other (SDM 3A 4.6.1)."""
    guest.map(0x47F000, 0x47F000, 7)
    assert run(guest, STAC, mov("rsp", 0x480000), "cc", cr4=SMAP) == 3
    guest.load(mov("rsp", 0x480000), "cc")
    guest.vp.cr4 = 0x620 | SMAP
    assert isinstance(guest.vp.run(max_instructions=100), TripleFault)


@pytest.mark.parametrize("text", [STAC, CLAC])
def test_only_the_kernel_changes_ac(guest: Guest, text: str) -> None:
    assert run(guest, text, user=True) == UD
    assert run(guest, text) is None
    assert bool(guest.vp.rflags & AC) == (text == STAC)


def wrpkru(value: int) -> bytes:
    return code(mov("rax", value), "31c9 31d2", WRPKRU)  # xor ecx, ecx / xor edx, edx


@pytest.mark.parametrize("user", [False, True])
def test_keys_of_user_pages(guest: Guest, user: bool) -> None:
    guest.map(DATA, DATA, 7 | 3 << 59)
    mode = 4 if user else 0
    rbx, done = mov("rbx", DATA), GP if user else None
    assert run(guest, rbx, wrpkru(1 << 6), LOAD, cr4=PKE, user=user) == PF
    assert page_fault(guest) == (0x21 | mode, DATA)
    assert run(guest, rbx, LOAD, STORE, wrpkru(2 << 6), LOAD, STORE, cr4=PKE, user=user) == PF
    assert page_fault(guest) == (0x23 | mode, DATA)
    assert run(guest, rbx, wrpkru(3 << 6), wrpkru(~(3 << 6) & FLAT), LOAD, STORE, cr4=PKE, user=user) == done
    assert run(guest, rbx, LOAD, cr4=0, user=user, pkru=FLAT) == done
    guest.vp.pkru = 0


def test_keys_do_not_stop_fetches(guest: Guest) -> None:
    guest.map(TEXT, TEXT, 7 | 3 << 59)
    assert run(guest, mov("rbx", TEXT), wrpkru(3 << 6), CALL, cr4=PKE) is None


def test_pkru_is_read_back(guest: Guest) -> None:
    assert run(guest, wrpkru(0x1234_5678), mov("rdx", 7), RDPKRU, cr4=PKE) is None
    assert (guest.vp.rax, guest.vp.rdx, guest.vp.pkru) == (0x1234_5678, 0, 0x1234_5678)
    assert run(guest, "31c9", RDPKRU, user=True, cr4=PKE, pkru=0x1234_5678) == GP  # of the HLT
    assert guest.vp.rax == 0x1234_5678
    guest.vp.pkru = 0


@pytest.mark.parametrize(
    ("parts", "cr4", "vector"),
    [
        (("31c9", RDPKRU), 0, UD), ((wrpkru(0),), 0, UD), (("b901000000", RDPKRU), PKE, GP),
        (("31c0 31d2 b901000000", WRPKRU), PKE, GP), (("31c0 31c9 ba01000000", WRPKRU), PKE, GP),
    ],
)  # fmt: skip
def test_pkru_instructions_refuse(guest: Guest, parts: tuple[str, ...], cr4: int, vector: int) -> None:
    assert run(guest, *parts, cr4=cr4) == vector


def wrpkrs(low: int, high: int = 0) -> bytes:
    return code(mov("rcx", IA32_PKRS), mov("rax", low), mov("rdx", high), WRMSR)


def test_keys_of_supervisor_pages(guest: Guest) -> None:
    guest.map(0x302000, 0x302000, 3 | 5 << 59)
    rbx = mov("rbx", 0x302000)
    assert run(guest, rbx, LOAD, STORE, wrpkrs(1 << 10), LOAD, cr4=PKS) == PF
    assert page_fault(guest) == (0x21, 0x302000)
    assert run(guest, rbx, wrpkrs(2 << 10), LOAD, STORE, cr4=PKS) == PF
    assert page_fault(guest) == (0x23, 0x302000)
    assert run(guest, rbx, wrpkrs(3 << 10), LOAD, STORE, cr4=PKE) is None
    assert run(guest, wrpkrs(0x55AA), mov("rcx", IA32_PKRS), RDMSR) is None
    assert (guest.vp.rax, guest.vp.rdx) == (0x55AA, 0)
    assert run(guest, wrpkrs(0, 1)) == GP
    guest.vp.pkrs = 0


def test_pointers_with_metadata(guest: Guest) -> None:
    """One page under four names, stores seen by all; a fault reports the address without the metadata."""
    names = [DATA | tag << 48 for tag in (0, 0x1234, 0x7FFF, 0x4000)]
    program = []
    for i, name in enumerate(names):
        program += [mov("rbx", name), mov("rax", 0x100 + i), "48894308", "488b4b08"]  # mov [rbx+8], rax / mov rcx
    assert run(guest, *program, mov("rbx", DATA), "488b5308", cr3=TABLES | LAM_U48) is None
    assert (guest.vp.rcx, guest.vp.rdx) == (0x103, 0x103)
    # Over a page end, and where nothing is mapped.
    assert run(guest, mov("rbx", names[1] + 0xFFC), "48895300 488b03", cr3=TABLES | LAM_U48) is None
    assert run(guest, mov("rbx", 0x1234_0000_7000_0000), LOAD, cr3=TABLES | LAM_U48) == PF
    assert page_fault(guest) == (0, 0x7000_0000)
    assert run(guest, mov("rbx", names[1]), LOAD, cr3=TABLES | LAM_U57) == GP
    assert run(guest, mov("rbx", names[1]), LOAD) == GP
    assert run(guest, mov("rbx", TEXT | 1 << 60), CALL, cr3=TABLES | LAM_U48) == GP  # no metadata for fetches


def test_invalidation_under_metadata(guest: Guest) -> None:
    """INVLPG of the plain address drops what was cached under the pointer with metadata."""
    guest.write(DATA, q(1))
    guest.write(DATA + 0x1000, q(2))
    tagged = [mov("rbx", DATA | 0x55 << 48), "4c8b03", mov("rdi", guest.entry(DATA)), mov("rsi", DATA + 0x1000 | 7),
              "488937", mov("rbx", DATA), "0f013b", mov("rbx", DATA | 0x55 << 48), "4c8b0b"]  # fmt: skip
    assert run(guest, *tagged, cr3=TABLES | LAM_U48) is None
    assert (guest.vp.r8, guest.vp.r9) == (1, 2)


FAR = 1 << 48  # the first address that 48 bits cannot hold, seen from below
TOP = TABLES + 0x90000


@pytest.fixture
def far(guest: Guest) -> Guest:
    """Five levels; what lies at 0 lies at FAR too, and at the top of the address space."""
    guest.write(TOP, bytes(4096))
    for index in (0, 1, 511):
        guest.write(TOP + 8 * index, q(TABLES | 3))
    return guest


def run_far(guest: Guest, *parts: str | bytes, rip: int = CODE) -> int | None:
    guest.load(*parts, HLT)
    guest.vp.cr4, guest.vp.cr3, guest.vp.rip = 0x620 | LA57, TOP, rip
    assert isinstance(guest.vp.run(max_instructions=1000), Halt)
    return guest.taken()


def test_far_addresses(far: Guest) -> None:
    """Data, stack, jumps, calls and returns beyond 48 bits."""
    far.write(DATA, q(0x77))
    assert run_far(far, mov("rbx", FAR + DATA), "488b03") is None
    assert far.vp.rax == 0x77
    far.write(0x312000, code("ffd0 f4"))  # call rax / hlt
    far.write(0x313000, code("488b1c24 c3"))  # mov rbx, [rsp] / ret
    parts = [mov("rsp", FAR + STACK), mov("rax", FAR + 0x313000), mov("rbx", FAR + 0x312000), "ffe3"]
    assert run_far(far, *parts) is None
    assert (far.vp.rip, far.vp.rbx, far.vp.rsp) == (FAR + 0x312003, FAR + 0x312002, FAR + STACK)
    parts = [mov("rax", FAR + 0x312002), "50 c3"]  # push rax / ret
    assert run_far(far, *parts) is None and far.vp.rip == FAR + 0x312003
    assert run_far(far, mov("rbx", (1 << 64) - (1 << 48) + DATA), "488b03") is None
    assert run_far(far, mov("rbx", FAR + TEXT), CALL, rip=CODE) is None


@pytest.mark.parametrize("address", [1 << 56, (1 << 57) - 1, 1 << 60, 1 << 63, (1 << 64) - (1 << 56) - 8])
def test_not_canonical_in_57_bits(far: Guest, address: int) -> None:
    assert run_far(far, mov("rbx", address), "488b03") == GP
    assert run_far(far, mov("rbx", address), CALL) == GP
    assert run_far(far, mov("rax", address), "50 c3") == GP


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("msr", [0xC0000082, 0xC0000100, 0xC0000101, 0xC0000102, 0x175, 0x176])
def test_addresses_in_registers(far: Guest, levels: int, msr: int) -> None:
    """LSTAR, FS, GS, KERNEL_GS, SYSENTER: as wide as linear addresses are."""
    for address, wide in ((FAR, True), (1 << 55, True), (1 << 56, False), (1 << 47, True), (1 << 46, None)):
        parts = [mov("rcx", msr), mov("rax", address & FLAT), mov("rdx", address >> 32), WRMSR]
        vector = run_far(far, *parts) if levels == 5 else run(far, *parts)
        good = wide is None or (wide and levels == 5)
        assert vector == (None if good else GP), hex(address)


def test_lgdt_and_returns_beyond_48_bits(far: Guest) -> None:
    far.write(DATA, b"\x37\x00" + q(FAR + GDT))
    assert run_far(far, mov("rbx", DATA), "0f0113", "b810000000 8ed8") is None  # lgdt [rbx] / mov ds
    frame = ["6a10", mov("rax", STACK), "50", "6a02 6a08", mov("rax", FAR + 0x312002), "50 48cf"]
    far.write(0x312002, HLT)
    assert run_far(far, *frame) is None and far.vp.rip == FAR + 0x312003
    with pytest.raises(ValueError, match="rip"):
        far.vp.rip = 1 << 56
    far.vp.rip = FAR


@pytest.mark.parametrize(
    ("leaf", "subleaf", "register", "bits"),
    [
        (1, 0, "rcx", 1 << 17), (7, 0, "rbx", 1 << 7 | 1 << 10 | 1 << 20), (7, 0, "rcx", 1 << 3 | 1 << 16 | 1 << 31),
        (7, 1, "rax", 1 << 26), (1, 0, "rdx", 1 << 17 | 1 << 13 | 1 << 6 | 1 << 3), (0x80000001, 0, "rdx", 1 << 26),
    ],
)  # fmt: skip
def test_cpuid_tells(guest: Guest, leaf: int, subleaf: int, register: str, bits: int) -> None:
    assert run(guest, mov("rax", leaf), mov("rcx", subleaf), "0fa2") is None
    assert getattr(guest.vp, register) & bits == bits
    if leaf == 7 and register == "rcx":
        assert not guest.vp.rcx & 1 << 4
        run(guest, mov("rax", 7), mov("rcx", 0), "0fa2", cr4=PKE)
        assert guest.vp.rcx & 1 << 4


def test_physical_width_is_the_partitions(guest: Guest) -> None:
    guest.partition.core.physical_bits = 40
    assert run(guest, mov("rax", 0x80000008), "0fa2") is None
    assert guest.vp.rax & 0xFFFF == 57 << 8 | 40
    guest.map(DATA, DATA, 7 | 1 << 40)
    assert run(guest, mov("rbx", DATA), LOAD) == PF
    assert page_fault(guest) == (9, DATA)
    assert run(guest, mov("rax", TABLES | 1 << 40), "0f22d8") == GP
    with pytest.raises(ValueError, match="physical_bits must be 32 to 52, not 53"):
        guest.partition.core.physical_bits = 53
    guest.partition.core.physical_bits = 46


def test_far_calls_push_with_the_callers_rights(guest: Guest) -> None:
    """At CPL 3 onto a stack of the supervisor's: U/S applies, though descriptors are read as the supervisor."""
    guest.write(DATA, q(0)[:4] + code("2300"))
    guest.map(CODE, CODE, 7)
    guest.load(mov("rbx", DATA), mov("rsp", 0x302800), "ff1b", user=True)  # call far [rbx]
    guest.vp.cs = Segment(0, FLAT, 0x23, 0xA0FB)
    assert isinstance(guest.vp.run(max_instructions=100), Halt)
    assert guest.taken() == PF
    assert page_fault(guest)[0] == 7
