"""Page-table formats as values: where an entry keeps its rights, its address and its marks (SDM 3A 4.5, 3C 29.3).

Nothing here reads memory. `walk.pxd` is the one walker; a format passed as the result of an inline function
folds into immediates.
"""
from hvcore._native.base.types cimport u8, u64

cdef enum:
    # Rights of a translation, the same for every format: the AND over the levels of a walk.
    RIGHT_READ = 1
    RIGHT_WRITE = 2
    RIGHT_EXECUTE = 4
    RIGHT_USER = 8
    RIGHT_ALL = 15


cdef struct page_format_t:
    u8 levels
    u64 present             # any of these bits set: the entry is present
    u64 read                # zero: a present entry is readable
    u64 write
    u64 user                # zero: the format has no user/supervisor distinction
    u64 execute             # set: executable ...
    u64 no_execute          # ... or, in formats that have it, set: not executable
    u64 large               # this entry maps a page
    u64 accessed            # zero: the format keeps no accessed and dirty bits
    u64 dirty
    u64 reserved            # must be zero at every level


cdef inline page_format_t x64_4level(u64 reserved) noexcept nogil:
    """Four-level paging of 64-bit mode; `reserved` are the bits above MAXPHYADDR, and bit 63 while NXE is 0."""
    return page_format_t(levels=4, present=1, read=0, write=2, user=4, execute=0, no_execute=<u64>1 << 63,
                         large=1 << 7, accessed=1 << 5, dirty=1 << 6, reserved=reserved)


cdef inline page_format_t second_level_4() noexcept nogil:
    """Second-level tables in the layout of EPT, accessed and dirty bits off."""
    return page_format_t(levels=4, present=7, read=1, write=2, user=0, execute=4, no_execute=0,
                         large=1 << 7, accessed=0, dirty=0, reserved=0)


cdef inline u8 entry_rights(page_format_t form, u64 entry) noexcept nogil:
    cdef u8 rights = 0
    if form.read == 0 or entry & form.read:
        rights |= RIGHT_READ
    if entry & form.write:
        rights |= RIGHT_WRITE
    if form.user == 0 or entry & form.user:
        rights |= RIGHT_USER
    if (form.execute and entry & form.execute) or (form.no_execute and not entry & form.no_execute):
        rights |= RIGHT_EXECUTE
    return rights
