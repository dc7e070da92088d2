"""What a step down the tables leaves: how it ended, the last entry, and the path that led there."""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.mem.format cimport RIGHT_WRITE, page_format_t, path_rights
from hvcore._native.mem.second_level cimport SECOND_MISCONFIGURED, SECOND_RIGHTS, SECOND_UNMAPPED, second_level_t
from cython cimport unlikely

cdef enum WalkStatus:
    WALK_OK
    WALK_NOT_PRESENT        # an entry of this dimension is not present
    WALK_RIGHTS             # present, but the rights do not allow the access
    WALK_RESERVED           # a reserved bit is set in a present entry
    WALK_NOT_CANONICAL
    WALK_TABLE              # an entry could not be reached: see `nested_status`, `address` is its GPA
    WALK_NESTED             # translated, but the second level refuses: `address` is the GPA
    WALK_BEYOND             # without a second level: a table or the result lies outside system memory
    WALK_DEEPER             # never a result: the entry names the table of the next level
    WALK_CHANGED            # never a result: an entry changed while it was marked, the walk starts again

cdef enum Mark:
    MARK_NONE
    MARK_ACCESSED           # every entry of the path
    MARK_DIRTY              # and the one that maps the page


cdef struct descent_t:
    u64 slot                # where the last entry lies, in the dimension of the tables
    u64 entry               # that entry
    u64 path                # the AND of all entries, `inverted` bits turned over
    u8 shift                # log2 of what that entry maps
    u8 references           # entries that were read
    u32 nested_references   # second-level entries that were read for them
    second_level_t where    # of the last entry


cdef inline bint lacks_marks(page_format_t form, const descent_t* at, u64 access) noexcept nogil:
    """Whether an access that was granted still has marks to set."""
    return form.accessed and not (at.path & form.accessed and (not access & RIGHT_WRITE or at.entry & form.dirty))


cdef inline bint second_level_grants(page_format_t form, WalkStatus status, const descent_t* at, u8 access,
                                     second_level_t* found) noexcept nogil:
    """Whether a descent ended at a page that allows the access; else `found.status` says why not."""
    found.references = at.references
    if unlikely(status != WALK_OK):
        found.status = SECOND_MISCONFIGURED if status == WALK_RESERVED else SECOND_UNMAPPED
        return False
    found.rights = path_rights(form, at.path)
    found.page_shift = at.shift
    if unlikely(found.rights & access != access):
        found.status = SECOND_RIGHTS
        return False
    return True
