"""References of a walk are exact: the whole table of (g + 1)(h + 1) - 1 on live tables, and mixes of page sizes.

Bhargava et al., ASPLOS 2008: a walk of g entries of the guest's, each found by h of the second level's, and h for the
result. Every count is taken from a walk of tables that exist, and compared with the reference walker's too.
"""

from __future__ import annotations

import random

import pytest
from reference import walk
from tables_by_hand import GIB, GVA, MIB2, PAGE, ROOT, SIZES, TARGET, Machine

# (mode, page of the guest): entries that a walk of the guest's tables reads.
GUESTS = {
    ("none", 12): 0,
    ("pae", 21): 1, ("32-bit", 22): 1,
    ("pae", 12): 2, ("32-bit", 12): 2, ("4-level", 30): 2,
    ("4-level", 21): 3, ("5-level", 30): 3,
    ("4-level", 12): 4, ("5-level", 21): 4,
    ("5-level", 12): 5,
}  # fmt: skip
# (levels, page) of the second level: entries that a translation of one GPA reads.
HOSTS = {(3, 30): 1, (3, 21): 2, (4, 30): 2, (3, 12): 3, (4, 21): 3, (5, 30): 3, (4, 12): 4, (5, 21): 4, (5, 12): 5}


def map_low(machine: Machine, shift: int) -> None:
    """The guest's tables and the target, in pages of one size."""
    if shift == 30:
        machine.map(0, 30)
    else:
        first, last = ROOT >> shift, TARGET + MIB2 >> shift
        for page in range(first, last):
            machine.map(page << shift, shift)


def name(key: tuple[object, int]) -> str:
    return f"{key[0]} {SIZES[key[1]]}"


@pytest.fixture(scope="module", params=HOSTS, ids=name)
def host(request: pytest.FixtureRequest) -> tuple[Machine, int]:
    levels, shift = request.param
    machine = Machine(size=GIB if shift == 30 else 64 << 20, levels=levels)
    map_low(machine, shift)
    return machine, HOSTS[request.param]


@pytest.mark.parametrize("guest", GUESTS, ids=name)
def test_every_combination(host: tuple[Machine, int], guest: tuple[str, int]) -> None:
    machine, h = host
    mode, shift = guest
    # A page of 1 GiB begins at 0, and TARGET lies in it.
    gva = GVA[mode] & -(1 << shift) | TARGET & (1 << shift) - 1 | 0x345
    machine.build(mode, shift, target=TARGET if shift < 30 else 0, gva=gva)
    machine.enter(mode)
    found = machine.vp.probe(gva if mode != "none" else TARGET)
    assert (found.status, found.spa & ~0xFFF) == (0, TARGET)
    g = GUESTS[guest]
    assert (found.references, found.nested_references) == (g, (g + 1) * h)
    assert found.references + found.nested_references == (g + 1) * (h + 1) - 1
    expected = walk(*machine.reference(), gva if mode != "none" else TARGET, 1, False)
    assert (found.references, found.nested_references) == (expected["references"], expected["nested_references"])


def test_the_published_numbers() -> None:
    """translation.md B1: 24 for 4 over 4, 35 for 5 over 5, and what large pages leave of them."""
    published = {(4, 4): 24, (5, 5): 35, (5, 4): 29, (4, 5): 29, (4, 3): 19, (3, 4): 19, (3, 3): 15, (2, 4): 14,
                 (2, 2): 8, (2, 3): 11}  # fmt: skip
    for (g, h), total in published.items():
        guest = next(key for key in GUESTS if GUESTS[key] == g and key[0] in ("4-level", "5-level"))
        levels, shift = next(key for key in HOSTS if HOSTS[key] == h and key[0] > 3)
        machine = Machine(size=GIB if shift == 30 else 64 << 20, levels=levels)
        map_low(machine, shift)
        gva = GVA[guest[0]] & -(1 << guest[1]) | TARGET & (1 << guest[1]) - 1
        machine.build(*guest, target=TARGET if guest[1] < 30 else 0, gva=gva)
        machine.enter(guest[0])
        found = machine.vp.probe(gva)
        assert found.references + found.nested_references == total, (g, h)


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("mode", ["pae", "4-level", "5-level"])
def test_mixed_pages(levels: int, mode: str) -> None:
    """Tables and results in pages of three sizes: the sum of (h + 1) over the guest's entries, and the last h."""
    rng = random.Random(f"{levels} {mode}")
    machine = Machine(size=3 * GIB, levels=levels)
    machine.map(2 * GIB, 30)
    for page in range(GIB, GIB + 16 * MIB2, MIB2):
        machine.map(page, 21)
    for page in range(0, 256 * PAGE, PAGE):
        machine.map(page)
    reads = {0: levels, 1: levels - 1, 2: levels - 2}  # of the second level, by GiB
    for _ in range(200):
        pages = iter(rng.sample([number * GIB + page * PAGE for number in range(3) for page in range(256)], 7))
        machine.table = pages.__next__  # type: ignore[method-assign]
        gva = GVA[mode]
        target = rng.randrange(3) * GIB + rng.randrange(256) * PAGE
        places = machine.build(mode, 12, target=target, gva=gva)
        machine.enter(mode)
        found = machine.vp.probe(gva)
        assert (found.status, found.spa) == (0, target | gva & 0xFFF)
        assert found.references == len(places)
        assert found.nested_references == sum(reads[place // GIB] for place in places) + reads[target // GIB]
