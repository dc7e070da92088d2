"""Fault conditions and what goes with them, by the tables of the VT-d specification (revision 5.10: 7.1.3, 5.1.4.1)."""

from __future__ import annotations

import pytest

from hvcore._native.iommu import PRESETS

from .unit_machine import (
    CCMD,
    DATA,
    DIRECTORY,
    FIRST,
    FSTS,
    IOTLB,
    IQERCD,
    IRE,
    IRT,
    IRTA,
    IRTP,
    PAGE,
    PASIDS,
    READ,
    RECORDS,
    ROOT,
    RTADDR,
    RTP,
    SOURCE,
    TE,
    TOP,
    WRITE,
    UnitMachine,
)  # fmt: skip

CAP, ECAP = PRESETS["full"]


def nested(**arguments: object) -> UnitMachine:
    """IOVA 5000h: 6000h by the first level, DATA by the second; the first level's tables lie where they are."""
    machine = UnitMachine(caches=None, **arguments)
    machine.map(FIRST, 0x5000, 0x6000, bits=7, table=7)
    for page in (FIRST, *range(0x100000, machine.free, PAGE)):
        machine.map(TOP, page, page)
    machine.map(TOP, 0x6000, DATA)
    machine.scalable(3)
    return machine


def second_slot(machine: UnitMachine, page: int) -> int:
    return machine.map(TOP, page, page)


@pytest.mark.parametrize("page, bits, access, reason", [
    (FIRST, 0, READ, 0x79), (FIRST, 2, READ, 0x75), (FIRST, 1, READ, 0x77), (FIRST, 1 << 20 | 3 | 1 << 45, READ, 0x7A),
    (0x100000, 0, READ, 0x79), (0x100000, 2, READ, 0x76), (0x6000, 0, READ, 0x79), (0x6000, 0, WRITE, 0x79),
    (0x6000, 1, WRITE, 0x85), (0x6000, 2, READ, 0x86), (0x6000, 2, READ | 4, 0),
])  # fmt: skip
def test_the_second_level_beneath_a_first(page: int, bits: int, access: int, reason: int) -> None:
    """SFS.6 to SFS.8 are a lack of one right; no right at all is SSS.2, whatever was to be read."""
    machine = nested(host_address_bits=40)
    machine.store(second_slot(machine, page), page & ~0xFFF | bits)
    assert machine.ask(0x5000, access)["reason"] == reason


def test_rights_that_meet_nowhere_are_no_page() -> None:
    """SSS.2: the AND of all levels grants neither; legacy mode has LGN.2 and LGN.3."""
    machine = UnitMachine(caches=None)
    machine.map(TOP, 0x5000, DATA, bits=1, table=2)
    machine.scalable(2)
    assert machine.ask(0x5000)["reason"] == machine.ask(0x5000, WRITE)["reason"] == 0x79
    machine.legacy()
    assert (machine.ask(0x5000)["reason"], machine.ask(0x5000, WRITE)["reason"]) == (6, 5)


def test_addresses_behind_the_second_level() -> None:
    """SFS.5 for what an entry of the first level names, SPT.4.4 for its top table; SGN.5 is a second level's alone."""
    machine = nested(host_address_bits=52)
    machine.map(FIRST, 0x7000, 1 << 48, bits=7, table=7)
    assert machine.ask(0x7000)["reason"] == 0x74
    machine.store(FIRST, 1 << 48 | 7)
    assert machine.ask(0x5000)["reason"] == 0x74
    machine.store(PASIDS + 16, 1 << 39)
    assert machine.ask(0x5000)["reason"] == 0x79                    # below 48 bits, but the second level has nothing
    machine.store(PASIDS + 16, 1 << 48)
    assert machine.ask(0x5000)["reason"] == 0x5B
    machine.store(PASIDS, TOP | 2 << 2 | 2 << 6 | 1)
    assert machine.ask(1 << 48)["reason"] == 0x84


def test_tables_below_marks_have_to_be_writable() -> None:
    """SSADE: reading an entry of the first level needs both rights (VT-d 3.8.1)."""
    machine = nested()
    machine.store(PASIDS, TOP | 2 << 2 | 3 << 6 | 1 << 9 | 1)
    assert machine.ask(0x5000)["reason"] == 0
    slot = second_slot(machine, FIRST)
    machine.store(slot, FIRST | 1)
    assert machine.ask(0x5000)["reason"] == 0x77
    machine.store(slot, 1 << 40 | 1)                                    # memory there is not even asked for
    assert machine.ask(0x5000)["reason"] == 0x77


def test_marks_need_a_coherent_walk() -> None:
    """SFS.9: without SMPWC accessed bits cannot be set; SSADE and EAFE, which need it, are reserved."""
    machine = UnitMachine(caches=None, ecap=ECAP & ~(1 << 48))
    slot = machine.map(FIRST, 0x5000, DATA, bits=7, table=7)
    machine.scalable(1)
    assert machine.ask(0x5000)["reason"] == 0x90
    for table in (FIRST, *range(0x100000, machine.free, PAGE)):
        machine.store(table, machine.load(table) | 0x20)
    machine.store(slot, DATA | 0x27)
    assert machine.ask(0x5000)["spa"] == DATA and machine.ask(0x5000, WRITE)["reason"] == 0x90
    machine.scalable(1, q2=1 << 7)
    assert machine.ask(0x5000)["reason"] == 0x5A
    machine.scalable(2, q0=1 << 9)
    assert machine.ask(0x5000)["reason"] == 0x5A


@pytest.mark.parametrize("bit, context, q0, q1, q2, reason", [
    (2, 4, 0, 0, 0, 0x42), (40, 8, 0, 0, 0, 0x42), (49, 0, 0, 0, 0, 0x42), (53, 0, 0, 0, 0, 0x42),
    (0, 16, 0, 0, 0, 0x42), (0, 32, 0, 0, 0, 0x42), (0, 64, 0, 0, 0, 0x42), (7, 0, 0, 1 << 24, 0, 0x5A),
    (48, 0, 0, 1 << 23, 0, 0x5A),
    (31, 0, 0, 0, 1, 0x5A), (34, 0, 0, 0, 1 << 7, 0x5A), (45, 0, 1 << 9, 0, 0, 0x5A), (47, 0, 0, 0, 1 << 4, 0x5A),
    (47, 0, 0, 0, FIRST, 0x5A), (0, 0, 1 << 10, 0, 0, 0x5A), (0, 0, 0, 1 << 31, 0, 0x5A), (0, 0, 0, 0, 1 << 8, 0x5A),
    (0, 0, 0, 0, 3 << 5, 0), (46, 0, 0, 0, 0, 0x5B), (0, 0, 0, 3 << 23, 0x9D, 0),
])  # fmt: skip
def test_fields_of_what_a_unit_has_not_got(bit: int, context: int, q0: int, q1: int, q2: int, reason: int) -> None:
    """A second-level translation of PASID 5 with one field set, and one bit of ECAP cleared (VT-d 9.4, 9.6)."""
    machine = UnitMachine(caches=None, ecap=ECAP & ~(1 << bit if bit else 0))
    machine.map(TOP, 0x5000, DATA)
    machine.scalable(2, context=context, pasid=5, q0=q0)
    machine.store(PASIDS + 5 * 64 + 8, 7 | q1, q2)
    machine.store(0x20000 + 32 * 8 + 8, 1 << 20 if bit == 53 else 5)
    if bit == 53:
        machine.store(PASIDS, *(machine.load(PASIDS + 5 * 64 + 8 * i) for i in range(8)))
    assert machine.ask(0x5000)["reason"] == reason


def test_requests_with_a_pasid() -> None:
    """SCT.6, SCT.7, SCT.9, SGN.10 and SCT.4.2; RTA.2 comes before anything is read."""
    machine = UnitMachine(caches=None, ecap=ECAP & ~(0x1F << 35) | 7 << 35)        # PASIDs of eight bits
    machine.map(TOP, 0x5000, DATA)
    machine.scalable(2, pasid=5)
    machine.store(PASIDS, *(machine.load(PASIDS + 5 * 64 + 8 * i) for i in range(8)))
    assert machine.ask(0x5000, pasid=5)["reason"] == 0x45
    machine.scalable(2, pasid=5, context=8)
    assert machine.ask(0x5000, pasid=5)["spa"] == DATA
    assert machine.ask(0x5000, pasid=0)["reason"] == 0x48 and machine.ask(0x5000, pasid=256)["reason"] == 0x89
    machine = UnitMachine(caches=None)
    machine.scalable(2, context=8)
    assert machine.ask(0x5000, pasid=8192)["reason"] == 0x46
    machine.store(0x20000 + 32 * 8 + 8, 8192)
    assert machine.ask(0x5000, pasid=5)["reason"] == machine.ask(0x5000)["reason"] == 0x43
    machine.store(ROOT + 48, 0)
    machine.start(ROOT)
    found = machine.ask(0x5000, pasid=5)
    assert (found["reason"], found["table_references"]) == (0x31, 0)


def test_supervisor_requests_need_sre_whatever_translates_them() -> None:
    """SPT.6; the record of one with a PASID says PRIV (VT-d 11.4.7.6)."""
    for kind, q2 in ((1, 0), (2, 0), (3, 0), (4, 0)):
        machine = UnitMachine(caches=None)
        machine.scalable(kind, context=8, pasid=5, q2=q2)
        assert machine.ask(0x5000, READ | 8, pasid=5)["reason"] == 0x5D
        assert machine.record()[1] >> 16 & 0xFFFF == 0xA000             # PP, PRIV
        assert machine.ask(0x5000, READ, pasid=5)["reason"] != 0x5D
    machine.scalable(4, context=8, pasid=5, q2=1)
    assert machine.ask(0x5000, READ | 8, pasid=5)["spa"] == 0x5000


def test_translated_requests_and_those_that_pass_end_with_the_host() -> None:
    """LGN.1.2, LGN.1.3, LGN.4, SGN.4.1, SGN.4.2, SGN.8."""
    machine = UnitMachine(caches=None, host_address_bits=40)
    machine.legacy(kind=1)
    assert machine.ask(1 << 40, at=2)["reason"] == 4 and machine.ask(0xFEE00000, at=2)["reason"] == 0xE
    machine.legacy(kind=2)
    assert machine.ask(1 << 40)["reason"] == 4
    machine.legacy(kind=2, width=1)
    assert machine.ask(1 << 39)["reason"] == 4
    machine.scalable(4, context=12, pasid=5)
    machine.store(PASIDS, *(machine.load(PASIDS + 5 * 64 + 8 * i) for i in range(8)))
    assert machine.ask(1 << 40)["reason"] == machine.ask(1 << 40, at=2)["reason"] == 0x83
    assert machine.ask(0xFEE00000, WRITE, pasid=5)["reason"] == machine.ask(0xFEE00000, at=2)["reason"] == 0x87


def test_translation_requests_are_answered() -> None:
    """No fault is recorded for what a translation request is told as no rights; for errors of tables one is."""
    machine = UnitMachine(caches=None)
    machine.legacy(kind=1)
    assert machine.ask(0x5000, at=1)["reason"] == 6 and machine.unit.read(FSTS) == 0
    machine.store(TOP, 1 << 11 | 3)
    assert machine.ask(0x5000, at=1)["reason"] == 0xC and machine.unit.read(FSTS) == 2
    assert machine.record()[1] >> 60 & 3 == 1


@pytest.mark.parametrize("place, word, reason, recorded", [
    (0x20000 + 256, DIRECTORY | 2, 0x41, False), (0x20000 + 256, 1 << 40 | 3, 0x50, True), (DIRECTORY, 2, 0x51, False),
    (DIRECTORY, 1 << 40 | 3, 0x58, True), (PASIDS, 2, 0x59, False), (PASIDS, TOP | 5 << 6 | 3, 0x5B, False),
    (ROOT + 48, 3, 0x3A, True),
])  # fmt: skip
def test_which_faults_heed_fpd(place: int, word: int, reason: int, recorded: bool) -> None:
    machine = UnitMachine(caches=None)
    machine.scalable(2)
    machine.store(place, word)
    assert machine.ask(0x5000)["reason"] == reason and machine.unit.read(FSTS) >> 1 & 1 == recorded


@pytest.mark.parametrize("widths, bits", [(1, 39), (3, 48), (4, 57), (7, 57), (0, 57)])
def test_fi_has_the_bits_of_the_largest_agaw(widths: int, bits: int) -> None:
    """VT-d 11.4.7.6; MGAW says nothing of it."""
    machine = UnitMachine(caches=None, cap=CAP & ~(7 << 9 | 63 << 16) | widths << 9 | 44 << 16)
    machine.legacy()
    machine.ask(0xF123_4567_89AB_CDEF)
    assert machine.record()[0] == 0xF123_4567_89AB_C000 & (1 << bits) - 1


@pytest.mark.parametrize("access, t1, t2", [(WRITE, 0, 0), (READ, 1, 0), (READ | 4, 1, 0), (READ | WRITE, 1, 1)])
def test_the_type_of_a_refused_request(access: int, t1: int, t2: int) -> None:
    """T1 and T2 of a record: write, read, atomic operation (VT-d 11.4.7.6)."""
    machine = UnitMachine(caches=None)
    machine.legacy()
    machine.ask(0x5000, access)
    high = machine.record()[1]
    assert (high >> 62 & 1, high >> 28 & 1, high & 0xFFFF) == (t1, t2, SOURCE)


def test_what_is_no_interrupt_at_an_interrupt_address() -> None:
    """VT-d 3.15: reads of some bytes, atomic operations, and writes of other than a doubleword are refused with 29h."""
    machine = UnitMachine(caches=None)
    unit = machine.unit
    assert unit.write_memory(SOURCE, 0xFEE00000, bytes(8)) == 0 and unit.read(FSTS) == 0      # nothing is translated
    machine.legacy()
    for iova, size in ((0xFEE00000, 8), (0xFEE00000, 2), (0xFEE00002, 4), (0xFEEFFFFC, 1)):
        faults = unit.counters()["faults"]
        assert unit.write_memory(SOURCE, iova, bytes(size)) == 0
        index = unit.read(FSTS) >> 8 & 255
        high = machine.record(index)[1]
        assert (high & 0xFFFF, high >> 32 & 0xFF, high >> 62) == (SOURCE, 0x29, 2), (iova, size)
        assert unit.counters()["faults"] == faults + 1
        unit.write(RECORDS + 16 * index + 12, 4, 1 << 31)
    faults = unit.counters()["faults"]
    assert unit.write_memory(SOURCE, 0xFEE00000, bytes(4)) == 4                 # an interrupt request
    assert machine.ask(0xFEE00000, READ | 4)["reason"] == 0 and unit.counters()["faults"] == faults
    assert machine.ask(0xFEE00000, READ)["reason"] == machine.ask(0xFEE00000, 3)["reason"] == 0x29


def test_the_index_of_records_starts_anew_when_all_is_off() -> None:
    """VT-d 7.2.1."""
    machine = UnitMachine()
    machine.legacy()
    for page in range(3):
        machine.ask(page << 12)
    for index in range(3):
        machine.unit.write(RECORDS + 16 * index + 12, 4, 1 << 31)
    machine.command(0, TE)
    machine.command(TE)
    machine.ask(0x7000)
    assert machine.unit.read(FSTS) == 2 and machine.record()[0] == 0x7000


def test_turning_off_forgets() -> None:
    """TE and IRE of a unit with scalable mode and ESIRTPS (VT-d 11.4.4.1)."""
    machine = UnitMachine()
    slot = machine.map(TOP, 0x5000, DATA)
    machine.legacy()
    assert machine.ask(0x5000)["spa"] == DATA
    machine.store(slot, DATA + PAGE | 3)
    machine.command(0, TE)
    machine.command(TE)
    assert machine.ask(0x5000)["spa"] == DATA + PAGE
    machine.store(IRT, 0x41 << 16 | 1, 0)
    machine.unit.write(IRTA, 8, IRT | 7)
    machine.command(IRTP)
    machine.command(IRE)
    assert machine.unit.accept_interrupt(SOURCE, 0xFEE00010, 0)[1]["vector"] == 0x41
    machine.store(IRT, 0x42 << 16 | 1, 0)
    machine.command(0, IRE)
    machine.command(IRE)
    assert machine.unit.accept_interrupt(SOURCE, 0xFEE00010, 0)[1]["vector"] == 0x42


def test_scalable_mode_has_no_invalidation_by_register() -> None:
    """CAIG and IAIG 0: an incorrect request, which is ignored (VT-d 11.4.6)."""
    machine = UnitMachine()
    slot = machine.map(TOP, 0x5000, DATA)
    machine.scalable(2)
    machine.ask(0x5000)
    machine.store(slot, DATA + PAGE | 3)
    machine.unit.write(CCMD, 8, 1 << 63 | 1 << 61)
    machine.unit.write(IOTLB, 8, 1 << 63 | 1 << 60)
    assert machine.unit.read(CCMD, 8) >> 59 == 4 and machine.unit.read(IOTLB, 8) >> 57 & 0x43 == 0
    assert machine.ask(0x5000)["spa"] == DATA
    machine.unit.write(RTADDR, 8, ROOT)                                 # takes effect with SRTP
    machine.unit.write(CCMD, 8, 1 << 63 | 1 << 61)
    assert machine.unit.read(CCMD, 8) >> 59 == 4
    machine.command(RTP)
    machine.unit.write(CCMD, 8, 1 << 63 | 1 << 61)
    assert machine.unit.read(CCMD, 8) >> 59 == 5


def test_caching_mode_is_not_for_first_levels() -> None:
    """VT-d 6.2.4.1."""
    machine = UnitMachine(caching_mode=True)
    machine.scalable(1)
    assert machine.ask(0x5000)["reason"] == 0x71
    machine.map(FIRST, 0x5000, DATA, bits=7, table=7)
    assert machine.ask(0x5000)["spa"] == DATA


def test_posted_descriptors() -> None:
    """Reserved fields of the entry (24h) and of the descriptor (28h); source validation comes first (26h)."""
    machine = UnitMachine(host_address_bits=40)
    machine.unit.write(IRTA, 8, IRT | 7)
    machine.command(IRTP)
    machine.command(IRE)
    posted = 1 << 15 | 0x41 << 16 | (DATA >> 6) << 38 | 1

    def post(low: int, high: int = 0) -> object:
        machine.store(IRT, low, high)
        return machine.unit.accept_interrupt(SOURCE, 0xFEE00010, 0)[1]

    assert post(posted, 1 << 40) == 0x24                                # bit 40 of the descriptor's address
    assert post(posted | 1 << 5, 1 << 18 | SOURCE + 1) == 0x26
    assert post(posted | 1 << 5, 1 << 18 | SOURCE) == 0x24
    for quadword, word in ((4, 1 << 2), (4, 1 << 24), (4, 1 << 32), (4, 1 << 48), (5, 1), (6, 1), (7, 1 << 63)):
        machine.store(DATA, 0, 0, 0, 0, 0, 0, 0, 0)
        machine.store(DATA + 8 * quadword, word)
        assert post(posted) == 0x28, (quadword, word)
    machine.store(DATA, 0, 0, 0, 0, 0x42 << 16 | 3 << 40, 0, 0, 0)
    found = machine.unit.accept_interrupt(SOURCE, 0xFEE00010, 0)
    assert found[0] == "send" and (found[1]["vector"], found[1]["destination"]) == (0x42, 3)
    assert machine.load(DATA + 8) == 1 << 1 and machine.unit.read(IQERCD) == 0
