"""Numbers and layouts of the interrupt controller: TLFS chapters "Virtual Interrupt Control", "Timers", "SynIC".

Clause numbers in this room are those of the ABI digest (9.x SynIC, 9.7 timers, 10 APIC, 13 choices where sources
disagree). Every file of the room and the irqchip module read it. No function and no state may live here.
"""
from hvcore._native.base.types cimport u8, u16, u32, u64


cdef enum SyntheticMsr:                 # digest 2; one instance per virtual processor
    MSR_EOI = 0x40000070                # write-only
    MSR_ICR = 0x40000071                # [63:32] ICR high, [31:0] ICR low
    MSR_TPR = 0x40000072                # [7:0], the rest must be zero
    MSR_SCONTROL = 0x40000080
    MSR_SVERSION = 0x40000081           # read-only
    MSR_SIEFP = 0x40000082
    MSR_SIMP = 0x40000083
    MSR_EOM = 0x40000084                # reads 0
    MSR_SINT0 = 0x40000090
    MSR_SINT15 = 0x4000009F
    MSR_STIMER0_CONFIG = 0x400000B0     # CONFIG even, COUNT odd, four pairs
    MSR_STIMER3_COUNT = 0x400000B7


cdef enum MsrResult:                    # what irq_read_msr and irq_write_msr answer
    DONE = 0
    GENERAL_PROTECTION = 1
    NOT_MINE = 2                        # another register, or an ICR whose send is the caller's
    PAGES_CHANGED = 3                   # done, and the caller must move the SIM or SIEF overlay


cdef enum SynicBits:                    # digest 2 and 9.4
    SYNIC_VERSION = 1
    SYNIC_ENABLE = 1                    # b0 of SCONTROL, SIMP and SIEFP
    SINT_VECTOR = 0xFF
    SINT_MASKED = 1 << 16               # also the reset value: masked, vector 0
    SINT_AUTO_EOI = 1 << 17
    SINT_POLLING = 1 << 18


cdef enum SynicLimits:
    SINT_COUNT = 16
    SLOT_SIZE_BYTES = 256               # a SINT's share of the SIM page, and of the SIEF page
    SYNIC_PAGE_SIZE_BYTES = 4096
    EVENT_FLAG_COUNT = 2048             # per SINT, 9.3
    PAYLOAD_SIZE_BYTES = 240
    PORT_BUFFER_COUNT = 16              # 9.2 step 1
    SYNTHETIC_TIMER_COUNT = 4


cdef enum MessageNumbers:               # 8.3 and 9.1
    MESSAGE_NONE = 0                    # the slot is empty
    MESSAGE_TIMER_EXPIRED = 0x80000010
    MESSAGE_FLAGS_OFFSET = 5            # in the slot
    MESSAGE_PENDING = 1                 # b0 of the flags byte


cdef enum TimerConfig:                  # 9.7
    TIMER_ENABLE = 1
    TIMER_PERIODIC = 1 << 1
    TIMER_LAZY = 1 << 2
    TIMER_AUTO_ENABLE = 1 << 3
    TIMER_VECTOR_SHIFT = 4              # [11:4], direct mode only
    TIMER_DIRECT = 1 << 12
    TIMER_SINT_SHIFT = 16               # [19:16], message mode only
    TIMER_DEFINED = 0xF1FFF             # every other bit must be zero
    TIMER_CATCH_UP = 4                  # 13 #40: periods made up for when late, older ones are skipped


cdef enum ApicNumbers:                  # SDM 3A 11.5.2; the rest is in apic_spec.pxd
    LOWEST_VECTOR = 16                  # 0-15 are illegal for fixed interrupts


cdef struct message_t:                  # HV_MESSAGE, a slot of the SIM page (9.1)
    u32 message_type
    u8 payload_size
    u8 flags
    u16 reserved
    u64 sender
    u8[240] payload


cdef struct timer_payload_t:            # payload of MESSAGE_TIMER_EXPIRED (8.4)
    u32 timer
    u32 reserved
    u64 expiration                      # nominal
    u64 delivery                        # when the message was placed into its slot
