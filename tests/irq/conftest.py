"""A virtual processor as the tests see it: a controller, its two pages, and what guest code does with them."""
import struct

import pytest

from hvcore._native.irqchip import InterruptController, MessagePort

EOI, SCONTROL, SIEFP, SIMP, EOM, SINT0 = 0x40000070, 0x40000080, 0x40000082, 0x40000083, 0x40000084, 0x40000090


class VirtualProcessor:
    def __init__(self, apic_id: int = 0) -> None:
        self.messages = bytearray(4096)
        self.events = bytearray(4096)
        self.chip = InterruptController(apic_id=apic_id, message_page=self.messages, event_page=self.events)
        self.chip.apic_enabled = True       # after a reset it loses every fixed interrupt
        self.now = 0

    def write(self, index: int, value: int) -> None:
        assert self.chip.write_msr(index, value, self.now) is True, hex(index)

    def read(self, index: int) -> int:
        value = self.chip.read_msr(index, self.now)
        assert value is not None, hex(index)
        return value

    def enable_synic(self) -> None:
        self.write(SIMP, 0x1001)
        self.write(SIEFP, 0x2001)
        self.write(SCONTROL, 1)

    def set_sint(self, sint: int, value: int) -> None:
        self.write(SINT0 + sint, value)

    def post(self, port: MessagePort, sint: int, tag: int) -> bool:
        return self.chip.post_message(port, sint=sint, message_type=1, sender=7, payload=struct.pack("<Q", tag))

    def intercept(self, source: "VirtualProcessor", tag: int) -> None:
        payload = struct.pack("<Q", tag)
        self.chip.post_intercept(source.chip, message_type=0x80010000, sender=3, payload=payload)

    def slot(self, sint: int) -> bytes:
        return bytes(self.messages[sint * 256:sint * 256 + 256])

    def message_type(self, sint: int) -> int:
        return struct.unpack_from("<I", self.messages, sint * 256)[0]

    def more_pending(self, sint: int) -> bool:
        return bool(self.messages[sint * 256 + 5] & 1)

    def tag(self, sint: int) -> int:
        return struct.unpack_from("<Q", self.messages, sint * 256 + 16)[0]

    def clear_slot(self, sint: int) -> bool:
        """What a guest does with a message that it has read; whether it now owes an EOM."""
        self.messages[sint * 256:sint * 256 + 4] = bytes(4)
        return self.more_pending(sint)

    def eom(self) -> None:
        self.write(EOM, 0)

    def eoi(self) -> None:
        self.write(EOI, 0)

    def count(self, name: str) -> int:
        return self.chip.counters()[name]


@pytest.fixture
def vp() -> VirtualProcessor:
    """Fresh from reset."""
    return VirtualProcessor()


@pytest.fixture
def synic() -> VirtualProcessor:
    """SynIC, SIM and SIEF page enabled; SINT0 to 15 on vectors 0x40 to 0x4F."""
    processor = VirtualProcessor()
    processor.enable_synic()
    for sint in range(16):
        processor.set_sint(sint, 0x40 + sint)
    return processor


@pytest.fixture
def make_vp() -> type[VirtualProcessor]:
    return VirtualProcessor
