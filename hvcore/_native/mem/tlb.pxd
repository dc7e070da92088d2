"""The TLBs that a virtual processor runs with: direct-mapped, one table each for reads, writes and code.

They are functional: nothing a guest can see depends on them beyond what the SDM allows of any TLB. Their geometry is
fixed, so their misses are reproducible and may be counted; modelled TLBs are another matter (docs/architecture.md).

A hit is one exclusive-or and one compare: `gva ^ tag` is the offset in the page if the page is right, and large
otherwise, so `<= PAGE_SIZE - size` also catches an access that leaves the page. Pages that must not be stored to
directly (decoded code lies there) keep their translation in `known` alone. Rights have been judged when an entry is
made, so each kind of access that is judged differently has a TLB of its own, and so has each PCID: a *context*.
"""
from hvcore._native.base.types cimport u8, u16, u64
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE

cdef enum:
    TLB_SIZE = 2048
    TLB_CODE_SIZE = 256
    TLB_CONTEXTS = 4
    TLB_FEW_PAGES = 64      # are looked for one by one
    PAGE_BITS_OF_ALL = 0x0000FFFFFFFFF000       # of an address whose highest bits may be LAM's

# The TLBs of a context.
cdef enum:
    TLB_SUPERVISOR          # SMAP, where it is on, applies
    TLB_USER
    TLB_EXEMPT              # supervisor with EFLAGS.AC, while SMAP is on
    TLB_MODES


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
    u8[TLB_SIZE] read_global
    u8[TLB_SIZE] write_global               # of `write` and `known`
    u8[TLB_CODE_SIZE] code_global
    u8 largest_shift        # log2 of the largest page that an entry was made from
    bint is_used            # there may be entries


cdef struct tlb_context_t:
    tlb_t[TLB_MODES] tlbs
    u16 pcid
    u64 tagging             # the bits of CR3 and CR4 that say which bits of an address are LAM's
    u64 last_use


cdef inline u64 tlb_slot(u64 gva) noexcept nogil:
    return (gva >> PAGE_SHIFT) & (TLB_SIZE - 1)


cdef inline u64 tlb_code_slot(u64 gva) noexcept nogil:
    return (gva >> PAGE_SHIFT) & (TLB_CODE_SIZE - 1)


cdef inline u64 empty_tag(u64 slot) noexcept nogil:
    """A tag that no address which selects this slot can match: its page number selects the neighbour."""
    return (slot ^ 1) << PAGE_SHIFT


cdef inline void tlb_init(tlb_t* tlb) noexcept nogil:
    """Of zeroed memory, which is left untouched: tag 0 is empty in every slot but the first."""
    tlb.read[0].tag = tlb.write[0].tag = tlb.known[0].tag = tlb.code[0].tag = empty_tag(0)


cdef inline void tlb_note(tlb_t* tlb, u8 shift) noexcept nogil:
    """An entry is being made from a page of this size."""
    if not tlb.is_used or shift > tlb.largest_shift:
        tlb.largest_shift = shift
    tlb.is_used = True


cdef inline void tlb_fill_read(tlb_t* tlb, u64 gva, void* host, u8 shift, bint is_global) noexcept nogil:
    cdef u64 slot = tlb_slot(gva)
    tlb_note(tlb, shift)
    tlb.read[slot].tag = gva & ~<u64>PAGE_OFFSET_MASK
    tlb.read[slot].addend = <u64>host - gva
    tlb.read_global[slot] = is_global


cdef inline void tlb_fill_known(tlb_t* tlb, u64 gva, u64 spa, u8 shift, bint is_global) noexcept nogil:
    """A page that may be stored to, but not directly; `tlb_fill_write` may follow."""
    cdef u64 slot = tlb_slot(gva)
    tlb_note(tlb, shift)
    tlb.known[slot].tag = gva & ~<u64>PAGE_OFFSET_MASK
    tlb.known[slot].spa = spa & ~<u64>PAGE_OFFSET_MASK
    tlb.write_global[slot] = is_global
    # Never an older page's entry beside a new `known`: tlb_guard_frame could not find it.
    tlb.write[slot].tag = empty_tag(slot)


cdef inline void tlb_fill_write(tlb_t* tlb, u64 gva, void* host) noexcept nogil:
    """Direct stores to a page that `known` has."""
    cdef u64 slot = tlb_slot(gva)
    tlb.write[slot].tag = gva & ~<u64>PAGE_OFFSET_MASK
    tlb.write[slot].addend = <u64>host - gva


cdef inline void tlb_fill_code(tlb_t* tlb, u64 gva, u64 spa, u8 shift, bint is_global) noexcept nogil:
    cdef u64 slot = tlb_code_slot(gva)
    tlb_note(tlb, shift)
    tlb.code[slot].tag = gva & ~<u64>PAGE_OFFSET_MASK
    tlb.code[slot].spa = spa & ~<u64>PAGE_OFFSET_MASK
    tlb.code_global[slot] = is_global


cdef inline bint is_hit_by(u64 tag, u64 gva, u8 shift) noexcept nogil:
    """Whether the entry lies in the page of `gva`; metadata of LAM in the tag does not count."""
    return ((tag ^ gva) & PAGE_BITS_OF_ALL) >> shift == 0


cdef inline void tlb_flush(tlb_t* tlb, bint keep_global) noexcept nogil:
    cdef u64 slot
    if not tlb.is_used:
        return
    for slot in range(<u64>TLB_SIZE):
        if not (keep_global and tlb.read_global[slot]):
            tlb.read[slot].tag = empty_tag(slot)
        if not (keep_global and tlb.write_global[slot]):
            tlb.write[slot].tag = tlb.known[slot].tag = empty_tag(slot)
    for slot in range(<u64>TLB_CODE_SIZE):
        if not (keep_global and tlb.code_global[slot]):
            tlb.code[slot].tag = empty_tag(slot)
    if not keep_global:
        tlb.is_used = False


cdef inline void tlb_flush_slot(tlb_t* tlb, u64 gva, u64 slot, u8 shift, bint keep_global) noexcept nogil:
    if is_hit_by(tlb.read[slot].tag, gva, shift) and not (keep_global and tlb.read_global[slot]):
        tlb.read[slot].tag = empty_tag(slot)
    if is_hit_by(tlb.known[slot].tag, gva, shift) and not (keep_global and tlb.write_global[slot]):
        tlb.write[slot].tag = tlb.known[slot].tag = empty_tag(slot)


cdef inline void tlb_flush_code_slot(tlb_t* tlb, u64 gva, u64 slot, u8 shift, bint keep_global) noexcept nogil:
    if is_hit_by(tlb.code[slot].tag, gva, shift) and not (keep_global and tlb.code_global[slot]):
        tlb.code[slot].tag = empty_tag(slot)


cdef inline void tlb_flush_page(tlb_t* tlb, u64 gva, bint keep_global) noexcept nogil:
    """Drop what the page of `gva` has entries for: all of a large page, whose size is not known any more."""
    cdef u64 slot
    if not tlb.is_used:
        return
    if tlb.largest_shift == PAGE_SHIFT:
        tlb_flush_slot(tlb, gva, tlb_slot(gva), PAGE_SHIFT, keep_global)
        tlb_flush_code_slot(tlb, gva, tlb_code_slot(gva), PAGE_SHIFT, keep_global)
        return
    for slot in range(<u64>TLB_SIZE):
        tlb_flush_slot(tlb, gva, slot, tlb.largest_shift, keep_global)
    for slot in range(<u64>TLB_CODE_SIZE):
        tlb_flush_code_slot(tlb, gva, slot, tlb.largest_shift, keep_global)


cdef inline bint is_between(u64 tag, u64 first, u64 last) noexcept nogil:
    return (first & PAGE_BITS_OF_ALL) <= (tag & PAGE_BITS_OF_ALL) <= (last & PAGE_BITS_OF_ALL)


cdef inline void tlb_flush_range(tlb_t* tlb, u64 first, u64 last) noexcept nogil:
    """Drop the pages from `first` to that of `last`, and whatever large page has a part of them. Global ones too."""
    cdef u64 slot, gva = first
    if not tlb.is_used:
        return
    if tlb.largest_shift == PAGE_SHIFT and last - first < TLB_FEW_PAGES * PAGE_SIZE:
        for slot in range((last - first) // PAGE_SIZE + 1):
            tlb_flush_slot(tlb, gva, tlb_slot(gva), PAGE_SHIFT, False)
            tlb_flush_code_slot(tlb, gva, tlb_code_slot(gva), PAGE_SHIFT, False)
            gva += PAGE_SIZE
        return
    first = first >> tlb.largest_shift << tlb.largest_shift
    last |= (<u64>1 << tlb.largest_shift) - 1
    if first & PAGE_BITS_OF_ALL > last & PAGE_BITS_OF_ALL:      # over the end of what a tag tells apart
        tlb_flush(tlb, False)
        return
    for slot in range(<u64>TLB_SIZE):
        if is_between(tlb.read[slot].tag, first, last):
            tlb.read[slot].tag = empty_tag(slot)
        if is_between(tlb.known[slot].tag, first, last):
            tlb.write[slot].tag = tlb.known[slot].tag = empty_tag(slot)
    for slot in range(<u64>TLB_CODE_SIZE):
        if is_between(tlb.code[slot].tag, first, last):
            tlb.code[slot].tag = empty_tag(slot)


cdef inline void tlb_guard_frame(tlb_t* tlb, u64 spa_page) noexcept nogil:
    """Stores to this frame must be seen from now on: take it out of the fast write table."""
    cdef u64 slot
    if not tlb.is_used:
        return
    for slot in range(<u64>TLB_SIZE):
        if tlb.known[slot].spa == spa_page:
            tlb.write[slot].tag = empty_tag(slot)
