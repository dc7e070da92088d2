"""Messages and events: calls 5C, 5D, C0 and C1 (TLFS 11, hyperv-abi.md 4.8, 9.2, 9.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hvcore._native.ports import post, signal
from hvcore.enums import Status
from hvcore.hypercalls.abi import U8, U16, U32, U64, Bytes3, Bytes7, Bytes240, Bytes256, Refused, require, require_vtl0
from hvcore.hypercalls.call import Call

if TYPE_CHECKING:
    from hvcore.processor import VirtualProcessor

FLAG_COUNT = 2048
_SIZE_OFFSET = 4


class PostMessageInput(NamedTuple):
    connection_id: U32
    reserved: U32
    message_type: U32
    size: U32
    payload: Bytes240


class SignalEventInput(NamedTuple):
    connection_id: U32
    flag: U16
    reserved: U16


class SignalDirectInput(NamedTuple):
    partition_id: U64
    vp_index: U32
    vtl: U8
    sint: U8
    flag: U16


class SignalDirectOutput(NamedTuple):
    newly_signaled: U8
    reserved: Bytes7


class PostDirectInput(NamedTuple):
    partition_id: U64
    vp_index: U32
    vtl: U8
    reserved0: Bytes3
    sint: U8
    reserved1: Bytes3
    message: Bytes256
    reserved2: U32


def post_message(call: Call, header: PostMessageInput) -> None:
    """Queue a message at the port behind a connection of the caller."""
    require(post(call.caller.core, header.connection_id, header.message_type, header.payload, header.size))


def signal_event(call: Call, header: SignalEventInput) -> None:
    """Set an event flag at the port behind a connection of the caller."""
    require(signal(call.caller.core, header.connection_id, header.flag))


def signal_event_direct(call: Call, header: SignalDirectInput) -> SignalDirectOutput:
    """Set an event flag of a child's virtual processor without a port; whether it was clear before."""
    vp = _target(call, header)
    if header.flag >= FLAG_COUNT:
        raise Refused(Status.INVALID_PARAMETER)
    fresh = vp.interrupts.signal_event(sint=header.sint, flag=header.flag)
    if fresh is None:
        raise Refused(Status.INVALID_SYNIC_STATE)
    return SignalDirectOutput(fresh, bytes(7))


def post_message_direct(call: Call, header: PostDirectInput) -> None:
    """Put a message into the slot of a child's virtual processor without a port (section 13, #4).

    No buffer waits for it: a full slot is INSUFFICIENT_BUFFERS, and asks the guest for an EOM.
    """
    vp = _target(call, header)
    message = header.message
    if not any(message[:4]) or message[_SIZE_OFFSET] > 240:
        raise Refused(Status.INVALID_PARAMETER)
    posted = vp.interrupts.post_direct(sint=header.sint, message=message)
    if posted is None:
        raise Refused(Status.INVALID_SYNIC_STATE)
    if not posted:
        raise Refused(Status.INSUFFICIENT_BUFFERS)


def _target(call: Call, header: SignalDirectInput | PostDirectInput) -> VirtualProcessor:
    """The virtual processor of a child; its index and the SINT are parameters that both calls check."""
    partition = call.target(header.partition_id)
    require_vtl0(header.vtl)
    vp = call.target_vp(partition, header.vp_index)
    if header.sint > 15:
        raise Refused(Status.INVALID_PARAMETER)
    return vp
