"""The door for guest code: registers and pages in, registers and pages out (TLFS 3, hyperv-abi.md 3.2-3.4).

The run loop calls `guest_call` with the virtual processor at the VMCALL. Hot calls never come here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hvcore import intercepts
from hvcore._native.space import READ, WRITE
from hvcore.enums import AccessType, MessageType, Status
from hvcore.hypercalls.abi import PAGE_SIZE, Control, Result
from hvcore.hypercalls.dispatch import execute
from hvcore.hypercalls.table import TABLE

if TYPE_CHECKING:
    from hvcore._native.engine import VirtualProcessor
    from hvcore.hypervisor import Hypervisor
    from hvcore.partition import Partition

ELEMENTS_PER_ENTRY = 64
"""A rep call does so many elements, then lets the guest take interrupts (section 3.4)."""

_UNDEFINED_OPCODE = 1 | 3 << 1 | 6 << 16
_LOW = 0xFFFF_FFFF
_CR0_PE = 1
_RFLAGS_VM = 1 << 17
_EFER_LMA = 1 << 10
_CODE_LONG = 1 << 13


class _Arguments(NamedTuple):
    """What the caller's registers say: 64-bit RCX, RDX, R8, or EDX:EAX, EBX:ECX, EDI:ESI."""

    long_mode: bool
    control: int
    first: int
    second: int


def guest_call(hypervisor: Hypervisor, vp: VirtualProcessor) -> bool:
    """Run the hypercall of the instruction at RIP.

    Returns
    -------
    bool
        The instruction is finished: advance RIP. False: it must run again, after a pending #UD or an intercept
        that was raised here, or to go on with a rep call.
    """
    partition = hypervisor.partition_of[vp]
    if not _may_call(partition, vp):
        vp.pending_interruption = _UNDEFINED_OPCODE
        return False
    arguments = _arguments(vp)
    word = Control.parse(arguments.control)
    row = TABLE.get(word.code)
    if row is None and partition.intercepts_hypercalls:
        intercepts.deliver(hypervisor, vp, intercepts.Record(MessageType.HYPERCALL_INTERCEPT, instruction_length=3))
        return False
    if row is None or not row.accepts(word):
        return _finish(vp, arguments, execute(hypervisor, partition, vp, arguments.control, b""))

    reads = row.input_size(word.rep_count)
    writes = row.output_size(word.rep_count)
    if word.fast:
        input_ = _fast_input(vp, arguments)[:reads]
    else:
        if not _aligned(partition, arguments, reads, writes):
            return _finish(vp, arguments, Result(Status.INVALID_ALIGNMENT, word.rep_start, b""))
        if row.privilege & ~partition.privileges:
            return _finish(vp, arguments, Result(Status.ACCESS_DENIED, word.rep_start, b""))
        source = partition.space.resolve(arguments.first) if reads else (0, READ)
        target = partition.space.resolve(arguments.second) if writes else (0, WRITE)
        if source is None or not source[1] & READ:
            return _page_fault(hypervisor, vp, arguments, arguments.first, AccessType.READ, source)
        if target is None or not target[1] & WRITE:
            return _page_fault(hypervisor, vp, arguments, arguments.second, AccessType.WRITE, target)
        input_ = hypervisor.memory.read(source[0], reads)

    result = execute(hypervisor, partition, vp, arguments.control, input_, limit=ELEMENTS_PER_ENTRY)
    if result.output:
        hypervisor.memory.write(target[0] + word.rep_start * row.element_out.itemsize, result.output)
    if result.finished:
        return _finish(vp, arguments, result)
    if row.rep:
        _set_control(vp, arguments, word._replace(rep_start=result.reps_completed).word())
    return False


def _may_call(partition: Partition, vp: VirtualProcessor) -> bool:
    """CPL 0 in protected mode, and the interface is enabled."""
    protected = vp.cr0 & _CR0_PE and not vp.rflags & _RFLAGS_VM and vp.ss.attributes >> 5 & 3 == 0
    return bool(protected and partition.core.guest_os_id and partition.core.hypercall_msr & 1)


def _arguments(vp: VirtualProcessor) -> _Arguments:
    if vp.efer & _EFER_LMA and vp.cs.attributes & _CODE_LONG:
        return _Arguments(True, vp.rcx, vp.rdx, vp.r8)
    control = (vp.rdx & _LOW) << 32 | vp.rax & _LOW
    return _Arguments(False, control, (vp.rbx & _LOW) << 32 | vp.rcx & _LOW, (vp.rdi & _LOW) << 32 | vp.rsi & _LOW)


def _fast_input(vp: VirtualProcessor, arguments: _Arguments) -> bytes:
    head = arguments.first.to_bytes(8, "little") + arguments.second.to_bytes(8, "little")
    xmm = (vp.xmm0, vp.xmm1, vp.xmm2, vp.xmm3, vp.xmm4, vp.xmm5)
    return head + b"".join(value.to_bytes(16, "little") for value in xmm)


def _aligned(partition: Partition, arguments: _Arguments, reads: int, writes: int) -> bool:
    """Both blocks are 8-aligned, inside one page and the GPA space, and apart."""
    blocks = [(gpa, size) for gpa, size in ((arguments.first, reads), (arguments.second, writes)) if size]
    for gpa, size in blocks:
        if gpa & 7 or (gpa & 0xFFF) + size > PAGE_SIZE or gpa >> 12 >= partition.page_limit:
            return False
    apart = arguments.first + reads <= arguments.second or arguments.second + writes <= arguments.first
    return len(blocks) < 2 or apart


def _page_fault(
    hypervisor: Hypervisor,
    vp: VirtualProcessor,
    arguments: _Arguments,
    gpa: int,
    access: AccessType,
    found: tuple[int, int, int, bool] | tuple[int, int] | None,
) -> bool:
    """A parameter page is missing: the parent is told and the call runs again; a parent in Python gets no message."""
    partition = hypervisor.partition_of[vp]
    if partition.core.host_managed:
        return _finish(vp, arguments, Result(Status.INVALID_PARAMETER, Control.parse(arguments.control).rep_start, b""))
    kind = MessageType.UNMAPPED_GPA if found is None else MessageType.GPA_INTERCEPT
    intercepts.deliver(hypervisor, vp, intercepts.Record(kind, access=access, gpa=gpa))
    return False


def _finish(vp: VirtualProcessor, arguments: _Arguments, result: Result) -> bool:
    word = result.word()
    if arguments.long_mode:
        vp.rax = word
    else:
        vp.rax, vp.rdx = word & _LOW, word >> 32
    return True


def _set_control(vp: VirtualProcessor, arguments: _Arguments, word: int) -> None:
    if arguments.long_mode:
        vp.rcx = word
    else:
        vp.rax, vp.rdx = word & _LOW, word >> 32
