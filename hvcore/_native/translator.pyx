"""Module `translator`: translation of arrays of addresses.

Contract: whatever comes from Python is checked here and names itself in the exception. A batch releases the GIL once.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock,
)
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.cpu.spec cimport FLAG_AC
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.cpu.translation cimport refresh_request
from hvcore._native.mem.batch cimport batch_t, columns_t, is_plain, may_be_built, translate_each
from hvcore._native.mem.builder cimport BUILD_DONE, build_at, table_mask
from hvcore._native.mem.descend cimport cached_p, memory_p, space_p, space_translate
from hvcore._native.mem.descent cimport WALK_NESTED, WALK_NOT_PRESENT, WALK_OK, WALK_TABLE
from hvcore._native.mem.format cimport (
    ENTRY_ADDRESS, PAGING_4LEVEL, PAGING_PAE, RIGHT_READ, RIGHT_USER, PagingMode, page_format_t, paging_format,
    second_level_format,
)
from hvcore._native.mem.ram cimport PAGE_SHIFT, PAGE_SIZE, ram_at
from hvcore._native.mem.request cimport ACCESS_ALIGNMENT, ACCESS_IMPLICIT, PAE_ENTRIES, walk_request_t
from hvcore._native.mem.reverse cimport REVERSE_LEVELS, reverse_scan, reverse_t, take_hits
from hvcore._native.mem.runs cimport run_t, runs_add, runs_t, same_answer
from hvcore._native.mem.second_level cimport SECOND_OK, SECOND_UNMAPPED, nested_entry_t, second_level_t, space_t
from hvcore._native.mem.walk cimport walk, walk_t
from hvcore._native.space cimport GpaSpace, SystemMemory
from hvcore._native.table_builder cimport TableBuilder
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

cdef enum:
    PRIVILEGE_OF_STATE = 0
    PRIVILEGE_USER = 1
    PRIVILEGE_SUPERVISOR = 2
    PRIVILEGE_IMPLICIT = 3
    WALKS_BETWEEN_SIGNALS = 1 << 20


include "translator_formats.pxi"


cdef void translate_alone(const batch_t* batch, PagingMode mode, const walk_request_t* request, u64 access, u64 gva,
                          walk_t* found) noexcept nogil:
    """One translation, without columns."""
    if batch.space == NULL:
        walk(<memory_p>batch.ram, paging_format(mode), request, access, gva, found)
    else:
        walk(<space_p>batch.space, paging_format(mode), request, access, gva, found)


include "translator_image.pxi"


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
        self.vp.space = self.space if self.space != NULL else &self.own_space

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
        refresh_request(self.vp)
        if self.vp.paging == PAGING_PAE:
            self.load_pdptes()

    cdef void load_pdptes(self) noexcept nogil:
        """PAE reads four entries when CR3 is loaded, and none of them in a walk (SDM 3A 4.4.1): from system memory if
        there is no second level, and from tables that may have to be built."""
        cdef u64 place = self.vp.cr3 & <u64>0xFFFFFFE0
        cdef second_level_t where
        cdef int i
        for i in range(PAE_ENTRIES):
            self.vp.request.pdptes[i] = 0
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
            self.vp.request.pdptes[i] = (<u64*>ram_at(self.ram, place))[i]

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
        cdef walk_request_t request = batch.request
        cdef bint built = False
        request.set_marks, request.ignore_rights = False, True
        PyThread_acquire_lock(self.lock, WAIT_LOCK)
        translate_alone(batch, self.vp.paging, &request, RIGHT_READ, gva, &found)
        if found.status == WALK_NOT_PRESENT:
            built = self.guest is not None and build_at(&self.guest.builder, gva & table_mask(
                &self.guest.builder)) == BUILD_DONE
            if built and self.vp.paging == PAGING_PAE:
                self.load_pdptes()
        elif found.status in (WALK_TABLE, WALK_NESTED) and found.nested_status == SECOND_UNMAPPED:
            built = self.second is not None and build_at(&self.second.builder, found.address) == BUILD_DONE
        else:
            built = True            # another thread was here first
        PyThread_release_lock(self.lock)
        return built

    cdef void refresh_pdptes(self) noexcept:
        """Tables that are built by hand may have changed since: as if CR3 had been loaded again."""
        if self.vp.paging == PAGING_PAE and self.guest is not None:
            PyThread_acquire_lock(self.lock, WAIT_LOCK)
            self.load_pdptes()
            PyThread_release_lock(self.lock)

    cdef void start_batch(self, batch_t* batch, u64 access, int privilege, bint set_marks) noexcept:
        """A batch without addresses and columns."""
        memset(batch, 0, sizeof(batch_t))
        self.refresh_pdptes()
        batch.request = self.vp.request
        batch.request.set_marks = set_marks
        batch.ram, batch.space = self.ram, self.space
        batch.access = self.access_bits(access, privilege)
        batch.built_for = <u64>-1
        batch.lazy = self.guest is not None or self.second is not None

    cdef void note_built(self, batch_t* batch) noexcept nogil:
        """Tables were built: the registers of PAE may have changed."""
        memcpy(batch.request.pdptes, self.vp.request.pdptes, sizeof(batch.request.pdptes))

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
                else:
                    self.note_built(batch)
        self.users -= 1
        return 0

    def translate(self, const u64[::1] gvas not None, const u8[::1] accesses, *, u8 access=RIGHT_READ,
                  int privilege=PRIVILEGE_OF_STATE, bint set_marks=False, u64 nested_cache=0,
                  u64[::1] gpa=None, u64[::1] spa=None,
                  u8[::1] page_shift=None, u8[::1] nested_page_shift=None, u8[::1] status=None,
                  u8[::1] error_code=None, u8[::1] references=None, u8[::1] nested_references=None):
        """Translate each of `gvas` into the columns that are given, arrays of the same length.

        `accesses` or `access`: the sum of READ, WRITE and EXECUTE. The caller answers for lengths.
        """
        cdef batch_t batch
        cdef bint lean
        if gvas.shape[0] == 0:
            return
        self.start_batch(&batch, 0 if accesses is not None else access & 7, privilege, set_marks)
        batch.gvas, batch.count = &gvas[0], gvas.shape[0]
        batch.accesses = &accesses[0] if accesses is not None else NULL
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

    def translate_one(self, u64 gva, *, u8 access=RIGHT_READ, int privilege=PRIVILEGE_OF_STATE, bint set_marks=False):
        """A batch of one address: its columns as a tuple, in the order of columns_t."""
        cdef batch_t batch
        cdef u64 gpa = 0, spa = 0
        cdef u8 page_shift = 0, nested_page_shift = 0, status = 0, error_code = 0, references = 0, nested_references = 0
        self.start_batch(&batch, access & 7, privilege, set_marks)
        batch.gvas, batch.count = &gva, 1
        batch.out = columns_t(
            gpa=&gpa, spa=&spa, page_shift=&page_shift, nested_page_shift=&nested_page_shift, status=&status,
            error_code=&error_code, references=&references, nested_references=&nested_references)
        self.run_batch(&batch, True)
        return gpa, spa, page_shift, nested_page_shift, status, error_code, references, nested_references

    def translate_runs(self, u64 gva, u64 size, *, u8 access=RIGHT_READ, int privilege=PRIVILEGE_OF_STATE):
        """Runs of [gva, gva + size) that go to consecutive places or fail alike, as an array of run_t in bytes."""
        cdef batch_t batch
        cdef runs_t runs
        cdef bint full = False
        memset(&runs, 0, sizeof(runs))
        self.start_batch(&batch, access & 7, privilege, False)
        self.users += 1
        try:
            while size and not full:
                with nogil:
                    full = not self.extend_runs(&batch, &runs, &gva, &size)
                PyErr_CheckSignals()
            if full:
                raise MemoryError("the host has no memory for so many runs")
            return PyBytes_FromStringAndSize(<char*>runs.runs, runs.count * sizeof(run_t))
        finally:
            self.users -= 1
            free(runs.runs)

    cdef bint extend_runs(self, batch_t* batch, runs_t* runs, u64* gva, u64* size) noexcept nogil:
        """Go on for a while, from `gva` for `size` bytes; both are moved on. False: no memory for another run."""
        cdef walk_t found
        cdef page_format_t form = paging_format(self.vp.paging)
        cdef u64 span
        cdef int turn
        for turn in range(WALKS_BETWEEN_SIGNALS):
            translate_alone(batch, self.vp.paging, &batch.request, batch.access, gva[0], &found)
            if found.status != WALK_OK and batch.lazy and may_be_built(&found) and self.build_for(batch, gva[0]):
                self.note_built(batch)
                continue
            span = min(size[0], same_answer(form, &found, gva[0], batch.space != NULL))
            if not runs_add(runs, gva[0], span, &found):
                return False
            gva[0] += span
            size[0] -= span
            if size[0] == 0:
                break
        return True

    def find(self, const u64[::1] targets not None, *, bint second, u64 room):
        """Which addresses lead to `targets`, ascending: bytes of the numbers of targets, and of the addresses.

        `second`: GPAs that lead to SPAs; else linear addresses, without their sign, that lead to what they are mapped
        to. Raises OverflowError if there are more than `room`.
        """
        cdef reverse_t reverse
        cdef int level
        memset(&reverse, 0, sizeof(reverse))
        if targets.shape[0] == 0:
            return b"", b""
        self.refresh_pdptes()
        reverse.targets, reverse.count, reverse.room = &targets[0], targets.shape[0], room
        reverse.which = <u64*>malloc(room * 8)
        reverse.addresses = <u64*>malloc(room * 8)
        self.users += 1
        try:
            for level in range(1, REVERSE_LEVELS):
                reverse.barren[level] = <u8*>calloc((self.ram.size_bytes >> (PAGE_SHIFT + 3)) + 1, 1)
                if reverse.barren[level] == NULL or reverse.which == NULL or reverse.addresses == NULL:
                    raise MemoryError("the host has no memory for a reverse look-up")
            with nogil:
                if second:
                    self.scan_second(&reverse)
                else:
                    self.scan_guest(&reverse)
            if reverse.overflow:
                raise OverflowError(f"limit of {room} is too small: there are more addresses")
            return (PyBytes_FromStringAndSize(<char*>reverse.which, reverse.found * 8),
                    PyBytes_FromStringAndSize(<char*>reverse.addresses, reverse.found * 8))
        finally:
            self.users -= 1
            free(reverse.which)
            free(reverse.addresses)
            for level in range(1, REVERSE_LEVELS):
                free(reverse.barren[level])

    cdef void scan_guest(self, reverse_t* reverse) noexcept nogil:
        """The first level. PAE has four tables on top, the registers name them."""
        cdef walk_request_t* request = &self.vp.request
        cdef page_format_t form = paging_format(self.vp.paging)
        cdef u64 i
        if self.vp.paging == PAGING_PAE:
            for i in range(<u64>PAE_ENTRIES):
                if request.pdptes[i] & 1:
                    self.scan_table(form, request.pdptes[i] & ENTRY_ADDRESS, i << 30, reverse)
        elif form.entry_shift == 2:
            self.scan_table(form, request.root & <u32>0xFFFFF000, 0, reverse)
        else:
            self.scan_table(form, request.root & ENTRY_ADDRESS, 0, reverse)

    cdef void scan_table(self, page_format_t form, u64 root, u64 base, reverse_t* reverse) noexcept nogil:
        cdef walk_request_t* request = &self.vp.request
        if self.space == NULL:
            reverse_scan(<memory_p>self.ram, self.ram, form, root, base, request.reserved, request.split_reserved,
                         reverse)
        else:
            reverse_scan(<space_p>self.space, self.ram, form, root, base, request.reserved, request.split_reserved,
                         reverse)

    cdef void scan_second(self, reverse_t* reverse) noexcept nogil:
        """The second level: overlays, and the tables where no overlay hides what they map."""
        cdef space_t* space = self.space
        cdef second_level_t where
        cdef u64 i, kept = 0
        for i in range(space.overlay_count):
            take_hits(reverse, space.overlays[i].gpn << PAGE_SHIFT, space.overlays[i].spa, PAGE_SIZE)
        if space.root_spa:
            reverse_scan(<memory_p>self.ram, self.ram, second_level_format(
                space.levels, space.marks, space.mode_based_execute), space.root_spa, 0, space.reserved, 0, reverse)
        for i in range(reverse.found):
            where = space_translate(space, reverse.addresses[i], 0, False)
            if where.status == SECOND_OK and where.spa == reverse.targets[reverse.which[i]]:
                reverse.which[kept], reverse.addresses[kept] = reverse.which[i], reverse.addresses[i]
                kept += 1
        reverse.found = kept
