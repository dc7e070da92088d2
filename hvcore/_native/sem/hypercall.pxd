"""The native door for hypercalls that are made often: checked and executed within the run (hyperv-abi 3.3, 3.4).

What a guest says here is judged exactly as in hypercalls/guest.py and dispatch.py, which also executes these calls by
`execute_call`. Whatever is unusual (an input page that is not there, a mode that is not 64-bit) is left to Python.
"""
from hvcore._native.base.types cimport u16, u32, u64, u8
from hvcore._native.cpu.cache cimport block_cache_t
from hvcore._native.cpu.contexts cimport flush_contexts, flush_range, switch_address_space
from hvcore._native.cpu.segments cimport runs_64bit
from hvcore._native.cpu.state cimport R8, RAX, RCX, RDX, vp_t
from hvcore._native.cpu.translation cimport vp_is_canonical
from hvcore._native.hv.cluster_ipi cimport send_cluster_ipi
from hvcore._native.hv.hypercall cimport (
    CALL_AGAIN, CALL_CLUSTER_IPI, CALL_CLUSTER_IPI_EX, CALL_DEFERRED, CALL_DONE, CALL_DONE_LOOK, CALL_FLUSH_LIST,
    CALL_FLUSH_LIST_EX, CALL_FLUSH_SPACE_EX, CALL_LONG_SPIN_WAIT, CALL_POST_MESSAGE, CALL_SIGNAL_EVENT,
    CALL_SWITCH_ADDRESS_SPACE, ELEMENTS_PER_ENTRY, FAST_BYTES, call_row_t, check_control, control_t, input_bytes,
    parse_control, row_of,
)
from hvcore._native.hv.ports cimport connection_post, connection_signal
from hvcore._native.hv.state cimport partition_t
from hvcore._native.hv.status cimport (
    HV_ACCESS_DENIED, HV_INVALID_ALIGNMENT, HV_INVALID_PARAMETER, HV_INVALID_VP_INDEX, HV_INVALID_VTL_STATE,
    HV_SUCCESS,
)
from hvcore._native.hv.vp_set cimport all_vps, is_in_set, names_nobody, read_vp_set, vp_set_t, vps_of_mask
from hvcore._native.mem.descend cimport space_translate
from hvcore._native.mem.format cimport RIGHT_READ
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SIZE, ram_at
from hvcore._native.mem.second_level cimport SECOND_OK, second_level_t
from hvcore._native.sem.control_registers cimport cr3_is_valid
from libc.string cimport memcpy

cdef enum FlushFlags:
    FLUSH_ALL_PROCESSORS = 1
    FLUSH_ALL_SPACES = 2
    FLUSH_NON_GLOBAL = 4
    FLUSH_EXTENDED = 8
    FLUSH_TARGET_VTL = 0x10
    FLUSH_VTL0 = 0x100
    FLUSH_VTL1 = 0x200
    FLUSH_DEFINED = 0x31F
    EXTENDED_LARGE = 1 << 11
    EXTENDED_1_GIB = 1 << 12


# One entry of a call: for a rep call the elements from `elements` on, `count` of them.
cdef struct call_t:
    block_cache_t* cache        # NULL: the partition never had a processor
    partition_t* partition
    vp_t* vp                    # that makes the call; NULL: Python
    u32 code
    u32 variable_qwords
    u32 count
    const u64* header
    const u64* elements


# HV_STATUS and elements done in this entry. `blocked`: nothing was done, a target inhibits flushes of its TLB.
cdef struct call_result_t:
    int status
    u32 done
    bint blocked


cdef inline int read_flush(const call_t* call, bint is_list, bint extended, vp_set_t* targets) noexcept nogil:
    """Address space, flags and targets of a flush: an HV_STATUS."""
    cdef u64 space = call.header[0], flags = call.header[1]
    cdef int status = HV_SUCCESS
    if flags & ~<u64>FLUSH_DEFINED or (is_list and flags & FLUSH_NON_GLOBAL):
        return HV_INVALID_PARAMETER
    if (flags & FLUSH_TARGET_VTL != 0) != (flags & (FLUSH_VTL0 | FLUSH_VTL1) != 0):
        return HV_INVALID_PARAMETER
    if flags & FLUSH_VTL1:
        return HV_INVALID_VTL_STATE
    if not flags & FLUSH_ALL_SPACES and space >> call.partition.physical_bits:
        return HV_INVALID_PARAMETER
    targets[0] = all_vps()
    if flags & FLUSH_ALL_PROCESSORS:
        return HV_SUCCESS
    if extended:
        status = read_vp_set(&call.header[2], call.variable_qwords, targets)
    else:
        targets[0] = vps_of_mask(&call.header[2])
    if status == HV_SUCCESS and names_nobody(targets):
        return HV_INVALID_PARAMETER
    return status


cdef inline bint is_target(const call_t* call, const vp_t* vp, const vp_set_t* targets) noexcept nogil:
    return vp.partition == call.partition and is_in_set(targets, vp.index)


cdef inline void flush_element(vp_t* vp, u64 element, bint extended) noexcept nogil:
    """One range of pages; what does not reach into the addresses that exist is ignored."""
    cdef int shift = 12
    cdef u64 first, pages = (element & 0xFFF) + 1, last
    if extended:
        pages = (element & 0x7FF) + 1
        if element & EXTENDED_LARGE:
            shift = 30 if element & EXTENDED_1_GIB else 21
    first = element >> shift << shift
    last = first + (pages << shift) - 1
    if vp_is_canonical(vp, first) or vp_is_canonical(vp, last):
        flush_range(vp, first, max(first, last) if last >= first else <u64>-1)


cdef inline call_result_t flush_targets(const call_t* call, bint is_list, bint extended) noexcept nogil:
    """All targets are flushed before this returns: none of them runs meanwhile."""
    cdef call_result_t result = call_result_t(status=HV_SUCCESS, done=0, blocked=False)
    cdef vp_set_t targets
    cdef vp_t* vp
    cdef u32 i, k
    result.status = read_flush(call, is_list, extended, &targets)
    if result.status != HV_SUCCESS or call.cache == NULL:
        result.done = call.count if result.status == HV_SUCCESS else 0
        return result
    for i in range(call.cache.vp_count):
        vp = call.cache.vps[i]
        if is_target(call, vp, &targets) and vp.tlb_flush_inhibit:
            result.blocked = True
            return result
    for i in range(call.cache.vp_count):
        vp = call.cache.vps[i]
        if not is_target(call, vp, &targets):
            continue
        if not is_list:
            flush_contexts(vp, call.header[1] & FLUSH_NON_GLOBAL != 0)
        for k in range(call.count):
            flush_element(vp, call.elements[k], call.header[1] & FLUSH_EXTENDED != 0)
    result.done = call.count
    return result


cdef inline int switch_space(vp_t* vp, u64 cr3) noexcept nogil:
    """Entries are tagged by PCID, not by address space: those of the old one go, as they may."""
    if vp == NULL:
        return HV_INVALID_VP_INDEX
    if not cr3_is_valid(vp, cr3, False):
        return HV_INVALID_PARAMETER
    vp.cr3 = cr3
    switch_address_space(vp, False)
    return HV_SUCCESS


cdef inline call_result_t execute_call(const call_t* call) noexcept nogil:
    """What each native call does. The control word and the caller's privilege have been checked."""
    cdef call_result_t result = call_result_t(status=HV_SUCCESS, done=0, blocked=False)
    if call.code == CALL_CLUSTER_IPI or call.code == CALL_CLUSTER_IPI_EX:
        result.status = send_cluster_ipi(&call.partition.fabric, call.header, call.variable_qwords,
                                         call.code == CALL_CLUSTER_IPI_EX)
    elif call.code == CALL_POST_MESSAGE:
        result.status = connection_post(call.partition, <u32>call.header[0], <u32>call.header[1],
                                        <const u8*>(call.header + 2), call.header[1] >> 32)
    elif call.code == CALL_SIGNAL_EVENT:
        result.status = connection_signal(call.partition, <u32>call.header[0], <u16>(call.header[0] >> 32))
    elif call.code == CALL_SWITCH_ADDRESS_SPACE:
        result.status = switch_space(call.vp, call.header[0])
    elif call.code != CALL_LONG_SPIN_WAIT:
        result = flush_targets(call, call.code == CALL_FLUSH_LIST or call.code == CALL_FLUSH_LIST_EX,
                               call.code == CALL_FLUSH_SPACE_EX or call.code == CALL_FLUSH_LIST_EX)
    return result


cdef inline bint is_ipi(u32 code) noexcept nogil:
    """The processor that makes the call may have interrupted itself."""
    return code == CALL_CLUSTER_IPI or code == CALL_CLUSTER_IPI_EX


cdef inline int finish_call(vp_t* vp, const control_t* control, int status, u64 reps) noexcept nogil:
    vp.native_calls[control.code & 31] += 1
    vp.registers[RAX] = <u64>status | reps << 32
    return CALL_DONE


cdef inline int enter_call(vp_t* vp, const call_row_t* row, const control_t* control,
                           const u64* input) noexcept nogil:
    """One entry of a call whose input is at hand; at most ELEMENTS_PER_ENTRY elements."""
    cdef call_t call
    cdef call_result_t result
    cdef u32 left = control.rep_count - control.rep_start, completed
    call.cache = <block_cache_t*>vp.machine
    call.partition = vp.partition
    call.vp = vp
    call.code = control.code
    call.variable_qwords = control.variable_qwords
    call.count = min(left, <u32>ELEMENTS_PER_ENTRY)
    call.header = input
    call.elements = input + row.header_bytes // 8 + control.variable_qwords + control.rep_start
    result = execute_call(&call)
    if result.blocked:
        vp.flush_waits = vp.partition.flush_generation
        return CALL_AGAIN
    completed = control.rep_start + result.done
    if result.status == HV_SUCCESS and completed < control.rep_count:
        vp.registers[RCX] = (vp.registers[RCX] & ~(<u64>0xFFF << 48)) | <u64>completed << 48
        return CALL_AGAIN
    finish_call(vp, control, result.status, completed)
    return CALL_DONE_LOOK if is_ipi(call.code) or vp.irq.fabric.clock.attention else CALL_DONE


cdef inline bint finds_page(vp_t* vp, u64 gpa) noexcept nogil:
    """Where a readable page lies, into vp.call_spa. Guests use the same one over and over."""
    cdef second_level_t where
    if vp.call_page == gpa + 1 and vp.call_generation == vp.space.generation:
        return True
    where = space_translate(vp.space, gpa, RIGHT_READ, False)
    if where.status != SECOND_OK:
        return False
    vp.call_page, vp.call_spa, vp.call_generation = gpa + 1, where.spa, vp.space.generation
    return True


cdef inline int guest_call(vp_t* vp) noexcept nogil:
    """The hypercall of a VMCALL in CPL 0 with the interface enabled."""
    cdef control_t control = parse_control(vp.registers[RCX])
    cdef call_row_t row = row_of(control.code)
    cdef u64[14] registers
    cdef u64 gpa = vp.registers[RDX]
    cdef u32 reads
    cdef int status
    if not row.is_native or not runs_64bit(vp):
        return CALL_DEFERRED
    status = check_control(&row, &control)
    if status != HV_SUCCESS:
        return finish_call(vp, &control, status, 0)
    reads = input_bytes(&row, &control)
    if not control.fast and (gpa & 7 or (gpa & PAGE_OFFSET_MASK) + reads > PAGE_SIZE or gpa >= vp.space.gpa_limit):
        return finish_call(vp, &control, HV_INVALID_ALIGNMENT, control.rep_start)
    if row.privilege & ~vp.partition.privileges:
        return finish_call(vp, &control, HV_ACCESS_DENIED, control.rep_start)
    if control.fast:
        registers[0] = gpa
        registers[1] = vp.registers[R8]
        if reads > 16:
            memcpy(&registers[2], vp.xmm, FAST_BYTES - 16)
        return enter_call(vp, &row, &control, registers)
    if not finds_page(vp, gpa & ~<u64>PAGE_OFFSET_MASK):
        return CALL_DEFERRED
    return enter_call(vp, &row, &control,
                      <const u64*>ram_at(vp.space.ram, vp.call_spa + (gpa & PAGE_OFFSET_MASK)))
