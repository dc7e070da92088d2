"""A pair of 8259As in plain Python, written from the data sheet (231468): lists and searches, nothing clever."""

from __future__ import annotations


class Chip:
    """One 8259A. `slaves` maps an input to the chip whose INT is there, for the master."""

    def __init__(self, slaves: dict[int, Chip] | None = None, fixed_edges: tuple[int, ...] = ()) -> None:
        self.slaves = slaves or {}
        self.fixed_edges = fixed_edges
        self.line = [False] * 8
        self.edge = [False] * 8
        self.in_service = [False] * 8
        self.mask = [True] * 8
        self.elcr = [False] * 8
        self.icw = {1: 0, 2: 0, 3: 0, 4: 0}
        self.expected: list[int] = []
        self.initialized = False
        self.order = list(range(8))     # inputs, highest priority first
        self.rotate_automatically = self.special_mask = self.show_service = False
        self.polled: int | None = None
        self.polling = False

    def set_line(self, number: int, level: bool) -> None:
        if level and not self.line[number]:
            self.edge[number] = True
        if not level:
            self.edge[number] = False
        self.line[number] = level

    def is_level(self, number: int) -> bool:
        return bool(self.icw[1] & 8) or self.elcr[number]

    def requests(self) -> list[bool]:
        return [self.line[n] and (self.is_level(n) or self.edge[n]) for n in range(8)]

    def has_slave(self, number: int) -> bool:
        return bool(self.slaves) and not self.icw[1] & 2 and bool(self.icw[3] >> number & 1)

    def blocking(self) -> list[int]:
        """Inputs in service that hold others back, highest priority first."""
        return [n for n in self.order if self.in_service[n] and not (self.special_mask and self.mask[n])]

    def winner(self) -> int | None:
        if not self.initialized or self.expected:
            return None
        requests = self.requests()
        for number in self.order:
            if self.blocking() and self.blocking()[0] == number:
                nested = self.icw[4] & 16 and self.has_slave(number)
                return number if nested and requests[number] and not self.mask[number] else None
            if requests[number] and not self.mask[number]:
                return number
        return None

    def lowest(self, number: int) -> None:
        """Rotate until `number` has the lowest priority."""
        while self.order[-1] != number:
            self.order.append(self.order.pop(0))

    def serve(self, number: int) -> None:
        self.edge[number] = False
        self.in_service[number] = True
        if self.icw[4] & 2:
            self.in_service[number] = False
            if self.rotate_automatically:
                self.lowest(number)

    def vector(self, number: int) -> int:
        if self.icw[4] & 1:
            return self.icw[2] & 0xF8 | number
        return self.icw[1] & 0xE0 | number * 4 if self.icw[1] & 4 else self.icw[1] & 0xC0 | number * 8

    def inta(self) -> int:
        number = self.winner()
        if number is None:
            return self.vector(7)
        self.serve(number)
        return self.vector(number)

    def write(self, a0: int, value: int) -> None:
        if a0 and self.expected:
            number = self.expected.pop(0)
            self.icw[number] = value & 0x1F if number == 4 else value
            self.initialized = self.initialized or not self.expected
        elif a0:
            self.mask = [bool(value >> n & 1) for n in range(8)]
        elif value & 0x10:
            self.begin(value)
        elif value & 8:
            if value & 0x40:
                self.special_mask = bool(value & 0x20)
            if value & 4:
                self.polling, self.polled = True, self.winner()
            elif value & 2:
                self.show_service = bool(value & 1)
        else:
            self.command(value >> 5, value & 7)

    def begin(self, value: int) -> None:
        self.icw[1], self.icw[3] = value, 7
        self.edge, self.mask, self.in_service = [False] * 8, [False] * 8, [False] * 8
        self.order = list(range(8))
        self.special_mask = self.show_service = self.rotate_automatically = self.polling = False
        self.expected = [2] + [3] * (not value & 2) + [4] * (value & 1)
        if not value & 1:
            self.icw[4] = 0

    def command(self, code: int, number: int) -> None:
        if code in (0, 4):
            self.rotate_automatically = code == 4
        elif code == 6:
            self.lowest(number)
        elif code in (3, 7):
            self.in_service[number] = False
            if code == 7:
                self.lowest(number)
        elif code in (1, 5) and self.blocking():
            ended = self.blocking()[0]
            self.in_service[ended] = False
            if code == 5:
                self.lowest(ended)


def bits(flags: list[bool]) -> int:
    return sum(flag << n for n, flag in enumerate(flags))


class Pair:
    """Master at 20h, slave at A0h, ELCR at 4D0h, as a PC wires them."""

    def __init__(self) -> None:
        self.slave = Chip(fixed_edges=(0, 5))
        self.master = Chip({2: self.slave}, (0, 1, 2))

    def settle(self) -> None:
        self.master.set_line(2, self.slave.winner() is not None)

    @property
    def intr(self) -> bool:
        return self.master.winner() is not None

    def set_line(self, number: int, level: bool) -> None:
        (self.slave if number > 7 else self.master).set_line(number & 7, level)
        self.settle()

    def acknowledge(self) -> int:
        number = self.master.winner()
        vector = self.master.inta()
        if number is not None and self.master.has_slave(number):
            # The slave whose number is on the cascade lines answers; nobody else's lines are there.
            wired = self.master.slaves.get(number)
            vector = 0xFF
            if wired is not None and wired.initialized and wired.icw[3] & 7 == number:
                vector = wired.inta()
        self.master.set_line(2, False)
        self.settle()
        return vector

    def chip(self, port: int) -> Chip:
        return self.slave if port & 0x80 else self.master

    def write(self, port: int, value: int) -> None:
        if port >= 0x4D0:
            chip = (self.master, self.slave)[port & 1]
            chip.elcr = [bool(value >> n & 1) and n not in chip.fixed_edges for n in range(8)]
        else:
            self.chip(port).write(port & 1, value)
        self.settle()

    def read(self, port: int) -> int:
        if port >= 0x4D0:
            return bits((self.master, self.slave)[port & 1].elcr)
        chip = self.chip(port)
        if chip.polling:
            chip.polling, number = False, chip.polled
            if number is None:
                return 0
            chip.serve(number)
            if chip is self.slave:
                self.master.set_line(2, False)
            self.settle()
            return 0x80 | number
        if port & 1:
            return bits(chip.mask)
        return bits(chip.in_service if chip.show_service else chip.requests())
