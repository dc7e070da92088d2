"""Call 94: a parent asserts or withdraws interrupts of a child (TLFS 10, hyperv-abi.md 4.7, 10.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hvcore.enums import InterruptType, Status
from hvcore.hypercalls.abi import U8, U16, U32, U64, Refused, require_vtl0
from hvcore.hypercalls.call import Call
from hvcore.interrupts import InterruptSource
from hvcore.registers import RegisterName

if TYPE_CHECKING:
    from hvcore._native.irqchip import InterruptController
    from hvcore.partition import Partition
    from hvcore.processor import VirtualProcessor

WITHDRAW = 0xFFFF_FFFF
_LEVEL, _LOGICAL, _ASSERTED = 1, 2, 4
_BROADCAST = (0xFF, 0xFFFF_FFFF)
_MAILBOX = (InterruptType.FIXED, InterruptType.LOWEST_PRIORITY)
_VECTORLESS = (InterruptType.NMI, InterruptType.INIT, InterruptType.LOCAL_INT0, InterruptType.LOCAL_INT1)
_REFUSED = (InterruptType.SMI, InterruptType.REMOTE_READ)


class AssertInterruptInput(NamedTuple):
    partition_id: U64
    type: U32
    flags: U32
    destination: U64
    vector: U32
    vtl: U8
    reserved0: U8
    reserved1: U16


def assert_virtual_interrupt(call: Call, header: AssertInterruptInput) -> None:
    """Assert or (vector FFFFFFFF) withdraw one interrupt at every virtual processor that the destination names."""
    partition = call.target(header.partition_id)
    require_vtl0(header.vtl)
    _require_legal(header)
    if header.type == InterruptType.EXTINT:
        _external(partition, header)
        return
    vps = _destinations(partition, header.destination, logical=bool(header.flags & _LOGICAL))
    if not vps:
        raise Refused(Status.INVALID_VP_INDEX)
    if header.type == InterruptType.LOWEST_PRIORITY:
        vps = [min(vps, key=lambda vp: (vp.interrupts.processor_priority, vp.index))]
    for vp in vps:
        _assert_at(vp, header)


def _require_legal(header: AssertInterruptInput) -> None:
    """Reserved bits, trigger mode and vector, by type (the table of section 10.2)."""
    kind, vector = header.type, header.vector
    withdrawn = vector == WITHDRAW
    legal = not header.flags & ~(_LEVEL | _LOGICAL | _ASSERTED)
    if kind in _MAILBOX:
        broadcast = header.destination in _BROADCAST
        legal &= withdrawn or 16 <= vector <= 255
        legal &= kind == InterruptType.FIXED or bool(header.flags & _LOGICAL) or broadcast
    elif kind in _VECTORLESS:
        legal &= vector == 0 and not header.flags & _LEVEL
    elif kind == InterruptType.SIPI:
        legal &= vector <= 255 and not header.flags & _LEVEL
    elif kind == InterruptType.EXTINT:
        legal &= (withdrawn or vector <= 255) and bool(header.flags & _LEVEL)
    else:
        legal = False
    if not legal or kind in _REFUSED:
        raise Refused(Status.INVALID_PARAMETER)


def _external(partition: Partition, header: AssertInterruptInput) -> None:
    """ExtINT goes to the boot processor; after it was acknowledged it must be cleared before the next one."""
    boot = partition.vps.get(0)
    if header.destination or boot is None:
        raise Refused(Status.INVALID_VP_INDEX)
    if header.vector == WITHDRAW:
        boot.withdraw_external()
    elif not boot.assert_external(header.vector):
        raise Refused(Status.ACKNOWLEDGED)


def _assert_at(vp: VirtualProcessor, header: AssertInterruptInput) -> None:
    interrupts = vp.interrupts
    level = bool(header.flags & _LEVEL)
    match header.type:
        case InterruptType.NMI:
            interrupts.assert_nmi()
        case InterruptType.INIT:
            vp.assert_init()
        case InterruptType.SIPI:
            vp.assert_startup(header.vector)
        case InterruptType.LOCAL_INT0 | InterruptType.LOCAL_INT1:
            vp.assert_local(header.type - InterruptType.LOCAL_INT0)
        case _ if header.vector == WITHDRAW:
            if level:
                _withdraw_level(interrupts)
        case _:
            interrupts.assert_interrupt(header.vector, level=level, source=InterruptSource.PARENT)


def _withdraw_level(interrupts: InterruptController) -> None:
    """Clear every level-triggered request that was not delivered yet; edges stay (section 10.2)."""
    waiting = interrupts.requested & interrupts.level_triggered
    while waiting:
        vector = waiting.bit_length() - 1
        interrupts.withdraw_interrupt(vector)
        waiting ^= 1 << vector


def _destinations(partition: Partition, destination: int, *, logical: bool) -> list[VirtualProcessor]:
    """The virtual processors that accept `destination`, in index order."""
    vps = [vp for _, vp in sorted(partition.vps.items())]
    if logical:
        return [vp for vp in vps if matches_logical(vp.read_register(RegisterName.APIC_LDR) or 0, destination)]
    if destination in _BROADCAST:
        return vps
    return [vp for vp in vps if vp.interrupts.apic_id == destination]


def matches_logical(logical_id: int, destination: int) -> bool:
    """x2APIC ids are cluster:members; an xAPIC id (flat model) is its top byte, one bit per processor."""
    if logical_id >> 24 and not logical_id & 0xFF_FFFF:
        return bool(logical_id >> 24 & destination & 0xFF)
    return logical_id >> 16 == destination >> 16 & 0xFFFF and bool(logical_id & destination & 0xFFFF)
