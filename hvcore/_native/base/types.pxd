"""The integer types of every native room, and the 128-bit register.

Nothing else may live here: a room that needs only widths cimports this file and owes nothing to the others.
hvcore is built for 64-bit little-endian hosts; the unions below rely on that.
"""
from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t,
)

ctypedef uint8_t u8
ctypedef uint16_t u16
ctypedef uint32_t u32
ctypedef uint64_t u64
ctypedef int8_t i8
ctypedef int16_t i16
ctypedef int32_t i32
ctypedef int64_t i64

cdef extern from *:
    """
    typedef unsigned __int128 hv_u128;
    typedef __int128 hv_i128;
    """
    ctypedef unsigned long long u128 "hv_u128"
    ctypedef long long i128 "hv_i128"


cdef union xmm_t:
    u8[16] u8s
    u16[8] u16s
    u32[4] u32s
    u64[2] u64s
    i8[16] i8s
    i16[8] i16s
    i32[4] i32s
    i64[2] i64s
    float[4] f32s
    double[2] f64s
