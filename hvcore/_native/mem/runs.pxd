"""Runs of addresses that go to consecutive places, or fail alike: what a translation of a whole range comes to."""
from hvcore._native.base.types cimport u8, u64
from hvcore._native.mem.batch cimport outcome
from hvcore._native.mem.descent cimport WALK_BEYOND, WALK_NESTED, WALK_NOT_CANONICAL, WALK_OK, WALK_TABLE
from hvcore._native.mem.format cimport page_format_t
from hvcore._native.mem.ram cimport PAGE_SHIFT
from hvcore._native.mem.walk cimport walk_t
from libc.stdlib cimport realloc


cdef struct run_t:
    u64 gva
    u64 gpa                 # zero if the first level fails
    u64 spa                 # zero if either does
    u64 size_bytes
    u8 status               # `outcome` of batch.pxd
    u8 error_code


cdef struct runs_t:
    run_t* runs
    u64 count
    u64 capacity


cdef inline u64 same_answer(page_format_t form, const walk_t* found, u64 gva, bint nested) noexcept nogil:
    """Bytes from `gva` on for which a walk says the same: the rest of the page, or of what an entry that ended the walk
    would have mapped."""
    cdef int shift = PAGE_SHIFT, level
    if found.status == WALK_NOT_CANONICAL:
        return (<u64>1 << 63) - gva if form.linear_bits == 32 and gva < <u64>1 << 63 else (
            <u64>0 - gva if form.linear_bits == 32 else <u64>0 - (<u64>1 << (form.linear_bits - 1)) - gva)
    if found.status == WALK_OK:
        shift = found.page_shift if form.levels else 63
        if nested:
            shift = min(shift, <int>found.nested_page_shift)
    elif found.status != WALK_NESTED:
        level = form.levels - found.references
        if found.status != WALK_TABLE and found.status != WALK_BEYOND:
            level += 1
        shift = max(<int>PAGE_SHIFT, PAGE_SHIFT + form.index_bits * (level - 1))
    return (<u64>1 << shift) - (gva & ((<u64>1 << shift) - 1))


cdef inline bint runs_add(runs_t* runs, u64 gva, u64 size_bytes, const walk_t* found) noexcept nogil:
    """Lengthen the last run, or begin one; False without memory. Addresses come in order."""
    cdef bint has_gpa = found.status == WALK_OK or found.status == WALK_NESTED
    cdef u64 gpa = found.address if has_gpa else 0, spa = found.spa if found.status == WALK_OK else 0
    cdef u64 capacity = max(<u64>64, 2 * runs.capacity)
    cdef run_t* last = runs.runs + runs.count - 1
    if runs.count and last.status == outcome(found) and last.error_code == <u8>found.error_code and (
            not has_gpa or last.gpa + last.size_bytes == gpa) and (
            found.status != WALK_OK or last.spa + last.size_bytes == spa):
        last.size_bytes += size_bytes
        return True
    if runs.count == runs.capacity:
        last = <run_t*>realloc(runs.runs, capacity * sizeof(run_t))
        if last == NULL:
            return False
        runs.runs, runs.capacity = last, capacity
    runs.runs[runs.count] = run_t(gva=gva, gpa=gpa, spa=spa, size_bytes=size_bytes, status=outcome(found),
                                  error_code=<u8>found.error_code)
    runs.count += 1
    return True
