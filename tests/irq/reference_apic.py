"""Several local APICs on one clock, slow and obvious: sets, dicts, and time in single steps of whatever is next.

Written from SDM 3A chapter 11 alone; every number is spelled out here once more. Choices that the SDM leaves open are
those of docs/local-apic.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

TIMER, THERMAL, PERFORMANCE, LINT0, LINT1, ERROR, CMCI = 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x2F
LVTS = (TIMER, THERMAL, PERFORMANCE, LINT0, LINT1, ERROR, CMCI)
MASKED = 1 << 16
WRITABLE_LVT = {TIMER: 0x700FF, THERMAL: 0x107FF, PERFORMANCE: 0x107FF, LINT0: 0x1A7FF, LINT1: 0x1A7FF,
                ERROR: 0x100FF, CMCI: 0x107FF}  # fmt: skip
EVERYBODY = 0xFFFF_FFFF


class Refused(Exception):
    """#GP."""


class Apic:
    def __init__(self, machine: Machine, number: int, identity: int) -> None:
        self.machine, self.number, self.id = machine, number, identity
        self.base = 0xFEE00800 | (0x100 if number == 0 else 0)
        self.nmi = self.init = False
        self.startup: int | None = None
        self.pins = [False, False]
        self.tsc = 0
        self.clear()

    def clear(self) -> None:
        """The state of 11.4.7.1."""
        self.requested: set[int] = set()
        self.in_service: set[int] = set()
        self.level: set[int] = set()
        self.tpr = 0
        self.ldr, self.dfr, self.svr = 0, 0xFFFF_FFFF, 0xFF
        self.esr = self.errors = 0
        self.icr = 0
        self.lvt = dict.fromkeys(LVTS, MASKED)
        self.initial = self.divide = self.deadline = 0
        self.external = False
        # The count is `count` at time `since`; None: it stands still at 0.
        self.count: int | None = None
        self.since = 0

    # Modes.

    @property
    def on(self) -> bool:
        return bool(self.base >> 11 & 1)

    @property
    def x2(self) -> bool:
        return bool(self.base >> 10 & 1)

    @property
    def enabled(self) -> bool:
        return self.on and bool(self.svr >> 8 & 1)

    def set_base(self, value: int) -> None:
        mode = {0: "off", 2: "xapic", 3: "x2apic", 1: "nonsense"}
        old, new = mode[self.base >> 10 & 3], mode[value >> 10 & 3]
        legal = {("off", "off"), ("off", "xapic"), ("xapic", "xapic"), ("xapic", "off"), ("xapic", "x2apic"),
                 ("x2apic", "x2apic"), ("x2apic", "off")}  # fmt: skip
        if (old, new) not in legal or value & 0x2FF & ~0x100 or value >> 46:
            raise Refused
        self.base = value
        if new == "off":
            self.clear()

    # Priorities.

    def ppr(self) -> int:
        service = max(self.in_service, default=0) & 0xF0
        return self.tpr if self.tpr & 0xF0 >= service else service

    def apr(self) -> int:
        request, service = max(self.requested, default=0) >> 4, max(self.in_service, default=0) >> 4
        if self.tpr >> 4 >= request and self.tpr >> 4 > service:
            return self.tpr
        return max(self.tpr >> 4, request, service) << 4

    def pending(self) -> int | None:
        top = max(self.requested, default=None)
        return top if top is not None and top >> 4 > self.ppr() >> 4 else None

    def take(self) -> int | None:
        vector = self.pending()
        if vector is not None:
            self.requested.remove(vector)
            self.in_service.add(vector)
        return vector

    def take_reset_messages(self) -> tuple[bool, int | None]:
        """INIT clears all but base, ids and pins (11.4.7.3)."""
        taken = self.init, self.startup
        if self.init:
            self.clear()
            self.nmi = self.init = False
        self.startup = None
        return taken

    # Requests.

    def fixed(self, vector: int, level: bool) -> None:
        if not self.enabled:
            return
        if vector < 16:
            self.error(1 << 6)
            return
        if vector in self.requested and vector in self.level:
            level = True
        self.requested.add(vector)
        if level:
            self.level.add(vector)
        else:
            self.level.discard(vector)

    def error(self, bits: int) -> None:
        first = self.errors == 0
        self.errors |= bits
        entry = self.lvt[ERROR]
        if not first or entry & MASKED or not self.enabled:
            return
        if entry & 0xFF < 16:
            self.errors |= 1 << 6
        else:
            self.fixed(entry & 0xFF, False)

    def eoi(self) -> None:
        if not self.in_service:
            return
        vector = max(self.in_service)
        self.in_service.remove(vector)
        if vector in self.level and self.lvt[LINT0] & 1 << 14 and self.lvt[LINT0] & 0xFF == vector:
            self.lvt[LINT0] &= ~(1 << 14)
            self.level_pin()

    # Local sources.

    def local(self, which: int) -> bool:
        entry = self.lvt[which]
        if entry & MASKED:
            return False
        mode = entry >> 8 & 7
        if mode == 0:
            level = which == LINT0 and bool(entry >> 15 & 1)
            if level:
                self.lvt[which] |= 1 << 14
            self.fixed(entry & 0xFF, level)
            return self.enabled
        if mode == 4:
            self.nmi = True
            return True
        if mode == 5:
            self.init, self.startup = True, None
            return True
        return False

    def level_pin(self) -> None:
        entry = self.lvt[LINT0]
        if self.pins[0] and entry >> 15 & 1 and not entry >> 14 & 1 and entry >> 8 & 7 == 0:
            self.local(LINT0)

    def set_pin(self, pin: int, asserted: bool) -> bool:
        before, self.pins[pin] = self.pins[pin], asserted
        if before or not asserted:
            return False
        if not self.on:
            self.nmi |= pin == 1
            return pin == 1
        return self.local((LINT0, LINT1)[pin])

    def takes_external(self) -> bool:
        if self.external:
            return True
        entry = self.lvt[LINT0]
        return self.pins[0] and (not self.on or (not entry & MASKED and entry >> 8 & 7 == 7))

    # The timer.

    def mode(self) -> str:
        return ("one-shot", "periodic", "deadline", "nonsense")[self.lvt[TIMER] >> 17 & 3]

    def ticks(self) -> int:
        """Per count."""
        by = {0: 2, 1: 4, 2: 8, 3: 16, 8: 32, 9: 64, 10: 128, 11: 1}[self.divide]
        return 5 * by

    def fire(self) -> None:
        if not self.lvt[TIMER] & MASKED:
            self.fixed(self.lvt[TIMER] & 0xFF, False)

    def end(self) -> int | None:
        """When the count is 0."""
        if not self.count or self.mode() in ("nonsense", "deadline"):
            return None
        return self.since + self.count * self.ticks()

    def due(self) -> int | None:
        """When something happens next by itself."""
        if self.mode() == "deadline":
            if not self.deadline:
                return None
            return max(self.deadline - self.tsc, self.machine.now)
        return self.end()

    def happen(self) -> None:
        """What is due now."""
        if self.mode() == "deadline":
            self.deadline = 0
        elif self.mode() == "periodic" and self.initial:
            self.count, self.since = self.initial, self.machine.now
        else:
            self.count = None
        self.fire()

    def current(self) -> int:
        if self.mode() in ("deadline", "nonsense") or not self.count:
            return 0
        return self.count - (self.machine.now - self.since) // self.ticks()

    # Registers.

    def vector_word(self, vectors: Iterable[int], word: int) -> int:
        return sum(1 << vector % 32 for vector in vectors if vector // 32 == word)

    def exists(self, register: int) -> str:
        """r, w, rw, or nothing."""
        if 0x10 <= register <= 0x27 or register in (2, 3, 0xA, 0x39):
            return "r"
        if register in (8, 0xF, 0x28, 0x30, 0x38, 0x3E, *LVTS):
            return "rw"
        if register == 0xB:
            return "w"
        if register == 0xD:
            return "r" if self.x2 else "rw"
        if self.x2:
            return "w" if register == 0x3F else ""
        return {9: "r", 0xC: "r", 0xE: "rw", 0x31: "rw"}.get(register, "")

    def get(self, register: int) -> int:
        if 0x10 <= register <= 0x27:
            vectors = (self.in_service, self.level, self.requested)[register - 0x10 >> 3]
            return self.vector_word(vectors, register & 7)
        if register in self.lvt:
            return self.lvt[register]
        cluster = self.id >> 4 << 16 | 1 << (self.id & 15)
        plain = {2: self.id if self.x2 else (self.id & 0xFF) << 24, 3: 0x01060014, 8: self.tpr, 9: self.apr(),
                 0xA: self.ppr(), 0xC: 0, 0xD: cluster if self.x2 else self.ldr, 0xE: self.dfr, 0xF: self.svr,
                 0x28: self.esr, 0x30: self.icr if self.x2 else self.icr & 0xFFFF_FFFF, 0x31: self.icr >> 32,
                 0x38: self.initial, 0x39: self.current(), 0x3E: self.divide, 0xB: 0}  # fmt: skip
        return plain[register]

    def put(self, register: int, value: int) -> None:
        if register in self.lvt:
            self.put_lvt(register, value)
        elif register == 8:
            self.tpr = value & 0xFF
        elif register == 0xB:
            self.eoi()
        elif register == 0xD:
            self.ldr = value & 0xFF00_0000
        elif register == 0xE:
            self.dfr = value | 0x0FFF_FFFF
        elif register == 0xF:
            self.svr = value & 0x13FF
            if not self.svr >> 8 & 1:
                for which in LVTS:
                    self.put_lvt(which, self.lvt[which] | MASKED)
        elif register == 0x28:
            self.esr, self.errors = self.errors, 0
        elif register == 0x31:
            self.icr = self.icr & 0xFFFF_FFFF | (value & 0xFF00_0000) << 32
        elif register == 0x30:
            high = value >> 32 if self.x2 else self.icr >> 32
            self.icr = high << 32 | value & 0xCCFFF
            self.machine.send(self, self.icr)
        elif register == 0x3F:
            self.machine.send(self, 1 << 18 | value)
        elif register == 0x38:
            if self.mode() not in ("deadline", "nonsense"):
                self.initial, self.count, self.since = value, value or None, self.machine.now
        else:
            self.put_divide(value & 0xB)

    def put_divide(self, value: int) -> None:
        left = self.current()
        self.divide = value
        if self.mode() in ("one-shot", "periodic"):
            self.count, self.since = left or None, self.machine.now

    def put_lvt(self, which: int, value: int) -> None:
        value = value & WRITABLE_LVT[which] | self.lvt[which] & 1 << 14
        if not self.svr >> 8 & 1:
            value |= MASKED
        if which == TIMER and (value ^ self.lvt[TIMER]) >> 18 & 1:
            self.count, self.initial, self.deadline = None, 0, 0
        self.lvt[which] = value
        if which in (LINT0, LINT1):
            self.level_pin() if which == LINT0 else None

    # The faces.

    def read(self, register: int) -> int:
        if not self.exists(register):
            self.error(1 << 7)
            return 0
        return self.get(register)

    def write(self, register: int, value: int) -> None:
        if not self.exists(register):
            self.error(1 << 7)
        elif "w" in self.exists(register):
            self.put(register, value)

    def rdmsr(self, register: int) -> int:
        if not self.x2 or "r" not in self.exists(register):
            raise Refused
        return self.get(register)

    def wrmsr(self, register: int, value: int) -> None:
        if not self.x2 or "w" not in self.exists(register):
            raise Refused
        if register in self.lvt:
            allowed = WRITABLE_LVT[register] | 1 << 12 | (1 << 14 if register in (LINT0, LINT1) else 0)
        else:
            allowed = {8: 0xFF, 0xF: 0x13FF, 0x30: EVERYBODY << 32 | 0xCDFFF, 0x38: EVERYBODY, 0x3E: 0xB,
                       0x3F: 0xFF}.get(register, 0)  # fmt: skip
        if value & ~allowed:
            raise Refused
        self.put(register, value)


class Machine:
    def __init__(self, identities: Sequence[int]) -> None:
        self.now = 0
        self.apics = [Apic(self, number, identity) for number, identity in enumerate(identities)]

    def advance(self, to: int) -> None:
        """Everything that happens until then, in order."""
        while True:
            due = [(when, apic.number) for apic in self.apics if (when := apic.due()) is not None and when <= to]
            if not due:
                break
            self.now, who = min(due)
            self.apics[who].happen()
        self.now = to

    def means(self, apic: Apic, destination: int, logical: bool) -> bool:
        if not apic.on:
            return False
        if destination == EVERYBODY:
            return True
        if apic.x2:
            if not logical:
                return apic.id == destination
            return apic.id >> 4 == destination >> 16 and bool(destination & 0xFFFF & 1 << (apic.id & 15))
        if not logical:
            return destination in (apic.id & 0xFF, 0xFF)
        if destination > 0xFF:
            return False
        mine = apic.ldr >> 24
        if apic.dfr >> 28 == 15:
            return bool(mine & destination)
        return apic.dfr >> 28 == 0 and mine >> 4 == destination >> 4 and bool(mine & destination & 15)

    def send(self, sender: Apic, icr: int) -> None:
        vector, mode, shorthand = icr & 0xFF, icr >> 8 & 7, icr >> 18 & 3
        if mode < 2 and vector < 16:
            sender.error(1 << 5)
            return
        if mode == 5 and icr >> 15 & 1 and not icr >> 14 & 1:
            return
        destination = icr >> 32
        if not sender.x2:
            destination >>= 24
            destination = EVERYBODY if destination == 0xFF else destination
        if shorthand == 1:
            targets = [sender]
        elif shorthand:
            targets = [apic for apic in self.apics if apic.on and not (shorthand == 3 and apic is sender)]
        else:
            targets = [apic for apic in self.apics if self.means(apic, destination, bool(icr >> 11 & 1))]
        self.deliver(targets, mode, vector, False, shorthand == 1)

    def message(self, address: int, data: int) -> None:
        """An MSI."""
        if address >> 20 != 0xFEE or (data >> 15 & 1 and not data >> 14 & 1):
            return
        destination, logical = address >> 12 & 0xFF, bool(address >> 2 & 1)
        destination = EVERYBODY if destination == 0xFF else destination
        mode = data >> 8 & 7
        targets = [apic for apic in self.apics if self.means(apic, destination, logical)]
        if mode == 0 and address >> 3 & 1 and logical:
            targets = self.lowest(targets, data & 0xFF)
        self.deliver(targets, mode, data & 0xFF, bool(data >> 15 & 1), False)

    def lowest(self, targets: list[Apic], vector: int) -> list[Apic]:
        able = [apic for apic in targets if apic.enabled]
        focus = [apic for apic in able if not apic.svr >> 9 & 1 and vector in apic.requested | apic.in_service]
        return focus[:1] or sorted(able, key=lambda apic: (apic.apr(), apic.number))[:1]

    def deliver(self, targets: list[Apic], mode: int, vector: int, level: bool, alone: bool) -> None:
        if mode == 1 and not alone:
            targets = self.lowest(targets, vector)
        for apic in targets:
            if mode in (0, 1):
                apic.fixed(vector, level)
            elif mode == 4:
                apic.nmi = True
            elif mode == 5:
                apic.init, apic.startup = True, None
            elif mode == 6:
                apic.startup = vector if apic.startup is None else apic.startup
            elif mode == 7:
                apic.external = True
