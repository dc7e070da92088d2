"""A walker by the book, one level after the other, for comparison: slow, without any trick, and only for tests.

Written from the SDM (3A 4.3-4.7, 3C 29.3) and the TLFS, not from the rooms. Numbers of statuses and accesses are those
of `VirtualProcessor.probe`. Memory is a bytearray; accessed and dirty bits are set in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

READ, WRITE, EXECUTE, USER, USER_EXECUTE, IMPLICIT, ALIGNMENT = 1, 2, 4, 8, 16, 32, 64
OK, NOT_PRESENT, RIGHTS, RESERVED, NOT_CANONICAL, TABLE, NESTED = range(7)
S_OK, S_UNMAPPED, S_RIGHTS, S_OVERLAY, S_MISCONFIGURED = range(5)
P, W, U, RSVD, I, PK = 1, 2, 4, 8, 16, 32  # of an error code  # noqa: E741
ADDRESS = 0x000F_FFFF_FFFF_F000


def bits(high: int, low: int) -> int:
    """A mask of bits high:low."""
    return (1 << high + 1) - (1 << low) if high >= low else 0


class Memory(bytearray):
    def get(self, place: int, size: int) -> int:
        return int.from_bytes(self[place : place + size], "little")

    def put(self, place: int, value: int, size: int) -> None:
        self[place : place + size] = value.to_bytes(size, "little")


@dataclass
class Second:
    """The second level: EPT's layout, 3 to 5 levels."""

    memory: Memory
    root: int
    levels: int = 4
    limit: int = 1 << 46
    marks: bool = False
    mode_based: bool = False

    def translate(self, gpa: int, need: int, set_marks: bool) -> tuple[int, int, int, int, int]:
        """(status, SPA, rights, page shift, references)."""
        if gpa >= self.limit:
            return S_UNMAPPED, 0, 0, 12, 0
        table, places = self.root, []
        rights = READ | WRITE | EXECUTE | USER_EXECUTE
        for level in range(self.levels, 0, -1):
            shift = 3 + 9 * level
            place = table + (gpa >> shift & 511) * 8
            if place >= len(self.memory):
                return S_UNMAPPED, 0, 0, 12, len(places)
            entry = self.memory.get(place, 8)
            places.append(place)
            if not entry & (0x407 if self.mode_based else 7):
                return S_UNMAPPED, 0, 0, 12, len(places)
            leaf = level == 1 or (level in (2, 3) and bool(entry & 0x80))
            wrong = entry & 3 == 2
            wrong |= entry >> 3 & 7 in (2, 3, 7) or bool(entry & bits(shift - 1, 12)) if leaf else bool(entry & 0xF8)
            if wrong:
                return S_MISCONFIGURED, 0, 0, 12, len(places)
            user_execute = entry >> 10 & 1 if self.mode_based else entry >> 2 & 1
            rights &= entry & 7 | user_execute * USER_EXECUTE
            if leaf:
                break
            table = entry & ADDRESS
        if rights & need != need:
            return S_RIGHTS, 0, rights, shift, len(places)
        if self.marks and set_marks:
            for i, place in enumerate(places):
                dirty = 0x200 if i == len(places) - 1 and need & WRITE else 0
                self.memory.put(place, self.memory.get(place, 8) | 0x100 | dirty, 8)
        spa = entry & ADDRESS & ~bits(shift - 1, 0) | gpa & bits(shift - 1, 0)
        status = S_OK if spa < len(self.memory) else S_UNMAPPED
        return status, spa, rights, shift, len(places)


@dataclass
class Processor:
    """What of a processor's registers translation depends on."""

    cr0: int
    cr3: int
    cr4: int
    efer: int
    pkru: int = 0
    pkrs: int = 0
    physical_bits: int = 46

    paging: bool = field(init=False)
    pae: bool = field(init=False)
    long: bool = field(init=False)
    levels: int = field(init=False)

    def __post_init__(self) -> None:
        self.paging = bool(self.cr0 >> 31)
        self.pae = bool(self.cr4 & 0x20)
        self.long = self.paging and bool(self.efer & 0x400)
        self.levels = (5 if self.cr4 & 0x1000 else 4) if self.long else 2

    def canonical(self, gva: int) -> bool:
        if not self.paging:
            return True
        if not self.long:
            return gva < 1 << 32
        top = gva >> (self.levels * 9 + 11)
        return top == 0 or top == (1 << 53 - self.levels * 9) - 1

    def untagged(self, gva: int, access: int) -> int:
        """Linear-address masking: the metadata of a pointer becomes copies of the highest address bit."""
        if not self.long or access & (EXECUTE | IMPLICIT):
            return gva
        if gva >> 63:
            width = (57 if self.levels == 5 else 48) if self.cr4 >> 28 & 1 else 0
        else:
            width = 57 if self.cr3 >> 61 & 1 else 48 if self.cr3 >> 62 & 1 else 0
        if width:
            metadata = bits(62, width)
            gva = gva | metadata if gva >> width - 1 & 1 else gva & ~metadata
        return gva

    def reserved(self, entry: int, leaf: bool, level: int, shift: int) -> bool:
        if not self.pae:
            if not leaf or level == 1:
                return False
            width = min(40, self.physical_bits)
            return any(entry >> bit & 1 for bit in range(13, 22) if bit == 21 or bit - 13 + 32 >= width)
        wrong = entry & bits(51 if self.long else 62, self.physical_bits)
        if not self.efer & 0x800:
            wrong |= entry & 1 << 63
        if not leaf and entry & 0x80:
            wrong |= 0x80
        if leaf and level > 1:
            wrong |= entry & bits(shift - 1, 13)
        return bool(wrong)

    def denial(self, access: int, entries: list[int]) -> int | None:
        """None if the access is allowed; else the P and PK bits of the error code."""
        user_page = all(entry & 4 for entry in entries)
        writable = all(entry & 2 for entry in entries)
        executable = not (self.pae and any(entry >> 63 for entry in entries))
        write, fetch, by_user = access & WRITE, access & EXECUTE, access & USER
        write_protect = self.cr0 >> 16 & 1
        denied = False
        if by_user and not user_page:
            denied = True
        if write and not writable and (by_user or write_protect):
            denied = True
        if fetch and not executable:
            denied = True
        if not by_user and user_page:
            if fetch and self.cr4 >> 20 & 1:
                denied = True
            if not fetch and self.cr4 >> 21 & 1 and (access & IMPLICIT or not access & ALIGNMENT):
                denied = True
        key_denied = False
        if self.long and not fetch and self.cr4 >> (22 if user_page else 24) & 1:
            rights = (self.pkru if user_page else self.pkrs) >> 2 * (entries[-1] >> 59 & 15)
            key_denied = bool(rights & 1 or (rights & 2 and write and (by_user or write_protect)))
        return P | key_denied * PK if denied or key_denied else None

    def error_code(self, access: int, cause: int) -> int:
        tells_fetch = self.cr4 >> 20 & 1 or (self.pae and self.efer & 0x800)
        return (
            cause
            | (W if access & WRITE else 0)
            | (U if access & USER else 0)
            | (I if access & EXECUTE and tells_fetch else 0)
        )


def walk(processor: Processor, second: Second, gva: int, access: int, set_marks: bool) -> dict[str, Any]:
    """The fields of a probe that mean something for its outcome."""
    gva = processor.untagged(gva, access)
    result: dict[str, Any] = {"status": OK, "references": 0, "nested_references": 0}
    if not processor.canonical(gva):
        return result | {"status": NOT_CANONICAL}
    memory, size = second.memory, 8 if processor.pae else 4
    entries, slots, places = [], [], []
    table_need = READ | WRITE if second.marks else READ
    gpa, shift, user_page = gva, 12, True

    def refused(slot: int, status: int, need: int, rights: int) -> dict[str, Any]:
        return result | {
            "status": TABLE, "nested_status": status, "address": slot, "nested_access": need, "nested_rights": rights,
        }  # fmt: skip

    if processor.paging:
        level, table = processor.levels, processor.cr3 & (ADDRESS if processor.long else 0xFFFF_F000)
        if processor.pae and not processor.long:
            status, spa, *_ = second.translate(processor.cr3 & 0xFFFF_FFE0, READ, False)
            pointer = memory.get(spa + 8 * (gva >> 30), 8) if status == S_OK else 0
            if not pointer & 1:
                return result | {"status": NOT_PRESENT, "error_code": processor.error_code(access, 0)}
            table = pointer & ADDRESS
        while True:
            width = 9 if size == 8 else 10
            shift = 12 + width * (level - 1)
            slot = table + (gva >> shift & (1 << width) - 1) * size
            status, spa, rights, _, count = second.translate(slot, table_need, set_marks)
            result["nested_references"] += count
            if status != S_OK:
                return refused(slot, status, table_need, rights)
            entry = memory.get(spa, size)
            entries.append(entry), slots.append(slot), places.append(spa)
            result["references"] += 1
            if not entry & 1:
                return result | {"status": NOT_PRESENT, "error_code": processor.error_code(access, 0)}
            large_exists = level in (2, 3) if processor.pae else level == 2 and bool(processor.cr4 & 0x10)
            leaf = level == 1 or (large_exists and bool(entry & 0x80))
            if processor.reserved(entry, leaf, level, shift):
                return result | {"status": RESERVED, "error_code": processor.error_code(access, P | RSVD)}
            if leaf:
                break
            table, level = entry & ADDRESS, level - 1
        cause = processor.denial(access, entries)
        if cause is not None:
            return result | {"status": RIGHTS, "error_code": processor.error_code(access, cause)}
        for i in range(len(entries) if set_marks else 0):
            wanted = 0x60 if i == len(entries) - 1 and access & WRITE else 0x20
            if memory.get(places[i], size) & wanted != wanted:
                status, _, rights, _, _ = second.translate(slots[i], READ | WRITE, True)
                if status != S_OK:
                    return refused(slots[i], status, READ | WRITE, rights)
                memory.put(places[i], memory.get(places[i], size) | wanted, size)
        if size == 4 and shift == 22:
            gpa = entry & 0xFFC0_0000 | (entry >> 13 & 0xFF) << 32 | gva & 0x3F_FFFF
        else:
            gpa = entry & ADDRESS & ~bits(shift - 1, 0) | gva & bits(shift - 1, 0)
        user_page = all(entry & 4 for entry in entries)
        result["is_global"] = bool(entry & 0x100)
        result["key"] = entry >> 59 & 15 if processor.long else 0
    need = access & (READ | WRITE)
    if access & EXECUTE:
        need |= USER_EXECUTE if user_page else EXECUTE
    status, spa, rights, nested_shift, count = second.translate(gpa, need, set_marks)
    result["nested_references"] += count
    result |= {"address": gpa, "page_shift": shift, "nested_status": status, "nested_access": need}
    result |= {"nested_rights": rights, "nested_page_shift": nested_shift}
    return result | ({"spa": spa} if status == S_OK else {"status": NESTED})
