"""Partition management: calls 40-46 (TLFS 5, hyperv-abi.md 4.2, 6.1, 6.3)."""

from typing import NamedTuple

from hvcore import properties
from hvcore.enums import CreationFlag, PartitionProperty, PartitionState, Status
from hvcore.hypercalls.abi import U32, U64, Nothing, Partition, Refused, Unfinished, require_proximity
from hvcore.hypercalls.call import ACTIVE, Call

_CREATION_FLAGS = sum(CreationFlag)
_EARLY = ACTIVE | {PartitionState.UNINITIALIZED}


class CreateInput(NamedTuple):
    flags: U64
    proximity: U64
    compatibility_version: U32
    reserved: U32
    disabled_features0: U64
    disabled_features1: U64
    disabled_xsave_features: U64
    isolation: U64


class GetInput(NamedTuple):
    partition_id: U64
    code: U32
    reserved: U32


class SetInput(NamedTuple):
    partition_id: U64
    code: U32
    reserved: U32
    value: U64


class RestoreTimeInput(NamedTuple):
    partition_id: U64
    tsc_sequence: U32
    reserved: U32
    reference_time: U64
    tsc: U64


class Word(NamedTuple):
    value: U64


def create_partition(call: Call, header: CreateInput) -> Word:
    """A new uninitialized child; its own pages are charged to the caller."""
    if header.flags & ~_CREATION_FLAGS or header.isolation:
        raise Refused(Status.INVALID_PARAMETER)
    require_proximity(header.proximity)
    if call.caller.depth >= call.hypervisor.maximum_depth:
        raise Refused(Status.PARTITION_TOO_DEEP)
    child = call.caller.new_child(header.flags, host_managed=call.vp is None)
    child.properties[PartitionProperty.COMPATIBILITY_VERSION] = header.compatibility_version
    child.properties[PartitionProperty.PROCESSOR_FEATURES0] &= ~header.disabled_features0
    child.properties[PartitionProperty.PROCESSOR_FEATURES1] &= ~header.disabled_features1
    child.properties[PartitionProperty.XSAVE_FEATURES] &= ~header.disabled_xsave_features
    return Word(child.id)


def initialize_partition(call: Call, header: Partition) -> None:
    """Uninitialized to active: the root table of its GPA space is charged to its own pool."""
    call.target(header.partition_id, frozenset({PartitionState.UNINITIALIZED})).initialize()


def finalize_partition(call: Call, header: Partition) -> None:
    """Free all that the partition has, in several entries, and leave it finalized."""
    states = frozenset({PartitionState.ACTIVE, PartitionState.FINALIZING})
    partition = call.target(header.partition_id, states)
    if partition.children:
        raise Refused(Status.OPERATION_DENIED)
    if not partition.finalize_step():
        raise Unfinished


def delete_partition(call: Call, header: Partition) -> None:
    """Forget a partition whose pool is empty; its id becomes invalid."""
    states = frozenset({PartitionState.UNINITIALIZED, PartitionState.FINALIZED})
    partition = call.target(header.partition_id, states)
    if partition.pool.available or partition.pool.in_use:
        raise Refused(Status.OPERATION_DENIED)
    partition.delete()


def get_partition_property(call: Call, header: GetInput) -> Word:
    """Read one property; before Initialize only those that may be set then."""
    partition = call.target(header.partition_id, _EARLY, root=True)
    return Word(properties.get(partition, header.code))


def set_partition_property(call: Call, header: SetInput) -> None:
    """Write one property; before Initialize only the early ones. No one grants a privilege that he lacks."""
    partition = call.target(header.partition_id, _EARLY, root=True)
    properties.set(partition, header.code, header.value, grantable=call.caller.privileges)


def get_partition_id(call: Call, header: Nothing) -> Word:
    """The caller's own id."""
    return Word(call.caller.id)


def restore_partition_time(call: Call, header: RestoreTimeInput) -> None:
    """Set reference time, the TSC of every processor, and the sequence that the reference TSC page goes on from."""
    partition = call.target(header.partition_id)
    if header.reserved or header.reference_time > (1 << 63) // 100:
        raise Refused(Status.INVALID_PARAMETER)
    partition.time.restore(header.reference_time)
    partition.time.restore_tsc(header.tsc, header.tsc_sequence)
