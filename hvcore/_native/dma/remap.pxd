"""Interrupt remapping: what becomes of an interrupt request of a device (VT-d: interrupt remapping, posted
interrupts)."""
from hvcore._native.base.atomic cimport swap_u64
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.dma.cache cimport cache_fill, cache_find, cache_key
from hvcore._native.dma.faults cimport record_fault, register_at
from hvcore._native.dma.memory cimport view_at, view_refresh, view_words
from hvcore._native.dma.spec cimport (
    CAP_CM, CAP_PI_SHIFT, GLOBAL_CFI, GLOBAL_IRE, NO_PASID, REASON_IR_ABSENT, REASON_IR_COMPATIBILITY,
    REASON_IR_DESCRIPTOR_RESERVED, REASON_IR_DESCRIPTOR_UNREADABLE, REASON_IR_INDEX, REASON_IR_REQUEST_RESERVED,
    REASON_IR_RESERVED, REASON_IR_SOURCE, REASON_IR_UNREADABLE, REASON_OK, REG_GSTS,
)
from hvcore._native.dma.state cimport unit_t
from hvcore._native.irq.destination cimport widen_destination
from hvcore._native.irq.state cimport REMAP_BLOCKED, REMAP_POSTED, REMAP_SEND, RemapOutcome, interrupt_message_t
from hvcore._native.mem.format cimport ENTRY_ADDRESS, RIGHT_READ, RIGHT_WRITE
from hvcore._native.mem.ram cimport ram_written
from libc.string cimport memset

cdef enum:
    ADDRESS_REMAPPABLE = 1 << 4
    ADDRESS_SHV = 1 << 3
    IRTE_PRESENT = 1
    IRTE_FPD = 2
    IRTE_POSTED = 1 << 15
    IRTE_URGENT = 1 << 14
    IRTE_REMAPPED_RESERVED = 0xFF007000         # of the first quadword
    IRTE_POSTED_RESERVED = 0x3FFF0030FC
    IRTA_EIME = 1 << 11
    POSTED_OUTSTANDING = 1                      # of the quadword behind the 256 requests
    POSTED_SUPPRESSED = 2
    POSTED_RESERVED = 0xFF00FFFC
    POSTED_RESERVED_XAPIC = 0xFFFF00FFFF00FFFC  # NDST has eight bits then


cdef inline u8 entry_problem(const unit_t* unit, u64 low, u64 high) noexcept nogil:
    """What forbids a present entry of the remapping table."""
    cdef u32 mode = <u32>low >> 5 & 7
    if high >> 20 & (0xFFF if low & IRTE_POSTED else <u64>0xFFFFFFFFFFF) or high >> 18 & 3 == 3:
        return REASON_IR_RESERVED
    if low & IRTE_POSTED:
        return REASON_IR_RESERVED if (low & <u64>IRTE_POSTED_RESERVED or not unit.cap >> CAP_PI_SHIFT & 1
                                      or high >> 32 << 32 >= unit.host_limit) else REASON_OK
    if low & <u64>IRTE_REMAPPED_RESERVED or mode == 3 or mode == 6:
        return REASON_IR_RESERVED
    if not unit.interrupt_table & IRTA_EIME and low >> 32 & <u32>0xFFFF00FF:
        return REASON_IR_RESERVED
    return REASON_OK


cdef inline bint source_is_valid(u64 high, u32 source) noexcept nogil:
    """SVT, SQ and SID against who asks."""
    cdef u32 sid = <u32>high & 0xFFFF, qualifier = <u32>high >> 16 & 3, validation = <u32>high >> 18 & 3
    if validation == 1:
        # SQ leaves out bit 2, bits 2:1 or bits 2:0 of the function number.
        return not (sid ^ source) & (0xFFFF & ~(((<u32>1 << qualifier) - 1) << (3 - qualifier)))
    if validation == 2:
        return sid >> 8 <= source >> 8 <= sid & 0xFF
    return True


cdef inline u8 find_entry(unit_t* unit, u32 index, u64* low, u64* high) noexcept nogil:
    """The entry of an index, by its cache or from memory."""
    cdef u64* known = cache_find(&unit.interrupts, cache_key(index, 0, 0))
    cdef const u64* entry
    if known != NULL:
        low[0], high[0] = known[0], known[1]
        return REASON_OK
    entry = view_words(unit, (unit.interrupt_table & ENTRY_ADDRESS) + <u64>index * 16)
    unit.counters.interrupt_references += 1
    if entry == NULL:
        return REASON_IR_UNREADABLE
    low[0], high[0] = entry[0], entry[1]
    if unit.interrupts.exists and (unit.cap & CAP_CM or (low[0] & IRTE_PRESENT
                                                         and entry_problem(unit, low[0], high[0]) == REASON_OK)):
        known = cache_fill(&unit.interrupts, cache_key(index, 0, 0))
        known[0], known[1] = low[0], high[0]
    return REASON_OK


cdef inline u8 post_interrupt(unit_t* unit, u64 low, u64 high, RemapOutcome* outcome,
                              interrupt_message_t* message) noexcept nogil:
    """Into the posted-interrupt descriptor, and a notification if its processor has to be told."""
    cdef u64 gpa = (low >> 38 & 0x3FFFFFF) << 6 | high >> 32 << 32, was, control
    cdef u32 vector = <u32>low >> 16 & 0xFF
    cdef u64* descriptor = <u64*>view_at(unit, gpa, RIGHT_READ | RIGHT_WRITE)
    if descriptor == NULL:
        return REASON_IR_DESCRIPTOR_UNREADABLE
    if (descriptor[4] & (<u64>POSTED_RESERVED if unit.interrupt_table & IRTA_EIME else <u64>POSTED_RESERVED_XAPIC)
            or descriptor[5] or descriptor[6] or descriptor[7]):
        return REASON_IR_DESCRIPTOR_RESERVED
    while True:
        was = descriptor[vector >> 6]
        if swap_u64(&descriptor[vector >> 6], was, was | <u64>1 << (vector & 63)):
            break
    unit.counters.interrupts_posted += 1
    outcome[0] = REMAP_POSTED
    while True:
        control = descriptor[4]
        if control & POSTED_OUTSTANDING or (control & POSTED_SUPPRESSED and not low & IRTE_URGENT):
            break
        if swap_u64(&descriptor[4], control, control | POSTED_OUTSTANDING):
            memset(message, 0, sizeof(interrupt_message_t))
            message.vector = <u8>(control >> 16)
            message.destination = <u32>(control >> 32)
            if not unit.interrupt_table & IRTA_EIME:
                message.destination = widen_destination(message.destination >> 8 & 0xFF)
            message.asserted = True
            unit.counters.notifications += 1
            outcome[0] = REMAP_SEND
            break
    ram_written(unit.ram, <u64>(<u8*>descriptor - unit.ram.host), 64)
    return REASON_OK


cdef inline u8 remap_entry(unit_t* unit, u32 source, u32 index, bint* silent, RemapOutcome* outcome,
                           interrupt_message_t* message) noexcept nogil:
    """By the entry of `index`; the reason of a refusal."""
    cdef u64 low = 0, high = 0
    cdef u8 reason
    if (index >= <u32>2 << (unit.interrupt_table & 15)
            or (unit.interrupt_table & ENTRY_ADDRESS) + <u64>index * 16 >= unit.host_limit):
        return REASON_IR_INDEX
    reason = find_entry(unit, index, &low, &high)
    if reason != REASON_OK:
        return reason
    silent[0] = low & IRTE_FPD
    if not low & IRTE_PRESENT:
        return REASON_IR_ABSENT
    if not source_is_valid(high, source):
        return REASON_IR_SOURCE
    reason = entry_problem(unit, low, high)
    if reason != REASON_OK:
        return reason
    if low & IRTE_POSTED:
        return post_interrupt(unit, low, high, outcome, message)
    memset(message, 0, sizeof(interrupt_message_t))
    message.logical = low >> 2 & 1
    message.redirection_hint = low >> 3 & 1
    message.level = low >> 4 & 1
    message.asserted = True
    message.delivery_mode = <u8>(low >> 5 & 7)
    message.vector = <u8>(low >> 16)
    message.destination = <u32>(low >> 32)
    if not unit.interrupt_table & IRTA_EIME:
        message.destination = widen_destination(message.destination >> 8 & 0xFF)
    unit.counters.interrupts_remapped += 1
    outcome[0] = REMAP_SEND
    return REASON_OK


cdef inline RemapOutcome remap_request(unit_t* unit, u32 source, u64 address, u32 data, u8* reason,
                                       interrupt_message_t* message) noexcept nogil:
    """An interrupt request in MSI form. `message` comes as what it says without remapping, and is what to send for
    REMAP_SEND; `reason` why not, for BLOCKED."""
    cdef u32 status = register_at(unit, REG_GSTS)[0], index
    cdef RemapOutcome outcome = REMAP_BLOCKED
    cdef bint silent = False
    reason[0] = REASON_OK
    view_refresh(unit, 1)
    if not status & GLOBAL_IRE or (not address & ADDRESS_REMAPPABLE and status & GLOBAL_CFI
                                   and not unit.interrupt_table & IRTA_EIME):
        unit.counters.interrupts_passed += 1
        return REMAP_SEND
    index = (<u32>address >> 5 & 0x7FFF) | (<u32>address >> 2 & 1) << 15
    if not address & ADDRESS_REMAPPABLE:
        reason[0], index = REASON_IR_COMPATIBILITY, 0
    elif address & ADDRESS_SHV and data >> 16:
        reason[0] = REASON_IR_REQUEST_RESERVED
    else:
        if address & ADDRESS_SHV:
            index += data & 0xFFFF
        reason[0] = remap_entry(unit, source, index, &silent, &outcome, message)
    if reason[0] != REASON_OK:
        unit.counters.interrupts_blocked += 1
        record_fault(unit, source, NO_PASID, <u64>index << 48, reason[0], RIGHT_WRITE, 0, silent)
        return REMAP_BLOCKED
    return outcome
