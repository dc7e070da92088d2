"""The SynIC: message queues, delivery into the SIM page, event flags, interrupts of the SINTs (digest 9.1-9.4).

irqchip calls it for Python, the engine for hypercalls that it handles natively, the timers for their messages. Pages
are accessed byte-wise through memcpy: the guest's code reads and writes the same bytes at other widths.
"""
from libc.string cimport memcpy, memset

from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.assist cimport withdraw_promise
from hvcore._native.irq.clock cimport never_ticks, reference_time
from hvcore._native.irq.eoi cimport end_interrupt
from hvcore._native.irq.inbox cimport lags_behind
from hvcore._native.irq.lapic cimport request_from
from hvcore._native.irq.observer cimport (
    EVENT_EVENT_SIGNALED, EVENT_MESSAGE_DELIVERED, EVENT_MESSAGE_QUEUED, SOURCE_EVENT, SOURCE_MESSAGE, note_sint,
    origin_of,
)
from hvcore._native.irq.queue cimport append_buffer, discard_queues, unlink_buffer, write_message
from hvcore._native.irq.spec cimport (
    DISCARD_RESET, MESSAGE_FLAGS_OFFSET, MESSAGE_NONE, MESSAGE_PENDING, MESSAGE_SINT_INTERCEPT, PORT_BUFFER_COUNT,
    RETRY_TICKS, SINT_AS_INTERCEPT, SINT_AUTO_EOI, SINT_COUNT, SINT_MASKED, SINT_POLLING,
    SINT_VECTOR, SLOT_SIZE_BYTES, SYNIC_ENABLE, SYNIC_PAGE_SIZE_BYTES, message_t, timer_payload_t,
)
from hvcore._native.irq.state cimport irq_t, message_buffer_t, message_port_t

cdef extern from *:
    int count_trailing_zeros "__builtin_ctz"(u32 word) noexcept nogil


cdef inline bint irq_accepts_messages(const irq_t *irq) noexcept nogil:
    """SynIC and SIM page are both enabled; otherwise PostMessage answers INVALID_SYNIC_STATE and queues stand still."""
    return irq.synic.control & irq.synic.simp & SYNIC_ENABLE


cdef inline bint irq_accepts_events(const irq_t *irq) noexcept nogil:
    return irq.synic.control & irq.synic.siefp & SYNIC_ENABLE


cdef inline bint is_sint_masked(const irq_t *irq, u32 sint) noexcept nogil:
    """A polling SINT counts as unmasked, but when both bits are set the mask wins (9.4)."""
    return irq.synic.sints[sint] & SINT_MASKED != 0


cdef inline bint is_sint_ready(const irq_t *irq, u32 sint) noexcept nogil:
    """The SINT takes events; otherwise SignalEvent answers INVALID_SYNIC_STATE."""
    return irq_accepts_events(irq) and not is_sint_masked(irq, sint)


cdef inline u32 slot_type(const irq_t *irq, u32 sint) noexcept nogil:
    """The type of the message in a slot; MESSAGE_NONE: the guest took it."""
    cdef u32 occupant
    memcpy(&occupant, irq.synic.message_page + sint * SLOT_SIZE_BYTES, sizeof(u32))
    return occupant


cdef inline bint intercept_sint(irq_t *irq, u32 sint) noexcept nogil:
    """Message 80000061 joins the queue of SINT0 (9.4), unless the last one of this SINT still waits there."""
    cdef message_buffer_t *buffer = &irq.sint_intercepts[sint]
    if buffer.holder is not NULL:
        irq.counters.sint_intercepts_merged += 1
        return False
    write_message(&buffer.message, MESSAGE_SINT_INTERCEPT, 0, <const u8 *>&sint, sizeof(u32))
    append_buffer(irq, buffer, 0)
    irq.counters.messages_queued += 1
    return True


cdef inline bint raise_sint(irq_t *irq, u32 sint, u32 source) noexcept nogil:
    """The edge interrupt that announces a message or an event, if the SINT makes one.

    True: by as-intercept (b19) a message joined the queue of SINT0, which whoever raised has to look after."""
    cdef u64 value = irq.synic.sints[sint]
    if value & SINT_MASKED:
        irq.counters.interrupts_masked += 1
        return False
    if value & SINT_POLLING:
        irq.counters.interrupts_polled += 1
    else:
        request_from(irq, value & SINT_VECTOR, False, value & SINT_AUTO_EOI != 0, origin_of(source, sint))
    return value & SINT_AS_INTERCEPT != 0 and irq.intercepts_sints and sint != 0 and intercept_sint(irq, sint)


cdef inline void arm_retry(irq_t *irq) noexcept nogil:
    """A message waits for its slot: look again in a while (13 #40), whatever the guest does."""
    if irq.retry_time == never_ticks():
        irq.retry_time = irq.fabric.clock.now + RETRY_TICKS


cdef inline void fill_slot(u8 *slot, const message_t *message) noexcept nogil:
    """Payload first, type last: the guest polls the type."""
    memcpy(slot + sizeof(u32), <const u8 *>message + sizeof(u32), sizeof(message_t) - sizeof(u32))
    memcpy(slot, &message.message_type, sizeof(u32))


cdef inline bint deliver_sint(irq_t *irq, u32 sint) noexcept nogil:
    """Move the first message of a queue that has one into its slot; a full slot is told that more is waiting.

    True: a message joined the queue of SINT0, as raise_sint says."""
    cdef u8 *slot = irq.synic.message_page + sint * SLOT_SIZE_BYTES
    cdef message_buffer_t *buffer = irq.synic.queues[sint].first
    cdef timer_payload_t *stamped
    if slot_type(irq, sint) != MESSAGE_NONE:
        (slot + MESSAGE_FLAGS_OFFSET)[0] |= MESSAGE_PENDING
        withdraw_promise(irq)       # an EOI would bring the next one
        arm_retry(irq)
        return False
    if buffer.is_timer:
        stamped = <timer_payload_t *>buffer.message.payload
        # who gave the chance to deliver it need not have been this processor
        stamped.delivery = max(irq.now, reference_time(&irq.fabric.timebase,
                                                       irq.time if lags_behind(irq) else irq.fabric.clock.now))
    unlink_buffer(buffer)
    # With auto-EOI nothing but an EOM brings the next one, so the guest must learn of it now.
    buffer.message.flags = 0
    if irq.synic.queues[sint].first is not NULL:
        buffer.message.flags = MESSAGE_PENDING
        arm_retry(irq)
    fill_slot(slot, &buffer.message)
    irq.counters.messages_delivered += 1
    irq.tallies.sint_messages[sint] += 1
    note_sint(irq.observer, EVENT_MESSAGE_DELIVERED, irq.fabric.clock.now, sint, buffer.message.message_type)
    return raise_sint(irq, sint, SOURCE_MESSAGE)


cdef inline void note_deliverable(irq_t *irq) noexcept nogil:
    """After a scan: which awaited slots are free. The guest is asked for an EOM of the others."""
    cdef u32 awaited = irq.awaited_sints, sint
    while awaited:
        sint = count_trailing_zeros(awaited)
        awaited &= awaited - 1
        if slot_type(irq, sint) == MESSAGE_NONE:
            irq.awaited_sints &= ~(<u32>1 << sint)
            irq.deliverable_sints |= <u32>1 << sint
        else:
            (irq.synic.message_page + sint * SLOT_SIZE_BYTES + MESSAGE_FLAGS_OFFSET)[0] |= MESSAGE_PENDING
            arm_retry(irq)


cdef inline void irq_await_sints(irq_t *irq, u32 sints) noexcept nogil:
    """DeliverabilityNotifications [63:48]: tell the parent once of each of these SINTs that its slot is free."""
    irq.awaited_sints = sints
    irq.deliverable_sints &= sints
    deliver_messages(irq)


cdef inline void deliver_messages(irq_t *irq) noexcept nogil:
    """One scan over the queues: at most one message per SINT moves (9.2)."""
    cdef u32 waiting = irq.synic.waiting
    cdef bint joined = False
    if not irq_accepts_messages(irq):
        return
    while waiting:
        joined = deliver_sint(irq, count_trailing_zeros(waiting)) or joined
        waiting &= waiting - 1
    if joined:
        deliver_sint(irq, 0)
    if irq.awaited_sints:
        note_deliverable(irq)


cdef inline void announce_sint(irq_t *irq, u32 sint, u32 source) noexcept nogil:
    """Raise a SINT for something that is in no queue: an event, a doorbell, a direct message."""
    if raise_sint(irq, sint, source) and irq_accepts_messages(irq):
        deliver_sint(irq, 0)


cdef inline bint irq_would_deliver(const irq_t *irq) noexcept nogil:
    """A retry would move a message now, or find a slot free that is awaited."""
    cdef u32 waiting = irq.synic.waiting | irq.awaited_sints if irq_accepts_messages(irq) else 0
    while waiting:
        if slot_type(irq, count_trailing_zeros(waiting)) == MESSAGE_NONE:
            return True
        waiting &= waiting - 1
    return False


cdef inline void irq_retry(irq_t *irq) noexcept nogil:
    """The retry of the hypervisor itself (13 #40), for guests that forgot an EOM."""
    irq.retry_time = never_ticks()
    if irq.synic.waiting | irq.awaited_sints:
        irq.counters.retries += 1
        deliver_messages(irq)


cdef inline bint irq_take_message(irq_t *irq, u32 sint, message_t *taken) noexcept nogil:
    """What a handler does: read the slot, empty it, and write EOM if more is waiting. False: the slot was empty."""
    cdef u8 *slot = irq.synic.message_page + sint * SLOT_SIZE_BYTES
    if slot_type(irq, sint) == MESSAGE_NONE:
        return False
    memcpy(taken, slot, sizeof(message_t))
    memset(slot, 0, sizeof(u32))
    if taken.flags & MESSAGE_PENDING:
        deliver_messages(irq)
    return True


cdef inline void irq_eoi(irq_t *irq, u64 now) noexcept nogil:
    """An EOI by any route: the APIC retires a vector, and messages that waited for their slots are tried again."""
    irq.now = now
    end_interrupt(irq)
    if irq.synic.waiting | irq.awaited_sints:
        deliver_messages(irq)


cdef inline void queue_message(irq_t *irq, message_buffer_t *buffer, u32 sint) noexcept nogil:
    """Queue a written message and scan: a new message is also a retry for those that wait (9.2 step 5)."""
    append_buffer(irq, buffer, sint)
    irq.counters.messages_queued += 1
    note_sint(irq.observer, EVENT_MESSAGE_QUEUED, irq.fabric.clock.now, sint, buffer.message.message_type)
    deliver_messages(irq)


cdef inline bint irq_post_message(irq_t *irq, message_port_t *port, u32 sint, u32 message_type, u64 sender,
                                  const u8 *payload, u32 size_bytes) noexcept nogil:
    """Post with one of the port's buffers. False: none is free (INSUFFICIENT_BUFFERS).

    The caller has checked sint < 16, message_type != 0 and size_bytes <= 240.
    """
    cdef u32 index
    for index in range(PORT_BUFFER_COUNT):
        if port.buffers[index].holder is NULL:
            write_message(&port.buffers[index].message, message_type, sender, payload, size_bytes)
            queue_message(irq, &port.buffers[index], sint)
            return True
    irq.counters.messages_refused += 1
    return False


cdef inline void irq_post_intercept(irq_t *irq, irq_t *source, u32 message_type, u64 sender,
                                    const u8 *payload, u32 size_bytes) noexcept nogil:
    """Post an intercept of the VP `source` to SINT0. Its one buffer, if still queued anywhere, is taken back first."""
    cdef message_buffer_t *buffer = &source.intercept
    if buffer.holder is not NULL:
        buffer.holder.counters.messages_overwritten += 1
        unlink_buffer(buffer)
    write_message(&buffer.message, message_type, sender, payload, size_bytes)
    queue_message(irq, buffer, 0)


cdef inline int irq_post_direct(irq_t *irq, u32 sint, const message_t *message) noexcept nogil:
    """Put a whole message into its slot (HvCallPostMessageDirect). 1: done, -1: refused (INVALID_SYNIC_STATE).

    0: the slot is full, or others wait for it; the guest is asked to send an EOM. No buffer would wait for it."""
    cdef u8 *slot = irq.synic.message_page + sint * SLOT_SIZE_BYTES
    if not irq_accepts_messages(irq):
        return -1
    if irq.synic.queues[sint].first is not NULL or slot_type(irq, sint) != MESSAGE_NONE:
        (slot + MESSAGE_FLAGS_OFFSET)[0] |= MESSAGE_PENDING
        irq.counters.messages_refused += 1
        return 0
    fill_slot(slot, message)
    irq.counters.messages_queued += 1
    irq.counters.messages_delivered += 1
    irq.tallies.sint_messages[sint] += 1
    note_sint(irq.observer, EVENT_MESSAGE_DELIVERED, irq.fabric.clock.now, sint, message.message_type)
    announce_sint(irq, sint, SOURCE_MESSAGE)
    return 1


cdef inline int irq_signal_event(irq_t *irq, u32 sint, u32 flag) noexcept nogil:
    """Set an event flag (9.3). 1: newly signaled, 0: it was set already, -1: refused (INVALID_SYNIC_STATE)."""
    cdef u8 *flags = irq.synic.event_page + sint * SLOT_SIZE_BYTES + (flag >> 3)
    cdef u8 bit = <u8>(1 << (flag & 7))
    if not is_sint_ready(irq, sint):
        irq.counters.events_refused += 1
        return -1
    if flags[0] & bit:
        irq.counters.events_merged += 1
        return 0
    flags[0] |= bit
    irq.counters.events_signaled += 1
    irq.tallies.sint_events[sint] += 1
    note_sint(irq.observer, EVENT_EVENT_SIGNALED, irq.fabric.clock.now, sint, flag)
    announce_sint(irq, sint, SOURCE_EVENT)
    return 1


cdef inline void synic_reset(irq_t *irq) noexcept nogil:
    """Registers, queues and pages as after VP creation; SCONTROL is 0 (13 #36)."""
    cdef u32 sint
    discard_queues(irq, DISCARD_RESET)
    irq.synic.control = irq.synic.siefp = irq.synic.simp = irq.sirbp = 0
    irq.retry_time = never_ticks()
    irq.awaited_sints = irq.deliverable_sints = 0
    for sint in range(SINT_COUNT):
        irq.synic.sints[sint] = SINT_MASKED
        irq.counters.messages_unread += slot_type(irq, sint) != MESSAGE_NONE
    if irq.event_ring is not NULL:
        memset(irq.event_ring, 0, SYNIC_PAGE_SIZE_BYTES)
        memset(irq.ring_heads, 0, sizeof(irq.ring_heads))
    memset(irq.synic.message_page, 0, SYNIC_PAGE_SIZE_BYTES)
    memset(irq.synic.event_page, 0, SYNIC_PAGE_SIZE_BYTES)
