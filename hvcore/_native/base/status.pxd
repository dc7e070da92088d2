"""Why a run of decoded code stopped, and why a run of a virtual processor ended. Numbers only."""

# What a handler returns to the run loop.
cdef enum Stop:
    STOP_NONE               # carry on at `rip`: mode, events or translations may have changed
    STOP_BUDGET             # the next block is longer than the instructions that may still run
    STOP_FAULT              # an exception is pending in vp.fault, `rip` at the instruction
    STOP_EXIT               # vp.exit is filled; `rip` at the instruction, or behind it if it is complete
    STOP_STALE              # decoded code was written; blocks must go before anything runs
    STOP_EVENTS             # a device was written to: events may be due before the next instruction
    STOP_NEW_FLAGS          # SYSCALL or SYSRET: single stepping goes by the TF that it has left

# Why the scheduler came back to its caller; also the reason in an exit record.
cdef enum Reason:
    REASON_NONE = 0
    REASON_BUDGET = 1
    REASON_HALT = 2
    REASON_IO_PORT = 3
    REASON_MEMORY = 4       # unmapped GPA, or rights of the second level
    REASON_MSR = 5
    REASON_CPUID = 6
    REASON_HYPERCALL = 7
    REASON_EXCEPTION = 8
    REASON_TRIPLE_FAULT = 9
    REASON_UNSUPPORTED = 10     # a mode of the processor that does not exist yet
    REASON_CANCELED = 11
    REASON_APIC_EOI = 12        # the guest has ended an interrupt that its parent has to be told of
    REASON_WINDOW = 13          # an interrupt or NMI could be delivered now: DeliverabilityNotifications
    REASON_SINT_DELIVERABLE = 14    # awaited slots of the SIM page are free
    REASON_COUNT = 15
