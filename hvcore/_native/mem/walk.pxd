"""The page walk: one walker for every format, GVA -> GPA or GPA -> SPA (SDM 3A 4.5.4; TLFS 11).

    63      48 47   39 38   30 29   21 20   12 11        0
    | sign ... | level4 | level3 | level2 | level1 |  offset  |     nine bits select one of 512 entries a level

A walk whose tables lie in a guest's GPA space translates the address of each entry by a second-level walk of its
own: at four levels over four that is 4 * (4 + 1) + 4 = 24 references. Accessed and dirty bits are set when the
access is granted, never for one that faults.
"""
from hvcore._native.base.types cimport u16, u32, u64, u8
from hvcore._native.mem.format cimport (
    RIGHT_ALL, RIGHT_EXECUTE, RIGHT_READ, RIGHT_USER, RIGHT_WRITE, entry_rights, page_format_t, second_level_4,
)
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SHIFT, ram_at, ram_t, ram_written

cdef enum:
    ENTRY_ADDRESS = 0x000FFFFFFFFFF000
    MAXIMUM_LEVELS = 5

cdef enum WalkStatus:
    WALK_OK
    WALK_NOT_PRESENT        # an entry of this dimension is not present
    WALK_RIGHTS             # present, but the rights do not allow the access
    WALK_RESERVED           # a reserved bit is set in a present entry
    WALK_NOT_CANONICAL
    WALK_TABLE              # an entry could not be reached: see `nested_status`, `address` is its GPA
    WALK_NESTED             # translated, but the second level refuses: `address` is the GPA

cdef enum SecondLevelStatus:
    SECOND_OK
    SECOND_UNMAPPED
    SECOND_RIGHTS
    SECOND_OVERLAY          # an overlay page that does not grant the access


cdef struct overlay_t:
    u64 gpn
    u64 spa
    u16 kind
    u16 vp
    u8 rights


# One partition's second level: its tables, and the overlay pages that hide what they map.
cdef struct space_t:
    ram_t* ram
    u64 root_spa            # zero: nothing was ever mapped
    u64 gpa_limit
    overlay_t* overlays
    u32 overlay_count
    u64 generation          # grows with every change that a TLB must notice


cdef struct second_level_t:
    SecondLevelStatus status
    u8 rights
    u8 page_shift
    u8 references
    bint overlay
    u64 spa


cdef struct walk_t:
    WalkStatus status
    SecondLevelStatus nested_status
    u8 rights
    u8 page_shift
    u8 nested_page_shift
    u8 references           # entries of this dimension that were read
    u8 nested_references    # second-level entries that were read for it
    u8 nested_rights        # rights of the final page at the second level
    bint overlay            # the final page is an overlay
    u64 address             # where the walk ended: GPA (or SPA, for a flat walk)
    u64 spa


cdef struct walk_request_t:
    u64 root                # address of the top table
    u64 access              # RIGHT_ bits that the access needs
    bint supervisor         # supervisor accesses ignore the user right ...
    bint write_protect      # ... and the write right too unless CR0.WP
    bint set_marks          # set accessed and dirty bits
    bint ignore_rights


cdef inline void overlay_insert(overlay_t* overlays, u32 count, overlay_t added) noexcept nogil:
    """Keep the list in order of kind, then VP: where two overlays lie on one page, the lower kind shows."""
    cdef u32 i = count
    while i > 0 and (overlays[i - 1].kind > added.kind or
                     (overlays[i - 1].kind == added.kind and overlays[i - 1].vp > added.vp)):
        overlays[i] = overlays[i - 1]
        i -= 1
    overlays[i] = added


cdef inline second_level_t space_translate(space_t* space, u64 gpa, u8 access) noexcept nogil:
    """GPA -> SPA: an overlay if one lies there, else the tables. `access` zero asks for presence only."""
    cdef second_level_t found
    cdef overlay_t* overlay
    cdef u32 i
    for i in range(space.overlay_count):
        overlay = &space.overlays[i]
        if overlay.gpn == gpa >> PAGE_SHIFT:
            found.status = SECOND_OK if overlay.rights & access == access else SECOND_OVERLAY
            found.rights = overlay.rights
            found.page_shift = PAGE_SHIFT
            found.references = 0
            found.overlay = True
            found.spa = overlay.spa | (gpa & PAGE_OFFSET_MASK)
            return found
    return second_level_walk(space, gpa, access)


cdef inline second_level_t second_level_walk(space_t* space, u64 gpa, u8 access) noexcept nogil:
    """GPA -> SPA by the tables alone."""
    cdef second_level_t found
    cdef walk_t walked
    found.overlay = False
    found.references = 0
    found.rights = 0
    found.page_shift = PAGE_SHIFT
    found.spa = 0
    found.status = SECOND_UNMAPPED
    if gpa >= space.gpa_limit or space.root_spa == 0:
        return found
    walked = walk(space.ram, second_level_4(), NULL, walk_request_t(
        root=space.root_spa, access=access, supervisor=False, write_protect=True, set_marks=False,
        ignore_rights=False), gpa)
    found.references = walked.references
    found.rights = walked.rights
    found.page_shift = walked.page_shift
    found.spa = walked.address
    found.status = (SECOND_OK if walked.status == WALK_OK else
                    SECOND_RIGHTS if walked.status == WALK_RIGHTS else SECOND_UNMAPPED)
    return found


cdef inline bint rights_allow(walk_request_t request, u8 rights) noexcept nogil:
    cdef u64 needed = request.access
    if request.ignore_rights:
        return True
    if request.supervisor:
        needed &= ~<u64>RIGHT_USER
        if not request.write_protect:
            needed &= ~<u64>RIGHT_WRITE
    return rights & needed == needed


cdef inline u64 large_page_reserved(page_format_t form, u8 shift) noexcept nogil:
    """Address bits of a large-page entry that must be zero (bit 12 is PAT where the format has marks)."""
    cdef u64 low = ((<u64>1 << shift) - 1) & ~<u64>0xFFF
    return low & ~<u64>0x1000 if form.accessed else low


cdef inline walk_t walk(ram_t* ram, page_format_t form, space_t* nested, walk_request_t request,
                        u64 address) noexcept nogil:
    """Walk `address`. With `nested` the tables and the result lie in that GPA space, without it in SPA space."""
    cdef walk_t result
    cdef second_level_t where
    cdef u64[MAXIMUM_LEVELS] slots      # where each entry lies in the dimension of the tables ...
    cdef u64[MAXIMUM_LEVELS] places     # ... and in system memory
    cdef u64 table = request.root & ENTRY_ADDRESS
    cdef u64 entry = 0, reserved, marks
    cdef u8 level = form.levels, depth = 0, shift = PAGE_SHIFT, i
    result.status = WALK_OK
    result.nested_status = SECOND_OK
    result.rights = RIGHT_ALL
    result.page_shift = result.nested_page_shift = PAGE_SHIFT
    result.references = result.nested_references = 0
    result.nested_rights = RIGHT_ALL
    result.overlay = False
    result.address = result.spa = 0
    while True:
        shift = PAGE_SHIFT + 9 * (level - 1)
        slots[depth] = places[depth] = table + (((address >> shift) & 511) << 3)
        if nested != NULL:
            where = space_translate(nested, slots[depth], RIGHT_READ)
            result.nested_references += where.references
            if where.status != SECOND_OK:
                result.status = WALK_TABLE
                result.nested_status = where.status
                result.address = slots[depth]
                return result
            places[depth] = where.spa
        elif slots[depth] >= ram.size_bytes:
            # SAFETY: a page that Python still has a view of may have become a table; what it wrote is no address.
            result.status = WALK_NOT_PRESENT
            return result
        entry = (<u64*>ram_at(ram, places[depth]))[0]
        depth += 1
        result.references += 1
        if not entry & form.present:
            result.status = WALK_NOT_PRESENT
            return result
        reserved = form.reserved
        if level == 4 and form.accessed:
            reserved |= form.large
        elif entry & form.large and level > 1:
            reserved |= large_page_reserved(form, shift)
        if entry & reserved:
            result.status = WALK_RESERVED
            return result
        result.rights &= entry_rights(form, entry)
        if level == 1 or (entry & form.large and level < 4):
            break
        table = entry & ENTRY_ADDRESS
        level -= 1
    result.page_shift = shift
    result.address = (entry & ENTRY_ADDRESS & ~((<u64>1 << shift) - 1)) | (address & ((<u64>1 << shift) - 1))
    if not rights_allow(request, result.rights):
        result.status = WALK_RIGHTS
        return result
    if form.accessed and request.set_marks:
        for i in range(depth):
            marks = form.accessed
            if i == depth - 1 and request.access & RIGHT_WRITE:
                marks |= form.dirty
            entry = (<u64*>ram_at(ram, places[i]))[0]
            if entry & marks == marks:
                continue
            if nested != NULL:
                where = space_translate(nested, slots[i], RIGHT_READ | RIGHT_WRITE)
                if where.status != SECOND_OK:
                    result.status = WALK_TABLE
                    result.nested_status = where.status
                    result.address = slots[i]
                    return result
            (<u64*>ram_at(ram, places[i]))[0] = entry | marks
            ram_written(ram, places[i], 8)
    if nested != NULL:
        where = space_translate(nested, result.address, request.access & (RIGHT_READ | RIGHT_WRITE | RIGHT_EXECUTE))
        result.nested_references += where.references
        result.nested_status = where.status
        result.nested_page_shift = where.page_shift
        result.nested_rights = where.rights
        result.overlay = where.overlay
        result.spa = where.spa
        if where.status != SECOND_OK:
            result.status = WALK_NESTED
    elif result.address >= ram.size_bytes:
        result.status = WALK_NOT_PRESENT        # SAFETY: as above
    else:
        result.spa = result.address
    return result
