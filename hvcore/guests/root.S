# The root guest: the machine code that boots in hvcore's root partition and drives the hypervisor by its public
# interface alone - CPUID, synthetic MSRs, hypercalls, SynIC messages - as a parent operating system would.
# It creates a child partition, runs a program in it, talks with it, uses the synthetic timers, and takes
# everything apart again, with a line on the serial console for each step.
#
# Booted by the ELF loader at 2 MiB in 64-bit mode, CPL 0: RDI = bytes of RAM, RSP = a 64 KiB stack, RAM identity
# mapped, a flat GDT (08h code, 10h data), no IDT, interrupts off. Ends by HLT with interrupts off: RAX = 0 after
# "hvcore: all done", RAX = 0BADh after "FAILED: ...". No SSE, no x87.

        .intel_syntax noprefix
        .code64
        .include "root/constants.inc.S"

        .section .text
        .include "root/console.inc.S"
        .include "root/hypercall.inc.S"

        .globl  _start
_start:
        cld
        call    console_init
        say     "hvcore root guest, "
        mov     rax, rdi
        shr     rax, 20
        call    put_dec
        say     " MiB of RAM\n"
        cmp     rdi, OFFSET image_end
        mov     rax, rdi
        fail_if b, "not enough RAM"
        call    memory_init
        call    interrupts_init

        call    discover
        call    enable_hypercalls
        call    enable_synic
        call    create_child
        call    open_channels
        call    run_child
        call    run_timers
        call    tear_down
        call    summary
        xor     eax, eax
        jmp     stop

# RSI the step, AX its status: the run ends here, and the loader's caller sees 0BADh.
fail:
        cli
        call    fresh_line
        say     "FAILED: "
        call    put_text
        say     " status="
        call    put_status
        say     "\n"
        mov     eax, 0xBAD
stop:
        cli
        hlt
        jmp     stop

        .include "root/memory.inc.S"
        .include "root/interrupts.inc.S"
        .include "root/discovery.inc.S"
        .include "root/child.inc.S"
        .include "root/partition.inc.S"
        .include "root/channels.inc.S"
        .include "root/run.inc.S"
        .include "root/timers.inc.S"
        .include "root/teardown.inc.S"
