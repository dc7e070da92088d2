"""Interrupt remapping, by the words of the specification: formats, validation, fault reasons, posting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hvcore._native.iommu import PRESETS
from hvcore.hypervisor import Hypervisor
from hvcore.iommu import RemappingUnit

from .unit_machine import CFI, GCMD, GSTS, IRE, IRT, IRTA, IRTP, SOURCE, UnitMachine

PID = 0x300000


def address(index: int, *, shv: bool = False) -> int:
    return 0xFEE00000 | (index & 0x7FFF) << 5 | 1 << 4 | shv << 3 | (index >> 15) << 2


def remapping(size: int = 3, *, eime: bool = False, **arguments: object) -> UnitMachine:
    machine = UnitMachine(**arguments)
    machine.unit.write(IRTA, 8, IRT | eime << 11 | size)
    assert machine.command(IRTP) & IRTP
    assert machine.command(IRE) & IRE
    return machine


def entry(machine: UnitMachine, index: int, low: int, high: int = 0) -> None:
    machine.store(IRT + 16 * index, low, high)


def ask(machine: UnitMachine, where: int, data: int = 0, source: int = SOURCE) -> tuple[str, Any]:
    return machine.unit.accept_interrupt(source, where, data)


def test_off_and_compatibility() -> None:
    """Without IRE everything passes; with it the compatibility format passes with CFI, unless EIME."""
    machine = UnitMachine()
    kind, message = ask(machine, 0xFEE05000, 0x41)
    assert kind == "send" and (message["destination"], message["vector"]) == (5, 0x41)
    machine = remapping()
    assert ask(machine, 0xFEE05000, 0x41) == ("blocked", 0x25)
    machine.command(CFI)
    assert ask(machine, 0xFEE05000, 0x41)[0] == "send"
    machine = remapping(eime=True)
    machine.command(CFI)
    assert ask(machine, 0xFEE05000, 0x41) == ("blocked", 0x25)


def test_every_field_of_an_entry() -> None:
    machine = remapping()
    entry(machine, 5, 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 0x51 << 16 | 7 << 40)
    kind, message = ask(machine, address(5))
    assert kind == "send"
    assert {name: message[name] for name in ("logical", "redirection_hint", "level", "delivery_mode", "vector",
                                             "destination")} == {
        "logical": 1, "redirection_hint": 1, "level": 1, "delivery_mode": 1, "vector": 0x51, "destination": 7}
    machine = remapping(eime=True)
    entry(machine, 5, 1 | 0x51 << 16 | 0x12345678 << 32)
    assert ask(machine, address(5))[1]["destination"] == 0x12345678


def test_the_sub_handle_counts_with_shv_only() -> None:
    machine = remapping()
    entry(machine, 7, 1 | 0x77 << 16)
    assert ask(machine, address(5, shv=True), 2)[1]["vector"] == 0x77
    assert ask(machine, address(7), 2)[1]["vector"] == 0x77


@pytest.mark.parametrize("low, high, reason", [
    (0, 0, 0x22), (1 | 1 << 12, 0, 0x24), (1 | 1 << 24, 0, 0x24), (1 | 3 << 5, 0, 0x24), (1 | 6 << 5, 0, 0x24),
    (1 | 1 << 32, 0, 0x24),
    (1 | 1 << 48, 0, 0x24), (1, 1 << 20, 0x24), (1, 3 << 18, 0x24), (1, 1 << 18 | SOURCE + 8, 0x26),
    (1, 2 << 18 | 0x0405, 0x26), (1 | 1 << 15 | 1 << 2, 0, 0x24), (1 | 1 << 15, 0x100 << 32, 0x27),
])  # fmt: skip
def test_refusals(low: int, high: int, reason: int) -> None:
    """Each is recorded with the index in FI 63:48."""
    machine = remapping()
    entry(machine, 5, low, high)
    assert ask(machine, address(5)) == ("blocked", reason)
    assert machine.record() == (5 << 48, 1 << 63 | reason << 32 | SOURCE)


def test_requests_that_name_no_entry() -> None:
    machine = remapping(size=2)
    assert ask(machine, address(8)) == ("blocked", 0x21)
    assert ask(machine, address(5, shv=True), 1 << 16) == ("blocked", 0x20)
    machine.unit.write(IRTA, 8, 1 << 40 | 15)
    machine.unit.write(GCMD, 4, machine.unit.read(GSTS) | IRTP)
    assert ask(machine, address(5)) == ("blocked", 0x23)


@pytest.mark.parametrize("qualifier, ignored", [(0, 0), (1, 4), (2, 6), (3, 7)])
def test_source_qualifiers(qualifier: int, ignored: int) -> None:
    machine = remapping()
    entry(machine, 5, 1, 1 << 18 | qualifier << 16 | SOURCE)
    for function in range(8):
        passes = ask(machine, address(5), source=SOURCE ^ function)[0] == "send"
        assert passes == (function & ~ignored == 0)


def test_bus_ranges() -> None:
    machine = remapping()
    entry(machine, 5, 1, 2 << 18 | 0x0305)
    assert [ask(machine, address(5), source=bus << 8)[0] for bus in (2, 3, 5, 6)] == ["blocked", "send", "send",
        "blocked"]


def test_fault_processing_disable() -> None:
    machine = remapping()
    entry(machine, 5, 2)
    assert ask(machine, address(5)) == ("blocked", 0x22) and machine.record() == (0, 0)


def posted(vector: int, *, urgent: bool = False) -> tuple[int, int]:
    return 1 | 1 << 15 | urgent << 14 | vector << 16 | (PID >> 6 & 0x3FFFFFF) << 38, PID >> 32 << 32


def test_posting() -> None:
    """The vector's bit in PIR; a notification to NDST with NV when ON was clear."""
    machine = remapping(eime=True)
    entry(machine, 5, *posted(0x91))
    machine.store(PID + 32, 0xF2 << 16 | 3 << 32)
    kind, message = ask(machine, address(5))
    assert kind == "send" and (message["vector"], message["destination"]) == (0xF2, 3)
    assert machine.load(PID + 16) == 1 << 0x11 and machine.load(PID + 32) & 3 == 1
    entry(machine, 6, *posted(0x92))
    assert ask(machine, address(6)) == ("posted", None)
    assert machine.load(PID + 16) == 3 << 0x11


def test_suppressed_notifications() -> None:
    """SN holds back all but urgent ones."""
    machine = remapping(eime=True)
    machine.store(PID + 32, 2 | 0xF2 << 16)
    entry(machine, 5, *posted(0x20))
    entry(machine, 6, *posted(0x21, urgent=True))
    assert ask(machine, address(5))[0] == "posted" and machine.load(PID + 32) & 3 == 2
    assert ask(machine, address(6))[0] == "send" and machine.load(PID + 32) & 3 == 3


def test_posting_needs_the_capability() -> None:
    machine = remapping(cap=PRESETS["full"][0] & ~(1 << 59))
    entry(machine, 5, *posted(0x20))
    assert ask(machine, address(5)) == ("blocked", 0x24)


@pytest.mark.parametrize("words, gone", [
    ((4, 0), True), ((4 | 1 << 4 | 5 << 32, 0), True), ((4 | 1 << 4 | 6 << 32, 0), False),
    ((4 | 1 << 4 | 1 << 27 | 4 << 32, 0), True),
])  # fmt: skip
def test_entries_are_kept_until_they_are_invalidated(words: tuple[int, int], gone: bool) -> None:
    machine = remapping()
    machine.queue()
    entry(machine, 5, 1 | 0x51 << 16)
    ask(machine, address(5))
    entry(machine, 5, 1 | 0x52 << 16)
    assert ask(machine, address(5))[1]["vector"] == 0x51
    machine.submit(words)
    assert ask(machine, address(5))[1]["vector"] == 0x51 + gone


def test_a_batch_of_stores_and_messages() -> None:
    """VT-d 3.14: requests of four bytes to FEEx_xxxxh are interrupt requests, whatever goes before and after them."""
    with Hypervisor(memory="16 MiB", processors=1) as hypervisor:
        unit = RemappingUnit(hypervisor.memory, hypervisor.root.space)
        unit.connect(hypervisor.root.core)
        controller = hypervisor.root.vps[0].interrupts
        controller.apic_enabled = True
        page = int(hypervisor.free_pages.allocate(1)) << 12
        iovas = np.array([page, 0xFEE00000, page + 4, page + 8, 0xFEE00000, 0xFEE00000, page + 12], np.uint64)
        words = np.array([1, 0x41, 2, 3, 0x52, 0x63, 4], np.uint32)
        assert unit.write_batch(SOURCE, iovas, words) == 4 * words.size
        assert hypervisor.memory.read(page, 16) == np.array([1, 2, 3, 4], np.uint32).tobytes()
        assert controller.requested == 1 << 0x41 | 1 << 0x52 | 1 << 0x63
        # One that is not aligned, or of another size, is no interrupt request; and memory there is none.
        before = controller.counters()["interrupts_requested"]
        unit.write_batch(SOURCE, np.array([0xFEE00002], np.uint64), words[1:2])
        unit.write_batch(SOURCE, np.array([0xFEE00000, page], np.uint64), words[:4])
        assert controller.counters()["interrupts_requested"] == before


def test_a_batch_of_messages_that_are_refused() -> None:
    """They count as not granted; the stores beside them are."""
    machine = remapping()
    iovas = np.array([0x5000, 0xFEE05000, 0x5004], np.uint64)
    granted = machine.unit.write_batch(SOURCE, iovas, np.array([1, 0x41, 2], np.uint32))
    assert granted == 8
    assert machine.unit.counters()["reasons"] == {0x25: 1}
