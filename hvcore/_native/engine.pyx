"""Module `engine`: partitions as native code knows them, virtual processors, and the scheduler that runs them.

Contract: one thread at a time runs; guest code never raises a Python exception, it makes an exit. What the run loop
cannot do by itself goes to `Scheduler.service`; an exception there leaves run() as it is, with the VP still at the
instruction.
"""
cimport cython
from collections import namedtuple

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from hvcore._native.base.guard cimport guard_t
from hvcore._native.base.status cimport *
from hvcore._native.base.types cimport i64, u8, u16, u32, u64, xmm_t
from hvcore._native.cpu.access cimport commit_bounce, read_access, undo_write, write_access
from hvcore._native.cpu.answers cimport answer_give
from hvcore._native.cpu.blocks cimport find, link
from hvcore._native.cpu.cache cimport ARENA_BYTES, BUCKETS, CODE_FRAMES, block_cache_t, drop_all, drop_range
from hvcore._native.cpu.contexts cimport flush_translations, forget_code_page, select_tlb
from hvcore._native.cpu.dispatch cimport enter
from hvcore._native.cpu.emit cimport (
    op_fall_through, op_head_end, op_invalid, op_note_fetch, op_prepare, op_unimplemented, unwind_block,
)
from hvcore._native.cpu.flags cimport rflags_read, rflags_write
from hvcore._native.cpu.listen cimport note_access, read_noted, write_noted
from hvcore._native.cpu.reset cimport take_init, vp_reset
from hvcore._native.cpu.placement cimport bill, classify_noticed, end_quantum_by, leave_processor, set_start_time
from hvcore._native.cpu.schedule cimport schedule
from hvcore._native.cpu.scheduler cimport NO_PROCESSOR, PROCESSORS_MAXIMUM, scheduler_t
from hvcore._native.cpu.segments cimport set_privilege
from hvcore._native.cpu.spec cimport *
from hvcore._native.cpu.state cimport *
from hvcore._native.cpu.tap cimport TAP_CAPACITY, tap_t
from hvcore._native.cpu.translation cimport vp_is_canonical, vp_translate, vp_walk
from hvcore._native.cpu.tsc cimport adjust_tsc, read_tsc, set_tsc_offset
from hvcore._native.cpu.windows cimport WINDOW_NMI
from hvcore._native.decoder cimport isa
from hvcore._native.engine_control cimport fill_handlers as fill_control
from hvcore._native.engine_integer cimport fill_handlers as fill_integer
from hvcore._native.engine_sse cimport fill_handlers as fill_sse
from hvcore._native.engine_system cimport fill_handlers as fill_system
from hvcore._native.exits cimport (
    ApicEoi, Budget, Canceled, Cpuid, ExceptionRaised, Exit, GpaViolation, Halt, InterruptWindow, IoPort, Mmio, Msr,
    TripleFault, Unsupported,
)
from hvcore._native.exits import ExitNotCompleted
from hvcore._native.hv.hypercall cimport ELEMENTS_PER_ENTRY as _ELEMENTS_PER_ENTRY, NATIVE_CALLS, row_of
from hvcore._native.hv.state cimport device_range_t, partition_t
from hvcore._native.irq.apic_base cimport write_apic_base
from hvcore._native.irq.apic_registers cimport (
    NO_REGISTER, READABLE, WRITABLE, apic_access, read_apic, write_apic, x2apic_defined,
)
from hvcore._native.irq.apic_spec cimport (
    APIC_EOI, APIC_ESR, APIC_ICR, APIC_ID, APIC_LDR, APIC_SELF_IPI, ICR_STATUS,
)
from hvcore._native.irq.apic_timer cimport write_tsc_deadline
from hvcore._native.irq.clock cimport (
    REFERENCE_UNITS_PER_SECOND, TICKS_PER_REFERENCE_UNIT, TICKS_PER_SECOND, counted_reference, never_ticks,
    reference_of_tsc, reference_page_t, timebase_reset, tsc_of_ticks,
)
from hvcore._native.irq.destination cimport is_addressed, is_x2apic, widen_destination
from hvcore._native.irq.fabric cimport fabric_send, fabric_send_msi
from hvcore._native.irq.lapic cimport irq_cr8
from hvcore._native.irq.lvt cimport pulse_local_pin
from hvcore._native.irq.observer cimport SOURCE_PARENT
from hvcore._native.irq.pin_routes cimport entry_identity
from hvcore._native.irq.platform cimport platform_read_port, platform_write_port
from hvcore._native.irq.platform_state cimport pin_route_t
from hvcore._native.irq.reference_page cimport follow_time, restore_time, scale_of, update_reference_page
from hvcore._native.irq.startup cimport request_init, request_startup
from hvcore._native.irq.state cimport fabric_t, interrupt_message_t, irq_t, lapic_t, machine_event_t
from hvcore._native.irqchip cimport InterruptController, checked, connect_controller, irq_of
from hvcore._native.mem.descend cimport space_translate
from hvcore._native.mem.descent cimport WALK_NOT_CANONICAL, WALK_NOT_PRESENT, WALK_OK, WALK_RESERVED, WALK_RIGHTS
from hvcore._native.mem.format cimport PAGING_NONE, RIGHT_EXECUTE, RIGHT_READ, RIGHT_USER, RIGHT_WRITE
from hvcore._native.mem.ram cimport PAGE_OFFSET_MASK, PAGE_SHIFT, PAGE_SIZE, ram_at, ram_written
from hvcore._native.mem.request cimport ACCESS_ALIGNMENT, walk_request_t
from hvcore._native.mem.second_level cimport SECOND_OK, SECOND_OVERLAY, SECOND_RIGHTS, second_level_t
from hvcore._native.mem.tlb cimport TLB_CONTEXTS, tlb_context_t, tlb_init, tlb_t
from hvcore._native.mem.walk cimport walk_t
from hvcore._native.model.record cimport record_t
from hvcore._native.platform cimport InterruptPlatform
from hvcore._native.sem.control_registers cimport (
    CR0_WRITABLE, CR4_WRITABLE, cr3_is_valid, update_sse, write_cr8,
)
from hvcore._native.sem.fxsave cimport MXCSR_MASK
from hvcore._native.sem.hypercall cimport call_result_t, call_t, execute_call, guest_call
from hvcore._native.sem.msr cimport msr_read, msr_write
from hvcore._native.space cimport GpaSpace, SystemMemory, enter_guard, leave_guard, require_thread
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

cdef extern from "<stdlib.h>" nogil:
    void* aligned_alloc(size_t alignment, size_t size_bytes)

WORD64 = 0xFFFFFFFFFFFFFFFF
ELEMENTS_PER_ENTRY = _ELEMENTS_PER_ENTRY
cdef enum:
    PENDING_GENERAL_PROTECTION = 1 | 3 << 1 | 1 << 4 | 13 << 16
    QUANTA_BETWEEN_SIGNALS = 16
    IO_BITMAP_BYTES = 65536 // 4
    VARIANTS = 12               # handlers of a row (isa/handlers.py)
    HANDLER_SLOTS = 8192 * VARIANTS
    # ServiceReason of hvcore/enums.py
    SERVICE_HYPERCALL = 0
    SERVICE_MSR_READ = 1
    SERVICE_MSR_WRITE = 2
    SERVICE_INTERCEPT = 3
    SERVICE_UNMAPPED_WRITE = 4
    SERVICE_IO_PORT = 5
    SERVICE_EOI = 6
    SERVICE_DEVICE_MEMORY = 7
    # HvTranslateGva flags and result codes (hyperv-abi 11.1)
    TRANSLATE_IGNORE_PRIVILEGE = 8
    TRANSLATE_SET_MARKS = 0x10
    TRANSLATE_SUPERVISOR = 0x40
    TRANSLATE_USER = 0x80
    TRANSLATE_ENFORCE_SMAP = 0x100
    TRANSLATE_OVERRIDE_SMAP = 0x200
    CACHE_WRITE_BACK = 6
    APIC_NAMES = 0x84800        # HV_REGISTER_NAME of APIC register 0
    PHYSICAL_BITS = 46          # of a partition that nobody gave another width

assert sizeof(op_t) == 32 and sizeof(block_t) <= 64

cdef handler_t[HANDLER_SLOTS] handlers
fill_integer(handlers)
fill_control(handlers)
fill_system(handlers)
fill_sse(handlers)

cdef tlb_t empty_tlb                # of every processor that is listened to
tlb_init(&empty_tlb)



cdef void* read_slow(vp_t* vp, u64 gva, u32 size_bytes, u8 stack) noexcept nogil:
    if vp.tap != NULL:
        return read_noted(vp, gva, size_bytes, stack)
    return read_access(vp, gva, size_bytes, stack)


cdef void* write_slow(vp_t* vp, u64 gva, u32 size_bytes, u8 stack, bint update) noexcept nogil:
    if vp.tap != NULL:
        return write_noted(vp, gva, size_bytes, stack, update)
    return write_access(vp, gva, size_bytes, stack, update)


cdef void note(vp_t* vp, u64 gva, u32 size_bytes, u8 kind) noexcept nogil:
    note_access(vp, gva, size_bytes, kind)


cdef int note_fetch(vp_t* vp, const op_t* op) noexcept nogil:
    return op_note_fetch(vp, op)


cdef u64 read_port(vp_t* vp, u16 port, u32 size_bytes, u64 now) noexcept nogil:
    vp.irq.time = vp.irq.fabric.clock.now = now
    return platform_read_port(&vp.partition.fabric, port, size_bytes)


cdef void write_port(vp_t* vp, u16 port, u32 size_bytes, u64 value, u64 now) noexcept nogil:
    vp.irq.time = vp.irq.fabric.clock.now = now
    platform_write_port(&vp.partition.fabric, port, size_bytes, value)


cdef int commit(vp_t* vp) noexcept nogil:
    return commit_bounce(vp)


cdef int unwind(vp_t* vp, const op_t* op, bint done, int stop) noexcept nogil:
    unwind_block(vp, op, done)
    return stop


cdef int enter_found(vp_t* vp) noexcept nogil:
    cdef block_t* block
    if vp.remaining <= 0:
        return STOP_BUDGET          # the fetch, and a fault of it, belong to the time after this slice
    block = find(vp, <block_cache_t*>vp.machine)
    return enter(vp, block) if block != NULL else vp.stop


cdef int enter_linked(vp_t* vp, const op_t* slot, bint fallen) noexcept nogil:
    cdef block_t* block
    if vp.remaining <= 0:
        return STOP_BUDGET
    block = link(vp, <block_cache_t*>vp.machine, slot, fallen)
    return enter(vp, block) if block != NULL else vp.stop


cdef int read_msr(vp_t* vp, u32 index, u64 now) noexcept nogil:
    return msr_read(vp, index, now)


cdef int write_msr(vp_t* vp, u32 index, u64 value, u64 now) noexcept nogil:
    return msr_write(vp, index, value, now)


cdef int hypercall(vp_t* vp, u64 now) noexcept nogil:
    vp.irq.time = vp.irq.fabric.clock.now = now
    return guest_call(vp)


cdef int prepare(vp_t* vp, const op_t* op) noexcept nogil:
    return op_prepare(vp, op)


cdef int fall_through(vp_t* vp, const op_t* op) noexcept nogil:
    return op_fall_through(vp, op)


cdef int invalid(vp_t* vp, const op_t* op) noexcept nogil:
    return op_invalid(vp, op)


cdef int unimplemented(vp_t* vp, const op_t* op) noexcept nogil:
    return op_unimplemented(vp, op)


cdef int head_end(vp_t* vp, const op_t* op) noexcept nogil:
    return op_head_end(vp, op)


def is_implemented(u32 form):
    """Whether any handler exists for a form of the instruction table."""
    cdef u32 first = isa().forms[form].handler // VARIANTS * VARIANTS, i
    return any(handlers[first + i] != NULL for i in range(VARIANTS))


include "engine_registers.pxi"
include "isa/generated/registers.pxi"
include "engine_partition.pxi"
include "engine_time.pxi"
include "engine_processor.pxi"
include "engine_tap.pxi"
include "engine_exits.pxi"
include "engine_scheduler.pxi"
