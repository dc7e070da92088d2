"""Operands of decoded operations: registers by byte offset, memory through the fast TLB.

Everything here is inlined into every handler. A helper returns one value and takes no address of a local: a handler
must stay a tail call (docs/architecture.md, "Threaded dispatch").
"""
from hvcore._native.base.types cimport u8, u16, u32, u64, xmm_t
from hvcore._native.cpu.state cimport op_t, vp_t
from hvcore._native.decode.spec cimport PREFIX_ADDRESS, REGISTER_NONE
from hvcore._native.mem.ram cimport PAGE_SIZE
from hvcore._native.mem.tlb cimport fast_entry_t, tlb_slot


cdef inline u64 register_get(const vp_t* vp, u8 offset, int width) noexcept nogil:
    """The register at a byte offset, zero-extended."""
    if width == 8:
        return (<u8*>vp + offset)[0]
    if width == 16:
        return (<u16*>(<u8*>vp + offset))[0]
    if width == 32:
        return (<u32*>(<u8*>vp + offset))[0]
    return (<u64*>(<u8*>vp + offset))[0]


cdef inline void register_set(vp_t* vp, u8 offset, u64 value, int width) noexcept nogil:
    """Writing 32 bits clears the upper half, writing 8 or 16 keeps the rest (SDM 1, 3.4.1.1)."""
    if width == 8:
        (<u8*>vp + offset)[0] = <u8>value
    elif width == 16:
        (<u16*>(<u8*>vp + offset))[0] = <u16>value
    elif width == 32:
        (<u64*>(<u8*>vp + offset))[0] = <u32>value
    else:
        (<u64*>(<u8*>vp + offset))[0] = value


cdef inline xmm_t* xmm_at(vp_t* vp, u8 number) noexcept nogil:
    return &vp.xmm[number]


cdef inline u64 memory_get(const void* place, int width) noexcept nogil:
    if width == 8:
        return (<u8*>place)[0]
    if width == 16:
        return (<u16*>place)[0]
    if width == 32:
        return (<u32*>place)[0]
    return (<u64*>place)[0]


cdef inline void memory_set(void* place, u64 value, int width) noexcept nogil:
    if width == 8:
        (<u8*>place)[0] = <u8>value
    elif width == 16:
        (<u16*>place)[0] = <u16>value
    elif width == 32:
        (<u32*>place)[0] = <u32>value
    else:
        (<u64*>place)[0] = value


cdef inline u64 effective(const vp_t* vp, const op_t* op) noexcept nogil:
    """GVA of the memory operand."""
    return (register_get(vp, op.base, 64) + (register_get(vp, op.index, 64) << op.scale)
            + <u64>op.displacement)


cdef inline u64 effective_plain(const vp_t* vp, const op_t* op) noexcept nogil:
    """The same for an operand without index register, which most are."""
    return register_get(vp, op.base, 64) + <u64>op.displacement


cdef inline u64 implicit_gva(const vp_t* vp, const op_t* op, u64 offset) noexcept nogil:
    """Address of an operand that no ModRM byte names (strings, XLAT): address size and FS or GS by prefix."""
    if op.prefixes & PREFIX_ADDRESS:
        offset = <u32>offset
    return offset + vp.segments[op.third].base if op.third != REGISTER_NONE else offset


# The fast halves: a handler asks whether the fast TLB has the whole access, and only then takes the pointer. Where it
# has not, the handler tail-calls its slow twin, so that the common path needs neither a frame nor a saved register.

cdef inline bint can_read(const vp_t* vp, u64 gva, u32 size_bytes) noexcept nogil:
    return (gva ^ vp.tlb.read[tlb_slot(gva)].tag) <= PAGE_SIZE - size_bytes


cdef inline void* read_place(const vp_t* vp, u64 gva) noexcept nogil:
    return <void*>(gva + vp.tlb.read[tlb_slot(gva)].addend)


cdef inline bint can_write(const vp_t* vp, u64 gva, u32 size_bytes) noexcept nogil:
    return (gva ^ vp.tlb.write[tlb_slot(gva)].tag) <= PAGE_SIZE - size_bytes


cdef inline void* write_place(const vp_t* vp, u64 gva) noexcept nogil:
    return <void*>(gva + vp.tlb.write[tlb_slot(gva)].addend)


cdef inline void* readable(vp_t* vp, u64 gva, u32 size_bytes, u8 stack) noexcept nogil:
    """Host pointer to `size_bytes` that may be read now, or NULL: vp.stop says why."""
    cdef fast_entry_t* entry = &vp.tlb.read[tlb_slot(gva)]
    if (gva ^ entry.tag) <= PAGE_SIZE - size_bytes:
        return <void*>(gva + entry.addend)
    return vp.machine.read_slow(vp, gva, size_bytes, stack)


cdef inline void* writable(vp_t* vp, u64 gva, u32 size_bytes, u8 stack, bint update) noexcept nogil:
    """Host pointer to `size_bytes` that may be written now, or NULL. It may be the bounce buffer: see `bounced`.

    With `update` the old contents are there too."""
    cdef fast_entry_t* entry = &vp.tlb.write[tlb_slot(gva)]
    if (gva ^ entry.tag) <= PAGE_SIZE - size_bytes:
        return <void*>(gva + entry.addend)
    return vp.machine.write_slow(vp, gva, size_bytes, stack, update)


cdef inline bint bounced(const vp_t* vp, const void* place) noexcept nogil:
    """What was stored at `place` still has to be committed."""
    return place == <void*>vp.bounce
