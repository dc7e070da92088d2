"""A remapping unit as the facts read, for comparison: no caches, no speed, one page of Python a chapter.

Memory is an object with `read64(gpa)` and `reach(gpa, access)` that answer None where the partition has none, and
`write64`. Fault codes are those of the VT-d specification (fault reason encodings), in hexadecimal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

READ, WRITE, ZERO_LENGTH, PRIVILEGED = 1, 2, 4, 8
ADDRESS = 0x000FFFFFFFFFF000
OK, FAULT, INTERRUPT, PROTECTED, NO_MEMORY = range(5)
ANSWERED = {4, 5, 6, 0x51, 0x59, 0x5C, 0x5D, *range(0x70, 0x78), 0x79, 0x80, 0x81, 0x83, 0x84, 0x85, 0x86, 0x90}
"""Reasons for which a translation request is answered with no rights (VT-d table 30): no fault is recorded."""


class Fault(Exception):
    """A refused request, with its reason."""

    def __init__(self, reason: int, silent: bool = False) -> None:
        super().__init__(hex(reason))
        self.reason, self.silent = reason, silent


def bit(word: int, number: int) -> int:
    return word >> number & 1


@dataclass
class Context:
    """How requests of one kind are translated."""

    kind: str
    did: int = 0
    scalable: bool = False
    silent: bool = False
    device_tlb: bool = False
    second: int = 0
    second_levels: int = 0
    second_marks: bool = False
    first: int = 0
    first_levels: int = 0
    privileged: bool = False
    supervisor: bool = False
    write_protect: bool = False
    extended: bool = False


@dataclass
class Answer:
    """One row of a batch."""

    status: int = OK
    reason: int = 0
    gpa: int = 0
    spa: int = 0
    page_shift: int = 0
    nested_page_shift: int = 0
    table_references: int = 0
    references: int = 0
    nested_references: int = 0


@dataclass
class Reference:
    memory: Any
    cap: int
    ecap: int
    host_bits: int
    root: int = 0
    translating: bool = False
    recorded: list[tuple[int, int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.above = ADDRESS & ~((1 << self.host_bits) - 1) | 0xFFF << 52
        self.high = ADDRESS & ~((1 << self.host_bits) - 1)
        self.mgaw = (self.cap >> 16 & 63) + 1
        self.fault_bits = max((12 + 9 * (n + 2) for n in (1, 2, 3) if self.levels_of(n)), default=57)
        self.answer = Answer()

    # Tables ---------------------------------------------------------------------------------------------------------

    def words(self, gpa: int, count: int, reason: int, silent: bool = False) -> list[int]:
        self.answer.table_references += 1
        found = [self.memory.read64(gpa + 8 * i) for i in range(count)]
        if None in found:
            raise Fault(reason, silent)
        return found

    def levels_of(self, width: int) -> int:
        return width + 2 if width in (1, 2, 3) and bit(self.cap, 8 + width) else 0

    def legacy(self, source: int) -> Context:
        low, high = self.words((self.root & ADDRESS) + 16 * (source >> 8), 2, 8)
        if not low & 1:
            raise Fault(1)
        if low & (self.above | 0xFFE) or high:
            raise Fault(0xA)
        low, high = self.words((low & ADDRESS) + 16 * (source & 255), 2, 9)
        silent = bool(bit(low, 1))
        if not low & 1:
            raise Fault(2, silent)
        if low & (self.above | 0xFF0) or bit(high, 7) or high >> 24:
            raise Fault(0xB, silent)
        levels, kind = self.levels_of(high & 7), low >> 2 & 3
        if not levels or kind == 3 or (kind == 1 and not bit(self.ecap, 2)) or (kind == 2 and not bit(self.ecap, 6)):
            raise Fault(3, silent)
        return Context("pass" if kind == 2 else "second", did=high >> 8 & 0xFFFF, silent=silent, device_tlb=kind == 1,
                       second=low & ADDRESS, second_levels=levels)

    def scalable(self, source: int, pasid: int | None) -> Context:
        (low,) = self.words((self.root & ADDRESS) + 16 * (source >> 8) + 8 * bit(source, 7), 1, 0x38)
        if not low & 1:
            raise Fault(0x39)
        if low & (self.above | 0xFFE):
            raise Fault(0x3A)
        entry = self.words((low & ADDRESS) + 32 * (source & 127), 4, 0x40)
        silent = bool(bit(entry[0], 1))
        if not entry[0] & 1:
            raise Fault(0x41, silent)
        if entry[0] & (self.above | 0x1F0) or entry[1] >> 21 or entry[2] or entry[3]:
            raise Fault(0x42, silent)
        device_tlb, pasid_enable, rid_pasid = bit(entry[0], 2), bit(entry[0], 3), entry[1] & 0xFFFFF
        for used, capability in ((device_tlb, 2), (pasid_enable, 40), (rid_pasid, 49), (bit(entry[1], 20), 53)):
            if used and not bit(self.ecap, capability):
                raise Fault(0x42, silent)
        directories = 1 << (entry[0] >> 9 & 7) + 7
        if rid_pasid >> 6 >= directories:
            raise Fault(0x43, silent)
        privileged = pasid is None and bool(bit(entry[1], 20))
        if pasid is None:
            pasid = rid_pasid
        elif not pasid_enable:
            raise Fault(0x45, silent)
        elif pasid >> (self.ecap >> 35 & 31) + 1:
            raise Fault(0x89, silent)
        elif pasid >> 6 >= directories:
            raise Fault(0x46, silent)
        elif pasid == rid_pasid:
            raise Fault(0x48, silent)
        return self.pasid(entry[0] & ADDRESS, pasid, silent, bool(device_tlb), privileged)

    def pasid(self, directory: int, pasid: int, silent: bool, device_tlb: bool, privileged: bool) -> Context:
        (low,) = self.words(directory + 8 * (pasid >> 6), 1, 0x50)
        silent |= bool(bit(low, 1))
        if not low & 1:
            raise Fault(0x51, silent)
        if low & (self.above | 0xFFC):
            raise Fault(0x52, silent)
        entry = self.words((low & ADDRESS) + 64 * (pasid & 63), 8, 0x58)
        silent |= bool(bit(entry[0], 1))
        if not entry[0] & 1:
            raise Fault(0x59, silent)
        if (entry[0] & (self.above | 0xC20) or entry[1] >> 16 & 0x7F or entry[1] >> 25 or
                entry[2] & (self.above | 0xF02) or any(entry[3:])):
            raise Fault(0x5A, silent)
        snooped = bit(self.ecap, 48)
        for used, capability in (
                (bit(entry[0], 9), bit(self.ecap, 45) & snooped), (bit(entry[1], 23), snooped),
                (bit(entry[1], 24), bit(self.ecap, 7)), (bit(entry[2], 0), bit(self.ecap, 31)),
                (bit(entry[2], 7), bit(self.ecap, 34) & snooped), (entry[2] & (ADDRESS | 0x1C), bit(self.ecap, 47))):
            if used and not capability:
                raise Fault(0x5A, silent)
        kind = {1: "first", 2: "second", 3: "nested", 4: "pass"}.get(entry[0] >> 6 & 7)
        found = Context(kind or "", entry[1] & 0xFFFF, True, silent, device_tlb, entry[0] & ADDRESS,
                        self.levels_of(entry[0] >> 2 & 7), bool(bit(entry[0], 9)), entry[2] & ADDRESS,
                        4 + (entry[2] >> 2 & 3), privileged, bool(entry[2] & 1), bool(bit(entry[2], 4)),
                        bool(bit(entry[2], 7)))
        bad = kind is None or (kind == "pass" and not bit(self.ecap, 6))
        if kind in ("first", "nested"):
            bad |= not bit(self.ecap, 47) or found.first_levels > 4 + bit(self.cap, 60)
        if kind in ("second", "nested"):
            bad |= not found.second_levels or not bit(self.ecap, 26 if kind == "nested" else 46)
            bad |= kind == "nested" and found.first >= 1 << self.width(found)
        if bad:
            raise Fault(0x5B, silent)
        return found

    def width(self, context: Context) -> int:
        """Bits of addresses of the second level."""
        return min(12 + 9 * context.second_levels, self.mgaw)

    # Walks ----------------------------------------------------------------------------------------------------------

    def second(self, context: Context, gpa: int, access: int) -> tuple[str, int, int, int]:
        """(what happened, output, log2 of the page, rights) of the second level; marks what it grants."""
        if gpa >= 1 << self.width(context):
            return "beyond", 0, 12, 0
        table, rights, path = context.second, READ | WRITE, []
        for level in range(context.second_levels, 0, -1):
            shift = 3 + 9 * level
            slot = table + 8 * (gpa >> shift & 511)
            entry = self.memory.read64(slot)
            if entry is None:
                return "unreadable" if path else "pointer", 0, 12, 0
            self.answer.nested_references += 1
            path.append((slot, entry))
            if not entry & 3:
                return "absent", 0, 12, 0
            leaf = level == 1 or (bit(entry, 7) and level <= 3 and bit(self.cap, 32 + level))
            bad = entry & self.high
            if not leaf:
                bad |= entry & (1 << 7 | 1 << 11 | 1 << 62)
            else:
                bad |= entry & (0 if bit(self.ecap, 7) else 1 << 11) | entry & (0 if bit(self.ecap, 2) else 1 << 62)
                bad |= entry & (1 << shift) - 1 & ~0xFFF
            if bad:
                return "reserved", 0, 12, 0
            rights &= entry
            if leaf:
                break
            table = entry & ADDRESS
        if not rights and context.scalable:
            return "absent", 0, shift, rights
        if access & ~rights & 3 or not rights:
            return "rights", 0, shift, rights
        if context.second_marks:
            for depth, (slot, _) in enumerate(path, 1):         # a table may name itself: the last is no other slot
                dirty = 1 << 9 if access & WRITE and depth == len(path) else 0
                if not self.memory.mark(slot, 1 << 8 | dirty):
                    return "unreadable", 0, 12, 0
        return "ok", entry & ADDRESS & ~((1 << shift) - 1) | gpa & (1 << shift) - 1, shift, rights

    def needed(self, access: int) -> int:
        return access & WRITE if access & ZERO_LENGTH and bit(self.cap, 22) else access & 3

    def refuse(self, context: Context, access: int, rights: int, what: str) -> int:
        """The reason for what `second` said of the address of a request."""
        codes = {"beyond": (4, 0x74 if context.kind == "nested" else 0x84), "reserved": (0xC, 0x7A),
                 "unreadable": (7, 0x78), "pointer": (3, 0x7B)}
        if what in codes:
            return codes[what][context.scalable]
        if what == "absent" and context.scalable:
            return 0x79
        if what == "absent":
            return 5 if access & WRITE else 6
        if access & WRITE and not rights & WRITE:
            return 0x85 if context.scalable else 5
        return 0x86 if context.scalable else 6

    def through_second(self, context: Context, gpa: int, access: int) -> int:
        what, output, shift, rights = self.second(context, gpa, self.needed(access))
        if what != "ok":
            raise Fault(self.refuse(context, access, rights, what), context.silent)
        self.answer.nested_page_shift = shift
        return output

    def entry_place(self, context: Context, slot: int, access: int, top: bool) -> int:
        """Where an entry of the first level lies, a GPA of the partition."""
        if context.kind == "first":
            return slot
        what, output, _, rights = self.second(context, slot, access)
        if what == "ok" and (rights & WRITE or not context.second_marks):
            return output
        denied = 0x77 if rights & READ else 0x75 if top else 0x76
        codes = {"beyond": 0x74, "absent": 0x79, "reserved": 0x7A, "unreadable": 0x78, "pointer": 0x7B}
        raise Fault(codes.get(what, denied), context.silent)

    def through_first(self, context: Context, iova: int, access: int) -> int:
        bits = 12 + 9 * context.first_levels
        if iova >> bits - 1 not in (0, (1 << 65 - bits) - 1):
            raise Fault(0x80, context.silent)
        path: list[int] = []
        table, user, write = context.first, True, True
        for level in range(context.first_levels, 0, -1):
            shift = 3 + 9 * level
            slot = table + 8 * (iova >> shift & 511)
            entry = self.memory.read64(self.entry_place(context, slot, READ, not path))
            if entry is None:
                raise Fault(0x70 if path else 0x73, context.silent)
            self.answer.references += 1
            path.append(slot)
            if not entry & 1:
                raise Fault(0x71, context.silent)
            leaf = level == 1 or (bit(entry, 7) and (level == 2 or (level == 3 and bit(self.cap, 56))))
            if entry & self.high or (not leaf and bit(entry, 7)) or (leaf and entry & (1 << shift) - 1 & ~0x1FFF):
                raise Fault(0x72, context.silent)
            user, write = user and bool(bit(entry, 2)), write and bool(bit(entry, 1))
            if leaf:
                break
            table = entry & ADDRESS
        if not access & PRIVILEGED and not user:
            raise Fault(0x81, context.silent)
        if access & WRITE and not write and not (access & PRIVILEGED and not context.write_protect):
            raise Fault(0x85, context.silent)
        read = self.answer.nested_references
        try:
            self.mark_first(context, path, access)
        finally:
            self.answer.nested_references = read    # only the walk itself counts
        self.answer.page_shift = shift
        return int(entry & ADDRESS & ~((1 << shift) - 1) | iova & (1 << shift) - 1)

    def mark_first(self, context: Context, path: list[int], access: int) -> None:
        """Accessed bits of the path and the dirty bit of the page, once the access is granted."""
        for depth, slot in enumerate(path, 1):
            marks = 1 << 5 | (1 << 10 if context.extended else 0)
            if access & WRITE and depth == len(path):
                marks |= 1 << 6
            place = self.entry_place(context, slot, READ, False)
            if self.memory.read64(place) & marks != marks:
                if not bit(self.ecap, 48):
                    raise Fault(0x90, context.silent)
                if not self.memory.mark(self.entry_place(context, slot, READ | WRITE, False), marks):
                    raise Fault(0x91, context.silent)

    # Requests -------------------------------------------------------------------------------------------------------

    def translated(self, source: int, iova: int, access: int, pasid: int | None, at: int) -> tuple[int, bool]:
        """Where a request goes, and whether it went untranslated."""
        mode = self.root >> 10 & 3
        if mode > 1 or (mode and not bit(self.ecap, 43)):
            raise Fault(0x30)
        if not mode and pasid is not None:
            raise Fault(0x31)
        context = self.scalable(source, pasid) if mode else self.legacy(source)
        if context.privileged:
            access |= PRIVILEGED
        if at and not context.device_tlb:
            raise Fault(0x44 if context.scalable else 0xD, context.silent)
        if at != 2 and context.scalable and access & PRIVILEGED and not context.supervisor:
            raise Fault(0x5D, context.silent)
        output = iova
        if at == 2 or context.kind == "pass":
            if iova >> self.host_bits or (at != 2 and not mode and iova >> self.width(context)):
                raise Fault(0x83 if context.scalable else 4, context.silent)
            if output >> 20 == 0xFEE:
                raise Fault(0x87 if context.scalable else 0xE, context.silent)
            return output, True
        if context.kind in ("first", "nested"):
            output = self.through_first(context, iova, access)
        if context.kind in ("second", "nested"):
            output = self.through_second(context, output, access)
        if output >> 20 == 0xFEE:
            raise Fault(0x87 if context.scalable else 0xE, context.silent)
        return output, False

    def record(self, source: int, iova: int, reason: int, access: int) -> None:
        page = iova & (1 << self.fault_bits) - 1 & ~0xFFF
        self.recorded.append((source, page, reason, access & (READ | WRITE)))

    def request(self, source: int, iova: int, access: int, pasid: int | None = None, at: int = 0) -> Answer:
        self.answer = answer = Answer()
        if iova >> 20 == 0xFEE and pasid is None and at != 2:
            answer.status = INTERRUPT
            if access & READ and not access & ZERO_LENGTH and self.translating and not at:
                answer.status, answer.reason = FAULT, 0x29
                self.record(source, iova, 0x29, access)
            return answer
        answer.gpa = iova
        if self.translating:
            try:
                answer.gpa, _ = self.translated(source, iova, access, pasid, at)
            except Fault as fault:
                self.answer = Answer(FAULT, fault.reason, table_references=answer.table_references,
                                     references=answer.references, nested_references=answer.nested_references)
                if not fault.silent and not (at == 1 and fault.reason in ANSWERED):
                    self.record(source, iova, fault.reason, access)
                return self.answer
        spa = self.memory.reach(answer.gpa, access & 3)
        answer.status, answer.spa = (NO_MEMORY, 0) if spa is None else (OK, spa)
        return answer
