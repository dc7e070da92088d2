# Chapter of translator.pyx: memory that somebody else holds.

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
