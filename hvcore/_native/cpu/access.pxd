"""Memory accesses that the fast TLB cannot serve: walks, pages that are watched, accesses that leave their page,
device memory, and what becomes of a failure: a fault of the guest or an exit.

Called out of line through vp.machine. What cannot be a host pointer goes through vp.bounce: a read finds its bytes
there; a write leaves them there, and `commit_bounce` takes them home when the instruction has succeeded.
"""
from hvcore._native.base.bits cimport is_canonical
from hvcore._native.base.status cimport REASON_MEMORY, STOP_EXIT, STOP_FAULT, STOP_NONE, STOP_STALE
from hvcore._native.base.types cimport u32, u64, u8
from hvcore._native.cpu.spec cimport CR0_PG, CR0_WP, EFER_NXE, VECTOR_GP, VECTOR_PF, VECTOR_SS
from hvcore._native.cpu.state cimport SLOT_RIP, vp_t
from hvcore._native.cpu.tap cimport tap_learn
from hvcore._native.mem.format cimport RIGHT_EXECUTE, RIGHT_READ, RIGHT_USER, RIGHT_WRITE, x64_4level
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE, ram_at, ram_written
from hvcore._native.mem.tlb cimport empty_tag, tlb_slot
from hvcore._native.mem.walk cimport (
    SECOND_OVERLAY, SECOND_RIGHTS, WALK_NESTED, WALK_NOT_CANONICAL, WALK_NOT_PRESENT, WALK_OK, WALK_RESERVED,
    WALK_RIGHTS, second_level_t, space_translate, walk, walk_request_t, walk_t,
)
from libc.string cimport memcpy, memset

cdef enum:
    NO_MEMORY = -1              # instead of an SPA: device memory
    BOUNCE_BYTES = 64
    PF_PRESENT = 1
    PF_WRITE = 2
    PF_USER = 4
    PF_RESERVED = 8
    PF_FETCH = 16


cdef inline walk_t vp_walk(vp_t* vp, u64 gva, u64 access, bint set_marks) noexcept nogil:
    """Translate as the VP would now, rights and all; without paging GVA is GPA."""
    cdef walk_t found
    cdef second_level_t second
    cdef u64 reserved = vp.partition.gpa_reserved
    if vp.cr0 & CR0_PG:
        if not is_canonical(gva):
            memset(&found, 0, sizeof(found))
            found.status = WALK_NOT_CANONICAL
            return found
        if not vp.efer & EFER_NXE:
            reserved |= <u64>1 << 63
        return walk(vp.space.ram, x64_4level(reserved), vp.space, walk_request_t(
            root=vp.cr3, access=access | (RIGHT_USER if vp.cpl == 3 else 0), supervisor=vp.cpl != 3,
            write_protect=vp.cr0 & CR0_WP != 0, set_marks=set_marks, ignore_rights=False), gva)
    memset(&found, 0, sizeof(found))
    second = space_translate(vp.space, gva, <u8>access)
    found.status = WALK_OK if second.status == 0 else WALK_NESTED
    found.nested_status = second.status
    found.nested_references = second.references
    found.page_shift = found.nested_page_shift = second.page_shift
    found.nested_rights = second.rights
    found.address = gva
    found.spa = second.spa
    found.overlay = second.overlay
    return found


cdef inline bint fault_address(vp_t* vp, u8 stack) noexcept nogil:
    vp.fault.vector = VECTOR_SS if stack else VECTOR_GP
    vp.fault.has_error_code = True
    vp.fault.software = False
    vp.fault.error_code = 0
    vp.stop = STOP_FAULT
    return False


cdef inline bint fault_page(vp_t* vp, u64 gva, u64 access, bint present, bint reserved) noexcept nogil:
    vp.fault.vector = VECTOR_PF
    vp.fault.has_error_code = True
    vp.fault.software = False
    vp.fault.address = gva
    vp.fault.error_code = ((PF_PRESENT if present else 0) | (PF_WRITE if access & RIGHT_WRITE else 0)
                           | (PF_USER if vp.cpl == 3 else 0) | (PF_RESERVED if reserved else 0)
                           | (PF_FETCH if access & RIGHT_EXECUTE and vp.efer & EFER_NXE else 0))
    vp.stop = STOP_FAULT
    return False


cdef inline bint leave_for_memory(vp_t* vp, u64 gva, u64 gpa, u8 access, u32 size_bytes, bint gva_valid,
                                  bint rights) noexcept nogil:
    vp.exit.reason = REASON_MEMORY
    vp.exit.access = access
    vp.exit.size_bytes = <u8>size_bytes
    vp.exit.gva = gva
    vp.exit.gpa = gpa
    vp.exit.gva_valid = gva_valid
    vp.exit.rights = rights
    vp.exit.length = 0
    vp.exit.retired = False
    vp.stop = STOP_EXIT
    return False


cdef inline bint reach(vp_t* vp, u64 gva, u64 access, u32 size_bytes, u8 stack, walk_t* found) noexcept nogil:
    """A counted walk. False: vp.stop is set. True: `found.spa` is memory, or NO_MEMORY for device memory."""
    if not is_canonical(gva):
        return fault_address(vp, stack)
    found[0] = vp_walk(vp, gva, access, True)
    vp.counters.tlb_misses += 1
    vp.counters.guest_references += found.references
    vp.counters.second_level_references += found.nested_references
    if vp.tap != NULL and found.status == WALK_OK:
        tap_learn(vp.tap, gva, found)
    if found.status == WALK_OK:
        return True
    if found.status == WALK_NOT_PRESENT or found.status == WALK_RIGHTS or found.status == WALK_RESERVED:
        return fault_page(vp, gva, access, found.status != WALK_NOT_PRESENT, found.status == WALK_RESERVED)
    if found.nested_status == SECOND_OVERLAY:
        return fault_address(vp, False)
    if found.status == WALK_NESTED and found.nested_status != SECOND_RIGHTS and not access & RIGHT_EXECUTE:
        found.spa = NO_MEMORY
        return True
    return leave_for_memory(vp, gva, found.address, <u8>access, size_bytes, found.status == WALK_NESTED,
                            found.nested_status == SECOND_RIGHTS)


cdef inline bint read_device(vp_t* vp, u64 gva, u64 gpa, u8* target, u32 size_bytes) noexcept nogil:
    """Bytes of device memory: the caller's answer, or an exit to get it. The root's own space floats."""
    if vp.partition.is_root:
        memset(target, 0xFF, size_bytes)
        return True
    if vp.exit.answered and vp.exit.gpa == gpa and vp.exit.size_bytes == size_bytes:
        vp.exit.answered = False
        memcpy(target, vp.answer, size_bytes)
        return True
    return leave_for_memory(vp, gva, gpa, RIGHT_READ, size_bytes, True, False)


cdef inline bint read_part(vp_t* vp, u64 gva, u8* target, u32 size_bytes, u8 stack, u64* gpa) noexcept nogil:
    """Copy a piece of one page; for device memory only its GPA is found."""
    cdef walk_t found
    cdef u64 slot = tlb_slot(gva)
    if vp.own_tlb.read[slot].tag == gva & ~<u64>PAGE_OFFSET_MASK:
        memcpy(target, <u8*>(gva + vp.own_tlb.read[slot].addend), size_bytes)
        return True
    if not reach(vp, gva, RIGHT_READ, size_bytes, stack, &found):
        return False
    if found.spa == <u64>NO_MEMORY:
        gpa[0] = found.address
        return True
    vp.own_tlb.read[slot].tag = gva & ~<u64>PAGE_OFFSET_MASK
    vp.own_tlb.read[slot].addend = <u64>ram_at(vp.space.ram, found.spa) - gva
    memcpy(target, ram_at(vp.space.ram, found.spa), size_bytes)
    return True


cdef inline void* read_split(vp_t* vp, u64 gva, u32 first, u32 size_bytes, u8 stack) noexcept nogil:
    """A read over a page end. Over two pages of device memory it is one access, at the address of the first."""
    cdef u64 gpa = <u64>NO_MEMORY, second_gpa = <u64>NO_MEMORY
    cdef u8* target = <u8*>vp.bounce
    if not read_part(vp, gva, target, first, stack, &gpa):
        return NULL
    if not read_part(vp, gva + first, target + first, size_bytes - first, stack, &second_gpa):
        return NULL
    if gpa != <u64>NO_MEMORY:
        if second_gpa != <u64>NO_MEMORY:
            first = size_bytes
        return target if read_device(vp, gva, gpa, target, first) else NULL
    if second_gpa != <u64>NO_MEMORY and not read_device(vp, gva + first, second_gpa, target + first,
                                                        size_bytes - first):
        return NULL
    return target


cdef inline void* read_access(vp_t* vp, u64 gva, u32 size_bytes, u8 stack) noexcept nogil:
    """The out-of-line half of `readable`. NULL with vp.stop STOP_NONE: the run must be read in smaller pieces."""
    cdef u64 slot = tlb_slot(gva), first = PAGE_SIZE - (gva & PAGE_OFFSET_MASK)
    cdef walk_t found
    if first < size_bytes:
        if not is_canonical(gva + first):       # known before any page is looked at
            fault_address(vp, stack)
            return NULL
        return read_split(vp, gva, <u32>first, size_bytes, stack)
    if not reach(vp, gva, RIGHT_READ, size_bytes, stack, &found):
        return NULL
    if found.spa != <u64>NO_MEMORY:
        vp.own_tlb.read[slot].tag = gva & ~<u64>PAGE_OFFSET_MASK
        vp.own_tlb.read[slot].addend = <u64>ram_at(vp.space.ram, found.spa) - gva
        return ram_at(vp.space.ram, found.spa)
    vp.stop = STOP_NONE
    if size_bytes > BOUNCE_BYTES or not read_device(vp, gva, found.address, <u8*>vp.bounce, size_bytes):
        return NULL
    return vp.bounce


cdef inline bint write_part(vp_t* vp, u64 gva, u32 size_bytes, u8 stack, int part, u64* gpa) noexcept nogil:
    """Where a piece of one page goes: into bounce_spa[part]; the page's GPA for device memory."""
    cdef walk_t found
    cdef u64 slot = tlb_slot(gva), page = gva & ~<u64>PAGE_OFFSET_MASK
    if vp.own_tlb.known[slot].tag == page:
        vp.bounce_spa[part] = vp.own_tlb.known[slot].spa | (gva & PAGE_OFFSET_MASK)
        return True
    if not reach(vp, gva, RIGHT_READ | RIGHT_WRITE, size_bytes, stack, &found):
        return False
    vp.bounce_spa[part] = found.spa
    if found.spa == <u64>NO_MEMORY:
        gpa[0] = found.address
        return True
    vp.own_tlb.known[slot].tag = page
    vp.own_tlb.known[slot].spa = found.spa & ~<u64>PAGE_OFFSET_MASK
    # Never an older page's entry beside a new `known`: tlb_guard_frame could not find it.
    vp.own_tlb.write[slot].tag = empty_tag(slot)
    if vp.space.ram.watched[found.spa >> PAGE_SHIFT] == 0:
        vp.own_tlb.write[slot].tag = page
        vp.own_tlb.write[slot].addend = <u64>ram_at(vp.space.ram, found.spa) - gva
    return True


cdef inline bint fetch_part(vp_t* vp, u64 gva, u64 gpa, int part, u32 offset, u32 size_bytes) noexcept nogil:
    """The old bytes of a piece into the bounce buffer."""
    if vp.bounce_spa[part] != <u64>NO_MEMORY:
        memcpy(<u8*>vp.bounce + offset, ram_at(vp.space.ram, vp.bounce_spa[part]), size_bytes)
        return True
    return read_device(vp, gva, gpa, <u8*>vp.bounce + offset, size_bytes)


cdef inline void keep_registers(vp_t* vp) noexcept nogil:
    """A doorbell is known by the value written, an intercept shows the processor before the write: keep both ways
    open. At this point the instruction has changed nothing yet."""
    memcpy(vp.kept_registers, vp.registers, sizeof(vp.kept_registers))
    vp.kept_flag_result = vp.flag_result
    vp.kept_flag_aux = vp.flag_aux


cdef inline void undo_write(vp_t* vp) noexcept nogil:
    """The write was no doorbell: the processor goes back to before the instruction."""
    memcpy(vp.registers, vp.kept_registers, sizeof(vp.kept_registers))
    vp.flag_result = vp.kept_flag_result
    vp.flag_aux = vp.kept_flag_aux
    vp.registers[SLOT_RIP] -= vp.retired_length


cdef inline void* write_access(vp_t* vp, u64 gva, u32 size_bytes, u8 stack, bint update) noexcept nogil:
    """The out-of-line half of `writable`. NULL with vp.stop STOP_NONE: the run must be written in smaller pieces."""
    cdef u64 first = PAGE_SIZE - (gva & PAGE_OFFSET_MASK), slot = tlb_slot(gva), gpa = 0, second_gpa = 0
    cdef bint split = first < size_bytes
    if not split:
        first = size_bytes
    elif not is_canonical(gva + first):
        fault_address(vp, stack)
        return NULL
    if not write_part(vp, gva, <u32>first, stack, 0, &gpa):
        return NULL
    if not split and vp.bounce_spa[0] != <u64>NO_MEMORY:
        if vp.space.ram.watched[vp.bounce_spa[0] >> PAGE_SHIFT] == 0:
            vp.own_tlb.write[slot].tag = gva & ~<u64>PAGE_OFFSET_MASK
            vp.own_tlb.write[slot].addend = <u64>ram_at(vp.space.ram, vp.bounce_spa[0]) - gva
            return ram_at(vp.space.ram, vp.bounce_spa[0])
    vp.stop = STOP_NONE
    if size_bytes > BOUNCE_BYTES:
        return NULL
    if split and not write_part(vp, gva + first, size_bytes - <u32>first, stack, 1, &second_gpa):
        return NULL
    if split and vp.bounce_spa[0] == <u64>NO_MEMORY and vp.bounce_spa[1] == <u64>NO_MEMORY:
        split, first = False, size_bytes        # one access, as in read_split
    vp.bounce_gva = gva
    vp.bounce_gpa = gpa if vp.bounce_spa[0] == <u64>NO_MEMORY else second_gpa
    vp.bounce_size = size_bytes
    vp.bounce_first = <u32>first
    if not vp.partition.is_root and not vp.partition.host_managed and (
            vp.bounce_spa[0] == <u64>NO_MEMORY or (split and vp.bounce_spa[1] == <u64>NO_MEMORY)):
        if update or not vp.partition.has_doorbells:
            leave_for_memory(vp, gva, vp.bounce_gpa, RIGHT_WRITE, size_bytes, True, False)
            return NULL
        keep_registers(vp)
    if update:
        if not fetch_part(vp, gva, gpa, 0, 0, <u32>first):
            return NULL
        if split and not fetch_part(vp, gva + first, second_gpa, 1, <u32>first, size_bytes - <u32>first):
            return NULL
    return vp.bounce


cdef inline int commit_part(vp_t* vp, int part, u32 offset, u32 size_bytes) noexcept nogil:
    if vp.bounce_spa[part] == <u64>NO_MEMORY:
        if vp.partition.is_root:
            return STOP_NONE
        leave_for_memory(vp, vp.bounce_gva + offset, vp.bounce_gpa, RIGHT_WRITE, size_bytes, True, False)
        memcpy(vp.answer, <u8*>vp.bounce + offset, size_bytes)
        vp.exit.value = vp.answer[0] & (<u64>-1 >> (64 - 8 * min(size_bytes, <u32>8)))
        vp.exit.retired = True
        return STOP_EXIT
    memcpy(ram_at(vp.space.ram, vp.bounce_spa[part]), <u8*>vp.bounce + offset, size_bytes)
    return STOP_STALE if ram_written(vp.space.ram, vp.bounce_spa[part], size_bytes) else STOP_NONE


cdef inline int commit_bounce(vp_t* vp) noexcept nogil:
    """Take what an instruction stored to where it belongs: a Stop, if the block must not go on."""
    cdef int stop = commit_part(vp, 0, 0, vp.bounce_first), second = STOP_NONE
    if vp.bounce_first < vp.bounce_size:
        second = commit_part(vp, 1, vp.bounce_first, vp.bounce_size - vp.bounce_first)
    return STOP_EXIT if STOP_EXIT in (stop, second) else STOP_STALE if STOP_STALE in (stop, second) else STOP_NONE
