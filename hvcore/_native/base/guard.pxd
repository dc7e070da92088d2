"""Who is inside a machine. One guard a SystemMemory, which a machine has one of; the rules are in module `space`."""
from hvcore._native.base.types cimport u32


cdef struct guard_t:
    unsigned long owner         # the thread, as Python numbers it; of no meaning while `depth` is 0
    u32 depth                   # how many times it has entered
