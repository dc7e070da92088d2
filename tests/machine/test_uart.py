"""The 16550: registers as software sees them, and the port bus below it."""

import pytest

from hvcore.machine.bus import Bus
from hvcore.machine.pc import SerialMachine
from hvcore.machine.uart import COM1, Uart

DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(8)
FCR = IIR


@pytest.fixture
def uart():
    device = Uart()
    device.sent = []
    device.sink = device.sent.append
    return device


def fifo(device):
    device.write(FCR, 1, 0xC7)


def test_power_on(uart):
    assert [uart.read(register, 1) for register in range(8)] == [0, 0, 1, 0, 0, 0x60, 0xB0, 0]


def test_transmit(uart):
    for byte in b"hello":
        assert uart.read(LSR, 1) & 0x60 == 0x60
        uart.write(DATA, 1, byte)
    assert bytes(uart.sent) == b"hello"


def test_without_a_sink_bytes_are_lost():
    Uart().write(DATA, 1, 65)


def test_divisor_latch_hides_data_and_ier(uart):
    uart.write(IER, 1, 0x05)
    uart.write(LCR, 1, 0x83)
    uart.write(DATA, 2, 0x0180)
    assert (uart.read(DATA, 1), uart.read(IER, 1), uart.divisor) == (0x80, 0x01, 0x180)
    uart.write(LCR, 1, 0x03)
    assert (uart.read(IER, 1), uart.read(LCR, 1), uart.sent) == (0x05, 0x03, [])


def test_receive_without_fifo_holds_one_byte(uart):
    assert uart.feed(b"abc") == 1
    assert uart.read(LSR, 1) == 0x61
    assert uart.read(DATA, 1) == ord("a")
    assert (uart.read(LSR, 1), uart.read(DATA, 1)) == (0x60, 0)


def test_receive_fifo_of_sixteen(uart):
    fifo(uart)
    assert uart.room == 16
    assert uart.feed(range(20)) == 16
    assert [uart.read(DATA, 1) for _ in range(16)] == list(range(16))
    assert uart.read(LSR, 1) == 0x60


def test_fifo_control(uart):
    fifo(uart)
    assert uart.read(IIR, 1) == 0xC1
    uart.feed(b"xyz")
    uart.write(FCR, 1, 0x03)
    assert uart.read(LSR, 1) == 0x60
    uart.feed(b"xyz")
    uart.write(FCR, 1, 0x00)
    assert (uart.read(LSR, 1), uart.read(IIR, 1), uart.room) == (0x60, 0x01, 1)


def test_interrupt_identification(uart):
    fifo(uart)
    uart.write(FCR, 1, 0x41)
    uart.write(IER, 1, 0x0F)
    assert uart.read(IIR, 1) == 0xC2
    assert uart.read(IIR, 1) == 0xC1
    uart.feed(b"abc")
    assert uart.read(IIR, 1) == 0xCC
    uart.feed(b"d")
    assert uart.read(IIR, 1) == 0xC4
    uart.write(IER, 1, 0)
    assert uart.read(IIR, 1) == 0xC1


def test_transmitted_byte_pends_again(uart):
    uart.write(IER, 1, 2)
    assert (uart.read(IIR, 1), uart.read(IIR, 1)) == (0x02, 0x01)
    uart.write(DATA, 1, 65)
    assert (uart.read(IIR, 1), uart.read(IIR, 1)) == (0x02, 0x01)


def test_loopback(uart):
    fifo(uart)
    uart.write(MCR, 1, 0x1F)
    assert uart.read(MSR, 1) & 0xF0 == 0xF0
    uart.write(DATA, 1, 0x5A)
    assert (uart.sent, uart.read(DATA, 1)) == ([], 0x5A)
    for _ in range(17):
        uart.write(DATA, 1, 1)
    assert uart.read(LSR, 1) == 0x63
    assert uart.read(LSR, 1) == 0x61
    uart.write(MCR, 1, 0x10)
    assert uart.read(MSR, 1) == 0x0F
    assert uart.read(MSR, 1) == 0x00


@pytest.mark.parametrize(("outputs", "lines"), [(1, 0x20), (2, 0x10), (4, 0x40), (8, 0x80)])
def test_loopback_lines(uart, outputs, lines):
    uart.write(MCR, 1, 0x10 | outputs)
    assert uart.read(MSR, 1) & 0xF0 == lines


def test_scratch_and_masks(uart):
    uart.write(SCR, 1, 0xA5)
    uart.write(IER, 1, 0xFF)
    uart.write(MCR, 1, 0xFF)
    uart.write(LSR, 1, 0xFF)
    uart.write(MSR, 1, 0xFF)
    assert [uart.read(register, 1) for register in (SCR, IER, MCR, LSR)] == [0xA5, 0x0F, 0x1F, 0x60]


def test_wide_accesses_are_consecutive_registers(uart):
    uart.write(SCR, 1, 0x77)
    assert uart.read(MSR, 2) == 0x77B0
    uart.write(LCR, 2, 0x0203)
    assert (uart.read(LCR, 1), uart.read(MCR, 1)) == (3, 2)


def test_ports_of_nobody_float():
    bus = Bus()
    assert [bus.read(0x80, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFF_FFFF]
    bus.write(0x80, 1, 3)


def test_bus_offsets(uart):
    bus = Bus()
    bus.attach(uart, port=0x2F8, count=8)
    bus.write(0x2FF, 1, 0x42)
    assert bus.read(0x2FF, 1) == 0x42
    assert bus.read(0x2FF, 2) == 0xFFFF
    assert bus.read(0x2F7, 1) == bus.read(0x300, 1) == 0xFF


@pytest.mark.parametrize(("port", "count"), [(-1, 1), (0xFFFF, 2), (0x300, 0), (0x1_0000, 1)])
def test_bus_refuses_ranges(uart, port, count):
    with pytest.raises(ValueError, match="are not in 0 to 0xffff"):
        Bus().attach(uart, port=port, count=count)


def test_bus_refuses_overlap(uart):
    bus = Bus()
    bus.attach(uart, port=0x3F8, count=8)
    with pytest.raises(ValueError, match="port 0x3ff belongs to Uart already"):
        bus.attach(uart, port=0x3FF, count=1)


def test_machine_has_its_console_at_3f8():
    machine = SerialMachine()
    sent = []
    machine.console.sink = sent.append
    machine.ports.write(COM1, 1, 65)
    assert sent == [65]
