"""Time as interrupt controllers see it: ticks of the machine, and what a partition makes of them.

A tick is a nanosecond of virtual time. Reference time counts 100 ns from the creation of the partition, and stands
still while it is frozen or all its processors are explicitly suspended (TLFS 12.4; digest 9.6). The time-stamp counter
goes on; the page that relates the two is irq/reference_page.pxd's.
"""
from libc.string cimport memset

from hvcore._native.base.guard cimport guard_t
from hvcore._native.base.types cimport i64, u32, u64, u128

cdef enum:
    TICKS_PER_SECOND = 1000000000
    TICKS_PER_REFERENCE_UNIT = 100
    REFERENCE_UNITS_PER_SECOND = 10000000
    NEVER_TICKS = -1
    LAST_TICK = 0x4000000000000000  # 146 years: what is due later is never due, so that time never wraps
    APIC_FREQUENCY = 200000000      # Hz of a new partition's APIC timers


cdef struct clock_t:
    u64 now                     # ticks: the time of whoever acts: a running processor, or the caller between runs
    bint running                # a processor acts: others may lag behind its time
    bint attention              # what was done concerns others: the slice of who acts ends behind this instruction
    void *actor                 # the irq_t of the processor that acts; NULL: hardware of the machine
    void *noticed               # irq_t's that were sent something since the scheduler looked last: a list
    guard_t *guard              # of the machine whose clock it is; NULL: nobody's but the caller's


# The reference TSC page (digest 9.6). The guest reads it; this side writes whole words, the sequence first and last.
cdef struct reference_page_t:
    u32 sequence                # 0: the page cannot be used
    u32 reserved
    u64 scale
    i64 offset


cdef struct timebase_t:
    i64 origin                  # tick at which reference time was 0, had it never stood still; before tick 0: negative
    u64 last_reference_time     # what a read of the counter gave last: the next one gives more, on any VP
    u64 stood                   # ticks of reference time when it stopped
    bint stopped
    bint frozen                 # by property TimeFreeze
    bint invariant_tsc          # TSC_INVARIANT_CONTROL.b0: CPUID says so
    u32 running_count           # processors that are not explicitly suspended
    u64 tsc_frequency           # Hz, at least TICKS_PER_SECOND
    u64 apic_frequency          # Hz of the APIC timers
    reference_page_t *page      # its frame; NULL: there is none
    bint page_enabled           # by REFERENCE_TSC.b0
    u32 sequence                # of the last valid contents
    bint page_valid             # the page says what follows:
    u64 page_scale
    i64 page_offset
    u64 page_tsc_offset         # of all processors


cdef inline void timebase_reset(timebase_t *timebase) noexcept nogil:
    """That of a partition that begins at tick 0."""
    memset(timebase, 0, sizeof(timebase_t))
    timebase.last_reference_time = <u64>-1
    timebase.tsc_frequency = TICKS_PER_SECOND
    timebase.apic_frequency = APIC_FREQUENCY


cdef inline void call_attention(clock_t *clock) noexcept nogil:
    """A deadline of the machine's hardware came nearer, or another processor was sent something."""
    clock.attention = True


cdef inline u64 never_ticks() noexcept nogil:
    """A deadline that never comes."""
    return <u64>NEVER_TICKS


cdef inline u64 elapsed_ticks(const timebase_t *timebase, u64 now) noexcept nogil:
    """Ticks of reference time; none for a processor that has not come to the beginning yet."""
    if timebase.stopped:
        return timebase.stood
    return 0 if timebase.origin > 0 and now < <u64>timebase.origin else now - <u64>timebase.origin


cdef inline u64 reference_time(const timebase_t *timebase, u64 now) noexcept nogil:
    """The reference time at `now` ticks."""
    return elapsed_ticks(timebase, now) // TICKS_PER_REFERENCE_UNIT


cdef inline u64 ticks_of_reference(const timebase_t *timebase, u64 time) noexcept nogil:
    """The tick at which reference time reaches `time`; never, if it stands or that is beyond the end of time."""
    cdef u64 ticks = time * TICKS_PER_REFERENCE_UNIT
    if time == never_ticks():
        return time             # most of the time nothing is armed
    if timebase.stopped or time >= <u64>LAST_TICK // TICKS_PER_REFERENCE_UNIT:
        return never_ticks()
    if timebase.origin < 0:
        return ticks - <u64>-timebase.origin if ticks > <u64>-timebase.origin else 0
    return ticks + <u64>timebase.origin


cdef inline u64 tsc_of_ticks(const timebase_t *timebase, u64 ticks) noexcept nogil:
    """The time-stamp counter at a tick, without the offset of a processor."""
    if timebase.tsc_frequency == TICKS_PER_SECOND:
        return ticks
    return (ticks // TICKS_PER_SECOND * timebase.tsc_frequency
            + ticks % TICKS_PER_SECOND * timebase.tsc_frequency // TICKS_PER_SECOND)


cdef inline u64 ticks_of_tsc(const timebase_t *timebase, u64 tsc) noexcept nogil:
    """The first tick at which the time-stamp counter, without the offset of a processor, is `tsc` or more."""
    cdef u64 frequency = timebase.tsc_frequency
    if frequency == TICKS_PER_SECOND:
        return tsc
    return (tsc // frequency * TICKS_PER_SECOND
            + (tsc % frequency * TICKS_PER_SECOND + frequency - 1) // frequency)


cdef inline u64 reference_of_tsc(u64 tsc, u64 scale, i64 offset) noexcept nogil:
    """The formula of the reference TSC page."""
    return <u64>(<u128>tsc * scale >> 64) + <u64>offset


cdef inline u64 counted_reference(const timebase_t *timebase, u64 now) noexcept nogil:
    """The reference time at `now` ticks as guests find it: what the page says if it is valid."""
    if timebase.page_valid:
        return reference_of_tsc(tsc_of_ticks(timebase, now) + timebase.page_tsc_offset, timebase.page_scale,
                                timebase.page_offset)
    return reference_time(timebase, now)


cdef inline u64 read_reference_counter(timebase_t *timebase, u64 now) noexcept nogil:
    """The partition reference counter: strictly increasing over all processors."""
    timebase.last_reference_time = max(counted_reference(timebase, now), timebase.last_reference_time + 1)
    return timebase.last_reference_time
