"""Message buffers and the queues that link them: one FIFO for each SINT of a virtual processor (digest 9.2).

A buffer lives in a port, a timer or a controller; a queue holds it until its message is delivered or discarded.
"""
from libc.string cimport memcpy, memset

from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.irq.spec cimport (
    DISCARD_PORT, DISCARD_RESET, DISCARD_RESTORE, PAYLOAD_SIZE_BYTES, PORT_BUFFER_COUNT, SINT_COUNT, Discard, message_t,
)
from hvcore._native.irq.state cimport irq_t, message_buffer_t, message_port_t, message_queue_t


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


cdef inline void write_message(message_t *message, u32 message_type, u64 sender,
                               const u8 *payload, u32 size_bytes) noexcept nogil:
    """Fill in a message. Bytes after the payload are zero, so that no slot shows another message's."""
    message.message_type = message_type
    message.payload_size = <u8>size_bytes
    message.flags = 0
    message.reserved = 0
    message.sender = sender
    memcpy(message.payload, payload, size_bytes)
    memset(message.payload + size_bytes, 0, PAYLOAD_SIZE_BYTES - size_bytes)


cdef inline bint discard_buffer(message_buffer_t *buffer, Discard reason) noexcept nogil:
    """Free a buffer whose message will never be delivered. False: it was free."""
    if buffer.holder is NULL:
        return False
    if reason == DISCARD_PORT:
        buffer.holder.counters.messages_discarded_port += 1
    elif reason == DISCARD_RESET:
        buffer.holder.counters.messages_discarded_reset += 1
    elif reason == DISCARD_RESTORE:
        buffer.holder.counters.messages_discarded_restore += 1
    else:
        buffer.holder.counters.messages_discarded_vp += 1
    unlink_buffer(buffer)
    return True


cdef inline u32 discard_port(message_port_t *port) noexcept nogil:
    """Remove the port's messages from every queue that holds one; how many there were."""
    cdef u32 index, discarded = 0
    for index in range(PORT_BUFFER_COUNT):
        discarded += discard_buffer(&port.buffers[index], DISCARD_PORT)
    return discarded


cdef inline void discard_queues(irq_t *irq, Discard reason) noexcept nogil:
    """Empty the queues of this VP; the buffers are their owners' again."""
    cdef u32 sint
    for sint in range(SINT_COUNT):
        while irq.synic.queues[sint].first is not NULL:
            discard_buffer(irq.synic.queues[sint].first, reason)
