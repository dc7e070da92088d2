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
    u64 retry_time
    u64 now
    u32 awaited_sints
    u32 deliverable_sints
    u64 unhalted_config
    u64 unhalted_count
    u64 unhalted_left                   # ticks of run time until it expires; never_ticks()
    u64 promised                        # "No EOI required" is in the assist page, or was cleared and not seen yet
    u8[16] ring_heads
    u8[4096] message_page
    u8[4096] event_page
    u8[4096] event_ring
    u8[4096] assist_page


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
    saved.retry_time, saved.now = irq.retry_time, irq.now
    saved.sints, saved.ring_heads = irq.synic.sints, irq.ring_heads
    for i in range(SYNTHETIC_TIMER_COUNT):
        saved.timer_configs[i], saved.timer_counts[i] = irq.timers[i].config, irq.timers[i].count
        saved.timer_deadlines[i] = irq.timers[i].deadline
    saved.unhalted_config, saved.unhalted_count = irq.unhalted.config, irq.unhalted.count
    saved.unhalted_left = unhalted_left(irq)
    saved.promised = irq.assist.promised
    memcpy(saved.assist_page, irq.assist.page, SYNIC_PAGE_SIZE_BYTES)
    memcpy(saved.message_page, irq.synic.message_page, SYNIC_PAGE_SIZE_BYTES)
    memcpy(saved.event_page, irq.synic.event_page, SYNIC_PAGE_SIZE_BYTES)
    if irq.event_ring is not NULL:
        memcpy(saved.event_ring, irq.event_ring, SYNIC_PAGE_SIZE_BYTES)
    return (<const char *>&saved)[:sizeof(saved_state_t)] + messages


cdef bint has_exceptions(const u64 *vectors) noexcept:
    """Vectors below 16 are in the set: no interrupt has one."""
    return vectors[0] & ((<u64>1 << LOWEST_VECTOR) - 1) != 0


cdef bint is_lapic_sound(const lapic_t *lapic) noexcept:
    return not (has_exceptions(lapic.irr) or has_exceptions(lapic.isr) or has_exceptions(lapic.tmr)
                or has_exceptions(lapic.auto_eoi) or has_exceptions(lapic.level_eois))


cdef bint is_inbox_sound(const arrivals_t *inbox) noexcept:
    """Moments in order, and the time of the first."""
    cdef u32 i
    if inbox.count > MOMENT_COUNT:
        return False
    for i in range(inbox.count):
        if has_exceptions(inbox.moments[i].vectors) or (i and inbox.moments[i].time <= inbox.moments[i - 1].time):
            return False
    return inbox.time == (inbox.moments[0].time if inbox.count else never_ticks())


cdef bint are_timers_sound(const saved_state_t *saved) noexcept:
    """Configurations that a guest could have written; no deadline of a timer that is not armed."""
    cdef u32 i
    cdef bint armed
    for i in range(SYNTHETIC_TIMER_COUNT):
        armed = saved.timer_configs[i] & TIMER_ENABLE and saved.timer_counts[i] != 0
        if not is_timer_config(saved.timer_configs[i]) or (not armed and saved.timer_deadlines[i] != never()):
            return False
    armed = saved.unhalted_left != never_ticks()
    if armed and not 0 < saved.unhalted_count < <u64>LAST_TICK // TICKS_PER_REFERENCE_UNIT:
        return False
    return is_unhalted_config(saved.unhalted_config) and (not armed or saved.unhalted_left <= <u64>LAST_TICK)


cdef const saved_state_t *checked_state(bytes state) except NULL:
    """The state in the bytes, if nothing in it can lead native code astray."""
    cdef const saved_state_t *saved = <const saved_state_t *><const char *>state
    cdef const saved_message_t *messages = <const saved_message_t *>(saved + 1)
    cdef u64 i, size_bytes = <u64>len(state)
    cdef bint sound
    if size_bytes < sizeof(saved_state_t) or saved.size_bytes != sizeof(saved_state_t) \
            or saved.message_count > size_bytes // sizeof(saved_message_t) \
            or size_bytes != sizeof(saved_state_t) + saved.message_count * sizeof(saved_message_t):
        raise ValueError("state was not made by save() of this version")
    sound = (is_lapic_sound(&saved.lapic) and is_inbox_sound(&saved.inbox) and are_timers_sound(saved)
             and (saved.awaited_sints | saved.deliverable_sints) >> SINT_COUNT == 0)
    for i in range(SINT_COUNT):
        sound = sound and saved.ring_heads[i] < RING_SLOT_COUNT
    for i in range(saved.message_count):
        sound = sound and (messages[i].message.message_type != MESSAGE_NONE
                           and messages[i].message.payload_size <= PAYLOAD_SIZE_BYTES)
    if not sound:
        raise ValueError("state was not made by save(): something in it cannot be")
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
    irq.retry_time, irq.now = saved.retry_time, saved.now
    memcpy(irq.synic.sints, saved.sints, sizeof(saved.sints))
    memcpy(irq.ring_heads, saved.ring_heads, sizeof(saved.ring_heads))
    for i in range(SYNTHETIC_TIMER_COUNT):
        irq.timers[i].config, irq.timers[i].count = saved.timer_configs[i], saved.timer_counts[i]
        irq.timers[i].deadline = saved.timer_deadlines[i]
    find_next_deadline(irq)
    irq.lapic.owes_eois = highest_vector(irq.lapic.level_eois) >= 0
    irq.unhalted.config, irq.unhalted.count = saved.unhalted_config, saved.unhalted_count
    set_unhalted_left(irq, saved.unhalted_left)
    irq.assist.promised = saved.promised != 0
    memcpy(irq.assist.page, saved.assist_page, SYNIC_PAGE_SIZE_BYTES)
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
