"""Module `table_builder`: page tables built by hand, from mappings.

Contract: addresses and sizes are checked by hvcore/paging, which names the arguments; here only what would harm.
"""
from hvcore._native.base.types cimport u8, u64
from hvcore._native.mem.builder cimport (
    BUILD_FULL, build_at, builder_allocate, mapping_find, mapping_t, mapping_target, refill,
)
from hvcore._native.mem.permutation cimport unpermuted
from hvcore._native.mem.ram cimport PAGE_SHIFT, PAGE_SIZE
from hvcore._native.space cimport SystemMemory
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memmove


cdef class TableBuilder:
    """The tables of one dimension in system memory, and the mappings that they are made of when they are needed.

    Parameters
    ----------
    memory : SystemMemory
    tables, tables_end : int
        Where tables may lie, page-aligned SPAs; the first one is the root.
    levels : int
    index_bits : int
        9, or 10 for tables of 1024 entries of 4 bytes.
    present, table_bits, top_bits : int
        Bits of an entry: any of those that say it is present; those of one that points to a table, and of such a one
        in the top table.

    Addresses are without their sign extension.
    """

    def __cinit__(self, SystemMemory memory not None, u64 tables, u64 tables_end, *, u8 levels, u8 index_bits,
                  u64 present, u64 table_bits, u64 top_bits):
        if tables % PAGE_SIZE or tables_end % PAGE_SIZE or tables >= tables_end:
            raise ValueError(f"tables must be a run of whole pages, not {tables:#x} to {tables_end:#x}")
        memory.check_range(tables, tables_end - tables)
        if levels > 5 or levels == 0 or index_bits not in (9, 10):
            raise ValueError(f"there are no tables of {levels} levels and {index_bits} bits of index")
        self.memory = memory
        self.builder.ram = &memory.ram
        self.builder.root, self.builder.tables_end = tables, tables_end
        self.builder.levels, self.builder.index_bits = levels, index_bits
        self.builder.present, self.builder.table_bits, self.builder.top_bits = present, table_bits, top_bits
        self.builder.used = <u8*>calloc((tables_end - tables) >> PAGE_SHIFT, 1)
        if self.builder.used == NULL:
            raise MemoryError("the host has no memory for page tables")
        builder_allocate(&self.builder)

    def __dealloc__(self):
        free(self.builder.used)
        free(self.builder.mappings)

    @property
    def root(self):
        """Where the top table lies."""
        return self.builder.root

    @property
    def tables(self):
        """Tables that exist now."""
        return self.builder.tables

    @property
    def extent(self):
        """Bytes from the root to the end of the last table that exists."""
        cdef u64 number = (self.builder.tables_end - self.builder.root) >> PAGE_SHIFT, seen = 0, i
        for i in range(number):
            seen += self.builder.used[i]
            if seen == self.builder.tables:
                return (i + 1) << PAGE_SHIFT
        return 0

    @property
    def mappings(self):
        """(start, size, target, page shift, seed, entry bits) of each run, in order of address."""
        cdef u64 i
        cdef mapping_t* one
        found = []
        for i in range(self.builder.count):
            one = &self.builder.mappings[i]
            found.append((one.start, one.size_bytes, one.target, one.page_shift, one.seed, one.bits))
        return found

    cdef int reserve_mappings(self, u64 more) except -1:
        cdef u64 capacity = max(<u64>8, 2 * self.capacity)
        cdef mapping_t* grown
        if self.builder.count + more > self.capacity:
            grown = <mapping_t*>realloc(self.builder.mappings, (capacity + more) * sizeof(mapping_t))
            if grown == NULL:
                raise MemoryError("the host has no memory for another mapping")
            self.builder.mappings = grown
            self.capacity = capacity + more
        return 0

    cdef void split(self, u64 address) noexcept:
        """No mapping reaches over `address`, a page boundary of any that does; room for one more is reserved."""
        cdef u64 number = mapping_find(&self.builder, address)
        cdef mapping_t* one = self.builder.mappings + number
        if number == self.builder.count or one.start >= address:
            return
        memmove(one + 1, one, (self.builder.count - number) * sizeof(mapping_t))
        self.builder.count += 1
        one[0].size_bytes = address - one.start
        one[1].size_bytes -= one[0].size_bytes
        one[1].start = address

    def splits_page(self, u64 address):
        """The size of the page that a change up to or from `address` would cut, or 0."""
        cdef u64 number = mapping_find(&self.builder, address)
        cdef mapping_t* one = self.builder.mappings + number
        if number == self.builder.count or one.start >= address or address % (<u64>1 << one.page_shift) == 0:
            return 0
        return <u64>1 << one.page_shift

    def clear(self, u64 start, u64 size):
        """Take [start, start + size) out of the mappings and out of the tables that exist."""
        cdef u64 first, behind
        self.reserve_mappings(2)
        self.split(start)
        if start + size:
            self.split(start + size)
        first = mapping_find(&self.builder, start)
        behind = first
        while behind < self.builder.count and self.builder.mappings[behind].start - start < size:
            behind += 1
        memmove(self.builder.mappings + first, self.builder.mappings + behind,
                (self.builder.count - behind) * sizeof(mapping_t))
        self.builder.count -= behind - first
        refill(&self.builder, self.builder.root, self.builder.levels, 0, start, start + (size - 1))

    def map(self, u64 start, u64 size, u64 target, *, u8 page_shift, u64 bits, u64 seed=0):
        """Map a run of pages; what was mapped there is forgotten. `seed`, if not 0, permutes the frames of the run.

        Alignment and range are the caller's business.
        """
        cdef u64 number
        self.clear(start, size)
        self.reserve_mappings(1)
        number = mapping_find(&self.builder, start)
        memmove(self.builder.mappings + number + 1, self.builder.mappings + number,
                (self.builder.count - number) * sizeof(mapping_t))
        self.builder.count += 1
        self.builder.mappings[number] = mapping_t(
            start=start, size_bytes=size, target=target, origin=start, pages=size >> page_shift, seed=seed,
            bits=bits, page_shift=page_shift)
        refill(&self.builder, self.builder.root, self.builder.levels, 0, start, start + (size - 1))

    def protect(self, u64 start, u64 size, *, u64 keep, u64 bits):
        """Give the pages of [start, start + size) the bits `bits`, and of those they have only `keep`."""
        cdef u64 number
        self.reserve_mappings(2)
        self.split(start)
        if start + size:
            self.split(start + size)
        number = mapping_find(&self.builder, start)
        while number < self.builder.count and self.builder.mappings[number].start - start < size:
            self.builder.mappings[number].bits = (self.builder.mappings[number].bits & keep) | bits
            number += 1
        refill(&self.builder, self.builder.root, self.builder.levels, 0, start, start + (size - 1))

    def build(self, u64 start, u64 size):
        """Make every table of [start, start + size) that does not exist yet. Raises MemoryError if there is no room."""
        cdef u64 number = mapping_find(&self.builder, start), address, last = start + (size - 1), end, step
        cdef bint full = False
        # With the GIL: nobody may translate here meanwhile.
        while number < self.builder.count and self.builder.mappings[number].start <= last and not full:
            step = <u64>1 << (self.builder.mappings[number].page_shift + self.builder.index_bits)
            address = max(start, self.builder.mappings[number].start)
            end = min(last, self.builder.mappings[number].start + (self.builder.mappings[number].size_bytes - 1))
            while True:
                full = build_at(&self.builder, address) == BUILD_FULL
                if full or end - address < step:
                    break
                address += step
            if not full:
                full = build_at(&self.builder, end) == BUILD_FULL
            number += 1
        if full:
            raise MemoryError(f"the {self.builder.tables} tables that fit into their area are not enough")

    def find(self, u64 frame):
        """The addresses that the mappings send to the byte `frame`."""
        cdef u64 i, page, address
        cdef mapping_t* one
        found = []
        for i in range(self.builder.count):
            one = &self.builder.mappings[i]
            if frame < one.target or frame - one.target >= one.pages << one.page_shift:
                continue
            page = (frame - one.target) >> one.page_shift
            if one.seed:
                page = unpermuted(page, one.pages, one.seed)
            address = one.origin + (page << one.page_shift) + (frame & ((<u64>1 << one.page_shift) - 1))
            if address >= one.start and address - one.start < one.size_bytes:
                found.append(address)
        return found

    def target(self, u64 address):
        """The byte that the mappings send `address` to, or None."""
        cdef u64 number = mapping_find(&self.builder, address)
        cdef mapping_t* one = self.builder.mappings + number
        if number == self.builder.count or one.start > address:
            return None
        return mapping_target(one, address) + (address & ((<u64>1 << one.page_shift) - 1))
