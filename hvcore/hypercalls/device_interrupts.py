"""Calls 7C, 7D and 7E: where the interrupts of devices go (hyperv-abi.md 4.11). The table is hvcore/routing.py.

A message of a device is known by its address and data, an interrupt of the I/O APIC by its redirection entry. The
hypervisor chooses those of interrupts that the root maps, in the remappable format (bit 4 of the address, bit 48 of the
entry) with a number of its own; a guest that retargets names what its device writes or its entry holds.
"""

from __future__ import annotations

from struct import unpack
from typing import TYPE_CHECKING, NamedTuple

from hvcore import intercepts
from hvcore.device_routes import IOAPIC
from hvcore.enums import InterruptType, MessageType, Status
from hvcore.hypercalls.abi import U32, U64, VP_SET_ALL, Bytes40, Refused, Unfinished, parse_vp_set
from hvcore.hypercalls.call import Call

if TYPE_CHECKING:
    from hvcore.partition import Partition

_MULTICAST, _PROCESSOR_SET, _PROXY_REDIRECT = 1, 2, 4
_SOURCE_MSI, _SOURCE_IOAPIC = 1, 2
_DEVICE_TYPE_IOAPIC = 2
_ADDRESS, _REMAPPABLE = 0xFEE0_0000, 1 << 4
_HANDLES = 1 << 15
_ENTRY_LEVEL, _ENTRY_REMAPPABLE = 1 << 15, 1 << 48
_PIN_ENTRIES = 256
"""Rows that the I/O APIC has, ten for each pin: native code looks through all of them."""
_VECTOR_COUNTS = (1, 2, 4, 8, 16, 32)


class MapInput(NamedTuple):
    partition_id: U64
    device_id: U64
    flags: U32
    base_irt: U32
    source: U32
    reserved0: U32
    address: U32
    data: U32
    type: U32
    trigger: U32
    vectors: U32
    reserved1: U32
    vector: U32
    target_flags: U32
    mask: U64


class MapOutput(NamedTuple):
    source: U32
    reserved0: U32
    address: U32
    data: U32
    reserved1: Bytes40


class UnmapInput(NamedTuple):
    partition_id: U64
    device_id: U64
    source: U32
    reserved0: U32
    address: U32
    data: U32
    flags: U32
    reserved1: U32


class RetargetInput(NamedTuple):
    partition_id: U64
    device_id: U64
    source: U32
    reserved0: U32
    address: U32
    data: U32
    reserved1: U64
    vector: U32
    target_flags: U32
    mask: U64


def map_device_interrupt(call: Call, header: MapInput) -> MapOutput:
    """Let one message of a device, or a power of two in a row, interrupt processors of a partition; what to write.

    A source of 0 is the device's own: the entry says nothing yet, and Linux leaves it zero.
    """
    partition = call.target(header.partition_id, root=True)
    own = _SOURCE_IOAPIC if header.device_id >> 62 == _DEVICE_TYPE_IOAPIC else _SOURCE_MSI
    source = header.source or own
    _require_source(call, source, header.device_id)
    legal = header.vectors in (_VECTOR_COUNTS if source == _SOURCE_MSI else (1,)) and header.trigger <= 1
    legal &= header.type in (InterruptType.FIXED, InterruptType.LOWEST_PRIORITY) and not header.flags
    if not legal or not 16 <= header.vector <= 256 - header.vectors:
        raise Refused(Status.INVALID_PARAMETER)
    vps = _targets(call, partition, header.target_flags, header.mask)
    if source == _SOURCE_IOAPIC:
        return _map_pin(call, header, partition, vps)
    interrupts = call.hypervisor.interrupts
    handle = next((handle for handle in range(_HANDLES) if interrupts.entry_of_handle(_message(handle)) is None), None)
    if handle is None:
        raise Refused(Status.NO_RESOURCES)
    for number in range(header.vectors):
        interrupts.set_entry(
            header.device_id,
            _message(handle),
            number,
            partition,
            vp=vps,
            vector=header.vector + number,
            level=bool(header.trigger),
            multicast=bool(header.target_flags & _MULTICAST),
        )
    return MapOutput(_SOURCE_MSI, 0, _message(handle), 0, bytes(40))


def _map_pin(call: Call, header: MapInput, partition: Partition, vps: list[int]) -> MapOutput:
    """What to program into a redirection entry: whichever pin it is, the interrupt is that of the entry."""
    interrupts = call.hypervisor.interrupts
    entries = interrupts.entries(IOAPIC)
    if len(entries) >= _PIN_ENTRIES:
        raise Refused(Status.NO_RESOURCES)
    taken = {high >> 17 for _, high in entries if high << 32 & _ENTRY_REMAPPABLE}
    handle = next(handle for handle in range(_HANDLES) if handle not in taken)
    low = header.vector | (_ENTRY_LEVEL if header.trigger else 0)
    high = handle << 17 | _ENTRY_REMAPPABLE >> 32
    interrupts.set_entry(
        IOAPIC,
        low,
        high,
        partition,
        vp=vps,
        vector=header.vector,
        level=bool(header.trigger),
        multicast=bool(header.target_flags & _MULTICAST),
    )
    return MapOutput(_SOURCE_IOAPIC, 0, low, high, bytes(40))


def unmap_device_interrupt(call: Call, header: UnmapInput) -> None:
    """Forget what was mapped, with all the messages that go with it."""
    partition = call.target(header.partition_id, root=True)
    _require_source(call, header.source, header.device_id)
    if header.flags:
        raise Refused(Status.INVALID_PARAMETER)
    interrupts = call.hypervisor.interrupts
    route = interrupts.entry(header.device_id, header.address, header.data)
    if route is None or route.partition is not partition:
        raise Refused(Status.INVALID_DEVICE_ID if not interrupts.knows(header.device_id) else Status.INVALID_PARAMETER)
    several = header.source == _SOURCE_MSI and header.address & _REMAPPABLE
    count = max(_VECTOR_COUNTS) if several else 1
    for data in range(header.data, min(header.data + count, 1 << 32)):
        interrupts.remove_entry(header.device_id, header.address, data)


def retarget_device_interrupt(call: Call, header: RetargetInput) -> None:
    """Send a message of one of the caller's devices to another vector or to other processors of its."""
    partition = call.target(header.partition_id, child=False, caller=True)
    _require_source(call, header.source, header.device_id)
    if header.reserved1 or not 16 <= header.vector <= 255:
        raise Refused(Status.INVALID_PARAMETER)
    vps = _targets(call, partition, header.target_flags, header.mask)
    interrupts = call.hypervisor.interrupts
    route = interrupts.entry(header.device_id, header.address, header.data)
    if route is None:
        _require_device(call, partition, header.device_id)
        if header.device_id == IOAPIC and len(interrupts.entries(IOAPIC)) >= _PIN_ENTRIES:
            raise Refused(Status.NO_RESOURCES)
    elif route.partition is not partition:
        raise Refused(Status.ACCESS_DENIED)
    interrupts.set_entry(
        header.device_id,
        header.address,
        header.data,
        partition,
        vp=vps,
        vector=header.vector,
        level=route is not None and route.level,
        multicast=bool(header.target_flags & _MULTICAST),
    )


def _require_source(call: Call, source: int, device_id: int) -> None:
    """An MSI of a device, or an entry of the I/O APIC that the machine has."""
    if source not in (_SOURCE_MSI, _SOURCE_IOAPIC) or (source == _SOURCE_IOAPIC) != (
        device_id >> 62 == _DEVICE_TYPE_IOAPIC
    ):
        raise Refused(Status.INVALID_PARAMETER)
    if source == _SOURCE_IOAPIC and (device_id != IOAPIC or call.hypervisor.root.platform is None):
        raise Refused(Status.INVALID_DEVICE_ID)


def _message(handle: int) -> int:
    return _ADDRESS | _REMAPPABLE | handle << 5


def _targets(call: Call, partition: Partition, flags: int, mask: int) -> list[int]:
    """The processors that an interrupt target names, by VP index."""
    if flags & ~(_MULTICAST | _PROCESSOR_SET | _PROXY_REDIRECT):
        raise Refused(Status.INVALID_PARAMETER)
    named: frozenset[int] | None
    if flags & _PROCESSOR_SET:
        if mask != VP_SET_ALL and len(call.variable) < 8:
            raise Refused(Status.INVALID_HYPERCALL_INPUT)
        valid = unpack("<Q", call.variable[:8])[0] if call.variable else 0
        named = parse_vp_set(mask, valid, call.variable[8:])
    elif call.variable:
        raise Refused(Status.INVALID_HYPERCALL_INPUT)
    else:
        named = frozenset(index for index in range(64) if mask >> index & 1)
    vps = sorted(partition.vps if named is None else named)
    if not vps:
        raise Refused(Status.INVALID_PARAMETER)
    if any(index not in partition.vps for index in vps):
        raise Refused(Status.INVALID_VP_INDEX)
    return vps


def _require_device(call: Call, partition: Partition, device_id: int) -> None:
    """A device of the caller; the root has all that nobody was given. The caller's parent may know others."""
    owner = call.hypervisor.interrupts.owner_of(device_id)
    if owner is partition or (owner is None and partition.parent is None):
        return
    if partition.intercepts_retargets and call.vp is not None:
        record = intercepts.Record(MessageType.HYPERCALL_INTERCEPT, instruction_length=3)
        intercepts.deliver(call.hypervisor, call.vp, record)
        raise Unfinished
    raise Refused(Status.INVALID_DEVICE_ID)
