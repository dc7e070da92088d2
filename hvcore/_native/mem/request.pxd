"""What a walk has to know of the processor, as plain values: made once for a batch or when registers change.

    access      RIGHT_READ, RIGHT_WRITE, RIGHT_EXECUTE: what is to be done
                RIGHT_USER          a user-mode access (CPL 3)
                ACCESS_IMPLICIT     of the processor itself: descriptor tables, TSS (SDM 3A 4.6.1)
                ACCESS_ALIGNMENT    EFLAGS.AC is set: SMAP does not apply to explicit accesses
"""
from hvcore._native.base.bits cimport sign_extend
from hvcore._native.base.types cimport u8, u32, u64
from hvcore._native.mem.format cimport (
    PAGING_32BIT, PAGING_32BIT_PSE, PAGING_NONE, PAGING_PAE, RIGHT_EXECUTE, RIGHT_READ, RIGHT_USER, RIGHT_WRITE,
    PagingMode, page_format_t,
)

cdef enum:
    ACCESS_IMPLICIT = 32
    ACCESS_ALIGNMENT = 64
    PAE_ENTRIES = 4
    PF_PRESENT = 1
    PF_WRITE = 2
    PF_USER = 4
    PF_RESERVED = 8
    PF_FETCH = 16
    PF_KEY = 32
    KEY_SHIFT = 59
    BELOW_BIT_63 = 0x7FFFFFFFFFFFFFFF


cdef struct walk_request_t:
    u64 root                # CR3: its address bits name the top table
    u64[PAE_ENTRIES] pdptes # PAE, instead of `root`
    u64 reserved            # must be zero in every entry
    u64 split_reserved      # must be zero in an entry that maps a 4 MiB page
    u32 user_keys           # PKRU, or zero while CR4.PKE is 0: two bits a key
    u32 supervisor_keys     # IA32_PKRS, or zero while CR4.PKS is 0
    u8 lam_user             # LAM, of pointers with bit 63 clear: 48 or 57 bits are address, 0: off
    u8 lam_supervisor       # ... and of those with bit 63 set
    bint write_protect      # CR0.WP
    bint no_user_fetch      # CR4.SMEP
    bint no_user_data       # CR4.SMAP
    bint reports_fetch      # page faults tell fetches: NXE or SMEP
    bint set_marks          # set accessed and dirty bits, of both levels; else the walk changes nothing
    bint ignore_rights      # of the first level


# What an access needs of a path, the AND of its entries with `inverted` bits turned over: which bits are looked at,
# and how they must be. The same for every access of its kind, so a batch asks once.
cdef struct need_t:
    u64 examined
    u64 wanted


cdef inline u64 reserved_bits(PagingMode mode, u32 physical_bits, bint no_execute_enable) noexcept nogil:
    """Bits that must be zero in every entry: above MAXPHYADDR, and bit 63 while NXE is 0 (SDM 3A 4.4.2, 4.5.4)."""
    cdef u64 above = ~((<u64>1 << physical_bits) - 1) & BELOW_BIT_63
    cdef u64 no_execute = 0 if no_execute_enable else <u64>1 << 63
    if mode == PAGING_32BIT or mode == PAGING_32BIT_PSE or mode == PAGING_NONE:
        return 0
    if mode == PAGING_PAE:
        return above | no_execute
    return (above & <u64>0x000FFFFFFFFFFFFF) | no_execute


cdef inline u64 split_reserved_bits(u32 physical_bits) noexcept nogil:
    """PSE-36: bits of a 4 MiB entry above the address bits that exist (SDM 3A table 4-4)."""
    cdef u32 address_bits = min(physical_bits, <u32>40)
    return 0x3FFFFF & ~((<u64>1 << max(address_bits - 19, <u32>13)) - 1)


cdef inline bint is_canonical_in(u64 gva, int linear_bits) noexcept nogil:
    """Whether an address exists: the bits above `linear_bits` repeat the highest; of 32 bits, they are zero."""
    if linear_bits == 32:
        return gva >> 32 == 0
    return linear_bits == 64 or <u64>sign_extend(gva, linear_bits) == gva


cdef inline u64 linear_address(const walk_request_t* request, u64 access, u64 gva) noexcept nogil:
    """The address without the metadata that LAM lets a pointer carry. Fetches and accesses of the processor itself
    have none. Bit 63 stays: whether it agrees with the highest address bit is the canonical check's business."""
    cdef u8 bits = request.lam_supervisor if gva >> 63 else request.lam_user
    if bits == 0 or access & (RIGHT_EXECUTE | ACCESS_IMPLICIT):
        return gva
    return (gva & <u64>1 << 63) | (<u64>sign_extend(gva, bits) & BELOW_BIT_63)


cdef inline u64 path_bits(page_format_t form, u64 rights) noexcept nogil:
    """The bits of a path that say these RIGHT_ bits: `path_rights` of format.pxd the other way round."""
    return (rights & RIGHT_WRITE) | ((rights & RIGHT_USER) >> 1) | (form.inverted if rights & RIGHT_EXECUTE else 0)


cdef inline need_t needs_of(page_format_t form, const walk_request_t* request, u64 access) noexcept nogil:
    """SDM 3A 4.6.1 as a mask and a value, keys apart."""
    cdef need_t need
    cdef u64 wanted = access & (RIGHT_WRITE | RIGHT_EXECUTE | RIGHT_USER), examined
    if request.ignore_rights:
        need.examined = need.wanted = 0
        return need
    if not access & RIGHT_USER and not request.write_protect:
        wanted &= ~<u64>RIGHT_WRITE
    examined = wanted
    if not access & RIGHT_USER and (request.no_user_fetch if access & RIGHT_EXECUTE else (
            request.no_user_data and access & (ACCESS_IMPLICIT | ACCESS_ALIGNMENT) != ACCESS_ALIGNMENT)):
        examined |= RIGHT_USER
    need.examined, need.wanted = path_bits(form, examined), path_bits(form, wanted)
    return need


cdef inline bint key_denies(const walk_request_t* request, u64 access, u8 rights, u64 entry) noexcept nogil:
    """Protection keys: AD forbids data accesses, WD writes, those of the supervisor only with WP (SDM 3A 4.6.2)."""
    cdef u32 keys = request.user_keys if rights & RIGHT_USER else request.supervisor_keys
    if access & RIGHT_EXECUTE or request.ignore_rights:
        return False
    keys >>= 2 * ((entry >> KEY_SHIFT) & 15)
    return keys & 1 or (keys & 2 and access & RIGHT_WRITE and (access & RIGHT_USER or request.write_protect))


cdef inline u32 fault_code(const walk_request_t* request, u64 access, u32 cause) noexcept nogil:
    """Error code of a page fault: `cause` is P, RSVD and PK (SDM 3A 4.7)."""
    return (cause | (PF_WRITE if access & RIGHT_WRITE else 0) | (PF_USER if access & RIGHT_USER else 0)
            | (PF_FETCH if access & RIGHT_EXECUTE and request.reports_fetch else 0))
