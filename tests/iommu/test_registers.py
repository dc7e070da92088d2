"""Registers, by the words of the VT-d register descriptions: reset values, widths, what is read-only, what acts."""

from __future__ import annotations

import pytest

from hvcore._native.iommu import PRESETS

from .unit_machine import (
    CCMD,
    CFI,
    FECTL,
    FSTS,
    GCMD,
    GSTS,
    ICS,
    IECTL,
    IOTLB,
    IQA,
    IQERCD,
    IQH,
    IQT,
    IRE,
    IRTA,
    IRTP,
    IVA,
    QIE,
    RECORDS,
    ROOT,
    RTADDR,
    RTP,
    TE,
    UnitMachine,
)  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_capabilities_are_read_only(preset: str) -> None:
    unit = UnitMachine(preset=preset).unit
    for offset, value in ((0, 0x10), (8, PRESETS[preset][0]), (0x10, PRESETS[preset][1])):
        unit.write(offset, 8, 0)
        assert unit.read(offset, 8) == value
        assert unit.read(offset) | unit.read(offset + 4) << 32 == value


def test_the_qemu_preset_is_what_was_measured() -> None:
    assert PRESETS["qemu-q35"] == (0x00D2008C222F0606, 0xF00F4A)


def test_reset_values() -> None:
    unit = UnitMachine().unit
    masked = {FECTL: 1 << 31, IECTL: 1 << 31}
    for offset in range(0x18, unit.region_size, 4):
        assert unit.read(offset) == masked.get(offset, 0), hex(offset)


@pytest.mark.parametrize("offset, bits", [
    (RTADDR, 0x00003FFFFFFFFC00), (IQA, 0x00003FFFFFFFF807), (IQT, 0x7FFF0), (IRTA, 0x00003FFFFFFFF80F),
    (IVA, 0xFFFFFFFFFFFFF07F), (0x3C, 0xFFFFFFFC0000FFFF), (0xA4, 0xFFFFFFFC0000FFFF), (0x68, 0xFFE00000FFE00000),
    (0x70, 0x00003FFFFFE00000), (0x78, 0x00003FFFFFE00000), (IQH, 0), (IQERCD, 0), (0xE30, 0), (0x58, 0),
    (0xC0, 0), (0xDC, 0), (RECORDS, 0), (RECORDS + 8, 0),
])  # fmt: skip
def test_writable_bits(offset: int, bits: int) -> None:
    """Quadwords, their halves, and the bits that stay zero."""
    unit = UnitMachine().unit
    if offset % 8 == 0:
        unit.write(offset, 8, (1 << 64) - 1)
        assert unit.read(offset, 8) == bits
        unit.write(offset, 8, 0)
    for half in (0, 4):
        unit.write(offset + half, 4, 0xFFFFFFFF)
        assert unit.read(offset + half) == bits >> 8 * half & 0xFFFFFFFF


def test_other_accesses_are_counted_and_have_no_effect() -> None:
    unit = UnitMachine().unit
    unit.write(RTADDR, 2, 0xF000)
    unit.write(RTADDR + 4, 8, 1 << 40)
    unit.write(0x100000, 4, 1)
    assert unit.read(RTADDR, 8) == 0
    assert (unit.read(RTADDR, 1), unit.read(RTADDR + 2, 4), unit.read(1 << 40, 8)) == (0xFF, 0xFFFFFFFF, (1 << 64) - 1)
    assert unit.counters()["bad_accesses"] == 6


def test_levels_follow_the_written_value() -> None:
    machine = UnitMachine()
    for bit in (TE, QIE, IRE, CFI):
        assert machine.command(bit) & bit
        assert not machine.command(0, clear=bit) & bit
    assert machine.unit.read(GCMD) == 0


def test_one_shots_may_come_again_with_another_bit() -> None:
    """A driver that writes status | bit sends the one-shot status bits along."""
    machine = UnitMachine()
    machine.unit.write(RTADDR, 8, ROOT)
    machine.unit.write(GCMD, 4, RTP)
    machine.unit.write(GCMD, 4, machine.unit.read(GSTS) | IRTP)
    machine.unit.write(GCMD, 4, machine.unit.read(GSTS) | TE)
    assert machine.unit.read(GSTS) == RTP | IRTP | TE
    machine.unit.write(GCMD, 4, machine.unit.read(GSTS) | 1 << 27)
    assert machine.unit.read(GSTS) == RTP | IRTP | TE               # the write buffer has nothing to flush


def test_the_root_pointer_takes_effect_at_srtp() -> None:
    machine = UnitMachine()
    machine.legacy()
    assert machine.ask(0)["reason"] == 6
    machine.unit.write(RTADDR, 8, 0x700000)
    assert machine.ask(0)["reason"] == 6
    machine.command(RTP)
    assert machine.ask(0)["reason"] == 1


@pytest.mark.parametrize("granularity", [1, 2, 3])
def test_register_invalidation_echoes_what_was_done(granularity: int) -> None:
    unit = UnitMachine().unit
    unit.write(CCMD, 8, 1 << 63 | granularity << 61)
    assert unit.read(CCMD, 8) == granularity << 61 | granularity << 59
    unit.write(IOTLB, 8, 1 << 63 | granularity << 60)
    assert unit.read(IOTLB, 8) == granularity << 60 | granularity << 57


def test_register_invalidation_in_halves() -> None:
    unit = UnitMachine().unit
    unit.write(CCMD, 4, 0x03080007)
    unit.write(CCMD + 4, 4, 1 << 31 | 3 << 29)
    assert unit.read(CCMD, 8) == 3 << 61 | 3 << 59 | 0x03080007


def test_impossible_granularities_do_nothing_and_say_so() -> None:
    unit = UnitMachine().unit
    unit.write(CCMD, 8, 1 << 63)
    unit.write(IVA, 8, 19)                                          # beyond MAMV
    unit.write(IOTLB, 8, 1 << 63 | 3 << 60)
    assert unit.read(CCMD, 8) == 0
    assert unit.read(IOTLB, 8) == 3 << 60


def test_a_page_becomes_a_domain_without_psi() -> None:
    unit = UnitMachine(cap=PRESETS["full"][0] & ~(1 << 39)).unit
    unit.write(IOTLB, 8, 1 << 63 | 3 << 60)
    assert unit.read(IOTLB, 8) >> 57 & 3 == 2


def test_protected_memory() -> None:
    """EPM is answered by PRS; devices whose requests are not translated are kept away."""
    machine = UnitMachine()
    unit = machine.unit
    unit.write(0x68, 4, 0x200000)
    unit.write(0x6C, 4, 0x200000)
    unit.write(0x70, 8, 1 << 32)                                    # above its limit: no high region
    assert machine.ask(0x200000)["status"] == 0
    unit.write(0x64, 4, 1 << 31)
    assert unit.read(0x64) == 1 << 31 | 1
    assert [machine.ask(iova)["status"] for iova in (0x1FFFFF, 0x200000, 0x3FFFFF, 0x400000)] == [0, 3, 3, 0]
    machine.legacy(kind=2)
    assert machine.ask(0x200000)["status"] == 3
    unit.write(0x64, 4, 0)
    assert unit.read(0x64) == 0 and machine.ask(0x200000)["status"] == 0
    assert unit.counters()["protected"] == 3


def test_status_bits_are_cleared_by_ones() -> None:
    machine = UnitMachine()
    machine.queue()
    machine.submit((0xF, 0))
    assert machine.unit.read(FSTS) == 1 << 4
    machine.unit.write(FSTS, 4, 0)
    assert machine.unit.read(FSTS) == 1 << 4
    machine.unit.write(IQT, 8, 0)
    machine.unit.write(FSTS, 4, 1 << 4)
    assert machine.unit.read(FSTS) == 0


def test_reset() -> None:
    machine = UnitMachine()
    machine.legacy()
    machine.ask(0)
    machine.unit.reset()
    assert machine.unit.read(GSTS) == 0 and machine.unit.read(FECTL) == 1 << 31 and machine.record() == (0, 0)
    assert machine.unit.read(ICS) == 0 and machine.ask(0)["spa"] == 0 and machine.ask(5)["status"] == 0
