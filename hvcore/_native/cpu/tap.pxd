"""What an attached model or recorder sees: every access and fetch of a virtual processor, as records in a buffer.

While a tap is there the fast halves of handlers find an empty TLB, so that every access comes by `read_slow` or
`write_slow`, and blocks are built with an operation before each instruction that notes its fetch. Without one nothing
of this is there. The tap changes neither what the guest sees nor what is counted.

Page sizes come with the walks. For a translation that was there before the tap they are looked up once.
"""
from hvcore._native.base.types cimport u16, u32, u64, u8
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK
from hvcore._native.mem.tlb cimport TLB_SIZE, tlb_slot
from hvcore._native.mem.walk cimport walk_t
from hvcore._native.model.record cimport record_t
from libc.stdlib cimport realloc

cdef enum:
    TAP_CAPACITY = 1 << 16      # records at first


cdef struct tap_t:
    record_t* records
    u64 count
    u64 capacity
    u64 lost                # records that the host had no memory for
    u64[TLB_SIZE] pages     # page sizes of translations, by page: plus one, so that zero is none
    u8[TLB_SIZE] page_shifts
    u8[TLB_SIZE] nested_page_shifts


cdef inline void tap_learn(tap_t* tap, u64 gva, const walk_t* found) noexcept nogil:
    cdef u64 slot = tlb_slot(gva)
    tap.pages[slot] = (gva & ~<u64>PAGE_OFFSET_MASK) + 1
    tap.page_shifts[slot] = found.page_shift
    tap.nested_page_shifts[slot] = found.nested_page_shift


cdef inline bint tap_knows(const tap_t* tap, u64 gva) noexcept nogil:
    return tap.pages[tlb_slot(gva)] == (gva & ~<u64>PAGE_OFFSET_MASK) + 1


cdef inline void tap_add(tap_t* tap, u64 gva, u32 size_bytes, u16 asid, u8 kind) noexcept nogil:
    """Note one record, with the page sizes that are known for its page."""
    cdef record_t* grown
    cdef record_t* record
    if tap.count == tap.capacity:
        grown = <record_t*>realloc(tap.records, 2 * tap.capacity * sizeof(record_t))
        if grown == NULL:
            tap.lost += 1
            return
        tap.records = grown
        tap.capacity *= 2
    record = &tap.records[tap.count]
    tap.count += 1
    record.address = gva
    record.size_bytes = <u16>min(size_bytes, <u32>0xFFFF)
    record.asid = asid
    record.kind = kind
    record.page_shift = tap.page_shifts[tlb_slot(gva)] if tap_knows(tap, gva) else 0
    record.nested_page_shift = tap.nested_page_shifts[tlb_slot(gva)] if tap_knows(tap, gva) else 0
    record.unused = 0
