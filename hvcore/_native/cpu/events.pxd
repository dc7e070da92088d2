"""Exceptions and interrupts on their way through the 64-bit IDT (SDM 3A 6.14).

Called by the run loop between blocks, never by a handler. `rip` is in its register slot.
"""
from hvcore._native.base.status cimport STOP_FAULT, STOP_NONE
from hvcore._native.base.types cimport u16, u32, u64, u8
from hvcore._native.cpu.flags cimport rflags_read
from hvcore._native.cpu.segments cimport (
    ATTRIBUTE_CONFORMING, ATTRIBUTE_PRESENT, TYPE_INTERRUPT_GATE, TYPE_TRAP_GATE, descriptor_dpl, fail, mark_accessed,
    push_at, read_code_segment, set_privilege, system_read, unpack_descriptor,
)
from hvcore._native.cpu.spec cimport (
    EXTERNAL_INTERRUPT, FLAG_IF, FLAG_NT, FLAG_RF, FLAG_TF, FLAG_VM, HARDWARE_EXCEPTION, NON_MASKABLE_INTERRUPT,
    SEGMENT_CS, SEGMENT_SS, SEGMENT_TR, SOFTWARE_PRIVILEGED, VECTOR_BP, VECTOR_DB, VECTOR_DE, VECTOR_DF, VECTOR_GP,
    VECTOR_NMI, VECTOR_NP, VECTOR_PF, VECTOR_SS, VECTOR_TS,
)
from hvcore._native.cpu.state cimport RSP, SLOT_RIP, fault_t, segment_t, vp_t
from hvcore._native.cpu.translation cimport vp_is_canonical

cdef enum Delivery:
    DELIVERED
    SHUTDOWN                # a fault while delivering a double fault
    INTERCEPTED             # the second level refused: the event is pending again, vp.exit tells


cdef inline bint is_contributory(u8 vector) noexcept nogil:
    return vector == VECTOR_DE or VECTOR_TS <= vector <= VECTOR_GP


cdef inline bint is_fault_class(u8 vector) noexcept nogil:
    """Restartable: the pushed RFLAGS have RF set."""
    return vector != VECTOR_DB and vector != VECTOR_BP and vector != VECTOR_NMI and vector != VECTOR_DF


cdef inline bint push_frame(vp_t* vp, u8 level, u64 top, u64 return_rip, u64 rflags, bint has_error_code,
                            u32 error_code) noexcept nogil:
    """SS, RSP, RFLAGS, CS, RIP and perhaps an error code below `top`, which is aligned to 16."""
    if not push_at(vp, top - 8, vp.segments[SEGMENT_SS].selector, 64, level):
        return False
    if not push_at(vp, top - 16, vp.registers[RSP], 64, level):
        return False
    if not push_at(vp, top - 24, rflags, 64, level):
        return False
    if not push_at(vp, top - 32, vp.segments[SEGMENT_CS].selector, 64, level):
        return False
    if not push_at(vp, top - 40, return_rip, 64, level):
        return False
    return not has_error_code or push_at(vp, top - 48, error_code, 64, level)


cdef inline bint stack_from_tss(vp_t* vp, u32 offset, u32 extern_bit) noexcept nogil:
    """A stack pointer out of the 64-bit TSS into vp.carried."""
    if offset + 7 > vp.segments[SEGMENT_TR].limit:
        return fail(vp, VECTOR_TS, (vp.segments[SEGMENT_TR].selector & 0xFFFC) | extern_bit)
    if not system_read(vp, vp.segments[SEGMENT_TR].base + offset, 64):
        return False
    return vp_is_canonical(vp, vp.carried) or fail(vp, VECTOR_SS, extern_bit)


cdef inline bint enter_gate(vp_t* vp, fault_t event, bint external) noexcept nogil:
    """Go through the gate of one event; False with vp.fault set if that itself faults.

    EXT of its error code is 0 for INT n and INT3 alone (SDM 2A, INT n)."""
    cdef u64 low, high, target, top, rflags = rflags_read(vp)
    cdef u32 extern_bit = not event.software or event.software == SOFTWARE_PRIVILEGED
    cdef u32 code = <u32>event.vector * 8 + 2 + extern_bit
    cdef u16 selector, attributes
    cdef u8 kind, stack_table, cpl
    cdef segment_t segment
    if <u32>event.vector * 16 + 15 > vp.idtr.limit:
        return fail(vp, VECTOR_GP, code)
    if not system_read(vp, vp.idtr.base + <u32>event.vector * 16 + 8, 64):
        return False
    high = vp.carried
    if not system_read(vp, vp.idtr.base + <u32>event.vector * 16, 64):
        return False
    low = vp.carried
    kind = (low >> 40) & 31
    attributes = (low >> 40) & 0xFF
    if kind != TYPE_INTERRUPT_GATE and kind != TYPE_TRAP_GATE:
        return fail(vp, VECTOR_GP, code)
    if event.software and event.software != SOFTWARE_PRIVILEGED and descriptor_dpl(attributes) < vp.cpl:
        return fail(vp, VECTOR_GP, code)
    if not attributes & ATTRIBUTE_PRESENT:
        return fail(vp, VECTOR_NP, code)
    selector = <u16>(low >> 16)
    if not read_code_segment(vp, selector, extern_bit):
        return False
    segment = unpack_descriptor(selector, vp.carried)
    if descriptor_dpl(segment.attributes) > vp.cpl:
        return fail(vp, VECTOR_GP, (selector & 0xFFFC) | extern_bit)
    target = (low & 0xFFFF) | ((low >> 32) & <u32>0xFFFF0000) | high << 32
    if not vp_is_canonical(vp, target):
        return fail(vp, VECTOR_GP, extern_bit)
    cpl = vp.cpl if segment.attributes & ATTRIBUTE_CONFORMING else descriptor_dpl(segment.attributes)
    stack_table = (low >> 32) & 7
    top = vp.registers[RSP]
    if stack_table:
        if not stack_from_tss(vp, 28 + 8 * stack_table, extern_bit):
            return False
        top = vp.carried
    elif cpl < vp.cpl:
        if not stack_from_tss(vp, 4 + 8 * cpl, extern_bit):
            return False
        top = vp.carried
    top &= ~<u64>15
    if not event.software and event.has_error_code or is_fault_class(event.vector) and not event.software \
            and not external:
        rflags |= FLAG_RF
    if not push_frame(vp, cpl, top, vp.registers[SLOT_RIP] + (event.length if event.software else 0), rflags,
                      event.has_error_code, event.error_code):
        return False
    segment.selector = (selector & 0xFFFC) | cpl
    if not mark_accessed(vp, &segment):
        return False
    vp.registers[RSP] = top - (48 if event.has_error_code else 40)
    vp.registers[SLOT_RIP] = target
    if cpl != vp.cpl:
        vp.segments[SEGMENT_SS].selector = cpl
        vp.segments[SEGMENT_SS].attributes = <u16>cpl << 5
        set_privilege(vp, cpl)
    vp.segments[SEGMENT_CS] = segment
    vp.rflags_system &= ~<u64>(FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM)
    if kind == TYPE_INTERRUPT_GATE:
        vp.rflags_system &= ~<u64>FLAG_IF
    return True


cdef inline u64 type_of(const vp_t* vp, fault_t event, bint external) noexcept nogil:
    """The type of an event that is pending again."""
    if not external:
        return event.software if event.software else HARDWARE_EXCEPTION
    return NON_MASKABLE_INTERRUPT if event.vector == VECTOR_NMI and vp.nmi_masked else EXTERNAL_INTERRUPT


cdef inline Delivery deliver(vp_t* vp, fault_t event, bint external) noexcept nogil:
    """Deliver an event, and what comes of it: a fault on the way may become a double fault, then a shutdown.

    An intercept by the second level leaves the event pending."""
    cdef fault_t first = event
    while True:
        vp.stop = STOP_NONE
        if event.vector == VECTOR_PF and not external and not event.software:
            vp.cr2 = event.address
        if enter_gate(vp, event, external):
            vp.stop = STOP_NONE
            return DELIVERED
        if vp.stop != STOP_FAULT:
            vp.pending_interruption = 1 | type_of(vp, event, external) << 1 \
                | <u64>event.has_error_code << 4 | <u64>event.length << 5 | <u64>event.vector << 16 \
                | <u64>event.error_code << 32
            return INTERCEPTED
        if first.vector == VECTOR_DF and not first.software and not external:
            return SHUTDOWN
        if not external and not first.software and (
                is_contributory(first.vector) and is_contributory(vp.fault.vector)
                or first.vector == VECTOR_PF and (is_contributory(vp.fault.vector) or vp.fault.vector == VECTOR_PF)):
            vp.fault.vector = VECTOR_DF
            vp.fault.has_error_code = True
            vp.fault.error_code = 0
        event = first = vp.fault
        event.software = first.software = 0
        external = False
