"""Calls 55, 56, 94 and E5: a parent asserts interrupts of a child, and clears ExtINT (hyperv-abi.md 4.7, 10.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hvcore.enums import InterruptType, Status
from hvcore.hypercalls.abi import U8, U16, U32, U64, VP_SET_SPARSE, Bytes6, Bytes512, Partition, Refused, require_vtl0
from hvcore.hypercalls.call import Call

if TYPE_CHECKING:
    from hvcore._native.irqchip import InterruptController
    from hvcore import partition as partitions
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


class OldAssertInput(NamedTuple):
    partition_id: U64
    type: U32
    flags: U32
    destination: U64
    vector: U32


class MdaInput(NamedTuple):
    partition_id: U64
    destination: U64
    vtl: U8
    logical: U8
    reserved: Bytes6


class VpSet(NamedTuple):
    format: U64
    valid_banks: U64
    banks: Bytes512


def assert_virtual_interrupt(call: Call, header: AssertInterruptInput) -> None:
    """Assert or (vector FFFFFFFF) withdraw one interrupt at every virtual processor that the destination names."""
    partition = call.target(header.partition_id)
    require_vtl0(header.vtl)
    _require_legal(header)
    if header.type == InterruptType.EXTINT:
        _external(partition, header)
        return
    level, logical = bool(header.flags & _LEVEL), bool(header.flags & _LOGICAL)
    indices = partition.core.addressed(header.destination, logical)
    if not indices:
        raise Refused(Status.INVALID_VP_INDEX)
    if header.type in (InterruptType.LOCAL_INT0, InterruptType.LOCAL_INT1):
        for index in indices:
            pins = partition.vps[index].interrupts.apic
            pins.set_pin(header.type - InterruptType.LOCAL_INT0, True)
            pins.set_pin(header.type - InterruptType.LOCAL_INT0, False)
    elif header.vector != WITHDRAW:
        partition.core.send_interrupt(
            header.destination, header.type, header.vector, logical=logical, level=level and header.type in _MAILBOX
        )
    elif level:
        for index in indices:
            _withdraw_level(partition.vps[index].interrupts)


def assert_virtual_interrupt_old(call: Call, header: OldAssertInput) -> None:
    """Call 55: the same without a VTL."""
    assert_virtual_interrupt(call, AssertInterruptInput(*header, vtl=0, reserved0=0, reserved1=0))


def clear_virtual_interrupt(call: Call, header: Partition) -> None:
    """The parent's ExtINT that the processor has acknowledged is over: the next one may be asserted."""
    boot = call.target(header.partition_id).vps.get(0)
    if boot is None or not boot.external_acknowledged:
        raise Refused(Status.NOT_ACKNOWLEDGED)
    boot.external_acknowledged = False


def get_vp_set_from_mda(call: Call, header: MdaInput) -> VpSet:
    """The virtual processors that a destination means."""
    partition = call.target(header.partition_id)
    require_vtl0(header.vtl)
    if header.logical > 1 or any(header.reserved):
        raise Refused(Status.INVALID_PARAMETER)
    banks: dict[int, int] = {}
    for index in partition.core.addressed(header.destination, bool(header.logical)):
        banks[index >> 6] = banks.get(index >> 6, 0) | 1 << (index & 63)
    words = b"".join(word.to_bytes(8, "little") for word in banks.values())
    return VpSet(VP_SET_SPARSE, sum(1 << bank for bank in banks), words)


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


def _external(partition: partitions.Partition, header: AssertInterruptInput) -> None:
    """ExtINT goes to the boot processor; after it was acknowledged it must be cleared before the next one."""
    boot = partition.vps.get(0)
    if header.destination or boot is None:
        raise Refused(Status.INVALID_VP_INDEX)
    if header.vector == WITHDRAW:
        boot.withdraw_external()
    elif not boot.assert_external(header.vector):
        raise Refused(Status.ACKNOWLEDGED)


def _withdraw_level(interrupts: InterruptController) -> None:
    """Clear every level-triggered request that was not delivered yet; edges stay (section 10.2)."""
    waiting = interrupts.requested & interrupts.level_triggered
    while waiting:
        vector = waiting.bit_length() - 1
        interrupts.withdraw_interrupt(vector)
        waiting ^= 1 << vector
