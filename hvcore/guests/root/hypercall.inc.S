# Calling the hypervisor: the hypercall page, the macros that fill the input page, and the one routine through
# which every call of the root goes. Like Linux's mshv driver it answers INSUFFICIENT_MEMORY by depositing pages
# into the pool that ran dry and going on where the call stopped.

RETRY_PAGES     = 16                    # pages deposited per INSUFFICIENT_MEMORY
RETRY_LIMIT     = 64                    # then believe the hypervisor

# A new input block: all zero, so steps write only the fields they care about.
.macro  begin_input
        call    clear_input
.endm

.macro  in64    offset:req, value:req
        mov     rax, \value
        mov     [hv_input + \offset], rax
.endm

.macro  in32    offset:req, value:req
        mov     eax, \value
        mov     [hv_input + \offset], eax
.endm

.macro  in16    offset:req, value:req
        mov     ax, \value
        mov     [hv_input + \offset], ax
.endm

# A call with its parameters in hv_input and its results in hv_output; reps for the rep calls; pool names the
# partition that pays, if it may be topped up. EAX = status, [reps_done] = elements completed.
.macro  hvcall  code:req, reps=0, pool=0
        mov     ecx, \code
        mov     esi, OFFSET hv_input
        mov     r8d, OFFSET hv_output
        mov     r9d, \reps
        mov     rdi, \pool
        call    hypercall
.endm

# A fast call: up to 16 bytes of input in two registers.
.macro  hvcall_fast code:req, first:req, second=0, pool=0
        mov     ecx, \code | HV_HYPERCALL_FAST
        mov     rsi, \first
        mov     r8, \second
        xor     r9d, r9d
        mov     rdi, \pool
        call    hypercall
.endm

# Checks. What happens when one fails stands apart from the code that works, and registers are kept.
.macro  failure label:req, step:vararg
        .pushsection .text.failures, "ax", @progbits
\label: mov     esi, OFFSET .Lstep\@
        jmp     fail
        .popsection
        .pushsection .rodata.str1.1, "aMS", @progbits, 1
.Lstep\@:
        .asciz  \step
        .popsection
.endm

# Stop the run on a condition code that the instruction before has set; EAX is printed.
.macro  fail_if condition:req, step:vararg
        j\condition .Lfailure\@
        failure .Lfailure\@, \step
.endm

# Stop the run unless EAX is the expected status.
.macro  must_be status:req, step:vararg
        cmp     eax, \status
        jne     .Lfailure\@
        failure .Lfailure\@, \step
.endm

.macro  must_succeed step:vararg
        must_be HV_STATUS_SUCCESS, \step
.endm

# Stop the run; EAX is printed.
.macro  fail_now step:vararg
        jmp     .Lfailure\@
        failure .Lfailure\@, \step
.endm

.macro  wrmsr64 msr:req, value:req
        mov     rax, \value
        mov     rdx, rax
        shr     rdx, 32
        mov     ecx, \msr
        wrmsr
.endm

# RAX = the MSR.
.macro  rdmsr64 msr:req
        mov     ecx, \msr
        rdmsr
        shl     rdx, 32
        or      rax, rdx
.endm

clear_input:
        push    rdi
        mov     edi, OFFSET hv_input
        mov     ecx, HV_PAGE_SIZE / 8
        xor     eax, eax
        rep stosq
        pop     rdi
        ret

# ECX code and fast bit, RSI input, R8 output, R9D reps, RDI pool that may be topped up (0: none).
# Returns the status in EAX and the completed reps in [reps_done]; keeps RBX, RBP and R12-R15. A rep call that
# comes back early is resumed at the first element that is not done.
hypercall:
        push    rbx
        push    rbp
        push    r12
        push    r13
        push    r14
        push    r15
        push    RETRY_LIMIT
        mov     r12d, ecx
        mov     r13, rsi
        mov     r14, r8
        mov     r15d, r9d
        mov     rbp, rdi
        xor     ebx, ebx                # elements done so far = rep start index
.Lcall: mov     rcx, rbx
        shl     rcx, 16
        or      rcx, r15
        shl     rcx, 32
        or      rcx, r12
        mov     rdx, r13
        mov     r8, r14
        call    hypercall_page
        mov     rbx, rax
        shr     rbx, 32
        and     ebx, HV_HYPERCALL_REP_MASK
        movzx   eax, ax
        cmp     eax, HV_STATUS_INSUFFICIENT_MEMORY
        je      .Lpoor
        test    eax, eax
        jnz     .Ldone
        cmp     ebx, r15d
        jb      .Lcall
.Ldone: mov     [reps_done], ebx
        pop     rcx
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbp
        pop     rbx
        ret
.Lpoor: test    rbp, rbp
        jz      .Ldone
        dec     qword ptr [rsp]
        jz      .Ldone
        mov     rdi, rbp
        mov     esi, RETRY_PAGES
        call    deposit_pages
        jmp     .Lcall

        .pushsection .bss
        .balign HV_PAGE_SIZE
hypercall_page: .skip HV_PAGE_SIZE      # the hypervisor lays its own page over this one
hv_input:       .skip HV_PAGE_SIZE
hv_output:      .skip HV_PAGE_SIZE
reps_done:      .skip 8
        .popsection
