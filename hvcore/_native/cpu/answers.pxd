"""Device memory as a processor meets it: which of it somebody answers for, and the answers themselves.

A read of device memory leaves the run before anything has changed, and the instruction runs again from its start once
the answer is there. One that reads twice (CMPS, IRET from a stack in a device) leaves twice: it finds the answers of
its first reads in the order in which it asked.
"""
from hvcore._native.base.types cimport u32, u64, u8
from hvcore._native.cpu.state cimport ANSWERS, SLOT_RIP, vp_t
from hvcore._native.hv.state cimport partition_t
from libc.string cimport memcpy


cdef inline bint is_claimed(const partition_t *partition, u64 gpa, u32 size_bytes) noexcept nogil:
    """Whether a device of the machine has any byte of the access. All else below the root floats."""
    cdef u32 i
    for i in range(partition.device_range_count):
        if gpa <= partition.device_ranges[i].last and gpa + size_bytes - 1 >= partition.device_ranges[i].first:
            return True
    return False


cdef inline bint reads_too_much(const vp_t *vp) noexcept nogil:
    """The instruction has used up all the room for answers, and would ask for ever: the bus floats for it.
    In the root it runs alone (a shadow is set), so that its time is at most a tick after the answers'."""
    return (vp.answers_taken == ANSWERS
            and vp.slice_end - <u64>vp.remaining <= vp.answers_time + 1)


cdef inline const u8 *answer_take(vp_t *vp, u64 gpa, u32 size_bytes) noexcept nogil:
    """The answer to the next read of the instruction, or NULL while there is none."""
    cdef u32 at = vp.answers_taken
    if at >= vp.answer_count or vp.answers[at].gpa != gpa or vp.answers[at].size_bytes != size_bytes:
        return NULL
    vp.answers_taken += 1
    return vp.answers[at].data


cdef inline void answer_give(vp_t *vp, const u8 *data) noexcept nogil:
    """Answer the read of vp.exit. Answers of another instruction, or of the same at another time, are forgotten."""
    cdef u32 at = vp.answers_taken
    if at == ANSWERS or vp.answers_rip != vp.registers[SLOT_RIP] or vp.answers_time != vp.slice_end:
        at = 0
    vp.answers_rip = vp.registers[SLOT_RIP]
    vp.answers_time = vp.slice_end
    vp.answers[at].gpa = vp.exit.gpa
    vp.answers[at].size_bytes = vp.exit.size_bytes
    memcpy(vp.answers[at].data, data, sizeof(vp.answers[at].data))
    vp.answer_count = at + 1
    vp.answers_taken = 0
