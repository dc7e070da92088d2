"""The second level of one partition as plain structs: its tables, and the overlay pages that hide what they map.

How it translates is in `descend.pxd`.
"""
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.mem.format cimport RIGHT_READ, RIGHT_WRITE
from hvcore._native.mem.ram cimport ram_t

cdef enum SecondLevelStatus:
    SECOND_OK
    SECOND_UNMAPPED         # nothing is mapped there, or something outside system memory
    SECOND_RIGHTS           # mapped, but the rights do not allow the access
    SECOND_OVERLAY          # an overlay page that does not grant the access
    SECOND_MISCONFIGURED    # an entry that no table may hold: reserved bits, or writable but not readable


cdef struct overlay_t:
    u64 gpn
    u64 spa
    u16 kind
    u16 vp
    u8 rights


cdef struct space_t:
    ram_t* ram
    u64 root_spa            # zero: nothing was ever mapped
    u64 gpa_limit
    u64 reserved            # must be zero in every entry: above the implemented physical address bits
    overlay_t* overlays
    u32 overlay_count
    u8 levels
    bint marks              # accessed and dirty bits; reading a guest's table entry then counts as a write to it
    bint mode_based_execute # supervisor and user execute are rights of their own
    u64 generation          # grows with every change that a TLB must notice


cdef struct second_level_t:
    SecondLevelStatus status
    u8 rights
    u8 page_shift
    u8 references           # entries that were read
    bint overlay
    u64 spa


cdef inline void overlay_insert(overlay_t* overlays, u32 count, overlay_t added) noexcept nogil:
    """Keep the list in order of kind, then VP: where two overlays lie on one page, the lower kind shows."""
    cdef u32 i = count
    while i > 0 and (overlays[i - 1].kind > added.kind or
                     (overlays[i - 1].kind == added.kind and overlays[i - 1].vp > added.vp)):
        overlays[i] = overlays[i - 1]
        i -= 1
    overlays[i] = added


cdef inline u8 table_access(const space_t* space) noexcept nogil:
    """What reading an entry of a guest's table needs (SDM 3C 29.3.5)."""
    return RIGHT_READ | RIGHT_WRITE if space.marks else RIGHT_READ
