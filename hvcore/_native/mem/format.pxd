"""Page-table formats as values: where an entry keeps its rights, its address and its marks (SDM 3A 4.3-4.5, 3C 29.3).

Nothing here reads memory. A format that comes straight from one of these functions folds into immediates: the walker
(`descend.pxd`) is compiled for it. What changes with control registers and the width of physical addresses is no
part of a format; it is in the request of a walk (`request.pxd`).
"""
from hvcore._native.base.types cimport u8, u64

cdef enum:
    # Rights of a translation, the same for every format: the AND over the levels of a walk.
    RIGHT_READ = 1
    RIGHT_WRITE = 2
    RIGHT_EXECUTE = 4       # second level: for supervisor-mode addresses, if the two are told apart
    RIGHT_USER = 8
    RIGHT_USER_EXECUTE = 16     # second level only: for user-mode addresses
    RIGHT_ALL = 31
    ENTRY_ADDRESS = 0x000FFFFFFFFFF000
    USABLE_WITH_READ = 0xBA     # 1, 3, 4, 5 and 7: never writable without being readable (SDM 3C 29.3.3.1)
    USABLE_ALONE = 0xEE         # R or W, whatever the other says
    REMAPPING_SNOOP = 1 << 11
    REMAPPING_TRANSIENT = 0x4000000000000000

cdef enum PagingMode:
    PAGING_NONE
    PAGING_32BIT            # without CR4.PSE: 4 KiB pages only
    PAGING_32BIT_PSE        # 4 MiB pages too, at physical addresses of up to 40 bits
    PAGING_PAE
    PAGING_4LEVEL
    PAGING_5LEVEL


cdef struct page_format_t:
    u8 levels               # of tables in memory; those of PAE start at its four PDPTEs, which are registers
    u8 linear_bits          # of an address; the bits above repeat the highest, or are zero for 32
    u8 index_bits           # of an address that select an entry of one table
    u8 entry_shift          # an entry has 1 << entry_shift bytes
    bint large_reserved     # at levels that cannot map a page, `large` must be zero
    bint large_split        # PSE-36: bits 20:13 of a large entry are address bits 39:32
    bint is_second_level
    u8 usable               # second level: by its low three bits X, W and R, what an entry may be, a bit each
    u64 present             # any of these bits set: the entry is present
    u64 large               # set: the entry maps a page ...
    u64 large_shifts        # ... if pages of this size exist: bit n for 1 << n bytes
    u64 inverted            # bits that forbid by being set
    u64 user_execute        # second level: the bit for user-mode addresses
    u64 accessed            # zero: the format keeps no accessed and dirty bits
    u64 dirty
    u64 table_reserved      # must be zero in an entry that names a table
    u8 types_reserved       # a bit a memory type (bits 5:3) that an entry which maps a page must not have


cdef inline page_format_t long_mode_format(u8 levels) noexcept nogil:
    """4-level and 5-level paging: 4 KiB, 2 MiB and 1 GiB pages."""
    return page_format_t(
        levels=levels, linear_bits=12 + 9 * levels, index_bits=9, entry_shift=3, large_shifts=1 << 21 | 1 << 30,
        large_reserved=True, large_split=False, is_second_level=False, usable=0, present=1, large=1 << 7,
        inverted=<u64>1 << 63, user_execute=0, accessed=1 << 5, dirty=1 << 6, table_reserved=0, types_reserved=0)


cdef inline page_format_t pae_format() noexcept nogil:
    """PAE paging below its PDPTEs: 4 KiB and 2 MiB pages."""
    return page_format_t(
        levels=2, linear_bits=32, index_bits=9, entry_shift=3, large_shifts=1 << 21, large_reserved=True,
        large_split=False, is_second_level=False, usable=0, present=1, large=1 << 7, inverted=<u64>1 << 63, user_execute=0,
        accessed=1 << 5, dirty=1 << 6, table_reserved=0, types_reserved=0)


cdef inline page_format_t legacy_format(bint page_size_extension) noexcept nogil:
    """32-bit paging: 4 KiB pages, and 4 MiB pages with CR4.PSE."""
    return page_format_t(
        levels=2, linear_bits=32, index_bits=10, entry_shift=2, large_shifts=1 << 22 if page_size_extension else 0,
        large_reserved=False, large_split=page_size_extension, is_second_level=False, usable=0, present=1, large=1 << 7,
        inverted=0, user_execute=0, accessed=1 << 5, dirty=1 << 6, table_reserved=0, types_reserved=0)


cdef inline page_format_t no_paging() noexcept nogil:
    """CR0.PG = 0: an address is its own translation."""
    return page_format_t(
        levels=0, linear_bits=64, index_bits=9, entry_shift=3, large_shifts=0, large_reserved=False,
        large_split=False, is_second_level=False, usable=0, present=1, large=0, inverted=0, user_execute=0, accessed=0, dirty=0,
        table_reserved=0, types_reserved=0)


cdef inline page_format_t paging_format(PagingMode mode) noexcept nogil:
    """The format of a mode; with a constant mode it folds."""
    if mode == PAGING_4LEVEL:
        return long_mode_format(4)
    if mode == PAGING_5LEVEL:
        return long_mode_format(5)
    if mode == PAGING_PAE:
        return pae_format()
    if mode == PAGING_NONE:
        return no_paging()
    return legacy_format(mode == PAGING_32BIT_PSE)


cdef inline page_format_t second_level_format(u8 levels, bint marks, bint mode_based_execute) noexcept nogil:
    """Second-level tables in the layout of EPT: 4 KiB, 2 MiB and 1 GiB pages; memory types 2, 3 and 7 do not exist.

    Three levels and fewer are no EPT; IOMMUs have them, and counts of references need them."""
    return page_format_t(
        levels=levels, linear_bits=64, index_bits=9, entry_shift=3, large_shifts=1 << 21 | 1 << 30, large_reserved=True,
        large_split=False, is_second_level=True, usable=USABLE_WITH_READ, present=1 | 2 | 4 | (1 << 10 if mode_based_execute else 0),
        large=1 << 7, inverted=0, user_execute=1 << 10 if mode_based_execute else 1 << 2,
        accessed=1 << 8 if marks else 0, dirty=1 << 9 if marks else 0, table_reserved=0x78, types_reserved=0x8C)


cdef inline page_format_t remapping_format(u8 levels, bint marks, u64 large_shifts) noexcept nogil:
    """Second-level tables of an IOMMU (VT-d, second-stage paging entries): R or W alone makes an entry present, there
    are no memory types, and only an entry that maps a page may have SNP or TM; `reserved` forbids those too."""
    return page_format_t(
        levels=levels, linear_bits=64, index_bits=9, entry_shift=3, large_shifts=large_shifts, large_reserved=True,
        large_split=False, is_second_level=True, usable=USABLE_ALONE, present=1 | 2, large=1 << 7, inverted=0,
        user_execute=1 << 2, accessed=1 << 8 if marks else 0, dirty=1 << 9 if marks else 0,
        table_reserved=REMAPPING_SNOOP | REMAPPING_TRANSIENT, types_reserved=0)


cdef inline u8 path_rights(page_format_t form, u64 path) noexcept nogil:
    """RIGHT_ bits of a path: the AND of its entries, `inverted` bits turned over."""
    if form.is_second_level:
        return <u8>(path & 7) | (RIGHT_USER_EXECUTE if path & form.user_execute else 0)
    # Bits 1 and 2 are R/W and U/S in every format of the processor.
    return (RIGHT_READ | <u8>(path & 2) | <u8>((path & 4) << 1)
            | (RIGHT_EXECUTE if form.inverted == 0 or path & form.inverted else 0))
