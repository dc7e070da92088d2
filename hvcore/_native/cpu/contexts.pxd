"""Which cached translations a processor may go on using: PCIDs and invalidation (SDM 3A 4.10.2, 4.10.4).

Each PCID that was used lately has a context, a set of TLBs; more PCIDs than contexts is a loss of translations, never
an error. Global pages are kept by context and dropped in all of them. Where the SDM leaves a choice, more is dropped.
"""
from hvcore._native.base.types cimport u16, u64, u8
from hvcore._native.cpu.spec cimport CR3_LAM_U48, CR3_LAM_U57, CR3_PCID, CR4_LAM_SUP, CR4_PCIDE, CR4_SMAP, FLAG_AC
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.cpu.tap cimport tap_add
from hvcore._native.cpu.translation cimport refresh_request
from hvcore._native.mem.ram cimport PAGE_SIZE
from hvcore._native.mem.tlb cimport (
    TLB_CONTEXTS, TLB_EXEMPT, TLB_MODES, TLB_SUPERVISOR, TLB_USER, tlb_context_t, tlb_flush, tlb_flush_page,
    tlb_flush_range, tlb_init,
)
from hvcore._native.model.record cimport ASID_ALL, KIND_FLUSH, KIND_INVALIDATE


cdef inline void forget_code_page(vp_t* vp) noexcept nogil:
    vp.code_gva = <u64>1 << 63      # not canonical: no address that runs lies in this page


cdef inline void use_tlb(vp_t* vp, int mode) noexcept nogil:
    """One of those of the current PCID; handlers do not see it while somebody listens (tap.pxd)."""
    vp.own_tlb = &vp.tlbs[mode]
    vp.tlb = vp.own_tlb if vp.tap == NULL else vp.empty_tlb


cdef inline void note_flush(vp_t* vp, u8 kind, u16 pcid, u64 gva) noexcept nogil:
    if vp.tap != NULL:
        tap_add(vp.tap, gva, 0, pcid, kind)


cdef inline void select_tlb(vp_t* vp) noexcept nogil:
    """The TLB for explicit accesses, by who makes them; implicit ones use that of the supervisor."""
    use_tlb(vp, TLB_USER if vp.cpl == 3 else
            TLB_EXEMPT if vp.rflags_system & FLAG_AC and vp.cr4 & CR4_SMAP else TLB_SUPERVISOR)


cdef inline u16 current_pcid(const vp_t* vp) noexcept nogil:
    return <u16>(vp.cr3 & CR3_PCID) if vp.cr4 & CR4_PCIDE else 0


cdef inline void flush_context(tlb_context_t* context, bint keep_global) noexcept nogil:
    cdef int mode
    for mode in range(TLB_MODES):
        tlb_flush(&context.tlbs[mode], keep_global)


cdef inline void flush_contexts(vp_t* vp, bint keep_global) noexcept nogil:
    """Every PCID."""
    cdef int i
    for i in range(TLB_CONTEXTS):
        flush_context(&vp.contexts[i], keep_global)
    note_flush(vp, KIND_FLUSH, ASID_ALL, 0)
    forget_code_page(vp)


cdef inline tlb_context_t* context_of(vp_t* vp, u16 pcid) noexcept nogil:
    """The context of a PCID, or NULL."""
    cdef int i
    for i in range(TLB_CONTEXTS):
        if vp.contexts[i].last_use and vp.contexts[i].pcid == pcid:
            return &vp.contexts[i]
    return NULL


cdef inline tlb_context_t* oldest_context(vp_t* vp) noexcept nogil:
    cdef tlb_context_t* oldest = &vp.contexts[0]
    cdef int i
    for i in range(TLB_CONTEXTS):
        if vp.contexts[i].last_use < oldest.last_use:
            oldest = &vp.contexts[i]
    return oldest


cdef inline void enter_context(vp_t* vp) noexcept nogil:
    """Translate by the current PCID from now on, with what is still cached of it."""
    cdef u16 pcid = current_pcid(vp)
    cdef u64 tagging = (vp.cr3 & (CR3_LAM_U48 | CR3_LAM_U57)) | (vp.cr4 & CR4_LAM_SUP)
    cdef tlb_context_t* context = context_of(vp, pcid)
    cdef int mode
    if context == NULL:
        context = oldest_context(vp)
        if context.last_use == 0:
            for mode in range(TLB_MODES):
                tlb_init(&context.tlbs[mode])
        flush_context(context, False)
        context.pcid = pcid
    elif context.tagging != tagging:
        flush_context(context, False)       # its tags hold pointers with metadata
    context.tagging = tagging
    vp.context_clock += 1
    context.last_use = vp.context_clock
    vp.tlbs = context.tlbs
    select_tlb(vp)
    forget_code_page(vp)


cdef inline void flush_translations(vp_t* vp) noexcept nogil:
    """Registers that translations or rights depend on have changed: take them over and drop everything."""
    refresh_request(vp)
    flush_contexts(vp, False)
    enter_context(vp)


cdef inline void switch_address_space(vp_t* vp, bint keep) noexcept nogil:
    """CR3 has been loaded. Without `keep`, what was cached for its PCID goes, but for global pages."""
    refresh_request(vp)
    enter_context(vp)
    if not keep:
        flush_context(context_of(vp, current_pcid(vp)), True)
        note_flush(vp, KIND_FLUSH, current_pcid(vp), 0)


cdef inline void flush_page(vp_t* vp, u64 gva) noexcept nogil:
    """INVLPG: the page in the current PCID, and a global one in all."""
    cdef int i, mode
    for i in range(TLB_CONTEXTS):
        for mode in range(TLB_MODES):
            tlb_flush_page(&vp.contexts[i].tlbs[mode], gva, False)
    note_flush(vp, KIND_INVALIDATE, current_pcid(vp), gva)
    forget_code_page(vp)


cdef inline void flush_range(vp_t* vp, u64 first, u64 last) noexcept nogil:
    """The pages from `first` to that of `last` in every PCID, global ones too."""
    cdef int i, mode
    for i in range(TLB_CONTEXTS):
        for mode in range(TLB_MODES):
            tlb_flush_range(&vp.contexts[i].tlbs[mode], first, last)
    if last - first < PAGE_SIZE:
        note_flush(vp, KIND_INVALIDATE, current_pcid(vp), first)
    else:
        note_flush(vp, KIND_FLUSH, ASID_ALL, 0)
    forget_code_page(vp)


cdef inline void flush_page_of(vp_t* vp, u16 pcid, u64 gva) noexcept nogil:
    """INVPCID of one address: global pages stay."""
    cdef tlb_context_t* context = context_of(vp, pcid)
    cdef int mode
    if context != NULL:
        for mode in range(TLB_MODES):
            tlb_flush_page(&context.tlbs[mode], gva, True)
    note_flush(vp, KIND_INVALIDATE, pcid, gva)
    forget_code_page(vp)


cdef inline void flush_pcid(vp_t* vp, u16 pcid) noexcept nogil:
    """INVPCID of one PCID: global pages stay."""
    cdef tlb_context_t* context = context_of(vp, pcid)
    if context != NULL:
        flush_context(context, True)
    note_flush(vp, KIND_FLUSH, pcid, 0)
    forget_code_page(vp)
