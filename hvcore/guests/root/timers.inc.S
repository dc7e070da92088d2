# Step 8: synthetic timers. Timer 0 ticks periodically and reports by message on SINT3; timer 1 fires once, by an
# interrupt of its own where direct mode exists and by a message otherwise.

TIMER_PERIOD    = 10000                 # 1 ms in units of 100 ns
TIMER_TICKS     = 5
TIMER_DELAY     = 25000                 # 2.5 ms

run_timers:
        say     "[8] reference time "
        rdmsr64 HV_X64_MSR_TIME_REF_COUNT
        mov     [timer_start], rax
        mov     [last_delivery], rax
        call    put_dec
        say     "; timer 0 every 1 ms on SINT3\n"
        wrmsr64 HV_X64_MSR_STIMER0_COUNT, TIMER_PERIOD
        wrmsr64 HV_X64_MSR_STIMER0_CONFIG, HV_STIMER_ENABLE|HV_STIMER_PERIODIC|(3<<HV_STIMER_SINT_SHIFT)
        xor     ebx, ebx
1:      call    wait_timer_message
        cmp     dword ptr [rsi + TIMER_INDEX], 0
        fail_if ne, "timer message of another timer"
        call    print_tick
        inc     ebx
        cmp     ebx, TIMER_TICKS
        jb      1b
        wrmsr64 HV_X64_MSR_STIMER0_CONFIG, 0
        add     [timer_interrupts], ebx
2:      mov     edi, 3                          # a tick may still have been on its way
        call    take_message
        jnz     2b
        cmp     dword ptr [simp_page + 3*256], 0
        je      3f
        sti                                     # one in the slot: let its handler take it
        nop
        cli
        jmp     2b

# Written with auto-enable, so that the write of the count is what arms it.
3:      mov     ebx, HV_STIMER_AUTO_ENABLE | (3 << HV_STIMER_SINT_SHIFT)
        bt      dword ptr [features], CPUID_40000003_EDX_DIRECT_STIMER_BIT
        jnc     4f
        mov     ebx, HV_STIMER_AUTO_ENABLE | HV_STIMER_DIRECT | (VECTOR_TIMER_DIRECT << HV_STIMER_VECTOR_SHIFT)
4:      wrmsr64 HV_X64_MSR_STIMER1_CONFIG, rbx
        rdmsr64 HV_X64_MSR_TIME_REF_COUNT
        lea     r12, [rax + TIMER_DELAY]
        wrmsr64 HV_X64_MSR_STIMER1_COUNT, r12
        say     "    timer 1 once at "
        say_dec r12
        test    ebx, HV_STIMER_DIRECT
        jz      6f

        say     " by interrupt "
        mov     eax, VECTOR_TIMER_DIRECT
        call    put_hex
        say     "\n"
5:      cli
        cmp     dword ptr [direct_interrupts], 0
        jne     7f
        sti
        hlt
        jmp     5b
7:      mov     rax, [direct_time]
        cmp     rax, r12
        fail_if b, "timer 1 fired too early"
        say     "    timer 1 fired at "
        call    put_dec
        say     "\n"
        jmp     8f

6:      say     " by message\n"
        call    wait_timer_message
        cmp     dword ptr [rsi + TIMER_INDEX], 1
        fail_if ne, "timer message of another timer"
        call    print_tick
8:      inc     dword ptr [timer_interrupts]
        rdmsr64 HV_X64_MSR_STIMER1_CONFIG
        test    eax, HV_STIMER_ENABLE
        fail_if nz, "timer 1 is still enabled"
        rdmsr64 HV_X64_MSR_TIME_REF_COUNT
        sub     rax, [timer_start]
        cmp     rax, TIMER_DELAY
        fail_if b, "reference time did not advance"
        say     "    timers took "
        call    put_dec
        say     " units of 100 ns\n"
        ret

# RSI = the next timer message.
wait_timer_message:
1:      cli
        mov     edi, 3
        call    take_message
        jnz     2f
        sti
        hlt
        jmp     1b
2:      mov     eax, [rsi + MSG_TYPE]
        cmp     eax, HvMessageTimerExpired
        fail_if ne, "unexpected message on SINT3"
        ret

# RSI: a timer message. Delivery is never before expiration, and never before the one we saw last.
print_tick:
        mov     rax, [rsi + TIMER_DELIVERY]
        cmp     rax, [rsi + TIMER_EXPIRATION]
        fail_if b, "timer delivered before it was due"
        cmp     rax, [last_delivery]
        fail_if b, "time ran backwards"
        mov     [last_delivery], rax
        say     "    timer "
        say_dec32 [rsi+TIMER_INDEX]
        say     " due "
        say_dec [rsi+TIMER_EXPIRATION]
        say     " delivered "
        say_dec [rsi+TIMER_DELIVERY]
        say     "\n"
        ret

        .pushsection .bss
        .balign 8
timer_start:    .skip 8
last_delivery:  .skip 8
timer_interrupts: .skip 8
        .popsection
