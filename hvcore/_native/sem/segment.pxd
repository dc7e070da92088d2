"""Segment registers, far transfers, IRET, descriptor-table registers and the instructions that inspect descriptors.

Far calls and jumps go to code segments only: through gates they raise #GP (docs/architecture.md lists what is
missing). A far transfer to a segment that is not 64-bit code succeeds; running it is what is not supported.
"""
from hvcore._native.base.status cimport STOP_FAULT, STOP_NONE
from hvcore._native.base.types cimport u16, u32, u64, u8
from hvcore._native.cpu.dispatch cimport (
    committed, next_op, next_rip, raise_error, raise_fault, stop_after, stop_before,
)
from hvcore._native.cpu.flags cimport flags_arithmetic, flags_load
from hvcore._native.cpu.operand cimport bounced, effective, memory_get, memory_set, readable, register_set, writable
from hvcore._native.cpu.segments cimport (
    ATTRIBUTE_CODE, ATTRIBUTE_CONFORMING, ATTRIBUTE_LONG, ATTRIBUTE_PRESENT, ATTRIBUTE_TYPE, ATTRIBUTE_USER,
    ATTRIBUTE_WRITABLE, TYPE_LDT, TYPE_TSS_AVAILABLE, TYPE_TSS_BUSY, descriptor_dpl, fail, load_data_segment,
    mark_accessed, push_at, read_code_segment, read_descriptor, set_privilege, system_read, system_write,
    unpack_descriptor,
)
from hvcore._native.cpu.spec cimport (
    FLAGS_SYSTEM, FLAG_AC, FLAG_DF, FLAG_ID, FLAG_IF, FLAG_IOPL, FLAG_NT, FLAG_RF, FLAG_TF, FLAG_ZF, SEGMENT_CS,
    SEGMENT_ES, SEGMENT_FS, SEGMENT_GS, SEGMENT_LDTR, SEGMENT_SS, SEGMENT_TR, VECTOR_GP, VECTOR_NP, VECTOR_UD,
)
from hvcore._native.cpu.state cimport OP_STACK, RSP, SLOT_RIP, op_t, segment_t, vp_t
from hvcore._native.cpu.translation cimport vp_is_canonical


cdef inline u64 system_read_segment(vp_t* vp, const op_t* op, int width) noexcept nogil:
    return vp.segments[op.third].selector


cdef inline int system_write_segment(vp_t* vp, const op_t* op, u64 value) noexcept nogil:
    if op.third == SEGMENT_CS or op.third > SEGMENT_GS:
        return raise_fault(vp, op, VECTOR_UD)
    if not load_data_segment(vp, op.third, <u16>value):
        return stop_before(vp, op, vp.stop)
    if op.third == SEGMENT_SS:
        vp.shadow = True
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_push_segment(vp_t* vp, const op_t* op, int width) noexcept nogil:
    cdef u64 top = vp.registers[RSP] - (width >> 3)
    cdef void* place = writable(vp, top, width >> 3, 1, False)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    memory_set(place, vp.segments[op.third].selector, width)
    vp.registers[RSP] = top
    if bounced(vp, place):
        return committed(vp, op)
    return next_op(vp, op)


cdef inline int system_pop_segment(vp_t* vp, const op_t* op, int width) noexcept nogil:
    cdef void* place = readable(vp, vp.registers[RSP], width >> 3, 1)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    if not load_data_segment(vp, op.third, <u16>memory_get(place, 16)):
        return stop_before(vp, op, vp.stop)
    vp.registers[RSP] += width >> 3
    return stop_after(vp, op, STOP_NONE)


cdef inline bint read_far_pointer(vp_t* vp, const op_t* op, int width) noexcept nogil:
    """m16:16, m16:32 or m16:64: the offset into vp.exit.value, the selector into vp.carried."""
    cdef u64 gva = effective(vp, op)
    cdef void* place = readable(vp, gva, width >> 3, op.prefixes & OP_STACK)
    if place == NULL:
        return False
    vp.exit.value = memory_get(place, width)
    place = readable(vp, gva + (width >> 3), 2, op.prefixes & OP_STACK)
    if place == NULL:
        return False
    vp.carried = memory_get(place, 16)
    return True


cdef inline bint enter_code_segment(vp_t* vp, u16 selector, u64 target) noexcept nogil:
    """Far jump or call without a gate: the same privilege, or a conforming segment of higher."""
    cdef segment_t segment
    if not read_code_segment(vp, selector, 0):
        return False
    segment = unpack_descriptor(selector, vp.carried)
    if segment.attributes & ATTRIBUTE_CONFORMING:
        if descriptor_dpl(segment.attributes) > vp.cpl:
            return fail(vp, VECTOR_GP, selector & 0xFFFC)
    elif descriptor_dpl(segment.attributes) != vp.cpl or selector & 3 > vp.cpl:
        return fail(vp, VECTOR_GP, selector & 0xFFFC)
    if not vp_is_canonical(vp, target):
        return fail(vp, VECTOR_GP, 0)
    if not mark_accessed(vp, &segment):
        return False
    segment.selector = (selector & 0xFFFC) | vp.cpl
    vp.segments[SEGMENT_CS] = segment
    return True


cdef inline int system_jump_far(vp_t* vp, const op_t* op, int width) noexcept nogil:
    cdef u64 target
    if not read_far_pointer(vp, op, width):
        return stop_before(vp, op, vp.stop)
    target = vp.exit.value
    if not enter_code_segment(vp, <u16>vp.carried, target):
        return stop_before(vp, op, vp.stop)
    stop_after(vp, op, STOP_NONE)
    vp.registers[SLOT_RIP] = target
    return STOP_NONE


cdef inline int system_call_far(vp_t* vp, const op_t* op, int width) noexcept nogil:
    cdef u64 target, top = vp.registers[RSP], back = next_rip(vp, op)
    cdef u16 selector = vp.segments[SEGMENT_CS].selector
    if not read_far_pointer(vp, op, width):
        return stop_before(vp, op, vp.stop)
    target = vp.exit.value
    vp.exit.value = vp.carried
    if not push_at(vp, top - (width >> 3), selector, width, vp.cpl) \
            or not push_at(vp, top - (width >> 2), back, width, vp.cpl):
        return stop_before(vp, op, vp.stop)
    if not enter_code_segment(vp, <u16>vp.exit.value, target):
        return stop_before(vp, op, vp.stop)
    stop_after(vp, op, STOP_NONE)
    vp.registers[RSP] = top - (width >> 2)
    vp.registers[SLOT_RIP] = target
    return STOP_NONE


cdef inline void drop_inner_segments(vp_t* vp) noexcept nogil:
    """A return to an outer level clears data segment registers that this level may not use (SDM 3A 5.8.6)."""
    cdef int which
    for which in range(SEGMENT_ES, SEGMENT_GS + 1):
        if which == SEGMENT_CS or which == SEGMENT_SS:
            continue
        if descriptor_dpl(vp.segments[which].attributes) < vp.cpl and not (
                vp.segments[which].attributes & ATTRIBUTE_CODE
                and vp.segments[which].attributes & ATTRIBUTE_CONFORMING):
            vp.segments[which].selector = 0
            vp.segments[which].attributes = 0


cdef inline bint return_to(vp_t* vp, u64 target, u16 selector, u64 stack, u16 stack_selector,
                           bint with_stack) noexcept nogil:
    """What IRETQ and far RET share: check and load CS, and SS:RSP if the level changes or the frame has them."""
    cdef segment_t code, data
    cdef u8 rpl = selector & 3
    if rpl < vp.cpl:
        return fail(vp, VECTOR_GP, selector & 0xFFFC)
    if not read_code_segment(vp, selector, 0):
        return False
    code = unpack_descriptor(selector, vp.carried)
    if code.attributes & ATTRIBUTE_CONFORMING:
        if descriptor_dpl(code.attributes) > rpl:
            return fail(vp, VECTOR_GP, selector & 0xFFFC)
    elif descriptor_dpl(code.attributes) != rpl:
        return fail(vp, VECTOR_GP, selector & 0xFFFC)
    if not vp_is_canonical(vp, target):
        return fail(vp, VECTOR_GP, 0)
    data = vp.segments[SEGMENT_SS]
    if with_stack or rpl != vp.cpl:
        if stack_selector & 0xFFFC == 0:
            if rpl == 3 or not code.attributes & ATTRIBUTE_LONG or stack_selector & 3 != rpl:
                return fail(vp, VECTOR_GP, 0)
            data = segment_t(base=0, limit=0, selector=stack_selector, attributes=<u16>rpl << 5)
        else:
            if not read_descriptor(vp, stack_selector, VECTOR_GP, 0):
                return False
            data = unpack_descriptor(stack_selector, vp.carried)
            if (data.attributes & (ATTRIBUTE_USER | ATTRIBUTE_CODE | ATTRIBUTE_WRITABLE)
                    != (ATTRIBUTE_USER | ATTRIBUTE_WRITABLE)
                    or descriptor_dpl(data.attributes) != rpl or stack_selector & 3 != rpl):
                return fail(vp, VECTOR_GP, stack_selector & 0xFFFC)
            if not data.attributes & ATTRIBUTE_PRESENT:
                return fail(vp, VECTOR_NP, stack_selector & 0xFFFC)
            if not mark_accessed(vp, &data):
                return False
    if not mark_accessed(vp, &code):
        return False
    vp.segments[SEGMENT_CS] = code
    if with_stack or rpl != vp.cpl:
        vp.segments[SEGMENT_SS] = data
        vp.registers[RSP] = stack
    if rpl != vp.cpl:
        set_privilege(vp, rpl)
        drop_inner_segments(vp)
    return True


cdef inline int system_return_far(vp_t* vp, const op_t* op, int width) noexcept nogil:
    """`immediate` more bytes are dropped, from the inner and from the outer stack."""
    cdef u64 bytes = width >> 3, top = vp.registers[RSP], target, stack = 0
    cdef u16 selector, stack_selector = 0
    cdef void* place = readable(vp, top, <u32>bytes, 1)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    target = memory_get(place, width)
    place = readable(vp, top + bytes, <u32>bytes, 1)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    selector = <u16>memory_get(place, 16)
    top += 2 * bytes + <u64>op.immediate
    if selector & 3 > vp.cpl:
        place = readable(vp, top, <u32>bytes, 1)
        if place == NULL:
            return stop_before(vp, op, vp.stop)
        stack = memory_get(place, width) + <u64>op.immediate
        place = readable(vp, top + bytes, <u32>bytes, 1)
        if place == NULL:
            return stop_before(vp, op, vp.stop)
        stack_selector = <u16>memory_get(place, 16)
    if not return_to(vp, target, selector, stack, stack_selector, selector & 3 > vp.cpl):
        return stop_before(vp, op, vp.stop)
    stop_after(vp, op, STOP_NONE)
    if stack == 0:
        vp.registers[RSP] = top
    vp.registers[SLOT_RIP] = target
    return STOP_NONE


cdef inline int refuse_iret(vp_t* vp, const op_t* op) noexcept nogil:
    """A fault of IRET has opened NMIs (SDM 3C 27.2.3, "NMI unblocking due to IRET"); a parent's intercept has not."""
    if vp.stop == STOP_FAULT:
        vp.nmi_masked = False
    return stop_before(vp, op, vp.stop)


cdef inline int system_iret(vp_t* vp, const op_t* op, int width) noexcept nogil:
    """In 64-bit mode the frame always has SS:RSP (SDM 2A, IRET). NT set is #GP. NMIs are open again."""
    cdef u64 bytes = width >> 3, top = vp.registers[RSP], flags, changeable
    cdef u64 target, stack
    cdef u16 selector, stack_selector
    cdef u8 old_cpl = vp.cpl
    cdef void* place
    if vp.rflags_system & FLAG_NT:
        vp.nmi_masked = False
        return raise_error(vp, op, VECTOR_GP, 0)
    place = readable(vp, top, <u32>bytes, 1)
    if place == NULL:
        return refuse_iret(vp, op)
    target = memory_get(place, width)
    place = readable(vp, top + bytes, <u32>bytes, 1)
    if place == NULL:
        return refuse_iret(vp, op)
    selector = <u16>memory_get(place, 16)
    place = readable(vp, top + 2 * bytes, <u32>bytes, 1)
    if place == NULL:
        return refuse_iret(vp, op)
    flags = memory_get(place, width)
    place = readable(vp, top + 3 * bytes, <u32>bytes, 1)
    if place == NULL:
        return refuse_iret(vp, op)
    stack = memory_get(place, width)
    place = readable(vp, top + 4 * bytes, <u32>bytes, 1)
    if place == NULL:
        return refuse_iret(vp, op)
    stack_selector = <u16>memory_get(place, 16)
    if not return_to(vp, target, selector, stack, stack_selector, True):
        return refuse_iret(vp, op)
    stop_after(vp, op, STOP_NONE)
    vp.registers[SLOT_RIP] = target
    changeable = FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID
    if old_cpl == 0:
        changeable |= FLAG_IOPL
    if old_cpl <= (vp.rflags_system & FLAG_IOPL) >> 12:
        changeable |= FLAG_IF
    if width == 16:
        changeable &= 0xFFFF
    flags_load(vp, flags)
    vp.rflags_system = ((vp.rflags_system & ~changeable) | (flags & changeable)) & FLAGS_SYSTEM & ~<u64>FLAG_RF
    vp.nmi_masked = False
    return STOP_NONE


cdef inline int load_far(vp_t* vp, const op_t* op, int segment, int width) noexcept nogil:
    cdef u64 offset
    if not read_far_pointer(vp, op, width):
        return stop_before(vp, op, vp.stop)
    offset = vp.exit.value
    if not load_data_segment(vp, segment, <u16>vp.carried):
        return stop_before(vp, op, vp.stop)
    register_set(vp, op.reg, offset, width)
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_load_ss(vp_t* vp, const op_t* op, int width) noexcept nogil:
    return load_far(vp, op, SEGMENT_SS, width)


cdef inline int system_load_fs(vp_t* vp, const op_t* op, int width) noexcept nogil:
    return load_far(vp, op, SEGMENT_FS, width)


cdef inline int system_load_gs(vp_t* vp, const op_t* op, int width) noexcept nogil:
    return load_far(vp, op, SEGMENT_GS, width)


cdef inline u64 system_sldt(vp_t* vp, int width) noexcept nogil:
    return vp.segments[SEGMENT_LDTR].selector


cdef inline u64 system_str(vp_t* vp, int width) noexcept nogil:
    return vp.segments[SEGMENT_TR].selector


cdef inline bint load_system_segment(vp_t* vp, int which, u16 selector, u8 kind) noexcept nogil:
    """LLDT and LTR: a 16-byte descriptor in the GDT."""
    cdef segment_t segment
    if selector & 4:
        return fail(vp, VECTOR_GP, selector & 0xFFFC)
    if (selector & 0xFFF8) + 15 > vp.gdtr.limit:
        return fail(vp, VECTOR_GP, selector & 0xFFFC)
    if not system_read(vp, vp.gdtr.base + (selector & 0xFFF8) + 8, 32):
        return False
    vp.exit.value = vp.carried << 32
    if not read_descriptor(vp, selector, VECTOR_GP, 0):
        return False
    segment = unpack_descriptor(selector, vp.carried)
    segment.base |= vp.exit.value
    if segment.attributes & (ATTRIBUTE_USER | ATTRIBUTE_TYPE) != kind:
        return fail(vp, VECTOR_GP, selector & 0xFFFC)
    if not segment.attributes & ATTRIBUTE_PRESENT:
        return fail(vp, VECTOR_NP, selector & 0xFFFC)
    if not vp_is_canonical(vp, segment.base):
        return fail(vp, VECTOR_GP, selector & 0xFFFC)
    if kind == TYPE_TSS_AVAILABLE:
        segment.attributes |= 2
        if not system_write(vp, vp.gdtr.base + (selector & 0xFFF8) + 5, segment.attributes & 0xFF, 8):
            return False
    vp.segments[which] = segment
    return True


cdef inline int system_lldt(vp_t* vp, const op_t* op, u64 value) noexcept nogil:
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    if value & 0xFFFC == 0:
        vp.segments[SEGMENT_LDTR] = segment_t(base=0, limit=0, selector=<u16>value, attributes=0)
    elif not load_system_segment(vp, SEGMENT_LDTR, <u16>value, TYPE_LDT):
        return stop_before(vp, op, vp.stop)
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_ltr(vp_t* vp, const op_t* op, u64 value) noexcept nogil:
    if vp.cpl or value & 0xFFFC == 0:
        return raise_error(vp, op, VECTOR_GP, 0)
    if not load_system_segment(vp, SEGMENT_TR, <u16>value, TYPE_TSS_AVAILABLE):
        return stop_before(vp, op, vp.stop)
    return stop_after(vp, op, STOP_NONE)


cdef inline bint inspect_descriptor(vp_t* vp, u16 selector) noexcept nogil:
    """Descriptor into vp.carried if it may be looked at; a page fault on the way leaves vp.stop set."""
    vp.stop = STOP_NONE
    if selector & 0xFFFC == 0:
        return False
    if not read_descriptor(vp, selector, VECTOR_GP, 0):
        if vp.stop == STOP_FAULT and vp.fault.vector == VECTOR_GP:
            vp.stop = STOP_NONE
        return False
    return True


cdef inline bint is_visible(const vp_t* vp, segment_t segment) noexcept nogil:
    """DPL rule of LAR, LSL, VERR and VERW."""
    if segment.attributes & (ATTRIBUTE_USER | ATTRIBUTE_CODE | ATTRIBUTE_CONFORMING) == (
            ATTRIBUTE_USER | ATTRIBUTE_CODE | ATTRIBUTE_CONFORMING):
        return True
    return descriptor_dpl(segment.attributes) >= vp.cpl and descriptor_dpl(segment.attributes) >= segment.selector & 3


cdef inline int set_zero_flag(vp_t* vp, const op_t* op, bint zero) noexcept nogil:
    flags_load(vp, (flags_arithmetic(vp) & ~<u64>FLAG_ZF) | (FLAG_ZF if zero else 0))
    return stop_after(vp, op, STOP_NONE)


cdef inline int verify(vp_t* vp, const op_t* op, u64 value, bint write) noexcept nogil:
    cdef segment_t segment
    cdef bint good = inspect_descriptor(vp, <u16>value)
    if vp.stop != STOP_NONE:
        return stop_before(vp, op, vp.stop)
    if good:
        segment = unpack_descriptor(<u16>value, vp.carried)
        good = segment.attributes & ATTRIBUTE_USER and is_visible(vp, segment)
        if write:
            good = good and not segment.attributes & ATTRIBUTE_CODE and segment.attributes & ATTRIBUTE_WRITABLE
        else:
            good = good and (not segment.attributes & ATTRIBUTE_CODE or segment.attributes & ATTRIBUTE_WRITABLE)
    return set_zero_flag(vp, op, good)


cdef inline int system_verr(vp_t* vp, const op_t* op, u64 value) noexcept nogil:
    return verify(vp, op, value, False)


cdef inline int system_verw(vp_t* vp, const op_t* op, u64 value) noexcept nogil:
    return verify(vp, op, value, True)


cdef inline bint is_known_system_type(u8 kind, bint gates) noexcept nogil:
    return kind == TYPE_LDT or kind == TYPE_TSS_AVAILABLE or kind == TYPE_TSS_BUSY or (gates and kind == 12)


cdef inline int load_fact(vp_t* vp, const op_t* op, u64 value, bint limit, int width) noexcept nogil:
    """LAR and LSL: access rights or limit of a descriptor that this privilege level may see; ZF tells. Gates have no
    limit."""
    cdef segment_t segment
    cdef bint good = inspect_descriptor(vp, <u16>value)
    if vp.stop != STOP_NONE:
        return stop_before(vp, op, vp.stop)
    if good:
        segment = unpack_descriptor(<u16>value, vp.carried)
        good = is_visible(vp, segment) and (
            segment.attributes & ATTRIBUTE_USER != 0 or is_known_system_type(segment.attributes & 15, not limit))
    if good and limit:
        register_set(vp, op.reg, segment.limit, width)
    elif good:
        register_set(vp, op.reg, (vp.carried >> 32) & (0xFF00 if width == 16 else 0xFFFF00), width)
    return set_zero_flag(vp, op, good)


cdef inline int system_lar(vp_t* vp, const op_t* op, u64 value, int width) noexcept nogil:
    return load_fact(vp, op, value, False, width)


cdef inline int system_lsl(vp_t* vp, const op_t* op, u64 value, int width) noexcept nogil:
    return load_fact(vp, op, value, True, width)


cdef inline int store_table(vp_t* vp, const op_t* op, u64 base, u16 limit) noexcept nogil:
    """SGDT, SIDT: ten bytes."""
    cdef void* place = writable(vp, effective(vp, op), 10, op.prefixes & OP_STACK, False)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    memory_set(place, limit, 16)
    memory_set(<char*>place + 2, base, 64)
    if bounced(vp, place):
        return stop_after(vp, op, vp.machine.commit(vp))
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_sgdt(vp_t* vp, const op_t* op) noexcept nogil:
    return store_table(vp, op, vp.gdtr.base, vp.gdtr.limit)


cdef inline int system_sidt(vp_t* vp, const op_t* op) noexcept nogil:
    return store_table(vp, op, vp.idtr.base, vp.idtr.limit)


cdef inline int load_table(vp_t* vp, const op_t* op, bint interrupts) noexcept nogil:
    """LGDT, LIDT."""
    cdef void* place
    cdef u64 base
    cdef u16 limit
    if vp.cpl:
        return raise_error(vp, op, VECTOR_GP, 0)
    place = readable(vp, effective(vp, op), 10, op.prefixes & OP_STACK)
    if place == NULL:
        return stop_before(vp, op, vp.stop)
    limit = <u16>memory_get(place, 16)
    base = memory_get(<char*>place + 2, 64)
    if not vp_is_canonical(vp, base):
        return raise_error(vp, op, VECTOR_GP, 0)
    if interrupts:
        vp.idtr.base = base
        vp.idtr.limit = limit
    else:
        vp.gdtr.base = base
        vp.gdtr.limit = limit
    return stop_after(vp, op, STOP_NONE)


cdef inline int system_lgdt(vp_t* vp, const op_t* op) noexcept nogil:
    return load_table(vp, op, False)


cdef inline int system_lidt(vp_t* vp, const op_t* op) noexcept nogil:
    return load_table(vp, op, True)
