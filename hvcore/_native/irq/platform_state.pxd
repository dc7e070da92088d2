"""The state of the interrupt hardware around the processors: I/O APIC, 8259 pair, 8254."""
from hvcore._native.base.types cimport u64


cdef struct platform_t:
    u64 eois
