"""Interrupt messages of devices and of the I/O APIC: who is named as their source, and what becomes of odd ones."""

from __future__ import annotations

from struct import pack

import pytest
from devices_by_hand import Configuration
from root_code import DATA, run

from hvcore.hypervisor import Hypervisor
from hvcore.machine.device import Device, DmaStatus
from hvcore.machine.msix import MsixTable
from hvcore.machine.pci import Bar, PciFunction

IRT, IO_APIC = 0x13_0000, 0xFF00
GCMD, GSTS, IRTA, FSTS = 0x18, 0x1C, 0xB8, 0x34
LOST = [0, 0x1000, 0xFEDF_FFFC, 0xFEF0_0000, 0x1_FEE0_0000, 0xFFFF_FFFF_FFFF_FFFC]


@pytest.fixture
def hypervisor():
    with Hypervisor(memory="16 MiB", processors=1) as made:
        yield made


def remapping(hypervisor: Hypervisor, entries: dict[int, tuple[int, int]]) -> None:
    """The root's unit remaps interrupts by these entries (VT-d, interrupt remapping table)."""
    unit = hypervisor.machine.attach_unit()
    for index, words in entries.items():
        hypervisor.memory.write(IRT + 16 * index, pack("<2Q", *words))
    unit.write(IRTA, 8, IRT | 3)
    unit.write(GCMD, 4, 1 << 24)
    unit.write(GCMD, 4, unit.read(GSTS) | 1 << 25)


def test_the_io_apic_has_the_requester_id_that_the_acpi_table_names(hypervisor):
    """An entry with SVT = 1 lets exactly the SID through (VT-d, IRTE: SVT, SID)."""
    remapping(hypervisor, {5: (1 | 0x51 << 16, 1 << 18 | IO_APIC), 6: (1 | 0x51 << 16, 1 << 18)})
    platform, unit = hypervisor.root.platform, hypervisor.machine.unit
    assert platform.requester == IO_APIC
    # DRHD at 48: 16 bytes, then the scope: type 3, its length, 2 reserved bytes, id, bus, (device, function).
    assert hypervisor.machine.dmar()[64:72] == bytes((3, 8, 0, 0, 0, IO_APIC >> 8, 0, 0))
    for index, passes in ((5, True), (6, False)):
        before = unit.counters()
        platform.write_register(0x10 + 2 * 17, 0x51)
        platform.write_register(0x11 + 2 * 17, (index << 1 | 1) << 16)
        platform.set_pin(17, True)
        platform.set_pin(17, False)
        after = unit.counters()
        assert after["interrupts_remapped"] - before["interrupts_remapped"] == passes
        assert after["interrupts_blocked"] - before["interrupts_blocked"] == (not passes)


def test_a_message_that_remapping_refuses_is_blocked(hypervisor):
    remapping(hypervisor, {})
    device = Device(hypervisor, requester_id=0x100)
    counts = hypervisor.interrupts.device(device.device_id).counts
    assert device.write(0xFEE0_0000, pack("<I", 0x41)) is DmaStatus.BLOCKED  # compatibility format, CFI clear
    assert (counts["blocked"], device.counters["bytes_blocked"], device.counters["bytes_written"]) == (1, 4, 0)
    assert device.send_message(0xFEE0_0000, 0x41) is False and device.status is DmaStatus.BLOCKED
    # Words of a batch are messages, too; the others are stored.
    assert device.write_batch([0x5000, 0xFEE0_0000, 0x5004], b"abcd" + pack("<I", 0x41) + b"efgh") is DmaStatus.BLOCKED
    assert hypervisor.memory.read(0x5000, 8) == b"abcdefgh"
    assert (counts["messages"], counts["blocked"]) == (3, 3)


def test_a_posted_message_has_arrived(hypervisor):
    """Nobody is told while ON is set (VT-d 5.2.2), and yet nothing was blocked or lost."""
    posted = 1 | 1 << 15 | 0x31 << 16 | (DATA >> 6) << 38
    remapping(hypervisor, {5: (posted, 0), 6: (posted + (1 << 16), 0)})
    hypervisor.memory.write(DATA, bytes(32) + pack("<4Q", 1 | 0x61 << 16, 0, 0, 0))
    device = Device(hypervisor, requester_id=0x0308)
    for index in (5, 6):
        assert device.send_message(0xFEE0_0010 | index << 5, 0) and device.status is DmaStatus.DONE
        assert device.write(0xFEE0_0010 | index << 5, bytes(4)) is DmaStatus.DONE
    counts = hypervisor.interrupts.device(device.device_id).counts
    assert (counts["messages"], counts["delivered"], counts["blocked"], counts["lost"]) == (4, 4, 0, 0)
    assert hypervisor.memory.read(DATA + 6, 1) == b"\6"                 # vectors 31h and 32h
    unit = hypervisor.machine.unit
    assert unit.interrupt(0x0308, 0xFEE0_0010 | 5 << 5, 0) == 1
    assert (unit.counters()["interrupts_posted"], unit.counters()["notifications"]) == (5, 0)


def test_words_of_a_batch_are_messages(hypervisor):
    device = Device(hypervisor, requester_id=0x100)
    counts = hypervisor.interrupts.device(device.device_id).counts
    assert device.write_batch([0xFEE0_0000, 0xFEE0_0000], pack("<2I", 0x41, 0x42)) is DmaStatus.DONE
    assert counts["messages"] == 2
    assert device.write_batch([0xFEE0_0002], b"1234") is DmaStatus.BLOCKED and counts["messages"] == 2  # not aligned


@pytest.mark.parametrize("address", LOST)
def test_messages_to_other_addresses_are_lost(hypervisor, address):
    device = Device(hypervisor, requester_id=0x100)
    before = hypervisor.memory.read(0, 0x2000)
    device.messages[0] = (address, 0x41)
    assert device.raise_msi() is False
    counts = hypervisor.interrupts.device(device.device_id).counts
    assert (counts["messages"], counts["lost"], counts["blocked"]) == (1, 1, 0)
    assert hypervisor.memory.read(0, 0x2000) == before


class Function(PciFunction):
    """MSI-X, and vector 0 at every write of its configuration space."""

    def __init__(self, hypervisor):
        super().__init__(hypervisor, requester_id=0x28, vendor=1, device=2, class_code=0)
        self.table = MsixTable(self, vectors=1, bar=1)
        self.add_bar(Bar(1, 4096, self.table))
        hypervisor.machine.pci.assign(self)

    def configuration_written(self, offset, size):
        self.table.raise_vector(0)


@pytest.mark.parametrize("address", LOST)
def test_no_entry_of_msix_that_guest_code_writes_stops_a_run(hypervisor, address):
    function = Function(hypervisor)
    space = Configuration(hypervisor, 0x28)
    space.write(4, 2, 6)
    at = next(at for kind, at in space.capabilities() if kind == 0x11)
    hypervisor.memory.write(DATA, pack("<QQ", address, 0x41))
    # rdi: the table; rcx: MSI-X control. Entry: address, then data and mask 0; then enable, and a write that asks.
    code = "488b06 488907 488b4608 48894708 66c7010080 66c7010080".replace(" ", "")
    run(hypervisor, code, rsi=DATA, rdi=function.bar_address(1), rcx=space.base + at + 2)
    counts = hypervisor.interrupts.device(function.device_id).counts
    assert counts["lost"] == counts["messages"] >= 2 and counts["delivered"] == 0


@pytest.mark.parametrize(("arguments", "name"), [((-1, 0), "address"), ((1 << 64, 0), "address"),
                                                 ((0xFEE0_0000, 1 << 32), "data")])
def test_messages_have_so_many_bits(hypervisor, arguments, name):
    with pytest.raises(ValueError, match=rf"^{name} must have"):
        Device(hypervisor, requester_id=1).send_message(*arguments)
    with pytest.raises(TypeError, match=r"^data must be an integer"):
        Device(hypervisor, requester_id=2).send_message(0xFEE0_0000, 1.5)
