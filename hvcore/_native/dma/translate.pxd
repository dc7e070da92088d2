"""One DMA request from end to end: source and address in, system physical address or a fault out."""
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.dma.cache cimport cache_fill, cache_key, cache_peek, tag_for
from hvcore._native.dma.faults cimport record_fault, refuse_interrupt, register_at
from hvcore._native.dma.spec cimport (
    ACCESS_PRIVILEGED, ACCESS_ZERO_LENGTH, AT_TRANSLATED, AT_TRANSLATION, AT_UNTRANSLATED, CAP_CM, CAP_PHMR, CAP_PLMR,
    DMA_FAULT, DMA_INTERRUPT, DMA_NO_MEMORY, DMA_OK, DMA_PROTECTED, GLOBAL_TE, INTERRUPT_BYTES, INTERRUPT_FIRST,
    NO_PASID, REASON_BEYOND, REASON_FIRST_NO_WRITE, REASON_FIRST_NOT_SNOOPED, REASON_FIRST_UNREADABLE,
    REASON_IR_ILLEGAL, REASON_NO_READ, REASON_OK, REASON_OUTPUT_INTERRUPT, REASON_SECOND_ABSENT, REASON_SM_DIRECTORY,
    REASON_SM_ENTRY, REASON_SM_INTERRUPT, REASON_SM_NO_DTE, REASON_SM_NO_READ, REASON_SM_NO_SRE,
    REASON_SM_NOT_CANONICAL, REASON_SM_PASS_BEYOND, REASON_TRANSLATED_BLOCKED, REG_GSTS, REG_PHMBASE, REG_PHMLIMIT,
    REG_PLMBASE, REG_PLMLIMIT, REG_PMEN, TYPE_FIRST, TYPE_PASS, TYPE_SECOND,
)
from hvcore._native.dma.state cimport CONTEXT_DTE, CONTEXT_FPD, CONTEXT_MARKS, CONTEXT_SRE, context_t, unit_t
from hvcore._native.dma.tables cimport ABSENT, resolve, second_limit
from hvcore._native.dma.walk cimport dma_walk_t, finish_nested, second_of, walk_first, walk_second
from hvcore._native.mem.descend cimport cached_p, cached_translate, remapped_p
from hvcore._native.mem.format cimport (
    ENTRY_ADDRESS, LARGE_SHIFTS, RIGHT_READ, RIGHT_WRITE, long_mode_format, page_format_t, remapping_format,
)
from hvcore._native.mem.ram cimport PAGE_SHIFT
from hvcore._native.mem.second_level cimport SECOND_OK, remapped_space_t, second_level_t
from cython cimport likely

cdef enum:
    # What an IOTLB entry says beside the page of its output:
    FOUND_RIGHTS = 3
    FOUND_FIRST_SHIFT = 2               # page sizes of both levels, as PAGE_SHIFT + 9 * (number - 1); 0: none
    FOUND_SECOND_SHIFT = 4
    FOUND_SHIFT_MASK = 3
    ACCESS_BITS = 15
    SHIFTS = 0x1E150C00                 # by number, a byte each
    PROTECTED_OFFSET = 0x1FFFFF         # protected regions are whole 2 MiB
    FOUND_REFUSED = 52                  # of an entry without rights, with caching mode: what access it is about,
    FOUND_REASON = 56                   # and why that is refused


cdef struct dma_t:
    u8 status                           # RemapStatus
    u8 reason
    u8 first_shift
    u8 second_shift
    u8 table_references                 # root, context, directory and PASID entries
    u8 first_references
    u8 second_references
    u64 output                          # GPA of the partition that owns the unit
    u64 spa


cdef inline bint is_interrupt(u64 gpa) noexcept nogil:
    return gpa - <u64>INTERRUPT_FIRST < INTERRUPT_BYTES


cdef inline u64 wide_register(unit_t* unit, u32 offset) noexcept nogil:
    return register_at(unit, offset)[0] | <u64>register_at(unit, offset)[1] << 32


cdef inline bint is_protected(unit_t* unit, u64 gpa) noexcept nogil:
    """Whether PMEN keeps devices away from `gpa`: those whose requests are not translated, or passed through."""
    if likely(not register_at(unit, REG_PMEN)[0]):
        return False
    if unit.cap & CAP_PLMR and register_at(unit, REG_PLMBASE)[0] <= gpa <= (
            register_at(unit, REG_PLMLIMIT)[0] | PROTECTED_OFFSET):
        return True
    return unit.cap & CAP_PHMR and wide_register(unit, REG_PHMBASE) <= gpa <= (
        wide_register(unit, REG_PHMLIMIT) | PROTECTED_OFFSET)


cdef inline u8 shift_code(u8 shift) noexcept nogil:
    return (shift - PAGE_SHIFT) // 9 + 1 if shift else 0


cdef inline u8 shift_of_code(u64 code) noexcept nogil:
    return <u8>(<u32>SHIFTS >> 8 * code)


cdef inline u64* iotlb_find(unit_t* unit, u32 tag, u64 iova, u32* size) noexcept nogil:
    """The entry for an address, of whatever page size; not counted."""
    cdef u64* found = NULL
    cdef u32 code
    for code in range(3):
        if unit.iotlb_sizes >> code & 1:
            found = cache_peek(&unit.iotlb, cache_key(iova >> (PAGE_SHIFT + 9 * code), tag, code))
            if found != NULL:
                size[0] = code
                break
    return found


cdef inline void iotlb_fill(unit_t* unit, u32 tag, u64 iova, u64 access, const dma_walk_t* found) noexcept nogil:
    """Remember a translation by the smaller page of both levels; a refusal with caching mode, as 4 KiB."""
    cdef u8 shift = PAGE_SHIFT
    cdef u32 code
    cdef u64* place
    if not unit.iotlb.exists or (found.reason != REASON_OK and not unit.cap & CAP_CM):
        return
    if found.reason != REASON_OK and unit.tags[tag].kind & TYPE_FIRST and unit.tags[tag].kind != TYPE_PASS:
        return                      # a first level is free of CM (VT-d 6.2.4.1)
    if found.reason == REASON_OK:
        shift = found.second_shift if not found.first_shift else found.first_shift
        if found.second_shift and found.second_shift < shift:
            shift = found.second_shift
    code = (shift - PAGE_SHIFT) // 9
    if found.reason == REASON_OK and <u64>INTERRUPT_FIRST >> shift <= found.output >> shift <= (
            <u64>INTERRUPT_FIRST + INTERRUPT_BYTES - 1) >> shift or is_interrupt(iova):
        return                      # each address there has to be looked at by itself
    unit.iotlb_sizes |= <u8>(1 << code)
    place = cache_fill(&unit.iotlb, cache_key(iova >> shift, tag, code))
    if found.reason != REASON_OK:
        place[0] = <u64>found.reason << FOUND_REASON | (access & ACCESS_BITS) << FOUND_REFUSED
        return
    place[0] = (found.output & ~((<u64>1 << shift) - 1) & ENTRY_ADDRESS | found.rights
                | <u64>shift_code(found.first_shift) << FOUND_FIRST_SHIFT
                | <u64>shift_code(found.second_shift) << FOUND_SECOND_SHIFT)


cdef inline bint iotlb_serves(unit_t* unit, const u64* entry, u64 access) noexcept nogil:
    """Whether an entry says enough for this access: it grants it, or just this one is known to be refused."""
    return entry[0] & FOUND_RIGHTS & access == access & FOUND_RIGHTS or (
        entry[0] >> FOUND_REASON and entry[0] >> FOUND_REFUSED & ACCESS_BITS == access & ACCESS_BITS)


cdef inline void walk_context(unit_t* unit, const context_t* context, u64 iova, u64 access, bint remembers,
                              dma_walk_t* found) noexcept nogil:
    """Through the tables of a context that has some."""
    cdef remapped_space_t second
    cdef page_format_t form = long_mode_format(context.first_levels)
    form.large_shifts = unit.first_large
    if context.kind == TYPE_SECOND:
        if likely(context.second_levels == 4 and not context.flags & CONTEXT_MARKS
            and unit.second_large == LARGE_SHIFTS):
            walk_second(unit, context, remapping_format(4, False, LARGE_SHIFTS), iova, access, remembers, found)
        else:
            walk_second(unit, context, remapping_format(context.second_levels, context.flags & CONTEXT_MARKS != 0,
                                                        unit.second_large), iova, access, remembers, found)
    elif context.kind == TYPE_FIRST:
        walk_first(<cached_p>&unit.view, unit, context, form, iova, access,
                   remembers, found)
    else:
        second_of(unit, context, &second)
        if likely(second.plain and context.first_levels == 4 and form.large_shifts == LARGE_SHIFTS):
            walk_first(<remapped_p>&second, unit, context, long_mode_format(4), iova, access, remembers, found)
        else:
            walk_first(<remapped_p>&second, unit, context, form, iova, access, remembers, found)
        if found.reason == REASON_OK:
            finish_nested(unit, context, &second, access, found)
    unit.counters.first_level_references += found.first_references
    unit.counters.second_level_references += found.second_references


cdef inline void translate_context(unit_t* unit, const context_t* context, u64 iova, u64 access, dma_walk_t* found,
                                   dma_t* done) noexcept nogil:
    """Through the IOTLB, or the tables."""
    cdef u32 tag = context.tag, size = 0
    cdef u64* known
    cdef context_t privileged
    if access & ACCESS_PRIVILEGED and context.kind & TYPE_FIRST and context.kind != TYPE_PASS:
        # Rights of the first level depend on who asks, so what is remembered of them does, too.
        privileged = context[0]
        privileged.tag = tag = tag_for(unit, context.did, context.pasid, context.kind, True)
        context = &privileged
    if unit.iotlb.exists:
        known = iotlb_find(unit, tag, iova, &size)
        unit.iotlb.lookups += 1
        if known != NULL and iotlb_serves(unit, known, access):
            found.reason = <u8>(known[0] >> FOUND_REASON)
            found.first_shift = shift_of_code(known[0] >> FOUND_FIRST_SHIFT & FOUND_SHIFT_MASK)
            found.second_shift = shift_of_code(known[0] >> FOUND_SECOND_SHIFT & FOUND_SHIFT_MASK)
            found.output = known[0] & ENTRY_ADDRESS | iova & ((<u64>1 << (PAGE_SHIFT + 9 * size)) - 1)
            return
        unit.iotlb.misses += 1
    walk_context(unit, context, iova, access, unit.walks[2].exists or unit.walks[3].exists or unit.walks[4].exists
                 or unit.walks[5].exists, found)
    iotlb_fill(unit, tag, iova, access, found)


cdef inline u64 resolve_counted(unit_t* unit, u32 source, u32 pasid, u64* access, context_t* context) noexcept nogil:
    """`resolve`, and how many entries it read."""
    cdef u64 before = (unit.counters.root_references + unit.counters.context_references
                       + unit.counters.directory_references + unit.counters.pasid_references)
    resolve(unit, source, pasid, access, context)
    return (unit.counters.root_references + unit.counters.context_references
            + unit.counters.directory_references + unit.counters.pasid_references - before)


cdef inline void request_translated(unit_t* unit, u32 source, u32 pasid, u64 iova, u64 access, u32 at,
                                    const context_t* known, context_t* context, dma_t* done) noexcept nogil:
    """Translation is on. The reason of a refusal, or where the request goes."""
    if likely(known != NULL):
        unit.contexts.lookups += 1
        unit.pasids.lookups += known.scalable
        request_known(unit, known, iova, access, done)
        return
    done.table_references = <u8>resolve_counted(unit, source, pasid, &access, context)
    done.reason = context.reason
    if done.reason != REASON_OK:
        return
    if at != AT_UNTRANSLATED and not context.flags & CONTEXT_DTE:
        done.reason = REASON_SM_NO_DTE if context.scalable else REASON_TRANSLATED_BLOCKED
        return
    if at == AT_TRANSLATED:
        request_as_it_is(unit, context, iova, unit.host_limit, done)
        return
    if access & ACCESS_PRIVILEGED and context.scalable and not context.flags & CONTEXT_SRE:
        done.reason = REASON_SM_NO_SRE
        return
    request_known(unit, context, iova, access, done)


cdef inline void request_as_it_is(unit_t* unit, const context_t* context, u64 iova, u64 limit,
                                  dma_t* done) noexcept nogil:
    """A translated request, or one that passes through."""
    done.output = iova
    if iova >= limit:
        done.reason = REASON_SM_PASS_BEYOND if context.scalable else REASON_BEYOND
    elif is_interrupt(iova):
        done.reason = REASON_SM_INTERRUPT if context.scalable else REASON_OUTPUT_INTERRUPT


cdef inline void request_known(unit_t* unit, const context_t* context, u64 iova, u64 access,
                               dma_t* done) noexcept nogil:
    """An untranslated request whose context lets it be translated."""
    cdef dma_walk_t found
    if context.kind == TYPE_PASS:
        request_as_it_is(unit, context, iova, unit.host_limit if context.scalable else
                         min(unit.host_limit, second_limit(unit, context)), done)
        return
    found.reason = REASON_OK
    found.first_shift = found.second_shift = 0
    found.first_references = found.second_references = 0
    translate_context(unit, context, iova, access, &found, done)
    done.reason = found.reason
    done.first_references, done.second_references = <u8>found.first_references, <u8>found.second_references
    if done.reason != REASON_OK:
        return
    done.first_shift, done.second_shift = found.first_shift, found.second_shift
    done.output = found.output
    if is_interrupt(found.output):
        done.reason = REASON_SM_INTERRUPT if context.scalable else REASON_OUTPUT_INTERRUPT


cdef inline bint is_silent(const context_t* context, u8 reason, u32 at) noexcept nogil:
    """Whether a fault is not recorded (VT-d table 30): FPD, which errors in reaching tables do not heed; or a
    translation request, which is answered with no rights."""
    if at == AT_TRANSLATION and (
            REASON_FIRST_UNREADABLE <= reason <= REASON_FIRST_NO_WRITE or REASON_BEYOND <= reason <= REASON_NO_READ
            or REASON_SM_NOT_CANONICAL <= reason <= REASON_SM_NO_READ or reason == REASON_SECOND_ABSENT
            or reason == REASON_SM_NO_SRE or reason == REASON_SM_DIRECTORY + ABSENT
            or reason == REASON_SM_ENTRY + ABSENT or reason == REASON_FIRST_NOT_SNOOPED):
        return True
    return context.flags & CONTEXT_FPD and reason != REASON_SM_DIRECTORY and reason != REASON_SM_ENTRY


cdef inline void dma_request(unit_t* unit, u32 source, u32 pasid, u64 iova, u64 access, u32 at,
                             const context_t* known, dma_t* done) noexcept nogil:
    """Translate one request and, if it is refused, record why. `view_refresh` comes before. `known`: not NULL if the
    caches hold the context, and it is of a kind that walks or looks up without anything else to be asked."""
    cdef context_t context
    cdef second_level_t where
    cdef bint passed = True
    done.status, done.reason = DMA_OK, REASON_OK
    done.first_shift = done.second_shift = 0
    done.table_references = done.first_references = done.second_references = 0
    done.output = done.spa = 0
    unit.counters.requests += 1
    if is_interrupt(iova) and pasid == NO_PASID and at != AT_TRANSLATED:
        done.status = DMA_INTERRUPT
        unit.counters.interrupt_range += 1
        # Reads of some bytes and atomic operations; how long a write is, a copy knows (copy.pxd).
        if (at == AT_UNTRANSLATED and access & RIGHT_READ and not access & ACCESS_ZERO_LENGTH
                and refuse_interrupt(unit, source, iova, access)):
            done.status, done.reason = DMA_FAULT, REASON_IR_ILLEGAL
        return
    if not register_at(unit, REG_GSTS)[0] & <u32>GLOBAL_TE:
        done.output = iova
        unit.counters.untranslated += 1
    else:
        context.flags = known.flags if known != NULL else 0
        request_translated(unit, source, pasid, iova, access, at, known, &context, done)
        passed = known == NULL and (context.kind == TYPE_PASS or at == AT_TRANSLATED)
        if done.reason != REASON_OK:
            done.status = DMA_FAULT
            unit.counters.faults += 1
            done.output = 0
            record_fault(unit, source, pasid, iova & unit.fault_pages, done.reason, access, at,
                         is_silent(&context, done.reason, at))
            return
        unit.counters.translated += 1
    if passed and is_protected(unit, done.output):
        done.status = DMA_PROTECTED
        unit.counters.protected += 1
        return
    where = cached_translate(&unit.view, done.output, <u8>access & (RIGHT_READ | RIGHT_WRITE), True)
    if where.status != SECOND_OK:
        done.status = DMA_NO_MEMORY
        unit.counters.no_memory += 1
        return
    done.spa = where.spa
