"""GPA space: calls 4B, 4C, 53 and 54 (TLFS 7, hyperv-abi.md 4.4, 4.5).

A mapping names pages of the caller's own space and is resolved to system pages at once. No mapping gives more
rights than the caller has on the source (R; the documents are silent).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hvcore.enums import AccessMask, CacheType, GpaAccessResult, MapFlags, Status, UnmapFlags
from hvcore.hypercalls.abi import U32, U64, Bytes16, Refused
from hvcore.hypercalls.call import Call, Progress
from hvcore.pages import LARGE, LOCKED, PRESENT, RWX, Mappings, Pages, RootMappings, run_of, spns_of

if TYPE_CHECKING:
    from hvcore.partition import Partition

_LEGAL_RIGHTS = (0, AccessMask.READ, AccessMask.READ | AccessMask.WRITE, AccessMask.READ | AccessMask.EXECUTE, RWX)


class MapInput(NamedTuple):
    partition_id: U64
    base: U64
    flags: U32
    reserved: U32


class ReadInput(NamedTuple):
    partition_id: U64
    vp_index: U32
    size: U32
    gpa: U64
    flags: U64


class WriteInput(NamedTuple):
    partition_id: U64
    vp_index: U32
    size: U32
    gpa: U64
    flags: U64
    data: Bytes16


class ReadOutput(NamedTuple):
    result: U32
    reserved: U32
    data: Bytes16


class WriteOutput(NamedTuple):
    result: U32
    reserved: U32


def map_gpa_pages(call: Call, header: MapInput) -> Progress:
    """Map pages of the caller into a child; or change the root's own rights."""
    target = call.target(header.partition_id, root=True)
    rights = _rights(header.flags)
    step = LARGE if header.flags & MapFlags.LARGE_PAGE else 1
    if header.base % step or header.base + (call.start + call.count) * step > target.page_limit:
        raise Refused(Status.INVALID_PARAMETER)
    base = header.base + call.start * step
    if isinstance(target.mappings, RootMappings):
        return _protect(target.mappings, base, call.elements, rights, step)
    if header.flags & MapFlags.NO_ACCESS:
        return _remove(target, base, call.count, step)
    return _map(call.caller.mappings, target, base, call.elements, rights, step)


def unmap_gpa_pages(call: Call, header: MapInput) -> Progress:
    """Take pages out of a child's space; unmapping an unmapped page succeeds."""
    target = call.target(header.partition_id)
    if header.flags & ~sum(UnmapFlags):
        raise Refused(Status.INVALID_PARAMETER)
    step = LARGE if header.flags & UnmapFlags.LARGE_PAGE else 1
    if header.base % step or header.base + (call.start + call.count) * step > target.page_limit:
        raise Refused(Status.INVALID_PARAMETER)
    return _remove(target, header.base + call.start * step, call.count, step)


def read_gpa(call: Call, header: ReadInput) -> ReadOutput:
    """Read up to 16 bytes as the virtual processor would."""
    partition = call.target(header.partition_id)
    vp = call.target_vp(partition, header.vp_index)
    _require_access(partition, header.gpa, header.size, header.flags)
    data = vp.read_gpa(header.gpa, header.size)
    if data is None:
        return ReadOutput(_why_not(partition, header.gpa, GpaAccessResult.READ_INTERCEPT), 0, b"")
    return ReadOutput(GpaAccessResult.SUCCESS, 0, data)


def write_gpa(call: Call, header: WriteInput) -> WriteOutput:
    """Write up to 16 bytes as the virtual processor would."""
    partition = call.target(header.partition_id)
    vp = call.target_vp(partition, header.vp_index)
    _require_access(partition, header.gpa, header.size, header.flags)
    if vp.write_gpa(header.gpa, header.data[: header.size]):
        return WriteOutput(GpaAccessResult.SUCCESS, 0)
    return WriteOutput(_why_not(partition, header.gpa, GpaAccessResult.WRITE_INTERCEPT), 0)


def _rights(flags: int) -> int:
    """The rights of the native layer that the map flags ask for."""
    if flags & ~sum(MapFlags) or flags & MapFlags.EXECUTE == MapFlags.USER_EXECUTE:
        raise Refused(Status.INVALID_PARAMETER)
    rights = flags & (MapFlags.READ | MapFlags.WRITE | MapFlags.KERNEL_EXECUTE)
    if rights not in _LEGAL_RIGHTS or (rights and flags & MapFlags.NO_ACCESS):
        raise Refused(Status.INVALID_PARAMETER)
    return rights


def _map(source: Mappings, target: Partition, base: int, gpns: Pages, rights: int, step: int) -> Progress:
    """Map the longest run of elements that is in order, then say what is wrong with the next one."""
    limit = target.page_limit
    within = np.flatnonzero((gpns % step != 0) | (gpns > limit - step))
    count = int(within[0]) if within.size else gpns.size
    status = Status.INVALID_PARAMETER if within.size else Status.SUCCESS

    entries = source.entries((gpns[:count, None] + run_of(0, step)).ravel()).reshape(count, step)
    usable = ((entries & np.uint64(PRESENT)) != 0) & ((np.uint64(rights) & ~entries) == 0)
    denied = np.flatnonzero(~usable.all(axis=1))
    if denied.size:
        count, status = int(denied[0]), Status.OPERATION_DENIED
    locked = np.flatnonzero(_locked(target.mappings, base, count, step))
    if locked.size:
        count, status = int(locked[0]), Status.OBJECT_IN_USE

    placed = _place(target.mappings, base, spns_of(entries[:count]), rights)
    return Progress(placed, status if placed == count else Status.INSUFFICIENT_MEMORY)


def _place(mappings: Mappings, base: int, spns: Pages, rights: int) -> int:
    """Map one row of `spns` per element, as a large page where the system pages allow it."""
    count, step = len(spns), int(spns.shape[1])
    if step == 1:
        return mappings.place(base, spns.ravel(), rights)
    for done, row in enumerate(spns):
        large = row[0] % step == 0 and bool((row == run_of(int(row[0]), step)).all())
        if mappings.place(base + done * step, row[:1] if large else row, rights, large=large) != (1 if large else step):
            return done
    return count


def _remove(target: Partition, base: int, count: int, step: int) -> Progress:
    locked = np.flatnonzero(_locked(target.mappings, base, count, step))
    wanted = int(locked[0]) if locked.size else count
    removed = target.mappings.remove(base, wanted, large=step > 1)
    if removed < wanted:
        return Progress(removed, Status.INSUFFICIENT_MEMORY)
    return Progress(removed, Status.OBJECT_IN_USE if locked.size else Status.SUCCESS)


def _protect(root: RootMappings, base: int, gpns: Pages, rights: int, step: int) -> Progress:
    """Root on itself: only the rights of identity pages that no pool holds."""
    wanted = base + run_of(0, gpns.size) * np.uint64(step)
    present = (root.entries((wanted[:, None] + run_of(0, step)).ravel()) & np.uint64(PRESENT)) != 0
    refused = np.flatnonzero((gpns != wanted) | ~present.reshape(gpns.size, step).all(axis=1))
    count = int(refused[0]) if refused.size else gpns.size
    changed = root.protect(base, count, rights, large=step > 1)
    if changed < count:
        return Progress(changed, Status.INSUFFICIENT_MEMORY)
    return Progress(changed, Status.ACCESS_DENIED if refused.size else Status.SUCCESS)


def _locked(mappings: Mappings, base: int, count: int, step: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which elements cover a page that the target deposited."""
    entries = mappings.entries(run_of(base, count * step)).reshape(count, step)
    locked: np.ndarray[tuple[int], np.dtype[np.bool_]] = ((entries & np.uint64(LOCKED)) != 0).any(axis=1)
    return locked


def _require_access(partition: Partition, gpa: int, size: int, flags: int) -> None:
    crosses = (gpa & 0xFFF) + size > 4096
    if not 1 <= size <= 16 or crosses or gpa >> 12 >= partition.page_limit or flags not in set(CacheType):
        raise Refused(Status.INVALID_PARAMETER)


def _why_not(partition: Partition, gpa: int, intercepted: GpaAccessResult) -> GpaAccessResult:
    found = partition.space.resolve(gpa)
    if found is None:
        return GpaAccessResult.UNMAPPED
    return GpaAccessResult.ILLEGAL_OVERLAY_ACCESS if found[3] else intercepted
