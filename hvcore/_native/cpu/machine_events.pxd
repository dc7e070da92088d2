"""What the machine's hardware does by itself, between stretches of guest code."""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.cpu.scheduler cimport scheduler_t
from hvcore._native.irq.clock cimport never_ticks


cdef inline u64 next_machine_event(const scheduler_t* scheduler, bint idle) noexcept nogil:
    """Ticks at which hardware does something; when `idle`, without what only polls."""
    cdef u64 earliest = never_ticks()
    cdef u32 i
    for i in range(scheduler.event_count):
        if not (idle and scheduler.events[i].polls):
            earliest = min(earliest, scheduler.events[i].deadline)
    return earliest


cdef inline u64 next_final_event(const scheduler_t* scheduler) noexcept nogil:
    """Ticks at which hardware finishes something that no processor has to hear of."""
    cdef u64 earliest = never_ticks()
    cdef u32 i
    for i in range(scheduler.event_count):
        if scheduler.events[i].ends and not scheduler.events[i].polls:
            earliest = min(earliest, scheduler.events[i].deadline)
    return earliest


cdef inline void run_due_events(scheduler_t* scheduler, u64 now) noexcept nogil:
    """What the hardware does at `now` ticks."""
    cdef u32 i
    scheduler.clock.now = now
    scheduler.clock.actor = NULL
    for i in range(scheduler.event_count):
        if scheduler.events[i].deadline <= now:
            scheduler.events[i].run(scheduler.events[i], now)
    scheduler.clock.attention = False


cdef inline void poll_last(scheduler_t* scheduler, u64 now) noexcept nogil:
    """No processor runs any more: what polls finds out whether the last one left it something."""
    cdef u32 i
    scheduler.clock.now = now
    scheduler.clock.actor = NULL
    for i in range(scheduler.event_count):
        if scheduler.events[i].polls:
            scheduler.events[i].run(scheduler.events[i], now)
