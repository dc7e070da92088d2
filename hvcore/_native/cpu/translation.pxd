"""From control registers to walks: the paging mode, and the request that every walk of a VP uses (SDM 3A 4.1, 4.6).

`vp.request` follows the registers: whoever writes one of them calls `refresh_request`.
"""
from hvcore._native.base.types cimport u64
from hvcore._native.cpu.spec cimport (
    CR0_PG, CR0_WP, CR3_LAM_U48, CR3_LAM_U57, CR4_LA57, CR4_LAM_SUP, CR4_PAE, CR4_PKE, CR4_PKS, CR4_PSE, CR4_SMAP,
    CR4_SMEP, EFER_LMA, EFER_NXE, FLAG_AC,
)
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.mem.descend cimport space_p, space_translate
from hvcore._native.mem.format cimport (
    PAGING_32BIT, PAGING_32BIT_PSE, PAGING_4LEVEL, PAGING_5LEVEL, PAGING_NONE, PAGING_PAE, PagingMode, RIGHT_READ,
    RIGHT_USER, paging_format,
)
from hvcore._native.mem.ram cimport ram_at
from hvcore._native.mem.request cimport (
    ACCESS_ALIGNMENT, ACCESS_IMPLICIT, PAE_ENTRIES, is_canonical_in, reserved_bits, split_reserved_bits,
    walk_request_t,
)
from hvcore._native.mem.second_level cimport SECOND_OK, second_level_t
from hvcore._native.mem.walk cimport walk, walk_t

cdef enum:
    PDPT_ADDRESS = 0xFFFFFFE0


cdef inline PagingMode paging_mode(u64 cr0, u64 cr4, u64 efer) noexcept nogil:
    if not cr0 & CR0_PG:
        return PAGING_NONE
    if not cr4 & CR4_PAE:
        return PAGING_32BIT_PSE if cr4 & CR4_PSE else PAGING_32BIT
    if not efer & EFER_LMA:
        return PAGING_PAE
    return PAGING_5LEVEL if cr4 & CR4_LA57 else PAGING_4LEVEL


cdef inline void load_pdptes(vp_t* vp) noexcept nogil:
    """PAE paging: the four entries that CR3 names become registers (SDM 3A 4.4.1). What cannot be read is not
    present; a guest whose CR3 does that does not run yet."""
    cdef second_level_t where = space_translate(vp.space, vp.cr3 & PDPT_ADDRESS, RIGHT_READ, False)
    cdef int i
    for i in range(PAE_ENTRIES):
        vp.request.pdptes[i] = (<u64*>ram_at(vp.space.ram, where.spa))[i] if where.status == SECOND_OK else 0


cdef inline void refresh_request(vp_t* vp) noexcept nogil:
    """Take over CR0, CR3, CR4, EFER, PKRU and IA32_PKRS."""
    cdef walk_request_t* request = &vp.request
    cdef bint is_long
    vp.paging = paging_mode(vp.cr0, vp.cr4, vp.efer)
    is_long = vp.paging == PAGING_4LEVEL or vp.paging == PAGING_5LEVEL
    request.root = vp.cr3
    if vp.paging == PAGING_PAE:
        load_pdptes(vp)
    request.reserved = reserved_bits(vp.paging, vp.partition.physical_bits, vp.efer & EFER_NXE != 0)
    request.split_reserved = split_reserved_bits(vp.partition.physical_bits)
    request.user_keys = vp.pkru if is_long and vp.cr4 & CR4_PKE else 0
    request.supervisor_keys = vp.pkrs if is_long and vp.cr4 & CR4_PKS else 0
    request.lam_user = 0 if not is_long else 57 if vp.cr3 & CR3_LAM_U57 else 48 if vp.cr3 & CR3_LAM_U48 else 0
    request.lam_supervisor = 0 if not is_long or not vp.cr4 & CR4_LAM_SUP else 57 if vp.cr4 & CR4_LA57 else 48
    request.write_protect = vp.cr0 & CR0_WP != 0
    request.no_user_fetch = vp.cr4 & CR4_SMEP != 0
    request.no_user_data = vp.cr4 & CR4_SMAP != 0
    request.reports_fetch = vp.cr4 & CR4_SMEP != 0 or (vp.efer & EFER_NXE and vp.cr4 & CR4_PAE)
    request.set_marks = True
    request.ignore_rights = False


cdef inline int linear_bits(const vp_t* vp) noexcept nogil:
    """Width of linear addresses: that of the paging mode, for registers too (SDM 3A 4.5.2)."""
    return 57 if vp.cr4 & CR4_LA57 else 48


cdef inline bint vp_is_canonical(const vp_t* vp, u64 gva) noexcept nogil:
    return is_canonical_in(gva, linear_bits(vp))


cdef inline u64 access_now(const vp_t* vp, u64 access) noexcept nogil:
    """RIGHT_ bits of an access, and who makes it."""
    return (access | (RIGHT_USER if vp.cpl == 3 else 0) | (ACCESS_IMPLICIT if vp.implicit else 0)
            | (ACCESS_ALIGNMENT if vp.rflags_system & FLAG_AC else 0))


cdef inline void vp_translate(vp_t* vp, const walk_request_t* request, u64 access, u64 gva,
                              walk_t* found) noexcept nogil:
    """Walk in the VP's paging mode; `access` as in mem/request.pxd."""
    if vp.paging == PAGING_4LEVEL:
        walk(<space_p>vp.space, paging_format(PAGING_4LEVEL), request, access, gva, found)
    elif vp.paging == PAGING_5LEVEL:
        walk(<space_p>vp.space, paging_format(PAGING_5LEVEL), request, access, gva, found)
    else:
        # Modes that do not run yet: one copy of the walker is enough.
        walk(<space_p>vp.space, paging_format(vp.paging), request, access, gva, found)


cdef inline void vp_walk(vp_t* vp, u64 gva, u64 access, walk_t* found) noexcept nogil:
    """Translate as the VP would now, without side effects."""
    cdef walk_request_t request = vp.request
    request.set_marks = False
    vp_translate(vp, &request, access_now(vp, access), gva, found)
