"""The objects over the mem room: system memory, page pools and second-level spaces."""
from hvcore._native.base.guard cimport guard_t
from hvcore._native.base.types cimport u64
from hvcore._native.mem.ram cimport ram_t
from hvcore._native.mem.second_level cimport space_t
from hvcore._native.mem.tables cimport pool_t


cdef class SystemMemory:
    cdef ram_t ram
    cdef void* storage
    cdef u64 storage_bytes
    cdef u64 watched_bytes
    cdef readonly bint sparse
    cdef list exported              # (spa, size) of each buffer that a user holds
    cdef readonly PagePool reserve_pool
    cdef guard_t guard              # of the machine whose memory it is
    cdef list released              # views that another thread let go while somebody was inside
    cdef int check_range(self, u64 spa, u64 size_bytes) except -1


cdef class PagePool:
    cdef pool_t pool
    cdef SystemMemory memory


cdef class GpaSpace:
    cdef space_t space
    cdef readonly PagePool pool
    cdef readonly int gpa_bits
    cdef SystemMemory memory
    cdef int level_of(self, u64 gpn, u64 count, bint large, bint huge) except -1
    cdef u64 known_rights(self, int rights) noexcept


cdef int require_thread(const guard_t* guard) except -1
cdef int enter_guard(guard_t* guard) except -1
cdef void leave_guard(guard_t* guard) noexcept
