# Where every processor begins (RDI: its index), the 256 interrupt stubs, and the call of the hypercall page.
        .globl begin, stub_table, call_page
        .text
begin:
        lea 1(%rdi), %rax
        shl $15, %rax
        lea stack_area(%rax), %rsp
        xor %ebp, %ebp
        call kernel_main
0:      cli
        hlt
        jmp 0b

# rax = call_page(control, input, output): RCX, RDX, R8 as the TLFS has them.
call_page:
        mov %rdx, %r8
        mov %rsi, %rdx
        mov %rdi, %rcx
        mov $hypercall_page, %eax
        jmp *%rax

        .balign 16
stub_table:
        .set n, 0
        .rept 256
        .balign 16
        .if (n == 8) || (n >= 10 && n <= 14) || (n == 17) || (n == 21)
        .else
        pushq $0
        .endif
        pushq $n
        jmp save_all
        .set n, n + 1
        .endr
save_all:
        .irp r, rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11, rbx
        push %\r
        .endr
        mov %rsp, %rdi
        mov %rsp, %rbx
        and $-16, %rsp
        call on_interrupt
        mov %rbx, %rsp
        .irp r, rbx, r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax
        pop %\r
        .endr
        add $16, %rsp
        iretq

        .bss
        .balign 4096
        .globl hypercall_page
hypercall_page: .skip 4096
        .balign 32768
stack_area: .skip 32768 * 9
