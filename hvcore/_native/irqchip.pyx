# cython: language_level=3, auto_pickle=False
"""The interrupt controller of one virtual processor: local APIC core, SynIC, synthetic timers.

The objects hold the structs of the irq room and translate between them and Python; every rule is in the room.
hvcore/interrupts.py and the hypercalls use the objects, the engine uses irq_of() and the room's functions.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.number cimport PyNumber_Index

from libc.string cimport memcpy, memset

from hvcore._native.base.types cimport i64, u8, u32, u64
from hvcore._native.irq.apic_base cimport is_apic_page, write_apic_base
from hvcore._native.irq.apic_registers cimport (
    read_apic, read_vectors, read_x2apic, read_xapic, write_svr, write_x2apic, write_xapic,
)
from hvcore._native.irq.apic_spec cimport (
    APIC_LDR, DIVIDE_DEFINED, ICR_DEFINED, ICR_STATUS, LVT_COUNT, LVT_LINT0, LVT_LINT1, LVT_MASKED, LVT_REMOTE_IRR,
    SVR_DEFINED, SVR_ENABLE, VERSION_VALUE,
)
from hvcore._native.irq.apic_timer cimport current_count, rearm_timer, write_tsc_deadline
from hvcore._native.irq.assist cimport settle_eoi, withdraw_promise
from hvcore._native.irq.clock cimport (
    LAST_TICK, TICKS_PER_REFERENCE_UNIT, clock_t, never_ticks, reference_time, timebase_reset,
)
from hvcore._native.irq.destination cimport is_x2apic
from hvcore._native.irq.events cimport irq_advance, irq_next_event
from hvcore._native.irq.fabric cimport fabric_send_msi
from hvcore._native.irq.inbox cimport MOMENT_COUNT, empty_inbox, notice
from hvcore._native.irq.lapic cimport (
    irq_acknowledge, irq_acknowledge_nmi, irq_nmi_pending, irq_pending_vector, irq_priority, irq_take_level_eoi,
    is_enabled, lapic_init, lapic_reset, request_from, request_nmi, withdraw_interrupt,
)
from hvcore._native.irq.lvt cimport local_interrupt, lvt_defined, set_local_pin, takes_external
from hvcore._native.irq.msr cimport irq_read_msr, irq_write_msr
from hvcore._native.irq.queue cimport append_buffer, discard_buffer, discard_port, discard_queues, write_message
from hvcore._native.irq.spec cimport (
    DISCARD_RESTORE, DISCARD_VP, DONE, EVENT_FLAG_COUNT, GENERAL_PROTECTION, LOWEST_VECTOR, MESSAGE_NONE,
    MESSAGE_TIMER_EXPIRED, NOT_MINE, PAYLOAD_SIZE_BYTES, PORT_BUFFER_COUNT, RING_SLOT_COUNT, SINT_AUTO_EOI, SINT_COUNT,
    SINT_VECTOR, SYNIC_PAGE_SIZE_BYTES, SYNTHETIC_TIMER_COUNT, TIMER_DIRECT, TIMER_ENABLE, TIMER_PERIODIC, message_t,
    timer_payload_t,
)
from hvcore._native.irq.observer cimport (
    EVENT_ROUTED, LOG2_BUCKETS, SINTS, SOURCE_COUNT, SOURCE_HOST, VECTORS, interrupt_tallies_t, note_event, note_reset,
    observer_t, trace_record_t, trace_ring_t,
)
from hvcore._native.irq.state cimport (
    arrivals_t, fabric_t, irq_t, lapic_t, message_buffer_t, message_port_t, synthetic_timer_t,
)
from hvcore._native.irq.synic cimport (
    arm_retry, irq_accepts_events, irq_accepts_messages, irq_await_sints, irq_post_direct, irq_post_intercept,
    irq_post_message, irq_signal_event, irq_take_message, is_sint_masked, synic_reset,
)
from hvcore._native.irq.timer cimport (
    deadline_from, find_next_deadline, irq_expire, irq_next_deadline, is_timer_config, never, timer_sint, timers_reset,
)
from hvcore._native.irq.unhalted cimport is_unhalted_config, set_unhalted_left, unhalted_left, unhalted_reset
from hvcore._native.irq.vectors cimport has_vector, highest_vector, put_vector
from hvcore._native.space cimport require_thread
from libc.stdlib cimport calloc, free, realloc


include "irqchip_arguments.pxi"


cdef bytes octets_of(const void* at, size_t size_bytes):
    return (<const char*>at)[:size_bytes]


include "irqchip_port.pxi"
include "irqchip_synic.pxi"


# SAFETY: irq keeps raw pointers into the three pages. no_gc_clear keeps their owners, and so the memory, until
# __dealloc__, when the queues are left without touching a page.
@cython.final
@cython.no_gc_clear
cdef class InterruptController(Synic):
    """Local APIC core, SynIC and synthetic timers of one virtual processor.

    Parameters
    ----------
    apic_id : int
        The initial APIC id.
    message_page, event_page : buffer
        The frames of the SIM page and the SIEF page, writable, 4096 bytes each. Whether the guest sees them, and where,
        is the caller's matter.
    event_ring : buffer, optional
        The frame of the event ring page, likewise; without it no doorbell can be rung here.
    assist_page : buffer, optional
        The frame of the VP assist page.

    Examples
    --------
    >>> controller = InterruptController(apic_id=0, message_page=bytearray(4096), event_page=bytearray(4096))
    >>> controller.assert_interrupt(0x30)
    >>> controller.pending_vector()
    48
    """

    def __cinit__(self, *, apic_id, message_page, event_page, event_ring=None, assist_page=None):
        self.alone = &self.irq
        self.leave()
        empty_inbox(&self.irq)
        self.irq.lapic.apic_id = <u32>checked(apic_id, 0, 0xFFFFFFFF, "apic_id")
        cdef _Octets messages = borrow_page(message_page, "message_page")
        cdef _Octets events = borrow_page(event_page, "event_page")
        cdef _Octets rings = borrow_page(event_ring, "event_ring") if event_ring is not None else None
        cdef _Octets assist = borrow_page(bytearray(4096) if assist_page is None else assist_page, "assist_page")
        self.pages = messages, events, rings, assist
        self.irq.event_ring = <u8 *>rings.view.buf if rings is not None else NULL
        self.irq.assist.page = <u8 *>assist.view.buf
        self.irq.synic.message_page = <u8 *>messages.view.buf
        self.irq.synic.event_page = <u8 *>events.view.buf
        self.reset()

    def __dealloc__(self):
        discard_queues(&self.irq, DISCARD_VP)
        discard_buffer(&self.irq.intercept, DISCARD_VP)
        free(self.irq.observer)

    cdef void join(self, fabric_t *fabric, object owner, u32 index) noexcept:
        """Become one of the controllers of `fabric`, which lives as long as `owner`."""
        self.irq.fabric = fabric
        self.irq.index = index
        self.owner = owner

    cdef void leave(self) noexcept:
        """Be a controller on its own, whose partition is itself."""
        timebase_reset(&self.own_fabric.timebase)
        self.own_fabric.clock = &self.own_clock
        self.own_fabric.controllers = &self.alone
        self.own_fabric.count = 1
        self.join(&self.own_fabric, None, 0)

    def reset(self):
        """The state after VP creation and VP reset. Queued messages go back to their ports; counters go on counting.

        An intercept message of this VP that waits for its parent stays queued: it is the parent's to read.
        """
        require_thread(self.irq.fabric.clock.guard)
        empty_inbox(&self.irq)
        synic_reset(&self.irq)
        timers_reset(&self.irq)
        unhalted_reset(&self.irq)
        lapic_reset(&self.irq)

    @property
    def apic_id(self):
        return self.irq.lapic.apic_id

    @property
    def apic_enabled(self):
        """Software-enable of the local APIC. A disabled one loses every fixed interrupt."""
        return is_enabled(&self.irq.lapic) != 0

    @apic_enabled.setter
    def apic_enabled(self, bint enabled):
        require_thread(self.irq.fabric.clock.guard)
        write_svr(&self.irq, (self.irq.lapic.svr & ~<u32>SVR_ENABLE) | (SVR_ENABLE if enabled else 0),
                  self.irq.fabric.clock.now)

    @property
    def assist_enabled(self):
        """VP_ASSIST_PAGE.b0: edge interrupts may say "No EOI required" there (digest 10.3)."""
        return self.irq.assist.enabled != 0

    @assist_enabled.setter
    def assist_enabled(self, bint enabled):
        require_thread(self.irq.fabric.clock.guard)
        withdraw_promise(&self.irq)
        self.irq.assist.enabled = enabled

    @property
    def apic(self):
        """Its registers, as page and MSRs show them: a LocalApic."""
        return apic_of(self)

    def read_msr(self, index, now):
        """The value of a register; None for the write-only EOI and for registers of others."""
        require_thread(self.irq.fabric.clock.guard)
        cdef u64 value = 0
        if irq_read_msr(&self.irq, <u32>checked(index, 0, 0xFFFFFFFF, "index"), checked(now, 0, ~<u64>0, "now"),
                        &value) == DONE:
            return value
        return None

    def write_msr(self, index, value, now):
        """Write a register at reference time `now`.

        Returns
        -------
        bool or None
            True if it was written; after SIMP and SIEFP the caller moves the overlay. False if the write is a #GP, and
            nothing changed. None if it is another register.
        """
        require_thread(self.irq.fabric.clock.guard)
        cdef int result = irq_write_msr(&self.irq, <u32>checked(index, 0, 0xFFFFFFFF, "index"),
                                        checked(value, 0, ~<u64>0, "value"), checked(now, 0, ~<u64>0, "now"))
        return None if result == NOT_MINE else result != GENERAL_PROTECTION

    def assert_interrupt(self, vector, *, bint level=False, source=SOURCE_HOST):
        """Request a fixed interrupt, vector 16..255. A software-disabled APIC loses it.

        `source` is a number of hvcore.interrupts.InterruptSource, under which it is counted.
        """
        require_thread(self.irq.fabric.clock.guard)
        request_from(&self.irq, <u32>checked(vector, LOWEST_VECTOR, 255, "vector"), level, False,
                     <u32>checked(source, 0, SOURCE_COUNT - 1, "source"))

    def withdraw_interrupt(self, vector):
        """Take back a level-triggered request that was not delivered yet; an edge stays requested."""
        require_thread(self.irq.fabric.clock.guard)
        withdraw_interrupt(&self.irq, <u32>checked(vector, LOWEST_VECTOR, 255, "vector"))

    def route_interrupt(self, vector, *, bint level=False):
        """The same for a source of the machine that the routing table hands to this processor."""
        require_thread(self.irq.fabric.clock.guard)
        note_event(self.irq.observer, EVENT_ROUTED, self.irq.fabric.clock.now,
                   <u32>checked(vector, LOWEST_VECTOR, 255, "vector"), SOURCE_HOST, self.irq.lapic.apic_id)
        self.assert_interrupt(vector, level=level)

    def assert_nmi(self, *, source=SOURCE_HOST):
        """Request an NMI; `source` as for `assert_interrupt`."""
        require_thread(self.irq.fabric.clock.guard)
        request_nmi(&self.irq, <u32>checked(source, 0, SOURCE_COUNT - 1, "source"))

    @property
    def nmi_pending(self):
        return irq_nmi_pending(&self.irq) != 0

    @property
    def processor_priority(self):
        """The PPR: TPR, or the class in service where that is higher."""
        return irq_priority(&self.irq)

    @property
    def requested(self):
        """IRR as an integer, bit v for vector v."""
        return members(self.irq.lapic.irr)

    @property
    def in_service(self):
        """ISR as an integer, bit v for vector v."""
        require_thread(self.irq.fabric.clock.guard)
        settle_eoi(&self.irq)
        return members(self.irq.lapic.isr)

    @property
    def level_triggered(self):
        """TMR as an integer, bit v for vector v."""
        return members(self.irq.lapic.tmr)

    def pending_vector(self):
        """The vector that the core would take now if it may take interrupts, or None."""
        cdef int vector = irq_pending_vector(&self.irq)
        return None if vector < 0 else vector

    def acknowledge(self):
        """Take the pending vector as the core does at an interrupt: from IRR to ISR. None if nothing is pending."""
        require_thread(self.irq.fabric.clock.guard)
        cdef int vector = irq_pending_vector(&self.irq)
        if vector < 0:
            return None
        irq_acknowledge(&self.irq, vector)
        return vector

    def acknowledge_nmi(self):
        """Take the pending NMI; whether there was one."""
        require_thread(self.irq.fabric.clock.guard)
        if not irq_nmi_pending(&self.irq):
            return False
        irq_acknowledge_nmi(&self.irq)
        return True

    def take_level_eoi(self):
        """A level-triggered vector whose EOI the parent has not been told of, or None. Asking takes it."""
        require_thread(self.irq.fabric.clock.guard)
        cdef int vector = irq_take_level_eoi(&self.irq)
        return None if vector < 0 else vector

    def next_event(self):
        """Ticks at which a timer expires, an interrupt arrives or a full slot is tried again, or None."""
        cdef u64 time = irq_next_event(&self.irq)
        return None if time == never_ticks() else time

    def advance(self, now):
        """The processor has come to `now` ticks: everything that is due happens."""
        require_thread(self.irq.fabric.clock.guard)
        irq_advance(&self.irq, checked(now, 0, ~<u64>0, "now"))

    @property
    def intercepts_sints(self):
        """The as-intercept bits of its SINTs count, as those of the root do: they send message 80000061 to SINT0."""
        return self.irq.intercepts_sints != 0

    @intercepts_sints.setter
    def intercepts_sints(self, bint value):
        require_thread(self.irq.fabric.clock.guard)
        self.irq.intercepts_sints = value

    def next_deadline(self):
        """The reference time at which the next timer expires, or None."""
        cdef u64 deadline = irq_next_deadline(&self.irq)
        return None if deadline == never() else deadline

    def expire(self, now):
        """Fire every timer that is due at `now`; how many signals that made."""
        require_thread(self.irq.fabric.clock.guard)
        return irq_expire(&self.irq, checked(now, 0, ~<u64>0, "now"))

    def save(self, ports=(), sources=()):
        """Everything that a snapshot of the processor needs of its controller, counters excepted.

        Parameters
        ----------
        ports : sequence of MessagePort
            Whose messages may wait here, in an order that `restore` is given again.
        sources : sequence of InterruptController
            Those of the virtual processors whose intercept messages may wait here, likewise.

        Returns
        -------
        bytes
            Registers, pages, queues; times in it are absolute.

        Raises
        ------
        ValueError
            A message waits here that came from none of them.
        """
        require_thread(self.irq.fabric.clock.guard)
        return save_state(self, ports, sources)

    def restore(self, bytes state not None, ports=(), sources=()):
        """Take on a saved state. What waits here now is discarded, and counted as messages_discarded_restore.

        Raises
        ------
        ValueError
            The state is not one, or a message in it has no free buffer in its port; nothing changed.
        """
        require_thread(self.irq.fabric.clock.guard)
        restore_state(self, state, ports, sources)

    def timer_state(self):
        """The image of the synthetic timers (digest 4.12): 200 bytes, those of hvcore.vp_states.SYNTHETIC_TIMERS."""
        require_thread(self.irq.fabric.clock.guard)
        return timers_state(&self.irq)

    def restore_timers(self, bytes image not None):
        """Take an image of timers over. Their messages that wait here are discarded as those of `restore`.

        Raises
        ------
        ValueError
            It is not 200 bytes, or has what no timer can be; nothing changed.
        """
        require_thread(self.irq.fabric.clock.guard)
        restore_timers(&self.irq, image)

    def counters(self):
        """Everything that was requested, delivered, merged or lost since creation. The keys are always the same."""
        return self.irq.counters

    def delivered_interrupts(self):
        """Interrupts delivered to the core per vector, as a dict without zeros."""
        return {vector: self.irq.delivered[vector] for vector in range(256) if self.irq.delivered[vector]}

    def tallies(self):
        """Counts since creation, as six buffers of u64: requests and deliveries per vector; requests per source;
        requests, messages put into the slot and flags set per SINT, one after the other."""
        cdef interrupt_tallies_t* tallies = &self.irq.tallies
        return (octets_of(tallies.requested, sizeof(tallies.requested)),
                octets_of(self.irq.delivered, sizeof(self.irq.delivered)),
                octets_of(tallies.sources, sizeof(tallies.sources)),
                octets_of(tallies.sint_interrupts, sizeof(tallies.sint_interrupts)),
                octets_of(tallies.sint_messages, sizeof(tallies.sint_messages)),
                octets_of(tallies.sint_events, sizeof(tallies.sint_events)))


include "irqchip_observation.pxi"


include "irqchip_state.pxi"
include "irqchip_vp_state.pxi"
include "irqchip_apic.pxi"
