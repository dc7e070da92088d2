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


# Columns of a batch: where the first value of each is, and how far apart values lie. A distance of zero repeats one.
cdef struct columns_t:
    const u8* address
    const u8* asid
    const u8* kind
    const u8* page_shift
    const u8* nested_page_shift
    const u8* gpa           # NULL: the model hands out guest-physical frames itself
    u64 address_stride
    u64 asid_stride
    u64 kind_stride
    u64 page_shift_stride
    u64 nested_page_shift_stride
    u64 gpa_stride
