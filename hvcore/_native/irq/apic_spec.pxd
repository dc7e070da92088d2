"""Numbers of the local APIC (SDM 3A chapter 11): registers, their bits, modes of delivery. No function, no state."""


cdef enum ApicBase:                     # IA32_APIC_BASE, 11.4.4 and 11.12.1
    BASE_RESET = 0xFEE00000
    BASE_PAGE_MASK = 0xFFFFFFFFFFFFF000
    BASE_BSP = 1 << 8
    BASE_X2APIC = 1 << 10
    BASE_ENABLE = 1 << 11


cdef enum ApicRegister:                 # offset in the page / 16, and MSR - 800h (11.4.1, 11.12.1.2)
    APIC_ID = 0x02
    APIC_VERSION = 0x03
    APIC_TPR = 0x08
    APIC_APR = 0x09
    APIC_PPR = 0x0A
    APIC_EOI = 0x0B
    APIC_REMOTE_READ = 0x0C
    APIC_LDR = 0x0D
    APIC_DFR = 0x0E
    APIC_SVR = 0x0F
    APIC_ISR = 0x10                     # eight of them, and of the next two
    APIC_TMR = 0x18
    APIC_IRR = 0x20
    APIC_ESR = 0x28
    APIC_LVT_CMCI = 0x2F
    APIC_ICR = 0x30
    APIC_ICR_HIGH = 0x31
    APIC_LVT_TIMER = 0x32
    APIC_LVT_THERMAL = 0x33
    APIC_LVT_PERFORMANCE = 0x34
    APIC_LVT_LINT0 = 0x35
    APIC_LVT_LINT1 = 0x36
    APIC_LVT_ERROR = 0x37
    APIC_INITIAL_COUNT = 0x38
    APIC_CURRENT_COUNT = 0x39
    APIC_DIVIDE = 0x3E
    APIC_SELF_IPI = 0x3F                # x2APIC only


cdef enum:                              # index into lapic_t.lvt; the order of registers 32h-37h, then 2Fh
    LVT_TIMER = 0
    LVT_THERMAL = 1
    LVT_PERFORMANCE = 2
    LVT_LINT0 = 3
    LVT_LINT1 = 4
    LVT_ERROR = 5
    LVT_CMCI = 6
    LVT_COUNT = 7


cdef enum LvtBits:                      # 11.5.1
    LVT_VECTOR = 0xFF
    LVT_DELIVERY_SHIFT = 8
    LVT_STATUS = 1 << 12                # read-only
    LVT_LOW_ACTIVE = 1 << 13            # LINT0, LINT1
    LVT_REMOTE_IRR = 1 << 14            # read-only
    LVT_LEVEL = 1 << 15
    LVT_MASKED = 1 << 16
    LVT_PERIODIC = 1 << 17              # timer
    LVT_TSC_DEADLINE = 1 << 18
    LVT_TIMER_MODE = 3 << 17


cdef enum DeliveryMode:                 # 11.6.1
    DELIVERY_FIXED = 0
    DELIVERY_LOWEST_PRIORITY = 1
    DELIVERY_SMI = 2
    DELIVERY_RESERVED = 3               # remote read of the earliest APICs
    DELIVERY_NMI = 4
    DELIVERY_INIT = 5
    DELIVERY_STARTUP = 6
    DELIVERY_EXTERNAL = 7


cdef enum IcrBits:
    ICR_LOGICAL = 1 << 11
    ICR_STATUS = 1 << 12                # read-only: sending takes no time here
    ICR_ASSERT = 1 << 14
    ICR_LEVEL = 1 << 15
    ICR_SHORTHAND_SHIFT = 18
    ICR_DEFINED = 0xCDFFF               # of the lower half, the status among them


cdef enum Shorthand:
    SHORTHAND_NONE = 0
    SHORTHAND_SELF = 1
    SHORTHAND_ALL = 2
    SHORTHAND_OTHERS = 3


cdef enum Destinations:
    BROADCAST = 0xFFFFFFFF              # what a destination of FFh from a sender with 8 bits is widened to
    BROADCAST_8 = 0xFF


cdef enum ApicBits:
    VERSION_VALUE = 0x01060014          # integrated, seven LVT entries, EOI broadcasts can be suppressed
    SVR_RESET = 0xFF
    SVR_ENABLE = 1 << 8
    SVR_NO_FOCUS = 1 << 9               # focus processor checking is off
    SVR_NO_EOI_BROADCAST = 1 << 12
    SVR_DEFINED = 0x13FF
    DIVIDE_DEFINED = 0xB
    TICKS_PER_COUNT = 5                 # at a divider of 1: 200 MHz (MSR 40000023)


cdef enum ApicErrors:                   # ESR, 11.5.3
    ERROR_SEND_VECTOR = 1 << 5
    ERROR_RECEIVE_VECTOR = 1 << 6
    ERROR_REGISTER = 1 << 7


cdef enum MessageSignaled:              # 11.11
    MSI_ADDRESS = 0xFEE                 # [31:20]
    MSI_LOGICAL = 1 << 2
    MSI_REDIRECTION_HINT = 1 << 3
    MSI_ASSERT = 1 << 14
    MSI_LEVEL = 1 << 15
