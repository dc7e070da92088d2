"""Result codes of HvCallTranslateVirtualAddress, and what its flags make of an access (TLFS 11; hyperv-abi 11.1)."""

from __future__ import annotations

import pytest
from support import ACCESSED, DIRTY, NX, TABLES, Guest, q
from test_walk import modify

DATA = 0x300000
READ, WRITE, EXECUTE, EXEMPT, MARKS, SUPERVISOR, USER, ENFORCE, OVERRIDE = 1, 2, 4, 8, 0x10, 0x40, 0x80, 0x100, 0x200
SMAP, SMEP, PKE, AC = 1 << 21, 1 << 20, 1 << 22, 0x40000
OK, NOT_PRESENT, PRIVILEGE, INVALID_FLAGS, UNMAPPED, NO_READ, NO_WRITE, OVERLAY = range(8)


@pytest.fixture
def guest() -> Guest:
    return Guest()


def result(guest: Guest, flags: int, gva: int = DATA) -> int:
    return guest.vp.translate_for_hypercall(gva, flags)[0]


def test_codes_of_the_guests_tables(guest: Guest) -> None:
    assert guest.vp.translate_for_hypercall(DATA, READ) == (OK, DATA, 6, False)
    assert result(guest, READ, 1 << 47) == NOT_PRESENT
    guest.map(DATA, DATA, 0)
    assert result(guest, READ) == NOT_PRESENT
    guest.map(DATA, DATA, 1)
    assert (result(guest, READ), result(guest, WRITE)) == (OK, PRIVILEGE)
    guest.map(DATA, DATA, 7 | NX)
    assert (result(guest, READ | WRITE), result(guest, READ | EXECUTE)) == (OK, PRIVILEGE)
    guest.map(DATA, DATA, 7 | 1 << 50)
    assert result(guest, READ) == INVALID_FLAGS


@pytest.mark.parametrize(
    ("rights", "flags", "code"),
    [
        (None, READ, UNMAPPED), (None, WRITE, UNMAPPED), ("r", READ, OK), ("r", WRITE, NO_WRITE),
        ("rw", READ | WRITE, OK), ("rw", EXECUTE, NO_READ), ("rx", EXECUTE, OK), ("rx", WRITE, NO_WRITE),
    ],
)  # fmt: skip
def test_codes_of_the_second_level(guest: Guest, rights: str | None, flags: int, code: int) -> None:
    modify(guest, DATA >> 12, rights)
    assert guest.vp.translate_for_hypercall(DATA, flags)[:2] == (code, DATA)


def test_the_page_that_fails_may_be_a_table(guest: Guest) -> None:
    table = TABLES + 0x11000
    modify(guest, table >> 12, None)
    assert guest.vp.translate_for_hypercall(DATA, WRITE)[:2] == (UNMAPPED, guest.entry(DATA))
    modify(guest, table >> 12, "r")
    assert result(guest, READ) == OK
    assert guest.vp.translate_for_hypercall(DATA, READ | MARKS)[:2] == (NO_WRITE, guest.entry(DATA))


def test_overlays(guest: Guest) -> None:
    guest.partition.space.set_overlay(1, 0, DATA >> 12, guest.partition.hypercall_frame, 5)
    assert guest.vp.translate_for_hypercall(DATA, READ) == (OK, DATA, 6, True)
    assert result(guest, WRITE) == OVERLAY


def test_who_looks(guest: Guest) -> None:
    """Supervisor, user, both, neither, or whoever the processor is."""
    guest.map(DATA, DATA, 3)
    assert [result(guest, READ | who) for who in (0, SUPERVISOR, USER, SUPERVISOR | USER, EXEMPT)] == [
        OK, OK, PRIVILEGE, PRIVILEGE, OK,
    ]  # fmt: skip
    guest.map(DATA, DATA, 7)
    guest.vp.cr4 |= SMAP | SMEP
    assert [result(guest, READ | who) for who in (0, SUPERVISOR, USER, SUPERVISOR | USER, EXEMPT)] == [
        PRIVILEGE, PRIVILEGE, OK, PRIVILEGE, OK,
    ]  # fmt: skip
    assert [result(guest, EXECUTE | who) for who in (SUPERVISOR, USER, EXEMPT)] == [PRIVILEGE, OK, OK]
    guest.enter(guest.vp, user=True)
    guest.map(DATA, DATA, 3)
    assert [result(guest, READ | who) for who in (0, SUPERVISOR)] == [PRIVILEGE, OK]


def test_smap_by_flag(guest: Guest) -> None:
    guest.vp.cr4 |= SMAP
    assert [result(guest, READ | flag) for flag in (0, ENFORCE, OVERRIDE)] == [PRIVILEGE, PRIVILEGE, OK]
    guest.vp.rflags |= AC
    assert [result(guest, READ | flag) for flag in (0, ENFORCE, OVERRIDE)] == [OK, PRIVILEGE, OK]
    guest.vp.cr4 &= ~SMAP
    assert result(guest, READ | ENFORCE) == OK


def test_keys(guest: Guest) -> None:
    guest.map(DATA, DATA, 7 | 9 << 59)
    guest.vp.cr4 |= PKE
    guest.vp.pkru = 1 << 18
    assert [result(guest, flags) for flags in (READ, READ | EXEMPT, EXECUTE)] == [PRIVILEGE, OK, OK]


def test_marks_are_set_on_request(guest: Guest) -> None:
    entry = guest.entry(DATA)
    guest.write(entry, q(DATA | 7))
    result(guest, READ | WRITE)
    assert guest.read(entry) == DATA | 7
    result(guest, READ | MARKS)
    assert guest.read(entry) == DATA | 7 | ACCESSED
    result(guest, WRITE | MARKS)
    assert guest.read(entry) == DATA | 7 | ACCESSED | DIRTY


def test_without_paging_all_is_well(guest: Guest) -> None:
    guest.vp.cr0 = 0x31
    assert guest.vp.translate_for_hypercall(1 << 40, READ | WRITE | EXECUTE)[:2] == (OK, 1 << 40)
