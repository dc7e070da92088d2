"""Module `traces`: bytes of trace files to records (model/record.pxd) and back.

Contract: every parser takes bytes of any content and any length. It gives (records, bytes used, what is wrong): all
records before the first that is cut or wrong, how many bytes they took, and an empty text or what is wrong at that
place. What is only cut is no error here: the caller comes again with more bytes, or finds that there are none.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from hvcore._native.base.types cimport u8, u16, u32, u64
from hvcore._native.model.record cimport KIND_FETCH, KIND_LOAD, KIND_MODIFY, KIND_STORE, record_t
from libc.string cimport memchr, memcpy, memset

cdef enum:
    LACKEY_LINE_LEAST = 6       # bytes of the shortest line that is a record
    SIZE_MOST = 65535
    CHAMPSIM_BYTES = 64
    CLOUDSUITE_BYTES = 96
    OPERANDS = 8                # of the larger of the two: four of each side
    DRMEMTRACE_BYTES = 12
    GEM5_MESSAGE_MOST = 1 << 16
    GEM5_FETCH = 0x100          # of a request's flags
    # trace_type_t of DynamoRIO
    TYPE_WRITE = 1
    TYPE_INSTR = 10
    TYPE_RETURN = 16
    TYPE_BUNDLE = 17
    TYPE_NO_FETCH = 29
    TYPE_MAYBE_FETCH = 30
    TYPE_SYSENTER = 31
    TYPE_ENCODING = 47
    TYPE_TAKEN = 48
    TYPE_UNTAKEN = 49

cdef u8[256] hex_digit          # 16 and more: none
cdef u32 character
memset(hex_digit, 0xFF, 256)
for character in range(16):
    hex_digit[<u32>ord("0123456789abcdef"[character])] = <u8>character
    hex_digit[<u32>ord("0123456789ABCDEF"[character])] = <u8>character

cdef struct parsed_t:
    u64 used                # bytes
    u64 records
    const char* wrong       # NULL: nothing


cdef inline void put(record_t* record, u64 address, u64 size_bytes, u8 kind) noexcept nogil:
    (<u64*>record)[1] = min(size_bytes, <u64>SIZE_MOST) | <u64>kind << 32
    record.address = address


cdef parsed_t parse_lines(const u8* data, u64 size_bytes, record_t* records) noexcept nogil:
    """Lines of lackey. Every line up to the last newline ends inside `data`, so that looking for its end is safe."""
    cdef parsed_t result = parsed_t(used=0, records=0, wrong=NULL)
    cdef const u8* at = data
    cdef const u8* last = data + size_bytes - 1
    cdef const u8* digits
    cdef u64 address, amount
    cdef u8 kind, letter
    while last >= data and last[0] != c"\n":
        last -= 1
    while at <= last:
        letter = at[0]
        if letter == c"I":
            kind = KIND_FETCH
        elif letter == c" ":
            letter = at[1]
            kind = KIND_LOAD if letter == c"L" else KIND_STORE if letter == c"S" else KIND_MODIFY
            if letter != c"L" and letter != c"S" and letter != c"M":
                result.wrong = "a line must start with 'I  ', ' L ', ' S ', ' M ', '==', '--' or '**'"
                break
        elif letter == c"\n" or letter == c"\r" or (
                (letter == c"=" or letter == c"-" or letter == c"*") and at[1] == letter):
            at = <const u8*>memchr(at, c"\n", last + 1 - at) + 1
            continue
        else:
            result.wrong = "a line must start with 'I  ', ' L ', ' S ', ' M ', '==', '--' or '**'"
            break
        if (kind == KIND_FETCH and at[1] != c" ") or at[2] != c" ":
            result.wrong = "blanks are missing in front of the address"
            break
        digits = at + 3
        address = 0
        while hex_digit[digits[0]] < 16:
            address = address << 4 | hex_digit[digits[0]]
            digits += 1
        if digits == at + 3 or digits > at + 19 or digits[0] != c",":
            result.wrong = "an address must be 1 to 16 hexadecimal digits and a comma"
            break
        digits += 1
        amount = 0
        while <u8>(digits[0] - c"0") < 10:
            amount = min(amount * 10 + (digits[0] - <u8>c"0"), <u64>1 << 32)
            digits += 1
        if digits[-1] == c",":
            result.wrong = "a size must be decimal digits"
            break
        digits += digits[0] == c"\r"
        if digits[0] != c"\n":
            result.wrong = "something follows the size"
            break
        put(&records[result.records], address, amount, kind)
        result.records += 1
        at = digits + 1
    result.used = at - data
    return result


cdef void put_operands(parsed_t* result, record_t* records, const u64* targets, u32 target_count, const u64* sources,
                       u32 source_count) noexcept nogil:
    """Operands of one instruction, loads first. One place in both lists is read and written by one access."""
    cdef u64[OPERANDS] target, source
    cdef bint[OPERANDS] both
    cdef u32 i, j
    memcpy(target, targets, target_count * 8)       # the record may lie anywhere
    memcpy(source, sources, source_count * 8)
    for j in range(target_count):
        both[j] = False
    for i in range(source_count):
        if source[i] == 0:
            continue
        for j in range(target_count):
            if target[j] == source[i] and not both[j]:
                both[j] = True
                break
        else:
            put(&records[result.records], source[i], 0, KIND_LOAD)
            result.records += 1
    for j in range(target_count):
        if target[j]:
            put(&records[result.records], target[j], 0, KIND_MODIFY if both[j] else KIND_STORE)
            result.records += 1


cdef parsed_t parse_instructions(const u8* data, u64 size_bytes, bint cloudsuite, record_t* records) noexcept nogil:
    cdef parsed_t result = parsed_t(used=0, records=0, wrong=NULL)
    cdef u64 width = CLOUDSUITE_BYTES if cloudsuite else CHAMPSIM_BYTES, ip
    while size_bytes - result.used >= width:
        if data[8] > 1 or data[9] > 1:
            result.wrong = "is_branch and branch_taken must be 0 or 1"
            break
        memcpy(&ip, data, 8)
        put(&records[result.records], ip, 0, KIND_FETCH)
        result.records += 1
        if cloudsuite:
            put_operands(&result, records, <const u64*>(data + 24), 4, <const u64*>(data + 56), 4)
        else:
            put_operands(&result, records, <const u64*>(data + 16), 2, <const u64*>(data + 32), 4)
        data += width
        result.used += width
    return result


cdef parsed_t parse_entries(const u8* data, u64 size_bytes, u64* next_pc, record_t* records) noexcept nogil:
    """trace_entry_t of drmemtrace: u16 type, u16 size, u64 address. `next_pc` is where a bundle goes on."""
    cdef parsed_t result = parsed_t(used=0, records=0, wrong=NULL)
    cdef u16 kind, amount
    cdef u64 address, i
    while size_bytes - result.used >= DRMEMTRACE_BYTES:
        memcpy(&kind, data, 2)
        memcpy(&amount, data + 2, 2)
        memcpy(&address, data + 4, 8)
        if kind <= TYPE_WRITE:
            put(&records[result.records], address, amount, KIND_STORE if kind == TYPE_WRITE else KIND_LOAD)
            result.records += 1
        elif TYPE_INSTR <= kind <= TYPE_RETURN or kind in (TYPE_MAYBE_FETCH, TYPE_SYSENTER, TYPE_TAKEN, TYPE_UNTAKEN):
            put(&records[result.records], address, amount, KIND_FETCH)
            result.records += 1
            next_pc[0] = address + amount
        elif kind == TYPE_BUNDLE:
            if amount > 8:
                result.wrong = "a bundle has at most 8 instructions"
                break
            for i in range(amount):
                put(&records[result.records], next_pc[0], data[4 + i], KIND_FETCH)
                result.records += 1
                next_pc[0] += data[4 + i]
        elif kind > TYPE_UNTAKEN:
            result.wrong = "there is no such type of entry"
            break
        data += DRMEMTRACE_BYTES
        result.used += DRMEMTRACE_BYTES
    return result


cdef bint read_varint(const u8** at, const u8* end, u64* value) noexcept nogil:
    """A protobuf number. False: it is cut, or longer than ten bytes."""
    cdef u32 shift = 0
    value[0] = 0
    while at[0] < end and shift < 70:
        value[0] |= <u64>(at[0][0] & 127) << shift if shift < 64 else 0
        shift += 7
        at[0] += 1
        if at[0][-1] < 128:
            return True
    return False


cdef bint parse_packet(const u8* at, const u8* end, u64* fields) noexcept nogil:
    """A message's numbers by field, up to 7. False: it is no protobuf message."""
    cdef u64 tag, value
    memset(fields, 0, 8 * 8)
    while at < end:
        if not read_varint(&at, end, &tag):
            return False
        if tag & 7 == 0:
            if not read_varint(&at, end, &value):
                return False
            if tag >> 3 < 8:
                fields[tag >> 3] = value
            continue
        if tag & 7 == 2:
            if not read_varint(&at, end, &value):
                return False
        elif tag & 7 == 1:
            value = 8
        elif tag & 7 == 5:
            value = 4
        else:
            return False
        if value > <u64>(end - at):
            return False
        at += value
    return True


cdef int kind_of_packet(u64 command, u64 flags) noexcept nogil:
    """MemCmd of gem5 v24 to a kind; -1: a response, a write-back or a prefetch, no access of a program."""
    if command in (1, 22, 24, 25, 26, 30):      # Read, ReadEx, ReadClean, ReadShared, LoadLocked, LockedRMWRead
        return KIND_FETCH if flags & GEM5_FETCH else KIND_LOAD
    if command in (4, 16, 27, 32):              # Write, WriteLine, StoreCond, LockedRMWWrite
        return KIND_STORE
    return KIND_MODIFY if command == 34 else -1     # Swap


cdef parsed_t parse_packets(const u8* data, u64 size_bytes, bint* has_header, record_t* records) noexcept nogil:
    """Messages of gem5 behind the magic number, each after its length; the first is a header."""
    cdef parsed_t result = parsed_t(used=0, records=0, wrong=NULL)
    cdef const u8* at = data
    cdef const u8* end = data + size_bytes
    cdef u64[8] fields
    cdef u64 length
    cdef int kind
    while at < end:
        if not read_varint(&at, end, &length):
            if end - (data + result.used) >= 10:
                result.wrong = "the length of a message is no number"
            break
        if length > GEM5_MESSAGE_MOST:
            result.wrong = "a message is longer than any packet"
            break
        if length > <u64>(end - at):
            break
        if not parse_packet(at, at + length, fields):
            result.wrong = "this is no protobuf message"
            break
        at += length
        result.used = at - data
        if not has_header[0]:
            has_header[0] = True
            continue
        kind = kind_of_packet(fields[2], fields[5])
        if kind >= 0:
            put(&records[result.records], fields[3], fields[4], <u8>kind)
            result.records += 1
    return result


cdef class Parser:
    """The parsers by name, with what they carry from one piece of a file to the next.

    Raises
    ------
    ValueError
        There is no format of that name.
    """
    cdef readonly str format
    cdef u64 next_pc
    cdef bint has_header

    def __init__(self, str format not None):
        if format not in FORMATS:
            raise ValueError(f"there is no format {format!r}: one of {', '.join(FORMATS)}")
        self.format = format

    def room_for(self, u64 size_bytes):
        """Records that so many bytes may hold at most."""
        if self.format == "lackey":
            return size_bytes // LACKEY_LINE_LEAST + 1
        if self.format == "champsim":
            return 7 * (size_bytes // CHAMPSIM_BYTES + 1)
        if self.format == "cloudsuite":
            return 9 * (size_bytes // CLOUDSUITE_BYTES + 1)
        if self.format == "drmemtrace":
            return 8 * (size_bytes // DRMEMTRACE_BYTES + 1)
        return size_bytes // 3 + 1      # a length, a tag and a command

    def parse(self, const u8[::1] data not None, u8[::1] records not None):
        """Parse into `records`, room_for(len(data)) * 16 bytes: (records, bytes used, what is wrong or "")."""
        cdef parsed_t parsed = parsed_t(used=0, records=0, wrong=NULL)
        cdef u64 size_bytes = data.shape[0]
        cdef const u8* source
        cdef record_t* target
        cdef bint is_cloudsuite
        if <u64>records.shape[0] < <u64>self.room_for(size_bytes) * sizeof(record_t):
            raise ValueError(f"records must have room for {self.room_for(size_bytes)} records")
        if size_bytes == 0:
            return 0, 0, ""
        source, target = &data[0], <record_t*>&records[0]
        if self.format == "lackey":
            with nogil:
                parsed = parse_lines(source, size_bytes, target)
        elif self.format == "drmemtrace":
            with nogil:
                parsed = parse_entries(source, size_bytes, &self.next_pc, target)
        elif self.format == "gem5":
            with nogil:
                parsed = parse_packets(source, size_bytes, &self.has_header, target)
        else:
            is_cloudsuite = self.format == "cloudsuite"
            with nogil:
                parsed = parse_instructions(source, size_bytes, is_cloudsuite, target)
        return parsed.records, parsed.used, "" if parsed.wrong == NULL else parsed.wrong.decode()


FORMATS = ("lackey", "champsim", "cloudsuite", "drmemtrace", "gem5")

include "traces_write.pxi"
