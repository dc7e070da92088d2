"""Faults, the two event interrupts of a unit, and where its messages go (VT-d: primary fault logging, events)."""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.dma.spec cimport (
    ACCESS_PRIVILEGED, EVENT_IM, EVENT_IP, FRCD_F, FRCD_PP, FRCD_PRIV, FRCD_T1, FRCD_T2, FSTS_CONDITIONS,
    FSTS_FRI_SHIFT, FSTS_PFO, FSTS_PPF, GLOBAL_TE, ICS_IWC, NO_PASID, REASON_IR_ILLEGAL, REG_FECTL, REG_FSTS, REG_GSTS,
    REG_ICS, REG_IECTL,
)
from hvcore._native.dma.state cimport MESSAGE_COUNT, unit_t
from hvcore._native.irq.fabric cimport decode_msi
from hvcore._native.irq.state cimport interrupt_message_t
from hvcore._native.mem.format cimport RIGHT_READ, RIGHT_WRITE

cdef enum:
    RECORD_DWORDS = 4


cdef inline u32* register_at(unit_t* unit, u32 offset) noexcept nogil:
    return unit.registers + (offset >> 2)


cdef inline void send_message(unit_t* unit, u64 address, u32 data) noexcept nogil:
    """An MSI of the unit's own, which is never remapped."""
    cdef u64 slot = unit.message_count % MESSAGE_COUNT
    unit.counters.messages_lost += unit.message_count >= MESSAGE_COUNT
    cdef interrupt_message_t message
    unit.messages[slot].address, unit.messages[slot].data = address, data
    unit.message_count += 1
    if unit.fabric != NULL:
        decode_msi(address, data, 0, &message)
        # The upper address register holds the rest of an x2APIC id.
        message.destination |= <u32>(address >> 32) & <u32>0xFFFFFF00
        unit.deliver(unit.fabric, &message)


cdef inline void raise_event(unit_t* unit, u32 control) noexcept nogil:
    """The event of FECTL or IECTL: its message, or IP while it is masked."""
    cdef u32* register = register_at(unit, control)
    if register[0] & <u32>EVENT_IM:
        register[0] |= <u32>EVENT_IP
        return
    register[0] &= ~<u32>EVENT_IP
    if control == REG_FECTL:
        unit.counters.fault_events += 1
    else:
        unit.counters.completion_events += 1
    send_message(unit, <u64>register[3] << 32 | register[2], register[1])


cdef inline void set_fault_status(unit_t* unit, u32 conditions) noexcept nogil:
    """Bits of FSTS. An event only if none was there before."""
    cdef u32* status = register_at(unit, REG_FSTS)
    cdef bint first = not status[0] & FSTS_CONDITIONS
    status[0] |= conditions
    if first:
        raise_event(unit, REG_FECTL)


cdef inline void settle_fault_status(unit_t* unit) noexcept nogil:
    """After software cleared something: PPF is the OR of all F bits, and a pending event goes with its last cause."""
    cdef u32* status = register_at(unit, REG_FSTS)
    cdef u32 i
    status[0] &= ~<u32>FSTS_PPF
    for i in range(unit.fault_records):
        if register_at(unit, unit.fro)[i * RECORD_DWORDS + 3] & <u32>FRCD_F:
            status[0] |= FSTS_PPF
    if not status[0] & FSTS_CONDITIONS:
        register_at(unit, REG_FECTL)[0] &= ~<u32>EVENT_IP


cdef inline void complete_wait(unit_t* unit) noexcept nogil:
    """A wait descriptor asked for an interrupt; one that nobody has taken notice of yet is enough."""
    cdef u32* status = register_at(unit, REG_ICS)
    if not status[0] & ICS_IWC:
        status[0] |= ICS_IWC
        raise_event(unit, REG_IECTL)


cdef inline void record_fault(unit_t* unit, u32 source, u32 pasid, u64 information, u8 reason, u64 access, u32 at,
                              bint silent) noexcept nogil:
    """Put a fault into the next record. `information`: FI, a page or an interrupt index; `silent`: FPD."""
    cdef u32* record
    cdef u32* status = register_at(unit, REG_FSTS)
    cdef u32 i, high = reason | at << 28 | (<u32>FRCD_T1 if access & RIGHT_READ else 0), middle = source
    if access & RIGHT_READ and access & RIGHT_WRITE:
        middle |= FRCD_T2                           # an atomic operation
    unit.reasons[reason] += 1
    if silent:
        unit.counters.faults_unrecorded += 1
        return
    if pasid != NO_PASID:
        high |= pasid << 8
        middle |= <u32>FRCD_PP | (<u32>FRCD_PRIV if access & ACCESS_PRIVILEGED else 0)
    for i in range(unit.fault_records):
        record = register_at(unit, unit.fro) + i * RECORD_DWORDS
        if (record[3] == (high | <u32>FRCD_F) and record[2] == middle
                and record[0] == <u32>information and record[1] == <u32>(information >> 32)):
            unit.counters.faults_merged += 1
            return
    record = register_at(unit, unit.fro) + unit.next_fault * RECORD_DWORDS
    if status[0] & FSTS_PFO or record[3] & <u32>FRCD_F:
        unit.counters.faults_overflowed += 1
        set_fault_status(unit, FSTS_PFO)
        return
    record[0], record[1] = <u32>information, <u32>(information >> 32)
    record[2] = middle
    record[3] = high | <u32>FRCD_F
    unit.counters.faults_recorded += 1
    if not status[0] & FSTS_PPF:
        status[0] = (status[0] & ~<u32>(0xFF << FSTS_FRI_SHIFT)) | unit.next_fault << FSTS_FRI_SHIFT
    unit.next_fault = (unit.next_fault + 1) % unit.fault_records
    set_fault_status(unit, FSTS_PPF)


cdef inline bint refuse_interrupt(unit_t* unit, u32 source, u64 iova, u64 access) noexcept nogil:
    """What is no interrupt request, to an interrupt address (VT-d 3.15): refused where requests are translated."""
    if not register_at(unit, REG_GSTS)[0] & <u32>GLOBAL_TE:
        return False
    unit.counters.faults += 1
    record_fault(unit, source, NO_PASID, iova & unit.fault_pages, REASON_IR_ILLEGAL, access, 0, False)
    return True
