"""The reference TSC page, and what makes reference time stop and go on (digest 9.6).

reference time = ((TSC * scale) >> 64) + offset. The page is valid, with a sequence that is neither 0 nor FFFFFFFF,
while time runs, the time-stamp counters of all processors of the partition are the same, and no guest has set them to
where they start over; each valid contents has the next sequence. The counter is then read by the same formula, so that
page and counter agree.
"""
from hvcore._native.base.types cimport i64, u32, u64, u128
from hvcore._native.irq.clock cimport (
    REFERENCE_UNITS_PER_SECOND, TICKS_PER_REFERENCE_UNIT, TICKS_PER_SECOND, counted_reference, elapsed_ticks,
    timebase_t, tsc_of_ticks,
)
from hvcore._native.irq.state cimport fabric_t

cdef enum:
    TAKEN_FOR_INVALID = 0xFFFFFFFF      # by guests of the first version


cdef inline u64 scale_of(u64 tsc_frequency) noexcept nogil:
    """floor((10^7 << 64) / Hz)."""
    return <u64>((<u128>REFERENCE_UNITS_PER_SECOND << 64) // tsc_frequency)


cdef inline bint has_one_tsc(const fabric_t *fabric) noexcept nogil:
    """All processors of the partition read the same time-stamp counter."""
    cdef u32 i
    for i in range(1, fabric.count):
        if fabric.controllers[i].tsc_offset != fabric.controllers[0].tsc_offset:
            return False
    return fabric.count != 0


cdef inline bint has_tsc_that_lasts(const fabric_t *fabric, u64 now) noexcept nogil:
    """The counter does not start over before the end of time: the formula knows no more than its 64 bits."""
    return not (tsc_of_ticks(&fabric.timebase, now) + fabric.controllers[0].tsc_offset) >> 63


cdef inline void relate(timebase_t *timebase, u64 now, u64 tsc_offset) noexcept nogil:
    """Make the page's words such that the reference time is now what it is. Within its unit of 100 ns time takes the
    phase of the TSC, so that deadlines fall where the page's time changes; a TSC that is no multiple of the tick rounds
    down, and deadlines are two ticks late rather than early."""
    cdef u64 tsc = tsc_of_ticks(timebase, now) + tsc_offset
    cdef u128 product
    cdef u64 unit = counted_reference(timebase, now), phase
    timebase.page_scale = scale_of(timebase.tsc_frequency)
    product = <u128>tsc * timebase.page_scale
    timebase.page_offset = <i64>(unit - <u64>(product >> 64))
    timebase.page_tsc_offset = tsc_offset
    phase = <u64>(<u128><u64>product * TICKS_PER_REFERENCE_UNIT >> 64)
    timebase.origin = <i64>(now - (unit * TICKS_PER_REFERENCE_UNIT + phase))
    if timebase.tsc_frequency != TICKS_PER_SECOND:
        timebase.origin += 2


cdef inline void update_reference_page(fabric_t *fabric, u64 now) noexcept nogil:
    """The relation between reference time and the time-stamp counters may have changed."""
    cdef timebase_t *timebase = &fabric.timebase
    if timebase.page is NULL:
        return
    timebase.page.sequence = 0
    if not timebase.page_enabled or timebase.stopped or not has_one_tsc(fabric) \
            or not has_tsc_that_lasts(fabric, now):
        timebase.page_valid = False
        return
    if timebase.origin > 0 and now < <u64>timebase.origin:
        now = <u64>timebase.origin      # of a processor that lags behind, or has not run since time went on
    relate(timebase, now, fabric.controllers[0].tsc_offset)
    timebase.page_valid = True
    timebase.sequence += 1
    if timebase.sequence == <u32>TAKEN_FOR_INVALID:
        timebase.sequence = 1
    timebase.page.reserved = 0
    timebase.page.scale = timebase.page_scale
    timebase.page.offset = timebase.page_offset
    timebase.page.sequence = timebase.sequence


cdef inline void follow_time(fabric_t *fabric, u64 now) noexcept nogil:
    """Stop reference time or let it go on, after a freeze or a suspension."""
    cdef timebase_t *timebase = &fabric.timebase
    cdef bint stopped = timebase.frozen or timebase.running_count == 0
    if stopped == timebase.stopped:
        return
    if stopped:
        timebase.stood = elapsed_ticks(timebase, now)
    else:
        timebase.origin = <i64>(now - timebase.stood)
    timebase.stopped = stopped
    timebase.page_valid = False
    update_reference_page(fabric, now)


cdef inline void restore_time(fabric_t *fabric, u64 time, u64 now) noexcept nogil:
    """Reference time is `time` at `now` ticks; the counter goes on from there, also backwards."""
    cdef timebase_t *timebase = &fabric.timebase
    timebase.stood = time * TICKS_PER_REFERENCE_UNIT
    timebase.origin = <i64>(now - timebase.stood)
    timebase.last_reference_time = time - 1
    timebase.page_valid = False
    update_reference_page(fabric, now)
