"""The state of one virtual processor: one flat struct, hot fields first, no pointer into Python.

`registers` comes first: decoded operations name a register by its byte offset from the start of the struct, so one
byte serves RAX, EAX, AX, AL and AH alike. Behind the sixteen architectural ones lie slots that make every memory
operand one sum: RIP of the running block, a constant zero, and a computed address.
"""
from hvcore._native.base.types cimport i32, i64, u16, u32, u64, u8, xmm_t
from hvcore._native.cpu.spec cimport SEGMENT_COUNT
from hvcore._native.cpu.tap cimport tap_t
from hvcore._native.hv.hypercall cimport NATIVE_CALLS
from hvcore._native.hv.state cimport partition_t
from hvcore._native.irq.state cimport irq_t
from hvcore._native.mem.format cimport PagingMode
from hvcore._native.mem.ram cimport ram_t
from hvcore._native.mem.request cimport walk_request_t
from hvcore._native.mem.second_level cimport space_t
from hvcore._native.mem.tlb cimport tlb_context_t, tlb_t

cdef enum:
    RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15
    SLOT_RIP                # GVA of the first instruction of the running block
    SLOT_ZERO
    SLOT_ADDRESS            # an address that a preparing operation has computed
    SLOT_COUNT = 20
    DIRECT_SIZE = 8192
    ANSWERS = 16            # reads of device memory that one instruction may make
    # Among op_t.prefixes, in bits of prefixes that decoding has used up:
    OP_LOOKUP = 1           # one TLB look-up for the memory operand
    OP_STACK_LOOKUP = 4     # one for the stack
    OP_STACK = 128          # the memory operand is based on RSP or RBP: a bad address is #SS


ctypedef int (*handler_t)(vp_t* vp, const op_t* op) noexcept nogil


# One decoded operation. A block is an array of them; each handler jumps to the next one's.
cdef struct op_t:
    handler_t run
    i64 immediate           # immediate; for a branch: target relative to the block's first instruction
    i32 displacement        # of memory; for RIP-relative operands: relative to the block's first instruction;
                            # for a branch: of the instruction behind it
    u16 offset              # of the instruction from the block's first one
    u8 position             # how many instructions of the block come before this one
    u8 reg                  # byte offsets of registers
    u8 rm
    u8 third                # of a string: the segment of its source, FS, GS or REGISTER_NONE
    u8 base
    u8 index
    u8 scale
    u8 length               # of the instruction
    u8 prefixes             # Prefix bits of the decoder, and OP_STACK


# The fast way from an SPA to its block.
cdef struct direct_t:
    u64 spa
    block_t* block


# What follows the last operation of a block that ends in a direct branch: where it goes, once known.
cdef struct link_t:
    block_t* taken
    block_t* fallen


cdef struct block_t:
    block_t* next_in_bucket
    block_t* next_in_frame
    u64 spa                 # of the first instruction
    i32 count               # instructions
    i32 accesses            # data look-ups if all of them run
    u32 operation_count
    u32 bytes               # of code
    op_t[0] operations


cdef struct segment_t:
    u64 base
    u32 limit
    u16 selector
    u16 attributes          # as in the TLFS: type, S, DPL, P, AVL, L, D/B, G


cdef struct table_t:
    u64 base
    u16 limit


cdef struct fault_t:
    u8 vector
    bint has_error_code
    int software            # a SOFTWARE_ of spec.pxd; 0: no instruction asked for it
    u8 length               # of the instruction, for software interrupts: RIP to push
    u32 error_code
    u64 address             # CR2 of a page fault


# Facts of an exit; which ones mean something depends on the reason. Port, MSR, CPUID and hypercall instructions have
# retired when they exit: `rip` is where they were, and an answer only sets registers. A memory read is pending: it
# runs again once `value` is there.
cdef struct exit_t:
    u32 reason
    u8 access               # RIGHT_ bits: read, write, execute
    u8 size_bytes
    u8 length               # of the instruction
    bint answered           # `value` answers the read at `port` when the instruction runs again
    bint gva_valid
    bint retired            # memory: a write that has gone through the instruction
    bint rights             # memory: mapped, but the rights forbid the access
    bint repeated           # REP prefix
    bint string
    u16 port
    u32 index               # MSR index, CPUID leaf, exception vector
    u32 error_code
    u64 rip
    u64 gva
    u64 gpa
    u64 value


# What a read of device memory was answered with (cpu/answers.pxd).
cdef struct device_answer_t:
    u64 gpa
    u32 size_bytes
    u8[64] data


cdef struct counters_t:
    u64 instructions
    u64 tlb_lookups
    u64 tlb_misses
    u64 guest_references    # entries of guest page tables read by walks
    u64 second_level_references
    u64 exceptions
    u64 interrupts
    u64 unimplemented       # #UD for instructions that hvcore decodes but does not execute
    u64 invalid             # #UD for bytes that are no instruction
    u64 halts
    u64 exits


# What VPs of one machine share. The functions are those that handlers call rarely; a room may not reach up into
# the module that holds them, so the engine puts them here.
cdef struct machine_t:
    ram_t* ram
    void* (*read_slow)(vp_t* vp, u64 gva, u32 size_bytes, u8 stack) noexcept nogil
    void* (*write_slow)(vp_t* vp, u64 gva, u32 size_bytes, u8 stack, bint update) noexcept nogil
    int (*commit)(vp_t* vp) noexcept nogil
    int (*unwind)(vp_t* vp, const op_t* op, bint done, int stop) noexcept nogil     # returns `stop`
    int (*enter_found)(vp_t* vp) noexcept nogil
    int (*enter_linked)(vp_t* vp, const op_t* link, bint fallen) noexcept nogil
    void (*note)(vp_t* vp, u64 gva, u32 size_bytes, u8 kind) noexcept nogil     # only with a tap
    direct_t* direct        # blocks by the low bits of their SPA
    # Ports of the partition's interrupt platform, by an instruction that starts at `now`.
    u64 (*read_port)(vp_t* vp, u16 port, u32 size_bytes, u64 now) noexcept nogil
    void (*write_port)(vp_t* vp, u16 port, u32 size_bytes, u64 value, u64 now) noexcept nogil
    int (*hypercall)(vp_t* vp, u64 now) noexcept nogil                          # a CallOutcome of sem/hypercall.pxd
    int (*read_msr)(vp_t* vp, u32 index, u64 now) noexcept nogil                # MsrOutcomes of sem/msr.pxd
    int (*write_msr)(vp_t* vp, u32 index, u64 value, u64 now) noexcept nogil


cdef struct vp_t:
    u64[SLOT_COUNT] registers
    i64 flag_result         # lazy flags: see flags.pxd
    u64 flag_aux
    i64 remaining           # instructions that may still run
    u64 data_lookups        # TLB look-ups for data
    int stop                # why an access or a block could not be had: a Stop
    block_t* block          # the running one
    tlb_t* tlb              # for explicit accesses now; an empty one while a tap is there
    direct_t* direct        # of the machine
    machine_t* machine
    u64 code_gva            # page that instructions come from, and where it lies
    u64 code_spa
    u64 rflags_system       # the bits of FLAGS_SYSTEM
    u32 mxcsr
    u8 cpl
    u8 sse_vector           # what an SSE instruction raises before it runs: #UD, #NM, or 0
    xmm_t[16] xmm

    u64 slice_start         # virtual time when this slice began ...
    u64 slice_end           # ... and when `remaining` falls to zero
    i64 withheld            # ticks of the slice that are kept back until an event nearer than its end
    u64 idle                # ticks spent halted: time that is not instructions
    const op_t* accessing   # the last operation that needed the slow way to memory
    u64[8] bounce           # an access that no host pointer can serve: split, watched, or device memory
    u64 bounce_gva
    u64[2] bounce_spa       # where its (one or two) parts belong; all ones: nowhere, it is an exit
    u64 bounce_gpa
    u32 bounce_size
    u32 bounce_first        # bytes of it in the first part
    u64[16] kept_registers  # as they were before a write that may turn out to be an intercept ...
    i64 kept_flag_result
    u64 kept_flag_aux
    u8 retired_length       # ... and how far RIP has moved since
    u64[8] written          # what a write to device memory stored
    u32[4] cpuid            # result of the last CPUID
    u64 carried             # a value on its way from one bounced place to another

    segment_t[SEGMENT_COUNT] segments
    table_t gdtr
    table_t idtr
    u64 cr0
    u64 cr2
    u64 cr3
    u64 cr4
    u64 efer
    u32 pkru
    u32 pkrs
    PagingMode paging       # these registers as walks want them: cpu/translation.pxd
    walk_request_t request
    bint implicit           # an access of the processor itself is being made
    u64[8] dr
    u64 star
    u64 lstar
    u64 cstar
    u64 sfmask
    u64 kernel_gs_base
    u64 sysenter_cs
    u64 sysenter_esp
    u64 sysenter_eip
    u64 pat
    u64 tsc_adjust
    u64 tsc_aux

    u16 fcw                 # x87 state that FXSAVE carries; no x87 instruction runs yet
    u16 fsw
    u8 ftw
    u16 fop
    u64 fip
    u64 fdp
    xmm_t[8] st

    bint explicit_suspend
    bint intercept_suspend
    bint startup_suspend
    bint halted
    bint shutdown           # after a triple fault, until reset
    bint exit_waits         # an exit that its caller has not fetched yet
    bint external_pending   # ExtINT asserted by the parent ...
    bint external_acknowledged      # ... taken by the processor, not yet cleared
    u8 external_vector
    u32 processor           # logical processor that it runs on, or ran on last
    bint shadow             # one instruction runs before interrupts are looked at
    bint nmi_masked
    bint exception_passed   # the parent has seen the exception at this instruction and lets it through
    bint answer_pending     # the caller owes an answer to the last exit
    u64 pending_interruption
    u64 notifications       # DeliverabilityNotifications (hyperv-abi 7.4): what a parent waits for
    fault_t fault
    exit_t exit
    counters_t counters
    space_t* space
    u64 space_generation    # of the translations in the TLBs
    partition_t* partition
    irq_t* irq
    tlb_t* tlbs             # of the current PCID, by mode (mem/tlb.pxd)
    tlb_context_t* contexts
    u64 context_clock
    tlb_t* own_tlb          # of `tlbs`, that for explicit accesses now
    tlb_t* empty_tlb        # never filled
    tap_t* tap              # NULL: nobody listens
    u32 index
    u64 runtime             # ticks
    bint tlb_flush_inhibit  # InterceptSuspend.b1: others that want to flush this TLB wait
    u64 flush_waits         # the partition's flush_generation when a flush of this one had to wait; 0: it does not
    u64 call_page           # GPA page that the last native hypercall took its input from, plus one; where it lies; ...
    u64 call_spa
    u64 call_generation     # ... as long as the second level is what it was then
    u64[NATIVE_CALLS] native_calls      # finished hypercalls by code, of those that native code executes
    u64 billed              # ticks of `runtime` that `share` has in it
    u64 share               # runtime by weight: who has the least goes first
    u64 rests_until         # by its cap it runs no earlier
    u32 weight              # HV_PARTITION_PROPERTY CPU_WEIGHT of its partition
    u32 cap                 # HV_PARTITION_PROPERTY CPU_CAP of its partition
    u32 slot                # its place in the scheduler's lists
    bint rested             # it could not run for a while
    bint placed             # `processor` is its own until it halts or the quantum ends
    u64[32] processors      # logical processors that it may run on
    u64 stall               # ticks that its last instruction still takes: no other may run before they are over
    bint guest_idle         # halted by a read of GUEST_IDLE: any interrupt goes on, even with interrupts off
    device_answer_t[16] answers
    u32 answer_count
    u32 answers_taken       # by the instruction that runs again
    u64 answers_rip         # whose they are ...
    u64 answers_time        # ... and when it began
    u64 device_reads_lost   # of an instruction with more reads than there is room for answers
