"""The typed exits, for the engine that makes them."""
from hvcore._native.base.types cimport u8, u32, u64


cdef class Exit:
    cdef readonly object vp
    cdef readonly u64 rip


cdef class Budget(Exit):
    pass


cdef class Halt(Exit):
    pass


cdef class Canceled(Exit):
    pass


cdef class TripleFault(Exit):
    pass


cdef class Unsupported(Exit):
    pass


cdef class Answerable(Exit):
    cdef readonly bint write
    cdef readonly u32 size
    cdef readonly object value
    cdef readonly bint completed


cdef class IoPort(Answerable):
    cdef readonly u32 port
    cdef readonly bint string


cdef class Mmio(Answerable):
    cdef readonly u64 gpa
    cdef readonly u64 gva


cdef class Msr(Answerable):
    cdef readonly u32 index


cdef class ApicEoi(Exit):
    cdef readonly u32 vector


cdef class InterruptWindow(Exit):
    cdef readonly bint nmi


cdef class GpaViolation(Exit):
    cdef readonly u64 gpa
    cdef readonly u64 gva
    cdef readonly bint gva_valid
    cdef readonly str access


cdef class Cpuid(Exit):
    cdef readonly u32 leaf
    cdef readonly u32 subleaf
    cdef readonly tuple default


cdef class ExceptionRaised(Exit):
    cdef readonly u8 vector
    cdef readonly object error_code
    cdef readonly u64 address
