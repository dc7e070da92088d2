"""Device domains by ABI bytes (hyperv-abi.md 4.11): what each call does to a device's reach, and each status.

The layouts are packed here, not by those under test; what a device reaches is asked of the device itself.
"""

from struct import pack, unpack

import pytest
from hypercall_machine import ALL_PRIVILEGES, SELF, Machine
from root_code import run

from hvcore import msrs
from hvcore.enums import Status
from hvcore.machine.device import Device, DmaStatus

HEAD = "QB7xII"
SECOND, FIRST = 0, 1
NULL = 0xFFFF_FFFF
LOGICAL = 0x77


class Setup:
    """A child with eight pages from page 0, and a device that was given to it."""

    def __init__(self, machine: Machine, **options) -> None:
        self.machine = machine
        self.hypervisor = machine.hypervisor
        self.unit = self.hypervisor.machine.attach_unit(driver="hypervisor", **options)
        self.child = machine.child(vps=1, privileges=ALL_PRIVILEGES)
        self.pages = machine.map(self.child, 0, 8)
        self.device = Device(self.hypervisor, requester_id=0x0208)
        self.other = Device(self.hypervisor, requester_id=0x0310)
        for number, page in enumerate(self.pages):
            machine.memory.write(page << 12, bytes([number]) * 4096)

    def call(self, code, form, *values, **more):
        return self.machine.call(code, form, *values, **more)

    def assign(self, expect=Status.SUCCESS, device=None, logical=LOGICAL, partition=None, flags=0):
        where = (partition or self.child).id
        device_id = (device or self.device).device_id
        self.call(0x82, "QQIB3xQIHH", where, device_id, flags, 0, logical, 0, 0, 0, expect=expect)

    def create(self, number=5, kind=SECOND, flags=0, expect=Status.SUCCESS, **more):
        self.call(0xB1, HEAD + "II", self.child.id, 0, kind, number, flags, 0, expect=expect, **more)

    def attach(self, number=5, kind=SECOND, device=LOGICAL, expect=Status.SUCCESS):
        self.call(0xB2, HEAD + "Q", self.child.id, 0, kind, number, device, expect=expect)

    def detach(self, device=LOGICAL, expect=Status.SUCCESS):
        self.call(0xC4, "QQ", self.child.id, device, expect=expect)

    def map(self, base, gpns, number=5, flags=3, expect=Status.SUCCESS, kind=SECOND):
        self.call(0xB3, HEAD + "B3xIQ", self.child.id, 0, kind, number, 0, flags, base, elements=gpns, expect=expect)

    def unmap(self, base, reps, number=5, expect=Status.SUCCESS):
        self.call(0xB4, HEAD + "Q", self.child.id, 0, SECOND, number, base, reps=reps, expect=expect)

    def configure(self, settings, root=0, number=5, kind=FIRST, expect=Status.SUCCESS):
        self.call(0xCE, HEAD + "QQ", self.child.id, 0, kind, number, settings, root, expect=expect)

    def reaches(self, iova, size=1):
        data = self.device.read(iova, size)
        return data if self.device.status is DmaStatus.DONE else None


@pytest.fixture
def setup(machine):
    return Setup(machine)


def test_without_a_unit_there_are_no_domains(machine):
    child = machine.child(vps=0)
    for code, form, values in (
        (0xB1, HEAD + "II", (child.id, 0, 0, 5, 0, 0)),
        (0xB2, HEAD + "Q", (child.id, 0, 0, 5, 0)),
        (0xC4, "QQ", (child.id, 0)),
        (0xC5, HEAD, (child.id, 0, 0, 5)),
        (0xD0, HEAD + "II", (child.id, 0, 0, 5, 0, 0)),
    ):
        machine.call(code, form, *values, expect=Status.INVALID_HYPERCALL_CODE)
    assert machine.call(0x125, "QQ", SELF, 0) == pack("<IHBBQQ", 24, 0, 0, 0, 0, 0)


def test_without_a_unit_a_device_reaches_its_owner(machine):
    child = machine.child()
    (page,) = machine.map(child, 3)
    machine.map(child, 4, flags=0x1)
    device = Device(machine.hypervisor, requester_id=9)
    assert device.write(0x3000, b"root") is DmaStatus.DONE
    machine.call(0x82, "QQIB3xQIHH", child.id, device.device_id, 0, 0, 1, 0, 0, 0)
    assert device.write(0x3000, b"mine") is DmaStatus.DONE
    assert machine.memory.read(page << 12, 4) == b"mine"
    assert machine.memory.read(0x3000, 4) == b"root"
    assert device.write(0x4000, b"mine") is DmaStatus.BLOCKED  # mapped for reading alone
    assert device.read(0x5000, 2) == b"\xff\xff" and device.status is DmaStatus.BLOCKED
    machine.call(0x83, "QQ", child.id, 1)
    assert device.read(0x3000, 4) == b"root"


def test_calls_that_nobody_knows(machine):
    for code in (0xC3, 0xC6, 0xC7, 0xC8, 0xCF, 0xD1, *range(0x9D, 0xA9), 0x80, 0x81):
        result = machine.root.hypercall(code, bytes(64))
        assert result.status is Status.INVALID_HYPERCALL_CODE, hex(code)


def test_a_device_of_a_child_reaches_that_child_alone(setup):
    assert setup.reaches(0x3000) == setup.hypervisor.memory.read(0x3000, 1)
    setup.assign()
    for number in range(8):
        assert setup.reaches(number << 12) == bytes([number])
    assert setup.reaches(8 << 12) is None
    assert setup.reaches(setup.pages[0] << 12) is None
    assert setup.device.write(0x2000, b"device") is DmaStatus.DONE
    assert setup.hypervisor.memory.read(setup.pages[2] << 12, 6) == b"device"
    setup.call(0x83, "QQ", setup.child.id, LOGICAL)
    assert setup.device.owner is setup.machine.root
    assert setup.reaches(setup.pages[2] << 12, 6) == b"device"


def test_attach_device_refusals(setup):
    setup.assign(expect=Status.INVALID_PARAMETER, logical=1 << 62)
    setup.assign(expect=Status.INVALID_PARAMETER, flags=0x100)
    setup.call(0x82, "QQIB3xQIHH", setup.child.id, 1 << 62 | 0x999, 0, 0, 1, 0, 0, 0, expect=Status.INVALID_DEVICE_ID)
    setup.call(0x82, "QQIB3xQIHH", setup.child.id, 1 << 62 | 1 << 16 | 0x208, 0, 0, 1, 0, 0, 0,
               expect=Status.INVALID_DEVICE_ID)  # fmt: skip
    setup.call(0x82, "QQIB3xQIHH", setup.child.id, 5, 0, 0, 1, 0, 0, 0, expect=Status.INVALID_DEVICE_ID)
    setup.call(0x82, "QQIB3xQIHH", 999, setup.device.device_id, 0, 0, 1, 0, 0, 0, expect=Status.INVALID_PARTITION_ID)
    setup.assign()
    setup.assign(expect=Status.INVALID_DEVICE_STATE, logical=1)
    setup.assign(expect=Status.INVALID_PARAMETER, device=setup.other)
    setup.call(0x83, "QQ", setup.child.id, 1, expect=Status.INVALID_DEVICE_ID)
    result = setup.machine.child().hypercall(0x82, bytes(48))
    assert result.status is Status.ACCESS_DENIED


def test_a_second_stage_domain(setup):
    setup.assign()
    setup.create()
    setup.attach()
    assert setup.reaches(0) is None
    setup.map(0x40_0000_0000, [5, 2])
    assert setup.reaches(0x40_0000_0000) == b"\5" and setup.reaches(0x40_0000_1FFF) == b"\2"
    assert setup.reaches(0x40_0000_2000) is None
    setup.map(0x1000, [7], flags=1)
    assert setup.reaches(0x1000) == b"\7"
    assert setup.device.write(0x1000, b"x") is DmaStatus.BLOCKED
    setup.unmap(0x40_0000_0000, 1)
    assert setup.reaches(0x40_0000_0000) is None and setup.reaches(0x40_0000_1000) == b"\2"
    setup.detach()
    assert setup.reaches(0x5000) == b"\5" and setup.reaches(0x40_0000_1000) is None
    setup.call(0xC5, HEAD, setup.child.id, 0, SECOND, 5)
    setup.attach(expect=Status.INVALID_PARAMETER)


def test_the_null_domain_blocks(setup):
    setup.assign()
    setup.attach(NULL)
    assert setup.reaches(0) is None
    setup.attach(NULL, expect=Status.DEVICE_ALREADY_IN_DOMAIN)
    setup.detach()
    assert setup.reaches(0) == b"\0"
    setup.detach(expect=Status.INVALID_DEVICE_STATE)


def test_create_refusals(setup):
    for number in (0, NULL):
        setup.create(number, expect=Status.INVALID_PARAMETER)
    setup.create(kind=2, expect=Status.INVALID_PARAMETER)
    setup.create(kind=16, expect=Status.INVALID_PARAMETER)
    setup.create(flags=4, expect=Status.INVALID_PARAMETER)
    setup.create(flags=3)
    setup.create(expect=Status.INVALID_PARAMETER)
    setup.create(6, expect=Status.ACCESS_DENIED, caller=setup.machine.child())
    setup.call(0xB1, HEAD + "II", setup.child.id, 0x20, SECOND, 7, 0, 0, expect=Status.INVALID_PARAMETER)


def test_domains_run_out(setup):
    setup.hypervisor.domains.maximum = 4  # numbers 1 to 3: the root's default, the child's, and one more
    setup.assign()
    setup.create(5)
    setup.create(6, expect=Status.INSUFFICIENT_DEVICE_DOMAINS)
    setup.call(0xC5, HEAD, setup.child.id, 0, SECOND, 5)
    setup.create(6)


def test_tables_are_pages_of_the_pool(setup):
    free = setup.child.pool.available
    setup.create()
    setup.map(0, [1])
    assert free - setup.child.pool.available == 4
    setup.unmap(0, 1)
    setup.call(0xC5, HEAD, setup.child.id, 0, SECOND, 5)
    assert setup.child.pool.available == free
    taken = [setup.child.pool.allocate() for _ in range(free)]
    setup.create(expect=Status.INSUFFICIENT_MEMORY)
    setup.child.pool.release(taken.pop())
    setup.create()
    setup.map(0, [1], expect=Status.INSUFFICIENT_MEMORY)
    assert setup.child.pool.available == 0
    for page in taken:
        setup.child.pool.release(page)


def test_map_refusals(setup):
    setup.create()
    setup.create(6, kind=FIRST)
    setup.map(0x800, [1], expect=Status.INVALID_PARAMETER)
    setup.map(1 << 48, [1], expect=Status.INVALID_PARAMETER)
    setup.map((1 << 48) - 4096, [1, 2], expect=Status.INVALID_PARAMETER)
    for flags in (0, 2, 5, 0x101):
        setup.map(0, [1], flags=flags, expect=Status.INVALID_PARAMETER)
    setup.map(0, [1], number=9, expect=Status.INVALID_PARAMETER)
    setup.map(0, [1], number=0, expect=Status.INVALID_PARAMETER)
    setup.map(0, [1], number=6, kind=FIRST, expect=Status.INVALID_PARAMETER)
    setup.map(0, [1 << 40], expect=Status.INVALID_PARAMETER)
    setup.map(0, [1, 2, 100], expect=Status.INVALID_PARAMETER)
    setup.assign()
    setup.attach()
    assert setup.reaches(0x1000) == b"\2"  # elements before the one that is wrong are done


def test_pages_that_leave_the_partition_leave_its_devices(setup):
    """By the parent's unmapping, by lesser rights, and by a deposit: nothing remembered is used afterwards."""
    setup.assign()
    setup.create()
    setup.map(0x10000, [3, 4, 5])
    assert setup.reaches(0x3000) == b"\3"
    setup.attach()
    assert (setup.reaches(0x10000), setup.reaches(0x11000)) == (b"\3", b"\4")
    setup.call(0x4C, "QQII", setup.child.id, 3, 0, 0, reps=1)
    assert setup.reaches(0x10000) is None and setup.reaches(0x11000) == b"\4"
    setup.call(0x4B, "QQII", setup.child.id, 4, 0x1, 0, elements=[setup.pages[4]])
    assert setup.device.write(0x11000, b"x") is DmaStatus.BLOCKED
    assert setup.device.write(0x12000, b"x") is DmaStatus.DONE
    setup.detach()
    assert setup.reaches(0x3000) is None


def test_unmapped_in_the_domain_then_lost_by_the_partition(setup):
    """B4 forgets a page before the parent takes it: the unit must not remember it either."""
    setup.assign()
    setup.create()
    setup.attach()
    setup.map(0, [3])
    assert setup.reaches(0) == b"\3"
    setup.unmap(0, 1)
    setup.call(0x4C, "QQII", setup.child.id, 3, 0, 0, reps=1)
    assert setup.reaches(0) is None


def test_a_page_that_a_device_reaches_cannot_be_deposited(setup):
    root = setup.machine.root
    (page,) = setup.machine.pages(1)
    setup.machine.deposit(root, 4)
    setup.call(0xB1, HEAD + "II", root.id, 0, SECOND, 5, 0, 0)
    setup.call(0xB3, HEAD + "B3xIQ", root.id, 0, SECOND, 5, 0, 3, 0, elements=[page])
    setup.call(0x48, "Q", setup.child.id, elements=[page], expect=Status.OPERATION_DENIED)
    setup.call(0xB4, HEAD + "Q", root.id, 0, SECOND, 5, 0, reps=1)
    setup.call(0x48, "Q", setup.child.id, elements=[page])
    assert setup.reaches(page << 12) is None  # the root's device, in its default domain


def first_stage_tables(setup, root=0x4000):
    """Four levels in pages 4 to 7 of the child: 0x1000 -> page 2. Requests are user-mode ones: U/S is set."""
    at = [setup.pages[root // 4096 + level] << 12 for level in range(4)]
    for level in range(3):
        setup.machine.memory.write(at[level], pack("<512Q", root + 0x1000 * (level + 1) | 7, *[0] * 511))
    setup.machine.memory.write(at[3], pack("<512Q", 0, 0x2000 | 7, *[0] * 510))


def test_a_first_stage_domain(setup):
    setup.assign()
    setup.create(kind=FIRST)
    setup.attach(kind=FIRST)
    assert setup.reaches(0x3000) == b"\3"  # not translated yet: the partition's memory as it is
    first_stage_tables(setup)
    setup.configure(1, 0x4000)
    assert setup.reaches(0x1000) == b"\2" and setup.reaches(0x3000) is None
    found = setup.device.translate([0x1000])
    assert (found.references[0], found.nested_references[0]) in ((4, 20), (0, 0))  # 0: by the IOTLB
    setup.configure(2)
    assert setup.reaches(0x1000) is None
    setup.configure(0)
    assert setup.reaches(0x3000) == b"\3"


def test_a_cold_nested_walk_reads_28_entries(machine):
    """iommu-facts.md 3: 4 of the first level, each by 4 of the second, 4 for the result; and 4 tables above."""
    setup = Setup(machine, caches=None)
    setup.assign()
    setup.create(kind=FIRST)
    setup.attach(kind=FIRST)
    first_stage_tables(setup)
    setup.configure(1, 0x4000)
    found = setup.device.translate([0x1000])
    assert (found.table_references[0], found.references[0], found.nested_references[0]) == (4, 4, 20)


def test_configure_refusals(setup):
    setup.create(kind=FIRST)
    setup.create(6)
    setup.configure(3, expect=Status.INVALID_PARAMETER)
    setup.configure(8, expect=Status.INVALID_PARAMETER)
    setup.configure(1, 0x4001, expect=Status.INVALID_PARAMETER)
    setup.configure(1, 1 << 52, expect=Status.INVALID_PARAMETER)
    setup.configure(0, number=6, kind=SECOND, expect=Status.INVALID_PARAMETER)
    setup.configure(0, number=6, expect=Status.INVALID_PARAMETER)


def test_flush(setup):
    setup.create()
    before = setup.unit.counters()["descriptors"]
    setup.call(0xD0, HEAD + "II", setup.child.id, 0, SECOND, 5, 0, 0)
    assert setup.unit.counters()["descriptors"] > before
    setup.call(0xD0, HEAD + "II", setup.child.id, 0, SECOND, 5, 1, 0, expect=Status.INVALID_PARAMETER)
    setup.call(0xD0, HEAD + "II", setup.child.id, 0, SECOND, 6, 0, 0, expect=Status.INVALID_PARAMETER)


def test_delete_while_a_device_is_in_it(setup):
    setup.assign()
    setup.create()
    setup.attach()
    setup.call(0xC5, HEAD, setup.child.id, 0, SECOND, 5, expect=Status.INVALID_DEVICE_STATE)
    setup.attach(expect=Status.DEVICE_ALREADY_IN_DOMAIN)
    setup.create(6)
    setup.attach(6, expect=Status.DEVICE_ALREADY_IN_DOMAIN)


def test_a_device_of_somebody_else(setup):
    setup.create()
    setup.attach(expect=Status.INVALID_DEVICE_ID)
    setup.attach(device=setup.device.device_id, expect=Status.INVALID_DEVICE_ID)
    setup.assign()
    setup.attach(device=setup.device.device_id)  # by its PCI id as well as by the logical one


def test_capabilities_and_properties(setup):
    size, _, iova, pasid, abilities, pages = unpack("<IHBBQQ", setup.call(0x125, "QQ", setup.child.id, 0))
    assert (size, iova, pasid, abilities, pages) == (24, 48, 0, 0xF, 0x1000)
    setup.assign()
    assert setup.call(0x127, "QQII", setup.child.id, LOGICAL, 10, 0) == pack("<Q", 1)
    setup.call(0x127, "QQII", setup.child.id, LOGICAL, 9, 0, expect=Status.INVALID_PARAMETER)
    setup.call(0x127, "QQII", setup.child.id, 3, 10, 0, expect=Status.INVALID_DEVICE_ID)


def test_a_child_drives_its_own_domains(setup):
    """SELF as partition: what Linux as a guest does."""
    setup.assign()
    me = {"caller": setup.child}
    setup.call(0xB1, HEAD + "II", SELF, 0, SECOND, 5, 0, 0, **me)
    setup.call(0xB2, HEAD + "Q", SELF, 0, SECOND, 5, LOGICAL, **me)
    setup.call(0xB3, HEAD + "B3xIQ", SELF, 0, SECOND, 5, 0, 3, 0x7000, elements=[1], **me)
    assert setup.reaches(0x7000) == b"\1"
    setup.call(0xC4, "QQ", SELF, LOGICAL, **me)
    setup.call(0xC5, HEAD, SELF, 0, SECOND, 5, **me)


def test_the_end_of_a_partition_gives_devices_back(setup):
    setup.assign()
    setup.create()
    setup.attach()
    setup.call(0x42, "Q", setup.child.id)
    assert setup.device.owner is setup.machine.root
    assert setup.reaches(0x5000) is not None
    assert setup.child.pool.in_use == 0


def test_faults_are_messages_to_the_owner(setup):
    """SINT 1, type 80000024: device, page, reason, read."""
    setup.assign()
    vp = setup.child.vps[0]
    vp.explicit_suspend = False
    for msr, value in ((0x40000083, 9 << 12 | 1), (0x40000080, 1), (0x40000091, 0x31)):
        if msr == 0x40000083:
            assert msrs.write(setup.hypervisor, vp, msr, value)
        else:
            assert vp.interrupts.write_msr(msr, value, 0) is not None
    setup.device.read(0x123456000, 8)
    page = setup.hypervisor.memory.read(setup.child.frames[0].message_page << 12, 4096)
    kind, size = unpack("<IB", page[256:261])
    assert (kind, size) == (0x80000024, 24)
    device, iova, reason, is_read = unpack("<QQII", page[272:296])
    assert (device, iova, is_read) == (setup.device.device_id, 0x123456000, 1)
    assert reason in setup.unit.counters()["reasons"]
    assert setup.unit.read(0x34, 4) & 2 == 0  # the records are free again


def test_from_guest_code(setup):
    """The root's code makes the calls: VMCALL with the control word in RCX and the input page in RDX."""
    vp = setup.hypervisor.root.vps[0]
    assert msrs.write(setup.hypervisor, vp, 0x40000000, 1)
    assert msrs.write(setup.hypervisor, vp, 0x40000001, 0x7000 | 1)
    setup.assign()

    def call(control, data):
        setup.machine.memory.write(0x6000, data)
        return run(setup.hypervisor, "0f01c1", rcx=control, rdx=0x6000, r8=0).rax

    head = (setup.child.id, 0, SECOND, 5)
    assert call(0xB1, pack("<" + HEAD + "II", *head, 0, 0)) == 0
    assert call(0xB2, pack("<" + HEAD + "Q", *head, LOGICAL)) == 0
    elements = pack("<3Q", 4, 5, 6)
    assert call(0xB3 | 3 << 32, pack("<" + HEAD + "B3xIQ", *head, 0, 3, 0x9000) + elements) == 3 << 32
    assert setup.reaches(0xA000) == b"\5"
    assert call(0xB4 | 1 << 32, pack("<" + HEAD + "Q", *head, 0xA000)) == 1 << 32
    assert setup.reaches(0xA000) is None
    assert call(0xC5, pack("<" + HEAD, *head)) == Status.INVALID_DEVICE_STATE


def test_messages_of_a_device_go_to_its_owner(setup):
    """After AttachDevice an interrupt message means the child's processors."""
    target = setup.child.vps[0].interrupts
    target.write_msr(0x40000080, 1, 0)
    before = setup.hypervisor.interrupts.device(setup.device.device_id).counts["messages"]
    setup.assign()
    assert setup.hypervisor.interrupts.owner_of(setup.device.device_id) is setup.child
    setup.device.send_message(0xFEE0_0000, 0x55)
    assert setup.hypervisor.interrupts.device(setup.device.device_id).counts["messages"] == before + 1
    setup.call(0x83, "QQ", setup.child.id, LOGICAL)
    assert setup.hypervisor.interrupts.owner_of(setup.device.device_id) is None


def test_cpuid(setup):
    """DMA remapping is in use, the unit's interrupt remapping is not (40000006.EAX bits 4 and 5; GSTS.IRES)."""
    vp = run(setup.hypervisor, "0fa2", rax=0x40000003)
    assert vp.rdx >> 24 & 3 == 3
    vp = run(setup.hypervisor, "0fa2", rax=0x40000006)
    assert vp.rax >> 4 & 3 == 1 and vp.rbx == 48
    assert setup.unit.read(0x1C) >> 25 & 1 == 0


def test_a_device_is_given_whole_or_not_at_all(setup):
    """AttachDevice without a domain id left: nothing has changed, and it succeeds once there is one."""
    other = setup.machine.child(vps=1, privileges=ALL_PRIVILEGES)
    setup.assign()
    domains, device = setup.hypervisor.domains, setup.other
    domains.maximum = 3  # numbers 1 and 2: the root's default and the child's
    setup.machine.memory.write(0x5000, b"root")
    for _ in range(2):
        setup.assign(Status.INSUFFICIENT_DEVICE_DOMAINS, device, 8, other)
        assert device.owner is setup.hypervisor.root
        assert setup.hypervisor.interrupts.owner_of(device.device_id) is None
        assert device.read(0x5000, 4) == b"root"
        setup.call(0x83, "QQ", other.id, 8, expect=Status.INVALID_DEVICE_ID)
    domains.maximum = 4
    setup.assign(device=device, logical=8, partition=other)
    assert device.owner is other


def test_a_device_can_be_made_when_ids_have_run_out(setup):
    """The root's own domain id is there from the beginning; without pages for tables nothing is registered."""
    setup.assign()
    setup.hypervisor.domains.maximum = 3
    made = Device(setup.hypervisor, requester_id=0x0400)
    setup.machine.memory.write(0x5000, b"root")
    assert made.read(0x5000, 4) == b"root"
    pool = setup.machine.memory.reserve_pool
    taken = []
    while (frame := pool.allocate()) is not None:
        taken.append(frame)
    with pytest.raises(MemoryError, match="NO_RESOURCES"):
        Device(setup.hypervisor, requester_id=0x8000)
    assert 0x8000 not in setup.hypervisor.machine.devices
    for frame in taken:
        pool.release(frame)
    assert Device(setup.hypervisor, requester_id=0x8000).read(0x5000, 4) == b"root"


def test_only_a_finalized_partition_is_deleted(setup):
    """Partition.delete is the second half of its end; destroy() does both, and the device is the root's again."""
    setup.assign()
    with pytest.raises(RuntimeError, match=r"call destroy\(\)"):
        setup.child.delete()
    assert setup.device.owner is setup.child and setup.reaches(0x2000) == b"\2"
    setup.child.destroy()
    assert setup.device.owner is setup.hypervisor.root
