# Chapter of models.pyx: the loops over records, and one function for each shape of structure.

cdef bint touch_short(structure_t* s, u64 key) noexcept nogil:
    return touch_ordered(s, key, SHORT_ROW_KEYS)


cdef bint touch_long(structure_t* s, u64 key) noexcept nogil:
    return touch_ordered(s, key, LONG_ROW_KEYS)


cdef bint touch_unordered(structure_t* s, u64 key) noexcept nogil:
    return touch_row(s, key)


cdef bint touch_hashed(structure_t* s, u64 key) noexcept nogil:
    return touch_wide(s, key)


cdef outcome_t take(model_t* m, u64 address, u64 word, const u64* gpa) noexcept nogil:
    return take_record(m, address, word, gpa)


cdef void run_model(model_t* m, const u64* record, u64 address_step, const u64* word, u64 word_step, const u64* gpa,
                    u64 count) noexcept nogil:
    """Feed at most TALLY_MOST records, given by their two words, each at a distance of its own: zero repeats one.
    `gpa` may be NULL."""
    cdef const u64* end = record + count * address_step
    cdef const u64* first = record
    cdef u64 tally = 0
    while True:
        while record != end and likely(is_latest(m, record[0], word[0])):
            tally += weight_of(m, word[0])
            record += address_step
            word += word_step
        m.tally = tally
        if record == end:
            break
        take(m, record[0], word[0], gpa + (record - first) // address_step if gpa != NULL else NULL)
        tally = m.tally
        record += address_step
        word += word_step
    spend_tally(m)


cdef void run_noting(model_t* m, const u64* record, u64 address_step, const u64* word, u64 word_step, const u64* gpa,
                     u64 count, outcome_t* outcomes) noexcept nogil:
    """run_model that notes what became of every record."""
    cdef u64 i
    cdef u32 kind
    for i in range(count):
        if is_latest(m, record[0], word[0]):
            m.tally += weight_of(m, word[0])
            kind = <u32>(word[0] >> KIND_WORD_SHIFT & 3)
            outcomes[i] = outcome_t(level=0, guest_references=0, nested_references=0,
                                    cycles=m.first_latencies[kind][m.latest[m.groups[kind]].size])
        else:
            outcomes[i] = take(m, record[0], word[0], gpa + i if gpa != NULL else NULL)
        record += address_step
        word += word_step
    spend_tally(m)
