# Chapter of iommu.pyx: the unit as devices and interrupt fabrics call it, without Python.

cdef unit_t* unit_of(RemappingUnit unit) noexcept:
    return &unit.unit


cdef RemapOutcome remap_for_fabric(void* unit, u32 requester, u64 address, u32 data,
                                   interrupt_message_t* message) noexcept nogil:
    """What a fabric asks for every interrupt request."""
    cdef u8 reason = 0
    return serve_interrupt(<unit_t*>unit, requester & 0xFFFF, address, data, &reason, message)


cdef int dma_interrupt(unit_t* unit, u32 source, u64 address, u32 data) noexcept nogil:
    cdef interrupt_message_t message
    cdef u8 reason = 0
    cdef RemapOutcome outcome
    decode_msi(address, data, 0, &message)
    outcome = serve_interrupt(unit, source, address, data, &reason, &message)
    if outcome != REMAP_SEND:
        return 1 if outcome == REMAP_POSTED else -1
    return unit.deliver(unit.fabric, &message) if unit.fabric != NULL and message.asserted else 0


cdef int make_requester(requester_t* who, source, pasid, access, at) except -1:
    cdef u32 requester = <u32>checked(source, 0, 0xFFFF, "source"), translated = <u32>checked(at, 0, 2, "at")
    cdef u32 space = <u32>NO_PASID if pasid is None else <u32>checked(pasid, 0, (1 << 20) - 1, "pasid")
    cdef u64 wanted = checked(access, 1, 15, "access")
    if not wanted & 3:
        raise ValueError(f"access must be 1 (read), 2 (write) or both, with 4 and 8 added for special ones, "
                         f"not {access}")
    name_requester(who, requester, space, wanted, translated)
    return 0


cdef u64 write_words(unit_t* unit, requester_t* who, const u64* iovas, u64 count, u8* words) noexcept nogil:
    """Stores of MESSAGE_BYTES each, in order; those to interrupt addresses are messages. How many bytes got through."""
    cdef u64 done = 0, first = 0, i
    for i in range(count):
        if not is_interrupt(iovas[i]) or iovas[i] & (MESSAGE_BYTES - 1):
            continue
        done += copy_all(unit, who, &iovas[first], i - first, words + MESSAGE_BYTES * first, MESSAGE_BYTES)
        done += MESSAGE_BYTES if dma_interrupt(unit, who.source, iovas[i], (<u32*>words)[i]) >= 0 else 0
        first = i + 1
    done += copy_all(unit, who, &iovas[first], count - first, words + MESSAGE_BYTES * first, MESSAGE_BYTES)
    return done


cdef void dma_translate(unit_t* unit, u32 source, u32 pasid, u64 iova, u64 access, dma_t* done) noexcept nogil:
    view_refresh(unit, 1)
    serve_request(unit, source, pasid, iova, access, 0, NULL, done)


cdef u64 dma_copy(unit_t* unit, u32 source, u32 pasid, u64 iova, u8* data, u64 size_bytes, u64 access) noexcept nogil:
    cdef requester_t who
    name_requester(&who, source, pasid, access, 0)
    return copy_all(unit, &who, &iova, 1, data, size_bytes)


cdef u64 dma_read(unit_t* unit, u32 source, u32 pasid, u64 iova, void* data, u64 size_bytes) noexcept nogil:
    return dma_copy(unit, source, pasid, iova, <u8*>data, size_bytes, RIGHT_READ)


cdef u64 dma_write(unit_t* unit, u32 source, u32 pasid, u64 iova, const void* data, u64 size_bytes) noexcept nogil:
    return dma_copy(unit, source, pasid, iova, <u8*>data, size_bytes, RIGHT_WRITE)


_UINT64 = numpy.dtype(numpy.uint64)


def device_addresses(iovas):
    """Device addresses as a uint64 array of one dimension; one integer is an array of one.

    Raises
    ------
    TypeError, ValueError
        They are no integers, not all in 0 to 2**64 - 1, or of several dimensions.
    """
    cdef object kind
    if isinstance(iovas, numpy.ndarray) and iovas.dtype is _UINT64 and iovas.ndim == 1 and iovas.flags.c_contiguous:
        return iovas
    kind = getattr(getattr(iovas, "dtype", None), "kind", "O")
    # A list goes by Python's integers: NumPy makes floats of a list with small and large ones.
    found = numpy.array(iovas, object) if kind == "O" else numpy.asarray(iovas)
    if found.ndim > 1:
        raise ValueError(f"iovas must have one dimension, not {found.ndim}")
    found = found.reshape(-1)
    if kind == "O":
        try:
            found = [index(iova) for iova in found]
        except TypeError:
            raise TypeError(f"iovas must be integers, not {iovas!r:.80}") from None
        if found and not 0 <= min(found) <= max(found) < 1 << 64:
            raise ValueError("iovas must be 0 to 2**64 - 1")
    elif kind not in "iu":
        raise TypeError(f"iovas must be integers, not {found.dtype}")
    elif kind == "i" and found.size and found.min() < 0:
        raise ValueError("iovas must be 0 to 2**64 - 1")
    return numpy.ascontiguousarray(found, numpy.uint64)
