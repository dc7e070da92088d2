"""Numbers of calls that map, read, write and translate guest memory (hyperv-abi.md sections 4.4, 4.5, 11.1)."""

from enum import IntEnum, IntFlag


class MapFlags(IntFlag):
    """Flags of HvCallMapGpaPages (section 4.4)."""

    READ = 0x1
    WRITE = 0x2
    KERNEL_EXECUTE = 0x4
    USER_EXECUTE = 0x8
    EXECUTE = 0xC
    ADJUSTABLE = 0x8000
    NO_ACCESS = 0x1_0000
    NO_OVERLAY = 0x10_0000
    NOT_CACHED = 0x20_0000
    LARGE_PAGE = 0x8000_0000


class UnmapFlags(IntFlag):
    """Flags of HvCallUnmapGpaPages (section 4.4, point 33)."""

    KEEP_PRECOMMITTED = 0x1
    LARGE_PAGE = 0x2


class CacheType(IntEnum):
    """HV_CACHE_TYPE."""

    UNCACHED = 0
    WRITE_COMBINING = 1
    WRITE_THROUGH = 4
    WRITE_PROTECTED = 5
    WRITE_BACK = 6


class TranslateFlags(IntFlag):
    """Flags of HvCallTranslateVirtualAddress (section 11.1)."""

    VALIDATE_READ = 0x1
    VALIDATE_WRITE = 0x2
    VALIDATE_EXECUTE = 0x4
    PRIVILEGE_EXEMPT = 0x8
    SET_PAGE_TABLE_BITS = 0x10
    TLB_FLUSH_INHIBIT = 0x20
    SUPERVISOR_ACCESS = 0x40
    USER_ACCESS = 0x80
    ENFORCE_SMAP = 0x100
    OVERRIDE_SMAP = 0x200
    SHADOW_STACK = 0x400


class TranslateResult(IntEnum):
    """HV_TRANSLATE_GVA_RESULT_CODE (section 11.1)."""

    SUCCESS, PAGE_NOT_PRESENT, PRIVILEGE_VIOLATION, INVALID_PAGE_TABLE_FLAGS = range(4)
    GPA_UNMAPPED, GPA_NO_READ_ACCESS, GPA_NO_WRITE_ACCESS, GPA_ILLEGAL_OVERLAY_ACCESS = range(4, 8)
    INTERCEPT, GPA_UNACCEPTED = 8, 9


class GpaAccessResult(IntEnum):
    """HV_ACCESS_GPA_RESULT_CODE of HvCallReadGpa and HvCallWriteGpa (section 4.5)."""

    SUCCESS, UNMAPPED, READ_INTERCEPT, WRITE_INTERCEPT, ILLEGAL_OVERLAY_ACCESS = range(5)
