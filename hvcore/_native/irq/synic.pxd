"""The SynIC: message queues, delivery into the SIM page, event flags, interrupts of the SINTs (digest 9.1-9.4).

irqchip calls it for Python, the engine for hypercalls that it handles natively, the timers for their messages. Pages
are accessed byte-wise through memcpy: the guest's code reads and writes the same bytes at other widths.
"""
from libc.string cimport memcpy, memset

from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.eoi cimport end_interrupt
from hvcore._native.irq.lapic cimport request_interrupt
from hvcore._native.irq.spec cimport (
    MESSAGE_FLAGS_OFFSET, MESSAGE_NONE, MESSAGE_PENDING, PORT_BUFFER_COUNT, SINT_AUTO_EOI,
    SINT_COUNT, SINT_MASKED, SINT_POLLING, SINT_VECTOR, SLOT_SIZE_BYTES, SYNIC_ENABLE, SYNIC_PAGE_SIZE_BYTES,
    message_t, timer_payload_t,
)
from hvcore._native.irq.state cimport irq_t, message_buffer_t, message_port_t, message_queue_t

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


cdef inline void raise_sint(irq_t *irq, u32 sint) noexcept nogil:
    """The edge interrupt that announces a message or an event, if the SINT makes one."""
    cdef u64 value = irq.synic.sints[sint]
    if value & SINT_MASKED:
        irq.counters.interrupts_masked += 1
    elif value & SINT_POLLING:
        irq.counters.interrupts_polled += 1
    else:
        request_interrupt(irq, value & SINT_VECTOR, False, value & SINT_AUTO_EOI != 0)


cdef inline void append_buffer(irq_t *irq, message_buffer_t *buffer, u32 sint) noexcept nogil:
    """Put a free buffer at the tail of a queue."""
    cdef message_queue_t *queue = &irq.synic.queues[sint]
    buffer.holder = irq
    buffer.sint = <u8>sint
    buffer.next = NULL
    buffer.previous = queue.last
    if queue.last is NULL:
        queue.first = buffer
    else:
        queue.last.next = buffer
    queue.last = buffer
    irq.synic.waiting |= <u32>1 << sint


cdef inline void unlink_buffer(message_buffer_t *buffer) noexcept nogil:
    """Take a buffer out of the queue that holds it. It is free afterwards, its message still readable."""
    cdef irq_t *holder = buffer.holder
    cdef message_queue_t *queue = &holder.synic.queues[buffer.sint]
    if buffer.previous is NULL:
        queue.first = buffer.next
    else:
        buffer.previous.next = buffer.next
    if buffer.next is NULL:
        queue.last = buffer.previous
    else:
        buffer.next.previous = buffer.previous
    if queue.first is NULL:
        holder.synic.waiting &= ~(<u32>1 << buffer.sint)
    buffer.holder = NULL


cdef inline bint discard_buffer(message_buffer_t *buffer) noexcept nogil:
    """Free a buffer whose message will never be delivered. False: it was free."""
    if buffer.holder is NULL:
        return False
    buffer.holder.counters.messages_discarded += 1
    unlink_buffer(buffer)
    return True


cdef inline u32 discard_port(message_port_t *port) noexcept nogil:
    """Remove the port's messages from every queue that holds one; how many there were."""
    cdef u32 index, discarded = 0
    for index in range(PORT_BUFFER_COUNT):
        discarded += discard_buffer(&port.buffers[index])
    return discarded


cdef inline void discard_queues(irq_t *irq) noexcept nogil:
    """Empty the queues of this VP; the buffers are their owners' again."""
    cdef u32 sint
    for sint in range(SINT_COUNT):
        while irq.synic.queues[sint].first is not NULL:
            discard_buffer(irq.synic.queues[sint].first)


cdef inline void deliver_sint(irq_t *irq, u32 sint) noexcept nogil:
    """Move the first message of a queue that has one into its slot; a full slot is told that more is waiting."""
    cdef u8 *slot = irq.synic.message_page + sint * SLOT_SIZE_BYTES
    cdef message_buffer_t *buffer = irq.synic.queues[sint].first
    cdef timer_payload_t *stamped
    cdef u32 occupant
    memcpy(&occupant, slot, sizeof(u32))
    if occupant != MESSAGE_NONE:
        (slot + MESSAGE_FLAGS_OFFSET)[0] |= MESSAGE_PENDING
        return
    if buffer.is_timer:
        stamped = <timer_payload_t *>buffer.message.payload
        stamped.delivery = irq.now
    unlink_buffer(buffer)
    # With auto-EOI nothing but an EOM brings the next one, so the guest must learn of it now.
    buffer.message.flags = MESSAGE_PENDING if irq.synic.queues[sint].first is not NULL else 0
    # Payload first, type last: the guest polls the type.
    memcpy(slot + sizeof(u32), <u8 *>&buffer.message + sizeof(u32), sizeof(message_t) - sizeof(u32))
    memcpy(slot, &buffer.message.message_type, sizeof(u32))
    irq.counters.messages_delivered += 1
    raise_sint(irq, sint)


cdef inline void deliver_messages(irq_t *irq) noexcept nogil:
    """One scan over the queues: at most one message per SINT moves (9.2)."""
    cdef u32 waiting = irq.synic.waiting
    if not irq_accepts_messages(irq):
        return
    while waiting:
        deliver_sint(irq, count_trailing_zeros(waiting))
        waiting &= waiting - 1


cdef inline void irq_eoi(irq_t *irq, u64 now) noexcept nogil:
    """An EOI by any route: the APIC retires a vector, and messages that waited for their slots are tried again."""
    irq.now = now
    end_interrupt(irq)
    if irq.synic.waiting:
        deliver_messages(irq)


cdef inline void write_message(message_t *message, u32 message_type, u64 sender,
                               const u8 *payload, u32 size_bytes) noexcept nogil:
    """Fill in a message. Bytes after the payload are zero, so that no slot shows another message's."""
    memset(message, 0, sizeof(message_t))
    message.message_type = message_type
    message.payload_size = <u8>size_bytes
    message.sender = sender
    memcpy(message.payload, payload, size_bytes)


cdef inline void queue_message(irq_t *irq, message_buffer_t *buffer, u32 sint) noexcept nogil:
    """Queue a written message and scan: a new message is also a retry for those that wait (9.2 step 5)."""
    append_buffer(irq, buffer, sint)
    irq.counters.messages_queued += 1
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


cdef inline int irq_signal_event(irq_t *irq, u32 sint, u32 flag) noexcept nogil:
    """Set an event flag (9.3). 1: newly signaled, 0: it was set already, -1: refused (INVALID_SYNIC_STATE)."""
    cdef u8 *flags = irq.synic.event_page + sint * SLOT_SIZE_BYTES + (flag >> 3)
    cdef u8 bit = <u8>(1 << (flag & 7))
    if not irq_accepts_events(irq) or is_sint_masked(irq, sint):
        irq.counters.events_refused += 1
        return -1
    if flags[0] & bit:
        irq.counters.events_merged += 1
        return 0
    flags[0] |= bit
    irq.counters.events_signaled += 1
    raise_sint(irq, sint)
    return 1


cdef inline void synic_reset(irq_t *irq) noexcept nogil:
    """Registers, queues and both pages as after VP creation; SCONTROL is 0 (13 #36)."""
    cdef u32 sint
    discard_queues(irq)
    irq.synic.control = irq.synic.siefp = irq.synic.simp = 0
    for sint in range(SINT_COUNT):
        irq.synic.sints[sint] = SINT_MASKED
    memset(irq.synic.message_page, 0, SYNIC_PAGE_SIZE_BYTES)
    memset(irq.synic.event_page, 0, SYNIC_PAGE_SIZE_BYTES)
