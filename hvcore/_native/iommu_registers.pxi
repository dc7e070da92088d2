# Chapter of iommu.pyx: what CAP and ECAP mean, and the register page after reset.

cdef enum:
    PAGE_POINTER = 0xFFFFF000
    ALL_BITS = 0xFFFFFFFF
    COMMAND_BIT = 0x80000000
    PROTECTED_ALIGNMENT = 0xFFE00000        # protected regions begin and end at 2 MiB
    REGION_BYTES_MOST = 1 << 16
    SMALLEST_IRO = 0xF0

cdef int read_capabilities(unit_t* unit) except -1:
    """What CAP and ECAP mean for walks, and where they put registers."""
    cdef u32 width
    cdef u64 above = ENTRY_ADDRESS & ~((<u64>1 << unit.host_bits) - 1)
    unit.iro = <u32>(unit.ecap >> ECAP_IRO_SHIFT & 0x3FF) * 16
    unit.fro = <u32>(unit.cap >> CAP_FRO_SHIFT & 0x3FF) * 16
    unit.fault_records = <u32>(unit.cap >> CAP_NFR_SHIFT & 0xFF) + 1
    unit.region_bytes = (max(unit.iro + 16, unit.fro + 16 * unit.fault_records, <u32>REG_LAST) + 4095) & ~<u32>4095
    unit.address_limit = ~<u64>0
    if unit.cap >> CAP_MGAW_SHIFT & 63 < 63:
        unit.address_limit = <u64>1 << ((unit.cap >> CAP_MGAW_SHIFT & 63) + 1)
    unit.host_limit = <u64>1 << unit.host_bits
    width = max((bits for bits in (39, 48, 57) if unit.cap >> (CAP_SAGAW_SHIFT + (bits - 30) // 9) & 1), default=57)
    unit.fault_pages = ((<u64>1 << width) - 1) & ~<u64>0xFFF
    unit.second_large = (<u64>1 << 21 if unit.cap >> CAP_SLLPS_SHIFT & 1 else 0) | (
        <u64>1 << 30 if unit.cap >> CAP_SLLPS_SHIFT & 2 else 0)
    unit.first_large = <u64>1 << 21 | (<u64>1 << 30 if unit.cap >> CAP_FL1GP_SHIFT & 1 else 0)
    unit.first_reserved = above
    unit.second_reserved = (above | (0 if unit.ecap & ECAP_SC else <u64>REMAPPING_SNOOP)
                            | (0 if unit.ecap & ECAP_DT else <u64>REMAPPING_TRANSIENT))
    for first, size in ((unit.iro, 16), (unit.fro, 16 * unit.fault_records)):
        if first < SMALLEST_IRO:
            raise ValueError(f"cap and ecap put registers at {first:#x}, where others are")
    if unit.iro < unit.fro + 16 * unit.fault_records and unit.fro < unit.iro + 16:
        raise ValueError("cap and ecap put the IOTLB register among the fault records")
    return 0


cdef void place(unit_t* unit, u32 offset, u32 value, u32 writable, u32 clearing) noexcept:
    """One doubleword: its reset value, the bits that software sets, and those that a written 1 clears."""
    cdef u32 i = offset >> 2
    unit.registers[i], unit.writable[i], unit.clearing[i] = value, writable, clearing


cdef int place_registers(unit_t* unit) except -1:
    """Reset values and what software may write."""
    cdef u32 i, address_high = <u32>((<u64>1 << unit.host_bits) - 1 >> 32)
    place(unit, REG_VER, VERSION, 0, 0)
    place(unit, REG_CAP, <u32>unit.cap, 0, 0)
    place(unit, REG_CAP + 4, <u32>(unit.cap >> 32), 0, 0)
    place(unit, REG_ECAP, <u32>unit.ecap, 0, 0)
    place(unit, REG_ECAP + 4, <u32>(unit.ecap >> 32), 0, 0)
    place(unit, REG_RTADDR, 0, PAGE_POINTER | 0xC00, 0)
    place(unit, REG_RTADDR + 4, 0, address_high, 0)
    place(unit, REG_CCMD, 0, ALL_BITS, 0)
    place(unit, REG_CCMD + 4, 0, COMMAND_BIT | 0x60000003, 0)
    place(unit, REG_FSTS, 0, 0, 0xF5)
    if unit.cap & (CAP_PLMR | CAP_PHMR):
        place(unit, REG_PMEN, 0, COMMAND_BIT, 0)
    if unit.cap & CAP_PLMR:
        place(unit, REG_PLMBASE, 0, PROTECTED_ALIGNMENT, 0)
        place(unit, REG_PLMLIMIT, 0, PROTECTED_ALIGNMENT, 0)
    if unit.cap & CAP_PHMR:
        for i in (<u32>REG_PHMBASE, <u32>REG_PHMLIMIT):
            place(unit, i, 0, PROTECTED_ALIGNMENT, 0)
            place(unit, i + 4, 0, address_high, 0)
    place_event(unit, REG_FECTL)
    if unit.ecap & 2:
        place(unit, REG_IQT, 0, 0x7FFF0, 0)
        place(unit, REG_IQA, 0, PAGE_POINTER | 0x807, 0)
        place(unit, REG_IQA + 4, 0, address_high, 0)
        place(unit, REG_ICS, 0, 0, 1)
        place_event(unit, REG_IECTL)
    if unit.ecap & ECAP_IR:
        place(unit, REG_IRTA, 0, PAGE_POINTER | 0xF | (0x800 if unit.ecap & ECAP_EIM else 0), 0)
        place(unit, REG_IRTA + 4, 0, address_high, 0)
    place(unit, unit.iro, 0, PAGE_POINTER | 0x7F, 0)
    place(unit, unit.iro + 4, 0, ALL_BITS, 0)
    place(unit, unit.iro + 12, 0, COMMAND_BIT | 0x3003FFFF, 0)
    for i in range(unit.fault_records):
        place(unit, unit.fro + 16 * i + 12, 0, 0, <u32>FRCD_F)
    return 0


cdef void place_event(unit_t* unit, u32 control) noexcept:
    """Control, masked after reset, data, address and upper address of an event's message."""
    place(unit, control, <u32>EVENT_IM, <u32>EVENT_IM, 0)
    place(unit, control + 4, 0, 0xFFFF, 0)
    place(unit, control + 8, 0, 0xFFFFFFFC, 0)
    place(unit, control + 12, 0, ALL_BITS, 0)
