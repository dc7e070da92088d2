"""Memory accesses that the fast TLB cannot serve: walks, pages that are watched, accesses that leave their page,
device memory, and what becomes of a failure: a fault of the guest or an exit.

Called out of line through vp.machine. What cannot be a host pointer goes through vp.bounce: a read finds its bytes
there; a write leaves them there, and `commit_bounce` takes them home when the instruction has succeeded.
"""
from hvcore._native.base.status cimport REASON_MEMORY, STOP_EVENTS, STOP_EXIT, STOP_FAULT, STOP_NONE, STOP_STALE
from hvcore._native.base.types cimport u32, u64, u8
from hvcore._native.cpu.answers cimport answer_take, is_claimed, reads_too_much
from hvcore._native.cpu.devices cimport (
    APIC_FRAME, NO_MEMORY, device_read, device_write, is_known_apic, is_memory, is_native_device, native_device_at,
)
from hvcore._native.cpu.spec cimport CR4_PGE, VECTOR_GP, VECTOR_PF, VECTOR_SS
from hvcore._native.cpu.state cimport SLOT_RIP, vp_t
from hvcore._native.cpu.tap cimport tap_learn
from hvcore._native.cpu.translation cimport access_now, vp_is_canonical, vp_translate
from hvcore._native.mem.descent cimport (
    WALK_NESTED, WALK_NOT_CANONICAL, WALK_NOT_PRESENT, WALK_OK, WALK_RESERVED, WALK_RIGHTS,
)
from hvcore._native.mem.format cimport RIGHT_EXECUTE, RIGHT_READ, RIGHT_USER_EXECUTE, RIGHT_WRITE
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE, ram_at, ram_written
from hvcore._native.mem.request cimport linear_address
from hvcore._native.mem.second_level cimport SECOND_OVERLAY, SECOND_RIGHTS
from hvcore._native.mem.tlb cimport tlb_fill_known, tlb_fill_read, tlb_fill_write, tlb_slot
from hvcore._native.mem.walk cimport walk_t
from libc.string cimport memcpy, memset

cdef enum:
    BOUNCE_BYTES = 64


cdef inline bint fault_address(vp_t* vp, u8 stack) noexcept nogil:
    vp.fault.vector = VECTOR_SS if stack else VECTOR_GP
    vp.fault.has_error_code = True
    vp.fault.software = False
    vp.fault.error_code = 0
    vp.stop = STOP_FAULT
    return False


cdef inline bint is_canonical_at(const vp_t* vp, u64 gva) noexcept nogil:
    """Whether data at `gva` has an address, LAM considered."""
    return vp_is_canonical(vp, linear_address(&vp.request, access_now(vp, 0), gva))


cdef inline bint is_global(const vp_t* vp, const walk_t* found) noexcept nogil:
    return vp.cr4 & CR4_PGE != 0 and found.is_global


cdef inline bint fault_page(vp_t* vp, u64 gva, u32 error_code) noexcept nogil:
    vp.fault.vector = VECTOR_PF
    vp.fault.has_error_code = True
    vp.fault.software = False
    vp.fault.address = gva
    vp.fault.error_code = error_code
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
    """A counted walk. False: vp.stop is set. True: `found.spa` is memory, or the number of a place that is not."""
    cdef u64 device
    access = access_now(vp, access)
    gva = linear_address(&vp.request, access, gva)
    vp_translate(vp, &vp.request, access, gva, found)
    if found.status == WALK_NOT_CANONICAL:
        return fault_address(vp, stack)
    vp.counters.tlb_misses += 1
    vp.counters.guest_references += found.references
    vp.counters.second_level_references += found.nested_references
    if vp.tap != NULL and found.status == WALK_OK:
        tap_learn(vp.tap, gva, found)
    if (found.status == WALK_OK or found.status == WALK_NESTED) and not access & RIGHT_EXECUTE:
        device = native_device_at(vp, found.address)
        if device:
            found.spa = device
            return True
    if found.status == WALK_OK:
        return True
    if found.status == WALK_NOT_PRESENT or found.status == WALK_RIGHTS or found.status == WALK_RESERVED:
        return fault_page(vp, gva, found.error_code)
    if found.nested_status == SECOND_OVERLAY:
        return fault_address(vp, False)
    if found.status == WALK_NESTED and found.nested_status != SECOND_RIGHTS and not access & RIGHT_EXECUTE:
        found.spa = NO_MEMORY
        return True
    return leave_for_memory(
        vp, gva, found.address, found.nested_access if not found.nested_access & RIGHT_USER_EXECUTE else RIGHT_EXECUTE,
        size_bytes, found.status == WALK_NESTED, found.nested_status == SECOND_RIGHTS)


cdef inline bint read_device(vp_t* vp, u64 gva, u64 gpa, u8* target, u32 size_bytes) noexcept nogil:
    """Bytes of device memory: the answer, or an exit to get it. What no device of the machine claims floats."""
    cdef const u8 *answer
    if reads_too_much(vp) or (vp.partition.is_root and not is_claimed(vp.partition, gpa, size_bytes)):
        vp.device_reads_lost += reads_too_much(vp)
        memset(target, 0xFF, size_bytes)
        return True
    answer = answer_take(vp, gpa, size_bytes)
    if answer != NULL:
        memcpy(target, answer, size_bytes)
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
    if is_native_device(found.spa):
        device_read(vp, found.spa, found.address, target, size_bytes)
        return True
    tlb_fill_read(vp.own_tlb, gva, ram_at(vp.space.ram, found.spa), found.page_shift, is_global(vp, &found))
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
    cdef u64 first = PAGE_SIZE - (gva & PAGE_OFFSET_MASK)
    cdef walk_t found
    if first < size_bytes:
        if not is_canonical_at(vp, gva + first):       # known before any page is looked at
            fault_address(vp, stack)
            return NULL
        return read_split(vp, gva, <u32>first, size_bytes, stack)
    if is_known_apic(vp, gva) and size_bytes <= BOUNCE_BYTES:
        device_read(vp, <u64>APIC_FRAME | (gva & PAGE_OFFSET_MASK), 0, <u8*>vp.bounce, size_bytes)
        return vp.bounce
    if not reach(vp, gva, RIGHT_READ, size_bytes, stack, &found):
        return NULL
    if is_memory(found.spa):
        tlb_fill_read(vp.own_tlb, gva, ram_at(vp.space.ram, found.spa), found.page_shift, is_global(vp, &found))
        return ram_at(vp.space.ram, found.spa)
    vp.stop = STOP_NONE
    if size_bytes > BOUNCE_BYTES:
        return NULL
    if is_native_device(found.spa):
        device_read(vp, found.spa, found.address, <u8*>vp.bounce, size_bytes)
    elif not read_device(vp, gva, found.address, <u8*>vp.bounce, size_bytes):
        return NULL
    return vp.bounce


cdef inline bint write_part(vp_t* vp, u64 gva, u32 size_bytes, u8 stack, int part, u64* gpa) noexcept nogil:
    """Where a piece of one page goes: into bounce_spa[part]; the page's GPA for device memory."""
    cdef walk_t found
    cdef u64 slot = tlb_slot(gva)
    if vp.own_tlb.known[slot].tag == gva & ~<u64>PAGE_OFFSET_MASK:
        vp.bounce_spa[part] = vp.own_tlb.known[slot].spa | (gva & PAGE_OFFSET_MASK)
        return True
    if not reach(vp, gva, RIGHT_READ | RIGHT_WRITE, size_bytes, stack, &found):
        return False
    vp.bounce_spa[part] = found.spa
    if not is_memory(found.spa):
        gpa[0] = found.address
        if found.spa >= <u64>APIC_FRAME and found.spa != <u64>NO_MEMORY:
            tlb_fill_known(vp.own_tlb, gva, found.spa, found.page_shift, is_global(vp, &found))
        return True
    tlb_fill_known(vp.own_tlb, gva, found.spa, found.page_shift, is_global(vp, &found))
    if vp.space.ram.watched[found.spa >> PAGE_SHIFT] == 0:
        tlb_fill_write(vp.own_tlb, gva, ram_at(vp.space.ram, found.spa))
    return True


cdef inline bint fetch_part(vp_t* vp, u64 gva, u64 gpa, int part, u32 offset, u32 size_bytes) noexcept nogil:
    """The old bytes of a piece into the bounce buffer."""
    if is_native_device(vp.bounce_spa[part]):
        device_read(vp, vp.bounce_spa[part], gpa, <u8*>vp.bounce + offset, size_bytes)
        return True
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
    cdef u64 first = PAGE_SIZE - (gva & PAGE_OFFSET_MASK), gpa = 0, second_gpa = 0
    cdef bint split = first < size_bytes
    if not split:
        first = size_bytes
    elif not is_canonical_at(vp, gva + first):
        fault_address(vp, stack)
        return NULL
    if not write_part(vp, gva, <u32>first, stack, 0, &gpa):
        return NULL
    if not split and is_memory(vp.bounce_spa[0]):
        if vp.space.ram.watched[vp.bounce_spa[0] >> PAGE_SHIFT] == 0:
            tlb_fill_write(vp.own_tlb, gva, ram_at(vp.space.ram, vp.bounce_spa[0]))
            return ram_at(vp.space.ram, vp.bounce_spa[0])
    vp.stop = STOP_NONE
    if size_bytes > BOUNCE_BYTES:
        return NULL
    if split and not write_part(vp, gva + first, size_bytes - <u32>first, stack, 1, &second_gpa):
        return NULL
    if split and vp.bounce_spa[0] == <u64>NO_MEMORY and vp.bounce_spa[1] == <u64>NO_MEMORY:
        split, first = False, size_bytes        # one access, as in read_split
    vp.bounce_gva = gva
    # One GPA is enough: of the two parts only one is device memory that needs it.
    vp.bounce_gpa = second_gpa if is_memory(vp.bounce_spa[0]) or (
        split and vp.bounce_spa[1] == <u64>NO_MEMORY and is_native_device(vp.bounce_spa[0])) else gpa
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
    if is_native_device(vp.bounce_spa[part]):
        device_write(vp, vp.bounce_spa[part], vp.bounce_gpa, <u8*>vp.bounce + offset, size_bytes)
        return STOP_EVENTS
    if vp.bounce_spa[part] == <u64>NO_MEMORY:
        if vp.partition.is_root and not is_claimed(vp.partition, vp.bounce_gpa, size_bytes):
            return STOP_NONE
        leave_for_memory(vp, vp.bounce_gva + offset, vp.bounce_gpa, RIGHT_WRITE, size_bytes, True, False)
        memcpy(vp.written, <u8*>vp.bounce + offset, size_bytes)
        vp.exit.value = vp.written[0] & (<u64>-1 >> (64 - 8 * min(size_bytes, <u32>8)))
        vp.exit.retired = True
        return STOP_EXIT
    memcpy(ram_at(vp.space.ram, vp.bounce_spa[part]), <u8*>vp.bounce + offset, size_bytes)
    return STOP_STALE if ram_written(vp.space.ram, vp.bounce_spa[part], size_bytes) else STOP_NONE


cdef inline int commit_bounce(vp_t* vp) noexcept nogil:
    """Take what an instruction stored to where it belongs: a Stop, if the block must not go on."""
    cdef int stop = commit_part(vp, 0, 0, vp.bounce_first), second = <int>STOP_NONE
    if vp.bounce_first < vp.bounce_size:
        second = commit_part(vp, 1, vp.bounce_first, vp.bounce_size - vp.bounce_first)
    if <int>STOP_EXIT in (stop, second):
        return STOP_EXIT
    return STOP_STALE if <int>STOP_STALE in (stop, second) else max(stop, second)
