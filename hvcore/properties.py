"""Partition properties: one table of rules, and get and set by it (TLFS 5.3, hyperv-abi.md 6.3).

Early properties may be set and read before Initialize, all others only in an active partition (section 13, #25).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hvcore.enums import PartitionProperty as Property
from hvcore.enums import PartitionState, Privilege, Status
from hvcore.hypercalls.abi import Refused

if TYPE_CHECKING:
    from hvcore.partition import Partition

_ANY = (1 << 64) - 1
_INTEL = 1
WHOLE_PROCESSOR = 0x1_0000
"""CPU_RESERVE and CPU_CAP of all of one logical processor."""
_ALL_PRIVILEGES = sum(Privilege)


class Rule(NamedTuple):
    """How one property behaves. `least` and `most` bound what may be written."""

    default: int = 0
    most: int = _ANY
    least: int = 0
    early: bool = False
    writable: bool = True
    unique: bool = False
    clamped: bool = False


RULES: dict[Property, Rule] = {
    Property.PRIVILEGE_FLAGS: Rule(early=True),
    Property.SYNTHETIC_PROCESSOR_FEATURES: Rule(early=True),
    Property.SUSPEND: Rule(most=1),
    Property.CPU_RESERVE: Rule(most=WHOLE_PROCESSOR),
    Property.CPU_CAP: Rule(default=WHOLE_PROCESSOR, most=WHOLE_PROCESSOR),
    Property.CPU_WEIGHT: Rule(default=100, least=1, most=10_000),
    Property.TIME_FREEZE: Rule(most=1),
    Property.APIC_FREQUENCY: Rule(least=1_000_000, most=1_000_000_000),
    Property.REFERENCE_TIME: Rule(most=(1 << 63) // 100),
    Property.DEBUG_CHANNEL_ID: Rule(unique=True),
    Property.VIRTUAL_TLB_PAGE_COUNT: Rule(default=256, least=16, most=4096, clamped=True),
    Property.ZERO_MEMORY_ON_RESET: Rule(most=1),
    Property.PROCESSORS_PER_SOCKET: Rule(default=1, least=1, most=2048),
    Property.IMPLEMENTED_PHYSICAL_ADDRESS_BITS: Rule(default=46, writable=False),
    Property.UNIMPLEMENTED_MSR_ACTION: Rule(most=1),
    Property.REFERENCE_TSC_PAGE_ACTIVE: Rule(writable=False),
    Property.AUTO_EOI_ENABLED: Rule(default=1, most=1),
    Property.PROCESSOR_VENDOR: Rule(default=_INTEL, writable=False),
    Property.XSAVE_FEATURES: Rule(default=_ANY, writable=False),
    Property.CACHE_LINE_FLUSH_SIZE: Rule(default=8, writable=False),
    Property.COMPATIBILITY_VERSION: Rule(writable=False),
    Property.PHYSICAL_ADDRESS_WIDTH: Rule(default=46, least=36, most=46, early=True),
    Property.PROCESSOR_CLOCK_FREQUENCY: Rule(least=1_000_000_000, most=10_000_000_000),
    Property.PROCESSOR_FEATURES0: Rule(default=_ANY, writable=False),
    Property.PROCESSOR_FEATURES1: Rule(default=_ANY, writable=False),
    Property.GUEST_OS_ID: Rule(writable=False),
}

# SyntheticProcFeatures bits 2..11 stand for privilege bits 0..6 and 9..11 (section 6.3).
_FEATURE_PRIVILEGES = {2: 0, 3: 1, 4: 2, 5: 3, 6: 4, 7: 5, 8: 6, 9: 9, 10: 10, 11: 11}


def defaults() -> dict[Property, int]:
    """The values of a new partition."""
    return {code: rule.default for code, rule in RULES.items()}


def get(partition: Partition, code: int) -> int:
    """The value of property `code`."""
    prop, _ = _find(partition, code)
    match prop:
        case Property.PRIVILEGE_FLAGS:
            return partition.privileges
        case Property.REFERENCE_TIME:
            return partition.reference_time
        case Property.TIME_FREEZE:
            return int(partition.time.frozen)
        case Property.APIC_FREQUENCY:
            return partition.time.apic_frequency
        case Property.PROCESSOR_CLOCK_FREQUENCY:
            return partition.time.tsc_frequency
        case Property.GUEST_OS_ID:
            return partition.core.guest_os_id
        case Property.REFERENCE_TSC_PAGE_ACTIVE:
            return partition.reference_tsc & 1
        case _:
            return partition.properties[prop]


def set(partition: Partition, code: int, value: int, *, grantable: int) -> None:
    """Write property `code`; privileges only out of `grantable`."""
    prop, rule = _find(partition, code)
    if not rule.writable:
        raise Refused(Status.PROPERTY_VALUE_OUT_OF_RANGE)
    if rule.clamped:
        value = min(max(value, rule.least), rule.most)
    if not rule.least <= value <= rule.most:
        raise Refused(Status.PROPERTY_VALUE_OUT_OF_RANGE)
    if (
        rule.unique
        and value
        and any(
            other.properties[prop] == value
            for other in partition.hypervisor.partitions.values()
            if other is not partition
        )
    ):
        raise Refused(Status.OBJECT_IN_USE)
    match prop:
        case Property.PRIVILEGE_FLAGS:
            _grant(partition, value, grantable)
        case Property.SYNTHETIC_PROCESSOR_FEATURES:
            _grant(partition, _translated(partition.privileges, value), grantable)
        case Property.SUSPEND:
            partition.core.suspended = bool(value)
        case Property.CPU_RESERVE if value > partition.properties[Property.CPU_CAP]:
            raise Refused(Status.PROPERTY_VALUE_OUT_OF_RANGE)
        case Property.CPU_CAP if value < partition.properties[Property.CPU_RESERVE]:
            raise Refused(Status.PROPERTY_VALUE_OUT_OF_RANGE)
        case Property.CPU_CAP:
            for vp in partition.vps.values():
                partition.hypervisor.scheduler.set_cap(vp, value)
        case Property.CPU_WEIGHT:
            for vp in partition.vps.values():
                partition.hypervisor.scheduler.set_weight(vp, value)
        case Property.TIME_FREEZE:
            partition.time.frozen = bool(value)
        case Property.REFERENCE_TIME:
            partition.time.restore(value)
        case Property.APIC_FREQUENCY | Property.PROCESSOR_CLOCK_FREQUENCY if partition.vps:
            raise Refused(Status.OPERATION_DENIED)
        case Property.APIC_FREQUENCY:
            partition.time.apic_frequency = value
        case Property.PROCESSOR_CLOCK_FREQUENCY:
            partition.time.tsc_frequency = value
        case Property.PHYSICAL_ADDRESS_WIDTH:
            partition.core.physical_bits = value
    partition.properties[prop] = value


def _find(partition: Partition, code: int) -> tuple[Property, Rule]:
    rule = RULES.get(code)  # type: ignore[call-overload]
    if rule is None:
        raise Refused(Status.UNKNOWN_PROPERTY)
    if partition.state is not PartitionState.ACTIVE and not rule.early:
        raise Refused(Status.INVALID_PARTITION_STATE)
    return Property(code), rule


def _grant(partition: Partition, privileges: int, grantable: int) -> None:
    if privileges & ~_ALL_PRIVILEGES:
        raise Refused(Status.INVALID_PARAMETER)
    if privileges & ~grantable:
        raise Refused(Status.ACCESS_DENIED)
    partition.privileges = privileges


def _translated(privileges: int, features: int) -> int:
    for feature, privilege in _FEATURE_PRIVILEGES.items():
        privileges = privileges & ~(1 << privilege) | (features >> feature & 1) << privilege
    return privileges
