# The root's spare pages, and the hypervisor memory pools they go into.
# Deposited pages vanish from the root's address space until they are withdrawn, so they come from an arena that
# nothing else touches; a stack of page numbers says which of them are at home.

ARENA_PAGES     = 2048                  # 8 MiB
MAX_DEPOSIT     = 511                   # list elements that fit in the input page behind the header
WITHDRAW_REPS   = 256

memory_init:
        mov     eax, OFFSET arena
        shr     eax, 12
        xor     ecx, ecx
1:      mov     [page_stack + rcx*8], rax
        inc     eax
        inc     ecx
        cmp     ecx, ARENA_PAGES
        jb      1b
        mov     [pages_home], ecx
        ret

# RDI partition, ESI pages: move that many pages into the partition's pool. Has its own input page, because it is
# called in the middle of other hypercalls. Stops the run if the hypervisor refuses.
deposit_pages:
        push    rbx
        mov     ebx, esi
        mov     eax, esi
        cmp     ebx, MAX_DEPOSIT
        fail_if a, "deposit of too many pages"
        cmp     [pages_home], ebx
        fail_if b, "root is out of spare pages"
        mov     [deposit_input], rdi
        xor     ecx, ecx
        mov     edx, [pages_home]
1:      dec     edx
        mov     rax, [page_stack + rdx*8]
        mov     [deposit_input + 8 + rcx*8], rax
        inc     ecx
        cmp     ecx, ebx
        jb      1b
        mov     [pages_home], edx
        add     [pages_deposited], ebx
        mov     ecx, HvCallDepositMemory
        mov     esi, OFFSET deposit_input
        xor     r8d, r8d
        mov     r9d, ebx
        xor     edi, edi
        call    hypercall
        must_succeed "DepositMemory"
        cmp     [reps_done], ebx
        fail_if ne, "DepositMemory: reps completed"
        pop     rbx
        ret

# RDI partition: take every free page of its pool back; EAX = how many came. NO_RESOURCES is the normal end.
withdraw_all:
        push    rbx
        push    r12
        push    r13
        mov     r12, rdi
        xor     r13d, r13d
.Lmore: begin_input
        in64    0, r12                  # the proximity domain at 8 stays zero: any node
        hvcall  HvCallWithdrawMemory, reps=WITHDRAW_REPS
        mov     ebx, eax
        xor     ecx, ecx
1:      cmp     ecx, [reps_done]
        jae     2f
        mov     rdx, [hv_output + rcx*8]
        call    take_page_home
        inc     ecx
        jmp     1b
2:      add     r13d, ecx
        mov     eax, ebx
        cmp     eax, HV_STATUS_SUCCESS
        je      .Lmore
        must_be HV_STATUS_NO_RESOURCES, "WithdrawMemory"
        mov     eax, r13d
        pop     r13
        pop     r12
        pop     rbx
        ret

# RDX page number of a withdrawn page: it must be one of ours, and must come back zeroed.
take_page_home:
        mov     rax, rdx
        mov     esi, OFFSET arena
        shr     esi, 12
        sub     rax, rsi
        cmp     rax, ARENA_PAGES
        fail_if ae, "WithdrawMemory: a page that was never deposited"
        mov     rsi, rdx
        shl     rsi, 12
        mov     rax, [rsi]
        or      rax, [rsi + HV_PAGE_SIZE - 8]
        fail_if nz, "WithdrawMemory: page not zeroed"
        mov     eax, [pages_home]
        cmp     eax, ARENA_PAGES
        fail_if ae, "WithdrawMemory: more pages than were deposited"
        mov     [page_stack + rax*8], rdx
        inc     dword ptr [pages_home]
        ret

# RDI partition: RAX = free pages of its pool, RDX = pages in use.
memory_balance:
        begin_input
        in64    0, rdi
        hvcall  HvCallGetMemoryBalance
        must_succeed "GetMemoryBalance"
        mov     rax, [hv_output + 0]
        mov     rdx, [hv_output + 8]
        ret

# RDI partition: its pool in words.
say_balance:
        call    memory_balance
        say_dec rax
        say     " pages free, "
        say_dec rdx
        say     " in use\n"
        ret

        .pushsection .bss
        .balign HV_PAGE_SIZE
arena:          .skip ARENA_PAGES * HV_PAGE_SIZE
deposit_input:  .skip HV_PAGE_SIZE
page_stack:     .skip ARENA_PAGES * 8
pages_home:     .skip 8
pages_deposited: .skip 8
        .popsection
