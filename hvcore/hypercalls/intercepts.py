"""Call 4D: which events of a child reach its parent (TLFS 9, hyperv-abi.md 4.6, 8.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from hvcore.enums import AccessMask, InterceptType, Status
from hvcore.hypercalls.abi import U32, U64, Refused
from hvcore.hypercalls.call import Call

if TYPE_CHECKING:
    from hvcore.partition import Partition

_READ_WRITE = AccessMask.READ | AccessMask.WRITE
_EXCEPTION_VECTORS = 32
_ALL = 0xFFFF_FFFF


class InstallInput(NamedTuple):
    partition_id: U64
    access: U32
    type: U32
    parameter: U64


def install_intercept(call: Call, header: InstallInput) -> None:
    """Install, change or (access 0) remove one intercept."""
    partition = call.target(header.partition_id)
    kind = _KINDS.get(header.type)
    if kind is None or header.access not in kind.accesses or header.parameter > kind.largest_parameter:
        raise Refused(Status.INVALID_PARAMETER)
    kind.install(partition, header.access, header.parameter)


class _Kind(NamedTuple):
    accesses: tuple[int, ...]
    largest_parameter: int
    install: Callable[[Partition, int, int], None]


def _io_port(partition: Partition, access: int, port: int) -> None:
    partition.core.set_io_intercept(port, port, access)


def _io_port_range(partition: Partition, access: int, parameter: int) -> None:
    first, last = parameter & 0xFFFF, parameter >> 16
    if first > last:
        raise Refused(Status.INVALID_PARAMETER)
    partition.core.set_io_intercept(first, last, access)


def _all_msrs(partition: Partition, access: int, _: int) -> None:
    partition.core.set_msr_intercept(0, _ALL, access)


def _msr_index(partition: Partition, access: int, index: int) -> None:
    partition.core.set_msr_intercept(index, index, access)


def _cpuid(partition: Partition, access: int, leaf: int) -> None:
    """The only intercept that costs memory: one charge for each leaf."""
    charged = partition.is_charged(("cpuid", leaf))
    if access and not charged:
        partition.charge(("cpuid", leaf), partition.hypervisor.costs.cpuid_intercept)
    elif charged and not access:
        partition.release(("cpuid", leaf))
    partition.core.set_cpuid_intercept(leaf, bool(access))


def _every_cpuid(partition: Partition, access: int, _: int) -> None:
    partition.core.set_cpuid_intercept(None, bool(access))


def _exception(partition: Partition, access: int, vector: int) -> None:
    partition.core.set_exception_intercept(vector, bool(access))


def _hypercall(partition: Partition, access: int, _: int) -> None:
    partition.intercepts_hypercalls = bool(access)


def _unknown_retarget(partition: Partition, access: int, _: int) -> None:
    partition.intercepts_retargets = bool(access)


def _apic_eoi(partition: Partition, access: int, _: int) -> None:
    partition.report_eois(edges=bool(access))


_ANY_IO = (0, AccessMask.READ, AccessMask.WRITE, _READ_WRITE)
_BOTH = (0, _READ_WRITE)
_EXECUTE = (0, AccessMask.EXECUTE)

_KINDS: dict[int, _Kind] = {
    InterceptType.IO_PORT: _Kind(_ANY_IO, 0xFFFF, _io_port),
    InterceptType.MSR: _Kind(_BOTH, (1 << 64) - 1, _all_msrs),
    InterceptType.CPUID: _Kind(_EXECUTE, _ALL, _cpuid),
    InterceptType.EXCEPTION: _Kind(_EXECUTE, _EXCEPTION_VECTORS - 1, _exception),
    InterceptType.GLOBAL_CPUID: _Kind(_EXECUTE, (1 << 64) - 1, _every_cpuid),
    InterceptType.HYPERCALL: _Kind(_EXECUTE, (1 << 64) - 1, _hypercall),
    InterceptType.APIC_EOI: _Kind((0, AccessMask.WRITE), (1 << 64) - 1, _apic_eoi),
    InterceptType.RETARGET_UNKNOWN_DEVICE: _Kind(_EXECUTE, (1 << 64) - 1, _unknown_retarget),
    InterceptType.MSR_INDEX: _Kind(_ANY_IO, _ALL, _msr_index),
    InterceptType.IO_PORT_RANGE: _Kind(_ANY_IO, _ALL, _io_port_range),
}
