"""Numbers of the processor: segment registers, RFLAGS, control registers, exception vectors (SDM 3A 2.3-2.5, 6.3.1)."""

cdef enum:
    SEGMENT_ES
    SEGMENT_CS
    SEGMENT_SS
    SEGMENT_DS
    SEGMENT_FS
    SEGMENT_GS
    SEGMENT_LDTR
    SEGMENT_TR
    SEGMENT_COUNT

cdef enum:
    FLAG_CF = 1
    FLAG_FIXED = 2
    FLAG_PF = 4
    FLAG_AF = 0x10
    FLAG_ZF = 0x40
    FLAG_SF = 0x80
    FLAG_TF = 0x100
    FLAG_IF = 0x200
    FLAG_DF = 0x400
    FLAG_OF = 0x800
    FLAG_IOPL = 0x3000
    FLAG_NT = 0x4000
    FLAG_RF = 0x10000
    FLAG_VM = 0x20000
    FLAG_AC = 0x40000
    FLAG_ID = 0x200000
    FLAGS_ARITHMETIC = 0x8D5
    FLAGS_SYSTEM = 0x277700     # TF IF DF IOPL NT RF VM AC ID: kept as they are

cdef enum:
    CR0_PE = 1
    CR0_MP = 2
    CR0_EM = 4
    CR0_TS = 8
    CR0_ET = 16
    CR0_NE = 32
    CR0_WP = 0x10000
    CR0_AM = 0x40000
    CR0_NW = 0x20000000
    CR0_CD = 0x40000000
    CR0_PG = 0x80000000
    CR3_LAM_U57 = 0x2000000000000000
    CR3_LAM_U48 = 0x4000000000000000
    CR3_KEEP = 0x8000000000000000   # of a value written: do not flush
    CR3_PCID = 0xFFF
    CR4_TSD = 4
    CR4_DE = 8
    CR4_PSE = 0x10
    CR4_PAE = 0x20
    CR4_PGE = 0x80
    CR4_PCE = 0x100
    CR4_OSFXSR = 0x200
    CR4_OSXMMEXCPT = 0x400
    CR4_LA57 = 0x1000
    CR4_PCIDE = 0x20000
    CR4_SMEP = 0x100000
    CR4_SMAP = 0x200000
    CR4_PKE = 0x400000
    CR4_PKS = 0x1000000
    CR4_LAM_SUP = 0x10000000
    EFER_SCE = 1
    EFER_LME = 0x100
    EFER_LMA = 0x400
    EFER_NXE = 0x800

cdef enum:
    VECTOR_DE = 0
    VECTOR_DB = 1
    VECTOR_NMI = 2
    VECTOR_BP = 3
    VECTOR_UD = 6
    VECTOR_NM = 7
    VECTOR_DF = 8
    VECTOR_TS = 10
    VECTOR_NP = 11
    VECTOR_SS = 12
    VECTOR_GP = 13
    VECTOR_PF = 14
    VECTOR_AC = 17
    VECTOR_XM = 19

cdef enum EventType:        # hyperv-abi 7.4, PendingInterruption; the last three are fault_t.software
    EXTERNAL_INTERRUPT = 0
    NON_MASKABLE_INTERRUPT = 2
    HARDWARE_EXCEPTION = 3
    SOFTWARE_INTERRUPT = 4  # INT n
    SOFTWARE_PRIVILEGED = 5 # INT1, which does not check the gate's DPL (SDM 2A, INT n)
    SOFTWARE_EXCEPTION = 6  # INT3
