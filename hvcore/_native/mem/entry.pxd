"""One entry of a page table: how it is read and marked, and what it may say (SDM 3A 4.5, 3C 29.3)."""
from hvcore._native.base.atomic cimport swap_u32, swap_u64
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.mem.format cimport ENTRY_ADDRESS, page_format_t
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SHIFT, ram_at, ram_t, ram_written
from cython cimport unlikely


cdef inline u64 load_entry(const ram_t* ram, page_format_t form, u64 spa) noexcept nogil:
    if form.entry_shift == 2:
        return (<u32*>ram_at(ram, spa))[0]
    return (<u64*>ram_at(ram, spa))[0]


cdef inline bint mark_entry(ram_t* ram, page_format_t form, u64 spa, u64 entry, u64 marks) noexcept nogil:
    """Set marks in an entry that was read as `entry`; False: it is not that any more."""
    if form.entry_shift == 2:
        if not swap_u32(<u32*>ram_at(ram, spa), <u32>entry, <u32>(entry | marks)):
            return False
    elif not swap_u64(<u64*>ram_at(ram, spa), entry, entry | marks):
        return False
    ram_written(ram, spa, 1 << form.entry_shift)
    return True


cdef inline bint maps_page(page_format_t form, u8 shift, u64 entry) noexcept nogil:
    if shift == PAGE_SHIFT:
        return True
    if unlikely(entry & form.large):
        return form.large_shifts >> shift & 1
    return False


cdef inline u64 forbidden_bits(page_format_t form, bint leaf, u8 shift, u64 split_reserved) noexcept nogil:
    """What must be zero in an entry of this shape, apart from what must be in all. Bit 12 of a large page is PAT."""
    if not leaf:
        return form.table_reserved | (form.large if form.large_reserved else 0)
    if form.large_split and shift > PAGE_SHIFT:
        return split_reserved
    if form.is_second_level:
        return ((<u64>1 << shift) - 1) & ~<u64>PAGE_OFFSET_MASK
    return ((<u64>1 << shift) - 1) & ~<u64>(2 * PAGE_OFFSET_MASK + 1)


cdef inline bint is_usable(page_format_t form, u64 entry) noexcept nogil:
    """Present, with rights that may be together."""
    if form.is_second_level:
        # No right in the low three bits: usable too if another bit makes it present.
        return form.usable >> (entry & 7) & 1 or (entry & 7 == 0 and entry & form.present)
    return entry & form.present


cdef inline u64 page_address(page_format_t form, u8 shift, u64 entry, u64 address) noexcept nogil:
    """Where `address` lies, by the entry that maps its page."""
    cdef u64 offset = (<u64>1 << shift) - 1
    if form.large_split and shift > PAGE_SHIFT:
        return (entry & <u32>0xFFC00000) | ((entry >> 13) & 0xFF) << 32 | (address & offset)
    return (entry & ENTRY_ADDRESS & ~offset) | (address & offset)
