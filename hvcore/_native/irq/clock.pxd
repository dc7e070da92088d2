"""Time as interrupt controllers see it: ticks of the machine, and the reference time of a partition made of them.

A tick is a nanosecond of virtual time. Reference time counts 100 ns from the creation of the partition (TLFS 12.4).
"""
from hvcore._native.base.types cimport u64

cdef enum:
    TICKS_PER_REFERENCE_UNIT = 100
    NEVER_TICKS = -1


cdef struct clock_t:
    u64 now                     # ticks: the time of whoever acts: a running processor, or the caller between runs
    bint running                # a processor acts: others may lag behind its time
    bint attention              # what was done concerns others: the slice of who acts ends behind this instruction
    void *actor                 # the irq_t of the processor that acts; NULL: hardware of the machine
    void *noticed               # irq_t's that were sent something since the scheduler looked last: a list


cdef struct timebase_t:
    u64 creation_time           # ticks at which reference time was 0
    u64 last_reference_time     # what a read of the counter gave last: the next one gives more, on any VP


cdef inline void call_attention(clock_t *clock) noexcept nogil:
    """A deadline of the machine's hardware came nearer, or another processor was sent something."""
    clock.attention = True


cdef inline u64 never_ticks() noexcept nogil:
    """A deadline that never comes."""
    return <u64>NEVER_TICKS


cdef inline u64 reference_time(const timebase_t *timebase, u64 now) noexcept nogil:
    """The reference time at `now` ticks."""
    return (now - timebase.creation_time) // TICKS_PER_REFERENCE_UNIT


cdef inline u64 ticks_of_reference(const timebase_t *timebase, u64 time) noexcept nogil:
    """The tick at which reference time reaches `time`; never, if that is beyond the end of time."""
    if time >= (never_ticks() - timebase.creation_time) // TICKS_PER_REFERENCE_UNIT:
        return never_ticks()
    return time * TICKS_PER_REFERENCE_UNIT + timebase.creation_time


cdef inline u64 read_reference_counter(timebase_t *timebase, u64 now) noexcept nogil:
    """The partition reference counter: strictly increasing over all processors."""
    timebase.last_reference_time = max(reference_time(timebase, now), timebase.last_reference_time + 1)
    return timebase.last_reference_time
