# cython: language_level=3, auto_pickle=False
"""The interrupt controller of one virtual processor: local APIC core, SynIC, synthetic timers.

The objects hold the structs of the irq room and translate between them and Python; every rule is in the room.
hvcore/interrupts.py and the hypercalls use the objects, the engine uses irq_of() and the room's functions.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.number cimport PyIndex_Check, PyNumber_Index

from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.apic_base cimport is_apic_page, write_apic_base
from hvcore._native.irq.apic_registers cimport (
    read_apic, read_vectors, read_x2apic, read_xapic, write_svr, write_x2apic, write_xapic,
)
from hvcore._native.irq.apic_spec cimport (
    APIC_LDR, DIVIDE_DEFINED, LVT_COUNT, LVT_REMOTE_IRR, SVR_DEFINED, SVR_ENABLE, VERSION_VALUE,
)
from hvcore._native.irq.apic_timer cimport current_count, rearm_timer, write_tsc_deadline
from hvcore._native.irq.clock cimport clock_t
from hvcore._native.irq.events cimport irq_advance, irq_next_event
from hvcore._native.irq.fabric cimport fabric_send_msi
from hvcore._native.irq.inbox cimport empty_inbox
from hvcore._native.irq.lapic cimport (
    irq_acknowledge, irq_acknowledge_nmi, irq_nmi_pending, irq_pending_vector, irq_priority, irq_take_level_eoi,
    is_enabled, lapic_init, lapic_reset, request_interrupt, request_nmi, withdraw_interrupt,
)
from hvcore._native.irq.lvt cimport local_interrupt, lvt_defined, set_local_pin, takes_external
from hvcore._native.irq.msr cimport irq_read_msr, irq_write_msr
from hvcore._native.irq.spec cimport (
    DONE, EVENT_FLAG_COUNT, GENERAL_PROTECTION, LOWEST_VECTOR, NOT_MINE, PAYLOAD_SIZE_BYTES, PORT_BUFFER_COUNT,
    SINT_COUNT, SYNIC_PAGE_SIZE_BYTES,
)
from hvcore._native.irq.state cimport fabric_t, irq_t, lapic_t, message_port_t
from hvcore._native.irq.synic cimport (
    discard_buffer, discard_port, discard_queues, irq_accepts_events, irq_accepts_messages, irq_post_intercept,
    irq_post_message, irq_signal_event, is_sint_masked, synic_reset,
)
from hvcore._native.irq.timer cimport irq_expire, irq_next_deadline, never, timers_reset
from libc.stdlib cimport free, realloc


cdef u64 checked(object value, u64 lowest, u64 highest, str name) except? 0xBAD:
    """The argument as an integer within its bounds; an exception that names it otherwise."""
    if not PyIndex_Check(value):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    cdef object number = PyNumber_Index(value)
    if not lowest <= number <= highest:
        raise ValueError(f"{name} must be {lowest}..{highest}, not {number}")
    return number


cdef object members(const u64 *vectors):
    """A vector set as an integer of 256 bits: bit v is vector v."""
    cdef int word
    cdef object result = 0
    for word in range(3, -1, -1):
        result = result << 64 | vectors[word]
    return result


@cython.final
@cython.no_gc_clear     # clearing the view's owner early would lose the release of the buffer
cdef class _Octets:
    """The bytes of any contiguous buffer, borrowed for the life of this object."""
    cdef Py_buffer view

    def __cinit__(self, source, str name, bint writable):
        try:
            PyObject_GetBuffer(source, &self.view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        except (BufferError, TypeError) as error:
            raise type(error)(f"{name}: {error}") from None

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef _Octets borrow_payload(object payload):
    cdef _Octets octets = _Octets(payload, "payload", False)
    if octets.view.len > PAYLOAD_SIZE_BYTES:
        raise ValueError(f"payload must have at most {PAYLOAD_SIZE_BYTES} bytes, not {octets.view.len}")
    return octets


cdef _Octets borrow_page(object page, str name):
    cdef _Octets octets = _Octets(page, name, True)
    if octets.view.len != SYNIC_PAGE_SIZE_BYTES:
        raise ValueError(f"{name} must have {SYNIC_PAGE_SIZE_BYTES} bytes, not {octets.view.len}")
    return octets


@cython.final
cdef class MessagePort:
    """The sixteen message buffers of one message port (TLFS 11.8), shared by the queues that hold its messages."""

    def __dealloc__(self):
        discard_port(&self.port)

    @property
    def free(self):
        """Buffers that hold no queued message."""
        cdef u32 index
        cdef int free = 0
        for index in range(PORT_BUFFER_COUNT):
            free += self.port.buffers[index].holder is NULL
        return free

    def discard(self):
        """Remove the port's queued messages everywhere, as DeletePort does.

        Returns
        -------
        int
            How many messages were lost. The port itself stays usable.
        """
        return discard_port(&self.port)


# SAFETY: irq keeps raw pointers into the two pages. no_gc_clear keeps their owners, and so the memory, until
# __dealloc__, when the queues are left without touching a page.
@cython.final
@cython.no_gc_clear
cdef class InterruptController:
    """Local APIC core, SynIC and synthetic timers of one virtual processor.

    Parameters
    ----------
    apic_id : int
        The initial APIC id.
    message_page, event_page : buffer
        The frames of the SIM page and the SIEF page, writable, 4096 bytes each. Whether the guest sees them, and where,
        is the caller's matter.

    Examples
    --------
    >>> controller = InterruptController(apic_id=0, message_page=bytearray(4096), event_page=bytearray(4096))
    >>> controller.assert_interrupt(0x30)
    >>> controller.pending_vector()
    48
    """

    def __cinit__(self, *, apic_id, message_page, event_page):
        self.alone = &self.irq
        self.leave()
        empty_inbox(&self.irq)
        self.irq.lapic.apic_id = <u32>checked(apic_id, 0, 0xFFFFFFFF, "apic_id")
        cdef _Octets messages = borrow_page(message_page, "message_page")
        cdef _Octets events = borrow_page(event_page, "event_page")
        self.pages = messages, events
        self.irq.synic.message_page = <u8 *>messages.view.buf
        self.irq.synic.event_page = <u8 *>events.view.buf
        self.reset()

    def __dealloc__(self):
        discard_queues(&self.irq)
        discard_buffer(&self.irq.intercept)

    cdef void join(self, fabric_t *fabric, object owner, u32 index) noexcept:
        """Become one of the controllers of `fabric`, which lives as long as `owner`."""
        self.irq.fabric = fabric
        self.irq.index = index
        self.owner = owner

    cdef void leave(self) noexcept:
        """Be a controller on its own, whose partition is itself."""
        self.own_fabric.clock = &self.own_clock
        self.own_fabric.controllers = &self.alone
        self.own_fabric.count = 1
        self.join(&self.own_fabric, None, 0)

    def reset(self):
        """The state after VP creation and VP reset. Queued messages go back to their ports; counters go on counting.

        An intercept message of this VP that waits for its parent stays queued: it is the parent's to read.
        """
        empty_inbox(&self.irq)
        synic_reset(&self.irq)
        timers_reset(&self.irq)
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
        write_svr(&self.irq, (self.irq.lapic.svr & ~<u32>SVR_ENABLE) | (SVR_ENABLE if enabled else 0),
                  self.irq.fabric.clock.now)

    @property
    def accepts_messages(self):
        """SynIC and SIM page are enabled; otherwise PostMessage is refused with INVALID_SYNIC_STATE."""
        return irq_accepts_messages(&self.irq) != 0

    @property
    def accepts_events(self):
        """SynIC and SIEF page are enabled."""
        return irq_accepts_events(&self.irq) != 0

    @property
    def apic(self):
        """Its registers, as page and MSRs show them: a LocalApic."""
        return apic_of(self)

    def post_message(self, MessagePort port not None, *, sint, message_type, sender, payload):
        """Queue a message and deliver what can be delivered.

        Returns
        -------
        bool
            False if the port has no free buffer (INSUFFICIENT_BUFFERS). A True message is delivered once and in order,
            or discarded and counted; it waits while SynIC, SIM page or slot are not ready.
        """
        cdef u32 to_sint = <u32>checked(sint, 0, SINT_COUNT - 1, "sint")
        cdef u32 of_type = <u32>checked(message_type, 1, 0xFFFFFFFF, "message_type")
        cdef u64 from_sender = checked(sender, 0, ~<u64>0, "sender")
        cdef _Octets octets = borrow_payload(payload)
        return irq_post_message(&self.irq, &port.port, to_sint, of_type, from_sender,
                                <const u8 *>octets.view.buf, <u32>octets.view.len) != 0

    def post_intercept(self, InterruptController source not None, *, message_type, sender, payload):
        """Queue an intercept message of another VP to SINT0.

        Parameters
        ----------
        source : InterruptController
            The controller of the intercepted VP, which owns the one buffer: an earlier message of that VP that still
            waits, here or at another controller, is replaced and goes to the tail.
        """
        cdef u32 of_type = <u32>checked(message_type, 1, 0xFFFFFFFF, "message_type")
        cdef u64 from_sender = checked(sender, 0, ~<u64>0, "sender")
        cdef _Octets octets = borrow_payload(payload)
        irq_post_intercept(&self.irq, &source.irq, of_type, from_sender,
                           <const u8 *>octets.view.buf, <u32>octets.view.len)

    def signal_event(self, *, sint, flag):
        """Set an event flag and raise the SINT's interrupt.

        Returns
        -------
        bool or None
            True if the flag was clear before ("newly signaled"), False if it was set, None if nothing was done because
            SynIC or SIEF page are disabled or the SINT is masked (INVALID_SYNIC_STATE).
        """
        cdef int result = irq_signal_event(&self.irq, <u32>checked(sint, 0, SINT_COUNT - 1, "sint"),
                                           <u32>checked(flag, 0, EVENT_FLAG_COUNT - 1, "flag"))
        return None if result < 0 else result != 0

    def sint_masked(self, sint):
        """Whether the SINT refuses events. A polling one does not, unless it is masked too."""
        return is_sint_masked(&self.irq, <u32>checked(sint, 0, SINT_COUNT - 1, "sint")) != 0

    def read_msr(self, index, now):
        """The value of a register; None for the write-only EOI and for registers of others."""
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
            nothing changed. None if the rest is the caller's: another register, or an ICR that addresses other VPs.
        """
        cdef int result = irq_write_msr(&self.irq, <u32>checked(index, 0, 0xFFFFFFFF, "index"),
                                        checked(value, 0, ~<u64>0, "value"), checked(now, 0, ~<u64>0, "now"))
        return None if result == NOT_MINE else result != GENERAL_PROTECTION

    def assert_interrupt(self, vector, *, bint level=False):
        """Request a fixed interrupt, vector 16..255. A software-disabled APIC loses it."""
        request_interrupt(&self.irq, <u32>checked(vector, LOWEST_VECTOR, 255, "vector"), level, False)

    def withdraw_interrupt(self, vector):
        """Take back a level-triggered request that was not delivered yet; an edge stays requested."""
        withdraw_interrupt(&self.irq, <u32>checked(vector, LOWEST_VECTOR, 255, "vector"))

    def assert_nmi(self):
        request_nmi(&self.irq)

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
        cdef int vector = irq_pending_vector(&self.irq)
        if vector < 0:
            return None
        irq_acknowledge(&self.irq, vector)
        return vector

    def acknowledge_nmi(self):
        """Take the pending NMI; whether there was one."""
        if not irq_nmi_pending(&self.irq):
            return False
        irq_acknowledge_nmi(&self.irq)
        return True

    def take_level_eoi(self):
        """A level-triggered vector whose EOI the parent has not been told of, or None. Asking takes it."""
        cdef int vector = irq_take_level_eoi(&self.irq)
        return None if vector < 0 else vector

    def next_deadline(self):
        """The reference time at which the next timer expires, or None."""
        cdef u64 deadline = irq_next_deadline(&self.irq)
        return None if deadline == never() else deadline

    def expire(self, now):
        """Fire every timer that is due at `now`; how many signals that made."""
        return irq_expire(&self.irq, checked(now, 0, ~<u64>0, "now"))

    def counters(self):
        """Everything that was requested, delivered, merged or lost since creation. The keys are always the same."""
        return self.irq.counters

    def delivered_interrupts(self):
        """Interrupts delivered to the core per vector, as a dict without zeros."""
        return {vector: self.irq.delivered[vector] for vector in range(256) if self.irq.delivered[vector]}


cdef irq_t *irq_of(InterruptController controller) noexcept:
    """The state of a controller, valid as long as the object lives. The caller has ruled out None."""
    return &controller.irq


cdef message_port_t *port_of(MessagePort port) noexcept:
    """The buffers of a port, valid as long as the object lives. The caller has ruled out None."""
    return &port.port


include "irqchip_apic.pxi"
