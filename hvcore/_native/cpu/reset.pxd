"""The state of a virtual processor after power-on and INIT (SDM 3A table 10-1; hyperv-abi 6.4)."""
from hvcore._native.base.types cimport u16, u64
from hvcore._native.cpu.contexts cimport flush_translations
from hvcore._native.cpu.spec cimport (
    CR0_CD, CR0_ET, CR0_NW, SEGMENT_COUNT, SEGMENT_CS, SEGMENT_LDTR, SEGMENT_TR, VECTOR_UD,
)
from hvcore._native.cpu.state cimport RDX, SLOT_COUNT, SLOT_RIP, vp_t
from hvcore._native.cpu.tsc cimport set_tsc_offset
from hvcore._native.irq.apic_spec cimport BASE_BSP
from hvcore._native.irq.lapic cimport lapic_init, lapic_reset
from libc.string cimport memset

cdef enum:
    RESET_CR0 = 0x60000010
    RESET_RIP = 0xFFF0
    RESET_MXCSR = 0x1F80
    RESET_DR6 = 0xFFFF0FF0
    RESET_DR7 = 0x400
    RESET_FCW = 0x40
    CPU_SIGNATURE = 0x6F2


cdef inline void vp_init(vp_t* vp) noexcept nogil:
    """What INIT sets; the rest (MSRs, SSE registers) survives it."""
    cdef int i
    memset(vp.registers, 0, SLOT_COUNT * sizeof(u64))
    vp.registers[SLOT_RIP] = RESET_RIP
    vp.registers[RDX] = CPU_SIGNATURE
    vp.flag_result = 1
    vp.flag_aux = 0
    vp.rflags_system = 0
    vp.cpl = 0
    for i in range(SEGMENT_COUNT):
        vp.segments[i].base = 0
        vp.segments[i].limit = 0xFFFF
        vp.segments[i].selector = 0
        vp.segments[i].attributes = 0x93
    vp.segments[SEGMENT_CS].base = <u64>0xFFFF0000
    vp.segments[SEGMENT_CS].selector = 0xF000
    vp.segments[SEGMENT_CS].attributes = 0x9B
    vp.segments[SEGMENT_LDTR].attributes = 0x82
    vp.segments[SEGMENT_TR].attributes = 0x8B
    vp.gdtr.base = vp.idtr.base = 0
    vp.gdtr.limit = vp.idtr.limit = 0xFFFF
    vp.cr0 = (vp.cr0 & (CR0_CD | CR0_NW)) | CR0_ET      # INIT leaves the caches as they are
    vp.cr2 = vp.cr3 = vp.cr4 = vp.efer = 0
    vp.pkru = vp.pkrs = 0
    lapic_init(vp.irq)
    memset(vp.dr, 0, sizeof(vp.dr))
    vp.dr[6] = <u64>RESET_DR6
    vp.dr[7] = RESET_DR7
    vp.sse_vector = VECTOR_UD
    vp.halted = vp.guest_idle = vp.shutdown = vp.shadow = vp.nmi_masked = False
    vp.pending_interruption = vp.stall = 0
    vp.exception_passed = False
    vp.answer_pending = vp.exit_waits = False
    vp.exit.answered = False
    vp.answer_count = vp.answers_taken = 0
    flush_translations(vp)


cdef inline bint is_bootstrap(const vp_t* vp) noexcept nogil:
    return vp.irq.lapic.base & BASE_BSP != 0


cdef inline void take_init(vp_t* vp) noexcept nogil:
    """INIT, and the start-up message that came behind it (SDM 3A 9.4.1, table 10-1; hyperv-abi 6.4).

    The bootstrap processor runs on at its reset vector; others wait, and only then does a SIPI mean something."""
    if vp.irq.lapic.init_pending:
        vp_init(vp)
        vp.startup_suspend = not is_bootstrap(vp)
    if not vp.irq.lapic.startup_pending:
        return
    vp.irq.lapic.startup_pending = False
    if not vp.startup_suspend:
        vp.irq.counters.startups_ignored += 1
        return
    vp.startup_suspend = False
    vp.segments[SEGMENT_CS].selector = <u16>vp.irq.lapic.startup_page << 8
    vp.segments[SEGMENT_CS].base = <u64>vp.irq.lapic.startup_page << 12
    vp.registers[SLOT_RIP] = 0


cdef inline void vp_reset(vp_t* vp) noexcept nogil:
    """Power-on: everything. Processors other than the first wait for a start."""
    vp_init(vp)
    vp.cr0 = RESET_CR0
    memset(vp.xmm, 0, sizeof(vp.xmm))
    memset(vp.st, 0, sizeof(vp.st))
    vp.mxcsr = RESET_MXCSR
    vp.fcw = RESET_FCW
    vp.fsw = vp.ftw = vp.fop = 0
    vp.fip = vp.fdp = 0
    vp.star = vp.lstar = vp.cstar = vp.sfmask = vp.kernel_gs_base = 0
    vp.sysenter_cs = vp.sysenter_esp = vp.sysenter_eip = 0
    vp.pat = <u64>0x0007040600070406
    lapic_reset(vp.irq)
    vp.tsc_adjust = vp.tsc_aux = 0
    set_tsc_offset(vp, 0, vp.slice_start)
    vp.external_pending = vp.external_acknowledged = False
    vp.notifications = 0
    vp.startup_suspend = vp.index != 0
