# Step 4: a child partition from nothing to a processor that is ready to run. Its memory is pages of ours that we
# keep our own mapping of; its page tables and program are written before it starts.

POOL_FIRST_DEPOSIT = 32                 # pages for the child before anything asks for them

create_child:
        call    create_partition
        call    build_child_memory
        call    map_child_memory
        call    create_processor
        call    check_guest_memory_calls
        say     "    child's memory pool: "
        mov     rdi, [child_id]
        call    say_balance
        ret

# CreatePartition is paid from our pool; everything after it from the child's.
create_partition:
        begin_input
        in64    0, HV_PARTITION_CREATION_FLAG_EXO|HV_PARTITION_CREATION_FLAG_LAPIC
        in32    16, HV_COMPATIBILITY_21H2
        hvcall  HvCallCreatePartition, pool=[root_id]
        must_succeed "CreatePartition"
        mov     rax, [hv_output]
        mov     [child_id], rax
        say     "[4] partition "
        say_dec [child_id]
        say     " created; "
        say_dec32 [pages_deposited]
        say     " pages deposited into our pool for it\n"

        # A new child may not post messages or signal events. These properties are settable before Initialize.
        begin_input
        in64    0, [child_id]
        in32    8, HvPartitionPropertyPrivilegeFlags
        hvcall  HvCallGetPartitionProperty
        must_succeed "GetPartitionProperty"
        mov     rbx, [hv_output]
        mov     r12, HV_PRIVILEGE_POST_MESSAGES | HV_PRIVILEGE_SIGNAL_EVENTS
        or      r12, rbx
        begin_input
        in64    0, [child_id]
        in32    8, HvPartitionPropertyPrivilegeFlags
        in64    16, r12
        hvcall  HvCallSetPartitionProperty, pool=[child_id]
        must_succeed "SetPartitionProperty"
        begin_input
        in64    0, [child_id]
        in32    8, HvPartitionPropertyPrivilegeFlags
        hvcall  HvCallGetPartitionProperty
        must_succeed "GetPartitionProperty"
        mov     rax, [hv_output]
        cmp     rax, r12
        fail_if ne, "child privileges do not read back"
        say     "    privileges "
        say_hex rbx
        say     " raised to "
        say_hex r12
        say     "\n"

        mov     rdi, [child_id]
        mov     esi, POOL_FIRST_DEPOSIT
        call    deposit_pages
        hvcall_fast HvCallInitializePartition, [child_id], pool=[child_id]
        must_succeed "InitializePartition"
        say     "    initialized by a fast hypercall\n"
        ret

# Program, page tables and message buffer, written into our pages before the child can see them.
build_child_memory:
        mov     esi, OFFSET child_image
        mov     edi, OFFSET child_ram + CHILD_CODE
        mov     ecx, OFFSET child_image_end
        sub     ecx, esi
        rep movsb

        mov     ebx, OFFSET child_ram
        mov     qword ptr [rbx + CHILD_PML4], CHILD_PDPT | PTE_PRESENT_WRITABLE
        mov     qword ptr [rbx + CHILD_PDPT], CHILD_PD | PTE_PRESENT_WRITABLE
        mov     qword ptr [rbx + CHILD_PD], CHILD_PT | PTE_PRESENT_WRITABLE
        mov     eax, PTE_PRESENT_WRITABLE       # identity for the first pages
        xor     ecx, ecx
1:      mov     [rbx + CHILD_PT + rcx*8], rax
        add     eax, HV_PAGE_SIZE
        inc     ecx
        cmp     ecx, CHILD_MAPPED_PAGES
        jb      1b
        mov     qword ptr [rbx + CHILD_PT + CHILD_ALIAS_GVA/HV_PAGE_SIZE*8], CHILD_NOTE | PTE_PRESENT_WRITABLE
        ret

# ECX pages from child page number EDX on, backed by the same stretch of child_ram.
map_pages:
        push    rcx
        push    rdx
        begin_input
        pop     rdx
        pop     r9
        in64    0, [child_id]
        in64    8, rdx
        in32    16, HV_MAP_GPA_RWX
        mov     eax, OFFSET child_ram
        shr     eax, 12
        add     eax, edx
        xor     ecx, ecx
1:      mov     [hv_input + 24 + rcx*8], rax
        inc     eax
        inc     ecx
        cmp     ecx, r9d
        jb      1b
        push    rcx
        hvcall  HvCallMapGpaPages, reps=r9d, pool=[child_id]
        must_succeed "MapGpaPages"
        pop     rcx
        cmp     [reps_done], ecx
        fail_if ne, "MapGpaPages: reps completed"
        ret

map_child_memory:
        mov     ecx, CHILD_RAM_PAGES
        xor     edx, edx
        call    map_pages
        say     "    "
        mov     eax, CHILD_RAM_PAGES
        call    put_dec
        say     " of our pages mapped at its address 0\n"
        ret

# The registers of a processor in 64-bit mode, as SetVpRegisters wants them: name, padding, 128-bit value.
.macro  register name:req, low:req, high=0
        .long   \name, 0, 0, 0
        .quad   \low, \high
.endm

.macro  segment_register name:req, selector:req, attributes:req
        register \name, 0, (\attributes<<48)|(\selector<<32)|0xFFFFFFFF
.endm

        .pushsection .rodata
        .balign 8
start_registers:
        register HvX64RegisterCr3, CHILD_PML4
        register HvX64RegisterCr4, 0x20         # PAE
        register HvX64RegisterEfer, 0x500       # LMA, LME
        register HvX64RegisterCr0, 0x80010031   # PG, WP, NE, ET, PE
        segment_register HvX64RegisterCs, 0x08, HV_SEGMENT_CODE64
        segment_register HvX64RegisterDs, 0x10, HV_SEGMENT_DATA
        segment_register HvX64RegisterEs, 0x10, HV_SEGMENT_DATA
        segment_register HvX64RegisterSs, 0x10, HV_SEGMENT_DATA
        segment_register HvX64RegisterFs, 0x10, HV_SEGMENT_DATA
        segment_register HvX64RegisterGs, 0x10, HV_SEGMENT_DATA
        register HvX64RegisterTr, 0, (HV_SEGMENT_BUSY_TSS<<48)|0xFFFF
        register HvX64RegisterGdtr, (CHILD_GDT_LIMIT<<48), CHILD_GDT
        register HvX64RegisterIdtr, (CHILD_IDT_LIMIT<<48), CHILD_IDT
        register HvX64RegisterRip, CHILD_CODE
        register HvX64RegisterRsp, CHILD_STACK_TOP
        register HvX64RegisterRflags, 2
start_registers_end:
START_REGISTERS = (start_registers_end - start_registers) / 32
        .popsection

# The processor starts in architectural reset state; put it straight into 64-bit mode at the program's entry.
create_processor:
        begin_input
        in64    0, [child_id]                   # index 0, any node, no flags: all zero
        hvcall  HvCallCreateVp, pool=[child_id]
        must_succeed "CreateVp"

        begin_input
        in64    0, [child_id]
        mov     esi, OFFSET start_registers
        mov     edi, OFFSET hv_input + 16
        mov     ecx, OFFSET start_registers_end
        sub     ecx, esi
        rep movsb
        hvcall  HvCallSetVpRegisters, reps=START_REGISTERS, pool=[child_id]
        must_succeed "SetVpRegisters"
        cmp     dword ptr [reps_done], START_REGISTERS
        fail_if ne, "SetVpRegisters: reps completed"

        begin_input
        in64    0, [child_id]
        in32    16, HvX64RegisterRip            # names are packed, 4 bytes each
        in32    20, HvX64RegisterCr3
        in32    24, HvRegisterExplicitSuspend
        hvcall  HvCallGetVpRegisters, reps=3
        must_succeed "GetVpRegisters"
        mov     rax, [hv_output + 0]
        cmp     rax, CHILD_CODE
        fail_if ne, "GetVpRegisters: RIP"
        mov     rax, [hv_output + 16]
        cmp     rax, CHILD_PML4
        fail_if ne, "GetVpRegisters: CR3"
        mov     rax, [hv_output + 32]
        and     eax, 1
        fail_if z, "GetVpRegisters: a new processor must be suspended"
        say     "    processor 0 created, "
        mov     eax, START_REGISTERS
        call    put_dec
        say     " registers set, RIP reads back as "
        say_hex [hv_output]
        say     "\n"
        ret

# Each call that looks into the child from outside, used once and checked against our own view of the pages.
check_guest_memory_calls:
        begin_input
        in64    0, [child_id]
        in64    16, HV_TRANSLATE_GVA_VALIDATE_READ
        in64    24, CHILD_ALIAS_GVA/HV_PAGE_SIZE
        hvcall  HvCallTranslateVirtualAddress, pool=[child_id]
        must_succeed "TranslateVirtualAddress"
        mov     eax, [hv_output]
        cmp     eax, HvTranslateGvaSuccess
        fail_if ne, "TranslateVirtualAddress: result"
        mov     rax, [hv_output + 8]
        cmp     rax, CHILD_NOTE/HV_PAGE_SIZE
        fail_if ne, "TranslateVirtualAddress: page"
        shl     rax, 12
        mov     rbx, rax
        say     "    its virtual address "
        mov     eax, CHILD_ALIAS_GVA
        call    put_hex
        say     " translates to physical "
        say_hex rbx
        say     "\n"

        mov     edi, CHILD_CODE
        call    read_child
        cmp     eax, HvAccessGpaSuccess
        fail_if ne, "ReadGpa: result"
        mov     rax, [hv_output + 8]
        cmp     rax, [child_image]
        fail_if ne, "ReadGpa: data"
        mov     rax, [hv_output + 16]
        cmp     rax, [child_image + 8]
        fail_if ne, "ReadGpa: data"
        say     "    ReadGpa finds the first 16 bytes of its program\n"

        begin_input
        in64    0, [child_id]
        in32    12, CHILD_NOTE_BYTES
        in64    16, CHILD_NOTE+CHILD_NOTE_OFFSET
        in64    32, [note + 0]
        in64    40, [note + 8]
        hvcall  HvCallWriteGpa, pool=[child_id]
        must_succeed "WriteGpa"
        mov     eax, [hv_output]
        cmp     eax, HvAccessGpaSuccess
        fail_if ne, "WriteGpa: result"
        mov     rax, [note + 8]
        cmp     rax, [child_ram + CHILD_NOTE + CHILD_NOTE_OFFSET + 8]
        fail_if ne, "WriteGpa: data"
        say     "    WriteGpa leaves a note of 16 bytes for it\n"

        # Take one page away, see that it is gone, and give it back.
        begin_input
        in64    0, [child_id]
        in64    8, CHILD_SPARE/HV_PAGE_SIZE
        hvcall  HvCallUnmapGpaPages, reps=1, pool=[child_id]
        must_succeed "UnmapGpaPages"
        mov     edi, CHILD_SPARE
        call    read_child
        cmp     eax, HvAccessGpaUnmapped
        fail_if ne, "ReadGpa: an unmapped page must not be readable"
        mov     ecx, 1
        mov     edx, CHILD_SPARE / HV_PAGE_SIZE
        call    map_pages
        mov     edi, CHILD_SPARE
        call    read_child
        cmp     eax, HvAccessGpaSuccess
        fail_if ne, "ReadGpa: after mapping again"
        say     "    page "
        mov     eax, CHILD_SPARE
        call    put_hex
        say     " unmapped, found missing, mapped again\n"
        ret

# EDI: guest physical address in the child, 16 bytes are read. EAX = access result, data at hv_output + 8.
read_child:
        begin_input
        in64    0, [child_id]
        in32    12, 16
        in64    16, rdi
        hvcall  HvCallReadGpa, pool=[child_id]
        must_succeed "ReadGpa"
        mov     eax, [hv_output]
        ret

        .pushsection .rodata
note:   .ascii  "written by root!"
        .popsection

        .pushsection .bss
        .balign HV_PAGE_SIZE
child_ram:      .skip CHILD_RAM_PAGES * HV_PAGE_SIZE
child_id:       .skip 8
        .popsection
