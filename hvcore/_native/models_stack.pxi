# Chapter of models.pyx: stack distances.

cdef class StackCore:
    """Stack distances of a stream of page numbers, with `sets` LRU stacks."""

    def __init__(self, u64 sets):
        self.stacks.sets = <stack_t*>calloc(sets, sizeof(stack_t))
        if self.stacks.sets == NULL:
            raise MemoryError(f"the host has no memory for {sets} stacks")
        self.stacks.set_count = sets

    def __dealloc__(self):
        stacks_release(&self.stacks)

    def add(self, const u64[:] address, const u8[:] kind, u32 shift, u32 kinds, i64[:] distances):
        """Feed accesses whose kind is a bit of `kinds`, as pages of 1 << `shift` bytes. `distances`, or None, gets
        the distance of each; -1 for a first use and for accesses that are left out."""
        cdef u64 count = address.shape[0], i
        cdef i64 distance
        if <u64>kind.shape[0] != count or (distances is not None and <u64>distances.shape[0] != count):
            raise ValueError("columns differ in length")
        if self.busy:
            raise RuntimeError("these stack distances are in use by another thread")
        self.busy = True
        with nogil:
            for i in range(count):
                distance = -1
                if kind[i] < 32 and kinds >> kind[i] & 1:
                    distance = use_page(&self.stacks, (address[i] & <u64>ADDRESS_MASK) >> shift)
                if distances is not None:
                    distances[i] = distance
        self.busy = False
        if self.stacks.failed:
            raise MemoryError("the host has no memory for the pages of these stack distances")

    @property
    def uses(self):
        return self.stacks.uses

    @property
    def cold(self):
        """First uses: as many as there are pages."""
        return self.stacks.cold

    def histogram(self):
        """How many uses have each distance, as a list from 0 on."""
        cdef u64 i, size = self.stacks.histogram_size
        while size and self.stacks.histogram[size - 1] == 0:
            size -= 1
        return [self.stacks.histogram[i] for i in range(size)]
