"""The one atomic operation that native code needs of the host: an entry of a page table may be written by a thread
that holds a NumPy view of it while a walk marks it."""
from hvcore._native.base.types cimport u32, u64

cdef extern from *:
    """
    static inline int hv_swap_u64(uint64_t* place, uint64_t expected, uint64_t wanted) {
        return __atomic_compare_exchange_n(place, &expected, wanted, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    static inline int hv_swap_u32(uint32_t* place, uint32_t expected, uint32_t wanted) {
        return __atomic_compare_exchange_n(place, &expected, wanted, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    """
    # True: `place` held `expected` and now holds `wanted`.
    bint swap_u64 "hv_swap_u64"(u64* place, u64 expected, u64 wanted) noexcept nogil
    bint swap_u32 "hv_swap_u32"(u32* place, u32 expected, u32 wanted) noexcept nogil
