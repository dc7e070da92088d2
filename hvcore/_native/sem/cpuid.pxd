"""CPUID: the processor that guests see (x86-64-v1 and what the table executes beyond it) and the hypervisor leaves."""
from hvcore._native.base.types cimport u32, u64
from hvcore._native.cpu.spec cimport CR4_PKE
from hvcore._native.cpu.state cimport vp_t
from hvcore._native.irq.apic_spec cimport BASE_ENABLE
from hvcore._native.hv.spec cimport (
    BUILD_NUMBER, FEATURE_DEVICE_DOMAINS, FEATURE_DIRECT_TIMERS, FEATURE_FREQUENCY_MSRS, FEATURE_GUEST_IDLE,
    FEATURE_SINT_POLLING, FEATURE_UNHALTED_TIMER, FEATURE_XMM_INPUT, HARDWARE_APIC_ASSIST, HARDWARE_DMA_REMAPPING,
    HARDWARE_SECOND_LEVEL, LEAF_FEATURES, LEAF_HARDWARE, LEAF_HYPERVISOR, LEAF_INTERFACE, LEAF_LAST_HYPERVISOR,
    LEAF_LIMITS, LEAF_RECOMMENDATIONS, LEAF_VERSION, MAXIMUM_VPS, RECOMMEND_APIC_MSRS, RECOMMEND_CLUSTER_IPI,
    RECOMMEND_PROCESSOR_SETS, RECOMMEND_REMOTE_FLUSH, VERSION_MAJOR,
)

cdef enum:
    LAST_BASIC = 0xB
    LAST_EXTENDED = 0x80000008
    # Leaf 1
    SIGNATURE = 0x000006F2
    EDX_1 = (1 << 0 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 13 | 1 << 15 | 1 << 16 | 1 << 19
             | 1 << 17 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 26)
             # FPU PSE TSC MSR PAE CX8 PGE CMOV PAT CLFSH PSE-36 MMX FXSR SSE SSE2
    ECX_1 = 1 << 13 | 1 << 17 | 1 << 22 | 1 << 23           # CX16 PCID MOVBE POPCNT; and the hypervisor bit
    ECX_1_X2APIC = 1 << 21
    ECX_1_TSC_DEADLINE = 1 << 24
    EDX_1_APIC = 1 << 9                                     # follows IA32_APIC_BASE
    EDX_1_HTT = 1 << 28                                     # several processors in the package
    EAX_6_ARAT = 1 << 2                                     # the APIC timer never stops
    TOPOLOGY_THREAD = 1 << 8
    TOPOLOGY_CORE = 2 << 8
    EBX_7 = 1 << 1 | 1 << 3 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 19 | 1 << 20
            # TSC_ADJUST BMI1 SMEP BMI2 INVPCID ADX SMAP
    ECX_7 = 1 << 3 | 1 << 16 | <u32>1 << 31                 # PKU LA57 PKS; and OSPKE
    OSPKE = 1 << 4
    EAX_7_1 = 1 << 26                                       # LAM
    EDX_EXTENDED = 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29      # SYSCALL NX 1GB RDTSCP LM
    ECX_EXTENDED = 1 << 0 | 1 << 5                          # LAHF LZCNT
    LINEAR_ADDRESS_BITS = 57
    INVARIANT_TSC = 1 << 8


cdef inline void cpuid_set(vp_t* vp, u32 eax, u32 ebx, u32 ecx, u32 edx) noexcept nogil:
    vp.cpuid[0], vp.cpuid[1], vp.cpuid[2], vp.cpuid[3] = eax, ebx, ecx, edx


cdef inline void topology(vp_t* vp, u32 subleaf, u32 processors) noexcept nogil:
    """Leaf 0Bh: each virtual processor is a core of one thread; all of a partition are one package."""
    cdef u32 shift = 0
    cpuid_set(vp, 0, 0, subleaf & 0xFF, vp.irq.lapic.apic_id)
    if subleaf == 0:
        cpuid_set(vp, 0, 1, TOPOLOGY_THREAD, vp.irq.lapic.apic_id)
    elif subleaf == 1:
        while <u32>1 << shift < processors:
            shift += 1
        cpuid_set(vp, shift, processors, TOPOLOGY_CORE | 1, vp.irq.lapic.apic_id)


cdef inline void cpuid(vp_t* vp, u32 leaf, u32 subleaf) noexcept nogil:
    """EAX, EBX, ECX, EDX into vp.cpuid; zero for leaves that do not exist."""
    cdef u64 privileges = vp.partition.privileges
    cdef u32 processors = max(<u32>1, vp.irq.fabric.count)
    cpuid_set(vp, 0, 0, 0, 0)
    if leaf == 0:
        cpuid_set(vp, LAST_BASIC, 0x756E6547, 0x6C65746E, 0x49656E69)           # "GenuineIntel"
    elif leaf == 1:
        cpuid_set(vp, SIGNATURE, vp.irq.lapic.apic_id << 24 | min(<u32>255, processors) << 16 | 8 << 8,
                  ECX_1 | ECX_1_X2APIC | ECX_1_TSC_DEADLINE | <u32>1 << 31,
                  EDX_1 | (EDX_1_APIC if vp.irq.lapic.base & BASE_ENABLE else 0) | (EDX_1_HTT if processors > 1 else 0))
    elif leaf == 6:
        cpuid_set(vp, EAX_6_ARAT, 0, 0, 0)
    elif leaf == 7:
        if subleaf == 0:
            cpuid_set(vp, 1, EBX_7, ECX_7 | (OSPKE if vp.cr4 & CR4_PKE else 0), 0)
        elif subleaf == 1:
            cpuid_set(vp, EAX_7_1, 0, 0, 0)
    elif leaf == 0xB:
        topology(vp, subleaf, processors)
    elif leaf == <u32>0x80000000:
        cpuid_set(vp, LAST_EXTENDED, 0, 0, 0)
    elif leaf == <u32>0x80000001:
        cpuid_set(vp, 0, 0, ECX_EXTENDED, EDX_EXTENDED)
    elif leaf == <u32>0x80000007:
        cpuid_set(vp, 0, 0, 0, INVARIANT_TSC if vp.partition.fabric.timebase.invariant_tsc else 0)
    elif leaf == <u32>0x80000008:
        cpuid_set(vp, vp.partition.physical_bits | LINEAR_ADDRESS_BITS << 8, 0, 0, 0)
    elif leaf == LEAF_HYPERVISOR:
        cpuid_set(vp, LEAF_LAST_HYPERVISOR, 0x7263694D, 0x666F736F, 0x76482074)  # "Microsoft Hv"
    elif leaf == LEAF_INTERFACE:
        cpuid_set(vp, 0x31237648, 0, 0, 0)                                       # "Hv#1"
    elif leaf == LEAF_VERSION:
        cpuid_set(vp, BUILD_NUMBER, VERSION_MAJOR << 16, 0, 0)
    elif leaf == LEAF_FEATURES:
        cpuid_set(vp, <u32>privileges, <u32>(privileges >> 32), 0,
                  FEATURE_XMM_INPUT | FEATURE_GUEST_IDLE | FEATURE_FREQUENCY_MSRS | FEATURE_DIRECT_TIMERS
                  | FEATURE_SINT_POLLING | FEATURE_UNHALTED_TIMER
                  | (FEATURE_DEVICE_DOMAINS if vp.partition.device_domain_bits else 0))
    elif leaf == LEAF_RECOMMENDATIONS:
        cpuid_set(vp, RECOMMEND_REMOTE_FLUSH | RECOMMEND_APIC_MSRS | RECOMMEND_CLUSTER_IPI | RECOMMEND_PROCESSOR_SETS,
                  <u32>0xFFFFFFFF, vp.partition.physical_bits, 0)
    elif leaf == LEAF_LIMITS:
        cpuid_set(vp, MAXIMUM_VPS, MAXIMUM_VPS, 0, 0)
    elif leaf == LEAF_HARDWARE:
        if vp.partition.device_domain_bits:
            # Interrupts of devices are routed by the hypervisor: the unit's own remapping of them is off.
            cpuid_set(vp, HARDWARE_APIC_ASSIST | HARDWARE_SECOND_LEVEL | HARDWARE_DMA_REMAPPING,
                      vp.partition.device_domain_bits, 0, 0)
        else:
            cpuid_set(vp, HARDWARE_APIC_ASSIST | HARDWARE_SECOND_LEVEL, 0, 0, 0)
