# Chapter of traces.pyx: records to the bytes of trace files.

cdef enum:
    LINE_MOST = 3 + 16 + 1 + 5 + 1
    TARGETS = 2             # operands of a ChampSim record
    SOURCES = 4


def lackey_text(const u8[::1] records not None):
    """(text of lackey, records that it cannot say: flushes and invalidations)."""
    cdef u64 count = records.shape[0] // sizeof(record_t), i, dropped = 0
    cdef bytes buffer = PyBytes_FromStringAndSize(NULL, count * LINE_MOST)
    cdef char* start = <char*>buffer
    cdef char* at = start
    with nogil:
        for i in range(count):
            if not write_line((<const record_t*>&records[0]) + i, &at):
                dropped += 1
    return buffer[:at - start], dropped


cdef bint write_line(const record_t* record, char** at) noexcept nogil:
    """One line; addresses have at least eight digits, as lackey's have."""
    cdef int shift = 28
    cdef u32 divisor = 10000
    if record.kind > KIND_MODIFY:
        return False
    while shift < 60 and record.address >> (shift + 4):
        shift += 4
    at[0][0] = c"I" if record.kind == KIND_FETCH else c" "
    at[0][1] = c" " if record.kind == KIND_FETCH else b"ILSM"[record.kind]
    at[0][2] = c" "
    at[0] += 3
    while shift >= 0:
        at[0][0] = b"0123456789abcdef"[record.address >> shift & 15]
        at[0] += 1
        shift -= 4
    at[0][0] = c","
    at[0] += 1
    while divisor > 1 and record.size_bytes < divisor:
        divisor //= 10
    while divisor:
        at[0][0] = <char>(c"0" + record.size_bytes // divisor % 10)
        at[0] += 1
        divisor //= 10
    at[0][0] = c"\n"
    at[0] += 1
    return True


cdef struct instruction_t:  # input_instr of ChampSim
    u64 ip
    u8[8] unknown           # branch and registers: a trace of accesses does not know them
    u64[TARGETS] targets
    u64[SOURCES] sources


cdef inline bint add_operand(u64* slots, u32 count, u64 address) noexcept nogil:
    cdef u32 i
    for i in range(count):
        if slots[i] == 0:
            slots[i] = address
            return True
    return False


cdef class ChampsimPacker:
    """Puts each fetch and the accesses behind it into one record of ChampSim, which has two targets and four sources.

    `dropped` counts what did not fit or cannot be said: further operands, address 0, accesses before the first
    fetch, flushes and invalidations."""
    cdef instruction_t pending
    cdef bint has_pending
    cdef readonly u64 dropped

    def pack(self, const u8[::1] records not None):
        """The records of all instructions that these accesses complete, as bytes; the last one stays for `rest`."""
        cdef u64 count = records.shape[0] // sizeof(record_t), i, written = 0
        cdef bytes buffer = PyBytes_FromStringAndSize(NULL, count * sizeof(instruction_t))
        cdef char* target = <char*>buffer
        with nogil:
            for i in range(count):
                written += self.take((<const record_t*>&records[0]) + i, target + written)
        return buffer[:written]

    def rest(self):
        """The record of the last instruction, once."""
        if not self.has_pending:
            return b""
        self.has_pending = False
        return PyBytes_FromStringAndSize(<char*>&self.pending, sizeof(instruction_t))

    cdef u64 take(self, const record_t* record, char* target) noexcept nogil:
        """Note one access. Bytes written: a fetch sends off the instruction before it."""
        cdef u64 written = 0
        if record.kind == KIND_FETCH:
            if self.has_pending:
                memcpy(target, &self.pending, sizeof(instruction_t))
                written = sizeof(instruction_t)
            memset(&self.pending, 0, sizeof(instruction_t))
            self.pending.ip = record.address
            self.has_pending = True
            return written
        if record.kind > KIND_MODIFY or not self.has_pending or record.address == 0:
            self.dropped += 1
            return 0
        if record.kind != KIND_STORE and not add_operand(self.pending.sources, SOURCES, record.address):
            self.dropped += 1
        if record.kind != KIND_LOAD and not add_operand(self.pending.targets, TARGETS, record.address):
            self.dropped += 1
        return 0
