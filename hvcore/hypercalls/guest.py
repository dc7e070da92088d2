"""The door for guest code: registers and pages in, registers and pages out (TLFS 3, hyperv-abi.md 3.2-3.4).

The run loop calls `guest_call` with the virtual processor at the VMCALL. Calls that native code executes come
here only when something about them is unusual.
"""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING

from hvcore import intercepts
from hvcore._native.engine import ELEMENTS_PER_ENTRY
from hvcore._native.space import READ, WRITE
from hvcore.enums import AccessType, MessageType, Status
from hvcore.hypercalls.abi import PAGE_SIZE, Control, Result
from hvcore.hypercalls.dispatch import call_name, execute
from hvcore.hypercalls.table import TABLE, Row

if TYPE_CHECKING:
    from hvcore.hypervisor import Hypervisor
    from hvcore.partition import Partition
    from hvcore.processor import VirtualProcessor

_UNDEFINED_OPCODE = 1 | 3 << 1 | 6 << 16
_LOW = 0xFFFF_FFFF
_CR0_PE = 1
_RFLAGS_VM = 1 << 17
_EFER_LMA = 1 << 10
_CODE_LONG = 1 << 13


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
    return _GuestCall(hypervisor, partition, vp).run()


def _may_call(partition: Partition, vp: VirtualProcessor) -> bool:
    """CPL 0 in protected mode, and the interface is enabled."""
    protected = vp.cr0 & _CR0_PE and not vp.rflags & _RFLAGS_VM and vp.ss.attributes >> 5 & 3 == 0
    return bool(protected and partition.core.guest_os_id and partition.core.hypercall_msr & 1)


class _GuestCall:
    """One entry: the caller's registers, 64-bit RCX, RDX, R8 or 32-bit EDX:EAX, EBX:ECX, EDI:ESI, and their use."""

    def __init__(self, hypervisor: Hypervisor, partition: Partition, vp: VirtualProcessor) -> None:
        self.hypervisor = hypervisor
        self.partition = partition
        self.vp = vp
        self.long_mode = bool(vp.efer & _EFER_LMA and vp.cs.attributes & _CODE_LONG)
        if self.long_mode:
            self.control, self.first, self.second = vp.rcx, vp.rdx, vp.r8
        else:
            self.control = (vp.rdx & _LOW) << 32 | vp.rax & _LOW
            self.first = (vp.rbx & _LOW) << 32 | vp.rcx & _LOW
            self.second = (vp.rdi & _LOW) << 32 | vp.rsi & _LOW
        self.word = Control.parse(self.control)

    def run(self) -> bool:
        """The checks that end a call early, then the entry itself."""
        row = TABLE.get(self.word.code)
        if row is None and self.partition.intercepts_hypercalls:
            record = intercepts.Record(MessageType.HYPERCALL_INTERCEPT, instruction_length=3)
            intercepts.deliver(self.hypervisor, self.vp, record)
            return False
        if row is None or not row.accepts(self.word):
            return self._finish(execute(self.hypervisor, self.partition, self.vp, self.control, b""))
        if self.word.fast:
            return self._enter(row, self._registers()[: self._input_size(row)], 0)
        return self._run_from_pages(row)

    def _run_from_pages(self, row: Row) -> bool:
        reads, writes = self._input_size(row), row.output_size(self.word.rep_count)
        if not self._aligned(reads, 0 if row.has_output else writes):
            return self._refuse(Status.INVALID_ALIGNMENT)
        if row.privilege & ~self.partition.privileges:
            return self._refuse(Status.ACCESS_DENIED)
        source = self._locate(self.first, READ) if reads else 0
        if source is None:
            return self._page_fault(self.first, AccessType.READ)
        input = self.hypervisor.memory.read(source, reads)
        if row.has_output is not None:
            writes = writes if row.has_output(row.input.unpack(input)) else 0
            if not self._aligned(reads, writes):
                return self._refuse(Status.INVALID_ALIGNMENT)
        target = self._locate(self.second, WRITE) if writes else 0
        if target is None:
            return self._page_fault(self.second, AccessType.WRITE)
        return self._enter(row, input, target)

    def _enter(self, row: Row, input: bytes, target: int) -> bool:
        result = execute(self.hypervisor, self.partition, self.vp, self.control, input, limit=ELEMENTS_PER_ENTRY)
        if result.output:
            self.hypervisor.memory.write(target + self.word.rep_start * row.element_out.itemsize, result.output)
        if result.finished:
            return self._finish(result)
        if row.rep:
            resumed = self.word._replace(rep_start=result.reps_completed).word()
            if self.long_mode:
                self.vp.rcx = resumed
            else:
                self.vp.rax, self.vp.rdx = resumed & _LOW, resumed >> 32
        return False

    def _input_size(self, row: Row) -> int:
        return row.input_size(self.word.rep_count, self.word.variable_qwords)

    def _registers(self) -> bytes:
        """The input of a fast call."""
        vp = self.vp
        xmm = (vp.xmm0, vp.xmm1, vp.xmm2, vp.xmm3, vp.xmm4, vp.xmm5)
        return pack("<QQ", self.first, self.second) + b"".join(value.to_bytes(16, "little") for value in xmm)

    def _aligned(self, reads: int, writes: int) -> bool:
        """Both blocks are 8-aligned, inside one page and the GPA space, and apart."""
        blocks = [(gpa, size) for gpa, size in ((self.first, reads), (self.second, writes)) if size]
        for gpa, size in blocks:
            if gpa & 7 or (gpa & 0xFFF) + size > PAGE_SIZE or gpa >> 12 >= self.partition.page_limit:
                return False
        apart = self.first + reads <= self.second or self.second + writes <= self.first
        return len(blocks) < 2 or apart

    def _locate(self, gpa: int, right: int) -> int | None:
        found = self.partition.space.resolve(gpa)
        return found[0] if found is not None and found[1] & right else None

    def _page_fault(self, gpa: int, access: AccessType) -> bool:
        """A parameter page is missing: the parent is told and the call runs again. One in Python gets no message."""
        if self.partition.core.host_managed:
            return self._refuse(Status.INVALID_PARAMETER)
        unmapped = self.partition.space.resolve(gpa) is None
        kind = MessageType.UNMAPPED_GPA if unmapped else MessageType.GPA_INTERCEPT
        intercepts.deliver(self.hypervisor, self.vp, intercepts.Record(kind, access=access, gpa=gpa))
        return False

    def _refuse(self, status: Status) -> bool:
        return self._finish(Result(status, self.word.rep_start, b""))

    def _finish(self, result: Result) -> bool:
        self.vp.hypercalls_by_name[call_name(self.word.code)] += 1
        if self.long_mode:
            self.vp.rax = result.word()
        else:
            self.vp.rax, self.vp.rdx = result.word() & _LOW, result.word() >> 32
        return True
