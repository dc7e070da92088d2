"""Module `sweep_avx512`: the sweep of batch/sweep.h compiled for AVX-512 with VBMI, as `sweep` loads it on hosts that
have that. It is not imported elsewhere: its code would fault.
"""
from cpython.pycapsule cimport PyCapsule_New
from hvcore._native.base.types cimport u64

cdef extern from "batch/sweep.h" nogil:
    ctypedef struct batch_sweep_t:
        pass

    u64 sweep(batch_sweep_t* s, u64 at, int more)

NAME = b"hvcore._native.sweep_avx512.kernel"
cdef const char* c_name = NAME
kernel = PyCapsule_New(<void*>sweep, c_name, NULL)
