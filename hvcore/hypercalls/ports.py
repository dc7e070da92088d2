"""Ports and connections: calls 58, 5B, 5C, 5D, 95 and 96 (TLFS 11, hyperv-abi.md 4.8, 9.2, 9.3, 9.5)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from struct import unpack
from typing import TYPE_CHECKING, NamedTuple

from hvcore._native.ports import post, signal
from hvcore.enums import ANY_VP, PortType, Status
from hvcore.hypercalls.abi import (
    U8,
    U16,
    U32,
    U64,
    Bytes24,
    Bytes32,
    Bytes240,
    Refused,
    require,
    require_proximity,
    require_vtl0,
)
from hvcore.hypercalls.call import Call
from hvcore.ports import Connection, Port

if TYPE_CHECKING:
    from hvcore.partition import Partition

ID_LIMIT = 1 << 24
FLAG_COUNT = 2048
_DOORBELL_FLAGS = 0x8000_0007


class CreatePortInput(NamedTuple):
    port_partition: U64
    port_id: U32
    vtl: U8
    minimum_connection_vtl: U8
    reserved: U16
    connection_partition: U64
    info: Bytes24
    proximity: U64


class ConnectPortInput(NamedTuple):
    connection_partition: U64
    connection_id: U32
    vtl: U8
    reserved0: U8
    reserved1: U16
    port_partition: U64
    port_id: U32
    reserved2: U32
    info: Bytes32
    proximity: U64


class PortInput(NamedTuple):
    partition_id: U64
    id: U32
    flags: U32


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


def create_port(call: Call, header: CreatePortInput) -> None:
    """A new port, charged to the partition that receives."""
    owner = call.target(header.port_partition, caller=True)
    sender = call.hypervisor.partitions.get(header.connection_partition)
    if sender is None or sender is owner:
        raise Refused(Status.INVALID_PARTITION_ID)
    if header.port_id >= ID_LIMIT or header.port_id in owner.ports:
        raise Refused(Status.INVALID_PORT_ID)
    require_vtl0(header.vtl)
    require_vtl0(header.minimum_connection_vtl)
    require_proximity(header.proximity)
    make_port = _parse_port(owner, header.port_id, sender.id, header.info)
    owner.charge(("port", header.port_id), call.hypervisor.costs.port)
    try:
        owner.ports[header.port_id] = make_port()
    except Refused:
        owner.release(("port", header.port_id))
        raise


def delete_port(call: Call, header: PortInput) -> None:
    """Remove a port; its queued messages are lost, its connection stays dead."""
    owner = call.target(header.partition_id, caller=True)
    if header.id not in owner.ports:
        raise Refused(Status.INVALID_PORT_ID)
    owner.remove_port(header.id)


def connect_port(call: Call, header: ConnectPortInput) -> None:
    """A new connection, charged to the partition that sends."""
    sender = call.target(header.connection_partition, caller=True)
    owner = call.hypervisor.partitions.get(header.port_partition)
    if owner is None:
        raise Refused(Status.INVALID_PARTITION_ID)
    if header.connection_id >= ID_LIMIT or header.connection_id in sender.connections:
        raise Refused(Status.INVALID_CONNECTION_ID)
    port = owner.ports.get(header.port_id)
    if port is None or port.connected:
        raise Refused(Status.INVALID_PORT_ID)
    if port.sender_id != sender.id:
        raise Refused(Status.INVALID_PARTITION_ID)
    require_vtl0(header.vtl)
    require_proximity(header.proximity)
    make_connection = _parse_connection(sender, header.connection_id, port, header.info)
    sender.charge(("connection", header.connection_id), call.hypervisor.costs.connection)
    sender.connections[header.connection_id] = make_connection()


def disconnect_port(call: Call, header: PortInput) -> None:
    """Remove a connection; messages that it queued stay."""
    sender = call.target(header.partition_id, caller=True)
    if header.id not in sender.connections:
        raise Refused(Status.INVALID_CONNECTION_ID)
    is_doorbell = sender.connections[header.id].kind == PortType.DOORBELL
    if header.flags > 1 or bool(header.flags) != is_doorbell:
        raise Refused(Status.INVALID_PARAMETER)
    sender.remove_connection(header.id)


def post_message(call: Call, header: PostMessageInput) -> None:
    """Queue a message at the port behind a connection of the caller."""
    require(post(call.caller.core, header.connection_id, header.message_type, header.payload, header.size))


def signal_event(call: Call, header: SignalEventInput) -> None:
    """Set an event flag at the port behind a connection of the caller."""
    require(signal(call.caller.core, header.connection_id, header.flag))


def _parse_port(owner: Partition, port_id: int, sender_id: int, info: bytes) -> Callable[[], Port]:
    """HV_PORT_INFO: u32 type, u32 0, then sint, vp and flags, or a monitor page's GPA. What makes the port."""
    kind, _, sint, vp_index, base_flag, flag_count = unpack("<IIIIHH", info[:20])
    if kind == PortType.MONITOR:
        gpa = sint | vp_index << 32
        _require_page(owner, gpa)
        return partial(Port, owner, port_id, sender_id, PortType.MONITOR, gpa=gpa)
    if kind not in set(PortType) or not 1 <= sint <= 15 or (kind == PortType.DOORBELL and owner.parent is not None):
        raise Refused(Status.INVALID_PARAMETER)
    if vp_index != ANY_VP and vp_index not in owner.vps:
        raise Refused(Status.INVALID_VP_INDEX)
    make = partial(Port, owner, port_id, sender_id, PortType(kind), sint=sint, vp_index=vp_index)
    if kind == PortType.EVENT:
        if flag_count == 0 or base_flag + flag_count > FLAG_COUNT:
            raise Refused(Status.INVALID_PARAMETER)
        return partial(make, base_flag=base_flag, flag_count=flag_count)
    return make


def _parse_connection(sender: Partition, connection_id: int, port: Port, info: bytes) -> Callable[[], Connection]:
    """HV_CONNECTION_INFO: u32 type, u32 0, then three qwords: GPA, doorbell value, doorbell flags. What makes it."""
    kind, _, gpa, value, flags = unpack("<IIQQQ", info)
    if kind != port.kind:
        raise Refused(Status.INVALID_PARAMETER)
    make = partial(Connection, sender, connection_id, port)
    if kind == PortType.MONITOR:
        _require_page(sender, gpa)
        return partial(make, gpa=gpa)
    if kind == PortType.DOORBELL:
        size = 1 << (flags & 7) >> 1
        crosses = (gpa & 0xFFF) + max(size, 1) > 4096
        if flags & ~_DOORBELL_FLAGS or flags & 7 > 4 or crosses or gpa >> 12 >= sender.page_limit:
            raise Refused(Status.INVALID_PARAMETER)
        return partial(make, gpa=gpa, value=value, size=size, any_value=bool(flags >> 31 & 1))
    return make


def _require_page(partition: Partition, gpa: int) -> None:
    if gpa & 0xFFF:
        raise Refused(Status.INVALID_ALIGNMENT)
    if gpa >> 12 >= partition.page_limit:
        raise Refused(Status.INVALID_PARAMETER)
