"""What the calls of hyperv-abi.md 4.9 do, in plain slow Python: the reference that both doors are compared with.

Written from the specification's words alone; it shares no code with hvcore.
"""

from __future__ import annotations

from struct import unpack_from

INPUT_ERROR, ALIGNMENT, PARAMETER, VTL_STATE = 3, 4, 5, 0x51
HEADERS = {0x01: 8, 0x02: 24, 0x03: 24, 0x08: 8, 0x0B: 16, 0x13: 32, 0x14: 32, 0x15: 24}
LISTS = {0x03, 0x14}
VARIABLE = {0x13, 0x14, 0x15}
GPA_BITS = 46
PAGES_PER_ENTRY = 64


def control_parts(word):
    """code, fast, variable qwords, rep count, rep start, whether a reserved bit is set (3.1)."""
    reserved = any(word >> bit & 1 for bit in [*range(27, 32), *range(44, 48), *range(60, 64)])
    return word & 0xFFFF, word >> 16 & 1, word >> 17 & 0x3FF, word >> 32 & 0xFFF, word >> 48 & 0xFFF, reserved


def entry_status(word, gpa):
    """The status before parameters are looked at (3.3), and the bytes of input; 0 if all is well."""
    code, fast, variable, count, start, reserved = control_parts(word)
    size = HEADERS[code] + 8 * variable + (8 * count if code in LISTS else 0)
    if reserved or (variable and code not in VARIABLE):
        return INPUT_ERROR, size
    if code in LISTS and (count == 0 or start >= count):
        return INPUT_ERROR, size
    if code not in LISTS and (count or start):
        return INPUT_ERROR, size
    if fast:
        return (INPUT_ERROR if size > 112 else 0), size
    if gpa % 8 or gpa % 4096 + size > 4096 or gpa >> GPA_BITS:
        return ALIGNMENT, size
    return 0, size


def members(banks_valid, banks):
    """VPs of a sparse set, or None if there are not as many banks as bits."""
    numbers = [bank for bank in range(64) if banks_valid >> bank & 1]
    if len(numbers) != len(banks):
        return None
    pairs = zip(numbers, banks, strict=True)
    return {64 * number + bit for number, bank in pairs for bit in range(64) if bank >> bit & 1}


def vp_set(data, offset, variable):
    """(status, VPs or None for all) of an HV_VP_SET."""
    kind, valid = unpack_from("<QQ", data, offset)
    if kind > 1:
        return PARAMETER, set()
    if kind == 1:
        return 0, None
    found = members(valid, unpack_from(f"<{variable}Q", data, offset + 16))
    return (INPUT_ERROR, set()) if found is None else (0, found)


def vtl_status(vtl):
    if vtl >> 5:
        return PARAMETER
    return VTL_STATE if vtl & 16 and vtl & 15 else 0


def flush(code, data, variable):
    """(status, VPs or None, only those that are not global) of a flush."""
    space, flags = unpack_from("<QQ", data)
    if flags & ~(1 | 2 | 4 | 8 | 0x10 | 0x100 | 0x200) or (flags & 4 and code in LISTS):
        return PARAMETER, set(), False
    if bool(flags & 0x10) != bool(flags & 0x300):
        return PARAMETER, set(), False
    if flags & 0x200:
        return VTL_STATE, set(), False
    if not flags & 2 and space >> 46:
        return PARAMETER, set(), False
    status, targets = 0, None
    if not flags & 1:
        if code in (0x13, 0x14):
            status, targets = vp_set(data, 16, variable)
        else:
            targets = members(1, unpack_from("<Q", data, 16))
        if not status and targets is not None and not targets:
            status = PARAMETER
    return status, targets, bool(flags & 4)


def pages_of(element, extended):
    """The first byte behind and of a list element's range (4.9)."""
    if not extended:
        first = element & ~0xFFF
        return first, first + ((element & 0xFFF) + 1 << 12)
    count = (element & 0x7FF) + 1
    shift = 12 if not element & 0x800 else 30 if element & 0x1000 else 21
    first = element >> shift << shift
    return first, first + (count << shift)


def cluster_ipi(code, data, variable):
    """(status, vector, VPs or None)."""
    vector, vtl = unpack_from("<IB", data)
    if not 0x10 <= vector <= 0xFF or data[5:8] != bytes(3):
        return PARAMETER, 0, set()
    status = vtl_status(vtl)
    if status:
        return status, 0, set()
    if code == 0x15:
        status, targets = vp_set(data, 8, variable)
    else:
        targets = members(1, unpack_from("<Q", data, 8))
    return status, vector, targets


def outcome(word, gpa, data):
    """(HV_STATUS, reps completed) of a call that native code executes, with nobody inhibiting flushes.

    `data` are the bytes of its input."""
    code, _, variable, count, start, _ = control_parts(word)
    status, _ = entry_status(word, gpa)
    if status:
        return status, start if status == ALIGNMENT else 0
    if code in (0x0B, 0x15):
        return cluster_ipi(code, data, variable)[0], 0
    if code == 0x01:
        (cr3,) = unpack_from("<Q", data)
        return (PARAMETER if cr3 >> 46 & ~(1 << 62 | 1 << 61) >> 46 else 0), 0
    if code == 0x08:
        return 0, 0
    status = flush(code, data, variable)[0]
    if code in LISTS:
        return status, start if status else count
    return status, 0
