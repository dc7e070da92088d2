"""Lazy EOI: "No EOI required" in the VP assist page (digest 10.3).

The bit is set when an edge interrupt is delivered behind which nothing waits and under which nothing is in service. A
guest that finds it set clears it and writes no EOI; the vector then retires when the APIC is looked at the next time.
A request that such an EOI would have to let in takes the promise back; one that interrupts the handler does so too, and
ends the handler first if its guest has already cleared the bit.
"""
from hvcore._native.base.types cimport u8, u32
from hvcore._native.irq.observer cimport EVENT_EOI, SOURCE_UNKNOWN, note_event
from hvcore._native.irq.state cimport irq_t
from hvcore._native.irq.vectors cimport has_vector, highest_vector, put_vector

cdef enum:
    NO_EOI_REQUIRED = 1
    ASSIST_UNHALTED_EXPIRED = 56        # offset of a byte


cdef inline void settle_eoi(irq_t *irq) noexcept nogil:
    """Retire the vector whose EOI the guest has left to the page."""
    cdef int vector
    if not irq.assist.promised or irq.assist.page[0] & NO_EOI_REQUIRED:
        return
    irq.assist.promised = False
    vector = highest_vector(irq.lapic.isr)
    if vector >= 0:
        put_vector(irq.lapic.isr, <u32>vector, False)
        irq.counters.eois += 1
        irq.counters.eois_saved += 1
        note_event(irq.observer, EVENT_EOI, irq.fabric.clock.now, <u32>vector, SOURCE_UNKNOWN, 1)


cdef inline void withdraw_promise(irq_t *irq) noexcept nogil:
    """An EOI is required again, unless the guest has left it to the page already."""
    settle_eoi(irq)
    if irq.assist.promised:
        irq.assist.promised = False
        irq.assist.page[0] &= ~<u8>NO_EOI_REQUIRED


cdef inline void promise_no_eoi(irq_t *irq, u32 vector) noexcept nogil:
    """`vector` is now in service: set the bit if an EOI of it would change nothing but that."""
    if not irq.assist.enabled or irq.assist.page is NULL or irq.synic.waiting:
        return
    if has_vector(irq.lapic.tmr, vector) or highest_vector(irq.lapic.irr) >= 0:
        return
    put_vector(irq.lapic.isr, vector, False)
    irq.assist.promised = highest_vector(irq.lapic.isr) < 0
    put_vector(irq.lapic.isr, vector, True)
    if irq.assist.promised:
        irq.assist.page[0] |= NO_EOI_REQUIRED


cdef inline void reset_assist(irq_t *irq) noexcept nogil:
    """The APIC is reset: nothing is in service, so nothing is owed."""
    if irq.assist.promised:
        irq.assist.page[0] &= ~<u8>NO_EOI_REQUIRED
    irq.assist.promised = False
