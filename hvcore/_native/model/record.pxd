"""One memory access as traces and models know it: 16 bytes, the dtype RECORD of hvcore/experiments/records.py.

Beside accesses a stream has the two events that empty a TLB. Page sizes are those of the translation, at both levels;
zero: not known, the model's own default.
"""
from hvcore._native.base.types cimport u16, u64, u8

cdef enum RecordKind:
    KIND_FETCH              # I of lackey
    KIND_LOAD               # L
    KIND_STORE              # S
    KIND_MODIFY             # M: read and write of one place, one look-up
    KIND_FLUSH              # every translation of the address space
    KIND_INVALIDATE         # those of one page
    KIND_COUNT


cdef struct record_t:
    u64 address
    u16 size_bytes          # 65535: that or more
    u16 asid
    u8 kind
    u8 page_shift
    u8 nested_page_shift
    u8 unused


cdef enum:
    ASID_ALL = 0xFFFF       # of a flush: every address space
    SELECTOR_MASK = 0x0000FF00FFFF0000      # of the second word of a record: address space and page size
    KIND_WORD_SHIFT = 32
