"""Device memory of the machine as the root's code meets it: which accesses a device sees, and what comes back.

SDM 3A 11.3 (accesses to UC memory happen in program order, once each); the rest is what `MemoryBus` promises.
"""

import pytest
from root_code import CODE, DATA, prepare, run

from hvcore._native.engine import VirtualProcessor as NativeProcessor
from hvcore.hypervisor import Hypervisor
from hvcore.machine.bus import MemoryBus, pieces

BASE = 0xFED0_0000


class Recorder:
    """Answers reads with its own offsets as bytes, and writes down everything."""

    def __init__(self):
        self.seen = []

    def read(self, offset, size):
        self.seen.append(("r", offset, size))
        return int.from_bytes(bytes(offset + i & 0xFF for i in range(size)), "little")

    def write(self, offset, size, value):
        self.seen.append(("w", offset, size, value))


@pytest.fixture
def hypervisor():
    with Hypervisor(memory="16 MiB", processors=1) as made:
        yield made


@pytest.fixture
def device(hypervisor):
    made = Recorder()
    hypervisor.machine.memory.attach(made, gpa=BASE, size=0x1000)
    return made


LOADS = [
    ("8a03", 1, "rax", 0x04),
    ("668b03", 2, "rax", 0x0504),
    ("8b03", 4, "rax", 0x07060504),
]


@pytest.mark.parametrize(("code", "size", "register", "value"), LOADS)
def test_a_load_is_one_access(hypervisor, device, code, size, register, value):
    vp = run(hypervisor, code, rbx=BASE + 4)
    assert device.seen == [("r", 4, size)]
    assert getattr(vp, register) == value


def test_eight_bytes(hypervisor, device):
    assert run(hypervisor, "488b03", rbx=BASE + 8).rax == 0x0F0E0D0C0B0A0908
    assert device.seen == [("r", 8, 8)]


@pytest.mark.parametrize(("code", "seen"), [
    ("8803", ("w", 0, 1, 0x88)),
    ("668903", ("w", 0, 2, 0x7788)),
    ("8903", ("w", 0, 4, 0x55667788)),
    ("488903", ("w", 0, 8, 0x1122334455667788)),
])  # fmt: skip
def test_a_store_is_one_access(hypervisor, device, code, seen):
    run(hypervisor, code, rbx=BASE, rax=0x1122334455667788)
    assert device.seen == [seen]


def test_read_modify_write_reads_and_writes_once(hypervisor, device):
    run(hypervisor, "830301", rbx=BASE)  # ADD dword [rbx], 1
    assert device.seen == [("r", 0, 4), ("w", 0, 4, 0x03020101)]


def test_unaligned_accesses_are_split_at_natural_boundaries(hypervisor, device):
    run(hypervisor, "488b03", rbx=BASE + 3)
    assert device.seen == [("r", 3, 1), ("r", 4, 4), ("r", 8, 2), ("r", 10, 1)]


def test_sixteen_bytes_are_two_accesses(hypervisor, device):
    run(hypervisor, "0f28030f2907", rbx=BASE + 0x20, rdi=BASE + 0x40)
    assert device.seen[:2] == [("r", 0x20, 8), ("r", 0x28, 8)]
    assert [seen[:3] for seen in device.seen[2:]] == [("w", 0x40, 8), ("w", 0x48, 8)]


def test_strings_go_element_by_element(hypervisor, device):
    run(hypervisor, "f3a5", rsi=BASE, rdi=DATA, rcx=3)
    assert device.seen == [("r", 0, 4), ("r", 4, 4), ("r", 8, 4)]
    assert hypervisor.memory.read(DATA, 12) == bytes(range(12))
    device.seen.clear()
    run(hypervisor, "f3aa", rdi=BASE + 0x100, rcx=2, rax=0x7E)
    assert device.seen == [("w", 0x100, 1, 0x7E), ("w", 0x101, 1, 0x7E)]


def test_one_instruction_may_read_two_places(hypervisor, device):
    vp = run(hypervisor, "48a7", rsi=BASE, rdi=BASE + 0x80)  # CMPSQ
    assert device.seen == [("r", 0, 8), ("r", 0x80, 8)]
    assert not vp.rflags & 0x40


def test_polling_reads_anew(hypervisor, device):
    run(hypervisor, "8b038b038b03", rbx=BASE)
    assert device.seen == [("r", 0, 4)] * 3


def test_an_instruction_with_too_many_reads_ends(hypervisor, device):
    """FXRSTOR makes 28 reads of 16 bytes, and there is room for 16 answers: the rest floats, and is counted."""
    device.read = lambda offset, size: device.seen.append((offset, size)) or 0
    vp = run(hypervisor, "0fae0b", rbx=BASE)
    assert len(device.seen) == 2 * 16
    assert NativeProcessor.counters(vp)["device_reads_lost"] == 12
    device.seen.clear()
    run(hypervisor, "8b03", rbx=BASE)  # the next instruction has all the room again
    assert device.seen == [(0, 4)]


def test_no_interrupt_comes_between_a_read_and_its_instruction(hypervisor, device):
    """The device's own read raises an interrupt: it is taken behind the load, which happened once."""
    vp = prepare(hypervisor, "fb908b03909090", rbx=BASE)  # STI; NOP; MOV; NOP...
    inner = device.read

    def read(offset, size):
        vp.interrupts.apic_enabled = True
        vp.interrupts.assert_interrupt(0x40)
        return inner(offset, size)

    device.read = read
    stopped = vp.run(max_instructions=20)
    assert type(stopped).__name__ == "TripleFault"  # there is no IDT: the interrupt came, but behind the load
    assert device.seen == [("r", 0, 4)]
    assert (vp.rax, vp.rip) == (0x03020100, CODE + 4)


def test_what_nobody_claims_floats_without_leaving(hypervisor, device):
    before = hypervisor.root.vps[0].exit_counters().get("memory", 0)
    vp = run(hypervisor, "488b03488903", rbx=BASE + 0x10000)
    assert vp.rax == 2**64 - 1
    assert vp.exit_counters().get("memory", 0) == before
    assert device.seen == []


def test_half_a_claim_floats_by_pieces(hypervisor, device):
    vp = run(hypervisor, "488b03", rbx=BASE + 0xFFC)
    assert device.seen == [("r", 0xFFC, 4)]
    assert vp.rax == 0xFFFFFFFF_FFFEFDFC


def test_ram_hides_a_claim(hypervisor):
    hidden = Recorder()
    hypervisor.machine.memory.attach(hidden, gpa=DATA, size=0x1000)
    run(hypervisor, "488903", rbx=DATA, rax=5)
    assert hidden.seen == []


def test_an_exception_of_a_device_leaves_run_and_the_read_can_be_tried_again(hypervisor, device):
    def fail(offset, size):
        raise LookupError("broken")

    works, device.read = device.read, fail
    vp = prepare(hypervisor, "8b03", rbx=BASE)
    with pytest.raises(LookupError, match="broken"):
        vp.run(max_instructions=10)
    device.read = works
    vp.run(max_instructions=10)
    assert vp.rax == 0x03020100


def test_ranges_are_checked():
    bus = MemoryBus(36, lambda ranges: None)
    bus.attach(Recorder(), gpa=0x1000, size=0x1000)
    with pytest.raises(ValueError, match="address 0x1800 belongs to Recorder already"):
        bus.attach(Recorder(), gpa=0x1800, size=0x1000)
    with pytest.raises(ValueError, match="are not in 0 to 0xfffffffff"):
        bus.attach(Recorder(), gpa=(1 << 36) - 0x800, size=0x1000)


def test_pieces_are_aligned_and_complete():
    for address in range(16):
        for size in range(1, 33):
            parts = list(pieces(address, size))
            covered = [byte for at, count in parts for byte in range(at, at + count)]
            assert covered == list(range(address, address + size))
            assert all(at % count == 0 and count in (1, 2, 4, 8) for at, count in parts)
