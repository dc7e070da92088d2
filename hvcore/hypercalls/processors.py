"""Virtual processors: calls 4E, 50, 51 and 52 (TLFS 8, hyperv-abi.md 4.5, 7, 11.1)."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hvcore import msrs, properties
from hvcore.enums import PartitionProperty, Privilege, Status, TranslateFlags
from hvcore.hypercalls.abi import U8, U32, U64, Bytes3, Refused, require_proximity, require_vtl0
from hvcore.hypercalls.call import Call, Progress

if TYPE_CHECKING:
    from hvcore.partition import Partition

REGISTER_VALUE = np.dtype([("name", "<u4"), ("reserved", "V12"), ("value", "V16")])

_ACCESS = TranslateFlags.VALIDATE_READ | TranslateFlags.VALIDATE_WRITE | TranslateFlags.VALIDATE_EXECUTE


class CreateVpInput(NamedTuple):
    partition_id: U64
    vp_index: U32
    reserved: Bytes3
    subnode_type: U8
    subnode_id: U64
    proximity: U64
    flags: U64


class RegistersInput(NamedTuple):
    partition_id: U64
    vp_index: U32
    vtl: U8
    reserved: Bytes3


class TranslateInput(NamedTuple):
    partition_id: U64
    vp_index: U32
    reserved: U32
    flags: U64
    gva_page: U64


class TranslateOutput(NamedTuple):
    result: U32
    cache_and_overlay: U32
    gpa_page: U64


def create_vp(call: Call, header: CreateVpInput) -> None:
    """A virtual processor in reset state, explicitly suspended; charged to its partition."""
    partition = call.target(header.partition_id)
    if header.vp_index in partition.vps or header.vp_index >= call.hypervisor.maximum_vps:
        raise Refused(Status.INVALID_VP_INDEX)
    if header.flags or header.subnode_type > 3:
        raise Refused(Status.INVALID_PARAMETER)
    require_proximity(header.proximity)
    if _reserve_with_one_more_vp(partition) > call.hypervisor.processors * properties.WHOLE_PROCESSOR:
        raise Refused(Status.OPERATION_DENIED)
    partition.create_vp(header.vp_index)


def get_vp_registers(call: Call, header: RegistersInput) -> Progress:
    """Read registers by name."""
    vp = _registers_target(call, header)

    def get(name: Any) -> bytes:
        value = msrs.read_register(call.hypervisor, vp, int(name))
        if value is None:
            raise Refused(Status.UNKNOWN_REGISTER_NAME)
        return value.to_bytes(16, "little")

    return call.each(call.elements, get)


def set_vp_registers(call: Call, header: RegistersInput) -> Progress:
    """Write registers by name; no side effects, no faults."""
    vp = _registers_target(call, header)

    def set_(element: Any) -> bytes:
        value = int.from_bytes(element["value"].tobytes(), "little")
        status = msrs.write_register(call.hypervisor, vp, int(element["name"]), value)
        if status is not Status.SUCCESS:
            raise Refused(status)
        return b""

    return call.each(call.elements, set_)


def translate_virtual_address(call: Call, header: TranslateInput) -> TranslateOutput:
    """Walk the target's page tables in its present mode; the status is SUCCESS even when the walk fails."""
    partition = call.target(header.partition_id)
    vp = call.target_vp(partition, header.vp_index)
    require_vtl0(header.flags >> 56)
    flags = header.flags & ~(0xFF << 56)
    if flags & ~sum(TranslateFlags) or not flags & _ACCESS or header.gva_page >> 52:
        raise Refused(Status.INVALID_PARAMETER)
    result, gpa, cache_type, overlay = vp.translate_for_hypercall(header.gva_page << 12, flags)
    return TranslateOutput(result, cache_type | overlay << 8, gpa >> 12)


def _registers_target(call: Call, header: RegistersInput) -> Any:
    """A virtual processor of a child, or of the caller itself if it may see its own registers."""
    partition = call.target(header.partition_id, caller=True)
    if partition is call.caller and not call.caller.privileges & Privilege.ACCESS_VP_REGISTERS:
        raise Refused(Status.ACCESS_DENIED)
    require_vtl0(header.vtl)
    return call.target_vp(partition, header.vp_index)


def _reserve_with_one_more_vp(partition: "Partition") -> int:
    """The CPU_RESERVE of all partitions if `partition` gets another virtual processor."""
    total = partition.properties[PartitionProperty.CPU_RESERVE]
    for other in partition.hypervisor.partitions.values():
        total += other.properties[PartitionProperty.CPU_RESERVE] * len(other.vps)
    return total
