"""Messages that tell a parent in guest code of an intercept (hyperv-abi.md 8.2-8.4)."""

from struct import pack, unpack_from

import pytest

from hvcore._native import ports
from hvcore.enums import MessageType
from hvcore.hypervisor import Hypervisor
from hvcore.intercepts import Record, compose, deliver

HEADER = "<IBBHQIHHQQ"
CODE, DATA = (0x1000, 0xFFFFF, 0x10, 0xA09B), (0x2000, 0xFFFF, 0x18, 0xC093)


@pytest.fixture
def machine():
    with Hypervisor(memory="64 MiB", processors=2) as hypervisor:
        yield hypervisor


@pytest.fixture
def vp(machine):
    vp = machine.root.create_partition(vps=2).vps[1]
    vp.cs = type(vp.cs)(*CODE)
    vp.ds = vp.es = vp.ss = type(vp.cs)(*DATA)
    names = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15"
    for number, name in enumerate(names.split()):
        setattr(vp, name, 0x100 + number)
    vp.rip, vp.rflags, vp.cr0, vp.efer, vp.cr8 = 0xFFFF800000001234, 0x202, 0x80000011, 0x500, 5
    return vp


SIZES = {
    MessageType.UNMAPPED_GPA: 80,
    MessageType.GPA_INTERCEPT: 80,
    MessageType.X64_IO_PORT_INTERCEPT: 128,
    MessageType.X64_MSR_INTERCEPT: 64,
    MessageType.X64_CPUID_INTERCEPT: 104,
    MessageType.X64_EXCEPTION_INTERCEPT: 240,
    MessageType.HYPERCALL_INTERCEPT: 208,
    MessageType.X64_HALT: 40,
    MessageType.UNRECOVERABLE_EXCEPTION: 40,
    MessageType.X64_APIC_EOI: 8,
    MessageType.INVALID_VP_REGISTER_VALUE: 8,
    MessageType.UNSUPPORTED_FEATURE: 16,
}


@pytest.mark.parametrize(("kind", "size"), SIZES.items())
def test_sizes(vp, kind, size):
    assert len(compose(vp, Record(kind))) == size


def test_header(vp):
    payload = compose(vp, Record(MessageType.X64_HALT, instruction_length=1, access=2))
    state = 1 << 2 | 1 << 4
    assert unpack_from(HEADER, payload) == (1, 0x51, 2, state, *CODE, 0xFFFF800000001234, 0x202)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"cr0": 0x10, "efer": 0}, 0),
        ({"rflags": 1 << 17, "efer": 0}, 3 | 4),
        ({"cr0": 0x80050011}, 4 | 8 | 16),
        ({"pending_interruption": 0xD0017}, 4 | 16 | 1 << 6),
        ({"interrupt_state": 1}, 4 | 16 | 1 << 12),
        ({"dr7": 0x402}, 4 | 16 | 1 << 5),
    ],
)
def test_execution_state(vp, changes, state):
    for name, value in changes.items():
        setattr(vp, name, value)
    assert unpack_from("<H", compose(vp, Record(MessageType.X64_HALT)), 6) == (state,)


def test_memory(vp):
    record = Record(
        MessageType.UNMAPPED_GPA, access=1, gpa=0xFEE00, gva=0x7000, gva_valid=True, instruction_bytes=b"\x89"
    )
    assert compose(vp, record)[40:] == pack("<IBBBBQQ16s", 6, 1, 3, 5, 0, 0x7000, 0xFEE00, b"\x89")
    vp.pending_interruption = 1
    assert compose(vp, record)[44] == 0


def test_io_port(vp):
    record = Record(
        MessageType.X64_IO_PORT_INTERCEPT, port=0x3F8, size=1, string=True, rep=True, instruction_bytes=b"\xf3l"
    )
    segment = pack("<QIHH", *DATA)
    expected = (
        pack("<HBBIQ16s", 0x3F8, 1 | 8 | 16, 2, 0, 0x100, b"\xf3l") + segment * 2 + pack("<QQQ", 0x101, 0x106, 0x107)
    )
    assert compose(vp, record)[40:] == expected


def test_msr_and_cpuid(vp):
    assert compose(vp, Record(MessageType.X64_MSR_INTERCEPT, msr=0x1B))[40:] == pack("<IIQQ", 0x1B, 0, 0x102, 0x100)
    record = Record(MessageType.X64_CPUID_INTERCEPT, defaults=(1, 2, 3, 4))
    assert compose(vp, record)[40:] == pack("<8Q", 0x100, 0x101, 0x102, 0x103, 1, 2, 3, 4)


def test_exception(vp):
    record = Record(MessageType.X64_EXCEPTION_INTERCEPT, vector=14, error_code=2, parameter=0xDEAD000)
    payload = compose(vp, record)
    assert unpack_from("<HBBIQQ", payload, 40) == (14, 1, 0, 2, 0xDEAD000, 0)
    assert unpack_from("<16Q", payload, 112) == tuple(range(0x100, 0x110))


def test_delivery_goes_to_sint0_of_the_parent(machine, vp):
    root = machine.root
    for msr, value in ((0x40000080, 1), (0x40000083, 0x8001), (0x40000090, 0xF3)):
        root.vps[1].interrupts.write_msr(msr, value, 0)
    record = Record(MessageType.X64_CPUID_INTERCEPT, instruction_length=2)
    deliver(machine, vp, record)
    assert vp.intercept_suspend
    page = machine.memory.page(root.frames[1].message_page)
    child = machine.partition_of[vp]
    assert unpack_from("<IBBHQ", page) == (0x80010002, 104, 0, 0, child.id)
    assert bytes(page[16:120]) == compose(vp, record)


def test_delivery_waits_when_no_vp_of_the_parent_takes_messages(machine, vp):
    deliver(machine, vp, Record(MessageType.X64_HALT))
    controller = machine.root.vps[0].interrupts
    page = machine.memory.page(machine.root.frames[0].message_page)
    assert unpack_from("<I", page) == (0,)
    for msr, value in ((0x40000080, 1), (0x40000083, 0x8001), (0x40000084, 0)):
        controller.write_msr(msr, value, 0)
    assert unpack_from("<I", page) == (MessageType.X64_HALT,)


def test_doorbell_takes_a_write(machine, vp):
    root, child = machine.root, machine.partition_of[vp]
    for index, value in ((0x40000080, 1), (0x40000095, 0x41)):
        root.vps[0].interrupts.write_msr(index, value, 0)
    root.vps[0].interrupts.apic_enabled = True
    first = machine.free_pages.allocate(2)
    root.hypercall(0x48, pack("<QQ", root.id, first))
    root.hypercall(0x48, pack("<QQ", child.id, first + 1))
    port = pack("<QIIQIIIIQQ", root.id, 77, 0, child.id, 4, 0, 5, 0, 0, 0)
    assert root.hypercall(0x95, port).status == 0
    connection = pack("<QIIQIIIIQQQQ", child.id, 3, 0, root.id, 77, 0, 4, 0, 0x5000, 9, 3, 0)
    assert root.hypercall(0x96, connection).status == 0
    assert child.core.has_doorbells
    ring = machine.memory.page(root.frames[0].event_ring)
    for gpa, size, value, taken in (
        (0x5000, 4, 8, False),
        (0x5008, 4, 9, False),
        (0x5000, 2, 9, False),
        (0x5000, 4, 9, True),
    ):
        assert ports.ring(child.core, gpa, size, value) is taken
    assert unpack_from("<BBHI", ring, 5 * 256) == (1, 0, 0, 77)
    assert root.vps[0].interrupts.requested == 1 << 0x41
    for _ in range(70):
        ports.ring(child.core, 0x5000, 4, 9)
    assert ring[5 * 256 + 1] == 1, "the ring is full"


def test_a_wrong_reason_is_named(machine, vp):
    with pytest.raises(ValueError, match="reason must be a ServiceReason"):
        machine.service(vp, 99)


def test_guest_writes_ring_doorbells_or_are_undone(machine):
    """A store of the value 9 at 0x5000 is a doorbell and goes on; of 8 it is an intercept, as if never executed."""
    root, child = machine.root, machine.root.create_partition(vps=1)
    ram = child.map_memory(gpa=0x200000, size="2 MiB")
    vp = child.vps[0]
    vp.reset(mode="long64", rip=0x200000, rsp=0x280000, identity_map="4 MiB", tables=0x300000)
    root.vps[0].interrupts.write_msr(0x40000080, 1, 0)
    first = machine.free_pages.allocate(2)
    root.hypercall(0x48, pack("<QQ", root.id, first))
    root.hypercall(0x48, pack("<QQ", child.id, first + 1))
    assert root.hypercall(0x95, pack("<QIIQIIIIQQ", root.id, 77, 0, child.id, 4, 0, 5, 0, 0, 0)).status == 0
    doorbell = pack("<QIIQIIIIQQQQ", child.id, 3, 0, root.id, 77, 0, 4, 0, 0x5000, 9, 3, 0)
    assert root.hypercall(0x96, doorbell).status == 0
    # mov edi, 0x5000; mov eax, 9; mov [rdi], eax; mov eax, 8; cld; stosd; hlt
    code = bytes.fromhex("bf00500000 b809000000 8907 b808000000 fc ab f4")
    ram[: len(code)] = code
    child.core.host_managed = False
    vp.explicit_suspend = False
    machine.run(max_instructions=100)
    ring = machine.memory.page(root.frames[0].event_ring)
    assert unpack_from("<I", ring, 5 * 256 + 4) == (77,)
    assert vp.intercept_suspend
    assert (vp.rip, vp.rax, vp.rdi) == (0x200000 + 18, 8, 0x5000)
