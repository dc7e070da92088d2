"""Module `translator`: translation of arrays of addresses.

Contract: whatever comes from Python is checked here and names itself in the exception. A batch releases the GIL once.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.pythread cimport (
    WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock,
)
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.cpu.spec cimport FLAG_AC
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.cpu.translation cimport refresh_request
from hvcore._native.mem.batch cimport batch_t, is_plain, translate_each
from hvcore._native.mem.builder cimport BUILD_DONE, build_at
from hvcore._native.mem.descend cimport (
    WALK_NESTED, WALK_NOT_PRESENT, WALK_TABLE, cached_p, memory_p, space_p, space_translate,
)
from hvcore._native.mem.format cimport (
    PAGING_4LEVEL, PAGING_PAE, RIGHT_READ, RIGHT_USER, PagingMode, paging_format,
)
from hvcore._native.mem.ram cimport PAGE_SHIFT, PAGE_SIZE, ram_at
from hvcore._native.mem.request cimport ACCESS_ALIGNMENT, ACCESS_IMPLICIT, PAE_ENTRIES
from hvcore._native.mem.second_level cimport SECOND_OK, SECOND_UNMAPPED, nested_entry_t, second_level_t
from hvcore._native.mem.walk cimport walk, walk_t
from hvcore._native.space cimport GpaSpace, SystemMemory
from hvcore._native.table_builder cimport TableBuilder
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cdef enum:
    PRIVILEGE_OF_STATE = 0
    PRIVILEGE_USER = 1
    PRIVILEGE_SUPERVISOR = 2
    PRIVILEGE_IMPLICIT = 3


# What is most common, four levels over a plain second level or none, has a function of its own each; all other cases
# share one a kind. They are functions and not branches of one: the compiler gives up on larger ones.

cdef u64 translate_flat(const batch_t* batch, u64 first) noexcept nogil:
    return translate_each(<memory_p>batch.ram, paging_format(PAGING_4LEVEL), batch, True, False, first)


cdef u64 translate_flat_any(const batch_t* batch, PagingMode mode, bint all_columns, u64 first) noexcept nogil:
    return translate_each(<memory_p>batch.ram, paging_format(mode), batch, True, all_columns, first)


cdef u64 translate_nested(const batch_t* batch, u64 first) noexcept nogil:
    return translate_each(<space_p>batch.space, paging_format(PAGING_4LEVEL), batch, True, False, first)


cdef u64 translate_nested_any(const batch_t* batch, PagingMode mode, bint all_columns, u64 first) noexcept nogil:
    return translate_each(<space_p>batch.space, paging_format(mode), batch, False, all_columns, first)


cdef u64 translate_cached(const batch_t* batch, u64 first) noexcept nogil:
    return translate_each(<cached_p>&batch.cached, paging_format(PAGING_4LEVEL), batch, True, False, first)


cdef u64 translate_cached_any(const batch_t* batch, PagingMode mode, bint all_columns, u64 first) noexcept nogil:
    return translate_each(<cached_p>&batch.cached, paging_format(mode), batch, False, all_columns, first)


cdef u64 translate_from(const batch_t* batch, PagingMode mode, bint all_columns, u64 first) noexcept nogil:
    """`translate_each` for the tables, the format and the columns of a batch."""
    cdef bint common = mode == PAGING_4LEVEL and not all_columns
    if batch.space == NULL:
        return translate_flat(batch, first) if common else translate_flat_any(batch, mode, all_columns, first)
    common = common and is_plain(batch.space)
    if batch.cached.entries != NULL:
        return translate_cached(batch, first) if common else translate_cached_any(batch, mode, all_columns, first)
    return translate_nested(batch, first) if common else translate_nested_any(batch, mode, all_columns, first)


cdef void vp_translate_for(const batch_t* batch, PagingMode mode, u64 gva, walk_t* found) noexcept nogil:
    """One translation without marks and rights: what exists."""
    cdef batch_t one = batch[0]
    one.request.set_marks = False
    one.request.ignore_rights = True
    if one.space == NULL:
        walk(<memory_p>one.ram, paging_format(mode), &one.request, RIGHT_READ, gva, found)
    else:
        walk(<space_p>one.space, paging_format(mode), &one.request, RIGHT_READ, gva, found)


cdef class MemoryImage:
    """A buffer as system memory from SPA 0, for tables that a dump holds. It stays as long as this object.

    Raises
    ------
    ValueError
        The buffer is smaller than a page, or not aligned to 8 bytes.
    """

    def __cinit__(self, data, *, bint writable=False):
        PyObject_GetBuffer(data, &self.buffer, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        self.held = True
        if self.buffer.len < PAGE_SIZE or <u64>self.buffer.buf % 8:
            raise ValueError("memory must be a buffer of a page or more, aligned to 8 bytes")
        self.ram.host = <u8*>self.buffer.buf
        self.ram.size_bytes = self.ram.ram_bytes = self.buffer.len & ~<u64>(PAGE_SIZE - 1)
        # Zero: nothing was decoded from here. Writing an entry asks for its frame's word.
        self.ram.watched = <u64*>calloc(self.ram.size_bytes >> PAGE_SHIFT, 8)
        if self.ram.watched == NULL:
            raise MemoryError("the host has no memory for an image")

    def __dealloc__(self):
        free(self.ram.watched)
        if self.held:
            PyBuffer_Release(&self.buffer)

    @property
    def size(self):
        """Bytes, in whole pages."""
        return self.ram.size_bytes

    @property
    def writable(self):
        """Accessed and dirty marks can be set in it."""
        return not self.buffer.readonly

    def read(self, u64 spa, u64 size):
        """Copy `size` bytes at `spa`. Raises IndexError outside the image."""
        if spa > self.ram.size_bytes or size > self.ram.size_bytes - spa:
            raise IndexError(f"spa {spa:#x} with {size:#x} bytes is outside the image")
        return (<const char*>self.ram.host)[spa:spa + size]


cdef class TableTranslator:
    """Page tables in a memory, and the registers of the processor that uses them.

    Parameters
    ----------
    memory : SystemMemory or MemoryImage
    gpa_space : GpaSpace, the second level of a partition, or
    nested_root, nested_levels : second-level tables in the layout of EPT, levels 1 to 5; 0 levels: none
    guest_tables, second_level_tables : TableBuilder
        Those that make missing tables.
    """

    def __cinit__(self, memory not None, *, GpaSpace gpa_space=None, u64 nested_root=0, u8 nested_levels=0,
                  TableBuilder guest_tables=None, TableBuilder second_level_tables=None):
        self.vp = <vp_t*>calloc(1, sizeof(vp_t))
        self.lock = PyThread_allocate_lock()
        if self.vp == NULL or self.lock == NULL:
            raise MemoryError("the host has no memory for a translator")
        self.vp.partition = &self.partition
        self.memory = memory
        if isinstance(memory, MemoryImage):
            self.ram = &(<MemoryImage>memory).ram
        elif isinstance(memory, SystemMemory):
            self.ram = &(<SystemMemory>memory).ram
        else:
            raise TypeError(f"memory must be a SystemMemory or a MemoryImage, not {type(memory).__name__}")
        if nested_levels > 5:
            raise ValueError(f"nested_levels must be 0 to 5, not {nested_levels}")
        self.guest, self.second = guest_tables, second_level_tables
        if gpa_space is not None:
            self.gpa_space = gpa_space
            self.space = &gpa_space.space
        elif nested_levels:
            self.space = &self.own_space
            self.own_space.ram = self.ram
            self.own_space.root_spa = nested_root & ~<u64>(PAGE_SIZE - 1)
            self.own_space.levels = nested_levels
            self.own_space.gpa_limit = <u64>1 << min(52, 12 + 9 * nested_levels)
        if self.space != NULL:
            self.vp.space = self.space

    def __dealloc__(self):
        if self.lock != NULL:
            PyThread_free_lock(self.lock)
        free(self.vp)

    def set_state(self, *, u64 cr0, u64 cr3, u64 cr4, u64 efer, u64 rflags, u8 cpl, u32 pkru, u32 pkrs,
                  u8 physical_address_bits):
        """Take over registers. Raises RuntimeError while another thread translates."""
        self.require_idle()
        self.partition.physical_bits = physical_address_bits
        self.vp.cr0, self.vp.cr3, self.vp.cr4, self.vp.efer = cr0, cr3, cr4, efer
        self.vp.rflags_system, self.vp.cpl, self.vp.pkru, self.vp.pkrs = rflags, cpl, pkru, pkrs
        self.load_pdptes()
        refresh_request(self.vp)

    cdef void load_pdptes(self) noexcept nogil:
        """PAE reads four entries when CR3 is loaded, and none of them in a walk (SDM 3A 4.4.1)."""
        cdef u64 place = self.vp.cr3 & <u64>0xFFFFFFE0
        cdef second_level_t where
        cdef int i
        for i in range(PAE_ENTRIES):
            self.vp.pdptes[i] = 0
        if self.space != NULL:
            where = space_translate(self.space, place, RIGHT_READ, False)
            while where.status == SECOND_UNMAPPED and self.second is not None and \
                    build_at(&self.second.builder, place) == BUILD_DONE:
                where = space_translate(self.space, place, RIGHT_READ, False)
            if where.status != SECOND_OK:
                return
            place = where.spa
        if place + 8 * PAE_ENTRIES > self.ram.size_bytes:
            return
        for i in range(PAE_ENTRIES):
            self.vp.pdptes[i] = (<u64*>ram_at(self.ram, place))[i]

    @property
    def users(self):
        """Batches that other threads are in."""
        return self.users

    def require_idle(self):
        """Raise RuntimeError while another thread is translating here."""
        if self.users:
            raise RuntimeError("another thread is translating here: change nothing before it is done")

    cdef u64 access_bits(self, u64 access, int privilege) noexcept:
        """What mem/request.pxd calls an access."""
        cdef u64 bits = access
        if privilege == PRIVILEGE_USER or (privilege == PRIVILEGE_OF_STATE and self.vp.cpl == 3):
            bits |= RIGHT_USER
        if privilege == PRIVILEGE_IMPLICIT:
            bits |= ACCESS_IMPLICIT
        if self.vp.rflags_system & FLAG_AC:
            bits |= ACCESS_ALIGNMENT
        return bits

    cdef bint build_for(self, const batch_t* batch, u64 gva) noexcept nogil:
        """Make the next table that a translation of `gva` misses; False if there is nothing to make."""
        cdef walk_t found
        cdef u64 low = gva
        cdef bint built = False
        if self.guest is not None and self.guest.builder.levels < 6:
            low = gva & (((<u64>1 << (12 + self.guest.builder.index_bits * self.guest.builder.levels)) - 1))
        PyThread_acquire_lock(self.lock, WAIT_LOCK)
        vp_translate_for(batch, self.vp.paging, gva, &found)
        if found.status == WALK_NOT_PRESENT:
            built = self.guest is not None and build_at(&self.guest.builder, low) == BUILD_DONE
            if built and self.vp.paging == PAGING_PAE:
                self.load_pdptes()
                refresh_request(self.vp)
        elif found.status in (WALK_TABLE, WALK_NESTED) and found.nested_status == SECOND_UNMAPPED:
            built = self.second is not None and build_at(&self.second.builder, found.address) == BUILD_DONE
        else:
            built = True            # another thread was here first
        PyThread_release_lock(self.lock)
        return built

    cdef int run_batch(self, batch_t* batch, bint all_columns) except -1:
        """Translate everything, building the tables that are missing on the way."""
        cdef u64 at = 0
        self.users += 1
        with nogil:
            while True:
                at = translate_from(batch, self.vp.paging, all_columns, at)
                if at == batch.count:
                    break
                if not self.build_for(batch, batch.gvas[at]):
                    batch.built_for = at
                elif self.vp.paging == PAGING_PAE:
                    memcpy(batch.request.pdptes, self.vp.pdptes, sizeof(batch.request.pdptes))
        self.users -= 1
        return 0

    def translate(self, const u64[::1] gvas not None, const u8[::1] accesses, *, u8 access=RIGHT_READ,
                  int privilege=PRIVILEGE_OF_STATE, bint set_marks=False, u64 nested_cache=0, u64[::1] gpa=None, u64[::1] spa=None,
                  u8[::1] page_shift=None, u8[::1] nested_page_shift=None, u8[::1] status=None,
                  u8[::1] error_code=None, u8[::1] references=None, u8[::1] nested_references=None):
        """Translate each of `gvas` into the columns that are given, arrays of the same length.

        `accesses` or `access`: the sum of READ, WRITE and EXECUTE. The caller answers for lengths.
        """
        cdef batch_t batch
        cdef bint lean
        if gvas.shape[0] == 0:
            return
        memset(&batch, 0, sizeof(batch))
        batch.request = self.vp.request
        batch.request.set_marks = set_marks
        batch.ram, batch.space = self.ram, self.space
        batch.gvas, batch.count, batch.built_for = &gvas[0], gvas.shape[0], <u64>-1
        batch.access = self.access_bits(0 if accesses is not None else access & 7, privilege)
        batch.accesses = &accesses[0] if accesses is not None else NULL
        batch.lazy = self.guest is not None or self.second is not None
        batch.out.gpa = &gpa[0] if gpa is not None else NULL
        batch.out.spa = &spa[0] if spa is not None else NULL
        batch.out.page_shift = &page_shift[0] if page_shift is not None else NULL
        batch.out.nested_page_shift = &nested_page_shift[0] if nested_page_shift is not None else NULL
        batch.out.status = &status[0] if status is not None else NULL
        batch.out.error_code = &error_code[0] if error_code is not None else NULL
        batch.out.references = &references[0] if references is not None else NULL
        batch.out.nested_references = &nested_references[0] if nested_references is not None else NULL
        lean = (spa is not None and status is not None and references is not None
                and (nested_references is not None or self.space == NULL)
                and gpa is None and page_shift is None and nested_page_shift is None and error_code is None)
        if nested_cache and self.space != NULL:
            batch.cached.mask = nested_cache - 1
            batch.cached.entries = <nested_entry_t*>calloc(nested_cache, sizeof(nested_entry_t))
            if batch.cached.entries == NULL:
                raise MemoryError(f"the host has no memory for nested_cache of {nested_cache} entries")
        try:
            self.run_batch(&batch, not lean)
        finally:
            free(batch.cached.entries)
