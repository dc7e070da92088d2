"""Configuration space as PCI 3.0 chapter 6 has it, by both ways in; base address registers; MSI-X (6.8.2)."""

import pytest
from devices_by_hand import Configuration
from root_code import run

from hvcore.hypervisor import Hypervisor
from hvcore.machine.msix import MsixTable
from hvcore.machine.pci import Bar, PciFunction

PLACE = 0x18  # 00:03.0


class Memory:
    def __init__(self, size):
        self.bytes = bytearray(size)

    def read(self, offset, size):
        return int.from_bytes(self.bytes[offset : offset + size], "little")

    def write(self, offset, size, value):
        self.bytes[offset : offset + size] = value.to_bytes(size, "little")


@pytest.fixture
def hypervisor():
    with Hypervisor(memory="16 MiB", processors=1) as made:
        yield made


@pytest.fixture
def function(hypervisor):
    made = PciFunction(
        hypervisor,
        requester_id=PLACE,
        vendor=0x1234,
        device=0x5678,
        class_code=0xFF0102,
        revision=3,
        subsystem=(0xAAAA, 0xBBBB),
        interrupt_pin=1,
    )
    made.add_bar(Bar(0, 0x1000, Memory(0x1000)))
    made.add_bar(Bar(2, 0x20, Memory(0x20), io=True))
    made.add_bar(Bar(4, 1 << 33, Memory(16), wide=True, prefetchable=True))
    return made


@pytest.fixture
def space(hypervisor, function):
    return Configuration(hypervisor, PLACE)


def mechanism_1(hypervisor, offset, size, value=None, place=PLACE):
    ports = hypervisor.machine.ports
    ports.write(0xCF8, 4, 1 << 31 | place << 8 | offset & 0xFC)
    if value is None:
        return ports.read(0xCFC + offset % 4, size)
    return ports.write(0xCFC + offset % 4, size, value)


def test_header(space):
    assert space.read(0, 4) == 0x56781234
    assert space.read(8, 4) == 0xFF010203
    assert space.read(0x0E, 1) == 0
    assert space.read(0x2C, 4) == 0xBBBBAAAA
    assert (space.read(0x3D, 1), space.read(0x34, 1), space.read(6, 2)) == (1, 0, 0)


def test_both_ways_see_the_same(hypervisor, space):
    for offset in range(0, 256, 4):
        assert mechanism_1(hypervisor, offset, 4) == space.read(offset, 4)
    mechanism_1(hypervisor, 0x3C, 1, 0x55)
    assert space.read(0x3C, 1) == 0x55
    assert mechanism_1(hypervisor, 0x02, 2) == 0x5678
    assert hypervisor.machine.ports.read(0xCF8, 4) == 1 << 31 | PLACE << 8


def test_nothing_answers_with_all_ones(hypervisor, space):
    assert mechanism_1(hypervisor, 0, 4, place=0x20) == 0xFFFFFFFF
    assert Configuration(hypervisor, 0x20).read(0, 2) == 0xFFFF
    hypervisor.machine.ports.write(0xCF8, 4, PLACE << 8)
    assert hypervisor.machine.ports.read(0xCFC, 4) == 0xFFFFFFFF


def test_ids_and_class_are_read_only(space):
    for offset in (0, 4, 8, 0x2C, 0x34):
        before = space.read(offset, 4)
        space.write(offset, 4, 0)
        space.write(offset, 4, 0xFFFFFFFF)
        if offset != 4:
            assert space.read(offset, 4) == before


def test_command_keeps_its_writable_bits(space):
    space.write(4, 2, 0xFFFF)
    assert space.read(4, 2) == 0x0547


@pytest.mark.parametrize(("offset", "expected"), [
    (0x10, 0xFFFFF000), (0x14, 0), (0x18, 0xFFFFFFE1), (0x1C, 0), (0x20, 0x0000000C), (0x24, 0xFFFFFFFE),
])  # fmt: skip
def test_sizing(space, offset, expected):
    """6.2.5.1: what reads back of all ones says the size; low bits the kind. 8 GiB is in the upper half alone."""
    space.write(offset, 4, 0xFFFFFFFF)
    assert space.read(offset, 4) == expected


def test_memory_is_decoded_where_and_when_software_says(hypervisor, function, space):
    (first, _) = hypervisor.machine.pci.windows[0]
    bus = hypervisor.machine.memory
    space.write(0x10, 4, first + 0x5000)
    assert bus.read(first + 0x5000, 4) == 0xFFFFFFFF
    space.write(4, 2, 2)
    bus.write(first + 0x5010, 4, 0x12345678)
    assert bus.read(first + 0x5010, 2) == 0x5678
    space.write(0x10, 4, first + 0x9000)
    assert (bus.read(first + 0x5010, 4), bus.read(first + 0x9010, 4)) == (0xFFFFFFFF, 0x12345678)
    space.write(4, 2, 0)
    assert bus.read(first + 0x9010, 4) == 0xFFFFFFFF


def test_ports_are_decoded(hypervisor, function, space):
    space.write(0x18, 4, 0xC100)
    space.write(4, 2, 1)
    hypervisor.machine.ports.write(0xC104, 4, 77)
    assert hypervisor.machine.ports.read(0xC104, 1) == 77
    assert hypervisor.machine.ports.read(0xC11F, 2) == 0xFFFF


def test_guest_code_reaches_it(hypervisor, function):
    """MOV DX, CF8h; OUT; MOV DX, CFCh; IN: as every boot loader does."""
    vp = run(hypervisor, "ef 66 ba fc 0c ed", rdx=0xCF8, rax=1 << 31 | PLACE << 8)
    assert vp.rax == 0x56781234


def test_firmware_assigns_addresses(hypervisor, function, space):
    hypervisor.machine.pci.assign(function)
    windows = hypervisor.machine.pci.windows
    for index, size in ((0, 0x1000), (4, 1 << 33)):
        at = space.bar(index)
        assert at % size == 0
        assert any(first <= at and at + size - 1 <= last for first, last in windows)
    assert space.read(0x18, 4) & ~3 >= 0xC000
    assert 16 <= space.read(0x3C, 1) <= 19


def test_functions_of_one_device_say_so(hypervisor, function, space):
    PciFunction(hypervisor, requester_id=PLACE | 1, vendor=1, device=2, class_code=0)
    assert space.read(0x0E, 1) == 0x80


def test_with_much_ram_everything_lies_above_it():
    with Hypervisor(memory="4 GiB", processors=1) as hypervisor:
        pci = hypervisor.machine.pci
        assert pci.ecam >= 4 << 30
        assert all(first >= pci.ecam + (1 << 28) for first, _ in pci.windows)


@pytest.mark.parametrize(("arguments", "names"), [
    ({"requester_id": 0x10000}, "requester_id"),
    ({"requester_id": PLACE}, "belongs to PciFunction"),
    ({"vendor": 0xFFFF}, "vendor"),
    ({"class_code": 1 << 24}, "class_code"),
    ({"interrupt_pin": 5}, "interrupt_pin"),
])  # fmt: skip
def test_bad_arguments_are_named(hypervisor, function, arguments, names):
    usual = {"requester_id": 0x40, "vendor": 1, "device": 1, "class_code": 0}
    with pytest.raises(ValueError, match=names):
        PciFunction(hypervisor, **usual | arguments)


@pytest.mark.parametrize("bar", [
    Bar(0, 0x1000, Memory(1)), Bar(1, 0x1800, Memory(1)), Bar(3, 0x1000, Memory(1), wide=True),
    Bar(5, 0x1000, Memory(1)), Bar(6, 0x1000, Memory(1)), Bar(1, 512, Memory(1), io=True), Bar(1, 8, Memory(1)),
])  # fmt: skip
def test_bad_bars_are_refused(function, bar):
    with pytest.raises(ValueError, match="BAR"):
        function.add_bar(bar)


class Messages(PciFunction):
    """A function that writes down what it sends."""

    def __init__(self, hypervisor):
        super().__init__(hypervisor, requester_id=0x28, vendor=1, device=2, class_code=0)
        self.sent = []
        self.table = MsixTable(self, vectors=3, bar=1)
        self.add_bar(Bar(1, self.table.size, self.table))
        hypervisor.machine.pci.assign(self)

    def send_message(self, address, data):
        self.sent.append((address, data))
        return True

    def configuration_written(self, offset, size):
        self.table.send_pending()

    command_written = lambda self: self.table.send_pending()  # noqa: E731


@pytest.fixture
def msix(hypervisor):
    return Messages(hypervisor)


def test_msix_capability(hypervisor, msix):
    space = Configuration(hypervisor, 0x28)
    ((kind, at),) = space.capabilities()
    assert kind == 0x11 and space.read(6, 2) & 0x10
    assert space.read(at + 2, 2) == 2  # N - 1, not enabled
    assert space.read(at + 4, 4) == 1  # table: BAR 1, offset 0
    assert space.read(at + 8, 4) == 0x801
    space.write(at + 2, 2, 0xFFFF)
    assert space.read(at + 2, 2) == 0xC002


def test_msix_masks_and_pending(hypervisor, msix):
    space = Configuration(hypervisor, 0x28)
    at = space.capabilities()[0][1]
    bus, table = hypervisor.machine.memory, space.bar(1)
    assert msix.table.raise_vector(1) is False  # not enabled: nothing, not even pending
    space.write(4, 2, 6)
    space.write(at + 2, 2, 0x8000)
    assert bus.read(table + 16 + 12, 4) == 1  # masked after reset
    bus.write(table + 16, 8, 0xFEE0_1000)
    bus.write(table + 24, 4, 0x4041)
    msix.table.raise_vector(1)
    assert (msix.sent, bus.read(table + 0x800, 8)) == ([], 2)
    space.write(at + 2, 2, 0xC000)
    bus.write(table + 28, 4, 0)
    assert msix.sent == []  # masked for the whole function
    space.write(4, 2, 2)
    space.write(at + 2, 2, 0x8000)
    assert msix.sent == []  # no bus master
    space.write(4, 2, 6)
    assert (msix.sent, bus.read(table + 0x800, 8)) == ([(0xFEE0_1000, 0x4041)], 0)
    msix.table.raise_vector(1)
    assert len(msix.sent) == 2
    with pytest.raises(IndexError, match="vector must be 0 to 2"):
        msix.table.raise_vector(3)


def test_msix_table_ignores_bytes_and_what_lies_behind(hypervisor, msix):
    table = msix.table
    table.write(0, 1, 0xFF)
    table.write(0x800, 8, 7)
    table.write(44, 8, 1)
    assert (table.read(0, 8), table.read(0x800, 8), table.read(0x200, 4)) == (0, 0, 0)
