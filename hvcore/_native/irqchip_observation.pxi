# Chapter of irqchip.pyx: watching controllers. What is noted, and where, is in irq/observer.pxd.

cdef enum:
    RING_MAXIMUM = 1 << 28          # records of 32 bytes
    EDGES_MAXIMUM = 4096


@cython.final
cdef class InterruptObservation:
    """Latencies and a ring of events of any number of controllers.

    Parameters
    ----------
    capacity : int
        Records that the ring keeps, the last ones; 0 to 2**28. With 0 nothing is recorded, only latencies are measured.
    edges : sequence of int, optional
        Ascending bounds of the buckets of latencies in ticks; at most 4096. Default: powers of two.
    """

    def __cinit__(self, capacity, edges=None):
        cdef u64 records = checked(capacity, 0, RING_MAXIMUM, "capacity")
        cdef u32 i
        self.buckets = LOG2_BUCKETS
        if edges is not None:
            bounds = [checked(edge, 0, ~<u64>0, "an edge") for edge in edges]
            if not 1 <= len(bounds) <= EDGES_MAXIMUM:
                raise ValueError(f"edges must be 1 to {EDGES_MAXIMUM} bounds, not {len(bounds)}")
            if bounds != sorted(set(bounds)):
                raise ValueError("edges must ascend")
            self.edge_count, self.buckets = len(bounds), len(bounds) + 1
            self.edges = <u64*>calloc(self.edge_count, sizeof(u64))
            if self.edges == NULL:
                raise MemoryError("the host has no memory for the edges")
            for i in range(self.edge_count):
                self.edges[i] = bounds[i]
        if records:
            self.ring.records = <trace_record_t*>calloc(records, sizeof(trace_record_t))
            if self.ring.records == NULL:
                raise MemoryError(f"the host has no memory for {records} records")
        self.ring.capacity = records

    def __dealloc__(self):
        free(self.edges)
        free(self.ring.records)

    @property
    def capacity(self):
        return self.ring.capacity

    @property
    def recorded(self):
        """Events recorded since the beginning; the ring has the last `capacity` of them."""
        return self.ring.count

    @property
    def bucket_count(self):
        return self.buckets

    def attach(self, InterruptController controller not None, u32 partition, u32 vp):
        """Watch a controller from now on, under these names. Raises ValueError when it is watched already."""
        require_thread(controller.irq.fabric.clock.guard)
        cdef observer_t* observer
        cdef size_t rows = (VECTORS + SINTS + SOURCE_COUNT) * <size_t>self.buckets
        if controller.irq.observer != NULL:
            raise ValueError("the controller is observed already")
        observer = <observer_t*>calloc(1, sizeof(observer_t) + rows * sizeof(u64))
        if observer == NULL:
            raise MemoryError("the host has no memory for another observed processor")
        observer.ring = &self.ring
        observer.edges, observer.edge_count, observer.buckets = self.edges, self.edge_count, self.buckets
        observer.by_vector = <u64*>(observer + 1)
        observer.by_sint = observer.by_vector + VECTORS * self.buckets
        observer.by_source = observer.by_sint + SINTS * self.buckets
        observer.partition, observer.vp = partition, vp
        note_reset(observer)
        controller.irq.observer = observer
        controller.observation = self

    def detach(self, InterruptController controller not None):
        """Watch it no more.

        Returns
        -------
        tuple of bytes
            What `latencies` gives, for the last time.
        """
        require_thread(controller.irq.fabric.clock.guard)
        cdef observer_t* observer = self.observer_of(controller)
        found = self.latencies(controller)
        controller.irq.observer = NULL
        controller.observation = None
        free(observer)
        return found

    def latencies(self, InterruptController controller not None):
        """Histograms of one controller per vector, SINT and source: buffers of u64, rows of `bucket_count`."""
        cdef observer_t* observer = self.observer_of(controller)
        cdef size_t row = self.buckets * sizeof(u64)
        return (octets_of(observer.by_vector, VECTORS * row), octets_of(observer.by_sint, SINTS * row),
                octets_of(observer.by_source, SOURCE_COUNT * row))

    def records(self):
        """The records in the ring as bytes, oldest first."""
        cdef u64 count = min(self.ring.count, self.ring.capacity), first
        if count == 0:
            return b""
        first = self.ring.count % self.ring.capacity if self.ring.count > self.ring.capacity else 0
        return (octets_of(&self.ring.records[first], (count - first) * sizeof(trace_record_t))
                + octets_of(self.ring.records, first * sizeof(trace_record_t)))

    cdef observer_t* observer_of(self, InterruptController controller) except NULL:
        if controller.observation is not self:
            raise ValueError("this observation does not watch the controller")
        return controller.irq.observer
