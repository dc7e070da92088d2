"""The TLB that a virtual processor runs with: direct-mapped, one table each for reads, writes and code.

It is functional: nothing a guest can see depends on it beyond what the SDM allows of any TLB. Its geometry is fixed,
so its misses are reproducible and may be counted; modelled TLBs are another matter (docs/architecture.md).

A hit is one exclusive-or and one compare: `gva ^ tag` is the offset in the page if the page is right, and large
otherwise, so `<= PAGE_SIZE - size` also catches an access that leaves the page. Pages that must not be stored to
directly (decoded code lies there) keep their translation in `known` alone.
"""
from hvcore._native.base.types cimport u64
from hvcore._native.mem.ram cimport PAGE_SHIFT, PAGE_SIZE

cdef enum:
    TLB_SIZE = 2048
    TLB_CODE_SIZE = 256


cdef struct fast_entry_t:
    u64 tag                 # page-aligned GVA
    u64 addend              # host address - GVA


cdef struct known_entry_t:
    u64 tag
    u64 spa


cdef struct tlb_t:
    fast_entry_t[TLB_SIZE] read
    fast_entry_t[TLB_SIZE] write
    known_entry_t[TLB_SIZE] known           # of writes
    known_entry_t[TLB_CODE_SIZE] code


cdef inline u64 tlb_slot(u64 gva) noexcept nogil:
    return (gva >> PAGE_SHIFT) & (TLB_SIZE - 1)


cdef inline u64 tlb_code_slot(u64 gva) noexcept nogil:
    return (gva >> PAGE_SHIFT) & (TLB_CODE_SIZE - 1)


cdef inline u64 empty_tag(u64 slot) noexcept nogil:
    """A tag that no address which selects this slot can match: its page number selects the neighbour."""
    return (slot ^ 1) << PAGE_SHIFT


cdef inline void tlb_drop(tlb_t* tlb, u64 slot) noexcept nogil:
    tlb.read[slot].tag = tlb.write[slot].tag = tlb.known[slot].tag = empty_tag(slot)


cdef inline void tlb_flush(tlb_t* tlb) noexcept nogil:
    cdef u64 slot
    for slot in range(TLB_SIZE):
        tlb_drop(tlb, slot)
    for slot in range(TLB_CODE_SIZE):
        tlb.code[slot].tag = empty_tag(slot)


cdef inline void tlb_flush_page(tlb_t* tlb, u64 gva) noexcept nogil:
    tlb_drop(tlb, tlb_slot(gva))
    tlb.code[tlb_code_slot(gva)].tag = empty_tag(tlb_code_slot(gva))


cdef inline void tlb_guard_frame(tlb_t* tlb, u64 spa_page) noexcept nogil:
    """Stores to this frame must be seen from now on: take it out of the fast write table."""
    cdef u64 slot
    for slot in range(TLB_SIZE):
        if tlb.known[slot].spa == spa_page:
            tlb.write[slot].tag = empty_tag(slot)
