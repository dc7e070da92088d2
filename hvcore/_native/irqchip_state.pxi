# Chapter of irqchip.pyx: the structs for other modules, and the whole state of a controller as bytes, and back.

cdef irq_t *irq_of(InterruptController controller) noexcept:
    """The state of a controller, valid as long as the object lives. The caller has ruled out None."""
    return &controller.irq


cdef message_port_t *port_of(MessagePort port) noexcept:
    """The buffers of a port, valid as long as the object lives. The caller has ruled out None."""
    return &port.port


cdef enum Owner:                        # whose buffer a queued message is in
    OWNER_PORT
    OWNER_SOURCE
    OWNER_TIMER
    OWNER_SINT


cdef struct saved_message_t:
    u32 sint
    u32 owner_kind
    u64 owner                           # which port, source, timer or SINT
    message_t message


cdef struct saved_state_t:              # followed by its messages, queue by queue, first to last
    u64 size_bytes
    u64 message_count
    lapic_t lapic
    arrivals_t inbox
    u64 control
    u64 siefp
    u64 simp
    u64 sirbp
    u64[16] sints
    u64[4] timer_configs
    u64[4] timer_counts
    u64[4] timer_deadlines
    u64 next_deadline
    u64 retry_time
    u64 now
    u32 awaited_sints
    u32 deliverable_sints
    u8[16] ring_heads
    u8[4096] message_page
    u8[4096] event_page
    u8[4096] event_ring


cdef dict owners_of(InterruptController self, ports, sources):
    """Address of a buffer -> (kind of owner, which)."""
    cdef MessagePort port
    cdef InterruptController source
    cdef u32 i
    cdef dict owners = {}
    for number, port in enumerate(listed(ports, MessagePort, "ports")):
        for i in range(PORT_BUFFER_COUNT):
            owners[<size_t>&port.port.buffers[i]] = OWNER_PORT, number
    for number, source in enumerate(listed(sources, InterruptController, "sources")):
        owners[<size_t>&source.irq.intercept] = OWNER_SOURCE, number
    for i in range(SYNTHETIC_TIMER_COUNT):
        owners[<size_t>&self.irq.timers[i].buffer] = OWNER_TIMER, i
    for i in range(SINT_COUNT):
        owners[<size_t>&self.irq.sint_intercepts[i]] = OWNER_SINT, i
    return owners


cdef bytes save_messages(InterruptController self, dict owners):
    """What waits in the queues, queue by queue."""
    cdef saved_message_t saved
    cdef message_buffer_t *buffer
    cdef u32 sint
    cdef list messages = []
    for sint in range(SINT_COUNT):
        buffer = self.irq.synic.queues[sint].first
        while buffer is not NULL:
            if <size_t>buffer not in owners:
                raise ValueError(f"a message that waits at SINT{sint} came from a port or a source that is not named")
            saved.owner_kind, saved.owner = owners[<size_t>buffer]
            saved.sint, saved.message = sint, buffer.message
            messages.append((<const char *>&saved)[:sizeof(saved_message_t)])
            buffer = buffer.next
    return b"".join(messages)


cdef bytes save_state(InterruptController self, ports, sources):
    cdef bytes messages = save_messages(self, owners_of(self, ports, sources))
    cdef saved_state_t saved
    cdef irq_t *irq = &self.irq
    cdef u32 i
    memset(&saved, 0, sizeof(saved_state_t))
    saved.size_bytes, saved.message_count = sizeof(saved_state_t), len(messages) // sizeof(saved_message_t)
    saved.lapic, saved.inbox = irq.lapic, irq.inbox
    saved.control, saved.siefp, saved.simp, saved.sirbp = (
        irq.synic.control, irq.synic.siefp, irq.synic.simp, irq.sirbp)
    saved.awaited_sints, saved.deliverable_sints = irq.awaited_sints, irq.deliverable_sints
    saved.next_deadline, saved.retry_time, saved.now = irq.next_deadline, irq.retry_time, irq.now
    saved.sints, saved.ring_heads = irq.synic.sints, irq.ring_heads
    for i in range(SYNTHETIC_TIMER_COUNT):
        saved.timer_configs[i], saved.timer_counts[i] = irq.timers[i].config, irq.timers[i].count
        saved.timer_deadlines[i] = irq.timers[i].deadline
    memcpy(saved.message_page, irq.synic.message_page, SYNIC_PAGE_SIZE_BYTES)
    memcpy(saved.event_page, irq.synic.event_page, SYNIC_PAGE_SIZE_BYTES)
    if irq.event_ring is not NULL:
        memcpy(saved.event_ring, irq.event_ring, SYNIC_PAGE_SIZE_BYTES)
    return (<const char *>&saved)[:sizeof(saved_state_t)] + messages


cdef const saved_state_t *checked_state(bytes state) except NULL:
    cdef const saved_state_t *saved = <const saved_state_t *><const char *>state
    cdef u64 size_bytes = <u64>len(state)
    cdef u32 i
    if size_bytes < sizeof(saved_state_t) or saved.size_bytes != sizeof(saved_state_t) \
            or size_bytes != sizeof(saved_state_t) + saved.message_count * sizeof(saved_message_t):
        raise ValueError("state was not made by save() of this version")
    for i in range(SINT_COUNT):
        if saved.ring_heads[i] >= RING_SLOT_COUNT or saved.inbox.count > MOMENT_COUNT:
            raise ValueError("state was not made by save(): it counts more than there is")
    return saved


cdef list buffers_for(InterruptController self, const saved_state_t *saved, ports, sources):
    """The address of the buffer that each saved message goes to: free, or held by a queue that will be replaced."""
    cdef const saved_message_t *messages = <const saved_message_t *>(saved + 1)
    cdef u64 i
    cdef message_buffer_t *buffer
    cdef dict free = {}
    cdef list found = []
    for address, owner in owners_of(self, ports, sources).items():
        buffer = <message_buffer_t *><size_t>address
        if buffer.holder is NULL or buffer.holder is &self.irq:
            free.setdefault(owner, []).append(address)
    for i in range(saved.message_count):
        left = free.get((<int>messages[i].owner_kind, messages[i].owner))
        if messages[i].sint >= SINT_COUNT or not left:
            raise ValueError("a message that waited has no free buffer: its port or source is not named, or has "
                             "messages in other queues")
        found.append(left.pop())
    return found


cdef int restore_state(InterruptController self, bytes state, ports, sources) except -1:
    cdef const saved_state_t *saved = checked_state(state)
    cdef const saved_message_t *messages = <const saved_message_t *>(saved + 1)
    cdef list buffers = buffers_for(self, saved, ports, sources)
    cdef message_buffer_t *buffer
    cdef irq_t *irq = &self.irq
    cdef u64 i
    discard_queues(irq, DISCARD_RESTORE)
    irq.lapic, irq.inbox = saved.lapic, saved.inbox
    irq.synic.control, irq.synic.siefp, irq.synic.simp, irq.sirbp = (
        saved.control, saved.siefp, saved.simp, saved.sirbp)
    irq.awaited_sints, irq.deliverable_sints = saved.awaited_sints, saved.deliverable_sints
    irq.next_deadline, irq.retry_time, irq.now = saved.next_deadline, saved.retry_time, saved.now
    memcpy(irq.synic.sints, saved.sints, sizeof(saved.sints))
    memcpy(irq.ring_heads, saved.ring_heads, sizeof(saved.ring_heads))
    for i in range(SYNTHETIC_TIMER_COUNT):
        irq.timers[i].config, irq.timers[i].count = saved.timer_configs[i], saved.timer_counts[i]
        irq.timers[i].deadline = saved.timer_deadlines[i]
    memcpy(irq.synic.message_page, saved.message_page, SYNIC_PAGE_SIZE_BYTES)
    memcpy(irq.synic.event_page, saved.event_page, SYNIC_PAGE_SIZE_BYTES)
    if irq.event_ring is not NULL:
        memcpy(irq.event_ring, saved.event_ring, SYNIC_PAGE_SIZE_BYTES)
    for i in range(saved.message_count):
        buffer = <message_buffer_t *><size_t>buffers[i]
        buffer.message = messages[i].message
        append_buffer(irq, buffer, messages[i].sint)
        irq.counters.messages_restored += 1
    return 0
