# Steps 6 and 7: start the child, then sleep until interrupts bring its messages, events and intercepts. The root
# completes each intercepted instruction and lets the child go on.

run_child:
        say     "[6] child started\n"
        xor     edx, edx
        call    set_explicit_suspend
        say     "[7] what the child sends:\n"

# Interrupts stay off while we look, so nothing can arrive between the last look and HLT: STI takes effect only
# after the instruction that follows it.
.Llook: cli
        mov     edi, 1                          # messages before intercepts: the child sent them earlier
        call    take_message
        jz      1f
        call    print_message
        jmp     .Llook
1:      mov     eax, [events_seen]
        cmp     eax, [events_printed]
        je      2f
        call    print_event
        jmp     .Llook
2:      xor     edi, edi
        call    take_message
        jz      3f
        call    handle_intercept
        jmp     .Llook
3:      cmp     byte ptr [child_done], 0
        je      4f
        cmp     dword ptr [messages_seen], CHILD_MESSAGES
        jb      4f
        cmp     dword ptr [events_seen], 1
        jae     5f
4:      sti
        hlt
        jmp     .Llook
5:      mov     eax, [ring_overflows]
        test    eax, eax
        fail_if nz, "a message ring overflowed"
        ret

# EDX: 1 stops the child's processor, 0 lets it run.
set_explicit_suspend:
        push    rdx
        begin_input
        pop     rdx
        in64    0, [child_id]
        in32    16, HvRegisterExplicitSuspend
        in64    32, rdx
        hvcall  HvCallSetVpRegisters, reps=1
        must_succeed "SetVpRegisters (ExplicitSuspend)"
        ret

# RSI: a message of the child on SINT1.
print_message:
        mov     eax, [rsi + MSG_SENDER]
        mov     rbx, rsi
        cmp     eax, MESSAGE_PORT
        fail_if ne, "message from an unknown port"
        inc     dword ptr [messages_seen]
        say     "    message "
        say_dec32 [messages_seen]
        say     " (type "
        say_dec32 [rbx+MSG_TYPE]
        say     "): "
        lea     rsi, [rbx + MSG_PAYLOAD]
        movzx   ecx, byte ptr [rbx + MSG_PAYLOAD_SIZE]
        call    put_chars
        say     "\n"
        ret

print_event:
        mov     [events_printed], eax
        mov     eax, [last_event_flag]
        say     "    event flag "
        call    put_dec
        say     "\n"
        cmp     eax, EVENT_BASE_FLAG + CHILD_EVENT_FLAG
        fail_if ne, "wrong event flag"
        ret

# RSI: a message on SINT0. Only our I/O port can be the cause; anything else is a child that went astray.
handle_intercept:
        mov     rbx, rsi
        mov     eax, [rbx + MSG_TYPE]
        cmp     eax, HvMessageTypeX64IoPortIntercept
        jne     .Lastray
        mov     rax, [rbx + MSG_SENDER]
        cmp     rax, [child_id]
        fail_if ne, "intercept from an unknown partition"
        movzx   eax, word ptr [rbx + IO_PORT]
        cmp     eax, CHILD_IO_PORT
        fail_if ne, "intercept of an unknown I/O port"
        inc     dword ptr [intercepts_seen]

        movzx   r13d, byte ptr [rbx + IO_ACCESS_INFO]
        and     r13d, 7                         # 1, 2 or 4 bytes
        mov     r12, [rbx + IO_RAX]
        lea     ecx, [r13*8]                    # in bits
        mov     r14, -1
        shl     r14, cl
        not     r14                             # mask of the bytes transferred
        cmp     byte ptr [rbx + INTERCEPT_ACCESS], 0
        je      .Lread

        and     r12, r14                        # OUT: the value is in AL, AX or EAX
        say     "    intercept: OUT of "
        say_dec rcx
        say     " bits, value "
        say_hex r12
        call    say_rip
        mov     eax, r12d
        and     eax, 0xF0000000
        cmp     eax, CHILD_IO_FAILURE
        mov     eax, r12d
        fail_if e, "the child reports"
        cmp     r12d, CHILD_IO_DONE
        je      .Lall_sent
        cmp     r12d, CHILD_IO_HELLO
        fail_if ne, "OUT: unexpected value"
        call    assert_child_interrupt
        jmp     .Lcomplete
.Lall_sent:
        mov     byte ptr [child_done], 1
        jmp     .Lcomplete

.Lread: mov     eax, CHILD_IO_ANSWER            # IN: EAX is zero-extended, AL and AX are merged into RAX
        and     rax, r14
        cmp     r13d, 4
        je      1f
        not     r14
        and     r12, r14
        or      rax, r12
1:      mov     r12, rax
        say     "    intercept: IN of "
        say_dec rcx
        say     " bits, RAX becomes "
        say_hex r12
        call    say_rip

# Put RAX and the next instruction's address back and let the processor go; InterceptSuspend must come last.
.Lcomplete:
        begin_input
        in64    0, [child_id]
        in32    8, [rbx+INTERCEPT_VP]
        in32    16, HvX64RegisterRip
        movzx   ecx, byte ptr [rbx + INTERCEPT_LENGTH]
        and     ecx, 0xF
        mov     eax, ecx
        fail_if z, "intercept without an instruction length"
        add     rcx, [rbx + INTERCEPT_RIP]
        in64    32, rcx
        mov     r13d, 1
        cmp     byte ptr [rbx + INTERCEPT_ACCESS], 0
        jne     1f
        in32    48, HvX64RegisterRax
        in64    64, r12
        mov     r13d, 2
1:      mov     eax, r13d
        shl     eax, 5
        mov     dword ptr [hv_input + 16 + rax], HvRegisterInterceptSuspend
        inc     r13d
        hvcall  HvCallSetVpRegisters, reps=r13d
        must_succeed "SetVpRegisters (complete the intercept)"
        cmp     [reps_done], r13d
        fail_if ne, "SetVpRegisters: reps completed"
        ret

.Lastray:
        say     "    the child went astray: message type "
        say_hex rax
        call    say_rip
        fail_now "unexpected intercept"

# RBX: an intercept message.
say_rip:
        say     ", at "
        say_hex [rbx+INTERCEPT_RIP]
        say     "\n"
        ret

# One edge-triggered interrupt into the child. It has its interrupts off, so this one waits for its STI.
assert_child_interrupt:
        begin_input
        in64    0, [child_id]
        in32    8, HvX64InterruptTypeFixed
        in64    16, 0                           # the APIC id of processor 0
        in32    24, CHILD_VECTOR
        hvcall  HvCallAssertVirtualInterrupt, pool=[child_id]
        must_succeed "AssertVirtualInterrupt"
        say     "    interrupt "
        mov     eax, CHILD_VECTOR
        call    put_hex
        say     " asserted\n"
        ret

        .pushsection .bss
        .balign 8
messages_seen:  .skip 4
events_printed: .skip 4
intercepts_seen: .skip 4
child_done:     .skip 4
        .popsection
