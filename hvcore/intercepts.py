"""Intercept messages: composed from what the run loop recorded, sent to SINT0 of the parent (hyperv-abi.md 8.2-8.4).

Only for parents that are guest code; a parent in Python gets an exit instead, which is the run loop's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import pack
from typing import TYPE_CHECKING, TypeAlias

from hvcore.enums import CacheType, MessageType

if TYPE_CHECKING:
    from hvcore._native.engine import InterceptRecord as NativeRecord
    from hvcore._native.engine import Segment
    from hvcore.hypervisor import Hypervisor
    from hvcore.processor import VirtualProcessor

_CR0_PE, _CR0_AM = 1, 1 << 18
_EFER_LMA = 1 << 10
_RFLAGS_VM = 1 << 17
_DR7_ENABLES = 0xFF
_GVA_VALID = 3
_UNSIZED = (MessageType.X64_APIC_EOI, MessageType.INVALID_VP_REGISTER_VALUE, MessageType.UNSUPPORTED_FEATURE)


@dataclass(slots=True)
class Record:
    """An event that Python code noticed. Fields that do not belong to the message type are ignored."""

    message_type: int
    instruction_length: int = 0
    instruction_bytes: bytes = b""
    access: int = 0
    gpa: int = 0
    gva: int = 0
    gva_valid: bool = False
    port: int = 0
    size: int = 0
    value: int = 0
    """What a write to an unmapped GPA would have stored."""
    string: bool = False
    rep: bool = False
    msr: int = 0
    defaults: tuple[int, int, int, int] = (0, 0, 0, 0)
    """EAX, ECX, EDX, EBX that CPUID gives without the intercept."""
    vector: int = 0
    error_code: int | None = None
    software: bool = False
    parameter: int = 0


InterceptRecord: TypeAlias = "Record | NativeRecord"
"""What is known about an event, by Python code or by the run loop."""


def deliver(hypervisor: Hypervisor, vp: VirtualProcessor, record: InterceptRecord) -> None:
    """Suspend `vp` and queue the message at the parent: at the first VP that takes messages, else at its first VP."""
    vp.suspend_for_intercept()
    _post(hypervisor, vp, record)


def report_eois(hypervisor: Hypervisor, vp: VirtualProcessor) -> None:
    """Tell sources and the parent of the interrupts that `vp` has ended (hyperv-abi.md 10.2). The processor runs on."""
    partition = hypervisor.partition_of[vp]
    while (vector := vp.interrupts.take_level_eoi()) is not None:
        hypervisor.interrupts.end_of_interrupt(vp, vector)
        if not partition.core.host_managed:
            _post(hypervisor, vp, Record(MessageType.X64_APIC_EOI, vector=vector))


def _post(hypervisor: Hypervisor, vp: VirtualProcessor, record: InterceptRecord) -> None:
    partition = hypervisor.partition_of[vp]
    parent = partition.parent
    assert parent is not None, "the root has no parent to intercept for it"
    targets = [target for _, target in sorted(parent.vps.items())]
    accepting = [target for target in targets if target.interrupts.accepts_messages]
    for target in (accepting or targets)[:1]:
        target.interrupts.post_intercept(
            vp.interrupts,
            message_type=record.message_type,
            sender=partition.id,
            payload=compose(vp, record),
        )


def compose(vp: VirtualProcessor, record: InterceptRecord) -> bytes:
    """The payload of section 8.4."""
    body = _BODIES[record.message_type](vp, record)
    return body if record.message_type in _UNSIZED else _header(vp, record) + body


def _header(vp: VirtualProcessor, record: InterceptRecord) -> bytes:
    length_and_priority = record.instruction_length & 0xF | (vp.cr8 & 0xF) << 4
    return (
        pack("<IBBH", vp.index, length_and_priority, record.access, _execution_state(vp))
        + _segment(vp.cs)
        + pack("<QQ", vp.rip, vp.rflags)
    )


def _execution_state(vp: VirtualProcessor) -> int:
    virtual_8086 = bool(vp.rflags & _RFLAGS_VM)
    protected = bool(vp.cr0 & _CR0_PE)
    privilege_level = 3 if virtual_8086 else (vp.ss.attributes >> 5 & 3) * protected
    return (
        privilege_level
        | protected << 2
        | bool(vp.cr0 & _CR0_AM) << 3
        | bool(vp.efer & _EFER_LMA) << 4
        | bool(vp.dr7 & _DR7_ENABLES) << 5
        | bool(vp.pending_interruption & 1) << 6
        | (vp.interrupt_state & 1) << 12
    )


def _segment(segment: Segment) -> bytes:
    return pack("<QIHH", segment.base, segment.limit, segment.selector, segment.attributes)


def _general_registers(vp: VirtualProcessor) -> bytes:
    low = (vp.rax, vp.rcx, vp.rdx, vp.rbx, vp.rsp, vp.rbp, vp.rsi, vp.rdi)
    return pack("<16Q", *low, vp.r8, vp.r9, vp.r10, vp.r11, vp.r12, vp.r13, vp.r14, vp.r15)


def _nothing(vp: VirtualProcessor, record: InterceptRecord) -> bytes:
    return b""


def _memory(vp: VirtualProcessor, record: InterceptRecord) -> bytes:
    known = _GVA_VALID if record.gva_valid else 0
    code = b"" if vp.pending_interruption & 1 else record.instruction_bytes
    return pack("<IBBBB", CacheType.WRITE_BACK, len(code), known, vp.cr8 & 0xF, 0) + pack(
        "<QQ16s", record.gva, record.gpa, code
    )


def _io_port(vp: VirtualProcessor, record: InterceptRecord) -> bytes:
    access = record.size | record.string << 3 | record.rep << 4
    code = record.instruction_bytes if record.string else b""
    return (
        pack("<HBBIQ16s", record.port, access, len(code), 0, vp.rax, code)
        + _segment(vp.ds)
        + _segment(vp.es)
        + pack("<QQQ", vp.rcx, vp.rsi, vp.rdi)
    )


def _msr(vp: VirtualProcessor, record: InterceptRecord) -> bytes:
    return pack("<IIQQ", record.msr, 0, vp.rdx, vp.rax)


def _cpuid(vp: VirtualProcessor, record: InterceptRecord) -> bytes:
    return pack("<8Q", vp.rax, vp.rcx, vp.rdx, vp.rbx, *record.defaults)


def _exception(vp: VirtualProcessor, record: InterceptRecord) -> bytes:
    known = (record.error_code is not None) | record.software << 1
    code = record.instruction_bytes
    return (
        pack("<HBBIQQ16s", record.vector, known, len(code), record.error_code or 0, record.parameter, 0, code)
        + _segment(vp.ds)
        + _segment(vp.ss)
        + _general_registers(vp)
    )


def _hypercall(vp: VirtualProcessor, record: InterceptRecord) -> bytes:
    registers = pack("<7Q", vp.rax, vp.rbx, vp.rcx, vp.rdx, vp.r8, vp.rsi, vp.rdi)
    xmm = (vp.xmm0, vp.xmm1, vp.xmm2, vp.xmm3, vp.xmm4, vp.xmm5)
    return registers + b"".join(value.to_bytes(16, "little") for value in xmm) + bytes(16)


def _apic_eoi(vp: VirtualProcessor, record: InterceptRecord) -> bytes:
    return pack("<II", vp.index, record.vector)


def _invalid_register(vp: VirtualProcessor, record: InterceptRecord) -> bytes:
    return pack("<II", vp.index, 0)


def _unsupported(vp: VirtualProcessor, record: InterceptRecord) -> bytes:
    return pack("<IIQ", vp.index, 1, record.parameter)


_BODIES: dict[int, Callable[[VirtualProcessor, InterceptRecord], bytes]] = {
    MessageType.UNMAPPED_GPA: _memory,
    MessageType.GPA_INTERCEPT: _memory,
    MessageType.INVALID_VP_REGISTER_VALUE: _invalid_register,
    MessageType.UNRECOVERABLE_EXCEPTION: _nothing,
    MessageType.UNSUPPORTED_FEATURE: _unsupported,
    MessageType.HYPERCALL_INTERCEPT: _hypercall,
    MessageType.X64_IO_PORT_INTERCEPT: _io_port,
    MessageType.X64_MSR_INTERCEPT: _msr,
    MessageType.X64_CPUID_INTERCEPT: _cpuid,
    MessageType.X64_EXCEPTION_INTERCEPT: _exception,
    MessageType.X64_APIC_EOI: _apic_eoi,
    MessageType.X64_HALT: _nothing,
}
