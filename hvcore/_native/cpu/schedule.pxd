"""All virtual processors on the logical processors, in lock-step quanta of virtual time.

In a quantum every logical processor runs its VPs from the same start to the same end, one logical processor after
the other, in order. A single runnable VP gets long quanta; a halted one is woken at the exact time of its timer.
Everything that decides is state of this struct, so a run that is cut anywhere goes on as if it had not been.
"""
from hvcore._native.base.inexact cimport forget_inexact, host_inexact
from hvcore._native.base.status cimport REASON_BUDGET, REASON_CANCELED, REASON_HALT, REASON_NONE, REASON_TRIPLE_FAULT
from hvcore._native.base.types cimport i64, u32, u64
from hvcore._native.cpu.cache cimport block_cache_t
from hvcore._native.cpu.run cimport is_asleep, is_runnable, is_suspended, run_slice, wake_time_of
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.irq.clock cimport clock_t, never_ticks
from hvcore._native.irq.state cimport machine_event_t

cdef enum:
    PROCESSORS_MAXIMUM = 2048
    MXCSR_PE = 0x20
    QUANTUM = 10000             # ticks, when several VPs can run
    LONG_QUANTUM = 1 << 18      # when one alone can


cdef struct scheduler_t:
    block_cache_t* cache
    u32 processor_count
    u32 cursor                  # logical processor whose turn it is
    u64 quantum_end
    u64[PROCESSORS_MAXIMUM] clocks      # how far each logical processor has come
    u32[PROCESSORS_MAXIMUM] turns       # where its search for a VP starts
    u32 runnable                # VPs that could run when the quantum began
    vp_t* current               # the VP that the last return is about
    int canceled                # set by another thread
    clock_t clock
    machine_event_t** events    # of the machine's own hardware
    u32 event_count


cdef inline u32 count_runnable(const scheduler_t* scheduler) noexcept nogil:
    cdef u32 i, count = 0
    for i in range(scheduler.cache.vp_count):
        count += is_runnable(scheduler.cache.vps[i])
    return count


cdef inline u64 earliest_deadline(const scheduler_t* scheduler) noexcept nogil:
    """Of the halted VPs that a timer may wake."""
    cdef u64 earliest = <u64>-1, deadline
    cdef vp_t* vp
    cdef u32 i
    for i in range(scheduler.cache.vp_count):
        vp = scheduler.cache.vps[i]
        if is_asleep(vp) and not is_suspended(vp):
            deadline = wake_time_of(vp)
            if deadline < earliest:
                earliest = deadline
    return earliest


cdef inline vp_t* pick(scheduler_t* scheduler, u32 processor) noexcept nogil:
    """The next VP of a logical processor: one that can run, else a halted one whose timer falls in the quantum."""
    cdef u32 count = scheduler.cache.vp_count, i
    cdef vp_t* vp
    cdef vp_t* sleeper = NULL
    for i in range(count):
        vp = scheduler.cache.vps[(scheduler.turns[processor] + i) % count]
        if vp.processor != processor or is_suspended(vp):
            continue
        if is_runnable(vp):
            return vp
        if wake_time_of(vp) < scheduler.quantum_end and (
                sleeper == NULL or wake_time_of(vp) < wake_time_of(sleeper)):
            sleeper = vp
    return sleeper


cdef inline u64 next_machine_event(const scheduler_t* scheduler) noexcept nogil:
    """Ticks at which the machine's hardware does something by itself."""
    cdef u64 earliest = never_ticks()
    cdef u32 i
    for i in range(scheduler.event_count):
        earliest = min(earliest, scheduler.events[i].deadline)
    return earliest


cdef inline void run_machine_events(scheduler_t* scheduler, u64 now) noexcept nogil:
    cdef u32 i
    scheduler.clock.now = now
    for i in range(scheduler.event_count):
        if scheduler.events[i].deadline <= now:
            scheduler.events[i].run(scheduler.events[i], now)


cdef inline bint begin_quantum(scheduler_t* scheduler) noexcept nogil:
    """False: no VP can run, and nothing armed will wake one."""
    cdef u64 now = scheduler.quantum_end, deadline
    cdef u32 i
    run_machine_events(scheduler, now)
    scheduler.runnable = count_runnable(scheduler)
    deadline = min(earliest_deadline(scheduler), next_machine_event(scheduler))
    if scheduler.runnable == 0:
        if deadline == <u64>-1:
            return False
        now = max(now, deadline)
        run_machine_events(scheduler, now)
    scheduler.quantum_end = now + QUANTUM
    if scheduler.runnable == 1:
        scheduler.quantum_end = min(now + LONG_QUANTUM, max(deadline, now + QUANTUM))
    scheduler.quantum_end = max(now + 1, min(scheduler.quantum_end, next_machine_event(scheduler)))
    scheduler.cursor = 0
    for i in range(scheduler.processor_count):
        scheduler.clocks[i] = now
        scheduler.turns[i] = (scheduler.turns[i] + 1) % max(<u32>1, scheduler.cache.vp_count)
    return True


cdef inline void shorten_quantum(scheduler_t* scheduler) noexcept nogil:
    """After a service: if more VPs can run than before, let them in as soon as no clock has to go back."""
    cdef u64 furthest = 0
    cdef u32 i
    if count_runnable(scheduler) <= scheduler.runnable:
        return
    for i in range(scheduler.processor_count):
        furthest = max(furthest, scheduler.clocks[i])
    scheduler.quantum_end = min(scheduler.quantum_end, furthest)


cdef inline u32 run_vp(scheduler_t* scheduler, vp_t* vp, i64 budget) noexcept nogil:
    """Run a VP from its processor's clock to the end of the quantum, or for `budget` instructions."""
    cdef u64* clock = &scheduler.clocks[vp.processor]
    cdef u64 slice, used
    cdef u32 reason
    if not is_runnable(vp):
        vp.idle += max(wake_time_of(vp), clock[0]) - clock[0]
        clock[0] = max(clock[0], wake_time_of(vp))
    slice = min(scheduler.quantum_end - clock[0], <u64>budget)
    vp.slice_start = clock[0]
    vp.slice_end = clock[0] + slice
    vp.remaining = <i64>slice
    vp.withheld = 0
    forget_inexact()
    reason = run_slice(vp, scheduler.cache)
    if host_inexact():
        vp.mxcsr |= MXCSR_PE
    used = slice - <u64>(vp.remaining + vp.withheld)
    vp.remaining = vp.withheld = 0
    clock[0] += used
    vp.slice_start = vp.slice_end = clock[0]
    vp.irq.time = scheduler.clock.now = clock[0]
    vp.runtime += used
    vp.counters.instructions += used
    vp.counters.tlb_lookups += vp.data_lookups
    vp.data_lookups = 0
    if reason == REASON_TRIPLE_FAULT:
        vp.shutdown = True
    return reason


cdef inline u32 schedule(scheduler_t* scheduler, const vp_t* only, i64* budget, u32 quanta) noexcept nogil:
    """Run until a VP needs its caller, the budget is used up, nothing can run, or `quanta` have passed (NONE).

    The budget counts ticks of `only`, or of all VPs when it is NULL: instructions, faults taken, futile wake-ups."""
    cdef vp_t* vp
    cdef u64 before
    cdef u32 reason
    while quanta:
        while scheduler.cursor < scheduler.processor_count:
            vp = pick(scheduler, scheduler.cursor)
            if scheduler.clocks[scheduler.cursor] >= scheduler.quantum_end or vp == NULL:
                scheduler.clocks[scheduler.cursor] = max(scheduler.clocks[scheduler.cursor], scheduler.quantum_end)
                scheduler.cursor += 1
                continue
            if scheduler.canceled:
                scheduler.canceled = 0
                return REASON_CANCELED
            scheduler.current = vp
            before = vp.runtime
            if only == NULL or vp == only:
                if budget[0] <= 0:
                    return REASON_BUDGET
                reason = run_vp(scheduler, vp, budget[0])
                # A timer that woke nothing costs one, or a halted guest with a masked timer would never come back.
                budget[0] -= max(<i64>1, <i64>(vp.runtime - before))
            else:
                reason = run_vp(scheduler, vp, (<i64>1 << 62))
            if reason != REASON_BUDGET and reason != REASON_HALT:
                return reason
        quanta -= 1
        if not begin_quantum(scheduler):
            return REASON_HALT
    return REASON_NONE
