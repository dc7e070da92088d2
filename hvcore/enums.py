"""The numbers of the TLFS as users see them: statuses, call codes, properties, ports, intercepts, messages, flags.

Values are those of the specification (hyperv-abi.md sections 1.2, 4.1, 4.8, 6.3, 8.1, 8.3). Status, RegisterName and
what belongs to GPA space have files of their own. Nothing here has behaviour.
"""

from enum import IntEnum, IntFlag
from typing import Final

from hvcore.gpa_enums import CacheType as CacheType
from hvcore.gpa_enums import GpaAccessResult as GpaAccessResult
from hvcore.gpa_enums import MapFlags as MapFlags
from hvcore.gpa_enums import TranslateFlags as TranslateFlags
from hvcore.gpa_enums import TranslateResult as TranslateResult
from hvcore.gpa_enums import UnmapFlags as UnmapFlags
from hvcore.registers import RegisterName as RegisterName
from hvcore.status import Status as Status
from hvcore.vp_states import VpStateType as VpStateType

PARTITION_ID_INVALID: Final = 0
PARTITION_ID_SELF: Final = 0xFFFF_FFFF_FFFF_FFFF
VP_INDEX_SELF: Final = 0xFFFF_FFFE
ANY_VP: Final = 0xFFFF_FFFF


class Hypercall(IntEnum):
    """The call codes that this hypervisor implements (hypercalls/table.py)."""

    SWITCH_VIRTUAL_ADDRESS_SPACE = 0x01
    FLUSH_VIRTUAL_ADDRESS_SPACE = 0x02
    FLUSH_VIRTUAL_ADDRESS_LIST = 0x03
    NOTIFY_LONG_SPIN_WAIT = 0x08
    SEND_SYNTHETIC_CLUSTER_IPI = 0x0B
    FLUSH_VIRTUAL_ADDRESS_SPACE_EX = 0x13
    FLUSH_VIRTUAL_ADDRESS_LIST_EX = 0x14
    SEND_SYNTHETIC_CLUSTER_IPI_EX = 0x15
    CREATE_PARTITION = 0x40
    INITIALIZE_PARTITION = 0x41
    FINALIZE_PARTITION = 0x42
    DELETE_PARTITION = 0x43
    GET_PARTITION_PROPERTY = 0x44
    SET_PARTITION_PROPERTY = 0x45
    GET_PARTITION_ID = 0x46
    DEPOSIT_MEMORY = 0x48
    WITHDRAW_MEMORY = 0x49
    GET_MEMORY_BALANCE = 0x4A
    MAP_GPA_PAGES = 0x4B
    UNMAP_GPA_PAGES = 0x4C
    INSTALL_INTERCEPT = 0x4D
    CREATE_VP = 0x4E
    DELETE_VP = 0x4F
    GET_VP_REGISTERS = 0x50
    SET_VP_REGISTERS = 0x51
    TRANSLATE_VIRTUAL_ADDRESS = 0x52
    READ_GPA = 0x53
    WRITE_GPA = 0x54
    ASSERT_VIRTUAL_INTERRUPT_OLD = 0x55
    CLEAR_VIRTUAL_INTERRUPT = 0x56
    CREATE_PORT_OLD = 0x57
    DELETE_PORT = 0x58
    CONNECT_PORT_OLD = 0x59
    GET_PORT_PROPERTY = 0x5A
    DISCONNECT_PORT = 0x5B
    POST_MESSAGE = 0x5C
    SIGNAL_EVENT = 0x5D
    SET_PORT_PROPERTY = 0x70
    MAP_DEVICE_INTERRUPT = 0x7C
    UNMAP_DEVICE_INTERRUPT = 0x7D
    RETARGET_DEVICE_INTERRUPT = 0x7E
    ATTACH_DEVICE = 0x82
    DETACH_DEVICE = 0x83
    NOTIFY_PORT_RING_EMPTY = 0x8B
    ASSERT_VIRTUAL_INTERRUPT = 0x94
    CREATE_PORT = 0x95
    CONNECT_PORT = 0x96
    START_VIRTUAL_PROCESSOR = 0x99
    GET_VP_INDEX_FROM_APIC_ID = 0x9A
    SIGNAL_EVENT_DIRECT = 0xC0
    POST_MESSAGE_DIRECT = 0xC1
    GET_VP_STATE = 0xE3
    SET_VP_STATE = 0xE4
    GET_VP_SET_FROM_MDA = 0xE5
    CREATE_DEVICE_DOMAIN = 0xB1
    ATTACH_DEVICE_DOMAIN = 0xB2
    MAP_DEVICE_GPA_PAGES = 0xB3
    UNMAP_DEVICE_GPA_PAGES = 0xB4
    DETACH_DEVICE_DOMAIN = 0xC4
    DELETE_DEVICE_DOMAIN = 0xC5
    CONFIGURE_DEVICE_DOMAIN = 0xCE
    FLUSH_DEVICE_DOMAIN = 0xD0
    RESTORE_PARTITION_TIME = 0x103
    GET_IOMMU_CAPABILITIES = 0x125
    GET_LOGICAL_DEVICE_PROPERTY = 0x127


class PartitionState(IntEnum):
    """The lifecycle of section 6.1; a deleted partition has no state, its id is invalid."""

    UNINITIALIZED = 0
    ACTIVE = 1
    FINALIZING = 2
    FINALIZED = 3


class Privilege(IntFlag):
    """HV_PARTITION_PRIVILEGE_MASK (section 1.2), also the value of property PRIVILEGE_FLAGS."""

    ACCESS_VP_RUN_TIME_REG = 1 << 0
    ACCESS_PARTITION_REFERENCE_COUNTER = 1 << 1
    ACCESS_SYNIC_REGS = 1 << 2
    ACCESS_SYNTHETIC_TIMER_REGS = 1 << 3
    ACCESS_INTERRUPT_CONTROL_REGS = 1 << 4
    ACCESS_HYPERCALL_MSRS = 1 << 5
    ACCESS_VP_INDEX = 1 << 6
    ACCESS_RESET_REG = 1 << 7
    ACCESS_STATS_REG = 1 << 8
    ACCESS_PARTITION_REFERENCE_TSC = 1 << 9
    ACCESS_GUEST_IDLE_REG = 1 << 10
    ACCESS_FREQUENCY_REGS = 1 << 11
    ACCESS_DEBUG_MSRS = 1 << 12
    ACCESS_REENLIGHTENMENT_CONTROLS = 1 << 13
    ACCESS_ROOT_SCHEDULER_MSR = 1 << 14
    ACCESS_TSC_INVARIANT_CONTROLS = 1 << 15
    CREATE_PARTITIONS = 1 << 32
    ACCESS_PARTITION_ID = 1 << 33
    ACCESS_MEMORY_POOL = 1 << 34
    ADJUST_MESSAGE_BUFFERS = 1 << 35
    POST_MESSAGES = 1 << 36
    SIGNAL_EVENTS = 1 << 37
    CREATE_PORT = 1 << 38
    CONNECT_PORT = 1 << 39
    ACCESS_STATS = 1 << 40
    DEBUGGING = 1 << 43
    CPU_MANAGEMENT = 1 << 44
    CONFIGURE_PROFILER = 1 << 45
    ACCESS_VP_EXIT_TRACING = 1 << 46
    ENABLE_EXTENDED_GVA_RANGES_FLUSH_VA_LIST = 1 << 47
    ACCESS_VSM = 1 << 48
    ACCESS_VP_REGISTERS = 1 << 49
    FAST_HYPERCALL_OUTPUT = 1 << 51
    ENABLE_EXTENDED_HYPERCALLS = 1 << 52
    START_VIRTUAL_PROCESSOR = 1 << 53
    ISOLATION = 1 << 54
    # The column "default for a new child" of section 1.2 (T2).
    DEFAULT_CHILD = 0x5FF


class CreationFlag(IntFlag):
    """Flags of HvCallCreatePartition (section 4.2)."""

    SMT_GUEST = 1 << 0
    NESTED_CAPABLE = 1 << 1
    GPA_SUPER_PAGES = 1 << 4
    EXO = 1 << 8
    VTL1_OVERRIDE = 1 << 9
    VTL2_OVERRIDE = 1 << 10
    LAPIC_ENABLED = 1 << 13
    PMU = 1 << 15
    LBR = 1 << 16
    INTERCEPT_MESSAGE_PAGE = 1 << 19
    HYPERCALL_DOORBELL_PAGE = 1 << 20
    X2APIC_CAPABLE = 1 << 22


class PortType(IntEnum):
    """HV_PORT_TYPE, the first word of a port's and a connection's info."""

    MESSAGE = 1
    EVENT = 2
    MONITOR = 3
    DOORBELL = 4


class PortPropertyCode(IntEnum):
    """HV_PORT_PROPERTY_CODE (section 4.8)."""

    POST_COUNT = 0
    PREFERRED_TARGET_VP = 1


class InterruptType(IntEnum):
    """HV_INTERRUPT_TYPE of HvCallAssertVirtualInterrupt (section 10.2)."""

    FIXED, LOWEST_PRIORITY, SMI, REMOTE_READ, NMI, INIT, SIPI, EXTINT, LOCAL_INT0, LOCAL_INT1 = range(10)


class InterceptType(IntEnum):
    """HV_INTERCEPT_TYPE, those that can be installed here (section 8.1)."""

    IO_PORT = 0x0
    MSR = 0x1
    CPUID = 0x2
    EXCEPTION = 0x3
    GLOBAL_CPUID = 0x6
    HYPERCALL = 0x8
    MSR_INDEX = 0xC
    APIC_EOI = 0xE
    RETARGET_UNKNOWN_DEVICE = 0xF
    IO_PORT_RANGE = 0x11


class AccessMask(IntFlag):
    """HV_INTERCEPT_ACCESS_MASK, also the rights of a GPA mapping as the native layer takes them."""

    NONE = 0
    READ = 1
    WRITE = 2
    EXECUTE = 4


class AccessType(IntEnum):
    """HV_INTERCEPT_ACCESS_TYPE, byte 5 of an intercept header (section 8.4)."""

    READ = 0
    WRITE = 1
    EXECUTE = 2


class MessageType(IntEnum):
    """HV_MESSAGE_TYPE of the messages that the hypervisor itself sends (section 8.3)."""

    NONE = 0
    UNMAPPED_GPA = 0x8000_0000
    GPA_INTERCEPT = 0x8000_0001
    TIMER_EXPIRED = 0x8000_0010
    INVALID_VP_REGISTER_VALUE = 0x8000_0020
    UNRECOVERABLE_EXCEPTION = 0x8000_0021
    UNSUPPORTED_FEATURE = 0x8000_0022
    IOMMU_FAULT = 0x8000_0024
    HYPERCALL_INTERCEPT = 0x8000_0050
    SYNIC_SINT_INTERCEPT = 0x8000_0061
    SYNIC_SINT_DELIVERABLE = 0x8000_0062
    X64_IO_PORT_INTERCEPT = 0x8001_0000
    X64_MSR_INTERCEPT = 0x8001_0001
    X64_CPUID_INTERCEPT = 0x8001_0002
    X64_EXCEPTION_INTERCEPT = 0x8001_0003
    X64_APIC_EOI = 0x8001_0004
    X64_HALT = 0x8001_0007
    X64_INTERRUPTION_DELIVERABLE = 0x8001_0008


class OverlayKind(IntEnum):
    """What lies over GPA space, in the order of precedence of section 11.3 (lowest number wins)."""

    HYPERCALL = 1
    VP_ASSIST = 2
    SIM = 3
    SIEF = 4
    SIRB = 5
    REFERENCE_TSC = 6
    MONITOR = 7


class ServiceReason(IntEnum):
    """Why the run loop calls Hypervisor.service."""

    HYPERCALL = 0
    MSR_READ = 1
    MSR_WRITE = 2
    INTERCEPT = 3
    UNMAPPED_WRITE = 4
    """Asked before the intercept, if the partition has doorbells."""
    IO_PORT = 5
    """IN or OUT of the root: it reaches the machine."""
    EOI = 6
    """An interrupt ended whose source has to know."""
    DEVICE_MEMORY = 7
    """The root reads or writes addresses that a device of the machine claims."""


class PartitionProperty(IntEnum):
    """HV_PARTITION_PROPERTY_CODE (section 6.3)."""

    PRIVILEGE_FLAGS = 0x1_0000
    SYNTHETIC_PROCESSOR_FEATURES = 0x1_0001
    SUSPEND = 0x2_0000
    CPU_RESERVE = 0x2_0001
    CPU_CAP = 0x2_0002
    CPU_WEIGHT = 0x2_0003
    TIME_FREEZE = 0x3_0003
    APIC_FREQUENCY = 0x3_0004
    REFERENCE_TIME = 0x3_0005
    DEBUG_CHANNEL_ID = 0x4_0000
    VIRTUAL_TLB_PAGE_COUNT = 0x5_0000
    ZERO_MEMORY_ON_RESET = 0x5_0002
    PROCESSORS_PER_SOCKET = 0x5_0003
    IMPLEMENTED_PHYSICAL_ADDRESS_BITS = 0x5_0010
    UNIMPLEMENTED_MSR_ACTION = 0x5_0017
    REFERENCE_TSC_PAGE_ACTIVE = 0x5_0019
    AUTO_EOI_ENABLED = 0x5_001A
    PROCESSOR_VENDOR = 0x6_0000
    XSAVE_FEATURES = 0x6_0002
    CACHE_LINE_FLUSH_SIZE = 0x6_0003
    COMPATIBILITY_VERSION = 0x6_0005
    PHYSICAL_ADDRESS_WIDTH = 0x6_0006
    PROCESSOR_CLOCK_FREQUENCY = 0x6_0009
    PROCESSOR_FEATURES0 = 0x6_000A
    PROCESSOR_FEATURES1 = 0x6_000B
    GUEST_OS_ID = 0x7_0000
