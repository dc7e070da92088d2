"""An 8254 in plain Python, one CLK pulse at a time, written from the 82C54 data sheet (231244): slow and obvious."""

from __future__ import annotations

HERTZ = 1193182


def clocks(nanoseconds: int) -> int:
    """CLK pulses that have passed."""
    return nanoseconds * HERTZ // 1_000_000_000


class Counter:
    """One counter. `clk` is one pulse; everything else happens between pulses."""

    def __init__(self) -> None:
        self.word = 0x30
        self.mode, self.access, self.bcd = 0, 3, False
        self.gate = True
        self.out = False
        self.null = True
        self.register = 0
        self.element = 0
        self.first_byte: int | None = None
        self.read_second = False
        self.written = self.load = self.counting = self.done = False
        self.strobing = False
        self.extra = False
        self.rising = 0
        self.latch: list[int] = []
        self.status: int | None = None

    def drive(self, level: bool) -> None:
        self.rising += level and not self.out
        self.out = level

    @property
    def size(self) -> int:
        return 10_000 if self.bcd else 0x10000

    def count(self) -> int:
        """The count register as a number of pulses."""
        number = self.register
        if self.bcd:
            number = sum((self.register >> 4 * digit & 15) * 10**digit for digit in range(4)) % 10_000
        if number == 1 and self.mode in (2, 3):
            return 2
        return number or self.size

    def visible(self) -> int:
        """The counting element as it is read; a count that waits for its CLK pulse is read as if that had come."""
        value = self.element
        if self.load:
            value = self.count() & ~1 if self.mode == 3 else self.count()
        value %= self.size
        return int(str(value), 16) if self.bcd else value

    def load_square(self) -> None:
        number = self.count()
        self.element = number & ~1
        self.extra = bool(number & 1) and self.out       # an odd count has one more pulse while OUT is high

    def clk(self) -> None:
        if self.load:
            self.load = self.done = self.strobing = self.null = False
            self.counting = True
            if self.mode == 3:
                self.drive(True)
                self.load_square()
            else:
                self.element = self.count()
                self.drive(self.mode not in (0, 1))
            return
        if self.strobing:
            self.strobing = False
            self.drive(True)
        if not self.counting or (not self.gate and self.mode not in (1, 5)):
            return
        if self.mode == 3:
            self.clk_square()
        elif self.mode == 2:
            self.element -= 1
            if self.element == 0:
                self.element = self.count()
                self.null = False
            self.drive(self.element != 1)
        else:
            self.element = (self.element - 1) % self.size
            if self.element == 0 and not self.done:
                self.done = True
                self.drive(self.mode in (0, 1))
                self.strobing = self.mode in (4, 5)

    def clk_square(self) -> None:
        if self.element:
            self.element -= 2
            if self.element or self.extra:
                return
        self.extra = False
        self.drive(not self.out)
        self.null = False
        self.load_square()

    def control(self, word: int) -> None:
        self.word = word & 0x3F
        self.access = word >> 4 & 3
        self.mode = (0, 1, 2, 3, 4, 5, 2, 3)[word >> 1 & 7]
        self.bcd = bool(word & 1)
        self.register = self.element = 0
        self.first_byte = self.status = None
        self.latch = []
        self.read_second = self.extra = False
        self.written = self.load = self.counting = self.done = self.strobing = False
        self.null = True
        self.drive(self.mode != 0)

    def write(self, value: int) -> None:
        if self.access == 3 and self.first_byte is None:
            self.first_byte = value
            if self.mode == 0:
                self.counting = self.load = False
                self.drive(False)
            return
        self.register = {1: value, 2: value << 8, 3: value << 8 | (self.first_byte or 0)}[self.access]
        self.first_byte = None
        self.null = True
        if self.mode in (0, 4) or (self.mode in (2, 3) and not self.written):
            self.load = True
        if self.mode == 0:
            self.drive(False)
        self.written = True

    def latch_count(self) -> None:
        if not self.latch:
            value = self.visible()
            self.latch = {1: [value & 255], 2: [value >> 8], 3: [value & 255, value >> 8]}[self.access]
            self.read_second = False

    def latch_status(self) -> None:
        if self.status is None:
            self.status = self.out << 7 | self.null << 6 | self.word

    def read(self) -> int:
        if self.status is not None:
            value, self.status = self.status, None
            return value
        if self.latch:
            return self.latch.pop(0)
        value = self.visible()
        high = self.access == 2 or (self.access == 3 and self.read_second)
        self.read_second = self.access == 3 and not self.read_second
        return value >> 8 if high else value & 255

    def set_gate(self, level: bool) -> None:
        rises, self.gate = level and not self.gate, level
        if self.mode in (0, 4) or not self.written:
            return
        if rises:
            self.load = True
        elif not level and self.mode in (2, 3):
            self.drive(True)


class Timer:
    """The 8254 of a PC behind ports 40h to 43h, and port 61h. Counter 1 starts as firmware leaves it."""

    def __init__(self) -> None:
        self.counters = [Counter(), Counter(), Counter()]
        self.counters[1].control(0x54)
        self.counters[1].write(18)
        self.counters[2].set_gate(False)
        self.counters[1].rising = 0
        self.passed = 0
        self.port_61 = 0

    def advance(self, nanoseconds: int) -> None:
        while self.passed < clocks(nanoseconds):
            self.passed += 1
            for counter in self.counters:
                counter.clk()

    def write(self, port: int, value: int) -> None:
        if port == 0x61:
            self.port_61 = value & 15
            self.counters[2].set_gate(bool(value & 1))
        elif port != 0x43:
            self.counters[port - 0x40].write(value)
        elif value >> 6 == 3:
            for index, counter in enumerate(self.counters):
                if value >> 1 + index & 1:
                    if not value & 0x20:
                        counter.latch_count()
                    if not value & 0x10:
                        counter.latch_status()
        elif value & 0x30 == 0:
            self.counters[value >> 6].latch_count()
        else:
            self.counters[value >> 6].control(value)

    def read(self, port: int) -> int:
        if port == 0x43:
            return 0xFF
        if port != 0x61:
            return self.counters[port - 0x40].read()
        return self.port_61 | (self.counters[1].rising & 1) << 4 | self.counters[2].out << 5
