"""Numbers of a VT-d remapping unit: registers, capabilities, table fields, fault reasons, descriptor types.

Names are those of the VT-d specification. No function and no state may live here.
"""


cdef enum Register:
    REG_VER = 0x000
    REG_CAP = 0x008
    REG_ECAP = 0x010
    REG_GCMD = 0x018
    REG_GSTS = 0x01C
    REG_RTADDR = 0x020
    REG_CCMD = 0x028
    REG_FSTS = 0x034
    REG_FECTL = 0x038                   # data, address and upper address follow, as behind IECTL
    REG_FEDATA = 0x03C
    REG_FEADDR = 0x040
    REG_FEUADDR = 0x044
    REG_PMEN = 0x064
    REG_PLMBASE = 0x068
    REG_PLMLIMIT = 0x06C
    REG_PHMBASE = 0x070
    REG_PHMLIMIT = 0x078
    REG_IQH = 0x080
    REG_IQT = 0x088
    REG_IQA = 0x090
    REG_ICS = 0x09C
    REG_IECTL = 0x0A0
    REG_IEDATA = 0x0A4
    REG_IEADDR = 0x0A8
    REG_IEUADDR = 0x0AC
    REG_IQERCD = 0x0B0
    REG_IRTA = 0x0B8
    REG_LAST = 0xE40                    # behind virtual command registers, which read 0
    VERSION = 0x10

cdef enum Capability:                   # bits of CAP
    CAP_RWBF = 1 << 4
    CAP_PLMR = 1 << 5
    CAP_PHMR = 1 << 6
    CAP_CM = 1 << 7
    CAP_SAGAW_SHIFT = 8
    CAP_MGAW_SHIFT = 16
    CAP_ZLR = 1 << 22
    CAP_FRO_SHIFT = 24
    CAP_SLLPS_SHIFT = 34
    CAP_PSI_SHIFT = 39
    CAP_NFR_SHIFT = 40
    CAP_MAMV_SHIFT = 48
    CAP_FL1GP_SHIFT = 56
    CAP_PI_SHIFT = 59
    CAP_FL5LP_SHIFT = 60
    CAP_ESIRTPS_SHIFT = 62
    CAP_ESRTPS_SHIFT = 63

cdef enum ExtendedCapability:           # bits of ECAP
    ECAP_QI = 1 << 1
    ECAP_DT = 1 << 2
    ECAP_IR = 1 << 3
    ECAP_EIM = 1 << 4
    ECAP_PT = 1 << 6
    ECAP_SC = 1 << 7
    ECAP_IRO_SHIFT = 8
    ECAP_MHMV_SHIFT = 20
    ECAP_NEST_SHIFT = 26
    ECAP_SRS_SHIFT = 31
    ECAP_EAFS_SHIFT = 34
    ECAP_PSS_SHIFT = 35
    ECAP_PASID_SHIFT = 40
    ECAP_DIT_SHIFT = 41
    ECAP_PDS_SHIFT = 42
    ECAP_SMTS_SHIFT = 43
    ECAP_SLADS_SHIFT = 45
    ECAP_SLTS_SHIFT = 46
    ECAP_FLTS_SHIFT = 47
    ECAP_SMPWC_SHIFT = 48
    ECAP_RPS_SHIFT = 49
    ECAP_RPRIVS_SHIFT = 53

cdef enum GlobalCommand:                # the same bits in GSTS
    GLOBAL_TE = 1 << 31
    GLOBAL_RTP = 1 << 30
    GLOBAL_QIE = 1 << 26
    GLOBAL_IRE = 1 << 25
    GLOBAL_IRTP = 1 << 24
    GLOBAL_CFI = 1 << 23

cdef enum FaultStatus:
    FSTS_PFO = 1
    FSTS_PPF = 2
    FSTS_IQE = 1 << 4
    FSTS_ICE = 1 << 5
    FSTS_ITE = 1 << 6
    FSTS_FRI_SHIFT = 8
    FSTS_CONDITIONS = FSTS_PFO | FSTS_PPF | FSTS_IQE | FSTS_ICE | FSTS_ITE
    EVENT_IM = 1 << 31                  # of FECTL and IECTL
    EVENT_IP = 1 << 30
    ICS_IWC = 1
    FRCD_F = 1 << 31                    # of the highest dword of a record
    FRCD_T1 = 1 << 30
    FRCD_PP = 1 << 31                   # of the dword before
    FRCD_PRIV = 1 << 29
    FRCD_T2 = 1 << 28

cdef enum QueueError:                   # IQERCD.IQEI
    IQEI_TAIL = 1
    IQEI_FETCH = 2
    IQEI_TYPE = 3
    IQEI_RESERVED = 4
    IQEI_WIDTH = 5
    IQEI_TAIL_ALIGNMENT = 6
    IQEI_MODE = 7

cdef enum DescriptorType:
    DESCRIPTOR_CONTEXT = 1
    DESCRIPTOR_IOTLB = 2
    DESCRIPTOR_DEVICE_TLB = 3
    DESCRIPTOR_INTERRUPT = 4
    DESCRIPTOR_WAIT = 5
    DESCRIPTOR_PASID_IOTLB = 6
    DESCRIPTOR_PASID_CACHE = 7
    DESCRIPTOR_PASID_DEVICE_TLB = 8

cdef enum Granularity:                  # of context and IOTLB invalidation
    GRANULARITY_GLOBAL = 1
    GRANULARITY_DOMAIN = 2
    GRANULARITY_SELECTIVE = 3           # of a device, or of pages

cdef enum RootMode:                     # RTADDR.TTM
    MODE_LEGACY = 0
    MODE_SCALABLE = 1

cdef enum TranslationType:              # PASID entries' PGTT; contexts of legacy mode are brought to the same
    TYPE_FIRST = 1
    TYPE_SECOND = 2
    TYPE_NESTED = 3
    TYPE_PASS = 4

cdef enum RequestType:                  # PCI Express AT
    AT_UNTRANSLATED = 0
    AT_TRANSLATION = 1
    AT_TRANSLATED = 2

cdef enum:
    NO_PASID = 0xFFFFFFFF
    ACCESS_ZERO_LENGTH = 4              # beside RIGHT_READ and RIGHT_WRITE: a read of no bytes
    ACCESS_PRIVILEGED = 8
    INTERRUPT_FIRST = 0xFEE00000
    INTERRUPT_BYTES = 0x00100000

cdef enum Reason:                       # FRCD.FR
    REASON_OK = 0
    REASON_ROOT_ABSENT = 0x1
    REASON_CONTEXT_ABSENT = 0x2
    REASON_CONTEXT_INVALID = 0x3
    REASON_BEYOND = 0x4
    REASON_NO_WRITE = 0x5
    REASON_NO_READ = 0x6
    REASON_ENTRY_UNREADABLE = 0x7
    REASON_ROOT_UNREADABLE = 0x8
    REASON_CONTEXT_UNREADABLE = 0x9
    REASON_ROOT_RESERVED = 0xA
    REASON_CONTEXT_RESERVED = 0xB
    REASON_ENTRY_RESERVED = 0xC
    REASON_TRANSLATED_BLOCKED = 0xD
    REASON_OUTPUT_INTERRUPT = 0xE
    REASON_IR_REQUEST_RESERVED = 0x20
    REASON_IR_INDEX = 0x21
    REASON_IR_ABSENT = 0x22
    REASON_IR_UNREADABLE = 0x23
    REASON_IR_RESERVED = 0x24
    REASON_IR_COMPATIBILITY = 0x25
    REASON_IR_SOURCE = 0x26
    REASON_IR_DESCRIPTOR_UNREADABLE = 0x27
    REASON_IR_DESCRIPTOR_RESERVED = 0x28
    REASON_IR_ILLEGAL = 0x29            # no interrupt, to an interrupt address
    REASON_SM_ROOT_POINTER = 0x30
    REASON_SM_MODE = 0x31
    REASON_SM_ROOT = 0x38               # unreadable; absent and reserved are the two behind it
    REASON_SM_CONTEXT = 0x40            # the same
    REASON_SM_CONTEXT_INVALID = 0x43
    REASON_SM_NO_DTE = 0x44
    REASON_SM_NO_PASIDE = 0x45
    REASON_SM_PASID_RANGE = 0x46
    REASON_SM_RID_PASID = 0x48
    REASON_SM_DIRECTORY = 0x50          # the same
    REASON_SM_ENTRY = 0x58              # the same
    REASON_SM_ENTRY_INVALID = 0x5B
    REASON_SM_NO_SRE = 0x5D
    REASON_FIRST_UNREADABLE = 0x70
    REASON_FIRST_ABSENT = 0x71
    REASON_FIRST_RESERVED = 0x72
    REASON_FIRST_POINTER = 0x73
    REASON_FIRST_BEYOND = 0x74
    REASON_FIRST_TOP_NO_READ = 0x75
    REASON_FIRST_NO_READ = 0x76
    REASON_FIRST_NO_WRITE = 0x77
    REASON_SECOND_UNREADABLE = 0x78
    REASON_SECOND_ABSENT = 0x79
    REASON_SECOND_RESERVED = 0x7A
    REASON_SECOND_POINTER = 0x7B
    REASON_SM_NOT_CANONICAL = 0x80
    REASON_SM_USER = 0x81
    REASON_SM_PASS_BEYOND = 0x83
    REASON_SM_BEYOND = 0x84
    REASON_SM_NO_WRITE = 0x85
    REASON_SM_NO_READ = 0x86
    REASON_SM_INTERRUPT = 0x87
    REASON_SM_PASID_SIZE = 0x89
    REASON_FIRST_NOT_SNOOPED = 0x90
    REASON_FIRST_UPDATE = 0x91          # accessed and dirty bits could not be written
    REASON_COUNT = 0x92

cdef enum RemapStatus:                  # how a DMA request ended; Python names them in hvcore.iommu
    DMA_OK
    DMA_FAULT                           # the unit refuses it: see the reason
    DMA_INTERRUPT                       # it lies in the interrupt address range: no memory there
    DMA_PROTECTED                       # a protected memory region
    DMA_NO_MEMORY                       # the unit lets it through to where the partition has no such memory
