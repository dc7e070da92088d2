# Steps 1 to 3 as any enlightened guest does them: read the hypervisor's CPUID leaves, give a guest OS id, turn on
# the hypercall page, then the synthetic interrupt controller.

# [1] What is below us?
discover:
        mov     eax, 1
        cpuid
        bt      ecx, CPUID_1_ECX_HYPERVISOR_BIT
        mov     eax, ecx
        fail_if nc, "cpuid: no hypervisor present"

        mov     eax, 0x40000000
        cpuid
        mov     [max_leaf], eax
        mov     [vendor + 0], ebx
        mov     [vendor + 4], ecx
        mov     [vendor + 8], edx
        cmp     eax, 0x40000005
        fail_if b, "cpuid: too few hypervisor leaves"
        mov     rax, 0x666F736F7263694D         # "Microsof"
        cmp     rax, [vendor]
        fail_if ne, "cpuid: unknown vendor"
        mov     eax, 0x76482074                 # "t Hv"
        cmp     eax, [vendor + 8]
        fail_if ne, "cpuid: unknown vendor"

        mov     eax, 0x40000001
        cpuid
        mov     [interface], eax
        cmp     eax, 0x31237648                 # "Hv#1"
        fail_if ne, "cpuid: unknown interface"
        say     "[1] hypervisor \""
        mov     esi, OFFSET vendor
        call    put_text
        say     "\", interface \""
        mov     esi, OFFSET interface
        call    put_text
        say     "\", leaves to "
        say_hex32 [max_leaf]

        mov     eax, 0x40000002
        cpuid
        mov     r12d, eax
        mov     r13d, ebx
        say     "\n    version "
        mov     eax, r13d
        shr     eax, 16
        call    put_dec
        say     "."
        movzx   eax, r13w
        call    put_dec
        say     " build "
        say_dec r12

        mov     eax, 0x40000003
        cpuid
        shl     rbx, 32
        or      rax, rbx
        mov     [privileges], rax
        mov     [features], edx
        say     "\n    privileges "
        say_hex rax
        say     ", features "
        say_hex rdx
        bt      rax, HV_PRIVILEGE_CREATE_PARTITIONS_BIT
        fail_if nc, "cpuid: no CreatePartitions privilege, not the root"
        bt      rax, HV_PRIVILEGE_SYNIC_BIT
        fail_if nc, "cpuid: no AccessSynicRegs privilege"

        mov     eax, 0x40000004
        cpuid
        mov     [recommendations], eax
        say     ", recommendations "
        say_hex rax

        mov     eax, 0x40000005
        cpuid
        say     "\n    up to "
        say_dec rax
        say     " virtual processors on "
        say_dec rbx
        say     " logical ones\n"
        ret

# [2] The hypercall page: first an identity, then the page, then a call through it.
enable_hypercalls:
        wrmsr64 HV_X64_MSR_GUEST_OS_ID, ROOT_OS_ID
        rdmsr64 HV_X64_MSR_GUEST_OS_ID
        mov     rdx, ROOT_OS_ID
        cmp     rax, rdx
        fail_if ne, "guest OS id does not read back"

        rdmsr64 HV_X64_MSR_HYPERCALL            # bits 11:1 are the hypervisor's to keep
        and     eax, HV_PAGE_SIZE - 2
        mov     edx, OFFSET hypercall_page
        or      eax, edx
        or      eax, HV_MSR_PAGE_ENABLE
        mov     ebx, eax
        wrmsr64 HV_X64_MSR_HYPERCALL, rbx
        rdmsr64 HV_X64_MSR_HYPERCALL
        cmp     rax, rbx
        fail_if ne, "hypercall page: MSR does not read back"

        hvcall  HvCallNoSuchCall
        must_be HV_STATUS_INVALID_HYPERCALL_CODE, "an unknown hypercall must be refused"
        hvcall  HvCallGetPartitionId
        must_succeed "GetPartitionId"
        mov     rax, [hv_output]
        mov     [root_id], rax
        rdmsr64 HV_X64_MSR_VP_INDEX
        mov     [root_vp], eax
        rdmsr64 HV_X64_MSR_TIME_REF_COUNT
        mov     [time_at_start], rax

        say     "[2] hypercall page at "
        mov     eax, OFFSET hypercall_page
        call    put_hex
        say     "; an unknown call is refused\n    we are partition "
        say_dec [root_id]
        say     ", virtual processor "
        say_dec32 [root_vp]
        say     ", at reference time "
        say_dec [time_at_start]
        say     "\n    our memory pool: "
        mov     rdi, [root_id]
        call    say_balance
        ret

# [3] The SynIC: message page, event page, four interrupt sources. The local APIC is reached through the synthetic MSRs
# alone: leaf 1 offers no register page, and the hypervisor hands it over enabled.
enable_synic:
        say     "[3] local APIC open to all priorities"
        wrmsr64 HV_X64_MSR_TPR, 0
        wrmsr64 HV_X64_MSR_SIMP, "OFFSET simp_page + HV_MSR_PAGE_ENABLE"
        wrmsr64 HV_X64_MSR_SIEFP, "OFFSET siefp_page + HV_MSR_PAGE_ENABLE"
        wrmsr64 HV_X64_MSR_SINT0, VECTOR_INTERCEPT
        wrmsr64 HV_X64_MSR_SINT2, VECTOR_EVENT
        wrmsr64 HV_X64_MSR_SINT3, VECTOR_TIMER_MESSAGE

        # Both ways to end an interrupt: SINT1 by auto-EOI unless the hypervisor advises against it.
        mov     ebx, VECTOR_MESSAGE
        bt      dword ptr [recommendations], CPUID_40000004_EAX_NO_AUTO_EOI_BIT
        jc      3f
        or      ebx, HV_SINT_AUTO_EOI
        mov     byte ptr [message_auto_eoi], 1
3:      wrmsr64 HV_X64_MSR_SINT1, rbx
        rdmsr64 HV_X64_MSR_SINT1
        cmp     rax, rbx
        fail_if ne, "SINT1 does not read back"
        rdmsr64 HV_X64_MSR_SCONTROL
        or      rax, 1
        wrmsr64 HV_X64_MSR_SCONTROL, rax

        rdmsr64 HV_X64_MSR_SVERSION
        say     "\n    SynIC version "
        say_dec32 eax
        say     ", message page "
        rdmsr64 HV_X64_MSR_SIMP
        call    put_hex
        say     ", event page "
        rdmsr64 HV_X64_MSR_SIEFP
        call    put_hex
        say     "\n    SINT0 "
        rdmsr64 HV_X64_MSR_SINT0
        call    put_hex
        say     ", SINT1 "
        say_hex rbx
        say     ", SINT2 "
        rdmsr64 HV_X64_MSR_SINT2
        call    put_hex
        say     ", SINT3 "
        rdmsr64 HV_X64_MSR_SINT3
        call    put_hex
        say     "\n"
        ret

        .pushsection .bss
        .balign 8
vendor:         .skip 16
interface:      .skip 8
privileges:     .skip 8
root_id:        .skip 8
time_at_start:  .skip 8
max_leaf:       .skip 4
features:       .skip 4
recommendations: .skip 4
root_vp:        .skip 4
        .popsection
