# The child: a complete guest of its own, embedded in the root's image and copied to child address 10000h.
# It is position independent (RIP-relative), and its descriptor tables hold child addresses worked out from
# distances, because it does not run where it was linked. What it cannot report by message it reports by OUT.

        .pushsection .child, "aw", @progbits
        .balign 64
child_image:
        cli
        cld
        jmp     child_start
        .balign 16
        .ascii  "hvcore child 1.0"              # ReadGpa looks at the first 16 bytes, a person at these

        .balign 8
child_gdt:
        .quad   0
        .quad   0x00AF9B000000FFFF              # 08h: 64-bit code
        .quad   0x00CF93000000FFFF              # 10h: flat data
child_gdt_end:
CHILD_GDT       = CHILD_CODE + (child_gdt - child_image)
CHILD_GDT_LIMIT = child_gdt_end - child_gdt - 1

        .balign 16
child_idt:                                      # only the vector that the root asserts has a gate
        .skip   CHILD_VECTOR * 16
        .word   CHILD_CODE + (child_on_interrupt - child_image) - 0x10000
        .word   0x08, 0x8E00, CHILD_CODE >> 16
        .quad   0
child_idt_end:
CHILD_IDT       = CHILD_CODE + (child_idt - child_image)
CHILD_IDT_LIMIT = child_idt_end - child_idt - 1

# Texts, each with its length.
.macro  child_text name:req, text:vararg
\name:  .ascii  \text
\name\()_size = . - \name
.endm
        child_text child_hello, "hello from the child, in 64-bit mode"
        child_text child_vendor, "the hypervisor calls itself ............"
        child_text child_result, "I/O answers correct, interrupts taken: 0"
child_interrupts:
        .long   0

# Post a message of the given type with text of our own.
.macro  child_post type:req, text:req
        mov     ebx, \type
        lea     rsi, [rip + \text]
        mov     ecx, \text\()_size
        call    child_post_message
.endm

child_start:
        wrmsr64 HV_X64_MSR_GUEST_OS_ID, CHILD_OS_ID
        rdmsr64 HV_X64_MSR_HYPERCALL
        and     eax, HV_PAGE_SIZE - 2
        or      eax, CHILD_HYPERCALL_PAGE | HV_MSR_PAGE_ENABLE
        wrmsr64 HV_X64_MSR_HYPERCALL, rax

        child_post 1, child_hello

        mov     ebx, 2                          # the note that the root wrote, by its second virtual address
        mov     esi, CHILD_ALIAS_GVA + CHILD_NOTE_OFFSET
        mov     ecx, CHILD_NOTE_BYTES
        call    child_post_message

        mov     eax, 0x40000000
        cpuid
        mov     [rip + child_vendor + child_vendor_size - 12], ebx
        mov     [rip + child_vendor + child_vendor_size - 8], ecx
        mov     [rip + child_vendor + child_vendor_size - 4], edx
        child_post 3, child_vendor

        mov     ecx, HvCallSignalEvent | HV_HYPERCALL_FAST
        mov     rdx, (CHILD_EVENT_FLAG << 32) | EVENT_CONNECTION
        xor     r8d, r8d
        call    child_hypercall

        mov     dx, CHILD_IO_PORT               # the root answers this OUT by asserting an interrupt
        mov     al, CHILD_IO_HELLO
        out     dx, al
        mov     rax, -1
        in      eax, dx                         # must clear the upper half of RAX
        mov     ecx, CHILD_IO_ANSWER
        cmp     rax, rcx
        jne     child_bad_input
        mov     rax, 0x1122334455667788
        in      ax, dx                          # must keep all but the low 16 bits
        mov     rcx, 0x1122334455660000 | (CHILD_IO_ANSWER & 0xFFFF)
        cmp     rax, rcx
        jne     child_bad_input

        sti                                     # the asserted interrupt has been waiting for this
        mov     ecx, 1000000
1:      cmp     dword ptr [rip + child_interrupts], 0
        jne     2f
        pause
        loop    1b
2:      cli
        mov     eax, [rip + child_interrupts]
        add     [rip + child_result + child_result_size - 1], al
        child_post 4, child_result

        mov     dx, CHILD_IO_PORT
        mov     eax, CHILD_IO_DONE
        out     dx, eax
child_halt:
        cli
        hlt
        jmp     child_halt

# EBX message type, RSI text, ECX bytes.
child_post_message:
        mov     edi, CHILD_MESSAGE_BUFFER
        mov     dword ptr [rdi + 0], MESSAGE_CONNECTION
        mov     dword ptr [rdi + 4], 0
        mov     [rdi + 8], ebx
        mov     [rdi + 12], ecx
        add     edi, 16
        rep movsb
        mov     ecx, HvCallPostMessage
        mov     edx, CHILD_MESSAGE_BUFFER
        xor     r8d, r8d
# RCX, RDX, R8 as the hypercall page wants them; a refusal is the end of this child.
child_hypercall:
        mov     eax, CHILD_HYPERCALL_PAGE
        call    rax
        test    ax, ax
        jz      1f
        movzx   eax, ax
        or      eax, CHILD_IO_FAILURE
        mov     dx, CHILD_IO_PORT
        out     dx, eax
        jmp     child_halt
1:      ret

child_bad_input:
        mov     eax, CHILD_IO_FAILURE | 0xBAD00
        mov     dx, CHILD_IO_PORT
        out     dx, eax
        jmp     child_halt

child_on_interrupt:
        push    rax
        push    rcx
        push    rdx
        inc     dword ptr [rip + child_interrupts]
        wrmsr64 HV_X64_MSR_EOI, 0
        pop     rdx
        pop     rcx
        pop     rax
        iretq
child_image_end:
        .popsection
