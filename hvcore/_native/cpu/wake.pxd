"""Whether a virtual processor can go on, and when: what suspends it, what it sleeps for."""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.cpu.spec cimport FLAG_IF
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.cpu.windows cimport has_deliverable_sints, window_is_open
from hvcore._native.irq.clock cimport never_ticks
from hvcore._native.irq.events cimport irq_wake_time
from hvcore._native.irq.lapic cimport irq_nmi_pending, irq_pending_vector
from hvcore._native.irq.lvt cimport takes_external
from hvcore._native.irq.platform cimport platform_breaks_through
from hvcore._native.irq.state cimport arrivals_t


cdef inline bint interrupt_waits(const vp_t* vp) noexcept nogil:
    """INIT, an NMI or an interrupt that would be taken now; SIPI too where one is waited for."""
    if vp.irq.lapic.init_pending or vp.startup_suspend:
        return vp.irq.lapic.init_pending or vp.irq.lapic.startup_pending
    if irq_nmi_pending(vp.irq) and not vp.nmi_masked:
        return True
    if vp.notifications and (window_is_open(vp, True) or window_is_open(vp, False)):
        return True
    return (vp.rflags_system & FLAG_IF != 0 or vp.guest_idle) and (
        vp.external_pending or irq_pending_vector(vp.irq) >= 0 or takes_external(vp.irq))


cdef inline bint waits_for_flush(const vp_t* vp) noexcept nogil:
    """Its hypercall must not flush a TLB yet (TlbFlushInhibit); it tries again when any of them allows it."""
    return vp.flush_waits == vp.partition.flush_generation


cdef inline bint is_suspended(const vp_t* vp) noexcept nogil:
    """Its parent or Python has to do something before it runs."""
    return (vp.explicit_suspend or vp.intercept_suspend or vp.answer_pending or vp.exit_waits
            or vp.partition.suspended or waits_for_flush(vp))


cdef inline bint is_wakeable(const vp_t* vp) noexcept nogil:
    """By hardware of the machine: it sleeps with interrupts on, or hears NMIs of the platform."""
    return not is_suspended(vp) and (
        vp.rflags_system & FLAG_IF or vp.guest_idle or platform_breaks_through(vp.irq.fabric))


cdef inline bint is_asleep(const vp_t* vp) noexcept nogil:
    """Until an event: HLT, wait for SIPI, or after a triple fault."""
    return vp.halted or vp.startup_suspend or vp.shutdown


cdef inline u64 urgent_time(const vp_t* vp) noexcept nogil:
    """When something arrives that wakes a sleeping VP whatever RFLAGS.IF says; never."""
    cdef const arrivals_t* inbox = &vp.irq.inbox
    cdef bint dead = vp.startup_suspend or vp.shutdown
    cdef u32 i
    for i in range(inbox.count):
        if inbox.moments[i].init or (inbox.moments[i].startup and vp.startup_suspend) \
                or (inbox.moments[i].nmi and not dead):
            return inbox.moments[i].time
    return never_ticks()


cdef inline u64 ready_time_of(const vp_t* vp) noexcept nogil:
    """When this VP can go on as far as its own state says: at once is the time that it has come to."""
    if is_suspended(vp):
        return never_ticks()
    if not is_asleep(vp) or vp.irq.lapic.init_pending or (not vp.shutdown and interrupt_waits(vp)) \
            or has_deliverable_sints(vp):
        return vp.irq.time
    if vp.startup_suspend or vp.shutdown or not (vp.rflags_system & FLAG_IF or vp.guest_idle):
        return max(urgent_time(vp), vp.irq.time)
    return max(irq_wake_time(vp.irq), vp.irq.time)


cdef inline u64 start_time_of(const vp_t* vp) noexcept nogil:
    """The same, and its cap has to allow it."""
    return max(ready_time_of(vp), vp.rests_until)
