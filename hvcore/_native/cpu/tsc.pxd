"""The time-stamp counter of a virtual processor: RDTSC, IA32_TSC and IA32_TSC_ADJUST (SDM 3B 18.17)."""
from hvcore._native.base.types cimport u64
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.irq.apic_timer cimport tsc_moved
from hvcore._native.irq.clock cimport tsc_of_ticks
from hvcore._native.irq.reference_page cimport update_reference_page


cdef inline u64 read_tsc(const vp_t* vp, u64 now) noexcept nogil:
    return tsc_of_ticks(&vp.irq.fabric.timebase, now) + vp.irq.tsc_offset


cdef inline void set_tsc_offset(vp_t* vp, u64 offset, u64 now) noexcept nogil:
    """The reference TSC page and a TSC deadline follow."""
    if vp.irq.tsc_offset != offset:
        vp.irq.tsc_offset = offset
        tsc_moved(vp.irq, now)
        update_reference_page(vp.irq.fabric, now)


cdef inline void write_tsc(vp_t* vp, u64 value, u64 now) noexcept nogil:
    """A guest's write to the counter changes IA32_TSC_ADJUST by as much."""
    cdef u64 change = value - read_tsc(vp, now)
    vp.tsc_adjust += change
    set_tsc_offset(vp, vp.irq.tsc_offset + change, now)


cdef inline void adjust_tsc(vp_t* vp, u64 value, u64 now) noexcept nogil:
    """A write to IA32_TSC_ADJUST changes the counter by as much."""
    cdef u64 change = value - vp.tsc_adjust
    vp.tsc_adjust = value
    set_tsc_offset(vp, vp.irq.tsc_offset + change, now)
