# Chapter of space.pyx: the pages of one partition.

cdef class PagePool:
    """The pages deposited for one partition: `available` ones and those `in_use` (TLFS 5.7)."""

    def __cinit__(self, SystemMemory memory not None):
        self.memory = memory
        self.pool.ram = &memory.ram

    def __dealloc__(self):
        free(self.pool.free_pages)

    @property
    def available(self):
        """Free pages."""
        return self.pool.available

    @property
    def in_use(self):
        """Pages that back something."""
        return self.pool.in_use

    def deposit(self, u64 spn):
        """Add page `spn`. The caller answers for its being unused. Raises IndexError outside system memory."""
        require_thread(&self.memory.guard)
        cdef u64 held = self.pool.available + self.pool.in_use, capacity
        cdef u64* grown
        self.memory.check_range(spn << PAGE_SHIFT, PAGE_SIZE)
        if held == self.pool.capacity:
            capacity = max(<u64>64, 2 * self.pool.capacity)
            grown = <u64*>realloc(self.pool.free_pages, capacity * 8)
            if grown == NULL:
                raise MemoryError("the host has no memory for a page pool")
            self.pool.free_pages = grown
            self.pool.capacity = capacity
        self.pool.free_pages[self.pool.available] = spn
        self.pool.available += 1

    def withdraw(self):
        """Take a free page out of the pool: its number, or None when none is free."""
        require_thread(&self.memory.guard)
        if self.pool.available == 0:
            return None
        self.pool.available -= 1
        return self.pool.free_pages[self.pool.available]

    def allocate(self):
        """Charge a zeroed page: its number, or None when none is free."""
        require_thread(&self.memory.guard)
        cdef u64 spa = pool_allocate(&self.pool)
        return spa >> PAGE_SHIFT if spa else None

    def release(self, u64 spn):
        """Give back a page that `allocate` returned."""
        require_thread(&self.memory.guard)
        if self.pool.in_use == 0:
            raise ValueError(f"spn {spn:#x} was not allocated from this pool")
        pool_release(&self.pool, spn << PAGE_SHIFT)
