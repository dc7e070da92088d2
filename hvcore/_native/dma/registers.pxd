"""The register page of a unit: what a write of 32 bits changes, and what it sets going.

Every register is a row of doublewords with the bits that software may set and those that a written 1 clears; quadwords
are written as two halves, the lower first, and act when the half with their command bit arrives.
"""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.dma.cache cimport cache_clear, forget_all
from hvcore._native.dma.faults cimport raise_event, register_at, settle_fault_status
from hvcore._native.dma.invalidate cimport invalidate_contexts, invalidate_iotlb
from hvcore._native.dma.queue cimport process_queue
from hvcore._native.dma.spec cimport (
    CAP_ESIRTPS_SHIFT, CAP_ESRTPS_SHIFT, CAP_MAMV_SHIFT, ECAP_IR, ECAP_QI, ECAP_SMTS_SHIFT, EVENT_IM, EVENT_IP,
    GLOBAL_CFI, GLOBAL_IRE, GLOBAL_IRTP, GLOBAL_QIE, GLOBAL_RTP, GLOBAL_TE, GRANULARITY_SELECTIVE, ICS_IWC, MODE_LEGACY,
    REG_CCMD, REG_FECTL, REG_FSTS, REG_GCMD, REG_GSTS, REG_ICS, REG_IECTL, REG_IQH, REG_IQT, REG_IRTA, REG_PMEN,
    REG_RTADDR,
)
from hvcore._native.dma.state cimport unit_t

cdef enum:
    HIGH_COMMAND = 1 << 31              # ICC and IVT in the upper halves
    PMEN_EPM = 1 << 31


cdef inline u64 read_wide(unit_t* unit, u32 offset) noexcept nogil:
    return register_at(unit, offset)[0] | <u64>register_at(unit, offset + 4)[0] << 32


cdef inline bint command_global(unit_t* unit, u32 command) noexcept nogil:
    """GCMD: levels follow what is written, one-shots act again whenever they are written. True: the queue was turned
    on or off."""
    cdef u32* status = register_at(unit, REG_GSTS)
    cdef u32 levels = <u32>GLOBAL_TE, before = status[0]
    if unit.ecap & ECAP_QI:
        levels |= GLOBAL_QIE
    if unit.ecap & ECAP_IR:
        levels |= GLOBAL_IRE | GLOBAL_CFI
    if command & GLOBAL_RTP:
        unit.root = read_wide(unit, REG_RTADDR)
        status[0] |= GLOBAL_RTP
        if unit.cap >> CAP_ESRTPS_SHIFT & 1:
            forget_all(unit)
    if command & GLOBAL_IRTP and unit.ecap & ECAP_IR:
        unit.interrupt_table = read_wide(unit, REG_IRTA)
        status[0] |= GLOBAL_IRTP
        if unit.cap >> CAP_ESIRTPS_SHIFT & 1:
            cache_clear(&unit.interrupts)
    status[0] = (status[0] & ~levels) | (command & levels)
    if before & ~status[0] & <u32>GLOBAL_TE and unit.ecap >> ECAP_SMTS_SHIFT & 1:
        forget_all(unit)
    if before & ~status[0] & GLOBAL_IRE and unit.cap >> CAP_ESIRTPS_SHIFT & 1:
        cache_clear(&unit.interrupts)
    if not status[0] & <u32>(GLOBAL_TE | GLOBAL_IRE):
        unit.next_fault = 0                     # VT-d 7.2.1
    if not (before ^ status[0]) & GLOBAL_QIE:
        return False
    register_at(unit, REG_IQH)[0] = 0
    return True


cdef inline bint invalidates_by_register(const unit_t* unit) noexcept nogil:
    """Modes other than legacy mode have the queue alone: commands by register are errors there (VT-d 6.5.1)."""
    return unit.root >> 10 & 3 == MODE_LEGACY


cdef inline void command_context(unit_t* unit) noexcept nogil:
    """CCMD with ICC: done at once, at the granularity that was asked for; none for a reserved one."""
    cdef u32* low = register_at(unit, REG_CCMD)
    cdef u32 granularity = low[1] >> 29 & 3 if invalidates_by_register(unit) else 0
    if granularity:
        invalidate_contexts(unit, granularity, low[0] & 0xFFFF, low[0] >> 16, low[1] & 3)
    unit.counters.register_invalidations += 1
    low[1] = (low[1] & ~<u32>(HIGH_COMMAND | 3 << 27)) | granularity << 27


cdef inline void command_iotlb(unit_t* unit) noexcept nogil:
    """The IOTLB register with IVT; pages are those that IVA names."""
    cdef u32* low = register_at(unit, unit.iro)
    cdef u32 granularity = low[3] >> 28 & 3 if invalidates_by_register(unit) else 0, mask = low[0] & 63
    if granularity == GRANULARITY_SELECTIVE and mask > unit.cap >> CAP_MAMV_SHIFT & 63:
        granularity = 0
    if granularity:
        granularity = invalidate_iotlb(unit, granularity, low[3] & 0xFFFF, read_wide(unit, unit.iro) & ~<u64>0xFFF,
                                       mask, low[0] >> 6 & 1)
    unit.counters.register_invalidations += 1
    low[3] = (low[3] & ~<u32>(HIGH_COMMAND | 3 << 25)) | granularity << 25


cdef inline void unmask_event(unit_t* unit, u32 control) noexcept nogil:
    """FECTL or IECTL was written: what waited behind the mask goes out."""
    if register_at(unit, control)[0] & <u32>(EVENT_IM | EVENT_IP) == EVENT_IP:
        raise_event(unit, control)


cdef inline bint write32(unit_t* unit, u32 offset, u32 value) noexcept nogil:
    """`offset` is a multiple of 4 in the region. True: there may be descriptors to be done."""
    cdef u32 i = offset >> 2
    cdef u32* register = unit.registers + i
    register[0] = (register[0] & ~unit.writable[i] | value & unit.writable[i]) & ~(value & unit.clearing[i])
    if offset == REG_GCMD:
        return command_global(unit, value)
    elif offset == REG_CCMD + 4:
        if register[0] & <u32>HIGH_COMMAND:
            command_context(unit)
    elif offset == unit.iro + 12:
        if register[0] & <u32>HIGH_COMMAND:
            command_iotlb(unit)
    elif offset == REG_IQT:
        return True
    elif offset == REG_FSTS:
        settle_fault_status(unit)
        return True
    elif unit.fro <= offset < unit.fro + 16 * unit.fault_records:
        settle_fault_status(unit)
    elif offset == REG_FECTL or offset == REG_IECTL:
        unmask_event(unit, offset)
    elif offset == REG_ICS:
        if not register[0] & ICS_IWC:
            register_at(unit, REG_IECTL)[0] &= ~<u32>EVENT_IP
    elif offset == REG_PMEN:
        register[0] = <u32>PMEN_EPM | 1 if register[0] & <u32>PMEN_EPM else 0
    return False


cdef inline bint is_register(const unit_t* unit, u64 offset, u32 size_bytes) noexcept nogil:
    """Whether an access is one that the unit answers: aligned, of 4 or 8 bytes."""
    return (size_bytes == 4 or size_bytes == 8) and offset % size_bytes == 0 and offset < unit.region_bytes


cdef inline u64 unit_read(unit_t* unit, u64 offset, u32 size_bytes) noexcept nogil:
    """All ones for an access that no register answers."""
    if not is_register(unit, offset, size_bytes):
        unit.counters.bad_accesses += 1
        return ~<u64>0 >> (64 - 8 * size_bytes) if 1 <= size_bytes <= 8 else ~<u64>0
    return register_at(unit, <u32>offset)[0] if size_bytes == 4 else read_wide(unit, <u32>offset)


cdef inline void unit_write(unit_t* unit, u64 offset, u32 size_bytes, u64 value) noexcept nogil:
    cdef bint kicked = False
    cdef u32 part
    if not is_register(unit, offset, size_bytes):
        unit.counters.bad_accesses += 1
        return
    for part in range(0, size_bytes, 4):
        kicked |= write32(unit, <u32>offset + part, <u32>(value >> 8 * part))
    if kicked:
        process_queue(unit)
