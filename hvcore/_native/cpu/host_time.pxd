"""Time that follows the host's monotonic clock: an option. Two runs are then not the same.

The clock is read once a quantum. Within a quantum a processor's time is its instructions, as always; then it takes the
host's, never backwards. A machine of halted processors sleeps in the host, a little at a time, so that a signal or
cancel() gets through.
"""
from hvcore._native.base.types cimport u64

cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    enum: CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* now) noexcept
    int nanosleep(const timespec* span, timespec* left) noexcept

cdef enum:
    NANOSECONDS = 1000000000
    NAP = 5000000               # ticks: the longest sleep
    LEAD = 1000000              # how far the processors' time may run ahead of the host's


cdef struct host_time_t:
    bint followed
    bint started
    u64 offset                  # of ticks from the host's clock


cdef inline u64 host_nanoseconds() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <u64>now.tv_sec * NANOSECONDS + <u64>now.tv_nsec


cdef inline void nap(u64 nanoseconds) noexcept nogil:
    """Ends early when a signal comes."""
    cdef timespec span
    span.tv_sec = 0
    span.tv_nsec = <long>min(nanoseconds, <u64>NAP)
    nanosleep(&span, NULL)


cdef inline u64 host_time_at(host_time_t* host, u64 now) noexcept nogil:
    """The tick that it is now, `now` if the host's clock is not followed or is behind; far ahead, a nap."""
    cdef u64 there
    if not host.followed:
        return now
    if not host.started:
        host.started = True
        host.offset = now - host_nanoseconds()
    there = host_nanoseconds() + host.offset
    if now > there + LEAD:
        nap(now - there)
    return max(now, there)


cdef inline u64 wait_until(host_time_t* host, u64 deadline, const int* canceled) noexcept nogil:
    """Sleep towards a tick, at most one nap: the tick that it is then, `deadline` at the latest."""
    cdef u64 there
    if not host.followed:
        return deadline
    there = host_nanoseconds() + host.offset
    if there < deadline and not canceled[0]:
        nap(deadline - there)
        there = host_nanoseconds() + host.offset
    return min(there, deadline)
