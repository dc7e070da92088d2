"""Who watches interrupts: counts that are always kept; latencies and a ring of what happened while somebody asks.

A processor's observer_t is there only while an observation is attached (irqchip.InterruptObservation). Every note is
one line at its place: note_*(irq.observer, ...), which tests the pointer and nothing else when nobody watches. Latency
runs from the first request of a vector, also one that waits in the inbox, to the tick at which its handler begins.
"""
from hvcore._native.base.types cimport u8, u32, u64

cdef extern from *:
    int count_zeros_above "__builtin_clzll"(u64 word) noexcept nogil

cdef enum InterruptSource:
    SOURCE_UNKNOWN
    SOURCE_SELF_IPI
    SOURCE_IPI
    SOURCE_SYNTHETIC_TIMER
    SOURCE_MESSAGE              # a message into a SINT's slot
    SOURCE_EVENT                # an event flag of a SINT
    SOURCE_UNHALTED_TIMER
    SOURCE_APIC_TIMER
    SOURCE_LOCAL                # LINT pins, error, thermal and performance entries of the local vector table
    SOURCE_IO_APIC
    SOURCE_PIC
    SOURCE_MSI
    SOURCE_PARENT               # HvCallAssertVirtualInterrupt
    SOURCE_IPI_HYPERCALL        # HvCallSendSyntheticClusterIpi and its like
    SOURCE_HOST                 # Python
    SOURCE_OTHER
    SOURCE_COUNT
    SINT_SHIFT = 8              # an origin is a source, and above it a SINT + 1 or 0
    NO_SINT = 0xFF

cdef enum InterruptEvent:
    EVENT_NONE
    EVENT_ASSERTED              # requested; value: 0, or 1 when it goes to the inbox of a processor that lags behind
    EVENT_ACCEPTED              # into IRR
    EVENT_MERGED                # requested while it waited already
    EVENT_DELIVERED             # its handler begins; value: latency in ticks, all ones when nobody saw the request
    EVENT_EOI                   # value: 1 when the guest left it to the assist page
    EVENT_WITHDRAWN
    EVENT_LOST
    EVENT_MESSAGE_QUEUED        # value: message type
    EVENT_MESSAGE_DELIVERED     # value: message type
    EVENT_EVENT_SIGNALED        # value: flag
    EVENT_TIMER_EXPIRED         # value: number of the timer
    EVENT_IPI_SENT              # value: ICR
    EVENT_ROUTED                # by the routing table of the machine to this processor; value: its APIC id
    EVENT_COUNT

cdef enum:
    VECTORS = 256
    SINTS = 16
    NMI_VECTOR = 2
    LOG2_BUCKETS = 65           # 0, 1, 2-3, 4-7, ...
    NEVER_SEEN = -1


cdef struct trace_record_t:     # hvcore.interrupts.RECORD
    u64 time                    # ticks
    u64 value
    u32 partition
    u32 vp
    u32 flow                    # one number for a request and its delivery; 0: none
    u8 kind                     # InterruptEvent
    u8 vector
    u8 sint                     # NO_SINT: none
    u8 source                   # InterruptSource


cdef struct trace_ring_t:
    trace_record_t *records     # NULL: nothing is recorded
    u64 capacity
    u64 count                   # all that was ever recorded; the ring has the last `capacity`
    u32 flows


cdef struct request_t:
    u64 since                   # ticks of the first request; NEVER_SEEN: none waits
    u32 flow
    u8 source
    u8 sint


cdef struct observer_t:
    trace_ring_t *ring          # of the observation, that all its processors share
    const u64 *edges            # bucket i holds what is at least edges[i - 1] and less than edges[i]; NULL: powers of 2
    u32 edge_count
    u32 buckets
    u64 *by_vector              # [VECTORS][buckets]; an NMI counts as vector 2
    u64 *by_sint                # [SINTS][buckets]
    u64 *by_source              # [SOURCE_COUNT][buckets]
    u32 partition
    u32 vp
    request_t[VECTORS] waiting      # by vector; an NMI is vector 2
    request_t[VECTORS] coming       # in the inbox


# Kept whether or not somebody watches.
cdef struct interrupt_tallies_t:
    u64[VECTORS] requested
    u64[SOURCE_COUNT] sources           # requests
    u64[SINTS] sint_interrupts          # requests
    u64[SINTS] sint_messages            # put into the slot
    u64[SINTS] sint_events              # flags that became set


cdef inline u32 origin_of(u32 source, u32 sint) noexcept nogil:
    """A source that speaks through a SINT."""
    return source | (sint + 1) << SINT_SHIFT


cdef inline u8 source_of(u32 origin) noexcept nogil:
    return <u8>min(origin & 0xFF, <u32>SOURCE_OTHER)


cdef inline void record(observer_t *observer, u8 kind, u64 time, u8 vector, u8 sint, u8 source, u64 value,
                        u32 flow) noexcept nogil:
    cdef trace_ring_t *ring = observer.ring
    cdef trace_record_t *at
    if ring.records is NULL:
        return
    at = &ring.records[ring.count % ring.capacity]
    ring.count += 1
    at.time, at.value = time, value
    at.partition, at.vp, at.flow = observer.partition, observer.vp, flow
    at.kind, at.vector, at.sint, at.source = kind, vector, sint, source


cdef inline void note_event(observer_t *observer, u8 kind, u64 time, u32 vector, u32 source,
                            u64 value) noexcept nogil:
    """Anything of a vector that is neither its request nor its delivery."""
    if observer is not NULL:
        record(observer, kind, time, <u8>vector, NO_SINT, <u8>source, value, 0)


cdef inline void note_sint(observer_t *observer, u8 kind, u64 time, u32 sint, u64 value) noexcept nogil:
    """A message or event of a SINT."""
    if observer is not NULL:
        record(observer, kind, time, 0, <u8>sint, SOURCE_UNKNOWN, value, 0)


cdef inline void note_request(observer_t *observer, u64 time, u32 vector, u32 origin, bint later) noexcept nogil:
    """A vector is requested; `later`: it goes to the inbox. The first of several that wait starts the clock."""
    cdef request_t *request
    cdef u8 sint
    if observer is NULL:
        return
    request = &observer.coming[vector] if later else &observer.waiting[vector]
    sint = <u8>((origin >> SINT_SHIFT) - 1)
    if request.since != <u64>NEVER_SEEN:
        record(observer, EVENT_MERGED, time, <u8>vector, sint, source_of(origin), 0, request.flow)
        return
    observer.ring.flows += 1
    request.since, request.flow = time, observer.ring.flows
    request.sint, request.source = sint, source_of(origin)
    record(observer, EVENT_ASSERTED, time, <u8>vector, sint, source_of(origin), later, request.flow)


cdef inline void note_arrival(observer_t *observer, u64 time, u32 vector) noexcept nogil:
    """A vector comes out of the inbox; its clock runs since it was put in, or since an earlier request that waits."""
    cdef request_t *coming
    if observer is NULL:
        return
    coming = &observer.coming[vector]
    if observer.waiting[vector].since == <u64>NEVER_SEEN:
        observer.waiting[vector] = coming[0]
    else:
        record(observer, EVENT_MERGED, time, <u8>vector, coming.sint, coming.source, 0, observer.waiting[vector].flow)
    coming.since = <u64>NEVER_SEEN


cdef inline void note_gone(observer_t *observer, u8 kind, u64 time, u32 vector) noexcept nogil:
    """A request was withdrawn or lost: nothing waits any more."""
    if observer is NULL:
        return
    record(observer, kind, time, <u8>vector, NO_SINT, SOURCE_UNKNOWN, 0, observer.waiting[vector].flow)
    observer.waiting[vector].since = <u64>NEVER_SEEN


cdef inline void note_reset(observer_t *observer) noexcept nogil:
    """The controller was reset: no request waits any more."""
    cdef u32 vector
    if observer is NULL:
        return
    for vector in range(<u32>VECTORS):
        observer.waiting[vector].since = observer.coming[vector].since = <u64>NEVER_SEEN


cdef inline u32 bucket_of(const observer_t *observer, u64 latency) noexcept nogil:
    """The bucket of a latency, by bisection or by its highest bit."""
    cdef u32 low = 0, high = observer.edge_count, middle
    if observer.edges is NULL:
        return 64 - <u32>count_zeros_above(latency) if latency else 0
    while low < high:
        middle = (low + high) >> 1
        if observer.edges[middle] <= latency:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline void note_delivery(observer_t *observer, u64 time, u32 vector) noexcept nogil:
    """The handler of a vector begins."""
    cdef request_t *request
    cdef u64 latency
    cdef u32 bucket
    if observer is NULL:
        return
    request = &observer.waiting[vector]
    if request.since == <u64>NEVER_SEEN:
        record(observer, EVENT_DELIVERED, time, <u8>vector, NO_SINT, SOURCE_UNKNOWN, <u64>NEVER_SEEN, 0)
        return
    latency = time - request.since if time > request.since else 0
    bucket = bucket_of(observer, latency)
    observer.by_vector[vector * observer.buckets + bucket] += 1
    observer.by_source[request.source * observer.buckets + bucket] += 1
    if request.sint != NO_SINT:
        observer.by_sint[request.sint * observer.buckets + bucket] += 1
    request.since = <u64>NEVER_SEEN
    record(observer, EVENT_DELIVERED, time, <u8>vector, request.sint, request.source, latency, request.flow)
