"""The host's sticky "inexact" flag: the one fact of floating point that is dear to compute, free to ask.

Cleared when a stretch of guest code begins, brought into MXCSR.PE where the guest or anybody else looks.
"""

cdef extern from *:
    """
    #if defined(__SSE2__)
    #include <xmmintrin.h>
    static inline int hv_host_inexact(void) { return (_mm_getcsr() >> 5) & 1; }
    static inline void hv_forget_inexact(void) {
        unsigned int state = _mm_getcsr();
        if (state & 0x3F) _mm_setcsr(state & ~0x3Fu);
    }
    #else
    #include <fenv.h>
    static inline int hv_host_inexact(void) { return fetestexcept(FE_INEXACT) != 0; }
    static inline void hv_forget_inexact(void) { feclearexcept(FE_INEXACT); }
    #endif
    """
    bint host_inexact "hv_host_inexact"() noexcept nogil
    void forget_inexact "hv_forget_inexact"() noexcept nogil
