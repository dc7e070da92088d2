# Chapter of irqchip.pyx: messages and events.

cdef class Synic:
    """The synthetic interrupt controller of a virtual processor (TLFS 11): messages and event flags of its SINTs.

    Part of every InterruptController, and made as such only.
    """

    def __cinit__(self):
        if type(self) is Synic:
            raise TypeError("a Synic is part of an InterruptController: make one of those")

    @property
    def accepts_messages(self):
        """SynIC and SIM page are enabled; otherwise PostMessage is refused with INVALID_SYNIC_STATE."""
        return irq_accepts_messages(&self.irq) != 0

    @property
    def accepts_events(self):
        """SynIC and SIEF page are enabled."""
        return irq_accepts_events(&self.irq) != 0

    def post_message(self, MessagePort port not None, *, sint, message_type, sender, payload):
        """Queue a message and deliver what can be delivered.

        Returns
        -------
        bool
            False if the port has no free buffer (INSUFFICIENT_BUFFERS). A True message is delivered once and in order,
            or discarded and counted; it waits while SynIC, SIM page or slot are not ready.
        """
        require_thread(self.irq.fabric.clock.guard)
        cdef u32 to_sint = <u32>checked(sint, 0, SINT_COUNT - 1, "sint")
        cdef u32 of_type = <u32>checked(message_type, 1, 0xFFFFFFFF, "message_type")
        cdef u64 from_sender = checked(sender, 0, ~<u64>0, "sender")
        cdef _Octets octets = borrow_payload(payload)
        return irq_post_message(&self.irq, &port.port, to_sint, of_type, from_sender,
                                <const u8 *>octets.view.buf, <u32>octets.view.len) != 0

    def take_messages(self, sint, buffer):
        """Do what a handler of the guest does until the slot of `sint` is empty or `buffer` full: read it, empty it,
        write EOM if it says that more is waiting. Interrupts that the SINT made stay requested.

        Parameters
        ----------
        buffer : buffer
            Writable and contiguous; takes one HV_MESSAGE of 256 bytes after the other.

        Returns
        -------
        int
            How many messages were taken.
        """
        require_thread(self.irq.fabric.clock.guard)
        cdef u32 of_sint = <u32>checked(sint, 0, SINT_COUNT - 1, "sint")
        cdef _Octets octets = _Octets(buffer, "buffer", True)
        cdef message_t *target = <message_t *>octets.view.buf
        cdef u64 taken = 0, room = <u64>octets.view.len // sizeof(message_t)
        while taken < room and irq_take_message(&self.irq, of_sint, &target[taken]):
            taken += 1
        return taken

    def post_intercept(self, InterruptController source not None, *, message_type, sender, payload):
        """Queue an intercept message of another VP to SINT0.

        Parameters
        ----------
        source : InterruptController
            The controller of the intercepted VP, which owns the one buffer: an earlier message of that VP that still
            waits, here or at another controller, is replaced and goes to the tail.
        """
        require_thread(self.irq.fabric.clock.guard)
        cdef u32 of_type = <u32>checked(message_type, 1, 0xFFFFFFFF, "message_type")
        cdef u64 from_sender = checked(sender, 0, ~<u64>0, "sender")
        cdef _Octets octets = borrow_payload(payload)
        irq_post_intercept(&self.irq, &source.irq, of_type, from_sender,
                           <const u8 *>octets.view.buf, <u32>octets.view.len)

    def post_direct(self, *, sint, message):
        """Put a message into its slot as HvCallPostMessageDirect does, past the queue.

        Parameters
        ----------
        message : buffer
            The 256 bytes of an HV_MESSAGE whose type is not 0; the flag MessagePending in it does not count.

        Returns
        -------
        bool or None
            False if the slot is full or others wait for it, and MessagePending was set there; None if nothing was done
            because SynIC or SIM page are disabled (INVALID_SYNIC_STATE).
        """
        require_thread(self.irq.fabric.clock.guard)
        cdef message_t direct
        cdef int result
        cdef u32 to_sint = <u32>checked(sint, 0, SINT_COUNT - 1, "sint")
        cdef _Octets octets = _Octets(message, "message", False)
        if octets.view.len != sizeof(message_t):
            raise ValueError(f"message must have {sizeof(message_t)} bytes, not {octets.view.len}")
        memcpy(&direct, octets.view.buf, sizeof(message_t))
        if direct.message_type == MESSAGE_NONE or direct.payload_size > PAYLOAD_SIZE_BYTES:
            raise ValueError("message must have a type and a payload of at most 240 bytes")
        direct.flags = 0
        result = irq_post_direct(&self.irq, to_sint, &direct)
        return None if result < 0 else result != 0

    def signal_event(self, *, sint, flag):
        """Set an event flag and raise the SINT's interrupt.

        Returns
        -------
        bool or None
            True if the flag was clear before ("newly signaled"), False if it was set, None if nothing was done because
            SynIC or SIEF page are disabled or the SINT is masked (INVALID_SYNIC_STATE).
        """
        require_thread(self.irq.fabric.clock.guard)
        cdef int result = irq_signal_event(&self.irq, <u32>checked(sint, 0, SINT_COUNT - 1, "sint"),
                                           <u32>checked(flag, 0, EVENT_FLAG_COUNT - 1, "flag"))
        return None if result < 0 else result != 0

    def sint_masked(self, sint):
        """Whether the SINT refuses events. A polling one does not, unless it is masked too."""
        return is_sint_masked(&self.irq, <u32>checked(sint, 0, SINT_COUNT - 1, "sint")) != 0

    @property
    def awaited_sints(self):
        """SINTs whose parent wants to know when their slot is free, bit n for SINTn (DeliverabilityNotifications).

        A bit falls when the slot is free and no message waits for it; the run loop then sends message 80000062."""
        return self.irq.awaited_sints

    @awaited_sints.setter
    def awaited_sints(self, sints):
        require_thread(self.irq.fabric.clock.guard)
        irq_await_sints(&self.irq, <u32>checked(sints, 0, 0xFFFF, "awaited_sints"))

    @property
    def deliverable_sints(self):
        """Those of which the parent has not been told yet."""
        return self.irq.deliverable_sints
