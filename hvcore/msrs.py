"""The synthetic MSRs that move overlay pages or reset the partition (TLFS 12.7, hyperv-abi.md 2, 3.5, 9.6, 11.3).

The run loop handles all others natively and defers these to `read` and `write`, which also serve the registers of
the same names. Reserved bits are kept as written (section 13, #16).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from hvcore._native.space import EXECUTE, READ, WRITE
from hvcore.enums import OverlayKind, Privilege, Status
from hvcore.registers import RegisterName

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.partition import Partition
    from hvcore.processor import VirtualProcessor

GUEST_OS_ID = 0x4000_0000
HYPERCALL = 0x4000_0001
RESET = 0x4000_0003
REFERENCE_TSC = 0x4000_0021
VP_ASSIST_PAGE = 0x4000_0073
SCONTROL = 0x4000_0080
SVERSION = 0x4000_0081
SIEFP = 0x4000_0082
SIMP = 0x4000_0083
EOM = 0x4000_0084
SIRBP = 0x4000_0085
SINT0 = 0x4000_0090
REENLIGHTENMENT_CONTROL = 0x4000_0106
TSC_EMULATION_CONTROL = 0x4000_0107
TSC_EMULATION_STATUS = 0x4000_0108
TSC_INVARIANT_CONTROL = 0x4000_0118

_ENABLE = 1
_LOCKED = 2
_WHOLE_PARTITION = 0
_SINT_SET = 48
_TICKS_PER_UNIT = 100
# VMCALL; RET at offset 0, and INT3 everywhere else.
_HYPERCALL_CODE = b"\x0f\x01\xc1\xc3".ljust(4096, b"\xcc")


class _Msr(NamedTuple):
    privilege: int
    read: Callable[[Partition, VirtualProcessor], int]
    write: Callable[[Partition, VirtualProcessor, int], bool]


def read(hypervisor: Hypervisor, vp: VirtualProcessor, index: int) -> int | None:
    """The value of a deferred MSR; None = #GP."""
    partition = hypervisor.partition_of[vp]
    msr = _MSRS.get(index)
    if msr is None or msr.privilege & ~partition.privileges:
        return None
    return msr.read(partition, vp)


def write(hypervisor: Hypervisor, vp: VirtualProcessor, index: int, value: int) -> bool:
    """Write a deferred MSR; False = #GP."""
    partition = hypervisor.partition_of[vp]
    msr = _MSRS.get(index)
    if msr is None or msr.privilege & ~partition.privileges:
        return False
    return msr.write(partition, vp, value)


def read_register(hypervisor: Hypervisor, vp: VirtualProcessor, name: int) -> int | None:
    """The 16-byte value of a register; None if the name is unknown."""
    if name in _FACTS:
        return _FACTS[name](hypervisor.partition_of[vp], vp)
    name = _OF_THE_APIC.get(name, name)
    if name == RegisterName.DELIVERABILITY_NOTIFICATIONS:
        return vp.interrupts.awaited_sints << _SINT_SET | (vp.read_register(name) or 0)
    index = _REGISTERS.get(name)
    if index is None:
        return vp.read_register(name)
    return _MSRS[index].read(hypervisor.partition_of[vp], vp)


def write_register(hypervisor: Hypervisor, vp: VirtualProcessor, name: int, value: int) -> Status:
    """Write a register as HvCallSetVpRegisters does; privileges do not count."""
    if name in _FACTS:
        return Status.INVALID_REGISTER_VALUE
    name = _OF_THE_APIC.get(name, name)
    if name == RegisterName.DELIVERABILITY_NOTIFICATIONS:
        return _await_sints(vp, value)
    index = _REGISTERS.get(name)
    if index is None:
        return Status(vp.write_register(name, value))
    if value >> 64 or not _MSRS[index].write(hypervisor.partition_of[vp], vp, value):
        return Status.INVALID_REGISTER_VALUE
    return Status.SUCCESS


def _await_sints(vp: VirtualProcessor, value: int) -> Status:
    """DeliverabilityNotifications: bits 63:48 are a set of SINTs, each told of once; the rest is the processor's."""
    if value >> 64:
        return Status.INVALID_REGISTER_VALUE
    status = Status(vp.write_register(RegisterName.DELIVERABILITY_NOTIFICATIONS, value & (1 << _SINT_SET) - 1))
    if status is Status.SUCCESS:
        vp.interrupts.awaited_sints = value >> _SINT_SET
    return status


def _write_guest_os_id(partition: Partition, vp: VirtualProcessor, value: int) -> bool:
    """Zero uncovers the hypercall page but keeps its number (section 13, #39)."""
    partition.core.guest_os_id = value
    if value == 0:
        _set_hypercall(partition, partition.core.hypercall_msr & ~_ENABLE)
    return True


def _write_hypercall(partition: Partition, vp: VirtualProcessor, value: int) -> bool:
    if partition.core.hypercall_msr & _LOCKED or value >> 12 >= partition.page_limit:
        return False
    if not partition.core.guest_os_id:
        value &= ~_ENABLE
    _set_hypercall(partition, value)
    return True


def _set_hypercall(partition: Partition, value: int) -> None:
    partition.core.hypercall_msr = value
    partition.hypervisor.memory.write(partition.hypercall_frame << 12, _HYPERCALL_CODE)
    _overlay(partition, OverlayKind.HYPERCALL, _WHOLE_PARTITION, value, partition.hypercall_frame, READ | EXECUTE)


def _write_reset(partition: Partition, vp: VirtualProcessor, value: int) -> bool:
    if value > 1:
        return False
    if value:
        partition.hypervisor.reset(partition)
    return True


def _write_reference_tsc(partition: Partition, vp: VirtualProcessor, value: int) -> bool:
    """The page is computed anew, and kept right from then on (irq/reference_page.pxd)."""
    partition.reference_tsc = value
    partition.time.page_enabled = bool(value & _ENABLE)
    frame = partition.reference_tsc_frame
    _overlay(partition, OverlayKind.REFERENCE_TSC, _WHOLE_PARTITION, value, frame, READ)
    return True


def _write_tsc_invariant(partition: Partition, vp: VirtualProcessor, value: int) -> bool:
    if value > 1:
        return False
    partition.time.invariant_tsc = bool(value)
    return True


def _reenlightenment(index: int, defined: int) -> _Msr:
    """A register that is kept as it is written, as no partition moves to another machine; reserved bits fault."""

    def write(partition: Partition, vp: VirtualProcessor, value: int) -> bool:
        if value & ~defined:
            return False
        partition.time.reenlightenment[index] = value
        return True

    privilege = Privilege.ACCESS_REENLIGHTENMENT_CONTROLS
    return _Msr(privilege, lambda partition, vp: partition.time.reenlightenment.get(index, 0), write)


def _write_vp_assist(partition: Partition, vp: VirtualProcessor, value: int) -> bool:
    vp.assist_msr = value
    vp.interrupts.assist_enabled = bool(value & _ENABLE)
    frame = partition.frames[vp.index].assist_page
    _overlay(partition, OverlayKind.VP_ASSIST, vp.index, value, frame, READ | WRITE)
    return True


def _read_synic(index: int) -> Callable[[Partition, VirtualProcessor], int]:
    return lambda partition, vp: vp.interrupts.read_msr(index, partition.reference_time) or 0


def _write_synic(index: int, kind: OverlayKind) -> Callable[[Partition, VirtualProcessor, int], bool]:
    """SIMP, SIEFP and SIRBP: the interrupt controller keeps the value, the page is laid over the space here."""

    def write(partition: Partition, vp: VirtualProcessor, value: int) -> bool:
        if not vp.interrupts.write_msr(index, value, partition.reference_time):
            return False
        frame = getattr(partition.frames[vp.index], _FRAMES[kind])
        _overlay(partition, kind, vp.index, value, frame, READ | WRITE)
        return True

    return write


_FRAMES = {OverlayKind.SIM: "message_page", OverlayKind.SIEF: "event_page", OverlayKind.SIRB: "event_ring"}


def _native(index: int, privilege: Privilege) -> _Msr:
    """A register of the SynIC or of a timer, for HvCallGetVpRegisters and its like: guests reach it natively."""
    return _Msr(
        privilege,
        _read_synic(index),
        lambda partition, vp, value: bool(vp.interrupts.write_msr(index, value, partition.reference_time)),
    )


def _overlay(partition: Partition, kind: OverlayKind, slot: int, value: int, frame: int, rights: int) -> None:
    """Lay `frame` where an MSR value says, or take it away. Beyond the GPA space it is not reachable."""
    gpn = value >> 12
    if value & _ENABLE and gpn < partition.page_limit:
        partition.space.set_overlay(kind, slot, gpn, frame, rights)
    else:
        partition.space.clear_overlay(kind, slot)


_HYPERCALLS = Privilege.ACCESS_HYPERCALL_MSRS
_SYNIC = Privilege.ACCESS_SYNIC_REGS
_TIMERS = Privilege.ACCESS_SYNTHETIC_TIMER_REGS

_MSRS: dict[int, _Msr] = {
    GUEST_OS_ID: _Msr(_HYPERCALLS, lambda partition, vp: partition.core.guest_os_id, _write_guest_os_id),
    HYPERCALL: _Msr(_HYPERCALLS, lambda partition, vp: partition.core.hypercall_msr, _write_hypercall),
    RESET: _Msr(Privilege.ACCESS_RESET_REG, lambda partition, vp: 0, _write_reset),
    REFERENCE_TSC: _Msr(
        Privilege.ACCESS_PARTITION_REFERENCE_TSC, lambda partition, vp: partition.reference_tsc, _write_reference_tsc
    ),
    VP_ASSIST_PAGE: _Msr(
        Privilege.ACCESS_INTERRUPT_CONTROL_REGS, lambda partition, vp: vp.assist_msr, _write_vp_assist
    ),
    SIEFP: _Msr(_SYNIC, _read_synic(SIEFP), _write_synic(SIEFP, OverlayKind.SIEF)),
    SIMP: _Msr(_SYNIC, _read_synic(SIMP), _write_synic(SIMP, OverlayKind.SIM)),
    SIRBP: _Msr(_SYNIC, _read_synic(SIRBP), _write_synic(SIRBP, OverlayKind.SIRB)),
    REENLIGHTENMENT_CONTROL: _reenlightenment(REENLIGHTENMENT_CONTROL, 0xFFFF_FFFF_0001_00FF),
    TSC_EMULATION_CONTROL: _reenlightenment(TSC_EMULATION_CONTROL, 1),
    TSC_EMULATION_STATUS: _reenlightenment(TSC_EMULATION_STATUS, 1),
    TSC_INVARIANT_CONTROL: _Msr(
        Privilege.ACCESS_TSC_INVARIANT_CONTROLS,
        lambda partition, vp: int(partition.time.invariant_tsc),
        _write_tsc_invariant,
    ),
    **{index: _native(index, _SYNIC) for index in (SCONTROL, SVERSION, EOM, *range(SINT0, SINT0 + 16))},
    **{index: _native(index, _TIMERS) for index in (*range(0x4000_00B0, 0x4000_00B8), 0x4000_0114, 0x4000_0115)},
}

_REGISTERS: dict[int, int] = {
    RegisterName.GUEST_OS_ID: GUEST_OS_ID,
    RegisterName.HYPERCALL: HYPERCALL,
    RegisterName.REFERENCE_TSC: REFERENCE_TSC,
    RegisterName.VP_ASSIST_PAGE: VP_ASSIST_PAGE,
    **{RegisterName.SINT0 + sint: SINT0 + sint for sint in range(16)},
    RegisterName.SCONTROL: SCONTROL,
    RegisterName.SVERSION: SVERSION,
    RegisterName.SIEFP: SIEFP,
    RegisterName.SIMP: SIMP,
    RegisterName.EOM: EOM,
    RegisterName.SIRBP: SIRBP,
    RegisterName.TIME_UNHALTED_CONFIG: 0x4000_0114,
    RegisterName.TIME_UNHALTED_COUNT: 0x4000_0115,
    **{RegisterName.STIMER0_CONFIG + number: 0x4000_00B0 + number for number in range(8)},
}

_OF_THE_APIC: dict[int, int] = {
    RegisterName.SYNTHETIC_EOI: RegisterName.APIC_EOI,
    RegisterName.SYNTHETIC_ICR: RegisterName.APIC_ICR,
    RegisterName.SYNTHETIC_TPR: RegisterName.APIC_TPR,
}
"""Two names of one register. Whoever sets it by name sends and ends nothing."""

_FACTS: dict[int, Callable[[Partition, VirtualProcessor], int]] = {
    RegisterName.VP_INDEX: lambda partition, vp: vp.index,
    RegisterName.VP_RUNTIME: lambda partition, vp: vp.counters()["runtime_ticks"] // _TICKS_PER_UNIT,
    RegisterName.TIME_REF_COUNT: lambda partition, vp: partition.reference_time,
    RegisterName.REFERENCE_TSC_SEQUENCE: lambda partition, vp: partition.time.page_sequence,
    RegisterName.PROCESSOR_CLOCK_FREQUENCY: lambda partition, vp: partition.time.tsc_frequency,
    RegisterName.INTERRUPT_CLOCK_FREQUENCY: lambda partition, vp: partition.time.apic_frequency,
}
"""Registers that can only be read."""
