"""A VT-d remapping unit as plain structs: registers, what they have latched, caches, counts.

Owned by iommu.RemappingUnit. All its pointers into memory are guest physical addresses of the partition that owns the
unit; `view` looks at that partition's space.
"""
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.dma.spec cimport REASON_COUNT
from hvcore._native.irq.state cimport fabric_t, interrupt_message_t
from hvcore._native.mem.ram cimport ram_t
from hvcore._native.mem.second_level cimport cached_space_t
from hvcore._native.model.structure cimport structure_t

cdef enum:
    VIEW_ENTRIES = 1024
    MESSAGE_COUNT = 64
    WALK_LEVELS = 6
    LEVELS_MOST = 5
    TAG_COUNT = 1 << 16


# How requests of one source, or of one PASID of it, are translated: a context or a PASID entry, decoded.
cdef struct context_t:
    u16 did
    u16 tag                     # of (domain, PASID) in keys of the IOTLB
    u8 kind                     # TranslationType
    u8 reason                   # not 0: every request faults so, and the others say nothing
    u8 first_levels
    u8 second_levels
    u8 flags                    # CONTEXT_
    u8 scalable
    u32 pasid                   # NO_PASID in legacy mode
    u64 first                   # pointers to the top tables
    u64 second
    u64 directory               # of a context in scalable mode: PASID directory, its entries, RID_PASID
    u32 directory_entries
    u32 rid_pasid

cdef enum:
    CONTEXT_FPD = 1
    CONTEXT_WPE = 2
    CONTEXT_EAFE = 4
    CONTEXT_MARKS = 8           # accessed and dirty bits of the second level
    CONTEXT_PASIDE = 16
    CONTEXT_DTE = 32
    CONTEXT_PRIVILEGED = 64     # RID_PRIV
    CONTEXT_SRE = 128


# A structure of the model room, and what each of its entries stands for. Nothing: it does not exist, every look-up
# misses and nothing is counted. One way a set needs no replacement: `keys` alone.
cdef struct cache_t:
    structure_t* structure      # NULL: direct-mapped, or nothing
    u64* keys                   # direct-mapped: by set
    u64* words                  # `width` of them an entry
    u64 mask                    # direct-mapped: sets - 1
    u64 entries
    u32 width
    bint exists
    u64 lookups
    u64 misses
    u64 fills
    u64 invalidations


# What a tag stands for.
cdef struct tag_t:
    u32 pasid                   # NO_PASID: second-level and pass-through translations have none
    u16 did
    u8 kind
    u8 privileged


cdef struct unit_counters_t:                # these names are keys of RemappingUnit.counters()
    u64 requests
    u64 translated
    u64 untranslated                        # translation was off
    u64 faults
    u64 interrupt_range
    u64 protected
    u64 no_memory
    u64 root_references
    u64 context_references
    u64 directory_references
    u64 pasid_references
    u64 first_level_references
    u64 second_level_references
    u64 interrupt_references
    u64 faults_recorded
    u64 faults_merged
    u64 faults_overflowed
    u64 faults_unrecorded                   # FPD
    u64 fault_events
    u64 completion_events
    u64 messages_lost                       # overwritten in the ring that Python reads
    u64 descriptors
    u64 waits
    u64 status_writes_refused
    u64 queue_errors
    u64 device_tlb_invalidations
    u64 register_invalidations
    u64 bad_accesses                        # to registers: no aligned doubleword or quadword
    u64 interrupts_remapped
    u64 interrupts_posted
    u64 interrupts_passed                   # compatibility format, or remapping off
    u64 interrupts_blocked
    u64 notifications


# An MSI that the unit itself sent.
cdef struct unit_message_t:
    u64 address
    u32 data


cdef struct unit_t:
    ram_t* ram
    cached_space_t view
    u64 view_generation
    u64 scan_at                 # same_from ... of the view: how far the search for it has come
    u64 run_from
    fabric_t* fabric            # where interrupts go; NULL: to `messages` alone
    int (*deliver)(fabric_t* fabric, const interrupt_message_t* message) noexcept nogil
    u64 cap
    u64 ecap
    u32 iro                     # byte offset of IVA
    u32 fro                     # of the first fault record
    u32 fault_records
    u32 region_bytes
    u32 host_bits               # HAW: of addresses that tables may name
    u32* registers
    u32* writable               # bits that a write sets
    u32* clearing               # bits that a written 1 clears
    # Latched by GCMD:
    u64 root                    # RTADDR
    u64 interrupt_table         # IRTA
    u32 next_fault
    # Of CAP and ECAP, for walks:
    u64 second_large
    u64 second_reserved
    u64 first_reserved
    u64 first_large
    u64 address_limit           # MGAW
    u64 host_limit              # HAW
    u64 fault_pages             # bits that FI has: of the largest AGAW
    # Caches:
    cache_t contexts            # key: source
    cache_t pasids              # key: PASID and source
    cache_t iotlb               # key: page, tag, size
    cache_t[WALK_LEVELS] walks  # key: prefix, tag; by the table whose entry they hold, from 2 on
    cache_t interrupts          # key: index
    u8 iotlb_sizes              # a bit for each size code that the IOTLB may hold
    tag_t* tags
    u32 tag_count
    u64[REASON_COUNT] reasons
    unit_counters_t counters
    unit_message_t[MESSAGE_COUNT] messages
    u64 message_count
