# Entry of every processor (RDI = its index) and 256 stubs that make one frame of interrupts and exceptions.
        .globl _start, stubs, stub_end
        .text
_start:
        mov %rdi, %rax
        inc %rax
        shl $14, %rax                   # stacks of 16 KiB: the index of a processor follows from RSP
        lea stacks(%rax), %rsp
        lidt idt_pointer
        call entry
1:      hlt
        jmp 1b

        .balign 32
stubs:
        .set vector, 0
        .rept 256
        .balign 32
        testb $8, %spl                  # RSP was aligned to 16: five words have been pushed, or six with an error code
        jz 1f
        pushq $0
1:      pushq $vector
        jmp common
        .set vector, vector + 1
        .endr
stub_end:
common:
        push %rax
        push %rcx
        push %rdx
        push %rbx
        push %rbp
        push %rsi
        push %rdi
        push %r8
        push %r9
        push %r10
        push %r11
        mov %rsp, %rdi
        mov %rsp, %rbp
        and $-16, %rsp
        call interrupt
        mov %rbp, %rsp
        pop %r11
        pop %r10
        pop %r9
        pop %r8
        pop %rdi
        pop %rsi
        pop %rbp
        pop %rbx
        pop %rdx
        pop %rcx
        pop %rax
        add $16, %rsp
        iretq

        .data
        .balign 16
idt_pointer:
        .word 4095
        .quad idt
        .bss
        .balign 16384
        .globl stacks
stacks: .skip 16384 * 8
