"""An I/O APIC and the few local APICs behind it in plain Python, from the 82093AA data sheet (290566)."""

from __future__ import annotations

FIXED, LOWEST, SMI, NMI, EXTINT = 0, 1, 2, 4, 7


class Local:
    """What an I/O APIC can see of a local APIC: who it is, and what waits, is served, and had a level."""

    def __init__(self, apic_id: int) -> None:
        self.apic_id = apic_id
        self.requested: set[int] = set()
        self.in_service: set[int] = set()
        self.level: set[int] = set()
        self.nmi = False

    def accept(self, mode: int, vector: int, level: bool) -> bool:
        if mode == NMI:
            self.nmi = True
            return True
        if mode not in (FIXED, LOWEST) or vector < 16:
            return False
        if level or (vector in self.requested and vector in self.level):
            self.level.add(vector)
        else:
            self.level.discard(vector)
        self.requested.add(vector)
        return True

    def acknowledge(self) -> int | None:
        waiting = max(self.requested, default=0)
        if waiting >> 4 <= max(self.in_service, default=0) >> 4:
            return None
        self.requested.remove(waiting)
        self.in_service.add(waiting)
        return waiting

    def eoi(self) -> int | None:
        """The vector to broadcast, if there is one."""
        if not self.in_service:
            return None
        ended = max(self.in_service)
        self.in_service.remove(ended)
        return ended if ended in self.level else None


class Pin:
    def __init__(self) -> None:
        self.vector = self.mode = self.destination = 0
        self.logical = self.active_low = self.level_bit = False
        self.masked = True
        self.line = self.active = self.remote_irr = self.pending = False

    @property
    def level(self) -> bool:
        """Only fixed and lowest-priority interrupts are ever levels."""
        return self.level_bit and self.mode in (FIXED, LOWEST)


class IoApic:
    """Registers by index; `locals` are physical destinations by id, FFh is all of them."""

    def __init__(self, local_apics: list[Local], version: int) -> None:
        self.locals = local_apics
        self.version = version
        self.pins = [Pin() for _ in range(24)]
        self.id = 0

    def send(self, pin: Pin) -> bool:
        """Whether anybody accepted."""
        addressed = [apic for apic in self.locals if pin.destination in (apic.apic_id, 0xFF)]
        if pin.logical:
            addressed = self.locals if pin.destination == 0xFF else []      # nobody has a logical id
        if pin.mode == LOWEST:
            addressed = self.arbitrate(addressed, pin.vector)
        return sum(apic.accept(pin.mode, pin.vector, pin.level) for apic in addressed) > 0

    def arbitrate(self, candidates: list[Local], vector: int) -> list[Local]:
        for apic in candidates:
            if vector in apic.requested | apic.in_service:
                return [apic]
        ranked = sorted(candidates, key=lambda apic: max(apic.requested | apic.in_service, default=0) >> 4)
        return ranked[:1]

    def try_level(self, pin: Pin) -> None:
        pin.pending = False
        if pin.level and pin.active and not pin.masked and not pin.remote_irr:
            pin.remote_irr = self.send(pin)
            pin.pending = not pin.remote_irr

    def look(self, pin: Pin) -> None:
        """The line or the polarity may have changed."""
        before, pin.active = pin.active, pin.line != pin.active_low
        if pin.active and not before and not pin.masked and not pin.level:
            self.send(pin)
        if pin.active != before:
            self.try_level(pin)

    def set_line(self, number: int, high: bool) -> None:
        self.pins[number].line = high
        self.look(self.pins[number])

    def eoi(self, vector: int) -> None:
        for pin in self.pins:
            if pin.remote_irr and pin.vector == vector:
                pin.remote_irr = False
                self.try_level(pin)

    def write(self, index: int, value: int) -> None:
        if index == 0:
            self.id = value >> 24 & 15
        if not 0x10 <= index < 0x40:
            return
        pin = self.pins[(index - 0x10) // 2]
        if index % 2:
            pin.destination = value >> 24
        else:
            pin.vector, pin.mode, pin.logical = value & 0xFF, value >> 8 & 7, bool(value >> 11 & 1)
            pin.active_low, pin.level_bit, pin.masked = (bool(value >> bit & 1) for bit in (13, 15, 16))
        if not pin.level:
            pin.remote_irr = False
        self.look(pin)
        self.try_level(pin)

    def read(self, index: int) -> int:
        if index in (0, 2):
            return self.id << 24
        if index == 1:
            return 23 << 16 | self.version
        if not 0x10 <= index < 0x40:
            return 0
        pin = self.pins[(index - 0x10) // 2]
        if index % 2:
            return pin.destination << 24
        return (
            pin.vector | pin.mode << 8 | pin.logical << 11 | pin.pending << 12 | pin.active_low << 13
            | pin.remote_irr << 14 | pin.level_bit << 15 | pin.masked << 16
        )  # fmt: skip
