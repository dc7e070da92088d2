# Names and numbers of the Hyper-V ABI that the root guest and its child use.
# One place for every number, spelled as the Top Level Functional Specification (TLFS) spells it, so that the
# other files read as prose. This file emits no bytes. It must be included first: in Intel syntax a symbol that
# is not yet known to be a number is taken for a memory operand.

# --- hypercall control word and result -------------------------------------------------------------------------
HV_HYPERCALL_FAST               = 0x00010000            # bit 16: parameters are in RDX and R8, not in memory
HV_HYPERCALL_REP_MASK           = 0x0FFF                # rep fields of control word and result are 12 bits

# --- hypercalls ------------------------------------------------------------------------------------------------
HvCallCreatePartition           = 0x0040
HvCallInitializePartition       = 0x0041
HvCallFinalizePartition         = 0x0042
HvCallDeletePartition           = 0x0043
HvCallGetPartitionProperty      = 0x0044
HvCallSetPartitionProperty      = 0x0045
HvCallGetPartitionId            = 0x0046
HvCallDepositMemory             = 0x0048
HvCallWithdrawMemory            = 0x0049
HvCallGetMemoryBalance          = 0x004A
HvCallMapGpaPages               = 0x004B
HvCallUnmapGpaPages             = 0x004C
HvCallInstallIntercept          = 0x004D
HvCallCreateVp                  = 0x004E
HvCallGetVpRegisters            = 0x0050
HvCallSetVpRegisters            = 0x0051
HvCallTranslateVirtualAddress   = 0x0052
HvCallReadGpa                   = 0x0053
HvCallWriteGpa                  = 0x0054
HvCallDeletePort                = 0x0058
HvCallDisconnectPort            = 0x005B
HvCallPostMessage               = 0x005C
HvCallSignalEvent               = 0x005D
HvCallAssertVirtualInterrupt    = 0x0094
HvCallCreatePort                = 0x0095
HvCallConnectPort               = 0x0096
HvCallNoSuchCall                = 0x3FFF                # not in the TLFS: must be refused

# --- status codes ----------------------------------------------------------------------------------------------
HV_STATUS_SUCCESS               = 0x0000
HV_STATUS_INVALID_HYPERCALL_CODE = 0x0002
HV_STATUS_OPERATION_DENIED      = 0x0008
HV_STATUS_INSUFFICIENT_MEMORY   = 0x000B
HV_STATUS_NO_RESOURCES          = 0x001D

# --- partition creation and properties -------------------------------------------------------------------------
HV_PARTITION_CREATION_FLAG_EXO  = 1 << 8
HV_PARTITION_CREATION_FLAG_LAPIC = 1 << 13              # the hypervisor emulates the child's local APIC
HV_COMPATIBILITY_21H2           = 0x0609
HvPartitionPropertyPrivilegeFlags = 0x00010000

HV_PRIVILEGE_SYNIC_BIT          = 2
HV_PRIVILEGE_CREATE_PARTITIONS_BIT = 32
HV_PRIVILEGE_POST_MESSAGES      = 1 << 36
HV_PRIVILEGE_SIGNAL_EVENTS      = 1 << 37

# --- guest physical memory -------------------------------------------------------------------------------------
HV_PAGE_SIZE                    = 4096
HV_MAP_GPA_RWX                  = 0xF                   # readable, writable, kernel and user executable
HV_TRANSLATE_GVA_VALIDATE_READ  = 0x1
HvTranslateGvaSuccess           = 0
HvAccessGpaSuccess              = 0
HvAccessGpaUnmapped             = 1

# --- virtual processor registers -------------------------------------------------------------------------------
HvRegisterExplicitSuspend       = 0x00000000
HvRegisterInterceptSuspend      = 0x00000001
HvX64RegisterRax                = 0x00020000
HvX64RegisterRsp                = 0x00020004
HvX64RegisterRip                = 0x00020010
HvX64RegisterRflags             = 0x00020011
HvX64RegisterCr0                = 0x00040000
HvX64RegisterCr3                = 0x00040002
HvX64RegisterCr4                = 0x00040003
HvX64RegisterEs                 = 0x00060000
HvX64RegisterCs                 = 0x00060001
HvX64RegisterSs                 = 0x00060002
HvX64RegisterDs                 = 0x00060003
HvX64RegisterFs                 = 0x00060004
HvX64RegisterGs                 = 0x00060005
HvX64RegisterTr                 = 0x00060007
HvX64RegisterIdtr               = 0x00070000
HvX64RegisterGdtr               = 0x00070001
HvX64RegisterEfer               = 0x00080001

HV_SEGMENT_CODE64               = 0xA09B                # attributes: present, code, accessed, L, G
HV_SEGMENT_DATA                 = 0xC093                # attributes: present, writable data, accessed, D, G
HV_SEGMENT_BUSY_TSS             = 0x008B

# --- intercepts ------------------------------------------------------------------------------------------------
HvInterceptTypeX64IoPort        = 0
HV_INTERCEPT_ACCESS_NONE        = 0
HV_INTERCEPT_ACCESS_READ        = 1
HV_INTERCEPT_ACCESS_WRITE       = 2
HvMessageTypeX64IoPortIntercept = 0x80010000
HvMessageTimerExpired           = 0x80000010

# --- message layout (HV_MESSAGE and the I/O port intercept inside it) ------------------------------------------
HV_MESSAGE_SIZE                 = 256
MSG_TYPE                        = 0                     # u32, 0 = the slot is empty
MSG_PAYLOAD_SIZE                = 4                     # u8
MSG_FLAGS                       = 5                     # u8, bit 0 = another message waits for this slot
MSG_SENDER                      = 8                     # u64 partition id, or port id for guest messages
MSG_PAYLOAD                     = 16
INTERCEPT_VP                    = MSG_PAYLOAD + 0       # u32
INTERCEPT_LENGTH                = MSG_PAYLOAD + 4       # u8, low nibble: instruction length
INTERCEPT_ACCESS                = MSG_PAYLOAD + 5       # u8, 0 read, 1 write
INTERCEPT_RIP                   = MSG_PAYLOAD + 24      # u64
IO_PORT                         = MSG_PAYLOAD + 40      # u16
IO_ACCESS_INFO                  = MSG_PAYLOAD + 42      # u8, bits 2:0 = 1, 2 or 4 bytes
IO_RAX                          = MSG_PAYLOAD + 48      # u64
TIMER_INDEX                     = MSG_PAYLOAD + 0       # u32
TIMER_EXPIRATION                = MSG_PAYLOAD + 8       # u64, 100 ns
TIMER_DELIVERY                  = MSG_PAYLOAD + 16      # u64, 100 ns

# --- ports and interrupts --------------------------------------------------------------------------------------
HvPortTypeMessage               = 1
HvPortTypeEvent                 = 2
HvX64InterruptTypeFixed         = 0

# --- synthetic MSRs --------------------------------------------------------------------------------------------
HV_X64_MSR_GUEST_OS_ID          = 0x40000000
HV_X64_MSR_HYPERCALL            = 0x40000001
HV_X64_MSR_VP_INDEX             = 0x40000002
HV_X64_MSR_TIME_REF_COUNT       = 0x40000020
HV_X64_MSR_EOI                  = 0x40000070
HV_X64_MSR_TPR                  = 0x40000072
HV_X64_MSR_SCONTROL             = 0x40000080
HV_X64_MSR_SVERSION             = 0x40000081
HV_X64_MSR_SIEFP                = 0x40000082
HV_X64_MSR_SIMP                 = 0x40000083
HV_X64_MSR_EOM                  = 0x40000084
HV_X64_MSR_SINT0                = 0x40000090
HV_X64_MSR_SINT1                = 0x40000091
HV_X64_MSR_SINT2                = 0x40000092
HV_X64_MSR_SINT3                = 0x40000093
HV_X64_MSR_STIMER0_CONFIG       = 0x400000B0
HV_X64_MSR_STIMER0_COUNT        = 0x400000B1
HV_X64_MSR_STIMER1_CONFIG       = 0x400000B2
HV_X64_MSR_STIMER1_COUNT        = 0x400000B3

HV_MSR_PAGE_ENABLE              = 1
HV_SINT_AUTO_EOI                = 1 << 17
HV_STIMER_ENABLE                = 1 << 0
HV_STIMER_PERIODIC              = 1 << 1
HV_STIMER_AUTO_ENABLE           = 1 << 3
HV_STIMER_VECTOR_SHIFT          = 4
HV_STIMER_DIRECT                = 1 << 12
HV_STIMER_SINT_SHIFT            = 16

# --- CPUID bits ------------------------------------------------------------------------------------------------
CPUID_1_ECX_HYPERVISOR_BIT      = 31
CPUID_40000003_EDX_DIRECT_STIMER_BIT = 19
CPUID_40000004_EAX_NO_AUTO_EOI_BIT = 9

# --- the processor itself --------------------------------------------------------------------------------------
PTE_PRESENT_WRITABLE            = 0x003

# --- what root and child agree on (ours, not the TLFS's) -------------------------------------------------------
ROOT_OS_ID                      = 0xC800000100000000    # open source, type 48h, version 1.0.0
CHILD_OS_ID                     = 0xC801000100000000    # the same with OS sub-id 1
VECTOR_INTERCEPT                = 0x30                  # SINT0
VECTOR_MESSAGE                  = 0x31                  # SINT1
VECTOR_EVENT                    = 0x32                  # SINT2
VECTOR_TIMER_MESSAGE            = 0x33                  # SINT3
VECTOR_TIMER_DIRECT             = 0x34                  # STIMER1
VECTOR_SPURIOUS                 = 0xFF
MESSAGE_PORT                    = 0x11
EVENT_PORT                      = 0x12
EVENT_BASE_FLAG                 = 8                     # child flag n appears as root flag 8 + n
EVENT_FLAG_COUNT                = 16
MESSAGE_CONNECTION              = 0x21
EVENT_CONNECTION                = 0x22
CHILD_EVENT_FLAG                = 3
CHILD_MESSAGES                  = 4
CHILD_IO_PORT                   = 0x500
CHILD_IO_HELLO                  = 0x68                  # 'h': the root answers it by asserting an interrupt
CHILD_IO_ANSWER                 = 0xC0DE0068            # what the child must read back
CHILD_IO_DONE                   = 0x454E4F44            # 'DONE'
CHILD_IO_FAILURE                = 0xE0000000            # or-ed with a hypercall status or a reason
CHILD_VECTOR                    = 0x50

# Guest physical layout of the child. It has 32 pages of RAM; its hypercall page lies over unmapped space.
CHILD_RAM_PAGES                 = 32
CHILD_MAPPED_PAGES              = 64                    # page table entries, so that the overlay is reachable
CHILD_PML4                      = 0x01000
CHILD_PDPT                      = 0x02000
CHILD_PD                        = 0x03000
CHILD_PT                        = 0x04000
CHILD_MESSAGE_BUFFER            = 0x08000
CHILD_NOTE                      = 0x09000               # the root leaves a note here with WriteGpa
CHILD_SPARE                     = 0x0A000               # unmapped and mapped again
CHILD_CODE                      = 0x10000
CHILD_STACK_TOP                 = 0x20000
CHILD_HYPERCALL_PAGE            = 0x30000
CHILD_ALIAS_GVA                 = 0x100000              # second virtual address of CHILD_NOTE
CHILD_NOTE_OFFSET               = 0x10
CHILD_NOTE_BYTES                = 16
