"""The native face of iommu: one remapping unit, and DMA through it for devices."""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.dma.state cimport unit_t
from hvcore._native.dma.translate cimport dma_t
from hvcore._native.models cimport ModelCore
from hvcore._native.space cimport GpaSpace, SystemMemory


cdef class RemappingUnit:
    cdef unit_t unit
    cdef readonly SystemMemory memory
    cdef readonly GpaSpace space
    cdef object partition           # that its interrupts go to, or None
    cdef list blocks                # host memory of the unit, to be freed
    cdef ModelCore structures       # of the caches that are not direct-mapped
    cdef void* take(self, u64 size_bytes, int fill) except NULL
    cdef void part(self) noexcept


cdef unit_t* unit_of(RemappingUnit unit) noexcept

# One request: `source` a requester id, `pasid` NO_PASID (dma/spec.pxd) for none, `access` RIGHT_READ and RIGHT_WRITE.
cdef void dma_translate(unit_t* unit, u32 source, u32 pasid, u64 iova, u64 access, dma_t* done) noexcept nogil

# Copies of any length; how many bytes got through. What a read is refused comes as all ones.
cdef u64 dma_read(unit_t* unit, u32 source, u32 pasid, u64 iova, void* data, u64 size_bytes) noexcept nogil
cdef u64 dma_write(unit_t* unit, u32 source, u32 pasid, u64 iova, const void* data, u64 size_bytes) noexcept nogil

# An MSI of a device: how many APICs accepted it, -1 if the unit blocked it, 0 without a partition that takes it; 1 if
# it was posted and nobody has to be told.
cdef int dma_interrupt(unit_t* unit, u32 source, u64 address, u32 data) noexcept nogil
