"""Who watches interrupts: counts, latencies, a ring of what happened."""
from hvcore._native.base.types cimport u64


cdef struct observer_t:
    u64 events
