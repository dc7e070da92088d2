"""What Python gives that makes no sense: an exception that names it, and nothing has changed."""

from __future__ import annotations

import numpy as np
import pytest

from hvcore._native.iommu import PRESETS
from hvcore.hypervisor import Hypervisor
from hvcore.machine.device import Device, DmaStatus
from hvcore.machine.msix import MsixTable
from hvcore.machine.pci import PciFunction
from hvcore.machine.virtio_block import VirtioBlock

CAP, ECAP = PRESETS["full"]


@pytest.fixture
def hypervisor():
    with Hypervisor(memory="16 MiB", processors=1) as made:
        yield made


@pytest.fixture(params=[None, "root", "hypervisor"])
def device(request, hypervisor):
    if request.param:
        hypervisor.machine.attach_unit(driver=request.param)
    return Device(hypervisor, requester_id=0x123)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "qemu-q35"}, "preset must leave.* not be 'qemu-q35'"),
        ({"scalable": False}, "scalable must leave.*scalable mode"),
        ({"ecap": ECAP & ~(1 << 26)}, "ecap must leave the hypervisor's unit nested translation"),
        ({"ecap": ECAP & ~2}, "ecap must leave the hypervisor's unit queued invalidation"),
        ({"cap": CAP & ~(1 << 10)}, "cap must leave the hypervisor's unit second levels of 48 bits"),
        ({"preset": "nothing"}, "preset must be one of"),
        ({"gpa": 0x1000}, "gpa is only for"),
    ],
)
def test_a_refused_unit_is_not_attached(hypervisor, options, message):
    device = Device(hypervisor, requester_id=1)
    pages = hypervisor.memory.reserve_pool.available
    with pytest.raises(ValueError, match=message):
        hypervisor.machine.attach_unit(driver="hypervisor", **options)
    assert hypervisor.machine.unit is None and hypervisor.domains.tables is None
    assert hypervisor.memory.reserve_pool.available == pages
    assert device.write(0x5000, b"as before") is DmaStatus.DONE
    hypervisor.machine.attach_unit(driver="hypervisor")
    assert device.write(0x5000, b"by the unit") is DmaStatus.DONE


@pytest.mark.parametrize("gpa", [0xFED9_0001, -4096, 0x1000, 0xFF_F000, 0xFEC0_0000, 0xFEE0_0000])
def test_where_registers_cannot_be(hypervisor, gpa):
    with pytest.raises(ValueError, match=r"^gpa must"):
        hypervisor.machine.attach_unit(gpa=gpa)
    assert hypervisor.machine.unit is None
    hypervisor.machine.attach_unit()


@pytest.mark.parametrize(
    ("iovas", "error"),
    [
        ([0.0], TypeError),
        (np.array([1.5]), TypeError),
        (np.array([True]), TypeError),
        (["1"], TypeError),
        ([-1], ValueError),
        (np.array([-1]), ValueError),
        ([0, 1 << 64], ValueError),
        ([[0, 4096]], ValueError),
        (np.zeros((2, 2), np.uint64), ValueError),
    ],
)
def test_addresses_are_integers_of_64_bits(device, iovas, error):
    data = bytearray(np.size(iovas))
    unit = device.hypervisor.machine.unit
    calls = [lambda: device.translate(iovas), lambda: device.read_batch(iovas, data),
             lambda: device.write_batch(iovas, data)]  # fmt: skip
    if unit is not None:
        calls += [lambda: unit.translate(1, iovas), lambda: unit.write_batch(1, iovas, data),
                  lambda: unit.read_batch(1, iovas, data)]  # fmt: skip
    for call in calls:
        with pytest.raises(error, match=r"^iovas must"):
            call()


def test_addresses_of_any_kind_of_integers(device):
    wanted = [0x5000, (1 << 64) - 1, 1 << 63]
    assert device.translate(wanted).status.tolist()[0] == 0  # NumPy alone would make floats of this list
    for iovas in ([0x5000, 0x6000], np.array([0x5000, 0x6000], np.int32), np.array([0x5000, 0x6000], ">u2")):
        assert device.write_batch(iovas, b"abcd") is DmaStatus.DONE
        assert device.read(0x6000, 2) == b"cd"
    assert device.translate(0x5000).spa.tolist() == [0x5000]


def test_no_part_ends_behind_64_bits(device):
    device.write(0, b"\x11" * 8)
    for call in (lambda: device.write_batch([0x5000, 2**64 - 4], b"x" * 16),
                 lambda: device.read_batch([2**64 - 4], bytearray(8)), lambda: device.write(2**64 - 4, b"x" * 8)):
        with pytest.raises(ValueError, match=r"^iova"):
            call()
    assert device.read(0, 8) == b"\x11" * 8
    assert device.write_batch([2**64 - 8], b"x" * 8) is DmaStatus.BLOCKED
    unit = device.hypervisor.machine.unit
    if unit is not None:
        for call in (lambda: unit.write_memory(1, 2**64 - 4, b"x" * 8), lambda: unit.read_memory(1, 2**64 - 4, 8),
                     lambda: unit.write_batch(1, [0, 2**64 - 4], b"x" * 16)):
            with pytest.raises(ValueError, match=r"^iovas must leave room for 8 bytes"):
                call()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda device: device.read(1.5, 1), TypeError, "iova must be an integer"),
        (lambda device: device.read(0, "1"), TypeError, "size must be an integer"),
        (lambda device: device.write(0, "text"), TypeError, "data must be"),
        (lambda device: device.read_into(0, 5), TypeError, "out must be"),
        (lambda device: device.read_into(0, b"12"), TypeError, "out must be writable"),
        (lambda device: Device(device.hypervisor, requester_id=1.5), TypeError, "requester_id must be"),
        (lambda device: Device(device.hypervisor, requester_id=1 << 16), ValueError, "requester_id must be"),
        (lambda device: device.hypervisor.machine.pci.configuration(0, 4096, 4), ValueError, "offset must be"),
        (lambda device: device.hypervisor.machine.pci.set_configuration(0, 0, 3, 0), ValueError, "size must be"),
    ],
)
def test_arguments_are_named(device, call, error, message):
    with pytest.raises(error, match=message):
        call(device)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"subsystem": (0x1_0000, 0)}, r"subsystem\[0\]"), ({"subsystem": (0, -1)}, r"subsystem\[1\]"),
     ({"revision": 256}, "revision"), ({"vendor": 0xFFFF}, "vendor"), ({"interrupt_pin": 5}, "interrupt_pin")],
)
def test_no_function_is_half_built(hypervisor, options, name):
    arguments = {"requester_id": 8, "vendor": 1, "device": 2, "class_code": 0}
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        PciFunction(hypervisor, **(arguments | options))
    assert not hypervisor.machine.devices and not hypervisor.machine.pci.functions
    function = PciFunction(hypervisor, **arguments)
    with pytest.raises(ValueError, match=r"bar must be 0 to 5"):
        MsixTable(function, vectors=1, bar=9)
    assert function.get(0x34, 1) == 0  # and no capability


def test_what_a_disk_has_completed_is_in_its_file(hypervisor, tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    disk = VirtioBlock(hypervisor, path, requester_id=0x18)
    disk.disk.write(512, b"completed")
    assert path.read_bytes()[512:521] == b"completed"
    hypervisor.close()
    assert disk.disk._file.closed
    with pytest.raises(FileNotFoundError), Hypervisor(memory="16 MiB", processors=1) as other:
        VirtioBlock(other, tmp_path / "none", requester_id=0x18)


def test_references_to_objects_are_no_memory(hypervisor, device):
    objects = np.empty(4, object)
    for call in (device.write, device.read_into):
        with pytest.raises(TypeError, match="Python objects"):
            call(0x1000, objects)
    unit = hypervisor.machine.unit
    if unit is not None:
        with pytest.raises(TypeError, match="Python objects"):
            unit.write_memory(0x123, 0x1000, objects)


class Odd:
    """A device with an answer of its own."""

    def __init__(self, value):
        self.value = value

    def read(self, offset, size):
        return self.value

    def write(self, offset, size, value):
        pass


def test_answers_of_devices(hypervisor):
    """As many bytes as were asked for; what is no number names the device."""
    memory = hypervisor.machine.memory
    memory.attach(Odd(0x1122334455667788), gpa=0xFED00000, size=0x1000)
    memory.attach(Odd(-1), gpa=0xFED01000, size=0x1000)
    memory.attach(Odd(None), gpa=0xFED02000, size=0x1000)
    assert memory.read(0xFED00001, 4) == 0x88778888
    assert memory.read(0xFED01000, 2) == 0xFFFF
    with pytest.raises(TypeError, match=r"Odd.read\(0x8, 4\) must return an integer, not None"):
        memory.read(0xFED02008, 4)
