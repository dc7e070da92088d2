# A driver for the remapping unit and for virtio-blk behind it, in the order in which an operating system brings them
# up (iommu-facts.md 8): runs as the root at CPL 0, every address mapped at itself, RDI = GPA of the unit's registers,
# RSI = GPA of the ECAM. What it finds it leaves in RESULTS, and ends with CLI; HLT.

        .set RESULTS, 0x30000
        .set IDT, 0x31000
        .set ROOT_TABLE, 0x40000
        .set CONTEXT_TABLE, 0x41000
        .set QUEUE, 0x42000
        .set WAITED, 0x43000
        .set REMAPPING_TABLE, 0x44000
        .set SECOND_LEVEL, 0x50000              # four levels, a page each
        .set RINGS, 0x60000                     # descriptors, available, used, header and status, data
        .set IOVA, 0x40000000                   # where the device finds RINGS
        .set NOWHERE, 0x7ABCD000
        .set DOMAIN, 1
        .set FAULT_VECTOR, 0x40
        .set DISK_VECTOR, 0x41
        .set HANDLE, 1
        .set QUEUE_SIZE, 8

        # Registers of the unit, and of it bits that are commands and states alike
        .set CAP, 0x08
        .set ECAP, 0x10
        .set GCMD, 0x18
        .set GSTS, 0x1C
        .set RTADDR, 0x20
        .set FSTS, 0x34
        .set FECTL, 0x38
        .set FEDATA, 0x3C
        .set FEADDR, 0x40
        .set FEUADDR, 0x44
        .set IQT, 0x88
        .set IQA, 0x90
        .set IRTA, 0xB8
        .set TE, 0x80000000
        .set SRTP, 0x40000000
        .set QIE, 0x04000000
        .set IRE, 0x02000000
        .set SIRTP, 0x01000000

        # Results, quadwords
        .set R_CAP, RESULTS
        .set R_GSTS, RESULTS + 8
        .set R_DISK_INTERRUPTS, RESULTS + 16
        .set R_FAULT_INTERRUPTS, RESULTS + 24
        .set R_STATUS, RESULTS + 32             # of three requests, a byte each
        .set R_FAULTS, RESULTS + 64             # 16 bytes each
        .set R_REQUESTER, RESULTS + 48
        .set R_STEP, RESULTS + 56               # the last that was finished

        .text
        .globl _start
_start:
        mov     %rdi, %r15
        mov     %rsi, %r14
        call    take_interrupts
        movq    $1, R_STEP
        call    bring_up
        movq    $2, R_STEP
        call    find_disk
        movq    $3, R_STEP
        call    give_it_a_domain
        call    give_it_an_interrupt
        call    start_disk
        movq    $4, R_STEP

        mov     $IOVA + 0x4000, %rdi            # a read that is mapped
        call    read_sector
        movzbl  RINGS + 0x3040, %eax
        mov     %al, R_STATUS
        movq    $5, R_STEP

        mov     $NOWHERE, %edi                  # one that is not: a fault, and its interrupt
        call    read_sector
        movzbl  RINGS + 0x3040, %eax
        mov     %al, R_STATUS + 1
        movq    $6, R_STEP

        movq    $0, SECOND_LEVEL + 0x3000 + 4 * 8       # unmap the data, and tell the unit
        mov     $0x32 + (DOMAIN << 16), %eax            # IOTLB, page-selective
        mov     $IOVA + 0x4000, %edx
        call    invalidate
        mov     $IOVA + 0x4000, %rdi
        call    read_sector
        movzbl  RINGS + 0x3040, %eax
        mov     %al, R_STATUS + 2
        movq    $7, R_STEP
        cli
        hlt

# Interrupt handlers

disk_interrupt:
        push    %rax
        push    %rcx
        push    %rdx
        incq    R_DISK_INTERRUPTS
        jmp     end_of_interrupt

fault_interrupt:
        push    %rax
        push    %rcx
        push    %rdx
        mov     CAP(%r15), %rcx                 # where the records are
        shr     $24, %rcx
        and     $0x3FF, %ecx
        shl     $4, %ecx
        mov     FSTS(%r15), %eax                # FRI is its second byte
        movzbl  %ah, %eax
        shl     $4, %eax
        add     %ecx, %eax
        mov     R_FAULT_INTERRUPTS, %rcx
        shl     $4, %ecx
        mov     (%r15, %rax), %rdx
        mov     %rdx, R_FAULTS(%rcx)
        mov     8(%r15, %rax), %rdx
        mov     %rdx, R_FAULTS + 8(%rcx)
        movl    $0x80000000, 12(%r15, %rax)     # F is cleared by a 1
        movl    $1, FSTS(%r15)
        incq    R_FAULT_INTERRUPTS
end_of_interrupt:
        mov     $0x40000070, %ecx               # the hypervisor's EOI
        xor     %eax, %eax
        xor     %edx, %edx
        wrmsr
        pop     %rdx
        pop     %rcx
        pop     %rax
        iretq

take_interrupts:
        lea     disk_interrupt(%rip), %rax
        mov     $IDT + DISK_VECTOR * 16, %edi
        call    set_gate
        lea     fault_interrupt(%rip), %rax
        mov     $IDT + FAULT_VECTOR * 16, %edi
        call    set_gate
        lidt    idt_register(%rip)
        mov     $0xFEE000F0, %eax               # APIC software enable, spurious vector FF
        movl    $0x1FF, (%rax)
        ret

set_gate:
        mov     %ax, (%rdi)
        movw    $8, 2(%rdi)
        movw    $0x8E00, 4(%rdi)
        shr     $16, %rax
        mov     %ax, 6(%rdi)
        shr     $16, %rax
        mov     %eax, 8(%rdi)
        movl    $0, 12(%rdi)
        ret

# The unit

# EAX: a command bit. Writes the state with it, then waits for its status.
command:
        mov     GSTS(%r15), %edx
        and     $~(SRTP | SIRTP | 0x28000000), %edx     # one-shot bits are not written back
        or      %eax, %edx
        mov     %edx, GCMD(%r15)
1:      test    %eax, GSTS(%r15)
        jz      1b
        ret

# EAX: the low half of a descriptor's first quadword, RDX: its second. A wait descriptor follows; returns when it is done.
invalidate:
        movl    $0, WAITED
        mov     IQT(%r15), %rcx
        mov     %rax, QUEUE(%rcx)
        mov     %rdx, QUEUE + 8(%rcx)
        add     $16, %ecx
        and     $0xFFF, %ecx
        movabs  $0x200000025, %rax              # wait, write status 2
        mov     %rax, QUEUE(%rcx)
        movq    $WAITED, QUEUE + 8(%rcx)
        add     $16, %ecx
        and     $0xFFF, %ecx
        mov     %rcx, IQT(%r15)
1:      testl   $0x70, FSTS(%r15)               # IQE, ICE, ITE
        jnz     failed
        cmpl    $2, WAITED
        jne     1b
        ret
failed:
        cli
        hlt

bring_up:
        mov     CAP(%r15), %rax
        mov     %rax, R_CAP
        movl    $0x71, FSTS(%r15)               # old faults
        movq    $0, IQT(%r15)
        movq    $QUEUE, IQA(%r15)
        mov     $QIE, %eax
        call    command
        movq    $REMAPPING_TABLE + 7, IRTA(%r15)        # 256 entries
        mov     $SIRTP, %eax
        call    command
        mov     $4, %eax                        # interrupt entry cache, global
        xor     %edx, %edx
        call    invalidate
        mov     $IRE, %eax
        call    command
        movq    $CONTEXT_TABLE + 1, ROOT_TABLE  # bus 0
        movq    $ROOT_TABLE, RTADDR(%r15)
        mov     $SRTP, %eax
        call    command
        mov     $0x11, %eax                     # context cache, global
        xor     %edx, %edx
        call    invalidate
        mov     $0x12, %eax                     # IOTLB, global
        xor     %edx, %edx
        call    invalidate
        movl    $FAULT_VECTOR, FEDATA(%r15)
        movl    $0xFEE00000, FEADDR(%r15)
        movl    $0, FEUADDR(%r15)
        movl    $0, FECTL(%r15)
        mov     $TE, %eax
        call    command
        mov     GSTS(%r15), %eax
        mov     %rax, R_GSTS
        ret

# The disk: R14 its configuration space, R13 the common configuration, R12 the notification, R11 the MSI-X table

find_disk:
        xor     %ecx, %ecx
1:      mov     %ecx, %eax
        shl     $12, %eax
        cmpl    $0x10421AF4, (%r14, %rax)
        je      2f
        inc     %ecx
        cmp     $256, %ecx
        jb      1b
        jmp     failed
2:      mov     %rcx, R_REQUESTER
        add     %rax, %r14
        movw    $6, 4(%r14)                     # memory, bus master
        movzbl  0x34(%r14), %ecx
3:      test    %ecx, %ecx
        jz      6f
        lea     (%r14, %rcx), %rbx
        cmpb    $0x11, (%rbx)
        je      5f
        cmpb    $9, (%rbx)
        jne     4f
        movzbl  4(%rbx), %eax
        mov     0x10(%r14, %rax, 4), %eax       # BAR 0 lies below 4 GiB here
        and     $~0xF, %eax
        add     8(%rbx), %eax
        cmpb    $1, 3(%rbx)
        cmove   %rax, %r13
        cmpb    $2, 3(%rbx)
        cmove   %rax, %r12
4:      movzbl  1(%rbx), %ecx
        jmp     3b
5:      mov     4(%rbx), %eax
        mov     %eax, %edx
        and     $7, %eax
        and     $~7, %edx
        mov     0x10(%r14, %rax, 4), %eax
        and     $~0xF, %eax
        lea     (%rax, %rdx), %r11
        movw    $0x8000, 2(%rbx)                # MSI-X on
        jmp     4b
6:      ret

give_it_a_domain:
        movq    $SECOND_LEVEL + 0x1000 + 3, SECOND_LEVEL
        movq    $SECOND_LEVEL + 0x2000 + 3, SECOND_LEVEL + 0x1000 + 8
        movq    $SECOND_LEVEL + 0x3000 + 3, SECOND_LEVEL + 0x2000
        mov     $RINGS + 3, %eax
        mov     $SECOND_LEVEL + 0x3000, %edi
        mov     $5, %ecx
1:      mov     %rax, (%rdi)
        add     $8, %edi
        add     $0x1000, %eax
        loop    1b
        mov     R_REQUESTER, %rax
        shl     $4, %eax
        movq    $2 + (DOMAIN << 8), CONTEXT_TABLE + 8(%rax)     # 48 bits
        movq    $SECOND_LEVEL + 1, CONTEXT_TABLE(%rax)
        mov     $0x11, %eax
        xor     %edx, %edx
        jmp     invalidate

give_it_an_interrupt:
        mov     R_REQUESTER, %rax
        or      $0x40000, %eax                  # SVT 1: this requester alone
        mov     %rax, REMAPPING_TABLE + HANDLE * 16 + 8
        movq    $1 + (DISK_VECTOR << 16), REMAPPING_TABLE + HANDLE * 16
        mov     $4, %eax
        xor     %edx, %edx
        call    invalidate
        mov     $0xFEE00010 + (HANDLE << 5), %eax       # remappable format
        mov     %eax, (%r11)
        movl    $0, 4(%r11)
        movl    $0, 8(%r11)
        movl    $0, 12(%r11)                    # unmasked
        ret

start_disk:
        movb    $0, 0x14(%r13)
        movb    $3, 0x14(%r13)
        movl    $1, 8(%r13)
        movl    $3, 12(%r13)                    # VERSION_1, ACCESS_PLATFORM
        movb    $11, 0x14(%r13)
        cmpb    $11, 0x14(%r13)
        jne     failed
        movw    $0, 0x16(%r13)
        movw    $QUEUE_SIZE, 0x18(%r13)
        movw    $0, 0x1A(%r13)                  # vector 0
        movl    $IOVA, 0x20(%r13)
        movl    $0, 0x24(%r13)
        movl    $IOVA + 0x1000, 0x28(%r13)
        movl    $0, 0x2C(%r13)
        movl    $IOVA + 0x2000, 0x30(%r13)
        movl    $0, 0x34(%r13)
        movw    $1, 0x1C(%r13)
        movb    $15, 0x14(%r13)
        ret

# RDI: where the device shall put sector 1. Sleeps until the disk's interrupt.
read_sector:
        movl    $0, RINGS + 0x3000              # IN
        movl    $0, RINGS + 0x3004
        movq    $1, RINGS + 0x3008
        movb    $0xEE, RINGS + 0x3040
        movq    $IOVA + 0x3000, RINGS           # header
        movabs  $16 + (1 << 32) + (1 << 48), %rax       # NEXT, 1
        mov     %rax, RINGS + 8
        mov     %rdi, RINGS + 16                # data
        movabs  $512 + (3 << 32) + (2 << 48), %rax
        mov     %rax, RINGS + 24
        movq    $IOVA + 0x3040, RINGS + 32      # status
        movabs  $1 + (2 << 32), %rax
        mov     %rax, RINGS + 40
        movzwl  RINGS + 0x1002, %ecx
        mov     %ecx, %eax
        and     $QUEUE_SIZE - 1, %eax
        movw    $0, RINGS + 0x1004(, %rax, 2)
        inc     %ecx
        mov     %cx, RINGS + 0x1002
        mov     R_DISK_INTERRUPTS, %rbx
        movw    $0, (%r12)
1:      sti                                     # what came during the store waits until here
        nop
        cli
        cmp     R_DISK_INTERRUPTS, %rbx
        jne     2f
        sti
        hlt
        jmp     1b
2:      ret

        .balign 8
idt_register:
        .word   0xFFF
        .quad   IDT
