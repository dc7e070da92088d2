"""What processors that are ahead in time send: it waits until its receiver has come as far (docs/interrupts.md)."""
from libc.string cimport memmove, memset

from hvcore._native.base.types cimport u32, u64
from hvcore._native.irq.clock cimport call_attention, clock_t, never_ticks
from hvcore._native.irq.state cimport arrivals_t, inbox_t, irq_t

cdef enum:
    MOMENT_COUNT = 8            # more different moments than these wait for the latest of them


cdef inline bint lags_behind(const irq_t *irq) noexcept nogil:
    """Whoever acts now is ahead of this processor."""
    return irq.fabric.clock.running and irq.fabric.clock.now > irq.time


cdef inline void notice(irq_t *irq) noexcept nogil:
    """Something was sent to this processor. If another one did it, the scheduler must know."""
    cdef clock_t *clock = irq.fabric.clock
    if not clock.running or clock.actor == <void *>irq:
        return
    call_attention(clock)
    if not irq.noticed:
        irq.noticed = True
        irq.next_noticed = <irq_t *>clock.noticed
        clock.noticed = <void *>irq


cdef inline inbox_t *open_inbox(irq_t *irq) noexcept nogil:
    """What arrives at this processor at the time that it is now for the sender: to put something in."""
    cdef arrivals_t *arrivals = &irq.inbox
    cdef u64 now = irq.fabric.clock.now
    cdef u32 at = arrivals.count
    cdef inbox_t *moment
    notice(irq)
    while at and arrivals.moments[at - 1].time > now:
        at -= 1
    if at and arrivals.moments[at - 1].time == now:
        return &arrivals.moments[at - 1]
    if arrivals.count == MOMENT_COUNT:      # never lost, never early: late
        moment = &arrivals.moments[MOMENT_COUNT - 1]
        moment.time = max(moment.time, now)
        return moment
    moment = &arrivals.moments[at]
    memmove(moment + 1, moment, (arrivals.count - at) * sizeof(inbox_t))
    memset(moment, 0, sizeof(inbox_t))
    moment.time = now
    arrivals.count += 1
    arrivals.time = arrivals.moments[0].time
    return moment


cdef inline inbox_t take_inbox(irq_t *irq) noexcept nogil:
    """What arrives first, out of the inbox. There is something."""
    cdef arrivals_t *arrivals = &irq.inbox
    cdef inbox_t first = arrivals.moments[0]
    arrivals.count -= 1
    memmove(arrivals.moments, arrivals.moments + 1, arrivals.count * sizeof(inbox_t))
    arrivals.time = arrivals.moments[0].time if arrivals.count else never_ticks()
    return first


cdef inline void empty_inbox(irq_t *irq) noexcept nogil:
    irq.inbox.count = 0
    irq.inbox.time = never_ticks()
