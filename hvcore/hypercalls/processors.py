"""Virtual processors: calls 4E, 4F, 50, 51, 52, 99 and 9A (TLFS 8, hyperv-abi.md 4.5, 7, 11.1)."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hvcore import msrs, properties
from hvcore.enums import PartitionProperty, Privilege, Status, TranslateFlags
from hvcore.hypercalls.abi import U8, U32, U64, Bytes3, Bytes7, Bytes224, Refused, require_proximity, require_vtl0
from hvcore.hypercalls.call import Call, Progress
from hvcore.registers import RegisterName

if TYPE_CHECKING:
    from hvcore.hypercalls.states import VpStateInput
    from hvcore.partition import Partition

REGISTER_VALUE = np.dtype([("name", "<u4"), ("reserved", "V12"), ("value", "V16")])

_STARTUP_SUSPEND = 1
_SEGMENTS = ("CS", "DS", "ES", "FS", "GS", "SS", "TR", "LDTR", "IDTR", "GDTR")
_CONTEXT = (
    *((RegisterName[name], 24 + 16 * place, 16) for place, name in enumerate(_SEGMENTS)),
    *((RegisterName[name], 184 + 8 * place, 8) for place, name in enumerate(("EFER", "CR0", "CR3", "CR4", "PAT"))),
    *((RegisterName[name], 8 * place, 8) for place, name in enumerate(("RIP", "RSP", "RFLAGS"))),
)
"""The context of StartVirtualProcessor: register, offset, bytes (section 7.5)."""

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


class DeleteVpInput(NamedTuple):
    partition_id: U64
    vp_index: U32
    reserved: U32


class StartVpInput(NamedTuple):
    partition_id: U64
    vp_index: U32
    vtl: U8
    reserved: Bytes3
    context: Bytes224


class ApicIdInput(NamedTuple):
    partition_id: U64
    vtl: U8
    reserved: Bytes7


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


def delete_vp(call: Call, header: DeleteVpInput) -> None:
    """Let a virtual processor of a child go."""
    partition = call.target(header.partition_id)
    call.target_vp(partition, header.vp_index)
    partition.remove_vp(header.vp_index)


def start_vp(call: Call, header: StartVpInput) -> None:
    """Start a processor that waits for SIPI with the registers of the context; all others as INIT leaves them."""
    partition = call.target(header.partition_id, caller=True)
    require_vtl0(header.vtl)
    vp = call.target_vp(partition, header.vp_index)
    if not vp.internal_activity_state & _STARTUP_SUSPEND:
        raise Refused(Status.INVALID_VP_STATE)
    for name, offset, size in _CONTEXT:
        value = int.from_bytes(header.context[offset : offset + size], "little")
        if msrs.write_register(call.hypervisor, vp, name, value) is not Status.SUCCESS:
            vp.assert_init()
            raise Refused(Status.INVALID_REGISTER_VALUE)
    vp.start()


def get_vp_index_from_apic_id(call: Call, header: ApicIdInput) -> Progress:
    """The VP index of each APIC id."""
    partition = call.target(header.partition_id, caller=True)
    if partition is call.caller and not call.caller.privileges & Privilege.ACCESS_VP_INDEX:
        raise Refused(Status.ACCESS_DENIED)
    require_vtl0(header.vtl)
    indices = {vp.interrupts.apic_id: index for index, vp in partition.vps.items()}

    def find(apic_id: Any) -> bytes:
        if int(apic_id) not in indices:
            raise Refused(Status.INVALID_PARAMETER)
        return indices[int(apic_id)].to_bytes(4, "little")

    return call.each(call.elements, find)


def get_vp_registers(call: Call, header: RegistersInput) -> Progress:
    """Read registers by name."""
    vp = registers_target(call, header)

    def get(name: Any) -> bytes:
        value = msrs.read_register(call.hypervisor, vp, int(name))
        if value is None:
            raise Refused(Status.UNKNOWN_REGISTER_NAME)
        return value.to_bytes(16, "little")

    return call.each(call.elements, get)


def set_vp_registers(call: Call, header: RegistersInput) -> Progress:
    """Write registers by name; no side effects, no faults."""
    vp = registers_target(call, header)

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


def registers_target(call: Call, header: "RegistersInput | VpStateInput") -> Any:
    """A virtual processor of a child, or of the caller itself if it may see its own registers.

    So it is for images of state, too."""
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
