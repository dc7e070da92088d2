"""The invalidation queue: descriptors in memory, done in order between head and tail."""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.dma.faults cimport complete_wait, register_at, set_fault_status
from hvcore._native.dma.invalidate cimport (
    invalidate_contexts, invalidate_interrupts, invalidate_iotlb, invalidate_pasid_iotlb, invalidate_pasids,
)
from hvcore._native.dma.memory cimport view_refresh, view_words, view_write32
from hvcore._native.dma.spec cimport (
    CAP_MAMV_SHIFT, CAP_PSI_SHIFT, DESCRIPTOR_CONTEXT, DESCRIPTOR_DEVICE_TLB, DESCRIPTOR_INTERRUPT, DESCRIPTOR_IOTLB,
    DESCRIPTOR_PASID_CACHE, DESCRIPTOR_PASID_DEVICE_TLB, DESCRIPTOR_PASID_IOTLB, DESCRIPTOR_WAIT, ECAP_DIT_SHIFT,
    ECAP_DT, ECAP_IR, ECAP_MHMV_SHIFT, ECAP_PDS_SHIFT, ECAP_SMTS_SHIFT, FSTS_IQE, GLOBAL_QIE, GRANULARITY_SELECTIVE,
    IQEI_FETCH, IQEI_MODE, IQEI_RESERVED, IQEI_TAIL, IQEI_TAIL_ALIGNMENT, IQEI_TYPE, IQEI_WIDTH, MODE_LEGACY,
    MODE_SCALABLE, REG_GSTS, REG_IQA, REG_IQERCD, REG_IQH, REG_IQT, REG_FSTS,
)
from hvcore._native.dma.state cimport unit_t
from hvcore._native.mem.format cimport ENTRY_ADDRESS

cdef enum:
    QUEUE_WIDE = 1 << 11                # IQA.DW
    POINTER_MASK = 0x7FFF0
    # Bits that must be zero, by type; of the first quadword, and of the second:
    CONTEXT_RESERVED = 0xFFFC00000000F1C0
    IOTLB_RESERVED = 0xFFFFFFFF0000F100
    RANGE_RESERVED = 0xF80
    DEVICE_TLB_RESERVED = 0x000F0000FFE001F0
    INTERRUPT_RESERVED = 0xFFFF000007FFF1E0
    WAIT_RESERVED = 0xFFFFF100
    PASID_IOTLB_RESERVED = 0xFFF000000000F1C0
    PASID_CACHE_RESERVED = 0xFFF000000000F1C0
    PHYSICAL_FUNCTION = 0xFFF000000000F000      # PFSID of device-TLB descriptors
    PAGE_REQUEST_DRAIN = 1 << 7                 # PD of a wait descriptor


cdef inline u32 range_mask(const unit_t* unit, u64 word) noexcept nogil:
    return <u32>word & 63


cdef inline bint range_is_bad(const unit_t* unit, u32 granularity, u64 word) noexcept nogil:
    """Whether a second quadword names no range of the second level that this unit can invalidate."""
    return word & RANGE_RESERVED or (granularity == GRANULARITY_SELECTIVE and (
        not unit.cap >> CAP_PSI_SHIFT & 1 or range_mask(unit, word) > unit.cap >> CAP_MAMV_SHIFT & 63))


cdef inline u32 do_pasid(unit_t* unit, u32 kind, u64 low, u64 high) noexcept nogil:
    """Descriptors of scalable mode."""
    cdef u32 granularity = <u32>low >> 4 & 3, did = <u32>low >> 16, pasid = <u32>(low >> 32) & 0xFFFFF
    if kind == DESCRIPTOR_PASID_IOTLB:
        # Ranges of a PASID may be of any size, whatever MAMV says (VT-d 11.4.2).
        if low & <u64>PASID_IOTLB_RESERVED or granularity < 2 or high & RANGE_RESERVED:
            return IQEI_RESERVED
        invalidate_pasid_iotlb(unit, granularity, did, pasid, high & ~<u64>0xFFF, range_mask(unit, high), high >> 6 & 1)
        return 0
    if low & <u64>PASID_CACHE_RESERVED or granularity == 2 or high:
        return IQEI_RESERVED
    invalidate_pasids(unit, granularity, did, pasid)
    return 0


cdef inline u32 do_wait(unit_t* unit, u64 low, u64 high) noexcept nogil:
    """Everything before it is done: say so in memory, by an interrupt, or both."""
    if low & <u64>WAIT_RESERVED or high & 3 or (low & PAGE_REQUEST_DRAIN and not unit.ecap >> ECAP_PDS_SHIFT & 1):
        return IQEI_RESERVED
    unit.counters.waits += 1
    if low >> 5 & 1:
        unit.counters.status_writes_refused += not view_write32(unit, high & (unit.host_limit - 1),
                                                                  <u32>(low >> 32))
    if low >> 4 & 1:
        complete_wait(unit)
    return 0


cdef inline u32 do_device_tlb(unit_t* unit, u64 low, u64 reserved) noexcept nogil:
    """No device keeps translations beyond a request, so there is nothing that could be stale."""
    if reserved or (low & <u64>PHYSICAL_FUNCTION and not unit.ecap >> ECAP_DIT_SHIFT & 1):
        return IQEI_RESERVED
    unit.counters.device_tlb_invalidations += 1
    return 0


cdef inline u32 do_descriptor(unit_t* unit, u64 low, u64 high) noexcept nogil:
    """One descriptor; an IQEI number if it is no good."""
    cdef u32 kind = (<u32>low & 15) | (<u32>low >> 9 & 7) << 4, granularity = <u32>low >> 4 & 3
    if kind == DESCRIPTOR_CONTEXT:
        if low & <u64>CONTEXT_RESERVED or high or granularity == 0:
            return IQEI_RESERVED
        invalidate_contexts(unit, granularity, <u32>low >> 16, <u32>(low >> 32) & 0xFFFF, <u32>(low >> 48) & 3)
    elif kind == DESCRIPTOR_IOTLB:
        if low & <u64>IOTLB_RESERVED or granularity == 0 or range_is_bad(unit, granularity, high):
            return IQEI_RESERVED
        invalidate_iotlb(unit, granularity, <u32>low >> 16, high & ~<u64>0xFFF, range_mask(unit, high), high >> 6 & 1)
    elif kind == DESCRIPTOR_INTERRUPT and unit.ecap & ECAP_IR:
        if low & <u64>INTERRUPT_RESERVED or high or <u32>low >> 27 > unit.ecap >> ECAP_MHMV_SHIFT & 15:
            return IQEI_RESERVED
        invalidate_interrupts(unit, low >> 4 & 1, <u32>(low >> 32) & 0xFFFF, <u32>low >> 27)
    elif kind == DESCRIPTOR_WAIT:
        return do_wait(unit, low, high)
    elif kind == DESCRIPTOR_DEVICE_TLB and unit.ecap & ECAP_DT:
        return do_device_tlb(unit, low, low & <u64>DEVICE_TLB_RESERVED | high & 0xFFE)
    elif mode_of(unit) == MODE_LEGACY:
        return IQEI_TYPE
    elif kind == DESCRIPTOR_PASID_DEVICE_TLB and unit.ecap & ECAP_DT:
        return do_device_tlb(unit, low, high & 0x7FE)
    elif kind == DESCRIPTOR_PASID_IOTLB or kind == DESCRIPTOR_PASID_CACHE:
        return do_pasid(unit, kind, low, high)
    else:
        return IQEI_TYPE
    return 0


cdef inline u32 mode_of(const unit_t* unit) noexcept nogil:
    return <u32>(unit.root >> 10) & 3


cdef inline u32 queue_problem(const unit_t* unit, bint wide, u32 tail, u32 bytes_) noexcept nogil:
    """What forbids the whole queue (VT-d 11.4.9.9), as an IQEI number."""
    cdef bint scalable = unit.ecap >> ECAP_SMTS_SHIFT & 1
    if wide and not scalable:
        return IQEI_WIDTH
    if mode_of(unit) > MODE_SCALABLE or (mode_of(unit) == MODE_SCALABLE and not scalable):
        return IQEI_MODE
    if mode_of(unit) == MODE_SCALABLE and not wide:
        return IQEI_WIDTH
    if tail >= bytes_:
        return IQEI_TAIL
    return IQEI_TAIL_ALIGNMENT if wide and tail & 16 else 0


cdef inline void queue_fails(unit_t* unit, u32 error) noexcept nogil:
    """Stop at the descriptor that the head names until software clears IQE."""
    unit.counters.queue_errors += 1
    register_at(unit, REG_IQERCD)[0] = error
    set_fault_status(unit, FSTS_IQE)


cdef inline void process_queue(unit_t* unit) noexcept nogil:
    """Whatever lies between head and tail. It ends: the head only moves towards a tail within the queue."""
    cdef u64 base = register_at(unit, REG_IQA)[0] | <u64>register_at(unit, REG_IQA)[1] << 32
    cdef u32 bytes_ = <u32>4096 << (base & 7), step = 32 if base & QUEUE_WIDE else 16, error
    cdef u32* head = register_at(unit, REG_IQH)
    cdef u32 tail = register_at(unit, REG_IQT)[0]
    cdef const u64* descriptor
    if not register_at(unit, REG_GSTS)[0] & GLOBAL_QIE or register_at(unit, REG_FSTS)[0] & FSTS_IQE:
        return
    view_refresh(unit, 0)
    error = queue_problem(unit, base & QUEUE_WIDE, tail, bytes_) if head[0] != tail or step == 32 else 0
    if error:
        queue_fails(unit, error)
        return
    while head[0] != tail:
        descriptor = view_words(unit, (base & ENTRY_ADDRESS) + head[0])
        if descriptor == NULL:
            queue_fails(unit, IQEI_FETCH)
            return
        unit.counters.descriptors += 1
        error = do_descriptor(unit, descriptor[0], descriptor[1])
        if error == 0 and step == 32 and (descriptor[2] or descriptor[3]):
            error = IQEI_RESERVED
        if error:
            queue_fails(unit, error)
            return
        head[0] = (head[0] + step) & (bytes_ - 1)
