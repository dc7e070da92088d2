"""Sizes, free pages, memory regions and what Python callers are told about them (api.md)."""

import gc
import weakref

import numpy as np
import pytest

from hvcore.enums import Hypercall, PartitionState
from hvcore.errors import NoMemoryError
from hvcore.hypervisor import Hypervisor
from hvcore.memory import FreePages, parse_size


@pytest.fixture
def hypervisor():
    with Hypervisor(memory="64 MiB", processors=1) as made:
        yield made


@pytest.fixture
def child(hypervisor):
    return hypervisor.root.create_partition(vps=1)


@pytest.mark.parametrize(
    ("text", "count"),
    [("4 KiB", 4096), ("64 MiB", 64 << 20), ("1GiB", 1 << 30), (" 2 tib ", 2 << 40), ("512", 512), (7, 7), ("9 B", 9)],
)
def test_parse_size(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "1.5 GiB", "4 KB", "-4 KiB", "1 MiB 2", 0, -1, "0 KiB"])
def test_parse_size_names_the_argument(text):
    with pytest.raises(ValueError, match=r"^ram must be"):
        parse_size(text, "ram")


def test_parse_size_types_and_multiples():
    with pytest.raises(TypeError, match=r"^size must be an int"):
        parse_size(1.5)
    with pytest.raises(ValueError, match="multiple of 0x1000"):
        parse_size(5000, multiple_of=4096)


def test_free_pages():
    free = FreePages(1, 2047)
    assert free.allocate(512, align=512) == 1536
    assert free.allocate(3) == 1533
    assert free.allocate(512, align=512) == 512
    free.release(np.array([1533, 1535, 1534, 5], np.uint64))
    assert free.available == 1023, "page 5 was not given out"
    free.release(np.arange(1, 2048, dtype=np.uint64))
    assert free.available == 2047
    with pytest.raises(MemoryError, match="no run of 2048 free pages"):
        free.allocate(2048)


def test_region_bytes_and_view(child):
    ram = child.map_memory(gpa=0x10000, size="1 MiB")
    assert len(ram) == 1 << 20
    ram[0x1000:0x1003] = b"\x0f\xa2\xf4"
    ram[5] = 7
    ram[-1] = 9
    assert ram[0x1000:0x1004] == b"\x0f\xa2\xf4\0"
    assert (ram[5], ram[0xFFFFF]) == (7, 9)
    assert ram[: 1 << 20][5] == 7
    view = ram.view
    assert view.dtype == np.uint8
    assert view.size == 1 << 20
    view[0x2000:0x2004] = [1, 2, 3, 4]
    assert ram[0x2000:0x2004] == b"\1\2\3\4"
    assert child.space.resolve(0x10000)[0] == ram.spa


def test_memory_that_was_used_before_is_zero_again(child):
    ram = child.map_memory(gpa=0, size="3 MiB")
    spa = ram.spa
    ram[0x2FFFF8:0x2FFFFF] = b"secrets"
    ram.close()
    again = child.map_memory(gpa=0, size="3 MiB")
    assert again.spa == spa
    assert not again.view.any()


def test_region_misuse(child):
    ram = child.map_memory(gpa=0, size=8192)
    for bad in (8192, -8193):
        with pytest.raises(IndexError, match="outside MemoryRegion"):
            ram[bad]
    with pytest.raises(IndexError, match="outside MemoryRegion"):
        ram[0:8193]
    with pytest.raises(ValueError, match="step"):
        ram[0:10:2]
    with pytest.raises(ValueError, match="value has 3 bytes, the slice 2"):
        ram[0:2] = b"abc"


def test_live_views_hold_a_region_open(hypervisor, child):
    free = hypervisor.free_pages.available
    ram = child.map_memory(gpa=0, size="4 MiB", page_size="2 MiB", access="rw")
    view = ram.view[10:20]
    with pytest.raises(BufferError, match="1 live views"):
        ram.close()
    with pytest.raises(BufferError, match="1 live views"):
        child.destroy()
    assert child.state is PartitionState.ACTIVE
    del view
    ram.close()
    ram.close()
    assert ram.closed
    assert child.space.lookup(0) is None
    assert hypervisor.free_pages.available >= free - 128
    with pytest.raises(ValueError, match="was unmapped"):
        ram[0]
    with pytest.raises(ValueError, match="was unmapped"):
        _ = ram.view


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gpa": 0, "size": 100}, "size must be a positive multiple of 0x1000"),
        ({"gpa": 0, "size": "1 MiB", "page_size": "2 MiB"}, "size must be a positive multiple of 0x200000"),
        ({"gpa": 0x1000, "size": "2 MiB", "page_size": "2 MiB"}, "gpa must be a multiple of 0x200000"),
        ({"gpa": 5, "size": 4096}, "gpa must be a multiple of 0x1000"),
        ({"gpa": 1 << 46, "size": 4096}, "inside the GPA space"),
        ({"gpa": -4096, "size": 4096}, "inside the GPA space"),
        ({"gpa": 0, "size": 4096, "access": "w"}, "access must be one of r, rw, rx, rwx"),
        ({"gpa": 0, "size": 4096, "page_size": "1 GiB"}, "page_size must be"),
    ],
)
def test_map_memory_names_the_argument(child, arguments, message):
    with pytest.raises(ValueError, match=message):
        child.map_memory(**arguments)


def test_root_has_its_memory_already(hypervisor):
    with pytest.raises(ValueError, match="root partition"):
        hypervisor.root.map_memory(gpa=0, size=4096)
    with pytest.raises(ValueError, match="root partition"):
        hypervisor.root.destroy()


def test_map_more_than_there_is(hypervisor, child):
    free = hypervisor.free_pages.available
    with pytest.raises(MemoryError, match="no run of"):
        child.map_memory(gpa=0, size="64 MiB")
    assert hypervisor.free_pages.available == free


@pytest.mark.parametrize(("page_size", "shift"), [("4 KiB", 12), ("2 MiB", 21)])
def test_page_sizes_and_alignment(child, page_size, shift):
    ram = child.map_memory(gpa=4 << 20, size="6 MiB", page_size=page_size)
    assert ram.spa % (2 << 20) == 0
    assert child.space.lookup(5 << 20) == (ram.spa + (1 << 20), 7, shift)


def test_destroy_gives_everything_back(hypervisor):
    free = hypervisor.free_pages.available
    reserve = hypervisor.memory.reserve_pool.available
    child = hypervisor.root.create_partition(vps=2)
    ram = child.map_memory(gpa=0, size="16 MiB")
    child.destroy()
    assert ram.closed
    assert hypervisor.free_pages.available == free - hypervisor.root.pool.available
    assert not hypervisor.owners.held.any()
    assert not hypervisor.owners.shared.any()
    # What stays are the tables of root pages that were split.
    assert reserve - hypervisor.memory.reserve_pool.available <= 16


def test_views_outlive_the_machine():
    hypervisor = Hypervisor(memory="4 MiB", processors=1)
    view = hypervisor.root.create_partition(vps=0).map_memory(gpa=0, size=4096).view
    hypervisor.close()
    gone = weakref.ref(hypervisor.root)
    del hypervisor
    gc.collect()
    assert gone() is None
    view[:] = 5
    assert view.sum() == 5 * 4096


def test_hypercall_errors_are_builtin_errors_too(hypervisor):
    hypervisor.root.privileges &= ~(1 << 34)
    with pytest.raises(PermissionError, match="DEPOSIT_MEMORY"):
        hypervisor.root.create_partition()
    assert issubclass(NoMemoryError, MemoryError)
    assert Hypercall.DEPOSIT_MEMORY == 0x48
