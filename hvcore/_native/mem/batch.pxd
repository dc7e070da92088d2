"""Many translations in one call: arrays of addresses in, columns of results out.

The loop is compiled for each format of the first level that is worth it; `all_columns` is a constant too, so that the
columns that are asked for most (SPA, status, references) cost no tests.
"""
from hvcore._native.base.types cimport u8, u64
from hvcore._native.mem.descend cimport cached_p, memory_p, space_p, tables_t
from hvcore._native.mem.descent cimport WALK_BEYOND, WALK_NESTED, WALK_NOT_PRESENT, WALK_OK, WALK_TABLE
from hvcore._native.mem.format cimport page_format_t
from hvcore._native.mem.ram cimport PAGE_SHIFT, ram_t
from hvcore._native.mem.request cimport need_t, needs_of, walk_request_t
from hvcore._native.mem.second_level cimport SECOND_UNMAPPED, cached_space_t, space_t
from hvcore._native.mem.walk cimport walk_needing, walk_t, walk_to_gpa, walk_to_spa
from cython cimport unlikely

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void* place) noexcept nogil

cdef enum:
    BLOCK = 32
    OUTCOME_BEYOND = 5
    OUTCOME_TABLE = 5       # and the second level's status: a table of the guest could not be read ...
    OUTCOME_GPA = 9         # ... or the result could not be reached


# Where results go; NULL: not asked for.
cdef struct columns_t:
    u64* gpa
    u64* spa
    u8* page_shift
    u8* nested_page_shift
    u8* status
    u8* error_code
    u8* references
    u8* nested_references


cdef struct batch_t:
    walk_request_t request
    ram_t* ram
    space_t* space          # NULL: GPAs are SPAs
    cached_space_t cached   # entries NULL: without a cache
    const u64* gvas
    const u8* accesses      # of each element; NULL: `access` for all
    u64 access              # ored into each
    u64 count
    u64 built_for           # the element that tables were already looked for: it fails for good
    bint lazy               # tables may be missing only because nobody asked for them yet
    columns_t out


cdef inline u8 outcome(const walk_t* found) noexcept nogil:
    """One number for both dimensions; hvcore.paging.TranslationStatus names it."""
    if found.status == WALK_TABLE:
        return OUTCOME_TABLE + <u8>found.nested_status
    if found.status == WALK_NESTED:
        return OUTCOME_GPA + <u8>found.nested_status
    return OUTCOME_BEYOND if found.status == WALK_BEYOND else <u8>found.status


cdef inline bint may_be_built(const walk_t* found) noexcept nogil:
    return found.status == WALK_NOT_PRESENT or (
        (found.status == WALK_TABLE or found.status == WALK_NESTED) and found.nested_status == SECOND_UNMAPPED)


cdef inline bint is_plain(const space_t* space) noexcept nogil:
    """The second level that most have: four levels, no overlays, no marks, one execute right."""
    return space.levels == 4 and not (space.overlay_count or space.marks or space.mode_based_execute)


cdef inline void store(const columns_t* out, u64 i, const walk_t* found, bint nested, bint all_columns) noexcept nogil:
    """The columns of one element."""
    cdef u64 spa = found.spa if found.status == WALK_OK else 0
    if not all_columns:
        out.spa[i] = spa
        out.status[i] = outcome(found)
        out.references[i] = found.references
        if nested:
            out.nested_references[i] = found.nested_references
        return
    if out.gpa != NULL:
        out.gpa[i] = found.address
    if out.spa != NULL:
        out.spa[i] = spa
    if out.page_shift != NULL:
        out.page_shift[i] = found.page_shift if found.status == WALK_OK or found.status == WALK_NESTED else 0
    if out.nested_page_shift != NULL:
        out.nested_page_shift[i] = found.nested_page_shift if nested and found.status == WALK_OK else 0
    if out.status != NULL:
        out.status[i] = outcome(found)
    if out.error_code != NULL:
        out.error_code[i] = <u8>found.error_code
    if out.references != NULL:
        out.references[i] = found.references
    if out.nested_references != NULL:
        out.nested_references[i] = found.nested_references


cdef inline u64 translate_each(tables_t tables, page_format_t form, const batch_t* batch, bint plain,
                               bint all_columns, u64 first) noexcept nogil:
    """Translate the elements from `first`; the element at which a table may have to be built first, or `count`.

    `plain`, a constant: the second level `is_plain`."""
    cdef walk_request_t request = batch.request         # copies, because stores to a column might change the originals
    cdef columns_t out = batch.out
    cdef const u64* gvas = batch.gvas
    cdef const u8* accesses = batch.accesses
    cdef u64 access = batch.access, count = batch.count, built_for = batch.built_for, stopped = count, i, j, block
    cdef bint lazy = batch.lazy
    cdef need_t need = needs_of(form, &request, access)
    cdef walk_t found
    cdef walk_t[BLOCK] halves
    cdef ram_t ram = batch.ram[0]
    cdef space_t space
    cdef cached_space_t cached
    if tables_t is space_p or tables_t is cached_p:
        space = batch.space[0]
        space.ram = &ram
        if plain:
            space.levels, space.overlay_count, space.marks, space.mode_based_execute = 4, 0, False, False
    if tables_t is memory_p:
        tables = &ram
    elif tables_t is space_p:
        tables = &space
    elif tables_t is cached_p:
        cached = batch.cached
        cached.space = &space
        cached.same_bytes = 0
        tables = &cached
    i = first
    while i < count:
        if tables_t is cached_p:
            # In two halves: whether the cache has the result cannot be predicted, and a guess that was wrong must not
            # throw away the walks of the addresses behind it.
            block = min(count - i, <u64>BLOCK)
            for j in range(block):
                if accesses != NULL:
                    access = batch.access | accesses[i + j]
                    need = needs_of(form, &request, access)
                if walk_to_gpa(tables, form, &request, access, need, gvas[i + j], &halves[j]):
                    prefetch(&cached.entries[(halves[j].address >> PAGE_SHIFT) & cached.mask])
            for j in range(block):
                if accesses != NULL:
                    access = batch.access | accesses[i + j]
                if halves[j].status == WALK_OK:
                    walk_to_spa(tables, &request, access, &halves[j])
                if unlikely(halves[j].status != WALK_OK and lazy and i + j != built_for and may_be_built(&halves[j])):
                    stopped = i + j
                    break
                store(&out, i + j, &halves[j], True, all_columns)
            if unlikely(stopped != count):
                break
            i += block
        else:
            if accesses != NULL:
                access = batch.access | accesses[i]
                need = needs_of(form, &request, access)
            walk_needing(tables, form, &request, access, need, gvas[i], &found)
            if unlikely(found.status != WALK_OK and lazy and i != built_for and may_be_built(&found)):
                stopped = i
                break
            store(&out, i, &found, tables_t is space_p, all_columns)
            i += 1
    if unlikely(ram.stale_count != batch.ram.stale_count or ram.stale_overflow):
        batch.ram.stale_count, batch.ram.stale_overflow = ram.stale_count, ram.stale_overflow
    return stopped
