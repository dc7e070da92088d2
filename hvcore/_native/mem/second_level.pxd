"""The second level of one partition as plain structs: its tables, and the overlay pages that hide what they map.

How it translates is in `descend.pxd`.
"""
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.mem.format cimport RIGHT_READ, RIGHT_WRITE
from hvcore._native.mem.ram cimport ram_t

cdef enum:
    NESTED_SHIFT = 5
    NESTED_OVERLAY = 1 << 11

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


# A nested TLB: translations of 4 KiB of GPAs that were found, direct-mapped. Empty entries are zero.
cdef struct nested_entry_t:
    u64 tag                 # a GPA of the page with its low 12 bits set
    u64 found               # SPA of the page; below it rights, page shift from NESTED_SHIFT, NESTED_OVERLAY


# A space that is looked at through such a cache.
cdef struct cached_space_t:
    space_t* space
    nested_entry_t* entries
    u64 mask                # entries, a power of two, less one
    u64 same_from           # in this range, which may be empty, every GPA is its own SPA and may be read and written
    u64 same_bytes


# The second level of a domain of an IOMMU: tables in the GPA space of the partition that the IOMMU belongs to.
cdef struct remapped_space_t:
    cached_space_t* view    # of that partition
    u64 root                # GPA of the top table
    u64 limit               # addresses from here on do not exist
    u64 reserved            # must be zero in every entry
    u64 large_shifts        # page sizes: page_format_t
    u8 levels
    bint marks              # accessed and dirty bits
    u8 cause                # WalkStatus of what was refused last ...
    bint beyond             # ... because the address does not exist
    u64 output              # of what was translated last: a GPA


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
