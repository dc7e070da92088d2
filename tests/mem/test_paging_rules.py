"""A test for each rule of paging: rights and error codes, reserved bits, canonical addresses, LAM (SDM 3A 4.3-4.7)."""

from __future__ import annotations

import pytest
from tables_by_hand import GVA, TARGET, Machine

READ, WRITE, EXECUTE, USER, IMPLICIT, ALIGNMENT = 1, 2, 4, 8, 32, 64
R, W, X = READ, READ | WRITE, EXECUTE
OK, NOT_PRESENT, RIGHTS, RESERVED, NOT_CANONICAL, TABLE, NESTED, BEYOND = range(8)
NX, NXE, WP = 1 << 63, 0x800, 0x10000
SMEP, SMAP, PKE, PKS, LAM_SUP = 1 << 20, 1 << 21, 1 << 22, 1 << 24, 1 << 28
LAM_U57, LAM_U48 = 1 << 61, 1 << 62
MODES = ["32-bit", "pae", "4-level", "5-level"]
LONG = MODES[2:]


@pytest.fixture(scope="module")
def machine() -> Machine:
    machine = Machine()
    for page in range(0, 32 << 20, 1 << 21):
        machine.map(page, 21)
    return machine


def probe(machine: Machine, mode: str, leaf: int, access: int, **registers: int) -> tuple[int, int]:
    """(status, error code) of an access to a page with these bits in its entry."""
    machine.build(mode, 12, flags=leaf)
    machine.enter(mode, **registers)
    found = machine.vp.probe(GVA[mode], access)
    return found.status, found.error_code


NO_RIGHT = [  # leaf, access, registers, error code (SDM 3A 4.7)
    (0, R, {}, 0), (0, W, {}, 2), (0, R | USER, {}, 4), (0, W | USER, {}, 6),
    (1, W, {}, 3), (1, W | USER, {}, 7), (3, R | USER, {}, 5), (3, W | USER, {}, 7), (5, W | USER, {}, 7),
    (5, W, {}, 3), (7, X, {"cr4": SMEP}, 0x11), (7, R, {"cr4": SMAP}, 1), (7, W, {"cr4": SMAP}, 3),
    (7, R | IMPLICIT, {"cr4": SMAP}, 1), (7, R | IMPLICIT | ALIGNMENT, {"cr4": SMAP}, 1),
    (7, W | IMPLICIT | ALIGNMENT, {"cr4": SMAP}, 3),
    (5, W | ALIGNMENT, {"cr4": SMAP}, 3), (3, X | USER, {"cr4": SMEP}, 0x15),
    (0, X, {"cr4": SMEP, "efer": 0}, 0x10), (0, X, {"efer": 0}, 0),
]  # fmt: skip
ALLOWED = [
    (1, R, {}), (1, W, {"cr0": 0}), (5, R | USER, {}), (7, W | USER, {}), (7, W, {}), (5, W, {"cr0": 0}),
    (7, X | USER, {"cr4": SMEP}), (3, X, {"cr4": SMEP}), (7, X, {"cr4": SMAP}), (7, R | USER, {"cr4": SMAP}),
    (3, W, {"cr4": SMAP}), (3, W | IMPLICIT, {"cr4": SMAP}), (7, W | ALIGNMENT, {"cr4": SMAP}),
    (7, R | ALIGNMENT, {"cr4": SMAP}), (7, X | ALIGNMENT, {"cr4": SMAP}), (7, R | IMPLICIT, {}),
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("leaf", "access", "registers", "error"), NO_RIGHT)
def test_refused(machine: Machine, mode: str, leaf: int, access: int, registers: dict[str, int], error: int) -> None:
    status, code = probe(machine, mode, leaf, access, **registers)
    assert (status, code) == (RIGHTS if leaf & 1 else NOT_PRESENT, error)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("leaf", "access", "registers"), ALLOWED)
def test_allowed(machine: Machine, mode: str, leaf: int, access: int, registers: dict[str, int]) -> None:
    assert probe(machine, mode, leaf, access, **registers) == (OK, 0)


@pytest.mark.parametrize("mode", MODES[1:])
def test_no_execute(machine: Machine, mode: str) -> None:
    assert probe(machine, mode, 7 | NX, X) == (RIGHTS, 0x11)
    assert probe(machine, mode, 7 | NX, X | USER) == (RIGHTS, 0x15)
    assert probe(machine, mode, 7 | NX, W | USER) == (OK, 0)
    assert probe(machine, mode, 7 | NX, R, efer=0) == (RESERVED, 9)


def test_fetches_are_told_without_pae_only_by_smep(machine: Machine) -> None:
    assert probe(machine, "32-bit", 0, X) == (NOT_PRESENT, 0)
    assert probe(machine, "32-bit", 0, X, cr4=SMEP) == (NOT_PRESENT, 0x10)


@pytest.mark.parametrize("mode", LONG)
@pytest.mark.parametrize("key", [0, 1, 7, 15])
def test_protection_keys(machine: Machine, mode: str, key: int) -> None:
    user, supervisor = 7 | key << 59, 3 | key << 59
    no_access, no_write = 1 << 2 * key, 2 << 2 * key
    for leaf, bit, register in ((user, PKE, "pkru"), (supervisor, PKS, "pkrs")):
        machine.vp.pkru = machine.vp.pkrs = 0
        setattr(machine.vp, register, no_access)
        assert probe(machine, mode, leaf, R, cr4=bit) == (RIGHTS, 0x21)
        assert probe(machine, mode, leaf, W, cr4=bit) == (RIGHTS, 0x23)
        assert probe(machine, mode, leaf, X, cr4=bit) == (OK, 0)
        assert probe(machine, mode, leaf, R, cr4=0) == (OK, 0)
        assert probe(machine, mode, leaf, R, cr4=bit ^ PKE ^ PKS) == (OK, 0)
        setattr(machine.vp, register, no_write)
        assert probe(machine, mode, leaf, R, cr4=bit) == (OK, 0)
        assert probe(machine, mode, leaf, W, cr4=bit) == (RIGHTS, 0x23)
        assert probe(machine, mode, leaf, W, cr4=bit, cr0=0) == (OK, 0)
        setattr(machine.vp, register, ~(3 << 2 * key) & 0xFFFF_FFFF)
        assert probe(machine, mode, leaf, W, cr4=bit) == (OK, 0)
    machine.vp.pkru = no_access
    assert probe(machine, mode, user, R | USER, cr4=PKE) == (RIGHTS, 0x25)
    machine.vp.pkru = no_write
    assert probe(machine, mode, user, W | USER, cr4=PKE, cr0=0) == (RIGHTS, 0x27)
    assert probe(machine, mode, user, X | USER, cr4=PKE) == (OK, 0)
    # The key is told even where another right is missing too.
    assert probe(machine, mode, user & ~2, W | USER, cr4=PKE) == (RIGHTS, 0x27)
    machine.vp.pkru = machine.vp.pkrs = 0


@pytest.mark.parametrize("mode", ["32-bit", "pae"])
def test_no_keys_outside_of_long_mode(machine: Machine, mode: str) -> None:
    machine.vp.pkru = machine.vp.pkrs = 0xFFFF_FFFF
    assert probe(machine, mode, 7, W, cr4=PKE | PKS) == (OK, 0)
    machine.vp.pkru = machine.vp.pkrs = 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("taken", [2, 4])
def test_rights_are_those_of_the_whole_path(machine: Machine, mode: str, taken: int) -> None:
    places = machine.build(mode, 12)
    machine.enter(mode)
    size = 4 if mode == "32-bit" else 8
    for place in places:
        entry = machine.get(place, size)
        machine.put(place, entry & ~taken, size)
        assert machine.vp.probe(GVA[mode], W | USER).status == RIGHTS
        machine.put(place, entry, size)
    assert machine.vp.probe(GVA[mode], W | USER).status == OK


@pytest.mark.parametrize("physical_bits", [36, 40, 46, 52])
@pytest.mark.parametrize("mode", MODES[1:])
def test_bits_above_maxphyaddr(mode: str, physical_bits: int) -> None:
    machine = Machine(physical_bits=physical_bits, gpa_bits=48)
    for page in range(0, 8 << 20, 1 << 21):
        machine.map(page, 21)
    places = machine.build(mode, 12)
    machine.enter(mode)
    for level, place in enumerate(places):
        entry = machine.get(place)
        for bit in range(32, 63):
            machine.put(place, entry | 1 << bit)
            found = machine.vp.probe(GVA[mode], R)
            last = 62 if mode == "pae" else 51
            if physical_bits <= bit <= last:
                assert (found.status, found.error_code) == (RESERVED, 9), (level, bit)
            elif bit > last:
                assert found.status == OK, (level, bit)  # ignored bits and protection keys
            else:
                assert found.status in (TABLE, NESTED), (level, bit)  # an address that nothing is mapped to
        machine.put(place, entry)


LARGE_PAGES = [("pae", 21), ("4-level", 21), ("4-level", 30), ("5-level", 21), ("5-level", 30)]


@pytest.mark.parametrize(("mode", "shift"), LARGE_PAGES)
def test_low_bits_of_a_large_page(machine: Machine, mode: str, shift: int) -> None:
    leaf = machine.build(mode, shift, target=0 if shift == 30 else TARGET)[-1]
    machine.enter(mode)
    entry = machine.get(leaf)
    for bit in range(12, shift):
        machine.put(leaf, entry | 1 << bit)
        found = machine.vp.probe(GVA[mode] & -(1 << shift) | 0x345)
        assert (found.status, found.error_code) == ((OK, 0) if bit == 12 else (RESERVED, 9)), bit
        assert bit != 12 or found.address == (0 if shift == 30 else TARGET) + 0x345


@pytest.mark.parametrize(("mode", "level"), [("4-level", 0), ("5-level", 0), ("5-level", 1)])
def test_no_large_pages_at_the_top(machine: Machine, mode: str, level: int) -> None:
    place = machine.build(mode, 12)[level]
    machine.enter(mode)
    machine.put(place, machine.get(place) | 0x80)
    found = machine.vp.probe(GVA[mode])
    assert (found.status, found.error_code, found.references) == (RESERVED, 9, level + 1)


def test_page_size_extension(machine: Machine) -> None:
    """4 MiB pages need CR4.PSE; their bits 20:13 are address bits 39:32, as far as MAXPHYADDR goes."""
    (place,) = machine.build("32-bit", 22)
    machine.enter("32-bit")
    assert machine.vp.probe(GVA["32-bit"]).address == TARGET | GVA["32-bit"] & 0x3FFFFF
    machine.put(place, machine.get(place, 4) | 0x15 << 13, 4)
    found = machine.vp.probe(GVA["32-bit"])
    assert (found.status, found.address) == (NESTED, 0x15 << 32 | TARGET | GVA["32-bit"] & 0x3FFFFF)
    machine.put(place, machine.get(place, 4) | 1 << 21, 4)
    assert machine.vp.probe(GVA["32-bit"]).error_code == 9
    # Without PSE bit 7 means nothing: this entry names a table.
    machine.vp.cr4 = 0
    assert machine.vp.probe(GVA["32-bit"]).error_code != 9
    narrow = Machine(physical_bits=36)
    narrow.map(0x100000)
    narrow.enter("32-bit")
    for bit in range(13, 22):
        narrow.build("32-bit", 22, flags=7 | 1 << bit)
        found = narrow.vp.probe(GVA["32-bit"])
        assert found.status == (NESTED if bit < 17 else RESERVED), bit


def test_pdptes_are_registers(machine: Machine) -> None:
    """PAE: CR3 is aligned to 32 bytes, and what it names is read when CR3 is loaded."""
    machine.build("pae", 12)
    pointers = machine.memory.read(machine.top, 32)
    machine.memory.write(machine.top, bytes(32))
    machine.memory.write(machine.top + 0x60, pointers)
    machine.enter("pae", cr3=0x60)
    assert machine.vp.probe(GVA["pae"]).status == OK
    machine.memory.write(machine.top + 0x60, bytes(32))
    assert machine.vp.probe(GVA["pae"]).status == OK
    assert machine.vp.probe(GVA["pae"] ^ 1 << 31).error_code == 0
    machine.vp.cr3 = machine.vp.cr3
    found = machine.vp.probe(GVA["pae"])
    assert (found.status, found.references) == (NOT_PRESENT, 0)


@pytest.mark.parametrize("mode", LONG)
def test_canonical_addresses(machine: Machine, mode: str) -> None:
    machine.build(mode, 12)
    machine.enter(mode)
    top = 47 if mode == "4-level" else 56
    for bit in range(top, 64):
        alone, others = 1 << bit, ((1 << 64) - (1 << top)) ^ 1 << bit
        assert machine.vp.probe(alone | 0x1000).status == NOT_CANONICAL
        assert machine.vp.probe(others).status == NOT_CANONICAL
    for gva in (0, (1 << top) - 1, (1 << 64) - (1 << top), (1 << 64) - 1):
        assert machine.vp.probe(gva).status != NOT_CANONICAL


@pytest.mark.parametrize("mode", ["32-bit", "pae"])
def test_addresses_of_32_bits(machine: Machine, mode: str) -> None:
    machine.build(mode, 12)
    machine.enter(mode)
    assert machine.vp.probe(GVA[mode] | 1 << 32).status == NOT_CANONICAL


@pytest.mark.parametrize("mode", LONG)
@pytest.mark.parametrize(("bits", "cr3"), [(57, LAM_U57), (48, LAM_U48), (57, LAM_U57 | LAM_U48), (64, 0)])
def test_metadata_of_user_pointers(machine: Machine, mode: str, bits: int, cr3: int) -> None:
    """Which bits of a pointer with bit 63 clear may be anything; bit 63 itself must be that of the address."""
    gva = GVA[mode] & 0x7FFF_FFFF_FFFF
    machine.build(mode, 12, gva=gva)
    machine.enter(mode, cr3=cr3)
    translated = machine.vp.probe(gva)
    assert translated.status == OK
    for bit in range(48, 63):
        found = machine.vp.probe(gva | 1 << bit)
        if bit >= bits:
            assert found == translated, bit
        elif mode == "4-level" or bit >= 56:
            assert found.status == NOT_CANONICAL, bit
        else:
            assert found.status == NOT_PRESENT, bit  # another address of 57 bits
        for access in (X, R | IMPLICIT):
            assert machine.vp.probe(gva | 1 << bit, access).status != OK
    assert machine.vp.probe(gva | 1 << 63).status == NOT_CANONICAL
    # The highest address bit is copied into the metadata, and then does not agree with bit 63.
    high = 56 if bits == 57 else 47
    if bits < 64:
        assert machine.vp.probe(gva | 1 << high).status == NOT_CANONICAL


@pytest.mark.parametrize(("mode", "bits"), [("4-level", 48), ("5-level", 57)])
def test_metadata_of_supervisor_pointers(machine: Machine, mode: str, bits: int) -> None:
    gva = GVA[mode] & (1 << bits - 1) - 1 | (1 << 64) - (1 << bits - 1)
    machine.build(mode, 12, gva=gva)
    machine.enter(mode, cr4=LAM_SUP)
    for bit in range(48, 63):
        expected = OK if bit >= bits else NOT_CANONICAL if bit == bits - 1 else NOT_PRESENT
        assert machine.vp.probe(gva ^ 1 << bit).status == expected, bit
        assert machine.vp.probe(gva ^ 1 << bit, X).status != OK
    assert machine.vp.probe(gva ^ 1 << 63).status == NOT_CANONICAL
    machine.enter(mode)
    assert machine.vp.probe(gva ^ 1 << 62).status == NOT_CANONICAL
