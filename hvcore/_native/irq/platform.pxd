"""The interrupt hardware around the processors of one partition, as its memory, its ports and the APICs reach it."""
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.irq.state cimport fabric_t


cdef inline bint platform_owns_memory(const fabric_t *fabric, u64 gpa) noexcept nogil:
    """Whether the partition's I/O APIC is at `gpa`."""
    return False


cdef inline u64 platform_read_memory(fabric_t *fabric, u64 gpa, u32 size_bytes) noexcept nogil:
    return 0


cdef inline void platform_write_memory(fabric_t *fabric, u64 gpa, u32 size_bytes, u64 value) noexcept nogil:
    pass


cdef inline bint platform_owns_port(const fabric_t *fabric, u16 port) noexcept nogil:
    return False


cdef inline u64 platform_read_port(fabric_t *fabric, u16 port, u32 size_bytes) noexcept nogil:
    return 0


cdef inline void platform_write_port(fabric_t *fabric, u16 port, u32 size_bytes, u64 value) noexcept nogil:
    pass


cdef inline void platform_eoi(fabric_t *fabric, u32 vector) noexcept nogil:
    """An EOI of a level-triggered vector was broadcast."""


cdef inline u8 platform_acknowledge(fabric_t *fabric) noexcept nogil:
    """The vector that the 8259 pair gives in an acknowledge cycle (ExtINT, LINT0)."""
    return 0
