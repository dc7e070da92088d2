"""What a translation model consists of: two dimensions of page-walk caches, TLBs by kind and page size, and counts."""
from hvcore._native.base.types cimport u16, u32, u64, u8
from hvcore._native.model.frames cimport frames_t
from hvcore._native.model.record cimport KIND_COUNT
from hvcore._native.model.structure cimport structure_t

cdef enum:
    SIZES = 3                   # 4 KiB, 2 MiB (or 4 MiB), 1 GiB
    LEVELS = 6                  # tables are numbered 1 (page table) to 5 (PML5)
    ADDRESS_MASK = 0x01FFFFFFFFFFFFFF
    SIZE_UNUSED = 3             # in keys of page-walk caches
    GROUPS = 5
    TALLY_MOST = 0xFFFF         # records between two times that the tally is spent
    NO_SELECTOR = -1            # of no record


cdef struct outcome_t:
    u8 level                # 0: found in the first level, 1: in the second, 2: a walk
    u8 guest_references
    u16 nested_references
    u32 cycles


cdef struct dimension_t:
    structure_t* caches[LEVELS]     # by the table whose entry they hold: 2 is the PDE cache; NULL: none
    u32[LEVELS] latencies
    u64[LEVELS] references          # entries read, by table
    u32 levels
    u32 reference_latency
    u64 walks


# The page that an access went to last, of the kinds that share structures of the first level.
cdef struct latest_t:
    u64 base
    u64 offset_mask
    u64 selector            # address space and page size as the record has them
    u64 size


ctypedef outcome_t (*finish_t)(model_t* m, u64 address, u64 word, const u64* gpa) noexcept nogil


cdef struct model_t:
    finish_t finish                 # what comes behind a miss of the first level (models_loops.pxi)
    latest_t latest[GROUPS]
    u64 accesses[KIND_COUNT][SIZES]
    u64 tally                       # accesses to the latest page that are not counted yet, 16 bits a kind
    u64 weights[4]                  # of an access of each kind in the tally
    u8 groups[256]                  # by kind: kinds served by the same structures share one; GROUPS - 1: no accesses
    bint groups_overlap             # two groups share some of their structures
    structure_t* first[4][SIZES]    # by kind and page size; NULL: there is none
    u32 first_latencies[4][SIZES]
    structure_t* second[4][SIZES]
    u32 second_latencies[4][SIZES]
    structure_t* nested_tlb[SIZES]  # by page size of the second dimension
    u32[SIZES] nested_tlb_latencies
    dimension_t guest
    dimension_t nested              # levels 0: there is none
    structure_t* structures         # all of them
    u32 structure_count
    u32 prefetch_pages              # how many pages behind one that was walked for are fetched too
    bint is_tagged                  # keys hold the address space; else a switch empties everything
    bint places_tables              # page sizes of tables follow `table_page_shift`, not the access
    u8 table_page_shift
    u8 page_shift                   # where the trace says nothing
    u8 nested_page_shift
    u16 asid
    frames_t frames
    # What happened beside the structures:
    u64 walks
    u64 prefetch_walks
    u64 prefetch_references
    u64 cycles_of_walks             # latencies of everything behind a miss of the first level
