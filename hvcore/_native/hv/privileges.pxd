"""Which partition privilege gates which synthetic MSR (TLFS 4.2.2)."""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.hv.spec cimport (
    MSR_APIC_FREQUENCY, MSR_EOI, MSR_GUEST_IDLE, MSR_SCONTROL, MSR_SIEFP, MSR_SIMP, MSR_SINT15, MSR_SIRBP,
    MSR_STIMER0_CONFIG, MSR_STIMER3_COUNT, MSR_TIME_REF_COUNT, MSR_TSC_FREQUENCY, MSR_UNHALTED_CONFIG,
    MSR_UNHALTED_COUNT, MSR_VP_ASSIST_PAGE, MSR_VP_INDEX, MSR_VP_RUNTIME, PRIVILEGE_FREQUENCY, PRIVILEGE_GUEST_IDLE,
    PRIVILEGE_INTERRUPT_CONTROL, PRIVILEGE_REFERENCE_COUNTER, PRIVILEGE_SYNIC, PRIVILEGE_SYNTHETIC_TIMERS,
    PRIVILEGE_VP_INDEX, PRIVILEGE_VP_RUNTIME,
)


cdef inline u64 privilege_of(u32 index) noexcept nogil:
    """The privilege that gates a natively served synthetic MSR; zero for one that is not served here."""
    if index == MSR_VP_INDEX:
        return PRIVILEGE_VP_INDEX
    if index == MSR_VP_RUNTIME:
        return PRIVILEGE_VP_RUNTIME
    if index == MSR_TIME_REF_COUNT:
        return PRIVILEGE_REFERENCE_COUNTER
    if index == MSR_TSC_FREQUENCY or index == MSR_APIC_FREQUENCY:
        return PRIVILEGE_FREQUENCY
    if MSR_EOI <= index < MSR_VP_ASSIST_PAGE:
        return PRIVILEGE_INTERRUPT_CONTROL
    if MSR_SIEFP <= index <= MSR_SIMP or index == MSR_SIRBP:
        return 0                # they move overlay pages
    if MSR_SCONTROL <= index <= MSR_SINT15:
        return PRIVILEGE_SYNIC
    if MSR_STIMER0_CONFIG <= index <= MSR_STIMER3_COUNT or MSR_UNHALTED_CONFIG <= index <= MSR_UNHALTED_COUNT:
        return PRIVILEGE_SYNTHETIC_TIMERS
    if index == MSR_GUEST_IDLE:
        return PRIVILEGE_GUEST_IDLE
    return 0
