"""Module `space`: system memory, page pools, and the second level (GPA -> SPA) of each partition.

One thread at a time is inside a machine: `enter_guard` and `leave_guard` embrace what lets others run meanwhile, and
`require_thread` stands at the beginning of what does not, but would meet a machine that another thread is running.
What only reads a number needs none of them.

Contract: every address that comes from Python is checked here, and names itself in the exception; the rooms
below trust their callers. Memory lives until the last object or NumPy view that shares it is gone.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.pythread cimport PyThread_get_thread_ident
from hvcore._native.base.guard cimport guard_t
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.mem.descend cimport second_level_walk, space_translate
from hvcore._native.mem.format cimport RIGHT_EXECUTE, RIGHT_USER_EXECUTE as USER_EXECUTE_RIGHT
from hvcore._native.mem.ram cimport PAGE_SHIFT, PAGE_SIZE, ram_at, ram_written
from hvcore._native.mem.second_level cimport SECOND_OK, overlay_insert, overlay_t, second_level_t
from hvcore._native.mem.tables cimport (
    pool_allocate, pool_release, space_map_page, space_protect_page, space_unmap_page, table_free,
)
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset
from posix.mman cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap,
)

READ = 1
WRITE = 2
EXECUTE = 4
USER_EXECUTE = 16

cdef enum:
    STALE_BYTES = 4096 * 8


cdef bint held_elsewhere(const guard_t* guard) noexcept:
    return guard != NULL and guard.depth and guard.owner != PyThread_get_thread_ident()


cdef int require_thread(const guard_t* guard) except -1:
    """Raise RuntimeError when another thread is inside. NULL guards nothing."""
    if held_elsewhere(guard):
        raise RuntimeError("this Hypervisor is in use by another thread: use one per thread")
    return 0


cdef int enter_guard(guard_t* guard) except -1:
    """One thread at a time, any number of times. Raises RuntimeError when another one is inside."""
    require_thread(guard)
    if guard != NULL:
        guard.owner = PyThread_get_thread_ident()
        guard.depth += 1
    return 0


cdef void leave_guard(guard_t* guard) noexcept:
    if guard != NULL:
        guard.depth -= 1


cdef void* take_host_memory(u64 size_bytes, bint sparse) noexcept:
    """Zeroed bytes or NULL. Ordinary memory is the allocator's, which a sanitizer watches."""
    cdef void* found
    if not sparse:
        return calloc(size_bytes, 1)
    found = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    return NULL if found == MAP_FAILED else found


cdef void give_host_memory(void* taken, u64 size_bytes, bint sparse) noexcept:
    if not sparse:
        free(taken)
    elif taken != NULL:
        munmap(taken, size_bytes)


cdef class SystemMemory:
    """RAM of the machine, SPA [0, size), and above it the hypervisor's reserve, [size, size + reserve).

    Parameters
    ----------
    size, reserve : int
        Bytes, multiples of 4096. The host commits pages when they are first touched.
    sparse : bool
        Only address space is taken now, whatever the host's rules of overcommitment: more than the host has is
        possible as long as most of it stays untouched. There is no `reserve_pool` then: the reserve is its user's.

    Raises
    ------
    ValueError
        `size` or `reserve` is not a positive multiple of 4096.
    MemoryError
        The host cannot provide the range.
    """

    def __cinit__(self, u64 size, u64 reserve, *, bint sparse=False):
        cdef u64 total = size + reserve, spn
        if size == 0 or size % PAGE_SIZE or size > <u64>1 << 46:
            raise ValueError(f"size must be a positive multiple of 4096 below 64 TiB, not {size:#x}")
        if reserve % PAGE_SIZE or reserve > <u64>1 << 40:
            raise ValueError(f"reserve must be a multiple of 4096, not {reserve:#x}")
        self.sparse = sparse
        self.storage_bytes = total + PAGE_SIZE
        self.watched_bytes = (total >> PAGE_SHIFT) * 8
        self.storage = take_host_memory(self.storage_bytes, sparse)
        self.ram.watched = <u64*>take_host_memory(self.watched_bytes, sparse)
        self.ram.stale = <u64*>calloc(STALE_BYTES, 1)
        if self.storage == NULL or self.ram.watched == NULL or self.ram.stale == NULL:
            raise MemoryError(f"the host has no {total:#x} bytes for system memory")
        self.ram.host = <u8*>((<u64>self.storage + PAGE_SIZE - 1) & ~<u64>(PAGE_SIZE - 1))
        self.ram.size_bytes = total
        self.ram.ram_bytes = size
        self.exported, self.released = [], []
        if sparse:
            return
        self.reserve_pool = PagePool(self)
        for spn in range((total >> PAGE_SHIFT) - 1, (size >> PAGE_SHIFT) - 1, -1):
            self.reserve_pool.deposit(spn)

    def __dealloc__(self):
        give_host_memory(self.storage, self.storage_bytes, self.sparse)
        give_host_memory(self.ram.watched, self.watched_bytes, self.sparse)
        free(self.ram.stale)

    @property
    def size(self):
        """Bytes of RAM."""
        return self.ram.ram_bytes

    @property
    def reserve(self):
        """Bytes above RAM that belong to the hypervisor."""
        return self.ram.size_bytes - self.ram.ram_bytes

    cdef int check_range(self, u64 spa, u64 size_bytes) except -1:
        if spa > self.ram.size_bytes or size_bytes > self.ram.size_bytes - spa:
            raise IndexError(f"spa {spa:#x} with {size_bytes:#x} bytes is outside system memory")
        return 0

    def read(self, u64 spa, u64 size):
        """Copy `size` bytes at `spa`. Raises IndexError outside system memory."""
        self.check_range(spa, size)
        return PyBytes_FromStringAndSize(<char*>ram_at(&self.ram, spa), size)

    def write(self, u64 spa, data):
        """Store any buffer at `spa`; code decoded from there is forgotten. Raises IndexError outside."""
        require_thread(&self.guard)
        cdef Py_buffer source
        PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
        try:
            self.check_range(spa, source.len)
            memcpy(ram_at(&self.ram, spa), source.buf, source.len)
            ram_written(&self.ram, spa, source.len)
        finally:
            PyBuffer_Release(&source)

    def zero(self, u64 spa, u64 size):
        """Clear `size` bytes at `spa`. Raises IndexError outside system memory."""
        require_thread(&self.guard)
        self.check_range(spa, size)
        memset(ram_at(&self.ram, spa), 0, size)
        ram_written(&self.ram, spa, size)

    def page(self, u64 spn):
        """A page that the hypervisor itself writes, as a memoryview: never code, so never verified."""
        self.check_range(spn << PAGE_SHIFT, PAGE_SIZE)
        return memoryview(MemoryView(self, spn << PAGE_SHIFT, PAGE_SIZE, False))

    def view(self, u64 spa, u64 size):
        """A buffer over `size` bytes at `spa` for users; decoded code under it is verified while it is exported."""
        self.check_range(spa, size)
        return MemoryView(self, spa, size, True)

    def live_views(self):
        """How many user buffers are exported now."""
        return len(self.exported)


cdef class MemoryView:
    """Exports a run of system memory as a writable buffer and counts its exports."""
    cdef SystemMemory memory
    cdef u64 spa
    cdef u64 size_bytes
    cdef bint counted
    cdef readonly Py_ssize_t exports

    def __cinit__(self, SystemMemory memory not None, u64 spa, u64 size_bytes, bint counted):
        memory.check_range(spa, size_bytes)
        self.memory = memory
        self.spa = spa
        self.size_bytes = size_bytes
        self.counted = counted

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, ram_at(&self.memory.ram, self.spa), self.size_bytes, 0, flags)
        self.exports += 1
        if self.counted:
            self.memory.exported.append((self.spa, self.size_bytes))

    def __releasebuffer__(self, Py_buffer* buffer):
        self.exports -= 1
        if self.counted:
            self.memory.exported.remove((self.spa, self.size_bytes))
            if held_elsewhere(&self.memory.guard):
                self.memory.released.append((self.spa, self.size_bytes))
            else:
                ram_written(&self.memory.ram, self.spa, self.size_bytes)


include "space_pool.pxi"


cdef u64 pages_of(int level) noexcept:
    """4 KiB pages in one of this level."""
    return <u64>1 << (9 * (level - 1))


cdef class GpaSpace:
    """The second-level tables of one partition and the overlay pages that lie over them (TLFS 7).

    Tables are pages of `pool`. Page numbers are in units of 4 KiB everywhere, for large pages too: `large` ones have
    2 MiB, `huge` ones 1 GiB.

    Parameters
    ----------
    gpa_bits : int
        Width of guest physical addresses: 32 to 52, and what the levels can hold.
    levels : int
        Of tables: 4, 5, or 3 as an IOMMU has them.
    marks : bool
        Accessed and dirty bits are kept; reading an entry of the guest's tables then counts as writing it.
    mode_based_execute : bool
        EXECUTE is for supervisor-mode addresses and USER_EXECUTE for user-mode ones. Without it EXECUTE is for both.

    Raises
    ------
    ValueError
        `gpa_bits` or `levels` is out of range.
    """

    def __cinit__(self, SystemMemory memory not None, PagePool pool not None, *, int gpa_bits=46, int levels=4,
                  bint marks=False, bint mode_based_execute=False):
        if not 3 <= levels <= 5:
            raise ValueError(f"levels must be 3, 4 or 5, not {levels}")
        if not 32 <= gpa_bits <= min(52, 12 + 9 * levels):
            raise ValueError(f"gpa_bits must be 32 to {min(52, 12 + 9 * levels)} with {levels} levels, not {gpa_bits}")
        self.memory = memory
        self.pool = pool
        self.gpa_bits = gpa_bits
        self.space.ram = &memory.ram
        self.space.gpa_limit = <u64>1 << gpa_bits
        self.space.levels = levels
        self.space.marks = marks
        self.space.mode_based_execute = mode_based_execute
        self.space.generation = 1

    def __dealloc__(self):
        free(self.space.overlays)

    cdef int level_of(self, u64 gpn, u64 count, bint large, bint huge) except -1:
        """The level of tables that maps such pages; they must lie in the space."""
        cdef u64 pages = self.space.gpa_limit >> PAGE_SHIFT
        cdef int level = 3 if huge else 2 if large else 1
        if self.space.root_spa == 0:
            raise ValueError("the space has no root table: call create() first")
        if gpn & (pages_of(level) - 1):
            raise ValueError(f"gpn {gpn:#x} must be a multiple of {pages_of(level)} for pages of this size")
        if gpn >= pages or count > pages or count * pages_of(level) > pages - gpn:
            raise IndexError(f"gpn {gpn:#x} with {count} pages is outside the GPA space")
        return level

    @property
    def root(self):
        """SPA of the top table: 0 before `create`."""
        return self.space.root_spa

    def create(self):
        """Allocate the root table; False when the pool is empty."""
        require_thread(&self.memory.guard)
        if self.space.root_spa == 0:
            self.space.root_spa = pool_allocate(&self.pool.pool)
        return self.space.root_spa != 0

    def destroy(self):
        """Give every table back to the pool and drop all overlays."""
        require_thread(&self.memory.guard)
        if self.space.root_spa:
            table_free(&self.space, &self.pool.pool, self.space.root_spa, self.space.levels)
        self.space.root_spa = 0
        self.space.overlay_count = 0
        self.space.generation += 1

    def map(self, u64 gpn, const u64[::1] spns, *, int rights, bint large=False, bint huge=False):
        """Map consecutive pages from `gpn` to `spns`; how many were mapped before the pool ran out.

        Raises IndexError for pages outside either space, ValueError for unaligned large pages.
        """
        require_thread(&self.memory.guard)
        cdef Py_ssize_t i
        cdef int level = self.level_of(gpn, spns.shape[0], large, huge)
        self.space.generation += 1
        for i in range(spns.shape[0]):
            self.memory.check_range(spns[i] << PAGE_SHIFT, pages_of(level) << PAGE_SHIFT)
            if spns[i] & (pages_of(level) - 1):
                raise ValueError(f"spns[{i}] {spns[i]:#x} must be a multiple of {pages_of(level)}, the page size")
            if not space_map_page(&self.space, &self.pool.pool, (gpn + i * pages_of(level)) << PAGE_SHIFT,
                                  spns[i] << PAGE_SHIFT, self.known_rights(rights), level):
                return i
        return spns.shape[0]

    cdef u64 known_rights(self, int rights) noexcept:
        return rights & (7 | (USER_EXECUTE_RIGHT if self.space.mode_based_execute else 0))

    def unmap(self, u64 gpn, u64 count, *, bint large=False, bint huge=False):
        """Unmap `count` pages; fewer when splitting a large page found the pool empty."""
        require_thread(&self.memory.guard)
        cdef u64 i
        cdef int level = self.level_of(gpn, count, large, huge)
        self.space.generation += 1
        for i in range(count):
            if not space_unmap_page(&self.space, &self.pool.pool, (gpn + i * pages_of(level)) << PAGE_SHIFT, level):
                return i
        return count

    def protect(self, u64 gpn, u64 count, *, int rights, bint large=False, bint huge=False):
        """Change the rights of mapped pages; fewer when splitting a large page found the pool empty."""
        require_thread(&self.memory.guard)
        cdef u64 i
        cdef int level = self.level_of(gpn, count, large, huge)
        self.space.generation += 1
        for i in range(count):
            if not space_protect_page(&self.space, &self.pool.pool, (gpn + i * pages_of(level)) << PAGE_SHIFT,
                                      self.known_rights(rights), level):
                return i
        return count

    def lookup(self, u64 gpa):
        """(spa, rights, page shift) that the tables give for `gpa`, overlays ignored; None if unmapped."""
        cdef second_level_t found = second_level_walk(&self.space, gpa, 0, False)
        return (found.spa, self.known_rights(found.rights), found.page_shift) if found.status == SECOND_OK else None

    def resolve(self, u64 gpa):
        """(spa, rights, page shift, overlay) as the partition sees `gpa`; None if unmapped."""
        cdef second_level_t found = space_translate(&self.space, gpa, 0, False)
        if found.status != SECOND_OK:
            return None
        return found.spa, self.known_rights(found.rights), found.page_shift, bool(found.overlay)

    def set_overlay(self, u16 kind, u16 vp, u64 gpn, u64 spn, u8 rights):
        """Lay page `spn` over `gpn`; an earlier overlay of the same kind and VP moves. Lower kinds win."""
        require_thread(&self.memory.guard)
        cdef overlay_t* grown
        cdef u32 i
        self.memory.check_range(spn << PAGE_SHIFT, PAGE_SIZE)
        if rights & RIGHT_EXECUTE:
            rights |= USER_EXECUTE_RIGHT
        self.clear_overlay(kind, vp)
        grown = <overlay_t*>realloc(self.space.overlays, (self.space.overlay_count + 1) * sizeof(overlay_t))
        if grown == NULL:
            raise MemoryError("the host has no memory for an overlay")
        self.space.overlays = grown
        i = self.space.overlay_count
        overlay_insert(grown, i, overlay_t(gpn=gpn, spa=spn << PAGE_SHIFT, kind=kind, vp=vp, rights=rights))
        self.space.overlay_count += 1

    def clear_overlay(self, u16 kind, u16 vp):
        """Take the overlay of this kind and VP away, if there is one; what it covered shows again."""
        require_thread(&self.memory.guard)
        cdef u32 i, kept = 0
        for i in range(self.space.overlay_count):
            if self.space.overlays[i].kind != kind or self.space.overlays[i].vp != vp:
                self.space.overlays[kept] = self.space.overlays[i]
                kept += 1
        self.space.overlay_count = kept
        self.space.generation += 1

    def flush(self):
        """Make every VP of this space drop its translations before it runs again."""
        require_thread(&self.memory.guard)
        self.space.generation += 1
