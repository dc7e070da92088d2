"""Page tables built by hand: what they map, how large they may be, how they change, and what is refused."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest
from reference import WRITE, Memory, Processor, Second, walk

import hvcore as hv
from hvcore.paging import AddressSpace, TranslationStatus

GIB, TIB = 1 << 30, 1 << 40
OK, NOT_PRESENT, DENIED = TranslationStatus.OK, TranslationStatus.NOT_PRESENT, TranslationStatus.DENIED


def random_pages(count: int, span: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).integers(0, span, count, dtype=np.uint64)


@pytest.mark.parametrize("nested", [None, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("levels", [0, 2, 3, 4, 5])
def test_references_of_every_depth(levels: int, nested: int | None) -> None:
    """(g + 1)(h + 1) - 1 in all; PAE reads two of its three levels in a walk (SDM 3A 4.4.1)."""
    space = AddressSpace(levels, nested)
    gpa = 1 << 16
    space.map(gva=gpa, gpa=gpa, size="64 KiB")
    one = space.translate_one(gpa + 0x123)
    g, h = {3: 2}.get(levels, levels), nested or 0
    assert (one.status, one.gpa, one.spa, one.references) == (OK, gpa + 0x123, gpa + 0x123, g)
    assert one.nested_references == (g + 1) * h
    assert g + one.nested_references == (g + 1) * (h + 1) - 1


@pytest.mark.parametrize(
    ("page_size", "nested_page_size", "references", "nested"),
    [
        ("4 KiB", "4 KiB", 4, 20), ("4 KiB", "2 MiB", 4, 15), ("2 MiB", "4 KiB", 3, 16), ("2 MiB", "2 MiB", 3, 12),
        ("1 GiB", "1 GiB", 2, 6), ("4 KiB", "1 GiB", 4, 10), ("1 GiB", "4 KiB", 2, 12),
    ],
)  # fmt: skip
def test_references_of_page_sizes(page_size: str, nested_page_size: str, references: int, nested: int) -> None:
    space = AddressSpace(4, 4, nested_page_size=nested_page_size)
    space.map(gva=GIB, gpa=3 * GIB, size="1 GiB", page_size=page_size)
    one = space.translate_one(GIB + 0x12345678)
    assert (one.status, one.gpa) == (OK, 3 * GIB + 0x12345678)
    assert (one.references, one.nested_references) == (references, nested)
    shifts = {"4 KiB": 12, "2 MiB": 21, "1 GiB": 30}
    assert (one.page_shift, one.nested_page_shift) == (shifts[page_size], shifts[nested_page_size])


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_tables_by_the_book(levels: int) -> None:
    """The tables that come of mappings, read by the reference walker out of the space's own memory."""
    rng = random.Random(levels)
    large = "4 MiB" if levels == 2 else "2 MiB"
    step = hv.memory.parse_size(large)
    space = AddressSpace(levels, 4, memory="64 MiB")
    for _ in range(60):
        size = rng.choice(("4 KiB", "64 KiB", large))
        page_size = large if size == large and rng.random() < 0.5 else "4 KiB"
        gva, gpa = rng.randrange(64) * step, rng.randrange(6) * step
        access = rng.choice(("rwx", "rx") if levels == 2 else ("rwx", "rx", "rw", "r"))
        try:
            space.map(gva=gva, gpa=gpa, size=size, page_size=page_size, access=access, user=rng.random() < 0.7,
                      frames=rng.choice(("contiguous", "permuted")), seed=rng.randrange(100))  # fmt: skip
        except ValueError as error:
            assert "cut" in str(error)
    gvas = np.array([rng.randrange(64) * step + rng.randrange(1 << 17) for _ in range(500)], np.uint64)
    for access, bits in (("r", 1), ("rw", 1 | WRITE), ("x", 4)):
        found = space.translate(gvas, access, privilege="user")
        memory = Memory(space.memory.read(0, space.memory.size + space.memory.reserve))
        state = space.state
        second = Second(memory, space.nested_root or 0, 4, 1 << 48)
        processor = Processor(state.cr0, state.cr3, state.cr4, state.efer, physical_bits=52)
        assert found.ok.any()
        for i, gva in enumerate(gvas):
            expected = walk(processor, second, int(gva), bits | 8, False)
            assert expected["status"] == found.status[i] and expected["references"] == found.references[i], hex(gva)
            assert expected.get("spa", 0) == found.spa[i] and expected.get("error_code", 0) == found.error_code[i]


def test_a_terabyte_is_mapped_at_once_and_built_when_needed() -> None:
    space = AddressSpace(4, 4)
    space.map(gva=0, gpa=TIB, size="1 TiB", frames="permuted", seed=5)
    gvas = random_pages(2000, TIB)
    found = space.translate(gvas)
    assert found.ok.all() and (found.nested_references == 20).all()
    assert ((found.gpa ^ gvas) & np.uint64(0xFFF) == 0).all()
    assert (found.gpa >= TIB).all() and (found.gpa < 2 * TIB).all()
    guest, second = space.tables
    assert guest < 3200 and second < 6000


def test_tables_that_are_built_late_are_those_that_are_built_at_once() -> None:
    """Every column of found and of missing addresses, before and after a change."""
    rng = random.Random(11)
    early, late = AddressSpace(4, 4), AddressSpace(4, 4)
    for turn in range(3):
        for _ in range(8):
            page_size = rng.choice(("4 KiB", "4 KiB", "2 MiB"))
            step = hv.memory.parse_size(page_size)
            run = {"gva": rng.randrange(64 << 21) // step * step, "size": rng.randrange(1, 600) * step}
            gpa = rng.randrange(1 << 35) // step * step
            for space in (early, late):
                if turn:
                    space.unmap(gva=run["gva"] & -1 << 21, size=4 << 21)
                try:
                    space.map(**run, gpa=gpa, page_size=page_size, frames="permuted")
                except ValueError as error:
                    assert "cut" in str(error)
            early.build()
        gvas = np.array([rng.randrange(1 << rng.choice((29, 33, 47))) for _ in range(400)], np.uint64)
        first, second = early.translate(gvas), late.translate(gvas)
        assert first.ok.any() and not first.ok.all()
        for name in first:
            assert (first[name] == second[name]).all(), name


def test_permuted_frames_are_a_permutation() -> None:
    """Of a number of pages that is no power of two; another seed, another order; the same seed, the same."""
    def gpas(seed: int) -> Any:
        space = AddressSpace(4, None)
        space.map(gva=0, gpa=GIB, size=4096 * 1000, frames="permuted", seed=seed)
        return space.translate(np.arange(1000, dtype=np.uint64) << np.uint64(12)).gpa

    first = gpas(1)
    assert (np.sort(first) == GIB + 4096 * np.arange(1000)).all()
    assert (np.diff(first.astype(np.int64)) == 4096).mean() < 0.05
    assert (first == gpas(1)).all() and (first != gpas(2)).any()


def test_changes_show_in_tables_that_exist() -> None:
    space = AddressSpace(4, 4)
    space.map(gva=0, gpa=GIB, size="4 MiB")
    assert space.translate_one(0x5000, "w").status == OK
    space.protect(gva=0x5000, size="4 KiB", access="rx", user=False)
    assert space.translate_one(0x5000, "w").status == DENIED
    assert space.translate_one(0x5000, "x").status == OK
    assert space.translate_one(0x5000, privilege="user").error_code == 5
    assert space.translate_one(0x6000, "w", privilege="user").status == OK
    space.unmap(gva=0x5000, size="8 KiB")
    assert [space.translate_one(gva).status for gva in (0x4FFF, 0x5000, 0x6FFF, 0x7000)] == [0, 1, 1, 0]
    space.map(gva=0x5000, gpa=5 * GIB, size="4 KiB")
    assert space.translate_one(0x5008).gpa == 5 * GIB + 8
    space.unmap_nested(gpa=5 * GIB, size="4 KiB")
    assert space.translate_one(0x5008).status == TranslationStatus.GPA_UNMAPPED
    space.map_nested(gpa=5 * GIB, spa=7 * GIB, size="4 KiB", access="rx")
    assert space.translate_one(0x5008).spa == 7 * GIB + 8
    assert space.translate_one(0x5008, "w").status == TranslationStatus.GPA_DENIED
    space.protect_nested(gpa=5 * GIB, size="4 KiB", access="rwx")
    assert space.translate_one(0x5008, "w").status == OK
    space.map(gva=0, gpa=8 * GIB, size="2 MiB", page_size="2 MiB")
    assert space.translate_one(0x5008).gpa == 8 * GIB + 0x5008 and space.translate_one(0x5008).page_shift == 21
    assert space.translate_one(0x20_0000).gpa == GIB + 0x20_0000


def test_marks_are_set_when_asked_for() -> None:
    space = AddressSpace(4, None)
    space.map(gva=0, gpa=GIB, size="4 KiB")

    def entries() -> list[int]:
        table, found = space.state.cr3, []
        for _ in range(4):
            found.append(int.from_bytes(space.memory.read(table, 8), "little"))
            table = found[-1] & 0xFFFFF000 | found[-1] & 0xFFFFF00000000
        return [entry >> 5 & 3 for entry in found]

    space.translate_one(0, "w")
    assert entries() == [0, 0, 0, 0]
    space.translate_one(0, "r", set_marks=True)
    assert entries() == [1, 1, 1, 1]
    space.translate_one(0, "w", set_marks=True)
    assert entries() == [1, 1, 1, 3]


def test_high_half_and_canonical_addresses() -> None:
    for levels, low in ((4, -(1 << 47)), (5, -(1 << 56))):
        start = low & (1 << 64) - 1
        space = AddressSpace(levels, None)
        space.map(gva=start, gpa=GIB, size="4 KiB")
        assert space.translate_one(start + 5).gpa == GIB + 5
        assert space.translate_one(start - 1).status == TranslationStatus.NOT_CANONICAL
        with pytest.raises(ValueError, match=r"gva .* not canonical"):
            space.map(gva=start - 4096, gpa=0, size="4 KiB")


def test_runs() -> None:
    space = AddressSpace(4, 4)
    space.map(gva=0x10_0000, gpa=GIB, size="1 MiB")
    space.map(gva=0x20_0000, gpa=GIB + 0x10_0000, size="2 MiB", access="rx")
    space.map(gva=0x60_0000, gpa=2 * GIB, size="16 KiB", frames="permuted", seed=3)
    runs = space.translate_range(0, "1 TiB")
    rows = zip(runs.gva.tolist(), runs.spa.tolist(), runs.size.tolist(), runs.status.tolist(), strict=True)
    mapped = [(gva, spa, size) for gva, spa, size, status in rows if status == OK]
    assert mapped[0] == (0x10_0000, GIB, 3 << 20) and sum(size for *_, size in mapped) == (3 << 20) + (16 << 10)
    assert runs.size.sum() == TIB and (runs.gva[1:] == (runs.gva + runs.size)[:-1]).all()
    written = space.translate_range(0x10_0000, "3 MiB", "w")
    assert written.status.tolist() == [OK, DENIED] and written.size.tolist() == [1 << 20, 2 << 20]
    everything = space.translate_range(0, (1 << 64) - 4096)
    assert everything.size[everything.status == TranslationStatus.NOT_CANONICAL].tolist() == [(1 << 64) - (1 << 48)]
    with pytest.raises(ValueError, match="size"):
        space.translate_range(0, 1 << 64)
    with pytest.raises(ValueError, match="gva"):
        space.translate_range((1 << 64) - 4096, "8 KiB")


def test_runs_agree_with_single_translations() -> None:
    rng = random.Random(4)
    space = AddressSpace(4, 4)
    for _ in range(20):
        space.map(gva=rng.randrange(1 << 12) << 12, gpa=rng.randrange(1 << 20) << 12, size=rng.randrange(1, 9) << 12)
    gvas = np.arange(1 << 12, dtype=np.uint64) << np.uint64(12)
    found, runs = space.translate(gvas), space.translate_range(0, 1 << 24)
    which = np.searchsorted(runs.gva, gvas, side="right") - 1
    assert (runs.status[which] == found.status).all()
    assert ((runs.spa[which] + gvas - runs.gva[which])[found.ok] == found.spa[found.ok]).all()


def test_threads_share_a_space_that_is_built_meanwhile() -> None:
    space = AddressSpace(4, 4)
    space.map(gva=0, gpa=GIB, size="1 GiB", frames="permuted")
    gvas = [random_pages(20_000, GIB, seed) for seed in range(4)]
    found: dict[int, Any] = {}

    def call(i: int) -> None:
        found[i] = space.translate(gvas[i])

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        assert found[i].ok.all() and (found[i].spa == space.translate(gvas[i]).spa).all()


def test_reverse_look_up() -> None:
    """Aliases, several page sizes, permuted frames, tables that are not built yet; against translating everything."""
    space = AddressSpace(4, 4)
    space.map(gva=0x10_0000, gpa=GIB, size="1 MiB", frames="permuted", seed=9)
    space.map(gva=-(1 << 47) & (1 << 64) - 1, gpa=GIB, size="64 KiB")
    space.map(gva=0x4000_0000, gpa=GIB, size="2 MiB", page_size="2 MiB")
    gvas = np.arange(0x10_0000, 0x20_0000, 4096, dtype=np.uint64)
    targets = [GIB + 0x5123, GIB + 0xF_FFFF, GIB + 0x20_0000, 0]
    index, found = space.find(gpa=targets)
    gpas = space.translate(gvas).gpa
    for i, target in enumerate(targets):
        expected = (gvas[gpas == target & ~0xFFF] + np.uint64(target & 0xFFF)).tolist()
        if target < GIB + 0x20_0000 and target:
            expected.append(0x4000_0000 + target - GIB)
        if target == targets[0]:
            expected.append((-(1 << 47) & (1 << 64) - 1) + 0x5123)
        assert sorted(found[index == i].tolist()) == sorted(expected)
    index, found = space.find(spa=space.translate([0x10_0000, 0x4000_0008]).spa)
    assert 0x10_0000 in found[index == 0] and 0x4000_0008 in found[index == 1]
    assert (space.translate(found).spa == space.translate([0x10_0000, 0x4000_0008]).spa[index]).all()
    with pytest.raises(OverflowError, match="limit"):
        space.find(gpa=targets, limit=1)
    with pytest.raises(ValueError, match="either gpa or spa"):
        space.find()


@pytest.mark.parametrize("levels", [0, 2, 3, 4, 5])
def test_reverse_look_up_at_every_level(levels: int) -> None:
    for nested in (None, 3, 5):
        space = AddressSpace(levels, nested)
        gva = 0x1234_5000 if levels else 0x2_0000
        space.map(gva=gva, gpa=0x2_0000, size="64 KiB")
        for place in ("gpa", "spa"):
            index, found = space.find(**{place: [0x2_1234]})
            assert found.tolist() == [gva + 0x1234] and index.tolist() == [0], (levels, nested, place)


def test_reverse_look_up_of_tables_that_lead_into_each_other() -> None:
    """512 entries to the same table at every level: nothing found is found soon, and too much is told."""
    memory = np.zeros(2 * 512, np.uint64)
    memory[:512] = 7
    state = hv.paging.PagingState.for_levels(5)
    saved = hv.paging.SavedAddressSpace(memory, state)
    assert saved.find(gpa=[0x1008])[1].size == 0
    with pytest.raises(OverflowError):
        saved.find(gpa=[8])


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("gva", {"gva": 1}),
    ("gpa", {"gpa": 0x123}),
    ("size", {"size": 100}),
    ("size", {"size": "4 apples"}),
    ("gpa", {"gpa": 1 << 50}),
    ("page_size", {"page_size": "8 KiB"}),
    ("page_size", {"page_size": "4 MiB"}),
    ("nested_page_size", {"nested_page_size": 5}),
    ("access", {"access": "q"}),
    ("access", {"access": "w"}),
    ("nested_access", {"nested_access": ""}),
    ("frames", {"frames": "random"}),
    ("seed", {"seed": -1}),
    ("spa", {"spa": 0x10}),
    ("spa", {"spa": 1 << 50}),
]


@pytest.mark.parametrize(("name", "arguments"), WRONG)
def test_wrong_mappings_name_the_argument(name: str, arguments: dict[str, Any]) -> None:
    space = AddressSpace(4, 4)
    with pytest.raises(ValueError, match=name):
        space.map(**{"gva": 0, "gpa": GIB, "size": "4 KiB", **arguments})
    assert space.translate_one(0).status == NOT_PRESENT


def test_wrong_spaces_name_the_argument() -> None:
    for name, arguments in (
        ("levels", {"levels": 1}), ("nested", {"nested": 6}), ("memory", {"memory": "100 TiB"}),
        ("nested_page_size", {"nested_page_size": "3 KiB"}), ("physical_address_bits", {"physical_address_bits": 64}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            AddressSpace(**arguments)
    with pytest.raises(ValueError, match="cut a page"):
        space = AddressSpace(4, 4)
        space.map(gva=0, gpa=0, size="2 MiB", page_size="2 MiB")
        space.unmap(gva=0x1000, size="4 KiB")


def test_tables_that_somebody_wrote_by_hand_do_no_harm() -> None:
    """Random bytes over the tables: translations end, builders and changes go on."""
    rng = np.random.default_rng(7)
    for levels in (2, 3, 4, 5):
        space = AddressSpace(levels, 4, memory="64 MiB")
        space.map(gva=0, gpa=0, size="8 MiB")
        gvas = random_pages(300, 16 << 20)
        space.translate(gvas)
        size = space.memory.size + space.memory.reserve
        export: Any = space.memory.view(0, size)
        words = np.frombuffer(export, np.uint64)
        used = np.flatnonzero(words)
        for _ in range(30):
            words[rng.choice(used, 40)] = rng.choice(
                np.array([2**64 - 1, 7, 0x83, *words[rng.choice(used, 8)], rng.integers(0, size)], np.uint64), 40
            )
            space.translate(gvas, set_marks=True)
            space.translate(gvas, columns=("spa", "status", "references", "nested_references"), nested_cache=16)
            space.translate_range(0, "16 MiB")
            space.unmap(gva=0x1000 * int(rng.integers(0, 2048)), size=0x1000)
            space.map(gva=0x40_0000, gpa=0, size="4 MiB", seed=1, frames="permuted")
        del words, used


def test_calls_run_at_the_same_time() -> None:
    """Two batches are under way at once while this thread looks: none of them holds the GIL."""
    space = AddressSpace(4, 4)
    space.map(gva=0, gpa=GIB, size="64 MiB")
    gvas = random_pages(1 << 18, 64 << 20)
    stop, seen = threading.Event(), 0

    def call() -> None:
        while not stop.is_set():
            space.translate(gvas)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(100_000):
        seen = max(seen, space._native.users)
        if seen == 2:
            with pytest.raises(RuntimeError, match="another thread"):
                space.unmap(gva=0, size="4 KiB")
            break
        stop.wait(0.0005)
    stop.set()
    for thread in threads:
        thread.join()
    assert seen == 2


def test_physical_address_bits_limit_the_memory() -> None:
    """Tables and pages lie where the processor's addresses reach (SDM 3A 4.1.4)."""
    for bits in (32, 36, 40):
        for nested in (None, 4):
            space = hv.paging.AddressSpace(4, nested, physical_address_bits=bits)
            space.map(gva=0, gpa=0, size="4 MiB")
            assert space.translate_one(0x1234).status == hv.paging.TranslationStatus.OK


def test_registers_that_make_other_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="cr4"):
        hv.paging.AddressSpace(4, 4, cr4=1 << 21)
