# Chapter of models.pyx: the loops over records, and one function for each shape of structure.

cdef bint touch_short(structure_t* s, u64 key) noexcept nogil:
    return touch_ordered(s, key, SHORT_ROW_KEYS)


cdef bint touch_long(structure_t* s, u64 key) noexcept nogil:
    return touch_ordered(s, key, LONG_ROW_KEYS)


cdef bint touch_unordered(structure_t* s, u64 key) noexcept nogil:
    return touch_row(s, key)


cdef bint touch_hashed(structure_t* s, u64 key) noexcept nogil:
    return touch_wide(s, key)


# Out of line, so that the loops keep what they need in registers.

cdef bint take(model_t* m, u64 address, u64 word) noexcept nogil:
    return take_record(m, address, word)


cdef outcome_t finish_flat(model_t* m, u64 address, u64 word, const u64* gpa) noexcept nogil:
    return finish_miss(m, address, word, NULL, True)


cdef outcome_t finish_deep(model_t* m, u64 address, u64 word, const u64* gpa) noexcept nogil:
    return finish_miss(m, address, word, gpa, False)


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
        if not take(m, record[0], word[0]):
            m.finish(m, record[0], word[0], gpa + (record - first) // address_step if gpa != NULL else NULL)
        tally = m.tally
        record += address_step
        word += word_step
    spend_tally(m)


cdef void run_noting(model_t* m, const u64* record, u64 address_step, const u64* word, u64 word_step, const u64* gpa,
                     u64 count, outcome_t* outcomes) noexcept nogil:
    """run_model that notes what became of every record."""
    cdef u64 i
    for i in range(count):
        if is_latest(m, record[0], word[0]):
            m.tally += weight_of(m, word[0])
            outcomes[i] = hit_outcome(m, word[0])
        elif take(m, record[0], word[0]):
            outcomes[i] = hit_outcome(m, word[0])
        else:
            outcomes[i] = m.finish(m, record[0], word[0], gpa + i if gpa != NULL else NULL)
        record += address_step
        word += word_step
    spend_tally(m)
