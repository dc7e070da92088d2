"""Descriptor tables in 64-bit mode: reading descriptors, loading segment registers, changing the privilege level.

Tables are reached as the supervisor, whatever CPL is (SDM 3A 4.6.1, implicit accesses). Functions that can fault
return True when all went well, or False with vp.fault and vp.stop set.
"""
from hvcore._native.base.status cimport STOP_EXIT, STOP_FAULT
from hvcore._native.base.types cimport u16, u32, u64, u8
from hvcore._native.cpu.contexts cimport forget_code_page, select_tlb, use_tlb
from hvcore._native.cpu.operand cimport bounced, memory_get, memory_set, readable, writable
from hvcore._native.cpu.spec cimport (
    EFER_LMA, FLAG_VM, SEGMENT_CS, SEGMENT_LDTR, SEGMENT_SS, VECTOR_GP, VECTOR_NP, VECTOR_SS,
)
from hvcore._native.cpu.state cimport segment_t, vp_t
from hvcore._native.mem.tlb cimport TLB_SUPERVISOR

cdef enum:
    ATTRIBUTE_ACCESSED = 1
    ATTRIBUTE_WRITABLE = 2      # data: writable; code: readable
    ATTRIBUTE_CONFORMING = 4    # code: conforming; data: expands down
    ATTRIBUTE_CODE = 8
    ATTRIBUTE_TYPE = 15
    ATTRIBUTE_USER = 16         # S: code or data, not a system segment
    ATTRIBUTE_PRESENT = 128
    ATTRIBUTE_LONG = 0x2000
    ATTRIBUTE_BIG = 0x4000
    ATTRIBUTE_GRANULAR = 0x8000
    TYPE_LDT = 2
    TYPE_TSS_AVAILABLE = 9
    TYPE_TSS_BUSY = 11
    TYPE_INTERRUPT_GATE = 14
    TYPE_TRAP_GATE = 15


cdef inline bint fail(vp_t* vp, u8 vector, u32 error_code) noexcept nogil:
    vp.fault.vector = vector
    vp.fault.has_error_code = True
    vp.fault.software = False
    vp.fault.error_code = error_code
    vp.stop = STOP_FAULT
    return False


cdef inline void set_privilege(vp_t* vp, u8 cpl) noexcept nogil:
    vp.cpl = cpl
    select_tlb(vp)
    forget_code_page(vp)


cdef inline void begin_implicit(vp_t* vp) noexcept nogil:
    """Accesses are the processor's own from here on: supervisor-mode, and no affair of EFLAGS.AC (SDM 3A 4.6.1)."""
    vp.implicit = True
    use_tlb(vp, TLB_SUPERVISOR)


cdef inline void end_implicit(vp_t* vp, u8 cpl) noexcept nogil:
    vp.implicit = False
    vp.cpl = cpl
    select_tlb(vp)


cdef inline bint system_read(vp_t* vp, u64 gva, int width) noexcept nogil:
    """Read a descriptor word or the like as supervisor into vp.carried."""
    cdef void* place
    cdef u8 cpl = vp.cpl
    vp.cpl = 0
    begin_implicit(vp)
    place = readable(vp, gva, width >> 3, 0)
    end_implicit(vp, cpl)
    if place == NULL:
        return False
    vp.carried = memory_get(place, width)
    return True


cdef inline bint write_now(vp_t* vp, u64 gva, u64 value, int width, bint stack) noexcept nogil:
    """What the processor writes by itself. Where the parent has no memory it leaves, and tries again from the start."""
    cdef void* place = writable(vp, gva, width >> 3, stack, False)
    if place == NULL:
        return False
    memory_set(place, value, width)
    if bounced(vp, place) and vp.machine.commit(vp) == STOP_EXIT and not vp.partition.is_root:
        vp.exit.retired, vp.exit.rights = False, True
        return False
    return True


cdef inline bint system_write(vp_t* vp, u64 gva, u64 value, int width) noexcept nogil:
    """Write to a descriptor as supervisor."""
    cdef bint done
    cdef u8 cpl = vp.cpl
    vp.cpl = 0
    begin_implicit(vp)
    done = write_now(vp, gva, value, width, False)
    end_implicit(vp, cpl)
    return done


cdef inline bint push_at(vp_t* vp, u64 gva, u64 value, int width, u8 level) noexcept nogil:
    """Write to the stack of a privilege level that may be about to be entered: an explicit access."""
    cdef bint done
    cdef u8 cpl = vp.cpl
    vp.cpl = level
    select_tlb(vp)
    done = write_now(vp, gva, value, width, True)
    vp.cpl = cpl
    select_tlb(vp)
    return done


cdef inline bint read_descriptor(vp_t* vp, u16 selector, u8 vector, u32 extern_bit) noexcept nogil:
    """The eight bytes a selector names into vp.carried; outside the table: `vector` with the selector as code."""
    cdef u64 base = vp.gdtr.base
    cdef u32 limit = vp.gdtr.limit
    if selector & 4:
        base = vp.segments[SEGMENT_LDTR].base
        limit = vp.segments[SEGMENT_LDTR].limit if vp.segments[SEGMENT_LDTR].attributes & ATTRIBUTE_PRESENT else 0
    if (selector | 7) > limit:
        return fail(vp, vector, (selector & 0xFFFC) | extern_bit)
    return system_read(vp, base + (selector & 0xFFF8), 64)


cdef inline segment_t unpack_descriptor(u16 selector, u64 descriptor) noexcept nogil:
    cdef segment_t segment
    segment.selector = selector
    segment.base = ((descriptor >> 16) & 0xFFFFFF) | ((descriptor >> 32) & <u32>0xFF000000)
    segment.limit = (descriptor & 0xFFFF) | ((descriptor >> 32) & 0xF0000)
    segment.attributes = <u16>((descriptor >> 40) & 0xF0FF)
    if segment.attributes & ATTRIBUTE_GRANULAR:
        segment.limit = segment.limit << 12 | 0xFFF
    return segment


cdef inline u8 descriptor_dpl(u16 attributes) noexcept nogil:
    return (attributes >> 5) & 3


cdef inline bint mark_accessed(vp_t* vp, segment_t* segment) noexcept nogil:
    """Set the accessed bit of a code or data descriptor in its table, if it is not set."""
    cdef u64 base = vp.segments[SEGMENT_LDTR].base if segment.selector & 4 else vp.gdtr.base
    if segment.attributes & ATTRIBUTE_ACCESSED:
        return True
    segment.attributes |= ATTRIBUTE_ACCESSED
    return system_write(vp, base + (segment.selector & 0xFFF8) + 5, segment.attributes & 0xFF, 8)


cdef inline bint load_data_segment(vp_t* vp, int which, u16 selector) noexcept nogil:
    """MOV or POP to SS, DS, ES, FS, GS (SDM 2B, MOV)."""
    cdef segment_t segment
    cdef u8 dpl, rpl = selector & 3
    cdef bint code
    if selector & 0xFFFC == 0:
        if which == SEGMENT_SS and (vp.cpl == 3 or rpl != vp.cpl):
            return fail(vp, VECTOR_GP, 0)
        vp.segments[which].selector = selector
        vp.segments[which].attributes = descriptor_dpl(vp.segments[which].attributes) << 5
        vp.segments[which].base = 0
        vp.segments[which].limit = 0
        return True
    if not read_descriptor(vp, selector, VECTOR_GP, 0):
        return False
    segment = unpack_descriptor(selector, vp.carried)
    dpl = descriptor_dpl(segment.attributes)
    code = segment.attributes & ATTRIBUTE_CODE != 0
    if not segment.attributes & ATTRIBUTE_USER:
        return fail(vp, VECTOR_GP, selector & 0xFFFC)
    if which == SEGMENT_SS:
        if code or not segment.attributes & ATTRIBUTE_WRITABLE or rpl != vp.cpl or dpl != vp.cpl:
            return fail(vp, VECTOR_GP, selector & 0xFFFC)
    else:
        if code and not segment.attributes & ATTRIBUTE_WRITABLE:
            return fail(vp, VECTOR_GP, selector & 0xFFFC)
        if not (code and segment.attributes & ATTRIBUTE_CONFORMING) and (rpl > dpl or vp.cpl > dpl):
            return fail(vp, VECTOR_GP, selector & 0xFFFC)
    if not segment.attributes & ATTRIBUTE_PRESENT:
        return fail(vp, VECTOR_SS if which == SEGMENT_SS else VECTOR_NP, selector & 0xFFFC)
    if not mark_accessed(vp, &segment):
        return False
    vp.segments[which] = segment
    return True


cdef inline bint read_code_segment(vp_t* vp, u16 selector, u32 extern_bit) noexcept nogil:
    """Check that a selector names a code segment that 64-bit mode can run: its descriptor is left in vp.carried."""
    cdef segment_t segment
    if selector & 0xFFFC == 0:
        return fail(vp, VECTOR_GP, extern_bit)
    if not read_descriptor(vp, selector, VECTOR_GP, extern_bit):
        return False
    segment = unpack_descriptor(selector, vp.carried)
    if segment.attributes & (ATTRIBUTE_USER | ATTRIBUTE_CODE) != (ATTRIBUTE_USER | ATTRIBUTE_CODE):
        return fail(vp, VECTOR_GP, (selector & 0xFFFC) | extern_bit)
    if segment.attributes & (ATTRIBUTE_LONG | ATTRIBUTE_BIG) == (ATTRIBUTE_LONG | ATTRIBUTE_BIG):
        return fail(vp, VECTOR_GP, (selector & 0xFFFC) | extern_bit)
    if not segment.attributes & ATTRIBUTE_PRESENT:
        return fail(vp, VECTOR_NP, (selector & 0xFFFC) | extern_bit)
    return True


cdef inline bint runs_64bit(const vp_t* vp) noexcept nogil:
    """The only mode that is executed so far; anything else ends the run as unsupported."""
    return (vp.efer & EFER_LMA != 0 and vp.segments[SEGMENT_CS].attributes & ATTRIBUTE_LONG != 0
            and not vp.rflags_system & FLAG_VM)
