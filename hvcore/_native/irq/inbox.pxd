"""What processors that are ahead in time send: it waits until its receiver has come as far (docs/interrupts.md)."""
from libc.string cimport memset

from hvcore._native.base.types cimport u32, u64
from hvcore._native.irq.clock cimport never_ticks
from hvcore._native.irq.state cimport inbox_t, irq_t


cdef inline bint lags_behind(const irq_t *irq) noexcept nogil:
    """Whoever acts now is ahead of this processor."""
    return irq.fabric.clock.running and irq.fabric.clock.now > irq.time


cdef inline inbox_t *open_inbox(irq_t *irq) noexcept nogil:
    """The inbox, to put something in that is sent now. Of several times the last one counts for all."""
    if irq.inbox.time == never_ticks() or irq.inbox.time < irq.fabric.clock.now:
        irq.inbox.time = irq.fabric.clock.now
    return &irq.inbox


cdef inline void empty_inbox(irq_t *irq) noexcept nogil:
    memset(&irq.inbox, 0, sizeof(inbox_t))
    irq.inbox.time = never_ticks()
