"""Translation by the words of the specification: tables, formats, fault reasons, what the caches keep."""

from __future__ import annotations

import numpy as np
import pytest

from hvcore._native.iommu import PRESETS, Geometry

from .unit_machine import (
    CCMD,
    CONTEXTS,
    DATA,
    DIRECTORY,
    FIRST,
    FSTS,
    IOTLB,
    IVA,
    PAGE,
    PASIDS,
    READ,
    ROOT,
    SOURCE,
    TOP,
    WRITE,
    UnitMachine,
)  # fmt: skip

PLAIN = {"caches": None}


def second(**arguments: object) -> UnitMachine:
    machine = UnitMachine(**arguments)
    machine.map(TOP, 0x5000, DATA)
    machine.legacy()
    return machine


def test_off_is_identity() -> None:
    assert UnitMachine().ask(0x12345, WRITE)["spa"] == 0x12345


@pytest.mark.parametrize("width, levels", [(1, 3), (2, 4), (3, 5)])
def test_legacy_walks_read_root_context_and_each_level(width: int, levels: int) -> None:
    """39 bits 5 references, 48 bits 6, 57 bits 7."""
    machine = UnitMachine(**PLAIN)
    machine.map(TOP, 0x5000, DATA, levels=levels)
    machine.legacy(width=width)
    found = machine.ask(0x5678)
    assert found["spa"] == DATA + 0x678 and found["nested_page_shift"] == 12 and found["page_shift"] == 0
    assert (found["table_references"], found["references"], found["nested_references"]) == (2, 0, levels)
    assert machine.ask(1 << 12 + 9 * levels)["reason"] == 4


@pytest.mark.parametrize("leaf, shift", [(2, 21), (3, 30)])
def test_large_pages(leaf: int, shift: int) -> None:
    machine = UnitMachine(**PLAIN)
    machine.map(TOP, 3 << shift, 0, leaf=leaf)
    machine.legacy()
    offset = 0x345678 & (1 << shift) - 1
    found = machine.ask((3 << shift) + offset)
    assert (found["gpa"], found["nested_page_shift"]) == (offset, shift)
    assert found["nested_references"] == 5 - leaf


def test_large_pages_need_the_capability() -> None:
    machine = UnitMachine(cap=PRESETS["full"][0] & ~(3 << 34))
    machine.map(TOP, 0, 0, leaf=2)
    machine.legacy()
    assert machine.ask(0)["reason"] == 0xC


@pytest.mark.parametrize("bits, reads, writes", [(1, 0, 5), (2, 6, 0), (3, 0, 0), (0, 6, 5)])
def test_rights(bits: int, reads: int, writes: int) -> None:
    """R and W are independent, and present means either."""
    machine = UnitMachine()
    machine.map(TOP, 0x5000, DATA, bits=bits)
    machine.legacy()
    assert (machine.ask(0x5000)["reason"], machine.ask(0x5000, WRITE)["reason"]) == (reads, writes)


def test_zero_length_reads() -> None:
    """With ZLR a read of no bytes may go to a page that can only be written."""
    for cap, reason in ((PRESETS["full"][0], 0), (PRESETS["full"][0] & ~(1 << 22), 6)):
        machine = UnitMachine(cap=cap)
        machine.map(TOP, 0x5000, DATA, bits=2)
        machine.legacy()
        assert machine.ask(0x5000, READ | 4)["reason"] == reason


@pytest.mark.parametrize("bits, ecap, reason", [
    (1 << 11, 0, 0), (1 << 11, 1 << 7, 0xC), (1 << 62, 0, 0), (1 << 62, 1 << 2, 0xC), (1 << 50, 0, 0xC),
    (0x7F << 52 | 1 << 63 | 0x7C, 0, 0),
])  # fmt: skip
def test_reserved_bits_of_a_page(bits: int, ecap: int, reason: int) -> None:
    """SNP needs snoop control, TM a device TLB; address bits beyond the host's are reserved, others are ignored."""
    machine = UnitMachine(ecap=PRESETS["full"][1] & ~ecap)
    machine.map(TOP, 0x5000, DATA, bits=3 | bits)
    machine.legacy()
    assert machine.ask(0x5000)["reason"] == reason


@pytest.mark.parametrize("place, words, reason", [
    (ROOT + 48, (CONTEXTS, 0), 1), (ROOT + 48, (CONTEXTS | 3, 0), 0xA), (ROOT + 48, (CONTEXTS | 1, 1), 0xA),
    (ROOT + 48, (1 << 40 | 1, 0), 9), (CONTEXTS + 128, (TOP, 0x702), 2), (CONTEXTS + 128, (TOP | 1, 0x700), 3),
    (CONTEXTS + 128, (TOP | 1, 0x704), 3), (CONTEXTS + 128, (TOP | 0xD, 0x702), 3), (CONTEXTS + 128, (TOP | 0x11,
    0x702), 0xB),
    (CONTEXTS + 128, (TOP | 1, 0x782), 0xB), (CONTEXTS + 128, (1 << 40 | 1, 0x702), 3), (CONTEXTS + 128, (TOP | 1,
    1 << 24), 0xB), (TOP, (1 << 40 | 3,), 7),
])  # fmt: skip
def test_legacy_tables(place: int, words: tuple[int, ...], reason: int) -> None:
    machine = second(**PLAIN)
    machine.store(place, *words)
    assert machine.ask(0x5000)["reason"] == reason


def test_a_root_table_outside_memory() -> None:
    machine = second(**PLAIN)
    machine.start(1 << 40)
    assert machine.ask(0x5000)["reason"] == 8


def test_translation_types() -> None:
    """TT 1 lets translated requests through, TT 0 blocks them, TT 2 passes everything below MGAW."""
    machine = second(**PLAIN)
    assert machine.ask(0x5000, at=2)["reason"] == 0xD
    machine.legacy(kind=1)
    assert machine.ask(0x5000, at=2)["spa"] == 0x5000 and machine.ask(0x5000)["spa"] == DATA
    machine.legacy(kind=2)
    assert machine.ask(0x5000)["spa"] == 0x5000 and machine.ask(1 << 57)["reason"] == 4
    assert machine.ask(1 << 47)["reason"] == 4                       # the host's width: LGN.1.3
    machine = second(ecap=PRESETS["full"][1] & ~(1 << 2 | 1 << 6), **PLAIN)
    for kind in (1, 2):
        machine.legacy(kind=kind)
        assert machine.ask(0x5000)["reason"] == 3


def test_interrupt_addresses_are_no_memory() -> None:
    machine = second(**PLAIN)
    assert machine.ask(0xFEE00000, WRITE)["status"] == machine.ask(0xFEEFFFFF, READ | 4)["status"] == 2
    assert machine.ask(0xFEE00000)["reason"] == 0x29                 # VT-d 3.15: an illegal request
    machine.map(TOP, 0x6000, 0xFEE01000)
    assert machine.ask(0x6000, WRITE)["reason"] == 0xE
    machine.scalable(2)
    assert machine.ask(0xFEE00000)["reason"] == 0x29 and machine.ask(0x6000)["reason"] == 0x87


def test_what_the_partition_has_not_got_is_refused_and_counted() -> None:
    machine = second()
    machine.map(TOP, 0x6000, 1 << 40)
    assert machine.ask(0x6000)["status"] == 4 and machine.unit.counters()["no_memory"] == 1
    machine.space.protect(DATA >> 12, 1, rights=1)
    assert machine.ask(0x5000)["status"] == 0 and machine.ask(0x5000, WRITE)["status"] == 4
    machine.space.unmap(DATA >> 12, 1)
    assert machine.ask(0x5000)["status"] == 4                       # though the IOTLB has the page


def test_scalable_second_level() -> None:
    machine = UnitMachine(**PLAIN)
    machine.map(TOP, 0x5000, DATA)
    machine.scalable(2)
    found = machine.ask(0x5008)
    assert (found["spa"], found["table_references"], found["nested_references"]) == (DATA + 8, 4, 4)


def test_first_level_is_the_processors_format() -> None:
    """Cold 4 + 4 references; accessed and dirty bits are always set."""
    machine = UnitMachine(**PLAIN)
    slot = machine.map(FIRST, 0x5000, DATA, bits=7, table=7)
    machine.scalable(1)
    found = machine.ask(0x5008)
    assert (found["spa"], found["page_shift"], found["references"], found["nested_references"]) == (DATA + 8, 12, 4, 0)
    assert machine.load(slot) & 0x60 == 0x20
    machine.ask(0x5008, WRITE)
    assert machine.load(slot) & 0x60 == 0x60
    assert machine.ask(1 << 47)["reason"] == 0x80


def test_nested_translation_reads_24_entries_below_4() -> None:
    machine = UnitMachine(**PLAIN)
    machine.map(FIRST, 0x5000, 0x9000, bits=7, table=7)
    for page in [*range(FIRST, FIRST + PAGE, PAGE), *range(0x100000, 0x110000, PAGE)]:
        machine.map(TOP, page, page)
    machine.map(TOP, 0x9000, DATA)
    machine.scalable(3)
    found = machine.ask(0x5008)
    assert (found["spa"], found["references"], found["nested_references"]) == (DATA + 8, 4, 20)


@pytest.mark.parametrize("bits, access, q2, reason", [
    (3, READ, 0, 0x81), (5, WRITE, 0, 0x85), (1, READ | 8, 0, 0x5D), (1, READ | 8, 1, 0), (1, WRITE | 8, 1, 0),
    (1, WRITE | 8, 1 | 1 << 4, 0x85), (6, READ, 0, 0x71), (7 | 1 << 50, READ, 0, 0x72),
])  # fmt: skip
def test_first_level_rights(bits: int, access: int, q2: int, reason: int) -> None:
    """U/S for requests of users, WPE for those of supervisors, SRE for there being any."""
    machine = UnitMachine()
    machine.map(FIRST, 0x5000, DATA, bits=bits, table=7)
    machine.scalable(1, q2=q2)
    assert machine.ask(0x5000, access)["reason"] == reason


def test_extended_accessed_bits() -> None:
    machine = UnitMachine()
    slot = machine.map(FIRST, 0x5000, DATA, bits=7, table=7)
    machine.scalable(1, q2=1 << 7)
    machine.ask(0x5000)
    assert machine.load(slot) & 1 << 10 and machine.load(FIRST) & 1 << 10


def test_second_level_marks_with_ssade() -> None:
    machine = UnitMachine()
    slot = machine.map(TOP, 0x5000, DATA)
    machine.scalable(2, q0=1 << 9)
    machine.ask(0x5000)
    assert machine.load(slot) & 0x300 == 0x100
    machine.ask(0x5000, WRITE)
    assert machine.load(slot) & 0x300 == 0x300


@pytest.mark.parametrize("place, word, reason", [
    (ROOT + 48, 0, 0x39), (ROOT + 48, CONTEXTS | 5, 0x3A), (ROOT + 48, 1 << 40 | 1, 0x40), (CONTEXTS + 256, 0, 0x41),
    (CONTEXTS + 256, DIRECTORY | 0x21, 0x42), (CONTEXTS + 256, DIRECTORY | 0x11, 0x42), (CONTEXTS + 264, 0xFFFFF, 0x43),
    (CONTEXTS + 256, 1 << 40 | 1, 0x50), (DIRECTORY, 0, 0x51), (DIRECTORY, PASIDS | 5, 0x52), (DIRECTORY, 1 << 40 | 1,
    0x58),
    (PASIDS, 0, 0x59), (PASIDS, TOP | 2 << 6 | 2 << 2 | 1 << 5 | 1, 0x5A), (PASIDS, TOP | 5 << 6 | 1, 0x5B),
    (PASIDS + 24, 1, 0x5A), (PASIDS, TOP | 2 << 6 | 1, 0x5B), (PASIDS, 1 << 40 | 2 << 6 | 2 << 2 | 1, 0x7B),
    (TOP, 0, 0x79), (TOP, 0x100083, 0x7A), (TOP, 1 << 40 | 3, 0x78), (PASIDS + 8, 1 << 25, 0x5A), (PASIDS + 8, 1 << 32,
    0x5A),
    (PASIDS + 8, 1 << 16, 0x5A), (PASIDS + 16, 2, 0x5A), (PASIDS + 8, 3 << 23, 0),
])  # fmt: skip
def test_scalable_tables(place: int, word: int, reason: int) -> None:
    machine = UnitMachine(**PLAIN)
    machine.map(TOP, 0x5000, DATA)
    machine.scalable(2)
    machine.store(place, word)
    assert machine.ask(0x5000)["reason"] == reason


def test_requests_with_a_pasid() -> None:
    machine = UnitMachine(**PLAIN)
    machine.map(TOP, 0x5000, DATA)
    machine.legacy()
    assert machine.ask(0x5000, pasid=5)["reason"] == 0x31
    machine.scalable(2, pasid=70)
    assert machine.ask(0x5000, pasid=70)["reason"] == 0x45
    machine.scalable(2, pasid=70, context=8)
    assert machine.ask(0x5000, pasid=70)["spa"] == DATA
    assert machine.ask(0x5000, pasid=1 << 13)["reason"] == 0x46


def test_scalable_mode_needs_the_capability() -> None:
    machine = UnitMachine(scalable=False)
    machine.scalable(2)
    assert machine.ask(0x5000)["reason"] == 0x30


def test_faulting_entries_are_kept_with_caching_mode_only() -> None:
    for caching_mode, reason in ((False, 0), (True, 6)):
        machine = UnitMachine(caching_mode=caching_mode, caches={"pde": None, "pdpte": None, "pml4e": None})
        machine.legacy()
        assert machine.ask(0x5000)["reason"] == 6
        machine.map(TOP, 0x5000, DATA)
        assert machine.ask(0x5000)["reason"] == reason


def test_what_is_kept_of_a_refusal_is_of_that_access_alone() -> None:
    """Caching mode: that a page cannot be written says nothing of reads, and a refused read nothing of writes."""
    machine = UnitMachine(caching_mode=True)
    machine.map(TOP, 0x5000, DATA, bits=READ, table=3)
    machine.legacy()
    assert [machine.ask(0x5000, access)["reason"] for access in (WRITE, READ, WRITE, READ)] == [5, 0, 5, 0]
    assert [machine.ask(0x6000, access)["reason"] for access in (READ, WRITE, READ, READ | 4)] == [6, 5, 6, 6]
    machine.map(TOP, 0x5000, DATA)
    assert machine.ask(0x5000, READ)["spa"] == DATA


def test_a_translation_is_stale_until_it_is_invalidated() -> None:
    machine = second()
    slot = 0x102000 + 8 * 5
    assert machine.ask(0x5000)["spa"] == DATA and machine.load(slot) == DATA | 3
    machine.store(slot, DATA + PAGE | 3)
    assert machine.ask(0x5000)["spa"] == DATA
    machine.unit.write(IVA, 8, 0x6000)
    machine.unit.write(IOTLB, 8, 1 << 63 | 3 << 60 | 7 << 32)
    assert machine.ask(0x5000)["spa"] == DATA
    machine.unit.write(IVA, 8, 0x4000 | 1)
    machine.unit.write(IOTLB, 8, 1 << 63 | 3 << 60 | 8 << 32)
    assert machine.ask(0x5000)["spa"] == DATA
    machine.unit.write(IOTLB, 8, 1 << 63 | 3 << 60 | 7 << 32)
    assert machine.ask(0x5000)["spa"] == DATA + PAGE


def test_a_context_is_stale_until_it_is_invalidated() -> None:
    machine = second()
    machine.ask(0x5000)
    machine.store(CONTEXTS + 16 * (SOURCE & 255), 0, 0)
    for selective in (1 << 63 | 3 << 61 | (SOURCE + 1) << 16 | 7, 1 << 63 | 2 << 61 | 8):
        machine.unit.write(CCMD, 8, selective)
        assert machine.ask(0x5000)["spa"] == DATA
    machine.unit.write(CCMD, 8, 1 << 63 | 3 << 61 | SOURCE << 16 | 7)
    assert machine.ask(0x5000)["reason"] == 2


def test_counts_and_geometry() -> None:
    """Eight pages in four ways of LRU, in order and twice: nothing hits. The first four again: all of them do."""
    machine = UnitMachine(caches={"iotlb": Geometry(1, 4), "pde": Geometry(1, 2)})
    for page in range(8):
        machine.map(TOP, page * PAGE, DATA + page * PAGE)
    machine.legacy()
    pages = np.arange(8, dtype=np.uint64) * np.uint64(PAGE)
    machine.unit.translate(SOURCE, np.concatenate([pages, pages, pages[4:]]))
    counts = machine.unit.counters()
    assert counts["structures"]["iotlb"] == (20, 4, 16, 12, 0)
    assert counts["structures"]["pde"] == (16, 15, 1, 0, 0)
    assert counts["second_level_references"] == 4 + 15
    assert sorted(page for page, _, _ in machine.unit.contents("iotlb")) == [4, 5, 6, 7]


def test_dma_reads_and_writes() -> None:
    machine = second()
    assert machine.unit.write_memory(SOURCE, 0x5FFE, b"abcd") == 2
    assert machine.unit.read_memory(SOURCE, 0x5FFE, 4) == b"ab\xff\xff"
    assert machine.unit.read(FSTS) & 2
    rows = np.arange(128, dtype=np.uint8).reshape(2, 64)
    assert machine.unit.write_batch(SOURCE, np.array([0x5000, 0x5100], np.uint64), rows.data) == 128
    assert machine.memory.read(DATA + 0x100, 64) == rows[1].tobytes()
