"""Fault recording, the fault event, the invalidation queue and its event, by the words of the specification."""

from __future__ import annotations

import pytest

from hvcore._native.iommu import PRESETS

from .unit_machine import (
    DATA,
    FECTL,
    FSTS,
    ICS,
    IECTL,
    IQERCD,
    IQH,
    IQT,
    PAGE,
    QIE,
    READ,
    RECORDS,
    ROOT,
    SOURCE,
    STATUS,
    TOP,
    WRITE,
    UnitMachine,
)  # fmt: skip

MESSAGE, HIGH, ADDRESS = 0x41, 0x100, 0xFEE01000


def faulting(**arguments: object) -> UnitMachine:
    machine = UnitMachine(**arguments)
    machine.legacy()
    for control in (FECTL, IECTL):
        for offset, value in ((4, MESSAGE), (8, ADDRESS), (12, HIGH)):
            machine.unit.write(control + offset, 4, value)
    return machine


def test_a_record() -> None:
    """FI, SID, FR, T, and F; a read has T set."""
    machine = faulting()
    machine.ask(0x123456)
    machine.ask(0x123456, WRITE)
    assert machine.record(0) == (0x123000, 1 << 63 | 1 << 62 | 6 << 32 | SOURCE)
    assert machine.record(1) == (0x123000, 1 << 63 | 5 << 32 | SOURCE)
    assert machine.unit.read(FSTS) == 2


def test_a_record_of_a_request_with_pasid() -> None:
    machine = UnitMachine()
    machine.scalable(2, context=8, pasid=0x12)
    machine.ask(0x1000, pasid=0x12)
    assert machine.record(0) == (0x1000, 1 << 63 | 1 << 62 | 0x12 << 40 | 0x79 << 32 | 1 << 31 | SOURCE)


def test_equal_faults_merge_while_the_first_is_pending() -> None:
    machine = faulting()
    machine.ask(0x5000)
    machine.ask(0x5FFF)
    assert machine.record(1)[1] == 0 and machine.unit.counters()["faults_merged"] == 1


def test_overflow() -> None:
    """One record: the second fault sets PFO and is dropped, and nothing more is recorded until PFO is cleared."""
    machine = faulting(preset="qemu-q35")
    machine.ask(0x5000)
    machine.ask(0x6000)
    assert machine.unit.read(FSTS) == 3 and machine.record(0)[0] == 0x5000
    machine.unit.write(RECORDS + 12, 4, 1 << 31)
    machine.ask(0x7000)
    assert machine.unit.read(FSTS) == 1 and machine.record(0)[1] >> 63 == 0
    machine.unit.write(FSTS, 4, 1)
    machine.ask(0x7000)
    assert machine.record(0)[0] == 0x7000 and machine.unit.counters()["faults_overflowed"] == 2


def test_the_index_of_the_first_pending_record() -> None:
    machine = faulting()
    machine.ask(0x5000)
    machine.unit.write(RECORDS + 12, 4, 1 << 31)
    assert machine.unit.read(FSTS) & 2 == 0
    machine.ask(0x6000)
    machine.ask(0x7000)
    assert machine.unit.read(FSTS) == 2 | 1 << 8


def test_fault_processing_disable() -> None:
    """FPD: blocked, not recorded."""
    machine = UnitMachine()
    machine.legacy(low=3)
    assert machine.ask(0x5000)["reason"] == 6
    assert machine.unit.read(FSTS) == 0 and machine.unit.counters()["faults_unrecorded"] == 1


def test_the_fault_event_is_sent_once() -> None:
    machine = faulting()
    machine.unit.write(FECTL, 4, 0)
    machine.ask(0x5000)
    machine.ask(0x6000)
    assert machine.unit.messages() == [(HIGH << 32 | ADDRESS, MESSAGE)]
    assert machine.unit.read(FECTL) == 0


def test_a_masked_fault_event_waits() -> None:
    machine = faulting()
    machine.ask(0x5000)
    assert machine.unit.read(FECTL) == 3 << 30 and machine.unit.messages() == []
    machine.unit.write(FECTL, 4, 0)
    assert machine.unit.read(FECTL) == 0 and len(machine.unit.messages()) == 1


def test_a_pending_event_goes_with_its_last_cause() -> None:
    machine = faulting()
    machine.ask(0x5000)
    machine.unit.write(RECORDS + 12, 4, 1 << 31)
    assert machine.unit.read(FECTL) == 1 << 31


def wait(status: int = 2, flags: int = 2) -> tuple[int, int]:
    return 5 | flags << 4 | status << 32, STATUS


def test_waits_write_their_status_in_order() -> None:
    machine = UnitMachine()
    machine.queue()
    machine.submit((1 | 1 << 4, 0), wait(7), wait(8))
    assert machine.load(STATUS) & 0xFFFFFFFF == 8 and machine.unit.read(IQH, 8) == machine.unit.read(IQT, 8) == 48


def test_the_queue_wraps() -> None:
    machine = UnitMachine()
    machine.queue()
    for value in range(300):
        machine.submit(wait(value))
    assert machine.load(STATUS) & 0xFFFFFFFF == 299 and machine.unit.read(IQH) == 300 % 256 * 16


def test_wide_descriptors() -> None:
    machine = UnitMachine()
    machine.queue(width=1)
    machine.submit((*wait(5), 0, 0))
    assert machine.load(STATUS) & 0xFFFFFFFF == 5 and machine.unit.read(IQH) == 32
    machine.submit((*wait(6), 1, 0))
    assert machine.unit.read(IQERCD) == 4 and machine.unit.read(IQH) == 32


def test_the_completion_event() -> None:
    machine = faulting()
    machine.queue()
    machine.submit(wait(0, 1))
    assert machine.unit.read(ICS) == 1 and machine.unit.read(IECTL) == 3 << 30
    machine.unit.write(IECTL, 4, 0)
    assert machine.unit.messages() == [(HIGH << 32 | ADDRESS, MESSAGE)]
    machine.submit(wait(0, 1))
    assert machine.unit.messages() == []                            # IWC is still set
    machine.unit.write(ICS, 4, 1)
    machine.submit(wait(0, 1))
    assert len(machine.unit.messages()) == 1


@pytest.mark.parametrize("words, error", [
    ((0, 0), 3), ((9, 0), 3), ((0xE, 0), 3), ((1, 0), 4), ((1 | 1 << 4 | 1 << 6, 0), 4), ((1 | 1 << 4, 1), 4), ((2,
    0), 4),
    ((2 | 1 << 4 | 1 << 8, 0), 4), ((2 | 3 << 4, 0x80), 4), ((2 | 3 << 4, 19), 4), ((4 | 1 << 5, 0), 4), ((4, 1), 4),
    ((5 | 1 << 8, 0), 4), ((5 | 2 << 4, 1), 4), ((5 | 1 << 7, 0), 4), ((3 | 1 << 4, 0), 4), ((3 | 1 << 12, 0), 4),
    ((3 | 1 << 52, 0), 4), ((6 | 2 << 4, 0), 3), ((7, 0), 3), ((8, 0), 3),
])  # fmt: skip
def test_bad_descriptors_stop_the_queue(words: tuple[int, int], error: int) -> None:
    """IQE and IQEI, the head at the descriptor; cleared, the queue goes on with what is there by then."""
    machine = faulting()
    machine.unit.write(FECTL, 4, 0)
    machine.queue()
    machine.submit(wait(1), words, wait(2))
    assert (machine.unit.read(FSTS), machine.unit.read(IQERCD), machine.unit.read(IQH)) == (1 << 4, error, 16)
    assert machine.load(STATUS) & 0xFFFFFFFF == 1 and len(machine.unit.messages()) == 1
    machine.store(0x50000 + 16, *wait(3))
    machine.unit.write(FSTS, 4, 1 << 4)
    assert machine.load(STATUS) & 0xFFFFFFFF == 2 and machine.unit.read(IQH) == 48


@pytest.mark.parametrize("tail, base, error", [(PAGE, 0x50000, 1), (16, 0x50800, 6), (16, 1 << 40, 2)])
def test_bad_queues(tail: int, base: int, error: int) -> None:
    machine = UnitMachine()
    machine.queue()
    machine.unit.write(0x90, 8, base)
    machine.unit.write(IQT, 8, tail)
    assert machine.unit.read(IQERCD) == error and machine.unit.read(FSTS) == 1 << 4


def test_wide_descriptors_need_scalable_mode() -> None:
    machine = UnitMachine(preset="qemu-q35")
    machine.unit.write(0x90, 8, 0x50800)
    machine.command(QIE)
    machine.unit.write(IQT, 8, 32)
    assert machine.unit.read(IQERCD) == 5


@pytest.mark.parametrize("words, error", [
    ((6 | 1 << 4, 0), 4), ((6 | 3 << 4, 0x100), 4), ((7 | 2 << 4, 0), 4), ((7, 1), 4), ((8, 4), 4), ((8, 1), 0),
    ((8 | 1 << 13, 0), 4), ((6 | 2 << 4 | 1 << 52, 0), 4), ((7 | 1 << 6, 0), 4), ((9, 0), 3), ((10, 0), 3),
    ((6 | 3 << 4, 63), 0), ((2 | 3 << 4, 19), 4), ((2 | 3 << 4, 18), 0),
])  # fmt: skip
def test_descriptors_of_scalable_mode(words: tuple[int, int], error: int) -> None:
    """VT-d 6.5.2. Ranges of a PASID may have any address mask, whatever MAMV says (11.4.2); a driver with a first level
    uses them."""
    machine = UnitMachine()
    machine.scalable(1)
    machine.queue(1)
    machine.submit((*words, 0, 0))
    assert (machine.unit.read(FSTS), machine.unit.read(IQERCD)) == (1 << 4 if error else 0, error)


def test_scalable_mode_needs_wide_descriptors() -> None:
    """IQEI 5 and 7 (VT-d 11.4.9.9), once there is something to be fetched."""
    machine = UnitMachine()
    machine.scalable(1)
    machine.queue()
    assert machine.unit.read(FSTS) == 0
    machine.submit(wait(1))
    assert (machine.unit.read(FSTS), machine.unit.read(IQERCD), machine.unit.read(IQH)) == (1 << 4, 5, 0)
    machine.command(0, QIE)
    machine.unit.write(FSTS, 4, 1 << 4)
    for mode in (2, 3):
        machine.start(ROOT | mode << 10)
        machine.queue(1)
        machine.submit((*wait(1), 0, 0))
        assert machine.unit.read(IQERCD) == 7
        machine.command(0, QIE)
        machine.unit.write(FSTS, 4, 1 << 4)


def test_pages_need_the_capability() -> None:
    """VT-d 6.5.2.3: without PSI page-selective descriptors are invalid."""
    machine = UnitMachine(cap=PRESETS["full"][0] & ~(1 << 39))
    machine.queue()
    machine.submit((2 | 3 << 4, 0x5000))
    assert machine.unit.read(IQERCD) == 4


def test_a_status_address_ends_at_the_host_width() -> None:
    machine = UnitMachine(host_address_bits=40)
    machine.queue()
    machine.submit((5 | 2 << 4 | 9 << 32, 1 << 40 | STATUS))
    assert machine.load(STATUS) & 0xFFFFFFFF == 9


def test_a_status_address_outside_memory_is_counted() -> None:
    machine = UnitMachine(host_address_bits=46)
    machine.queue()
    machine.submit((5 | 2 << 4, 1 << 40))
    assert machine.unit.counters()["status_writes_refused"] == 1 and machine.unit.read(FSTS) == 0


@pytest.mark.parametrize("words, gone", [
    ((2 | 1 << 4, 0), True), ((2 | 2 << 4 | 7 << 16, 0), True), ((2 | 2 << 4 | 8 << 16, 0), False),
    ((2 | 3 << 4 | 7 << 16, 0x5000), True), ((2 | 3 << 4 | 7 << 16, 0x6000), False), ((2 | 3 << 4 | 7 << 16, 0x4001),
    True),
    ((2 | 3 << 4 | 7 << 16, 0x5040), True), ((1 | 1 << 4, 0), False), ((6 | 2 << 4 | 7 << 16, 0), False),
    ((3 | SOURCE << 32, 0), False),
])  # fmt: skip
def test_what_each_invalidation_reaches(words: tuple[int, int], gone: bool) -> None:
    """Of a page of domain 7 that a second level maps."""
    machine = UnitMachine()
    slot = machine.map(TOP, 0x5000, DATA)
    machine.legacy()
    machine.queue()
    machine.ask(0x5000)
    machine.store(slot, DATA + PAGE | 3)
    machine.submit(words, wait())
    assert machine.ask(0x5000)["spa"] == DATA + PAGE * gone


@pytest.mark.parametrize("words, gone", [
    ((6 | 2 << 4 | 7 << 16, 0), True), ((6 | 2 << 4 | 7 << 16 | 1 << 32, 0), False), ((6 | 3 << 4 | 7 << 16, 0x5000),
    True),
    ((6 | 3 << 4 | 8 << 16, 0x5000), False), ((2 | 2 << 4 | 7 << 16, 0), True), ((2 | 3 << 4 | 7 << 16, 0x9000), True),
    ((2 | 3 << 4 | 8 << 16, 0x5000), False), ((6 | 3 << 4 | 7 << 16, 0x6000), False),
    ((6 | 3 << 4 | 7 << 16, 63), True),
])  # fmt: skip
def test_what_reaches_a_first_level(words: tuple[int, int], gone: bool) -> None:
    """VT-d tables 23 and 24: pages of the second level take the whole of a domain's first-level translations along."""
    machine = UnitMachine()
    slot = machine.map(0x90000, 0x5000, DATA, bits=7, table=7)
    machine.scalable(1)
    machine.queue(1)
    machine.ask(0x5000)
    machine.store(slot, DATA + PAGE | 7)
    machine.submit((*words, 0, 0), (*wait(), 0, 0))
    assert machine.ask(0x5000)["spa"] == DATA + PAGE * gone


@pytest.mark.parametrize("words, gone", [
    ((7 | 3 << 4, 0), True), ((7 | 7 << 16, 0), True), ((7 | 8 << 16, 0), False), ((7 | 1 << 4 | 7 << 16, 0), True),
    ((7 | 1 << 4 | 7 << 16 | 1 << 32, 0), False), ((1 | 1 << 4, 0), False),
])  # fmt: skip
def test_what_reaches_a_pasid_entry(words: tuple[int, int], gone: bool) -> None:
    machine = UnitMachine()
    machine.map(TOP, 0x5000, DATA)
    machine.scalable(2)
    machine.queue(1)
    machine.ask(0x5000)
    machine.store(0x40000, 0)
    machine.submit((*words, 0, 0), (*wait(), 0, 0))
    assert (machine.ask(0x5000, READ)["reason"] == 0x59) == gone


@pytest.mark.parametrize("kind", [2, 4])
@pytest.mark.parametrize("words, gone", [
    ((6 | 2 << 4 | 7 << 16, 0), True), ((6 | 2 << 4 | 8 << 16, 0), False), ((6 | 3 << 4 | 7 << 16, 0x5000), False),
    ((2 | 3 << 4 | 7 << 16, 0x5000), True), ((2 | 3 << 4 | 7 << 16, 0x6000), False),
])  # fmt: skip
def test_a_pasid_of_a_second_level_is_invalidated_too(kind: int, words: tuple[int, int], gone: bool) -> None:
    """VT-d table 24, and 28: what software does after it has changed SSPTPTR of a PASID entry that stays present."""
    machine = UnitMachine()
    slot = machine.map(TOP, 0x5000, DATA)
    machine.scalable(2)
    machine.queue(1)
    assert machine.ask(0x5000)["spa"] == DATA
    if kind == 4:
        machine.store(0x40000, TOP | 2 << 2 | 4 << 6 | 1)
    machine.store(slot, DATA + PAGE | 3)
    machine.submit((7 | 1 << 4 | 7 << 16, 0, 0, 0), (*words, 0, 0), (*wait(), 0, 0))
    assert machine.ask(0x5000)["spa"] == (0x5000 if kind == 4 else DATA + PAGE * gone)


def test_a_hint_keeps_the_tables_of_the_second_level_alone() -> None:
    """IH of a page-selective descriptor (VT-d 6.5.2.3): paging-structure caches of a first level forget nonetheless."""
    for kind, top, words, gone in (
            (2, TOP, 2 | 3 << 4, False), (1, 0x90000, 2 | 3 << 4, True), (1, 0x90000, 6 | 3 << 4, False)):
        machine = UnitMachine()
        machine.map(top, 0x5000, DATA, bits=7, table=7)
        machine.scalable(kind)
        machine.queue(1)
        machine.ask(0x5000)                                         # sets accessed bits
        machine.submit((2 | 1 << 4, 0, 0, 0))
        machine.ask(0x5000)
        machine.store(top, 0)                                       # the top entry
        machine.submit((words | 7 << 16, 0x5040, 0, 0), (*wait(), 0, 0))
        assert (machine.ask(0x5000)["reason"] != 0) == gone, (kind, words)


def test_presets_have_room_for_their_registers() -> None:
    for preset in PRESETS:
        assert UnitMachine(preset=preset).unit.region_size == PAGE
    with pytest.raises(ValueError, match="registers"):
        UnitMachine(cap=PRESETS["full"][0] & ~(0x3FF << 24))
