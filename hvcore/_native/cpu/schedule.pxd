"""All virtual processors on the logical processors: whose clock is lowest goes first.

A slice ends with the quantum, when the VP halts or needs its caller, before the machine's hardware acts, and behind
an instruction that sent something to another processor, so that the others come as far first. After such an
instruction no processor runs ahead of another for longer than that is ago: processors that interrupt each other
meet every few instructions, and those that do not, once a quantum.
"""
from hvcore._native.base.inexact cimport forget_inexact, host_inexact
from hvcore._native.base.status cimport REASON_BUDGET, REASON_CANCELED, REASON_HALT, REASON_NONE, REASON_TRIPLE_FAULT
from hvcore._native.base.types cimport i32, i64, u32, u64
from hvcore._native.cpu.machine_events cimport next_machine_event, run_due_events
from hvcore._native.cpu.placement cimport begin_quantum, classify, classify_all, classify_noticed, give_way
from hvcore._native.cpu.run cimport run_slice
from hvcore._native.cpu.scheduler cimport NO_PROCESSOR, scheduler_t
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.cpu.wake cimport is_asleep, start_time_of
from hvcore._native.irq.clock cimport never_ticks

cdef enum:
    MXCSR_PE = 0x20
    LEAST_LEAD = 64             # ticks that a processor may always be ahead of the others


cdef inline i32 choose(scheduler_t* scheduler) noexcept nogil:
    """The logical processor whose VP is next, and the end of its slice. None: the quantum is over.

    Of equal clocks the lowest number, but last the one that has just run: what it did may concern the others."""
    cdef u64 start = never_ticks(), others = never_ticks(), due
    cdef i32 found = NO_PROCESSOR
    cdef u32 i, processor
    for i in range(scheduler.busy_count):
        processor = scheduler.busy[i]
        due = scheduler.due[processor]
        if due < start or (due == start and found == scheduler.last):
            others = start
            start, found = due, <i32>processor
        elif due < others:
            others = due
    if start >= scheduler.quantum_end:
        return NO_PROCESSOR
    scheduler.active_end = min(scheduler.quantum_end, next_machine_event(scheduler, False))
    if others < scheduler.quantum_end:
        scheduler.active_end = min(
            scheduler.active_end,
            others + max(<u64>LEAST_LEAD, start - scheduler.last_sent if start > scheduler.last_sent else 0))
    return found


cdef inline u32 run_vp(scheduler_t* scheduler, vp_t* vp, i64 budget) noexcept nogil:
    """Run a VP from where its logical processor is to the end of its slice, or for `budget` instructions."""
    cdef u64* clock = &scheduler.clocks[vp.processor]
    cdef u64 slice, used
    cdef u32 reason
    if vp.halted and scheduler.due[vp.processor] > vp.irq.time:
        vp.idle += scheduler.due[vp.processor] - vp.irq.time
    clock[0] = scheduler.due[vp.processor]
    slice = min(scheduler.active_end - clock[0], <u64>budget)
    vp.slice_start = clock[0]
    vp.slice_end = clock[0] + slice
    vp.remaining = <i64>slice
    vp.withheld = 0
    scheduler.clock.actor = vp.irq
    forget_inexact()
    vp.irq.unhalted.not_run = clock[0] - vp.runtime
    vp.irq.unhalted.running = True
    reason = run_slice(vp, scheduler.cache)
    vp.irq.unhalted.running = False
    if host_inexact():
        vp.mxcsr |= MXCSR_PE
    used = slice - <u64>(vp.remaining + vp.withheld)
    vp.remaining = vp.withheld = 0
    clock[0] += used
    scheduler.furthest = max(scheduler.furthest, clock[0])
    scheduler.last = <i32>vp.processor
    vp.slice_start = vp.slice_end = clock[0]
    vp.irq.time = scheduler.clock.now = clock[0]
    vp.runtime += used
    vp.counters.instructions += used
    vp.counters.tlb_lookups += vp.data_lookups
    vp.data_lookups = 0
    if reason == REASON_TRIPLE_FAULT:
        vp.shutdown = True
    return reason


cdef inline void catch_up(scheduler_t* scheduler) noexcept nogil:
    """Between two stretches of guest code: look at what was done to VPs."""
    if scheduler.clock.attention:
        scheduler.clock.attention = False
        scheduler.last_sent = scheduler.clock.now
        scheduler.active = NULL
    if scheduler.clock.noticed != NULL:
        classify_noticed(scheduler)
    if scheduler.touched:
        scheduler.touched = False
        classify_all(scheduler)
    if scheduler.active != NULL and scheduler.due[scheduler.active.processor] >= scheduler.active_end:
        scheduler.active = NULL


cdef inline u32 schedule(scheduler_t* scheduler, const vp_t* only, i64* budget, u32 quanta) noexcept nogil:
    """Run until a VP needs its caller, the budget is used up, nothing can run, or `quanta` have passed (NONE).

    The budget counts ticks of `only`, or of all VPs when it is NULL: instructions, faults taken, futile wake-ups. While
    `only` waits for what others may or may not do, it counts theirs."""
    cdef vp_t* vp
    cdef u64 before, event
    cdef u32 reason
    cdef i32 processor
    while quanta:
        catch_up(scheduler)
        vp = scheduler.active
        if vp == NULL:
            processor = choose(scheduler)
            event = max(next_machine_event(scheduler, False), scheduler.quantum_start)
            if event <= (scheduler.quantum_end if processor == NO_PROCESSOR else scheduler.due[processor]):
                if processor == NO_PROCESSOR:
                    if budget[0] <= 0:
                        return REASON_BUDGET
                    budget[0] -= 1      # as for a timer that wakes nothing: hardware alone must not run for ever
                run_due_events(scheduler, event)
                classify_noticed(scheduler)
                continue
            if processor == NO_PROCESSOR:
                quanta -= 1
                if scheduler.canceled:
                    scheduler.canceled = 0
                    return REASON_CANCELED
                if not begin_quantum(scheduler):
                    return REASON_HALT
                continue
            vp = scheduler.active = scheduler.holders[processor]
        if scheduler.canceled:
            scheduler.canceled = 0
            return REASON_CANCELED
        scheduler.current = vp
        before = vp.runtime
        if only == NULL or vp == only or start_time_of(only) == never_ticks():
            if budget[0] <= 0:
                return REASON_BUDGET
            reason = run_vp(scheduler, vp, budget[0])
            budget[0] -= <i64>(vp.runtime - before)
            if vp.runtime == before and reason == REASON_HALT:
                budget[0] -= 1  # a timer that woke nothing, or a halted guest with a masked one would never come back
        else:
            reason = run_vp(scheduler, vp, (<i64>1 << 62))
        if is_asleep(vp):       # also when its last instruction was the last one of the budget
            give_way(scheduler, vp)
        else:
            classify(scheduler, vp)
        if reason != REASON_BUDGET and reason != REASON_HALT:
            return reason
    return REASON_NONE
