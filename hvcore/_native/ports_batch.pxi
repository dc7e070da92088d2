# Chapter of ports.pyx: many messages or events in one call from Python.

cdef class _Sender:
    """A connection and the messages that go through it, of 256 bytes each; statuses are written as they come."""
    cdef Connection connection
    cdef const message_t* messages
    cdef u16* statuses
    cdef u64 count
    cdef u64 next               # message to post
    cdef guard_t* guard

    cdef u16 post_one(self) noexcept nogil:
        cdef const message_t* message = &self.messages[self.next]
        cdef partition_t* sender = &self.connection.core.partition
        if not sender.privileges & <u64>PRIVILEGE_POST_MESSAGES:
            return HV_ACCESS_DENIED
        return connection_post(sender, self.connection.connection.id, message.message_type, message.payload,
                               message.payload_size)

    cdef bint post_until_full(self) noexcept nogil:
        """Post until no buffer is free: False, with its message still to post; or until all are posted: True."""
        cdef u16 status
        while self.next < self.count:
            status = self.post_one()
            self.statuses[self.next] = status
            if status == HV_INSUFFICIENT_BUFFERS:
                return False
            self.next += 1
        return True

    cdef void give_up(self) noexcept nogil:
        """Nobody frees a buffer: the rest is refused."""
        while self.next < self.count:
            self.statuses[self.next] = self.post_one()
            self.next += 1


cdef _Sender sender_of(Connection connection, const u8[::1] messages, u16[::1] statuses):
    cdef _Sender sender = _Sender()
    if connection.core is None:
        raise RuntimeError("the connection was never made")
    if messages.shape[0] != statuses.shape[0] * <Py_ssize_t>sizeof(message_t):
        raise ValueError(f"statuses must have an element for each message: {statuses.shape[0]} for "
                         f"{messages.shape[0] / sizeof(message_t)}")
    sender.connection, sender.guard = connection, guard_of(connection.core)
    sender.count = <u64>statuses.shape[0]
    if sender.count:
        sender.messages, sender.statuses = <const message_t*>&messages[0], &statuses[0]
    return sender


def post_batch(Connection connection not None, const u8[::1] messages not None, u16[::1] statuses not None):
    """HvCallPostMessage for each of `messages`, packed HV_MESSAGEs; an HV_STATUS each into `statuses`."""
    cdef _Sender sender = sender_of(connection, messages, statuses)
    enter_guard(sender.guard)
    with nogil:
        sender.give_up()
    leave_guard(sender.guard)


def exchange(Connection connection not None, const u8[::1] messages not None, u16[::1] statuses not None,
             InterruptController receiver not None, u8[::1] received not None):
    """`post_batch` against a receiver that empties its slot whenever no buffer is free, and at the end.

    Returns
    -------
    int
        How many messages it took; `received` has them. Where that is full, messages wait and are refused.
    """
    cdef _Sender sender = sender_of(connection, messages, statuses)
    cdef irq_t* irq = irq_of(receiver)
    cdef u64 taken = 0, before, room = <u64>received.shape[0] // sizeof(message_t)
    cdef message_t* target = <message_t*>&received[0] if room else NULL
    cdef u8 sint = connection.connection.port.sint
    cdef bint finished = False
    enter_guard(sender.guard)
    with nogil:
        while not finished:
            finished = sender.post_until_full()
            before = taken
            while taken < room and irq_take_message(irq, sint, &target[taken]):
                taken += 1
            if not finished and taken == before:
                sender.give_up()
                finished = True
    leave_guard(sender.guard)
    return taken


def post_and_run(Connection connection not None, const u8[::1] messages not None, u16[::1] statuses not None,
                 i64 ticks):
    """`post_batch` where the machine runs for at most `ticks` whenever no buffer is free.

    Returns
    -------
    the exit of the last run, or None
        It ends with one that frees no buffer, or that the caller must see; the rest is refused.
    """
    cdef _Sender sender = sender_of(connection, messages, statuses)
    cdef u64 before
    stopped = None
    enter_guard(sender.guard)
    try:
        while not sender.post_until_full():
            before = sender.next
            if connection.core.scheduler is None or not isinstance(stopped, (type(None), Budget, Halt)):
                sender.give_up()
                break
            stopped = connection.core.scheduler.run_for(None, ticks)
            if sender.post_until_full():
                break
            if sender.next == before:
                sender.give_up()
                break
    finally:
        leave_guard(sender.guard)
    return stopped


def signal_batch(Connection connection not None, const u16[::1] flags not None, u16[::1] statuses not None):
    """HvCallSignalEvent for each of `flags`; an HV_STATUS each into `statuses`."""
    cdef partition_t* sender
    cdef Py_ssize_t i
    if connection.core is None:
        raise RuntimeError("the connection was never made")
    if flags.shape[0] != statuses.shape[0]:
        raise ValueError(f"statuses must have an element for each flag: {statuses.shape[0]} for {flags.shape[0]}")
    sender = &connection.core.partition
    enter_guard(sender.fabric.clock.guard)
    with nogil:
        for i in range(flags.shape[0]):
            if sender.privileges & <u64>PRIVILEGE_SIGNAL_EVENTS:
                statuses[i] = connection_signal(sender, connection.connection.id, flags[i])
            else:
                statuses[i] = HV_ACCESS_DENIED
    leave_guard(sender.fabric.clock.guard)
