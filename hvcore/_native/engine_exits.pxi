# Chapter of engine.pyx: typed exits out of the native record.

cdef object exit_for(VirtualProcessor self, u32 reason):
    """The typed exit of vp.exit."""
    cdef exit_t* exit = &self.vp.exit
    cdef IoPort io
    cdef Mmio mmio
    cdef Msr msr
    cdef GpaViolation violation
    cdef Cpuid cpuid
    cdef ExceptionRaised raised
    cdef ApicEoi ended
    cdef InterruptWindow window
    if reason == REASON_IO_PORT:
        io = IoPort.__new__(IoPort)
        io.vp, io.rip, io.port, io.size = self, exit.rip, exit.port, exit.size_bytes
        io.write = exit.access == RIGHT_WRITE
        io.string = exit.string
        io.value = exit.value if io.write else None
        self.vp.answer_pending = not io.write
        return io
    if reason == REASON_MEMORY and not exit.rights and exit.gva_valid and not exit.access & RIGHT_EXECUTE:
        mmio = Mmio.__new__(Mmio)
        mmio.vp, mmio.rip, mmio.size = self, self.vp.registers[SLOT_RIP], exit.size_bytes
        mmio.gpa, mmio.gva = exit.gpa, exit.gva
        mmio.write = exit.access & RIGHT_WRITE != 0
        mmio.value = int.from_bytes((<const char*>self.vp.written)[:exit.size_bytes], "little") \
            if mmio.write else None
        self.vp.answer_pending = not mmio.write
        return mmio
    if reason == REASON_MEMORY:
        violation = GpaViolation.__new__(GpaViolation)
        violation.vp, violation.rip = self, self.vp.registers[SLOT_RIP]
        violation.gpa, violation.gva, violation.gva_valid = exit.gpa, exit.gva, exit.gva_valid
        violation.access = "x" if exit.access & RIGHT_EXECUTE else "w" if exit.access & RIGHT_WRITE else "r"
        return violation
    if reason == REASON_MSR:
        msr = Msr.__new__(Msr)
        msr.vp, msr.rip, msr.index, msr.size = self, exit.rip, exit.index, 8
        msr.write = exit.access == RIGHT_WRITE
        msr.value = exit.value if msr.write else None
        self.vp.answer_pending = not msr.write
        return msr
    if reason == REASON_CPUID:
        cpuid = Cpuid.__new__(Cpuid)
        cpuid.vp, cpuid.rip, cpuid.leaf, cpuid.subleaf = self, exit.rip, exit.index, self.vp.registers[RCX]
        cpuid.default = tuple(self.vp.cpuid)
        self.rax, self.rbx, self.rcx, self.rdx = cpuid.default
        return cpuid
    if reason == REASON_EXCEPTION:
        raised = ExceptionRaised.__new__(ExceptionRaised)
        raised.vp, raised.rip, raised.vector = self, exit.rip, exit.index
        raised.error_code = exit.error_code if exit.gva_valid else None
        raised.address = exit.gva if exit.index == VECTOR_PF else 0
        self.vp.exception_passed = exit.index != VECTOR_DB      # that one waits as a pending interruption
        return raised
    if reason == REASON_APIC_EOI:
        ended = ApicEoi.__new__(ApicEoi)
        ended.vp, ended.rip, ended.vector = self, exit.rip, exit.index
        return ended
    if reason == REASON_WINDOW:
        window = InterruptWindow.__new__(InterruptWindow)
        window.vp, window.rip, window.nmi = self, exit.rip, exit.index == WINDOW_NMI
        return window
    return plain_exit(self, reason)


PLAIN_EXITS = {REASON_BUDGET: Budget, REASON_HALT: Halt, REASON_CANCELED: Canceled, REASON_TRIPLE_FAULT: TripleFault,
               REASON_UNSUPPORTED: Unsupported}


cdef object plain_exit(VirtualProcessor self, u32 reason):
    kind = PLAIN_EXITS[reason]
    cdef Exit plain = kind.__new__(kind)
    plain.vp = self
    plain.rip = self.vp.registers[SLOT_RIP]
    return plain
