"""Module `models`: modelled TLBs and page-walk caches, and stack distances.

Contract: the Python layer (hvcore/experiments) has checked every geometry; batches run without the GIL, and an object
that is in use by one thread refuses another. Addresses, kinds and page sizes may be anything.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from hvcore._native.base.types cimport i64, u8, u16, u32, u64
from hvcore._native.model.frames cimport frames_release
from hvcore._native.model.record cimport KIND_COUNT
from hvcore._native.model.stack cimport stack_t, stacks_release, use_page
from hvcore._native.model.structure cimport (
    EMPTY, LONG_ROW_KEYS, POLICY_FIFO, ROW_WAYS, SHORT_ROW_KEYS, SHORT_ROW_WAYS, entry_t, first_order_of, low_nibbles,
    slot_t, structure_t, touch_ordered, touch_row,
)
from hvcore._native.model.state cimport (
    ADDRESS_MASK, GROUPS, LEVELS, SIZES, TALLY_MOST, dimension_t, model_t, outcome_t,
)
from hvcore._native.model.translation cimport (
    finish_miss, flush_model, flush_space, forget_latest, hit_outcome, invalidate_model, is_latest, likely, spend_tally,
    take_record, weight_of,
)
from hvcore._native.model.wide cimport clear, held_by, key_at, touch_wide
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

cdef extern from "<stdlib.h>" nogil:
    void* aligned_alloc(size_t alignment, size_t size_bytes)

POLICIES = ("lru", "fifo", "tree-plru", "nru", "srrip", "random")
OUTCOME_BYTES = sizeof(outcome_t)

cdef enum:
    LINE_WORDS = 8              # of a cache line of the host
    SLOTS_PER_ENTRY = 3         # the hash of a wide structure is a quarter to a third full


include "models_loops.pxi"


cdef u64 in_lines(u64 words) noexcept:
    """A row's size: part of a line, or whole ones."""
    cdef u64 size = 1
    while size < words and size < LINE_WORDS:
        size *= 2
    return size if words <= LINE_WORDS else (words + LINE_WORDS - 1) // LINE_WORDS * LINE_WORDS


cdef class ModelCore:
    """What hvcore.experiments.models.TranslationModel is made of.

    Parameters
    ----------
    layouts : list of (name, sets, ways, policy number, seed, nested) for each structure
    first, second : lists of (kind, page size code, name, latency)
    nested_tlb : list of (page size code, name, latency)
    guest, nested : (levels, latency of a reference, list of (table, name, latency))
    options : (pages to prefetch, tagged, page shift, nested page shift, page shift of tables or 0)
    """

    def __init__(self, list layouts, list first, list second, list nested_tlb, tuple guest, tuple nested,
                 tuple options):
        self.lay_out(layouts)
        for kind, size, name, latency in first:
            self.model.first[<u32>kind][<u32>size] = self.named(name)
            self.model.first_latencies[<u32>kind][<u32>size] = latency
        for kind, size, name, latency in second:
            self.model.second[<u32>kind][<u32>size] = self.named(name)
            self.model.second_latencies[<u32>kind][<u32>size] = latency
        for size, name, latency in nested_tlb:
            self.model.nested_tlb[<u32>size] = self.named(name)
            self.model.nested_tlb_latencies[<u32>size] = latency
        self.group_kinds()
        self.place_dimension(&self.model.guest, guest)
        self.place_dimension(&self.model.nested, nested)
        self.model.prefetch_pages, self.model.is_tagged, self.model.page_shift, self.model.nested_page_shift, shift = \
            options
        self.model.finish = finish_deep if self.model.nested.levels or self.model.prefetch_pages else finish_flat
        self.model.places_tables = shift != 0
        self.model.table_page_shift = shift

    def __dealloc__(self):
        frames_release(&self.model.frames)
        free(self.model.structures)
        free(self.arena)

    cdef void group_kinds(self) noexcept:
        """Kinds that the same structures of the first level serve make a group."""
        cdef model_t* m = &self.model
        cdef u32 kind, other, shared, pair
        memset(m.groups, GROUPS - 1, 256)
        for kind in range(4):
            m.weights[kind] = <u64>1 << 16 * kind
            m.groups[kind] = <u8>kind
            for other in range(kind):
                shared = 0
                for pair in range(<u32>SIZES * SIZES):
                    shared += m.first[kind][pair % SIZES] != NULL and (
                        m.first[kind][pair % SIZES] == m.first[other][pair // SIZES])
                if memcmp(m.first[kind], m.first[other], sizeof(m.first[kind])) == 0:
                    m.groups[kind] = m.groups[other]
                elif shared:
                    m.groups_overlap = True
        forget_latest(m)

    cdef int place_dimension(self, dimension_t* d, object facts) except -1:
        d.levels, d.reference_latency, caches = facts
        for table, name, latency in caches:
            d.caches[<u32>table] = self.named(name)
            d.latencies[<u32>table] = latency

    cdef structure_t* named(self, object name) except? NULL:
        return &self.model.structures[<u32>self.names.index(name)]

    cdef int lay_out(self, list layouts) except -1:
        cdef structure_t* s
        cdef u32 i
        cdef u64 words = 0
        self.names = tuple(layout[0] for layout in layouts)
        self.model.structures = <structure_t*>calloc(len(layouts) + 1, sizeof(structure_t))
        if self.model.structures == NULL:
            raise MemoryError("the host has no memory for a translation model")
        self.model.structure_count = len(layouts)
        for i in range(self.model.structure_count):
            s = &self.model.structures[i]
            _, s.sets, s.ways, s.policy, s.seed, s.is_nested = layouts[i]
            s.random = s.seed
            s.set_mask = s.sets - 1
            s.is_masked = s.sets & (s.sets - 1) == 0
            s.is_wide = s.ways > ROW_WAYS
            s.touch = (touch_hashed if s.is_wide else touch_unordered if s.policy > POLICY_FIFO else
                       touch_short if s.ways <= SHORT_ROW_WAYS else touch_long)
            s.order_mask = low_nibbles(min(s.ways, <u32>ROW_WAYS))
            s.order_top = 4 * (s.ways - 1) & 63
            s.first_order = 0 if s.is_wide else first_order_of(s.policy, s.ways)
            words = self.place(s, words)
        self.arena_words = words
        self.arena = <u64*>aligned_alloc(64, max(words, <u64>LINE_WORDS) * 8)
        if self.arena == NULL:
            raise MemoryError(f"the host has no {words * 8:#x} bytes for a translation model")
        memset(self.arena, 0xFF, max(words, <u64>LINE_WORDS) * 8)
        words = 0
        for i in range(self.model.structure_count):
            words = self.place(&self.model.structures[i], words)
            clear(&self.model.structures[i])
            self.model.structures[i].invalidations = 0

    cdef u64 place(self, structure_t* s, u64 at) noexcept:
        """Where a structure's arrays lie from word `at` of the arena on; the word behind them, on a line."""
        cdef u64 entries = s.sets * s.ways, slots = 2
        if not s.is_wide:
            s.key_word = SHORT_ROW_KEYS if s.ways <= SHORT_ROW_WAYS else LONG_ROW_KEYS
            s.row_words = in_lines(s.key_word + s.ways)
            s.rows = self.arena + at
            return at + in_lines(max(s.sets * s.row_words, <u64>LINE_WORDS))
        s.slot_shift = 63
        while slots < SLOTS_PER_ENTRY * entries:
            slots *= 2
            s.slot_shift -= 1
        s.slot_mask = slots - 1
        s.slots = <slot_t*>(self.arena + at)
        s.entries = <entry_t*>(s.slots + slots)
        s.head = <u32*>(s.entries + entries)
        s.filled = s.head + s.sets
        s.state = <u8*>(s.filled + s.sets)
        return at + in_lines(2 * slots + 2 * entries + s.sets + (entries + 7) // 8 + LINE_WORDS)

    def run(self, const u64[:, ::1] records, u64 word, const u64[::1] gpa, u8[::1] outcomes):
        """Feed records as rows of their two words, or addresses as rows of one, for which `word` stands. `gpa`, and
        `outcomes`, OUTCOME_BYTES for each, may be None."""
        cdef u64 count = records.shape[0], width = records.shape[1], word_step = 2 if width == 2 else 0
        cdef u64 done = 0, part
        cdef const u64* words = &word
        cdef const u64* gpas = NULL
        cdef const u64* place
        cdef outcome_t* results = NULL
        if gpa is not None and <u64>gpa.shape[0] != count:
            raise ValueError(f"there are {count} records, but {len(gpa)} guest-physical addresses")
        if outcomes is not None and <u64>outcomes.shape[0] != count * sizeof(outcome_t):
            raise ValueError(f"outcomes must have {count * sizeof(outcome_t)} bytes, not {len(outcomes)}")
        if self.busy:
            raise RuntimeError("this model is in use by another thread: use one per thread")
        if count == 0:
            return
        if width == 2:
            words = &records[0, 1]
        if gpa is not None:
            gpas = &gpa[0]
        if outcomes is not None:
            results = <outcome_t*>&outcomes[0]
        self.busy = True
        with nogil:
            while done < count:
                part = min(count - done, <u64>TALLY_MOST)
                place = gpas + done if gpas != NULL else NULL
                if results != NULL:
                    run_noting(&self.model, &records[done, 0], width, words, word_step, place, part, results + done)
                else:
                    run_model(&self.model, &records[done, 0], width, words, word_step, place, part)
                words += part * word_step
                done += part
        self.busy = False
        if self.model.frames.failed:
            raise MemoryError("the host has no memory for the model's guest-physical frames")

    def flush(self, asid=None):
        """Empty what the first dimension holds, of one address space or of all."""
        forget_latest(&self.model)
        if asid is None:
            flush_model(&self.model)
        else:
            flush_space(&self.model, asid)

    def invalidate(self, u64 address, u16 asid):
        """INVLPG."""
        forget_latest(&self.model)
        invalidate_model(&self.model, address & <u64>ADDRESS_MASK, asid if self.model.is_tagged else 0)

    def counters(self):
        """Everything that was counted, as plain numbers: see TranslationModel.counters."""
        cdef model_t* m = &self.model
        cdef u32 i, j
        return {
            "accesses": [[m.accesses[i][j] for j in range(<u32>SIZES)] for i in range(<u32>KIND_COUNT)],
            "references": [[m.guest.references[i] for i in range(1, <u32>LEVELS)],
                           [m.nested.references[i] for i in range(1, <u32>LEVELS)]],
            "walks": m.walks, "nested_walks": m.nested.walks,
            "prefetch_walks": m.prefetch_walks, "prefetch_references": m.prefetch_references,
            "miss_cycles": m.cycles_of_walks,
            "structures": [(m.structures[i].lookups, m.structures[i].misses, evictions_of(&m.structures[i]),
                            m.structures[i].invalidations, m.structures[i].prefetches)
                           for i in range(m.structure_count)],
        }

    def contents(self, name):
        """Keys that a structure holds, as (page number, asid, page size code), set by set."""
        cdef structure_t* s = self.named(name)
        cdef u64 row, way, key
        found = []
        for row in range(s.sets):
            for way in range(s.ways):
                key = key_at(s, row, way)
                if key != <u64>EMPTY:
                    found.append((key >> 18, key >> 2 & 0xFFFF, key & 3))
        return found

    def save(self):
        """The whole state, contents and counters, as bytes for `load` of a model that is configured alike."""
        cdef model_t* m = &self.model
        cdef u64 slots = m.frames.capacity
        return b"".join((
            PyBytes_FromStringAndSize(<char*>self.arena, self.arena_words * 8),
            PyBytes_FromStringAndSize(<char*>m.structures, m.structure_count * sizeof(structure_t)),
            PyBytes_FromStringAndSize(<char*>m, sizeof(model_t)),
            PyBytes_FromStringAndSize(<char*>m.frames.keys, slots * 8) if slots else b"",
            PyBytes_FromStringAndSize(<char*>m.frames.numbers, slots * 8) if slots else b"",
        ))

    def load(self, const u8[::1] state not None):
        """Take the state that `save` of a model with the same configuration gave.

        Raises
        ------
        ValueError
            It has another size than this model's state can have.
        """
        cdef u64 arena = self.arena_words * 8, table = self.model.structure_count * sizeof(structure_t), i
        cdef u64 fixed = arena + table + sizeof(model_t), slots = 0
        cdef model_t saved
        cdef structure_t kept
        cdef structure_t* s
        if <u64>state.shape[0] >= fixed:
            memcpy(&saved, &state[arena + table], sizeof(model_t))
            slots = saved.frames.capacity
        if <u64>state.shape[0] != fixed + 16 * slots or slots > <u64>1 << 40 or slots & (slots - 1):
            raise ValueError("this is not the state of a model that is configured like this one")
        frames_release(&self.model.frames)
        if slots:
            self.model.frames.keys = <u64*>malloc(slots * 8)
            self.model.frames.numbers = <u64*>malloc(slots * 8)
            if self.model.frames.keys == NULL or self.model.frames.numbers == NULL:
                frames_release(&self.model.frames)
                raise MemoryError("the host has no memory for the model's guest-physical frames")
            memcpy(self.model.frames.keys, &state[fixed], slots * 8)
            memcpy(self.model.frames.numbers, &state[fixed + slots * 8], slots * 8)
        if arena:
            memcpy(self.arena, &state[0], arena)
        take_counts(&self.model, &saved)
        forget_latest(&self.model)
        for i in range(self.model.structure_count):
            s = &self.model.structures[i]
            memcpy(&kept, &state[arena + i * sizeof(structure_t)], sizeof(structure_t))
            s.random, s.misses, s.lookups = kept.random, kept.misses, kept.lookups
            s.invalidations, s.prefetches = kept.invalidations, kept.prefetches


cdef u64 evictions_of(const structure_t* s) noexcept:
    """Every fill took an empty entry or evicted one, and what came in and is not there any more has left."""
    return s.misses + s.prefetches - s.invalidations - held_by(s)


cdef void take_counts(model_t* m, const model_t* saved) noexcept:
    """Whatever is no pointer and no configuration."""
    memcpy(m.accesses, saved.accesses, sizeof(m.accesses))
    memcpy(m.guest.references, saved.guest.references, sizeof(m.guest.references))
    memcpy(m.nested.references, saved.nested.references, sizeof(m.nested.references))
    memcpy(m.frames.used, saved.frames.used, sizeof(m.frames.used))
    m.frames.capacity, m.frames.count = saved.frames.capacity, saved.frames.count
    m.guest.walks, m.nested.walks, m.walks = saved.guest.walks, saved.nested.walks, saved.walks
    m.prefetch_walks, m.prefetch_references = saved.prefetch_walks, saved.prefetch_references
    m.cycles_of_walks, m.asid = saved.cycles_of_walks, saved.asid


include "models_stack.pxi"
