# The root's interrupt table and the handlers.
# Handlers only move things out of the way: a SynIC message is copied into a ring, an event flag into a counter,
# and the main program prints later. Any exception or unknown vector stops the run.

RINGS           = 4                     # one per SINT that carries messages
RING_SLOTS      = 16                    # messages per ring; a power of two

.macro  enter_handler
        push    rax
        push    rcx
        push    rdx
        push    rbx
        push    rsi
        push    rdi
        push    r8
        cld
.endm

.macro  leave_handler
        pop     r8
        pop     rdi
        pop     rsi
        pop     rbx
        pop     rdx
        pop     rcx
        pop     rax
        iretq
.endm

.macro  end_of_interrupt
        wrmsr64 HV_X64_MSR_EOI, 0
.endm

.macro  gate    vector:req, handler:req
        mov     ecx, \vector
        mov     eax, OFFSET \handler
        call    set_gate
.endm

# --- setting up ------------------------------------------------------------------------------------------------

interrupts_init:
        xor     ecx, ecx
1:      mov     eax, OFFSET unexpected_interrupt
        cmp     ecx, 32
        jae     2f
        mov     eax, ecx
        shl     eax, 4
        add     eax, OFFSET exception_stubs
2:      call    set_gate
        inc     ecx
        cmp     ecx, 256
        jb      1b
        gate    VECTOR_INTERCEPT, on_intercept
        gate    VECTOR_MESSAGE, on_message
        gate    VECTOR_EVENT, on_event
        gate    VECTOR_TIMER_MESSAGE, on_timer_message
        gate    VECTOR_TIMER_DIRECT, on_timer_direct
        gate    VECTOR_SPURIOUS, on_spurious
        lidt    [idt_pointer]
        ret

# ECX vector, EAX handler: a present 64-bit interrupt gate on the loader's code segment.
set_gate:
        mov     edi, ecx
        shl     edi, 4
        add     edi, OFFSET idt
        mov     [rdi + 0], ax
        mov     word ptr [rdi + 2], 0x08
        mov     word ptr [rdi + 4], 0x8E00
        shr     eax, 16
        mov     [rdi + 6], ax
        mov     qword ptr [rdi + 8], 0
        ret

# --- handlers --------------------------------------------------------------------------------------------------

on_intercept:
        enter_handler
        inc     dword ptr [interrupts + 0*4]
        xor     edi, edi
        call    drain_slot
        end_of_interrupt
        leave_handler

on_message:                             # auto-EOI where the hypervisor offers it
        enter_handler
        inc     dword ptr [interrupts + 1*4]
        mov     edi, 1
        call    drain_slot
        cmp     byte ptr [message_auto_eoi], 0
        jne     1f
        end_of_interrupt
1:      leave_handler

on_event:
        enter_handler
        inc     dword ptr [interrupts + 2*4]
        call    drain_events
        end_of_interrupt
        leave_handler

on_timer_message:
        enter_handler
        inc     dword ptr [interrupts + 3*4]
        mov     edi, 3
        call    drain_slot
        end_of_interrupt
        leave_handler

on_timer_direct:
        enter_handler
        rdmsr64 HV_X64_MSR_TIME_REF_COUNT
        mov     [direct_time], rax
        inc     dword ptr [direct_interrupts]
        end_of_interrupt
        leave_handler

on_spurious:                            # by rule a spurious interrupt takes no EOI
        iretq

# EDI: SINT. Copies its message slot into ring EDI, frees the slot and asks for the next one if it waits.
# The order is the TLFS's: free the slot, fence, and only then look whether a message is pending.
drain_slot:
        mov     ebx, edi
        shl     ebx, 8
        add     ebx, OFFSET simp_page
        cmp     dword ptr [rbx + MSG_TYPE], 0
        je      2f
        mov     eax, [ring_head + rdi*4]
        mov     edx, eax
        sub     edx, [ring_tail + rdi*4]
        cmp     edx, RING_SLOTS
        jae     3f
        mov     r8d, edi
        mov     edx, eax
        and     edx, RING_SLOTS - 1
        mov     ecx, edi
        shl     ecx, 4                  # RING_SLOTS messages per ring
        add     edx, ecx
        shl     edx, 8                  # HV_MESSAGE_SIZE bytes per message
        lea     edi, [rdx + rings]
        mov     esi, ebx
        mov     ecx, HV_MESSAGE_SIZE / 8
        rep movsq
        inc     dword ptr [ring_head + r8*4]
1:      mov     dword ptr [rbx + MSG_TYPE], 0
        lock or dword ptr [rsp], 0      # a full fence without SSE2's MFENCE
        test    byte ptr [rbx + MSG_FLAGS], 1
        jz      2f
        wrmsr64 HV_X64_MSR_EOM, 0
2:      ret
3:      inc     dword ptr [ring_overflows]
        jmp     1b

# Takes every set flag of SINT2's event page: counts it and remembers the last.
drain_events:
        xor     ecx, ecx
1:      bsf     rax, [siefp_page + 2*256 + rcx*8]
        jnz     2f
        inc     ecx
        cmp     ecx, 2048 / 64
        jb      1b
        ret
2:      lock btr qword ptr [siefp_page + 2*256 + rcx*8], rax
        mov     edx, ecx
        shl     edx, 6
        add     edx, eax
        mov     [last_event_flag], edx
        inc     dword ptr [events_seen]
        jmp     1b

# EDI: ring. RSI = its oldest message, which the caller may read until the next call; ZF = 1 if there is none.
take_message:
        mov     eax, [ring_tail + rdi*4]
        cmp     eax, [ring_head + rdi*4]
        je      1f
        mov     esi, edi
        shl     esi, 4
        mov     ecx, eax
        and     ecx, RING_SLOTS - 1
        add     esi, ecx
        shl     esi, 8
        add     esi, OFFSET rings
        push    rdi
        push    rsi
        mov     edi, OFFSET current_message     # a copy: the ring slot is free from here on
        mov     ecx, HV_MESSAGE_SIZE / 8
        rep movsq
        pop     rsi
        pop     rdi
        inc     dword ptr [ring_tail + rdi*4]
        mov     esi, OFFSET current_message
        test    esi, esi
1:      ret

# --- what must not happen --------------------------------------------------------------------------------------

# 32 stubs of 16 bytes each. Vectors 8, 10-14, 17, 21, 29 and 30 push an error code themselves.
        .balign 16
exception_stubs:
        .set    vector, 0
        .rept   32
        .balign 16
        .if     !((1 << vector) & 0x60227D00)
        push    0
        .endif
        push    vector
        jmp     exception
        .set    vector, vector + 1
        .endr

exception:
        call    fresh_line
        say     "exception "
        say_dec "[rsp + 8]"
        say     ", error code "
        say_hex "[rsp + 16]"
        say     ", rip "
        say_hex "[rsp + 24]"
        say     ", cr2 "
        mov     rax, cr2
        call    put_hex
        say     "\n"
        mov     eax, [rsp]
        or      eax, 0xE000
        fail_now "exception"

unexpected_interrupt:
        mov     eax, 0xE0FF
        fail_now "unexpected interrupt"

        .pushsection .rodata
        .balign 8
        .word   0, 0, 0
idt_pointer:
        .word   256*16 - 1
        .quad   idt
        .popsection

        .pushsection .bss
        .balign HV_PAGE_SIZE
idt:            .skip 256 * 16
simp_page:      .skip HV_PAGE_SIZE
siefp_page:     .skip HV_PAGE_SIZE
rings:          .skip RINGS * RING_SLOTS * HV_MESSAGE_SIZE
current_message: .skip HV_MESSAGE_SIZE
ring_head:      .skip RINGS * 4         # messages ever put in
ring_tail:      .skip RINGS * 4         # messages ever taken out
interrupts:     .skip RINGS * 4         # per SINT
ring_overflows: .skip 4
events_seen:    .skip 4
last_event_flag: .skip 4
direct_interrupts: .skip 4
direct_time:    .skip 8
message_auto_eoi: .skip 8
        .popsection
