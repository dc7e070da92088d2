"""The run loop of one virtual processor: events between blocks, blocks until something needs a caller.

Time is `slice_end - remaining`. Whatever must happen at an exact time (a timer, the instruction behind STI, a trap
flag) withholds the rest of the slice, so that `remaining` falls to zero right there.
"""
from hvcore._native.base.status cimport (
    REASON_APIC_EOI, REASON_BUDGET, REASON_EXCEPTION, REASON_HALT, REASON_MEMORY, REASON_NONE,
    REASON_SINT_DELIVERABLE, REASON_TRIPLE_FAULT, REASON_WINDOW, STOP_BUDGET, STOP_EXIT, STOP_FAULT, STOP_NEW_FLAGS,
)
from hvcore._native.base.types cimport i32, i64, u32, u64, u8
from hvcore._native.cpu.contexts cimport flush_translations, select_tlb
from hvcore._native.cpu.blocks cimport build_head, find
from hvcore._native.cpu.cache cimport block_cache_t, drop_stale
from hvcore._native.cpu.dispatch cimport enter, go
from hvcore._native.cpu.events cimport INTERCEPTED, SHUTDOWN, Delivery, deliver
from hvcore._native.cpu.reset cimport take_init
from hvcore._native.cpu.spec cimport (
    EFER_LMA, EXTERNAL_INTERRUPT, FLAG_IF, FLAG_TF, NON_MASKABLE_INTERRUPT, SOFTWARE_EXCEPTION, SOFTWARE_INTERRUPT,
    VECTOR_DB, VECTOR_NMI,
)
from hvcore._native.cpu.state cimport SLOT_RIP, block_t, fault_t, vp_t
from hvcore._native.cpu.wake cimport interrupt_waits, is_asleep, waits_for_flush
from hvcore._native.cpu.windows cimport (
    acknowledge_external, has_deliverable_sints, report_eoi, report_sints, report_window,
)
from hvcore._native.irq.events cimport irq_advance, irq_next_event
from hvcore._native.irq.lapic cimport irq_acknowledge, irq_acknowledge_nmi, irq_nmi_pending, irq_pending_vector
from hvcore._native.irq.lvt cimport takes_external
from libc.string cimport memset

cdef enum:
    DR6_SINGLE_STEP = 0x4000
    PENDING_SINGLE_STEP = 1 | 3 << 1 | 1 << 16


cdef inline u64 now_of(const vp_t* vp) noexcept nogil:
    return vp.slice_end - <u64>vp.remaining        # what is withheld has been taken from both


cdef inline u64 deadline_of(const vp_t* vp) noexcept nogil:
    """Ticks at which this VP's interrupt controller has something to do; all ones: nothing is armed."""
    return irq_next_event(vp.irq)


cdef inline void withhold_beyond(vp_t* vp, i64 ticks) noexcept nogil:
    """Let no more than `ticks` pass before the loop looks again."""
    if vp.remaining > ticks:
        vp.withheld += vp.remaining - ticks
        vp.slice_end -= <u64>(vp.remaining - ticks)
        vp.remaining = ticks


cdef inline void release(vp_t* vp) noexcept nogil:
    vp.slice_end += <u64>vp.withheld
    vp.remaining += vp.withheld
    vp.withheld = 0


cdef inline u32 deliver_event(vp_t* vp, fault_t event, bint external) noexcept nogil:
    """Through the IDT: the reason to leave the run, or none."""
    cdef Delivery delivery = deliver(vp, event, external)
    vp.halted = vp.guest_idle = False
    if delivery == SHUTDOWN:
        return REASON_TRIPLE_FAULT
    return vp.exit.reason if delivery == INTERCEPTED else REASON_NONE


cdef inline u32 deliver_pending(vp_t* vp) noexcept nogil:
    """What a register of the hypervisor or an intercepted delivery left to be delivered (hyperv-abi 7.4)."""
    cdef u64 pending = vp.pending_interruption
    cdef u8 kind = (pending >> 1) & 7
    cdef fault_t event
    event.vector = <u8>(pending >> 16)
    event.software = kind if SOFTWARE_INTERRUPT <= kind <= SOFTWARE_EXCEPTION else 0
    event.has_error_code = (pending >> 4) & 1
    event.length = (pending >> 5) & 15
    event.error_code = <u32>(pending >> 32)
    event.address = vp.cr2
    vp.pending_interruption = 0
    if kind == NON_MASKABLE_INTERRUPT:
        vp.nmi_masked = True
    return deliver_event(vp, event, kind == EXTERNAL_INTERRUPT or kind == NON_MASKABLE_INTERRUPT)


cdef inline u32 take_events(vp_t* vp) noexcept nogil:
    """At most one event, in the order of hyperv-abi 10.2: the reason to leave the run, or none."""
    cdef fault_t event
    cdef int vector
    if vp.pending_interruption & 1:
        return deliver_pending(vp)
    memset(&event, 0, sizeof(event))
    if irq_nmi_pending(vp.irq) and not vp.nmi_masked:
        irq_acknowledge_nmi(vp.irq)
        vp.nmi_masked = True
        event.vector = VECTOR_NMI
        vp.counters.interrupts += 1
        return deliver_event(vp, event, True)
    if vp.rflags_system & FLAG_IF:
        if vp.external_pending or takes_external(vp.irq):
            event.vector = acknowledge_external(vp)
            vp.counters.interrupts += 1
            return deliver_event(vp, event, True)
        vector = irq_pending_vector(vp.irq)
        if vector >= 0:
            irq_acknowledge(vp.irq, vector)
            event.vector = <u8>vector
            vp.counters.interrupts += 1
            return deliver_event(vp, event, True)
    return REASON_NONE


cdef inline u32 take_fault(vp_t* vp) noexcept nogil:
    """The exception in vp.fault: to the parent if it asked for it, else through the IDT.

    What the parent lets pass is the same exception at the same instruction, no later one."""
    cdef fault_t fault = vp.fault
    if not fault.software and fault.vector < 32 and vp.partition.exception_intercepts >> fault.vector & 1 \
            and not (vp.exception_passed and vp.exit.index == fault.vector
                     and vp.exit.rip == vp.registers[SLOT_RIP]):
        if fault.vector == VECTOR_DB:
            vp.pending_interruption = PENDING_SINGLE_STEP       # a trap: running on would not raise it again
        vp.exit.index = fault.vector
        vp.exit.error_code = fault.error_code if fault.has_error_code else 0
        vp.exit.gva = fault.address
        vp.exit.gva_valid = fault.has_error_code
        vp.exit.rip = vp.registers[SLOT_RIP]
        vp.exit.length = 0
        return REASON_EXCEPTION
    vp.exception_passed = False
    vp.counters.exceptions += 1
    return deliver_event(vp, fault, False)


cdef inline void charge_fault(vp_t* vp, bint software) noexcept nogil:
    """Taking a fault takes a tick, so that a guest which does nothing but fault cannot stop the clock. INT n is an
    instruction like any other; what a hardware fault interrupts has not retired."""
    vp.remaining -= 1
    if not software:
        vp.counters.instructions -= 1


cdef inline void pass_stall(vp_t* vp) noexcept nogil:
    """Time of an instruction that takes long. It is none of further instructions."""
    cdef i64 ticks = min(<i64>vp.stall, vp.remaining)
    vp.stall -= <u64>ticks
    vp.remaining -= ticks
    vp.counters.instructions -= <u64>ticks


cdef inline int run_block(vp_t* vp, block_cache_t* cache) noexcept nogil:
    """Threaded code from `rip` until it stops; a block that is longer than the budget runs as far as that reaches."""
    cdef int stop = go(vp, vp.registers[SLOT_RIP])
    cdef block_t* block
    if stop != STOP_BUDGET or vp.remaining <= 0:
        return stop
    block = find(vp, cache)
    if block == NULL:
        return vp.stop
    if block.count <= vp.remaining:
        return enter(vp, block)
    return enter(vp, build_head(cache, block, <i32>vp.remaining))


cdef inline u32 run_slice(vp_t* vp, block_cache_t* cache) noexcept nogil:
    """Run until the slice is used up or others have to catch up (REASON_BUDGET), or a caller is needed: its reason.

    HALT: nothing to do now."""
    cdef u32 reason
    cdef int stop
    cdef bint shadow, stepping, interruptible, software
    cdef u64 now, events, deadline
    while True:
        release(vp)
        if cache.machine.ram.stale_count or cache.machine.ram.stale_overflow or cache.full:
            drop_stale(cache)
        if vp.space_generation != vp.space.generation:
            flush_translations(vp)
            vp.space_generation = vp.space.generation
        if vp.stall:
            pass_stall(vp)
        now = now_of(vp)
        irq_advance(vp.irq, now)
        if vp.irq.lapic.init_pending or vp.irq.lapic.startup_pending:
            take_init(vp)
        if vp.irq.lapic.owes_eois and report_eoi(vp):
            return REASON_APIC_EOI
        if has_deliverable_sints(vp):
            report_sints(vp)
            return REASON_SINT_DELIVERABLE
        if vp.guest_idle and interrupt_waits(vp):
            vp.halted = vp.guest_idle = False
        shadow = vp.shadow
        vp.shadow = False
        if (not shadow or vp.pending_interruption & 1) and not vp.startup_suspend \
                and vp.efer & EFER_LMA:     # else: the fetch leaves as unsupported
            events = vp.counters.interrupts + vp.pending_interruption
            reason = take_events(vp)
            if reason != REASON_NONE:
                return reason
            if events != vp.counters.interrupts + vp.pending_interruption:
                continue                # one was taken: another may be deliverable before the next instruction
            if vp.notifications and report_window(vp):
                return REASON_WINDOW
        if vp.remaining <= 0:
            vp.shadow = shadow
            return REASON_BUDGET
        if is_asleep(vp) or waits_for_flush(vp):
            vp.shadow = shadow
            return REASON_HALT
        stepping = vp.rflags_system & FLAG_TF != 0
        interruptible = vp.rflags_system & FLAG_IF != 0
        if shadow or stepping:
            withhold_beyond(vp, 1)
        deadline = deadline_of(vp)
        if deadline < vp.slice_end:
            withhold_beyond(vp, <i64>(deadline - now))
        vp.exit.reason = REASON_NONE
        select_tlb(vp)              # EFLAGS.AC may have changed
        stop = run_block(vp, cache)
        if stop == STOP_FAULT:
            software = vp.fault.software
            reason = take_fault(vp)
            if reason == REASON_NONE:
                charge_fault(vp, software)
        else:
            reason = vp.exit.reason if stop == STOP_EXIT and vp.exit.reason != REASON_HALT else REASON_NONE
        # What its caller has to see to first, and then runs, is still in the shadow.
        if shadow and vp.remaining > 0 and (reason == REASON_MEMORY or reason == REASON_EXCEPTION):
            vp.shadow = True
        # MOV SS holds the trap back as well (SDM 3A 6.8.3). STI does not: what it shadows is that IF has changed.
        if stepping and vp.shadow and interruptible == (vp.rflags_system & FLAG_IF != 0):
            stepping = False
        elif stop == STOP_NEW_FLAGS:
            stepping = vp.rflags_system & FLAG_TF != 0
        if stepping and stop != STOP_FAULT and (vp.remaining == 0 or stop == STOP_NEW_FLAGS):
            memset(&vp.fault, 0, sizeof(vp.fault))
            vp.fault.vector = VECTOR_DB
            vp.dr[6] |= DR6_SINGLE_STEP
            if reason == REASON_NONE:
                reason = take_fault(vp)
            else:
                vp.pending_interruption = PENDING_SINGLE_STEP   # the caller's exit comes first
        if reason != REASON_NONE:
            release(vp)
            return reason
        if vp.irq.fabric.clock.attention:
            release(vp)
            return REASON_BUDGET        # what was sent is the others' to see first
