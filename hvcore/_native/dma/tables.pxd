"""From a requester to the page tables that translate for it: root, context, PASID directory and PASID table.

Everything ends in a `context_t`. Where `reason` is not 0 every request of this kind faults with it.
"""
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.dma.cache cimport cache_fill, cache_find, cache_key, tag_for
from hvcore._native.dma.memory cimport view_words
from hvcore._native.dma.spec cimport (
    ACCESS_PRIVILEGED, CAP_CM, CAP_FL5LP_SHIFT, CAP_SAGAW_SHIFT, ECAP_DT, ECAP_EAFS_SHIFT, ECAP_FLTS_SHIFT,
    ECAP_NEST_SHIFT, ECAP_PASID_SHIFT, ECAP_PSS_SHIFT, ECAP_PT, ECAP_RPRIVS_SHIFT, ECAP_RPS_SHIFT, ECAP_SC,
    ECAP_SLADS_SHIFT, ECAP_SLTS_SHIFT, ECAP_SMPWC_SHIFT, ECAP_SMTS_SHIFT, ECAP_SRS_SHIFT, MODE_SCALABLE,
    NO_PASID, REASON_CONTEXT_ABSENT, REASON_CONTEXT_INVALID,
    REASON_CONTEXT_RESERVED, REASON_CONTEXT_UNREADABLE, REASON_OK, REASON_ROOT_ABSENT, REASON_ROOT_RESERVED,
    REASON_ROOT_UNREADABLE, REASON_SM_CONTEXT, REASON_SM_CONTEXT_INVALID, REASON_SM_DIRECTORY, REASON_SM_ENTRY,
    REASON_SM_ENTRY_INVALID, REASON_SM_RID_PASID, REASON_SM_MODE, REASON_SM_NO_PASIDE, REASON_SM_PASID_RANGE,
    REASON_SM_PASID_SIZE, REASON_SM_ROOT, REASON_SM_ROOT_POINTER, TYPE_FIRST, TYPE_PASS, TYPE_SECOND,
)
from hvcore._native.dma.state cimport (
    CONTEXT_DTE, CONTEXT_EAFE, CONTEXT_FPD, CONTEXT_MARKS, CONTEXT_PASIDE, CONTEXT_PRIVILEGED, CONTEXT_SRE,
    CONTEXT_WPE, context_t, unit_t,
)
from hvcore._native.mem.format cimport ENTRY_ADDRESS
from hvcore._native.mem.ram cimport PAGE_SHIFT
from libc.string cimport memcpy, memset

cdef enum:
    PRESENT = 1
    FAULT_PROCESSING_DISABLE = 2
    LEGACY_ROOT_RESERVED = 0xFFE
    LEGACY_CONTEXT_RESERVED = 0xFF0
    SCALABLE_CONTEXT_RESERVED = 0x1F0   # with HPTE, EPTR and PRE, which no unit has
    DIRECTORY_RESERVED = 0xFFC
    PASID_RESERVED = 0xC20              # of the first quadword
    PASID_FIRST_RESERVED = 0xF02        # of the third
    PASID_DOMAIN_RESERVED = 0xFFFFFFFFFE7F0000      # of the second, with memory types
    PASID_WALK_SNOOP = 1 << 23
    PASID_PAGE_SNOOP = 1 << 24
    PASID_MARKS = 1 << 9                # of the first
    PASID_SUPERVISOR = 1                # of the third
    PASID_EXTENDED_ACCESSED = 1 << 7
    PASID_FIRST_FIELDS = 0x1C           # FSPM and WPE
    PASID_OF_DIRECTORY = 64
    # What an entry of scalable mode may be, by the reason of its kind:
    UNREADABLE = 0
    ABSENT = 1
    RESERVED = 2


cdef inline bint has(u64 capability, u32 bit) noexcept nogil:
    return capability >> bit & 1


cdef inline u64 above_host(const unit_t* unit) noexcept nogil:
    """Address bits that no pointer may have."""
    return ~((<u64>1 << unit.host_bits) - 1)


cdef inline u8 second_levels_of(const unit_t* unit, u64 width) noexcept nogil:
    """Levels of an AW field, or 0 if the unit has not got them."""
    if 1 <= width <= 3 and unit.cap >> CAP_SAGAW_SHIFT >> width & 1:
        return <u8>(width + 2)
    return 0


cdef inline u64 second_limit(const unit_t* unit, const context_t* context) noexcept nogil:
    """Addresses of a second level end here: MGAW, or what its tables have levels for."""
    return min(<u64>1 << (PAGE_SHIFT + 9 * context.second_levels), unit.address_limit)


cdef inline bint is_scalable(const unit_t* unit) noexcept nogil:
    return unit.root >> 10 & 3 == MODE_SCALABLE


cdef inline u8 legacy_context(unit_t* unit, u32 source, context_t* context) noexcept nogil:
    cdef const u64* entry = view_words(unit, (unit.root & ENTRY_ADDRESS) + (source >> 8) * 16)
    cdef u64 low, high
    unit.counters.root_references += 1
    if entry == NULL:
        return REASON_ROOT_UNREADABLE
    low, high = entry[0], entry[1]
    if not low & PRESENT:
        return REASON_ROOT_ABSENT
    if low & (above_host(unit) | LEGACY_ROOT_RESERVED) or high:
        return REASON_ROOT_RESERVED
    entry = view_words(unit, (low & ENTRY_ADDRESS) + (source & 0xFF) * 16)
    unit.counters.context_references += 1
    if entry == NULL:
        return REASON_CONTEXT_UNREADABLE
    low, high = entry[0], entry[1]
    if low & FAULT_PROCESSING_DISABLE:
        context.flags |= CONTEXT_FPD
    context.did = <u16>(high >> 8)
    if not low & PRESENT:
        return REASON_CONTEXT_ABSENT
    if low & (above_host(unit) | LEGACY_CONTEXT_RESERVED) or high & ~<u64>0xFFFF7F:
        return REASON_CONTEXT_RESERVED
    context.second_levels = second_levels_of(unit, high & 7)
    context.second = low & ENTRY_ADDRESS
    context.kind = TYPE_SECOND
    if context.second_levels == 0 or low >> 2 & 3 == 3:
        return REASON_CONTEXT_INVALID
    if low >> 2 & 3 == 1:
        context.flags |= CONTEXT_DTE
        if not unit.ecap & ECAP_DT:
            return REASON_CONTEXT_INVALID
    if low >> 2 & 3 == 2:
        context.kind = TYPE_PASS
        if not unit.ecap & ECAP_PT:
            return REASON_CONTEXT_INVALID
    context.tag = tag_for(unit, context.did, NO_PASID, context.kind, False)
    return REASON_OK


cdef inline u8 scalable_context(unit_t* unit, u32 source, context_t* context) noexcept nogil:
    """What a context of scalable mode says of every PASID."""
    cdef const u64* entry = view_words(unit, (unit.root & ENTRY_ADDRESS) + (source >> 7) * 8)
    cdef u64 low, high
    unit.counters.root_references += 1
    if entry == NULL:
        return REASON_SM_ROOT + UNREADABLE
    low = entry[0]
    if not low & PRESENT:
        return REASON_SM_ROOT + ABSENT
    if low & (above_host(unit) | LEGACY_ROOT_RESERVED):
        return REASON_SM_ROOT + RESERVED
    entry = view_words(unit, (low & ENTRY_ADDRESS) + (source & 0x7F) * 32)
    unit.counters.context_references += 1
    if entry == NULL:
        return REASON_SM_CONTEXT + UNREADABLE
    low, high = entry[0], entry[1]
    if low & FAULT_PROCESSING_DISABLE:
        context.flags |= CONTEXT_FPD
    if not low & PRESENT:
        return REASON_SM_CONTEXT + ABSENT
    if low & (above_host(unit) | SCALABLE_CONTEXT_RESERVED) or high >> 21 or entry[2] or entry[3]:
        return REASON_SM_CONTEXT + RESERVED
    # Fields of what the unit has not got: Device-TLB and PASID enables, RID_PASID and RID_PRIV.
    if ((low & 4 and not unit.ecap & ECAP_DT) or (low & 8 and not has(unit.ecap, ECAP_PASID_SHIFT))
            or (high & 0xFFFFF and not has(unit.ecap, ECAP_RPS_SHIFT))
            or (high >> 20 and not has(unit.ecap, ECAP_RPRIVS_SHIFT))):
        return REASON_SM_CONTEXT + RESERVED
    context.flags |= ((CONTEXT_DTE if low & 4 else 0) | (CONTEXT_PASIDE if low & 8 else 0)
                      | (CONTEXT_PRIVILEGED if high >> 20 & 1 else 0))
    context.directory = low & ENTRY_ADDRESS
    context.directory_entries = 1 << ((low >> 9 & 7) + 7)
    context.rid_pasid = <u32>high & 0xFFFFF
    return REASON_OK if context.rid_pasid >> 6 < context.directory_entries else REASON_SM_CONTEXT_INVALID


cdef inline bint pasid_entry_is_reserved(const unit_t* unit, const u64* entry) noexcept nogil:
    """Whether a present entry of a PASID table has a reserved bit, or one of something that the unit has not got."""
    cdef u64 first = above_host(unit) | PASID_FIRST_RESERVED, second = above_host(unit) | PASID_RESERVED, used
    cdef u64 domain = <u64>PASID_DOMAIN_RESERVED
    cdef u32 i
    if not has(unit.ecap, ECAP_SMPWC_SHIFT):
        domain |= PASID_WALK_SNOOP
    if not has(unit.ecap, ECAP_SLADS_SHIFT) or not has(unit.ecap, ECAP_SMPWC_SHIFT):
        second |= PASID_MARKS
    if not unit.ecap & ECAP_SC:
        domain |= PASID_PAGE_SNOOP
    if not has(unit.ecap, ECAP_SRS_SHIFT):
        first |= PASID_SUPERVISOR
    if not has(unit.ecap, ECAP_EAFS_SHIFT) or not has(unit.ecap, ECAP_SMPWC_SHIFT):
        first |= PASID_EXTENDED_ACCESSED
    if not has(unit.ecap, ECAP_FLTS_SHIFT):
        first |= ENTRY_ADDRESS | PASID_FIRST_FIELDS
    used = entry[0] & second | entry[1] & domain | entry[2] & first
    for i in range(3, 8):
        used |= entry[i]
    return used != 0


cdef inline u8 pasid_entry_kind(const unit_t* unit, const u64* entry, context_t* context) noexcept nogil:
    """The fields of a PASID-table entry that is present and has no reserved bit."""
    cdef bint first, second
    context.kind = <u8>(entry[0] >> 6 & 7)
    context.did = <u16>entry[1]
    if not TYPE_FIRST <= context.kind <= TYPE_PASS:
        return REASON_SM_ENTRY_INVALID
    first, second = context.kind & TYPE_FIRST and context.kind != TYPE_PASS, context.kind & TYPE_SECOND
    context.flags |= ((CONTEXT_WPE if entry[2] & 1 << 4 else 0) | (CONTEXT_EAFE if entry[2] & 1 << 7 else 0)
                      | (CONTEXT_SRE if entry[2] & 1 else 0) | (CONTEXT_MARKS if entry[0] & 1 << 9 else 0))
    if first:
        context.first = entry[2] & ENTRY_ADDRESS
        context.first_levels = 4 + <u8>(entry[2] >> 2 & 3)
        if not has(unit.ecap, ECAP_FLTS_SHIFT) or context.first_levels > 4 + has(unit.cap, CAP_FL5LP_SHIFT):
            return REASON_SM_ENTRY_INVALID
    if second:
        context.second = entry[0] & ENTRY_ADDRESS
        context.second_levels = second_levels_of(unit, entry[0] >> 2 & 7)
        if context.second_levels == 0 or not has(unit.ecap, ECAP_NEST_SHIFT if first else ECAP_SLTS_SHIFT):
            return REASON_SM_ENTRY_INVALID
        if first and context.first >= second_limit(unit, context):
            return REASON_SM_ENTRY_INVALID
    if context.kind == TYPE_PASS and not unit.ecap & ECAP_PT:
        return REASON_SM_ENTRY_INVALID
    return REASON_OK


cdef inline u8 pasid_context(unit_t* unit, const context_t* whole, u32 pasid, context_t* context) noexcept nogil:
    """The entry of one PASID. `context` comes with what the context entry says."""
    cdef const u64* entry = view_words(unit, whole.directory + <u64>(pasid >> 6) * 8)
    cdef u64 low
    unit.counters.directory_references += 1
    if entry == NULL:
        return REASON_SM_DIRECTORY + UNREADABLE
    low = entry[0]
    if low & FAULT_PROCESSING_DISABLE:
        context.flags |= CONTEXT_FPD
    if not low & PRESENT:
        return REASON_SM_DIRECTORY + ABSENT
    if low & (above_host(unit) | DIRECTORY_RESERVED):
        return REASON_SM_DIRECTORY + RESERVED
    entry = view_words(unit, (low & ENTRY_ADDRESS) + (pasid & (PASID_OF_DIRECTORY - 1)) * 64)
    unit.counters.pasid_references += 1
    if entry == NULL:
        return REASON_SM_ENTRY + UNREADABLE
    if entry[0] & FAULT_PROCESSING_DISABLE:
        context.flags |= CONTEXT_FPD
    if not entry[0] & PRESENT:
        return REASON_SM_ENTRY + ABSENT
    if pasid_entry_is_reserved(unit, entry):
        return REASON_SM_ENTRY + RESERVED
    return pasid_entry_kind(unit, entry, context)


cdef inline void context_of(unit_t* unit, u32 source, context_t* context) noexcept nogil:
    """The context of a source, by its cache or from memory."""
    cdef u64 key = cache_key(source, 0, 0)
    cdef u64* known = cache_find(&unit.contexts, key)
    if known != NULL:
        memcpy(context, known, sizeof(context_t))
        return
    memset(context, 0, sizeof(context_t))
    context.pasid = NO_PASID
    context.scalable = is_scalable(unit)
    context.reason = scalable_context(unit, source, context) if context.scalable else (
        legacy_context(unit, source, context))
    if unit.contexts.exists and (context.reason == REASON_OK or unit.cap & CAP_CM):
        memcpy(cache_fill(&unit.contexts, key), context, sizeof(context_t))


cdef inline u8 check_pasid(const unit_t* unit, const context_t* whole, u32 pasid) noexcept nogil:
    """Whether a context of scalable mode lets a request have this PASID, or NO_PASID."""
    if pasid == NO_PASID:
        return REASON_OK
    if not whole.flags & CONTEXT_PASIDE:
        return REASON_SM_NO_PASIDE
    if pasid >> ((unit.ecap >> ECAP_PSS_SHIFT & 31) + 1):
        return REASON_SM_PASID_SIZE
    if pasid >> 6 >= whole.directory_entries:
        return REASON_SM_PASID_RANGE
    return REASON_SM_RID_PASID if pasid == whole.rid_pasid else REASON_OK


cdef inline void resolve(unit_t* unit, u32 source, u32 pasid, u64* access, context_t* context) noexcept nogil:
    """How a request is translated. `pasid` may be NO_PASID; RID_PRIV may make the access a privileged one."""
    cdef context_t whole
    cdef u64 key
    cdef u64* known
    cdef u32 mode = <u32>(unit.root >> 10) & 3
    if mode > MODE_SCALABLE or (mode and not has(unit.ecap, ECAP_SMTS_SHIFT)) or (mode == 0 and pasid != NO_PASID):
        memset(context, 0, sizeof(context_t))
        context.reason = REASON_SM_ROOT_POINTER if mode else REASON_SM_MODE
        return
    context_of(unit, source, &whole)
    context[0] = whole
    if whole.reason != REASON_OK or not whole.scalable:
        return
    context.reason = check_pasid(unit, &whole, pasid)
    if context.reason != REASON_OK:
        return
    if pasid == NO_PASID:
        pasid = whole.rid_pasid
        if whole.flags & CONTEXT_PRIVILEGED:
            access[0] |= ACCESS_PRIVILEGED
    key = cache_key(pasid, source, 0)
    known = cache_find(&unit.pasids, key)
    if known != NULL:
        memcpy(context, known, sizeof(context_t))
        return
    context.reason = pasid_context(unit, &whole, pasid, context)
    context.pasid = pasid
    if context.reason == REASON_OK:
        context.tag = tag_for(unit, context.did, pasid if context.kind & TYPE_FIRST else <u32>NO_PASID, context.kind,
                              False)
    if unit.pasids.exists and (context.reason == REASON_OK or unit.cap & CAP_CM):
        memcpy(cache_fill(&unit.pasids, key), context, sizeof(context_t))
