"""The virtualization stack in Python: what a parent does with hypercalls to make, feed and remove a child.

Every function is a sequence of hypercalls of hyperv-abi.md 6.1; a call that returns INSUFFICIENT_MEMORY is repeated
after a deposit into the pool that it charges, as Linux does (section 12.4).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import pack, unpack
from typing import TYPE_CHECKING

import numpy as np

from hvcore.enums import (
    AccessMask,
    Hypercall,
    InterceptType,
    MapFlags,
    PartitionProperty,
    PartitionState,
    Status,
    UnmapFlags,
)
from hvcore.errors import check
from hvcore.hypercalls.abi import Result
from hvcore.memory import LARGE_PAGE_SIZE, PAGE_SIZE, MemoryRegion, clear, parse_page_size, parse_size
from hvcore.pages import run_of

if TYPE_CHECKING:
    from hvcore.partition import Partition

_DEPOSIT_PAGES = 64
_LIST_ELEMENTS = 500
"""Elements of one map, deposit or withdraw call: header and list share a page."""
_COMPATIBILITY_VERSION = 0x0609
_ACCESS = {
    "r": MapFlags.READ,
    "rw": MapFlags.READ | MapFlags.WRITE,
    "rx": MapFlags.READ | MapFlags.EXECUTE,
    "rwx": MapFlags.READ | MapFlags.WRITE | MapFlags.EXECUTE,
}


def create_partition(
    parent: Partition, vps: int, flags: int, privileges: int | None, intercept_io: bool, platform: bool
) -> Partition:
    """Create, set properties, Initialize, create VPs, intercept all I/O ports that the platform does not have."""
    _require_root(parent)
    if not 0 <= vps <= parent.hypervisor.maximum_vps:
        raise ValueError(f"vps must be 0 to {parent.hypervisor.maximum_vps}, not {vps}")
    made = _call(
        parent, parent, Hypercall.CREATE_PARTITION, pack("<QQIIQQQQ", flags, 0, _COMPATIBILITY_VERSION, *[0] * 5)
    )
    child = parent.children[unpack("<Q", made.output)[0]]
    try:
        if privileges is not None:
            code = PartitionProperty.PRIVILEGE_FLAGS
            _call(parent, child, Hypercall.SET_PARTITION_PROPERTY, pack("<QIIQ", child.id, code, 0, privileges))
        _call(parent, child, Hypercall.INITIALIZE_PARTITION, pack("<Q", child.id))
        for index in range(vps):
            _call(parent, child, Hypercall.CREATE_VP, pack("<QIIQQQ", child.id, index, 0, 0, 0, 0))
        if intercept_io:
            access = AccessMask.READ | AccessMask.WRITE
            every_port = pack("<QIIQ", child.id, access, InterceptType.IO_PORT_RANGE, 0xFFFF_0000)
            _call(parent, child, Hypercall.INSTALL_INTERCEPT, every_port)
        if platform:
            child.attach_platform()
    except BaseException:
        destroy(child)
        raise
    return child


def map_memory(partition: Partition, *, gpa: int, size: int | str, access: str, page_size: int | str) -> MemoryRegion:
    """Map one zeroed run of the parent's RAM into `partition`."""
    parent = _parent(partition)
    _require_root(parent)
    bytes_per_page = parse_page_size(page_size)
    if access not in _ACCESS:
        raise ValueError(f"access must be one of {', '.join(_ACCESS)}, not {access!r}")
    length = parse_size(size, multiple_of=bytes_per_page)
    if gpa % bytes_per_page or not 0 <= gpa <= (partition.page_limit << 12) - length:
        raise ValueError(f"gpa must be a multiple of {bytes_per_page:#x} inside the GPA space, not {gpa:#x}")

    hypervisor = partition.hypervisor
    pages = length // PAGE_SIZE
    align = 512 if length >= LARGE_PAGE_SIZE else 1
    first = hypervisor.free_pages.allocate(pages, align=align)
    clear(hypervisor.memory, first * PAGE_SIZE, length)
    hypervisor.owners.held[first : first + pages] = True

    def unmap() -> None:
        flag = UnmapFlags.LARGE_PAGE if bytes_per_page == LARGE_PAGE_SIZE else 0
        if partition.state is PartitionState.ACTIVE:
            _in_lists(
                length // bytes_per_page,
                lambda done, count: _call(
                    parent,
                    partition,
                    Hypercall.UNMAP_GPA_PAGES,
                    pack("<QQII", partition.id, (gpa + done * bytes_per_page) >> 12, flag, 0),
                    reps=count,
                ),
            )
            partition.regions.remove(region)
        hypervisor.owners.held[first : first + pages] = False
        hypervisor.free_pages.release(run_of(first, pages))

    region = MemoryRegion(hypervisor.memory, gpa=gpa, spa=first * PAGE_SIZE, size=length, unmap=unmap)
    partition.regions.append(region)
    flags = _ACCESS[access] | (MapFlags.LARGE_PAGE if bytes_per_page == LARGE_PAGE_SIZE else 0)
    step = bytes_per_page // PAGE_SIZE

    def map_list(done: int, count: int) -> None:
        header = pack("<QQII", partition.id, (gpa >> 12) + done * step, flags, 0)
        gpns = first + (done + run_of(0, count)) * np.uint64(step)
        _call(parent, partition, Hypercall.MAP_GPA_PAGES, header + gpns.astype("<u8").tobytes(), reps=count)

    try:
        _in_lists(length // bytes_per_page, map_list)
    except BaseException:
        region.close()
        raise
    return region


def destroy(partition: Partition) -> None:
    """Remove a child with all that is below it, and give its pages back to the root."""
    parent = _parent(partition)
    for region in partition.regions:
        region.require_no_views()
    for child in list(partition.children.values()):
        destroy(child)
    target = pack("<Q", partition.id)
    if partition.state in (PartitionState.ACTIVE, PartitionState.FINALIZING):
        check(parent.hypercall(Hypercall.FINALIZE_PARTITION, target).status, Hypercall.FINALIZE_PARTITION)
    while True:
        withdrawn = parent.hypercall(Hypercall.WITHDRAW_MEMORY, pack("<QQ", partition.id, 0), reps=_LIST_ELEMENTS)
        if parent.parent is None:
            partition.hypervisor.free_pages.release(np.frombuffer(withdrawn.output, "<u8"))
        if withdrawn.status is Status.NO_RESOURCES:
            break
        check(withdrawn.status, Hypercall.WITHDRAW_MEMORY)
    check(parent.hypercall(Hypercall.DELETE_PARTITION, target).status, Hypercall.DELETE_PARTITION)
    for region in list(partition.regions):
        region.close()
    partition.regions.clear()


def deposit(parent: Partition, target: Partition, count: int) -> None:
    """Give `count` free root pages to the pool of `target`."""
    first = parent.hypervisor.free_pages.allocate(count)
    input_ = pack("<Q", target.id) + run_of(first, count).astype("<u8").tobytes()
    result = parent.hypercall(Hypercall.DEPOSIT_MEMORY, input_, reps=count)
    check(result.status, Hypercall.DEPOSIT_MEMORY)


def _parent(partition: Partition) -> Partition:
    if partition.parent is None:
        raise ValueError("the root partition has all RAM already and cannot be destroyed: name a child")
    return partition.parent


def _require_root(parent: Partition) -> None:
    if parent.parent is not None:
        raise ValueError(f"{parent!r} is not the root: make the hypercalls of a child that is a parent one by one")


def _call(
    parent: Partition, pool_owner: Partition, call: Hypercall, input_: bytes, *, reps: int | None = None
) -> Result:
    """Make a call, depositing into the pool of `pool_owner` as often as it asks for memory."""
    start = 0
    while True:
        result = parent.hypercall(call, input_, reps=reps, start=start)
        if result.status is not Status.INSUFFICIENT_MEMORY:
            check(result.status, call)
            return result
        start = result.reps_completed
        deposit(parent, pool_owner, _DEPOSIT_PAGES)


def _in_lists(total: int, action: Callable[[int, int], object]) -> None:
    """Do `total` elements in calls of at most a page: action(done, count)."""
    for done in range(0, total, _LIST_ELEMENTS):
        action(done, min(_LIST_ELEMENTS, total - done))
