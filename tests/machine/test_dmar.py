"""The DMAR table against bytes written out by hand from the structures of iommu-facts.md, section 7."""

import pytest

from hvcore._native.iommu import PRESETS
from hvcore.hypervisor import Hypervisor
from hvcore.machine import dmar
from hvcore.machine.dmar import DmarFlags, Scope, ScopeType


def test_a_table_byte_by_byte():
    io_apic = Scope(ScopeType.IO_APIC, 0xFF, ((0, 0),), enumeration=2)
    made = dmar.table(
        [dmar.remapping_unit(0xFED9_0000, include_all=True, scopes=[io_apic])],
        address_bits=46,
        flags=DmarFlags.INTERRUPT_REMAPPING,
    )
    fixed = bytes.fromhex(
        "444d4152"  # DMAR
        "48000000"  # 72 bytes: 36 + 12 + 16 + 8
        "01"  # revision
    )
    assert made[:9] == fixed
    assert sum(made) % 256 == 0
    assert made[36:] == bytes.fromhex(
        "2d 01 00000000000000000000"  # width - 1, INTR_REMAP, reserved
        "0000 1800 01 00 0000 0000d9fe00000000"  # DRHD, 24 bytes, INCLUDE_PCI_ALL, size, segment, base
        "03 08 0000 02 ff 0000"  # I/O APIC scope: length 8, id 2, bus FF, 00.0
    )


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            dmar.reserved_memory(0x10000, 0x1FFFF, scopes=[Scope.of(0x01FB)]),
            "0100 2000 0000 0000 0000010000000000 ffff010000000000 01 08 0000 00 01 1f03",
        ),
        (dmar.root_port_ats(segment=1, all_ports=True), "0200 0800 01 00 0100"),
        (
            dmar.root_port_ats(scopes=[Scope(ScopeType.BRIDGE, 0, ((3, 0), (1, 2)))]),
            "0200 1200 00 00 0000 02 0a 0000 00 00 0300 0102",
        ),
        (dmar.affinity(0xFED90000, 1), "0300 1400 00000000 0000d9fe00000000 01000000"),
        (dmar.namespace_device(3, "\\A"), "0400 0b00 000000 03 5c4100"),
        (dmar.integrated_ats(required=True), "0500 0800 01 00 0000"),
        (dmar.integrated_properties(segment=2), "0600 0800 0000 0200"),
        (dmar.remapping_unit(0x1000, segment=3), "0000 1000 00 00 0300 0010000000000000"),
    ],
)
def test_structures(made, expected):
    assert made == bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: dmar.remapping_unit(0x1001), "base"),
        (lambda: dmar.reserved_memory(0, 0x1000), "base and limit"),
        (lambda: dmar.table([], address_bits=65), "address_bits"),
        (lambda: Scope(ScopeType.ENDPOINT, 256, ((0, 0),)).pack(), "bus"),
        (lambda: Scope(ScopeType.ENDPOINT, 0, ((32, 0),)).pack(), "device"),
        (lambda: Scope(ScopeType.ENDPOINT, 0, ()).pack(), "path"),
        (lambda: dmar.namespace_device(256, "X"), "number"),
    ],
)
def test_what_has_no_encoding_is_refused_by_name(build, names):
    with pytest.raises(ValueError, match=names):
        build()


def test_what_the_machine_says_of_its_unit():
    """INTR_REMAP is the unit's ECAP.IR; the width is that of the root's addresses."""
    for ecap, flags in ((PRESETS["full"][1], 1), (PRESETS["full"][1] & ~(1 << 3), 0)):
        with Hypervisor(memory="16 MiB", processors=1) as hypervisor:
            hypervisor.machine.attach_unit(ecap=ecap)
            made = hypervisor.machine.dmar()
            assert (made[36], made[37]) == (hypervisor.root.space.gpa_bits - 1, flags)
