# Chapter of irqchip.pyx: arguments of Python callers, checked and borrowed.

cdef u64 checked(object value, u64 lowest, u64 highest, str name) except? 0xBAD:
    """The argument as an integer within its bounds; an exception that names it otherwise."""
    cdef object number
    cdef i64 word
    cdef int overflow = 0
    if PyLong_CheckExact(value):    # nearly always, and in bounds: a third of the time of what follows
        word = PyLong_AsLongLongAndOverflow(value, &overflow)
        if not overflow and word >= 0 and lowest <= <u64>word <= highest:
            return <u64>word
    try:
        number = PyNumber_Index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}") from None
    if not lowest <= number <= highest:
        raise ValueError(f"{name} must be {lowest}..{highest}, not {number}")
    return number


cdef tuple listed(object values, type kind, str name):
    """The argument as a tuple of objects of that kind, None excluded; an exception that names it otherwise."""
    try:
        found = tuple(values)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of {kind.__name__}, not {type(values).__name__}") from None
    for one in found:
        if not isinstance(one, kind):
            raise TypeError(f"{name} must be a sequence of {kind.__name__}, not with {type(one).__name__}")
    return found


cdef object members(const u64 *vectors):
    """A vector set as an integer of 256 bits: bit v is vector v."""
    cdef int word
    cdef object result = 0
    for word in range(3, -1, -1):
        result = result << 64 | vectors[word]
    return result


@cython.final
@cython.no_gc_clear     # clearing the view's owner early would lose the release of the buffer
cdef class _Octets:
    """The bytes of any contiguous buffer, borrowed for the life of this object."""
    cdef Py_buffer view

    def __cinit__(self, source, str name, bint writable):
        try:
            PyObject_GetBuffer(source, &self.view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        except (BufferError, TypeError) as error:
            raise type(error)(f"{name}: {error}") from None

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef _Octets borrow_payload(object payload):
    cdef _Octets octets = _Octets(payload, "payload", False)
    if octets.view.len > PAYLOAD_SIZE_BYTES:
        raise ValueError(f"payload must have at most {PAYLOAD_SIZE_BYTES} bytes, not {octets.view.len}")
    return octets


cdef _Octets borrow_page(object page, str name):
    cdef _Octets octets = _Octets(page, name, True)
    if octets.view.len != SYNIC_PAGE_SIZE_BYTES:
        raise ValueError(f"{name} must have {SYNIC_PAGE_SIZE_BYTES} bytes, not {octets.view.len}")
    return octets
