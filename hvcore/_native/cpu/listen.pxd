"""Accesses of a processor that somebody listens to: what read_slow and write_slow do while a tap is there."""
from hvcore._native.base.types cimport u32, u64, u8
from hvcore._native.cpu.access cimport read_access, write_access
from hvcore._native.cpu.contexts cimport current_pcid
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.cpu.tap cimport tap_add, tap_knows, tap_learn
from hvcore._native.cpu.translation cimport access_now, vp_walk
from hvcore._native.mem.descent cimport WALK_NESTED, WALK_OK, WALK_RIGHTS
from hvcore._native.mem.format cimport RIGHT_EXECUTE
from hvcore._native.mem.ram cimport PAGE_SIZE
from hvcore._native.mem.request cimport linear_address
from hvcore._native.mem.tlb cimport fast_entry_t, tlb_slot
from hvcore._native.mem.walk cimport walk_t
from hvcore._native.model.record cimport KIND_FETCH, KIND_LOAD, KIND_MODIFY, KIND_STORE


cdef inline void note_access(vp_t* vp, u64 gva, u32 size_bytes, u8 kind) noexcept nogil:
    """Tell the tap. What was translated before the tap came is translated once more, uncounted, for its page sizes."""
    cdef walk_t found
    cdef u64 access = RIGHT_EXECUTE if kind == KIND_FETCH else 0
    gva = linear_address(&vp.request, access_now(vp, access), gva)
    if not tap_knows(vp.tap, gva):
        vp_walk(vp, gva, access, &found)
        if found.status == WALK_OK or found.status == WALK_NESTED or found.status == WALK_RIGHTS:
            tap_learn(vp.tap, gva, &found)
    tap_add(vp.tap, gva, size_bytes, current_pcid(vp), kind)


cdef inline void* read_noted(vp_t* vp, u64 gva, u32 size_bytes, u8 stack) noexcept nogil:
    """`readable` while a tap is there: the TLB that counts is asked here, and what succeeds is noted."""
    cdef fast_entry_t* entry = &vp.own_tlb.read[tlb_slot(gva)]
    cdef void* place
    if (gva ^ entry.tag) <= PAGE_SIZE - size_bytes:
        place = <void*>(gva + entry.addend)
    else:
        place = read_access(vp, gva, size_bytes, stack)
    if place != NULL:
        note_access(vp, gva, size_bytes, KIND_LOAD)
    return place


cdef inline void* write_noted(vp_t* vp, u64 gva, u32 size_bytes, u8 stack, bint update) noexcept nogil:
    cdef fast_entry_t* entry = &vp.own_tlb.write[tlb_slot(gva)]
    cdef void* place
    if (gva ^ entry.tag) <= PAGE_SIZE - size_bytes:
        place = <void*>(gva + entry.addend)
    else:
        place = write_access(vp, gva, size_bytes, stack, update)
    if place != NULL:
        note_access(vp, gva, size_bytes, KIND_MODIFY if update else KIND_STORE)
    return place
