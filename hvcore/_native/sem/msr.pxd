"""RDMSR and WRMSR: what is served natively. The rest is deferred to the Python layer: registers that move overlay
pages, reset the partition, or belong to an intercept (TLFS appendix A; msrs.py).
"""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.cpu.contexts cimport flush_translations
from hvcore._native.cpu.spec cimport CR0_PG, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE, SEGMENT_FS, SEGMENT_GS
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.cpu.translation cimport vp_is_canonical
from hvcore._native.cpu.tsc cimport adjust_tsc, read_tsc, write_tsc
from hvcore._native.hv.privileges cimport privilege_of
from hvcore._native.hv.spec cimport (
    MSR_APIC_BASE, MSR_APIC_FREQUENCY, MSR_CSTAR, MSR_EFER, MSR_EOI, MSR_FS_BASE, MSR_GS_BASE, MSR_GUEST_IDLE,
    MSR_KERNEL_GS_BASE, MSR_LSTAR, MSR_PAT, MSR_PKRS, MSR_SFMASK, MSR_SINT15, MSR_STAR, MSR_SYSENTER_CS,
    MSR_SYSENTER_EIP, MSR_SYSENTER_ESP, MSR_TIME_REF_COUNT, MSR_TSC, MSR_TSC_ADJUST, MSR_TSC_AUX, MSR_TSC_DEADLINE,
    MSR_TSC_FREQUENCY, MSR_VP_INDEX, MSR_VP_RUNTIME, MSR_X2APIC, MSR_X2APIC_LAST,
)
from hvcore._native.irq.apic_base cimport write_apic_base
from hvcore._native.irq.apic_registers cimport read_x2apic, write_x2apic
from hvcore._native.irq.apic_timer cimport write_tsc_deadline
from hvcore._native.irq.clock cimport (
    TICKS_PER_REFERENCE_UNIT, never_ticks, read_reference_counter, reference_time, ticks_of_reference,
)
from hvcore._native.irq.msr cimport irq_read_msr, irq_write_msr
from hvcore._native.irq.spec cimport GENERAL_PROTECTION, NOT_MINE

cdef enum MsrOutcome:
    MSR_DONE
    MSR_FAULT               # #GP
    MSR_DEFERRED            # the Python layer decides


cdef inline void stall_until(vp_t* vp, u64 due, u64 now) noexcept nogil:
    """A read of the reference counter that would repeat gives the next value, and takes until that is true."""
    if due != never_ticks() and due > now + 1:
        vp.stall = due - now - 1


cdef inline MsrOutcome synthetic_read(vp_t* vp, u32 index, u64 now) noexcept nogil:
    cdef int result
    if privilege_of(index) == 0 or not vp.partition.privileges & privilege_of(index):
        return MSR_DEFERRED
    vp.irq.time = vp.irq.fabric.clock.now = now
    if index == MSR_VP_INDEX:
        vp.carried = vp.index
    elif index == MSR_VP_RUNTIME:
        vp.carried = (vp.runtime + now - vp.slice_start) // TICKS_PER_REFERENCE_UNIT
    elif index == MSR_TIME_REF_COUNT:
        vp.carried = read_reference_counter(&vp.partition.fabric.timebase, now)
        stall_until(vp, ticks_of_reference(&vp.partition.fabric.timebase, vp.carried), now)
    elif index == MSR_TSC_FREQUENCY:
        vp.carried = vp.partition.fabric.timebase.tsc_frequency
    elif index == MSR_APIC_FREQUENCY:
        vp.carried = vp.partition.fabric.timebase.apic_frequency
    elif index == MSR_GUEST_IDLE:
        vp.carried = 0
        vp.halted = vp.guest_idle = True        # until an interrupt arrives: cpu/run.pxd
        vp.counters.halts += 1
    else:
        result = irq_read_msr(vp.irq, index, reference_time(&vp.partition.fabric.timebase, now), &vp.carried)
        return (MSR_FAULT if result == GENERAL_PROTECTION else MSR_DEFERRED if result == NOT_MINE else MSR_DONE)
    return MSR_DONE


cdef inline MsrOutcome synthetic_write(vp_t* vp, u32 index, u64 value, u64 now) noexcept nogil:
    cdef int result
    if privilege_of(index) == 0 or not vp.partition.privileges & privilege_of(index):
        return MSR_DEFERRED
    vp.irq.time = vp.irq.fabric.clock.now = now
    result = irq_write_msr(vp.irq, index, value, reference_time(&vp.partition.fabric.timebase, now))
    if result == NOT_MINE:
        # VP_INDEX, TIME_REF_COUNT and their like can only be read; what moves overlay pages is the Python layer's.
        return MSR_DEFERRED if MSR_EOI <= index <= MSR_SINT15 else MSR_FAULT
    return (MSR_FAULT if result == GENERAL_PROTECTION else MSR_DONE)


cdef inline MsrOutcome msr_read(vp_t* vp, u32 index, u64 now) noexcept nogil:
    """The value into vp.carried."""
    if MSR_X2APIC <= index <= MSR_X2APIC_LAST:
        return MSR_DONE if read_x2apic(vp.irq, index - MSR_X2APIC, now, &vp.carried) else MSR_FAULT
    if index == MSR_TSC:
        vp.carried = read_tsc(vp, now)
    elif index == MSR_TSC_ADJUST:
        vp.carried = vp.tsc_adjust
    elif index == MSR_TSC_DEADLINE:
        vp.carried = vp.irq.lapic.tsc_deadline
    elif index == MSR_APIC_BASE:
        vp.carried = vp.irq.lapic.base
    elif index == MSR_SYSENTER_CS:
        vp.carried = vp.sysenter_cs
    elif index == MSR_SYSENTER_ESP:
        vp.carried = vp.sysenter_esp
    elif index == MSR_SYSENTER_EIP:
        vp.carried = vp.sysenter_eip
    elif index == MSR_PAT:
        vp.carried = vp.pat
    elif index == MSR_EFER:
        vp.carried = vp.efer
    elif index == MSR_STAR:
        vp.carried = vp.star
    elif index == MSR_LSTAR:
        vp.carried = vp.lstar
    elif index == MSR_CSTAR:
        vp.carried = vp.cstar
    elif index == MSR_SFMASK:
        vp.carried = vp.sfmask
    elif index == MSR_FS_BASE:
        vp.carried = vp.segments[SEGMENT_FS].base
    elif index == MSR_GS_BASE:
        vp.carried = vp.segments[SEGMENT_GS].base
    elif index == MSR_KERNEL_GS_BASE:
        vp.carried = vp.kernel_gs_base
    elif index == MSR_TSC_AUX:
        vp.carried = vp.tsc_aux
    elif index == MSR_PKRS:
        vp.carried = vp.pkrs
    else:
        return synthetic_read(vp, index, now)
    return MSR_DONE


cdef inline MsrOutcome write_efer(vp_t* vp, u64 value) noexcept nogil:
    """LMA cannot be written; LME not changed while paging is on (SDM 3A 2.2.1)."""
    cdef u64 changed
    if value & ~<u64>(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE):
        return MSR_FAULT
    if (value ^ vp.efer) & EFER_LME and vp.cr0 & CR0_PG:
        return MSR_FAULT
    value = (value & ~<u64>EFER_LMA) | (vp.efer & EFER_LMA)
    changed = value ^ vp.efer
    vp.efer = value
    if changed & EFER_NXE:
        flush_translations(vp)
    return MSR_DONE


cdef inline bint is_pat_valid(u64 value) noexcept nogil:
    """Each byte one of the memory types 0, 1, 4, 5, 6, 7."""
    cdef int i
    for i in range(8):
        if (value >> (8 * i)) & 0xFF > 7 or (value >> (8 * i)) & 0xFE == 2:
            return False
    return True


cdef inline MsrOutcome msr_write(vp_t* vp, u32 index, u64 value, u64 now) noexcept nogil:
    cdef bint is_address = (index == MSR_SYSENTER_ESP or index == MSR_SYSENTER_EIP or index == MSR_LSTAR
                            or index == MSR_CSTAR or index == MSR_FS_BASE or index == MSR_GS_BASE
                            or index == MSR_KERNEL_GS_BASE)
    vp.irq.time = vp.irq.fabric.clock.now = now
    if MSR_X2APIC <= index <= MSR_X2APIC_LAST:
        return MSR_DONE if write_x2apic(vp.irq, index - MSR_X2APIC, value, now) else MSR_FAULT
    if is_address and not vp_is_canonical(vp, value):
        return MSR_FAULT
    if index == MSR_TSC:
        write_tsc(vp, value, now)
    elif index == MSR_TSC_ADJUST:
        adjust_tsc(vp, value, now)
    elif index == MSR_TSC_DEADLINE:
        write_tsc_deadline(vp.irq, value, now)
    elif index == MSR_APIC_BASE:
        if not write_apic_base(vp.irq, value, vp.partition.physical_bits):
            return MSR_FAULT
        flush_translations(vp)
    elif index == MSR_SYSENTER_CS:
        vp.sysenter_cs = value
    elif index == MSR_SYSENTER_ESP:
        vp.sysenter_esp = value
    elif index == MSR_SYSENTER_EIP:
        vp.sysenter_eip = value
    elif index == MSR_PAT:
        if not is_pat_valid(value):
            return MSR_FAULT
        vp.pat = value
    elif index == MSR_EFER:
        return write_efer(vp, value)
    elif index == MSR_STAR:
        vp.star = value
    elif index == MSR_LSTAR:
        vp.lstar = value
    elif index == MSR_CSTAR:
        vp.cstar = value
    elif index == MSR_SFMASK:
        vp.sfmask = value & <u32>0xFFFFFFFF
    elif index == MSR_FS_BASE:
        vp.segments[SEGMENT_FS].base = value
    elif index == MSR_GS_BASE:
        vp.segments[SEGMENT_GS].base = value
    elif index == MSR_KERNEL_GS_BASE:
        vp.kernel_gs_base = value
    elif index == MSR_TSC_AUX:
        if value >> 32:
            return MSR_FAULT
        vp.tsc_aux = value
    elif index == MSR_PKRS:
        if value >> 32:
            return MSR_FAULT
        if vp.pkrs != value:
            vp.pkrs = <u32>value
            flush_translations(vp)
    else:
        return synthetic_write(vp, index, value, now)
    return MSR_DONE
