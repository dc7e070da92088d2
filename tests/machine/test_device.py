"""Devices of one's own: buffers, batches, what is blocked, and that stores by DMA are stores."""

import numpy as np
import pytest
from root_code import prepare

from hvcore.hypervisor import Hypervisor
from hvcore.machine.device import Device, DmaStatus
from hvcore.machine.pci import PciFunction

UNITS = [None, "root", "hypervisor"]


@pytest.fixture(params=UNITS)
def hypervisor(request):
    with Hypervisor(memory="16 MiB", processors=1) as made:
        if request.param:
            made.machine.attach_unit(driver=request.param)
        yield made


@pytest.fixture
def device(hypervisor):
    return Device(hypervisor, requester_id=0x0123)


def test_buffers_of_any_kind(hypervisor, device):
    table = np.arange(3000, dtype=np.uint32)
    assert device.write(0x10FF0, table) is DmaStatus.DONE  # over several pages
    assert hypervisor.memory.read(0x10FF0, table.nbytes) == table.tobytes()
    back = np.zeros((3, 1000), np.uint32)
    assert device.read_into(0x10FF0, back) is DmaStatus.DONE
    assert (back.ravel() == table).all()
    assert device.read(0x10FF0, 8) == table.tobytes()[:8]
    assert device.counters["bytes_written"] == 12000 and device.counters["bytes_read"] == 12008


def test_batches(hypervisor, device):
    rng = np.random.default_rng(3)
    iovas = rng.permutation(1000).astype(np.uint64) * np.uint64(64) + np.uint64(0x100000)
    data = rng.integers(0, 256, (1000, 64), np.uint8)
    assert device.write_batch(iovas, data) is DmaStatus.DONE
    for number in (0, 17, 999):
        assert hypervisor.memory.read(int(iovas[number]), 64) == data[number].tobytes()
    out = np.empty_like(data)
    assert device.read_batch(iovas, out) is DmaStatus.DONE
    assert (out == data).all()
    with pytest.raises(ValueError, match="do not divide into 1000 equal parts"):
        device.write_batch(iovas, b"x")


def test_what_is_not_there_is_blocked(hypervisor, device):
    top = hypervisor.memory.size
    assert device.write(top - 4, b"12345678") is DmaStatus.BLOCKED  # memory ends in the midst of it
    assert hypervisor.memory.read(top - 4, 4) == b"1234"
    assert device.read(top - 4, 8) == b"1234" + b"\xff" * 4
    assert device.status is DmaStatus.BLOCKED
    assert device.counters["bytes_blocked"] == 8
    assert device.read(0, 1) != b"" and device.status is DmaStatus.DONE


def test_the_reserve_is_nobodys(hypervisor, device):
    """Above RAM lie the hypervisor's own frames: tables, overlay pages, the unit's tables."""
    size = hypervisor.memory.size
    before = hypervisor.memory.read(size, hypervisor.memory.reserve)
    for page in range(size, size + hypervisor.memory.reserve, 4096):
        assert device.write(page, b"\x55") is DmaStatus.BLOCKED
    assert hypervisor.memory.read(size, hypervisor.memory.reserve) == before


def test_pages_of_pools_are_nobodys(hypervisor, device):
    child = hypervisor.root.create_partition(vps=1)
    pages = [page for page in range(hypervisor.memory.size >> 12) if hypervisor.owners.pool[page]]
    assert pages and child.pool.in_use
    for page in pages:
        assert device.write(page << 12, b"\x55") is DmaStatus.BLOCKED
        assert device.read(page << 12, 4) == b"\xff" * 4


def test_a_store_by_dma_is_seen_by_code_that_was_decoded(hypervisor, device):
    """INC EAX becomes DEC EAX between two runs of the same page."""
    vp = prepare(hypervisor, "ffc0 eb00", rax=5)
    vp.run(max_instructions=100)
    assert vp.rax == 6
    device.write(0x2000, b"\xff\xc8")
    vp.rip = 0x2000
    vp.run(max_instructions=100)
    assert vp.rax == 5


def test_columns(hypervisor, device):
    found = device.translate(np.array([0x5000, 1 << 40], np.uint64), "rw")
    assert set(found) == {
        "gpa", "spa", "page_shift", "nested_page_shift", "status", "reason", "table_references", "references",
        "nested_references",
    }  # fmt: skip
    assert found.spa[0] == 0x5000 and found.ok.tolist() == [True, False]
    with pytest.raises(ValueError, match="access must be one of r, w, rw"):
        device.translate([0], "x")


def test_arguments(hypervisor, device):
    with pytest.raises(ValueError, match="belongs to Device"):
        Device(hypervisor, requester_id=0x0123)
    with pytest.raises(ValueError, match="requester_id must be 0 to 0xffff"):
        Device(hypervisor, requester_id=-1)
    for iova, size in ((-1, 1), (2**64 - 4, 8), (0, -1)):
        with pytest.raises(ValueError, match="is no range of 64-bit addresses"):
            device.read(iova, size)
    with pytest.raises(KeyError):
        device.raise_msi(3)
    assert device.read(0x1000, 0) == b""


def test_messages(hypervisor, device):
    """By number, and as a store of four bytes at FEEx_xxxx."""
    device.messages[0] = (0xFEE0_0000, 0x44)
    counts = hypervisor.interrupts.device(device.device_id).counts
    device.raise_msi(0)
    device.write(0xFEE0_0000, (0x45).to_bytes(4, "little"))
    assert counts["messages"] == 2 and device.counters["messages"] == 2


def test_a_function_that_is_no_bus_master(hypervisor):
    function = PciFunction(hypervisor, requester_id=8, vendor=1, device=2, class_code=0)
    assert function.write(0x5000, b"x") is DmaStatus.NOT_MASTER
    assert function.read(0x5000, 2) == b"\xff\xff"
    function.write_configuration(4, 2, 4)
    assert function.write(0x5000, b"x") is DmaStatus.DONE


def test_one_unit_a_machine():
    with Hypervisor(memory="16 MiB", processors=1) as hypervisor:
        with pytest.raises(ValueError, match="the root drives no remapping unit"):
            hypervisor.machine.dmar()
        with pytest.raises(ValueError, match="driver must be"):
            hypervisor.machine.attach_unit(driver="nobody")
        with pytest.raises(ValueError, match="gpa is only for"):
            hypervisor.machine.attach_unit(driver="hypervisor", gpa=0)
        hypervisor.machine.attach_unit()
        with pytest.raises(ValueError, match="already"):
            hypervisor.machine.attach_unit()
        assert hypervisor.machine.dmar()[:4] == b"DMAR"
