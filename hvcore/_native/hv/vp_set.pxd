"""Which virtual processors a call is for: HV_VP_SET, or the mask of the older calls (hyperv-abi 4.9)."""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.hv.status cimport HV_INVALID_HYPERCALL_INPUT, HV_INVALID_PARAMETER, HV_SUCCESS

cdef extern from *:
    u32 count_ones "__builtin_popcountll"(u64 word) noexcept nogil

cdef enum:
    VP_SET_SPARSE
    VP_SET_ALL


cdef struct vp_set_t:
    bint everyone
    u64 valid_banks             # bank k has VPs 64 k to 64 k + 63
    const u64* banks            # those that are valid, packed


cdef inline vp_set_t all_vps() noexcept nogil:
    return vp_set_t(everyone=True, valid_banks=0, banks=NULL)


cdef inline vp_set_t vps_of_mask(const u64* mask) noexcept nogil:
    """VPs 0 to 63. The mask must outlive the set."""
    return vp_set_t(everyone=False, valid_banks=1, banks=mask)


cdef inline int read_vp_set(const u64* words, u32 variable_qwords, vp_set_t* found) noexcept nogil:
    """Format, valid banks, and the banks as variable header: an HV_STATUS. The words must outlive the set."""
    if words[0] > VP_SET_ALL:
        return HV_INVALID_PARAMETER
    if words[0] == VP_SET_ALL:
        found[0] = all_vps()        # banks that it calls valid need not be there
        return HV_SUCCESS
    found[0] = vp_set_t(everyone=False, valid_banks=words[1], banks=words + 2)
    return HV_SUCCESS if count_ones(words[1]) == variable_qwords else HV_INVALID_HYPERCALL_INPUT


cdef inline bint names_nobody(const vp_set_t* vps) noexcept nogil:
    cdef u32 i
    if vps.everyone:
        return False
    for i in range(count_ones(vps.valid_banks)):
        if vps.banks[i]:
            return False
    return True


cdef inline bint is_in_set(const vp_set_t* vps, u32 index) noexcept nogil:
    cdef u64 bank = <u64>1 << (index >> 6 & 63)
    if vps.everyone:
        return True
    if index >= 4096 or not vps.valid_banks & bank:
        return False
    return vps.banks[count_ones(vps.valid_banks & (bank - 1))] >> (index & 63) & 1
