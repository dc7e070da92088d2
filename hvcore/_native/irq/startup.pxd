"""INIT, SIPI and ExtINT: noted here, and taken by the run loop at an instruction boundary."""
from hvcore._native.base.types cimport u8
from hvcore._native.irq.inbox cimport lags_behind, notice, open_inbox
from hvcore._native.irq.state cimport inbox_t, irq_t


cdef inline void accept_init(irq_t *irq) noexcept nogil:
    """A SIPI from before it does not count any more."""
    notice(irq)
    irq.lapic.init_pending = True
    irq.lapic.startup_pending = False


cdef inline void request_init(irq_t *irq) noexcept nogil:
    cdef inbox_t *inbox
    irq.counters.inits_received += 1
    if lags_behind(irq):
        inbox = open_inbox(irq)
        inbox.init = True
        inbox.startup = False
    else:
        accept_init(irq)


cdef inline void accept_startup(irq_t *irq, u8 page) noexcept nogil:
    """The first of several counts, as for a processor that is already on its way."""
    notice(irq)
    if irq.lapic.startup_pending:
        irq.counters.startups_ignored += 1
    else:
        irq.lapic.startup_pending = True
        irq.lapic.startup_page = page


cdef inline void request_startup(irq_t *irq, u8 page) noexcept nogil:
    cdef inbox_t *inbox
    irq.counters.startups_received += 1
    if not lags_behind(irq):
        accept_startup(irq, page)
        return
    inbox = open_inbox(irq)
    if inbox.startup:
        irq.counters.startups_ignored += 1
    else:
        inbox.startup = True
        inbox.startup_page = page


cdef inline void request_external(irq_t *irq) noexcept nogil:
    """ExtINT: the vector comes from the 8259 when the processor asks for it."""
    if lags_behind(irq):
        open_inbox(irq).external = True
    else:
        notice(irq)
        irq.lapic.external_pending = True
