"""The synthetic MSRs that the run loop defers to Python (hyperv-abi.md 2, 3.5, 9.6, 11.3, 13)."""

from struct import unpack_from

import pytest

from hvcore import msrs
from hvcore.enums import Privilege, ServiceReason
from hvcore.hypervisor import Hypervisor

OS_ID = 0x8100000606000000
GUEST_OS_ID, HYPERCALL, RESET, REFERENCE_TSC = 0x40000000, 0x40000001, 0x40000003, 0x40000021
VP_ASSIST, SIEFP, SIMP, SIRBP = 0x40000073, 0x40000082, 0x40000083, 0x40000085
PAGES = [REFERENCE_TSC, VP_ASSIST, SIEFP, SIMP, SIRBP]


@pytest.fixture
def vp():
    with Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        child = hypervisor.root.create_partition(vps=2)
        child.privileges |= Privilege.ACCESS_PARTITION_REFERENCE_TSC
        child.map_memory(gpa=0, size="1 MiB")[0:4] = b"RAM!"
        yield Access(hypervisor, child, child.vps[1])


class Access:
    """WRMSR and RDMSR through the service that the run loop calls."""

    def __init__(self, hypervisor, partition, vp):
        self.hypervisor, self.partition, self.vp = hypervisor, partition, vp

    def write(self, index, value):
        self.vp.rcx, self.vp.rax, self.vp.rdx = index, value & 0xFFFFFFFF, value >> 32
        return self.hypervisor.service(self.vp, ServiceReason.MSR_WRITE)

    def read(self, index):
        self.vp.rcx = index
        if not self.hypervisor.service(self.vp, ServiceReason.MSR_READ):
            return None
        return self.vp.rdx << 32 | self.vp.rax

    def overlay(self, gpa):
        found = self.partition.space.resolve(gpa)
        return found[1] if found and found[3] else None

    def bytes(self, gpa, size):
        return self.hypervisor.memory.read(self.partition.space.resolve(gpa)[0], size)


def test_hypercall_page_sequence(vp):
    assert vp.read(HYPERCALL) == 0
    assert vp.write(HYPERCALL, 0x1)
    assert vp.read(HYPERCALL) == 0, "enable needs a guest id"
    assert vp.write(GUEST_OS_ID, OS_ID)
    assert vp.read(GUEST_OS_ID) == OS_ID
    assert vp.write(HYPERCALL, 0x1)
    assert vp.overlay(0) == 5
    assert vp.bytes(0, 4) == b"\x0f\x01\xc1\xc3"
    assert vp.write(GUEST_OS_ID, 0)
    assert vp.read(HYPERCALL) == 0
    assert vp.bytes(0, 4) == b"RAM!"


def test_hypercall_page_moves_keeps_reserved_bits_and_locks(vp):
    vp.write(GUEST_OS_ID, 1)
    assert vp.write(HYPERCALL, 0x1FFD)
    assert vp.write(HYPERCALL, 0x5003)
    assert (vp.overlay(0x1000), vp.overlay(0x5000)) == (None, 5)
    assert not vp.write(HYPERCALL, 0)
    assert vp.read(HYPERCALL) == 0x5003


def test_hypercall_page_beyond_the_space_is_a_fault(vp):
    vp.write(GUEST_OS_ID, 1)
    assert not vp.write(HYPERCALL, 1 << 46 | 1)
    assert vp.read(HYPERCALL) == 0


@pytest.mark.parametrize("index", PAGES)
def test_page_registers(vp, index):
    assert vp.read(index) == 0
    assert vp.write(index, 0x7AAB)
    assert vp.read(index) == 0x7AAB
    assert vp.overlay(0x7000) == (1 if index == REFERENCE_TSC else 3)
    assert vp.write(index, 0x9001)
    assert (vp.overlay(0x7000), vp.overlay(0x9000)) != (None, None)
    assert vp.write(index, 0x9000)
    assert vp.overlay(0x9000) is None
    assert vp.write(index, 1 << 50 | 1), "a page beyond the space is accepted, and not reachable"
    assert vp.read(index) == 1 << 50 | 1


def test_contents_survive_a_move(vp):
    vp.write(SIMP, 0x7001)
    spa = vp.partition.space.resolve(0x7000)[0]
    vp.hypervisor.memory.write(spa + 100, b"kept")
    vp.write(SIMP, 0)
    vp.write(SIMP, 0x8001)
    assert vp.bytes(0x8064, 4) == b"kept"


@pytest.mark.parametrize(
    ("index", "privilege"),
    [
        (GUEST_OS_ID, 5),
        (HYPERCALL, 5),
        (RESET, 7),
        (REFERENCE_TSC, 9),
        (VP_ASSIST, 4),
        (SIEFP, 2),
        (SIMP, 2),
        (SIRBP, 2),
    ],
)
def test_privileges(vp, index, privilege):
    vp.partition.privileges &= ~(1 << privilege)
    assert vp.read(index) is None
    assert not vp.write(index, 0)
    vp.partition.privileges = 1 << privilege
    assert vp.read(index) == 0
    assert vp.write(index, 0)


def test_unknown_msrs_fault(vp):
    assert vp.read(0x40000004) is None
    assert not vp.write(0x40000004, 0)


def test_reference_page_agrees_with_the_counter(vp):
    vp.vp.explicit_suspend = False
    vp.write(REFERENCE_TSC, 0x7001)
    sequence, scale, offset = unpack_from("<I4xQq", vp.bytes(0x7000, 24))
    assert sequence not in (0, 0xFFFFFFFF)
    assert scale == 0x028F5C28F5C28F5C
    now = vp.hypervisor.scheduler.now
    assert (now * scale >> 64) + offset == vp.partition.reference_time


def test_reset(vp):
    vp.write(GUEST_OS_ID, OS_ID)
    vp.write(HYPERCALL, 0x3)
    for index in PAGES:
        vp.write(index, index << 12 & 0xFF000 | 1)
    assert not vp.write(RESET, 2)
    assert vp.write(RESET, 1)
    for index in (GUEST_OS_ID, HYPERCALL, *PAGES):
        assert vp.read(index) == 0
    assert vp.bytes(0, 4) == b"RAM!"
    assert all(vp.overlay(page << 12) is None for page in range(256))


def test_registers_of_the_same_names(vp):
    write = msrs.write_register
    assert write(vp.hypervisor, vp.vp, 0x90013, 0x5001) == 0
    assert vp.read(VP_ASSIST) == 0x5001
    assert msrs.read_register(vp.hypervisor, vp.vp, 0x90013) == 0x5001
