"""The 8254, rule by rule. Clauses are those of the Intel 82C54 data sheet (231244), "Mode Definitions" and before."""

from __future__ import annotations

from itertools import pairwise

import pytest

from hvcore._native.platform import InterruptPlatform

CLK = 1_000_000_000 / 1193182
GATE_2 = 1


class Board:
    """Counter 2, whose gate and OUT port 61h has, and counter 0 beside it."""

    def __init__(self) -> None:
        self.chip = InterruptPlatform()
        self.clocks = 0
        self.gate(True)

    def wait(self, clocks: int) -> None:
        """To the middle of a CLK period, `clocks` later."""
        self.clocks += clocks
        self.chip.advance(int((self.clocks + 0.5) * CLK))

    def gate(self, high: bool) -> None:
        self.chip.write_port(0x61, GATE_2 if high else 0)

    @property
    def out(self) -> int:
        return self.chip.read_port(0x61) >> 5 & 1

    def start(self, mode: int, count: int, *, bcd: bool = False, counter: int = 2) -> None:
        self.chip.write_port(0x43, counter << 6 | 0x30 | mode << 1 | bcd)
        self.set(count, counter)

    def set(self, count: int, counter: int = 2) -> None:
        self.chip.write_port(0x40 + counter, count & 255)
        self.chip.write_port(0x40 + counter, count >> 8)

    def read(self, counter: int = 2) -> int:
        low = self.chip.read_port(0x40 + counter)
        return low | self.chip.read_port(0x40 + counter) << 8

    def trace(self, clocks: int) -> str:
        """OUT after each of the next CLK pulses."""
        levels = ""
        for _ in range(clocks):
            self.wait(1)
            levels += str(self.out)
        return levels

    def status(self, counter: int = 2) -> int:
        self.chip.write_port(0x43, 0xE0 | 2 << counter)
        return self.chip.read_port(0x40 + counter)


@pytest.fixture
def board() -> Board:
    return Board()


def test_mode_0_rises_n_plus_1_pulses_after_the_count_is_written(board: Board) -> None:
    board.start(0, 4)
    assert board.out == 0
    assert board.trace(7) == "0000111"


def test_mode_0_gate_holds_the_count_and_not_out(board: Board) -> None:
    board.start(0, 4)
    board.wait(2)
    board.gate(False)
    assert board.trace(3) == "000"
    board.gate(True)
    assert board.trace(4) == "0011"


def test_mode_0_a_count_written_without_gate_is_loaded_all_the_same(board: Board) -> None:
    """'When GATE goes to 1, OUT will go high N CLK pulses later; no CLK pulse is needed to load.'"""
    board.gate(False)
    board.start(0, 3)
    board.wait(5)
    board.gate(True)
    assert board.trace(4) == "0011"


def test_mode_0_the_first_byte_stops_counting_and_lowers_out(board: Board) -> None:
    board.start(0, 2)
    board.wait(4)
    assert board.out == 1
    board.chip.write_port(0x42, 3)
    assert board.out == 0
    board.wait(10)
    assert board.out == 0
    board.chip.write_port(0x42, 0)
    assert board.trace(5) == "00011"


def test_mode_0_goes_on_counting_from_the_top_and_out_stays(board: Board) -> None:
    board.start(0, 1)
    board.wait(4)
    assert (board.out, board.read()) == (1, 0xFFFE)


def test_mode_1_one_shot_is_n_pulses_long_and_can_be_triggered_again(board: Board) -> None:
    board.gate(False)
    board.start(1, 3)
    assert board.trace(3) == "111"
    board.gate(True)
    assert board.trace(6) == "000111"
    board.gate(False)
    board.gate(True)
    board.wait(2)
    board.gate(False)
    board.gate(True)
    assert board.trace(5) == "00011"


def test_mode_1_a_new_count_waits_for_the_next_trigger(board: Board) -> None:
    board.gate(False)
    board.start(1, 2)
    board.gate(True)
    board.wait(1)
    board.set(5)
    assert board.trace(4) == "0111"
    board.gate(False)
    board.gate(True)
    assert board.trace(7) == "0000011"


def test_mode_2_is_low_for_one_pulse_of_n(board: Board) -> None:
    board.start(2, 3)
    assert board.out == 1
    assert board.trace(8) == "11011011"


def test_mode_2_gate_low_raises_out_at_once_and_high_starts_over(board: Board) -> None:
    board.start(2, 3)
    board.wait(3)
    assert board.out == 0
    board.gate(False)
    assert board.out == 1
    assert board.trace(3) == "111"
    board.gate(True)
    assert board.trace(5) == "11011"


def test_mode_2_a_new_count_is_used_from_the_next_period(board: Board) -> None:
    board.start(2, 4)
    board.wait(2)
    board.set(2)
    assert board.trace(8) == "10101010"


def test_mode_3_even_counts_are_high_and_low_for_half_each(board: Board) -> None:
    board.start(3, 4)
    assert board.trace(9) == "110011001"


def test_mode_3_odd_counts_are_high_for_one_pulse_more(board: Board) -> None:
    board.start(3, 5)
    assert board.trace(11) == "11100111001"


def test_mode_3_counts_by_two(board: Board) -> None:
    """The figure of mode 3: 4 2 4 2, and 4 2 0 4 2 for an initial count of 5."""
    seen = []
    board.start(3, 5)
    for _ in range(7):
        board.wait(1)
        seen.append(board.read())
    assert seen == [4, 2, 0, 4, 2, 4, 2]


def test_mode_3_gate_low_raises_out_and_a_new_count_waits_for_the_half(board: Board) -> None:
    board.start(3, 4)
    board.wait(3)
    assert board.out == 0
    board.gate(False)
    assert board.out == 1
    board.gate(True)
    board.wait(1)
    board.set(8)
    assert board.trace(10) == "1000011110"


def test_mode_4_strobes_once(board: Board) -> None:
    board.start(4, 3)
    assert board.trace(8) == "11101111"
    board.set(2)
    assert board.trace(5) == "11011"


def test_mode_5_is_triggered_by_gate(board: Board) -> None:
    board.gate(False)
    board.start(5, 3)
    assert board.trace(5) == "11111"
    board.gate(True)
    assert board.trace(6) == "111011"


@pytest.mark.parametrize(("count", "clocks", "seen"), [(0x0005, 4, 0x0002), (0x1000, 2, 0x0999), (0, 2, 0x9999)])
def test_bcd(board: Board, count: int, clocks: int, seen: int) -> None:
    board.start(2, count, bcd=True)
    board.wait(clocks)
    assert board.read() == seen


def test_zero_is_the_largest_count(board: Board) -> None:
    board.start(2, 0)
    board.wait(2)
    assert board.read() == 0xFFFF
    board.wait(65534)
    assert (board.out, board.read()) == (0, 1)
    board.wait(1)
    assert (board.out, board.read()) == (1, 0)


def test_latch_holds_until_it_is_read_and_a_second_one_is_ignored(board: Board) -> None:
    """Counter Latch Command."""
    board.start(2, 1000)
    board.wait(11)
    board.chip.write_port(0x43, 0x80)
    board.wait(5)
    board.chip.write_port(0x43, 0x80)
    board.wait(5)
    assert board.read() == 990
    assert board.read() == 980


def test_one_byte_accesses(board: Board) -> None:
    """RW 01 and 10; the byte that is not written is zero."""
    for access, expected in ((1, 0x0010), (2, 0x1000)):
        board.chip.write_port(0x43, 0x80 | access << 4 | 2 << 1)
        board.chip.write_port(0x42, 0x10)
        board.wait(1)
        assert board.chip.read_port(0x42) == expected >> (8 if access == 2 else 0)
        board.chip.write_port(0x43, 0xB0 | 2 << 1)


def test_read_back_status(board: Board) -> None:
    """OUT, NULL COUNT, and the control word as it was written; mode X11 is kept as such."""
    board.chip.write_port(0x43, 0xB0 | 7 << 1)
    assert board.status() == 0xC0 | 0x30 | 7 << 1
    board.set(100)
    assert board.status() & 0x40
    board.wait(1)
    assert board.status() & 0x40 == 0
    board.set(200)
    assert board.status() & 0x40
    board.wait(60)
    assert board.status() & 0x40 == 0


def test_read_back_latches_several_counters_and_gives_status_first(board: Board) -> None:
    board.start(2, 500)
    board.start(2, 700, counter=0)
    board.wait(1)
    board.chip.write_port(0x43, 0xC0 | 2 << 2 | 2)
    board.wait(9)
    assert board.chip.read_port(0x42) == 0x80 | 0x30 | 4
    assert board.read() == 500
    assert board.chip.read_port(0x40) == 0x80 | 0x30 | 4
    assert board.read(0) == 700


def test_writing_a_control_word_forgets_latches(board: Board) -> None:
    board.start(2, 1000)
    board.wait(10)
    board.chip.write_port(0x43, 0x80)
    board.start(2, 50)
    board.wait(1)
    assert board.read() == 50


def test_the_control_port_cannot_be_read(board: Board) -> None:
    assert board.chip.read_port(0x43) == 0xFF


def test_port_61(board: Board) -> None:
    """Bits 3:0 are written, bit 4 toggles every 18 CLK pulses (refresh, 15.1 us), bit 5 is OUT of counter 2."""
    board.chip.write_port(0x61, 0xFF)
    assert board.chip.read_port(0x61) & 0xCF == 0x0F
    board.wait(1)       # the pulse that loads counter 1
    toggles = [board.chip.read_port(0x61) >> 4 & 1]
    for _ in range(180):
        board.wait(1)
        toggles.append(board.chip.read_port(0x61) >> 4 & 1)
    assert sum(a != b for a, b in pairwise(toggles)) == 10


@pytest.mark.parametrize("seconds", [1, 60, 86_400])
def test_no_drift(seconds: int) -> None:
    """1193182 CLK pulses a second: one edge by the control word, one pulse that loads, then an edge every two."""
    chip = InterruptPlatform()
    chip.write_port(0x43, 0x34)
    chip.write_port(0x40, 2)
    chip.write_port(0x40, 0)
    chip.advance(seconds * 1_000_000_000)
    assert chip.counters()["timer_interrupts"] == 1 + (seconds * 1193182 - 1) // 2


def test_the_deadline_is_the_first_nanosecond_of_the_edge() -> None:
    chip = InterruptPlatform()
    for port, value in ((0x20, 0x13), (0x21, 0x20), (0x21, 1), (0x43, 0x30), (0x40, 10), (0x40, 0)):
        chip.write_port(port, value)
    assert chip.next_deadline() == -(-1 * 1_000_000_000 // 1193182)      # the pulse that loads the count
    chip.advance(1000)
    deadline = -(-11 * 1_000_000_000 // 1193182)
    assert chip.next_deadline() == deadline
    chip.advance(deadline - 1)
    assert not chip.intr
    chip.advance(deadline)
    assert chip.intr


def test_nothing_is_due_while_both_inputs_are_masked_and_nothing_is_forgotten() -> None:
    chip = InterruptPlatform()
    for port, value in ((0x20, 0x13), (0x21, 0x20), (0x21, 1), (0x21, 1), (0x43, 0x34), (0x40, 0), (0x40, 1)):
        chip.write_port(port, value)
    assert chip.next_deadline() is None
    chip.advance(1_000_000_000)
    assert chip.counters()["timer_interrupts"] == 1 + (1193182 - 1) // 256
    chip.write_port(0x21, 0)
    assert chip.intr and chip.next_deadline() is not None
