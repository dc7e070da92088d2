# Chapter of irqchip.pyx: message ports.

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
        cdef u32 index
        for index in range(PORT_BUFFER_COUNT):
            if self.port.buffers[index].holder is not NULL:
                require_thread(self.port.buffers[index].holder.fabric.clock.guard)
        return discard_port(&self.port)
