"""The second level: rights, marks, mode-based execute, page sizes, what a refusal says, and tables that mean harm."""

from __future__ import annotations

import numpy as np
import pytest
from tables_by_hand import GVA, ROOT, TARGET, Machine

from hvcore._native.space import GpaSpace, PagePool, SystemMemory

READ, WRITE, EXECUTE, USER, USER_EXECUTE = 1, 2, 4, 8, 16
R, W, X = READ, READ | WRITE, EXECUTE
OK, NOT_PRESENT, RIGHTS, RESERVED, NOT_CANONICAL, TABLE, NESTED, BEYOND = range(8)
S_OK, S_UNMAPPED, S_RIGHTS, S_OVERLAY, S_MISCONFIGURED = range(5)
ACCESSED, DIRTY = 0x100, 0x200
MODE = "4-level"


def machine_with(levels: int = 4, rights: int = 7, **options: bool) -> Machine:
    """4-level tables of the guest over 4 KiB pages, its target with these rights."""
    machine = Machine(levels=levels, **options)
    for page in range(ROOT, ROOT + 0x8000, 0x1000):
        machine.map(page, rights=7 | USER_EXECUTE)
    if rights:
        machine.map(TARGET, rights=rights)
    machine.build(MODE, 12)
    machine.enter(MODE)
    return machine


def second_path(machine: Machine, gpa: int, levels: int = 4) -> list[int]:
    """Where the second level's entries for a GPA lie."""
    table, places = machine.root << 12, []
    for level in range(levels, 0, -1):
        places.append(table + (gpa >> 3 + 9 * level & 511) * 8)
        table = machine.get(places[-1]) & 0xF_FFFF_FFFF_F000
    return places


def marks(machine: Machine, gpa: int) -> list[int]:
    return [machine.get(place) & (ACCESSED | DIRTY) for place in second_path(machine, gpa)]


@pytest.mark.parametrize("levels", [3, 4, 5])
@pytest.mark.parametrize("rights", [0, 1, 3, 4, 5, 7])
@pytest.mark.parametrize("access", [R, W, X, W | USER, X | USER])
def test_rights_of_the_target(levels: int, rights: int, access: int) -> None:
    machine = machine_with(levels, rights)
    found = machine.vp.probe(GVA[MODE], access)
    needs = access & 7
    if rights & needs == needs:
        assert (found.status, found.spa) == (OK, TARGET | GVA[MODE] & 0xFFF)
        return
    assert (found.status, found.nested_status) == (NESTED, S_RIGHTS if rights else S_UNMAPPED)
    assert found.address == TARGET | GVA[MODE] & 0xFFF
    fetch = USER_EXECUTE if access & X else 0  # all pages of the guest's tables are user pages
    assert found.nested_access == (fetch or needs)
    assert found.nested_rights & 7 == rights
    assert found.error_code == 0


@pytest.mark.parametrize("rights", [1, 1 | EXECUTE, 1 | USER_EXECUTE, 1 | EXECUTE | USER_EXECUTE])
@pytest.mark.parametrize("user_page", [False, True])
def test_mode_based_execute(rights: int, user_page: bool) -> None:
    """Fetches need the right that belongs to the mode of the address, whoever fetches (SDM 3C 29.3.3.2)."""
    machine = machine_with(rights=rights, mode_based_execute=True)
    machine.build(MODE, 12, flags=7 if user_page else 3)
    found = machine.vp.probe(GVA[MODE], X)
    needed = USER_EXECUTE if user_page else EXECUTE
    assert found.nested_access == needed
    assert (found.status, found.nested_status) == ((OK, S_OK) if rights & needed else (NESTED, S_RIGHTS))


def test_without_paging_all_addresses_are_user_mode_addresses() -> None:
    machine = machine_with(rights=1 | EXECUTE, mode_based_execute=True)
    machine.enter("none")
    assert machine.vp.probe(TARGET, X).nested_status == S_RIGHTS


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize(("rights", "status"), [(0, S_UNMAPPED), (4, S_RIGHTS)])
def test_a_table_that_cannot_be_read(number: int, rights: int, status: int) -> None:
    machine = machine_with()
    page = ROOT + number * 0x1000
    machine.space.unmap(page >> 12, 1)
    if rights:
        machine.map(page, rights=rights)
    found = machine.vp.probe(GVA[MODE], W)
    assert (found.status, found.nested_status, found.nested_access) == (TABLE, status, READ)
    assert (found.address & ~0xFFF, found.references) == (page, number)
    assert found.nested_rights & 7 == rights
    assert found.nested_references == 4 * number + 4


@pytest.mark.parametrize("access", [R, W])
def test_marks_of_a_data_access(access: int) -> None:
    machine = machine_with(marks=True)
    machine.vp.probe(GVA[MODE], access)
    assert marks(machine, TARGET) == [0] * 4
    machine.vp.probe(GVA[MODE], access, set_marks=True)
    # The paths to the tables share the upper entries.
    assert marks(machine, TARGET)[:3] == [ACCESSED] * 3
    assert marks(machine, TARGET)[3] == ACCESSED | (DIRTY if access & WRITE else 0)


def test_reading_a_table_counts_as_a_write_with_marks() -> None:
    """SDM 3C 29.3.5: dirty is set for every table of the guest, and a table that must not be written is refused."""
    machine = machine_with(marks=True)
    machine.vp.probe(GVA[MODE], R, set_marks=True)
    for page in range(ROOT, ROOT + 0x4000, 0x1000):
        assert marks(machine, page)[3] == ACCESSED | DIRTY
    machine.map(ROOT + 0x2000, rights=1)
    found = machine.vp.probe(GVA[MODE], R)
    assert (found.status, found.nested_status, found.nested_access) == (TABLE, S_RIGHTS, READ | WRITE)
    unmarked = machine_with()
    unmarked.map(ROOT + 0x2000, rights=1)
    assert unmarked.vp.probe(GVA[MODE], R).status == OK


def test_nothing_is_marked_by_a_refused_access() -> None:
    machine = machine_with(marks=True, rights=1)
    machine.vp.probe(GVA[MODE], W, set_marks=True)
    assert marks(machine, TARGET)[3] == 0


def test_guest_marks_need_a_writable_table() -> None:
    machine = machine_with()
    machine.map(ROOT + 0x3000, rights=1)
    assert machine.vp.probe(GVA[MODE], R).status == OK
    found = machine.vp.probe(GVA[MODE], R, set_marks=True)
    assert (found.status, found.nested_status, found.nested_access) == (TABLE, S_RIGHTS, READ | WRITE)
    assert (found.address & ~0xFFF, found.references, found.nested_references) == (ROOT + 0x3000, 4, 16 + 0)
    machine.build(MODE, 12, flags=7 | 0x20)
    assert machine.vp.probe(GVA[MODE], R, set_marks=True).status == OK


WRONG = [(0, 0x2), (0, 0x6), (3, 0x2), (3, 0x7 | 2 << 3), (3, 0x7 | 3 << 3), (3, 0x7 | 7 << 3), (0, 0x7 | 0x80),
         (1, 0x7 | 0x8), (2, 0x7 | 0x40), (1, 0x7 | 0x80 | 0x1000), (2, 0x7 | 0x80 | 0x2000)]  # fmt: skip


@pytest.mark.parametrize(("number", "entry"), WRONG)
def test_misconfigured_entries(number: int, entry: int) -> None:
    """Writable but not readable, memory types that do not exist, reserved bits (SDM 3C 29.3.3.1)."""
    machine = machine_with()
    place = second_path(machine, TARGET)[number]
    address = machine.get(place) & 0xF_FFFF_FFFF_F000 if not entry & 0x80 else 0
    machine.enter("none")
    machine.put(place, entry | address)
    found = machine.vp.probe(TARGET)
    assert (found.status, found.nested_status) == (NESTED, S_MISCONFIGURED)
    machine.put(place, 0)
    assert machine.vp.probe(TARGET).nested_status == S_UNMAPPED


def test_the_end_of_the_space() -> None:
    machine = machine_with()
    machine.enter("none")
    for gpa in (1 << 39, 1 << 46, (1 << 64) - 1):
        assert machine.vp.probe(gpa).nested_status == S_UNMAPPED
        assert machine.vp.probe(gpa).nested_references == 0


def test_overlays_hide_what_is_mapped() -> None:
    machine = machine_with()
    machine.space.set_overlay(1, 0, TARGET >> 12, 0x123, READ | EXECUTE)
    found = machine.vp.probe(GVA[MODE], R)
    assert (found.spa, found.overlay, found.nested_references) == (0x123000 | GVA[MODE] & 0xFFF, True, 16)
    assert machine.vp.probe(GVA[MODE], X).status == OK
    found = machine.vp.probe(GVA[MODE], W)
    assert (found.status, found.nested_status, found.address & ~0xFFF) == (NESTED, S_OVERLAY, TARGET)
    machine.space.clear_overlay(1, 0)
    assert machine.vp.probe(GVA[MODE], W).spa & ~0xFFF == TARGET


@pytest.mark.parametrize("levels", [3, 4, 5])
@pytest.mark.parametrize("shift", [12, 21, 30])
def test_pages_of_three_sizes(levels: int, shift: int) -> None:
    memory = SystemMemory(2 << 30, 1 << 20)
    space = GpaSpace(memory, memory.reserve_pool, gpa_bits=39, levels=levels)
    assert space.create()
    size = {"large": shift == 21, "huge": shift == 30}
    empty = memory.reserve_pool.in_use
    gpn, spn = 3 << 18, 1 << 18
    assert space.map(gpn, np.array([spn], np.uint64), rights=7, **size) == 1
    assert memory.reserve_pool.in_use == empty + levels - 1 - (shift - 12) // 9
    offset = (1 << shift) - 8
    assert space.lookup((gpn << 12) + offset) == ((spn << 12) + offset, 7, shift)
    assert space.lookup((gpn << 12) + (1 << shift)) is None
    assert space.protect(gpn, 1, rights=1, **size) == 1
    assert space.lookup(gpn << 12) == (spn << 12, 1, shift)
    # One page of it goes: what is left keeps its rights, in smaller pages.
    assert space.unmap(gpn, 1) == 1
    assert space.lookup(gpn << 12) is None
    if shift > 12:
        assert space.lookup((gpn << 12) + offset) == ((spn << 12) + offset, 1, shift - 9)
        assert space.lookup((gpn << 12) + 0x1000) == ((spn << 12) + 0x1000, 1, 12)
    assert space.protect(gpn, 1, rights=5, **size) == 1
    assert shift == 12 or space.lookup((gpn << 12) + 0x1000) == ((spn << 12) + 0x1000, 5, 12)
    assert space.unmap(gpn, 1, **size) == 1
    assert memory.reserve_pool.in_use == empty


def test_options_are_checked() -> None:
    memory = SystemMemory(1 << 20, 1 << 20)
    pool = PagePool(memory)
    with pytest.raises(ValueError, match="levels must be 3, 4 or 5, not 2"):
        GpaSpace(memory, pool, levels=2)
    with pytest.raises(ValueError, match="gpa_bits must be 32 to 39 with 3 levels, not 40"):
        GpaSpace(memory, pool, levels=3, gpa_bits=40)
    space = GpaSpace(memory, memory.reserve_pool)
    space.create()
    with pytest.raises(ValueError, match="multiple of 262144"):
        space.map(512, np.array([0], np.uint64), rights=7, huge=True)


HOSTILE = {
    "all ones": lambda page: b"\xff" * 4096,
    "themselves": lambda page: ((page << 12) | 7).to_bytes(8, "little") * 512,
    "large, themselves": lambda page: ((page << 12) | 0x87).to_bytes(8, "little") * 512,
    "the end of memory": lambda page: (0x3FF_F000 | 7).to_bytes(8, "little") * 512,
    "beyond memory": lambda page: (0x7_FFFF_FFFF_F007).to_bytes(8, "little") * 512,
    "just beyond memory": lambda page: (64 << 20 | 7).to_bytes(8, "little") * 512,
}


@pytest.mark.parametrize("contents", HOSTILE)
@pytest.mark.parametrize("victim", ["guest", "second level", "both"])
@pytest.mark.parametrize("mode", ["32-bit", "pae", "4-level", "5-level"])
def test_hostile_tables(contents: str, victim: str, mode: str) -> None:
    """Whatever tables hold: no walk reads outside of memory (the sanitizer build looks), and each one ends."""
    machine = Machine(levels=5 if mode == "5-level" else 4)
    for page in range(0, 32 << 20, 1 << 21):
        machine.map(page, 21)
    if victim != "second level":
        for page in range(ROOT >> 12, (ROOT >> 12) + 8):
            machine.memory.write(page << 12, HOSTILE[contents](page))
    machine.enter(mode)
    if victim != "guest":
        for page in range(machine.root - 255, machine.root + 1):
            machine.memory.write(page << 12, HOSTILE[contents](page))
    for gva in (0, 0x1000, 0xFFFF_F000, GVA[mode], (1 << 64) - 8):
        for access in (R, W, X):
            for set_marks in (False, True):
                found = machine.vp.probe(gva, access, set_marks=set_marks)
                assert found.references <= 5 and found.nested_references <= 30
                assert found.status != OK or found.spa < machine.memory.size + machine.memory.reserve
