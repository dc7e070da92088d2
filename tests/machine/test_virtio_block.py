"""The block device against virtio 1.2: transport (4.1), split queues (2.7), requests (5.2), and hostile drivers."""

import random
from struct import pack

import pytest
from devices_by_hand import PAGE, BlockDriver, Configuration

from hvcore.hypervisor import Hypervisor
from hvcore.machine.virtio_block import VirtioBlock

PLACE = 0x20
SECTORS = 64
INDIRECT, EVENT_IDX = 1 << 28, 1 << 29


@pytest.fixture
def hypervisor():
    with Hypervisor(memory="16 MiB", processors=1) as made:
        yield made


@pytest.fixture
def disk():
    return bytearray(random.Random(1).randbytes(SECTORS * 512))


@pytest.fixture
def device(hypervisor, disk):
    return VirtioBlock(hypervisor, disk, requester_id=PLACE, identity="disk 7")


@pytest.fixture
def driver(hypervisor, device):
    made = BlockDriver(hypervisor, PLACE)
    made.start()
    return made


def test_identity(hypervisor, device):
    """4.1.2: vendor 1AF4, device 1040h + 2, revision 1 or more; 4.1.4: each structure has a capability."""
    space = Configuration(hypervisor, PLACE)
    assert space.read(0, 4) == 0x10421AF4
    assert space.read(8, 1) >= 1
    capabilities = space.capabilities()
    kinds = [space.read(at + 3, 1) for kind, at in capabilities if kind == 9]
    assert sorted(kinds) == [1, 2, 3, 4, 5]
    assert [kind for kind, _ in capabilities].count(0x11) == 1


def test_offered_features(hypervisor, device):
    offered = BlockDriver(hypervisor, PLACE).offered()
    assert offered == sum(1 << bit for bit in (1, 2, 6, 9, 13, 14, 28, 29, 32, 33, 40))


def test_device_configuration(hypervisor, device, driver):
    """5.2.4: capacity, size_max, seg_max, blk_size; limits of discard and write zeroes."""
    read = lambda offset, size: hypervisor.machine.memory.read(driver.device + offset, size)  # noqa: E731
    assert read(0, 8) == SECTORS
    assert (read(8, 4), read(12, 4), read(20, 4)) == (1 << 20, 254, 512)
    assert (read(36, 4), read(40, 4), read(44, 4)) == (1 << 22, 16, 1)
    assert (read(48, 4), read(52, 4), read(56, 1)) == (1 << 22, 16, 1)


@pytest.mark.parametrize("features", [0, 1 << 32 | 1 << 50])
def test_features_that_cannot_be(hypervisor, device, features):
    """3.1.1 and 6: without VERSION_1, or with one that was not offered, FEATURES_OK does not stay."""
    driver = BlockDriver(hypervisor, PLACE)
    driver.put(0x14, 1, 3)
    for select in (0, 1):
        driver.put(8, 4, select)
        driver.put(12, 4, features >> 32 * select & 0xFFFFFFFF)
    driver.put(0x14, 1, 11)
    assert driver.get(0x14, 1) == 3


def test_read_write_flush_identify(driver, disk):
    before = bytes(disk)
    assert driver.request(0, 5, 1024) == (0, before[5 * 512 : 7 * 512])
    assert driver.request(1, 9, b"\x5a" * 512)[0] == 0
    assert disk[9 * 512 : 10 * 512] == b"\x5a" * 512
    assert driver.request(4, 0)[0] == 0
    assert driver.request(8, 0, 20) == (0, b"disk 7".ljust(20, b"\0"))
    assert driver.completed() == [(0, 1025), (0, 1), (0, 1), (0, 21)]
    disk[9 * 512 : 10 * 512] = before[9 * 512 : 10 * 512]
    assert disk == before


@pytest.mark.parametrize(("kind", "sector", "data", "status"), [
    (0, SECTORS, 512, 1), (0, SECTORS - 1, 1024, 1), (1, SECTORS, b"x" * 512, 1), (0, 2**64 - 1, 512, 1),
    (0, 0, 511, 1), (99, 0, b"", 2), (0, SECTORS, b"", 0),
])  # fmt: skip
def test_requests_that_fail(driver, disk, kind, sector, data, status):
    before = bytes(disk)
    if data == b"" and kind == 0:
        data = 0
    assert driver.request(kind, sector, data)[0] == status
    assert disk == before


def test_discard_and_write_zeroes(hypervisor, device, disk):
    driver = BlockDriver(hypervisor, PLACE, features=1 << 13 | 1 << 14)
    driver.start()
    assert driver.request(13, 0, pack("<QII", 3, 2, 1) + pack("<QII", 8, 1, 0))[0] == 0
    assert disk[3 * 512 : 5 * 512] == bytes(1024) and disk[8 * 512 : 9 * 512] == bytes(512)
    assert any(disk[5 * 512 : 8 * 512])
    assert driver.request(11, 0, pack("<QII", 5, 1, 0))[0] == 0
    assert driver.request(11, 0, pack("<QII", 5, 1, 1))[0] == 2  # 5.2.6.2: UNMAP must be clear for a discard
    assert driver.request(13, 0, pack("<QII", SECTORS, 1, 0))[0] == 1
    assert driver.request(13, 0, pack("<QI", 0, 1))[0] == 1


def test_not_negotiated_is_unsupported(driver):
    assert driver.request(13, 0, pack("<QII", 3, 2, 0))[0] == 2


def test_a_read_only_disk(hypervisor):
    VirtioBlock(hypervisor, bytes(4096), requester_id=PLACE)
    driver = BlockDriver(hypervisor, PLACE)
    assert driver.offered() & 1 << 5
    driver.start()
    assert driver.request(1, 0, b"x" * 512)[0] == 1
    assert driver.request(0, 0, 512) == (0, bytes(512))


def test_a_file(hypervisor, tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(2048))
    device = VirtioBlock(hypervisor, path, requester_id=PLACE)
    driver = BlockDriver(hypervisor, PLACE)
    driver.start()
    driver.request(1, 2, b"hello".ljust(512))
    driver.request(4, 0)
    assert path.read_bytes()[1024:1029] == b"hello"
    device.disk.close()


def test_indirect_descriptors(hypervisor, device, disk):
    """2.7.5.3: one descriptor names a table of them."""
    driver = BlockDriver(hypervisor, PLACE, features=INDIRECT)
    driver.start()
    table, header = driver.buffers + 2 * PAGE, driver.buffers
    driver.memory.write(header, pack("<IIQ", 0, 0, 4))
    entries = [(header, 16, 1, 1), (header + PAGE, 512, 3, 2), (header + 64, 1, 2, 0)]
    driver.memory.write(table, b"".join(pack("<QIHH", *entry) for entry in entries))
    driver.describe(0, table, 48, 4)
    driver.offer(0)
    driver.kick()
    assert driver.memory.read(header + PAGE, 512) == disk[4 * 512 : 5 * 512]
    assert driver.completed() == [(0, 513)]


def test_any_layout_of_a_request(driver, disk):
    """2.7.4.1: where one descriptor ends and the next begins means nothing."""
    base = driver.buffers
    driver.memory.write(base, pack("<IIQ", 0, 0, 6))
    parts = ((base, 4, 1), (base + 4, 12, 1), (base + 0x100, 100, 3), (base + 0x200, 413, 2))
    for index, (at, size, flags) in enumerate(parts):
        driver.describe(index, at, size, flags, index + 1)
    driver.offer(0)
    driver.kick()
    wanted = bytes(disk[6 * 512 : 7 * 512])
    assert driver.memory.read(base + 0x100, 100) + driver.memory.read(base + 0x200, 412) == wanted
    assert driver.memory.read(base + 0x200 + 412, 1) == b"\0"


def test_interrupts_by_the_pin(hypervisor, device, driver):
    """4.1.4.5: without MSI-X the ISR says why, and reading it takes the pin back."""
    driver.request(4, 0)
    assert device.intx_asserted and driver.configuration.read(6, 2) & 8
    assert hypervisor.machine.memory.read(driver.isr, 1) == 1
    assert not device.intx_asserted and hypervisor.machine.memory.read(driver.isr, 1) == 0
    driver.memory.write(driver.available, pack("<H", 1))  # NO_INTERRUPT
    driver.request(4, 0)
    assert not device.intx_asserted


def test_event_index(hypervisor, device):
    """2.7.7, 2.7.10: an interrupt only when the driver's event is passed; the device asks for the next notification."""
    driver = BlockDriver(hypervisor, PLACE, features=EVENT_IDX)
    driver.start()
    event = driver.available + 4 + 2 * driver.SIZE
    driver.memory.write(event, pack("<H", 1))
    seen = []
    for _ in range(4):
        driver.request(4, 0)
        seen.append(hypervisor.machine.memory.read(driver.isr, 1))
    assert seen == [0, 1, 0, 0]
    assert driver.memory.read(driver.used + 4 + 8 * driver.SIZE, 2) == pack("<H", 4)


def test_reset_of_device_and_queue(driver, device):
    driver.put(0x3A, 2, 1)
    assert (driver.get(0x1C, 2), driver.get(0x3A, 2), driver.get(0x20, 8)) == (0, 0, 0)
    driver.put(0x14, 1, 0)
    assert driver.get(0x14, 1) == 0 and device.negotiated == 0


def test_queue_registers(driver):
    driver.put(0x16, 2, 1)  # there is no queue 1
    assert driver.get(0x18, 2) == 0
    driver.put(0x16, 2, 0)
    driver.put(0x18, 2, 100)
    assert driver.get(0x18, 2) == driver.SIZE  # enabled: it stays
    driver.put(0x1A, 2, 9)
    assert driver.get(0x1A, 2) == 0xFFFF  # 4.1.5.1.2.2: no such vector
    driver.put(0x1A, 2, 1)
    assert driver.get(0x1A, 2) == 1
    assert driver.get(0x12, 2) == 1
    driver.put(0x14, 1, 0)
    for half, value in ((0x20, 0x12345670), (0x24, 0x1)):
        driver.put(half, 4, value)
    assert driver.get(0x20, 8) == 0x1_12345670


def test_the_window_in_configuration_space(hypervisor, device, driver):
    """4.1.4.9: registers by configuration cycles alone."""
    space = driver.configuration
    (at,) = [at for kind, at in space.capabilities() if kind == 9 and space.read(at + 3, 1) == 5]
    space.write(at + 4, 1, 0)
    space.write(at + 12, 4, 1)
    space.write(at + 8, 4, 0x14)
    assert space.read(at + 16, 1) == 15
    space.write(at + 16, 1, 0)
    assert driver.get(0x14, 1) == 0
    space.write(at + 8, 4, 0xFFFF_FFFF)
    assert space.read(at + 16, 1) in (0, 15)


def broken(driver):
    return bool(driver.get(0x14, 1) & 0x40)


def hostile(driver, case):
    offer = driver.offer
    match case:
        case "endless chain":
            driver.describe(0, driver.buffers, 16, 1, 0)
        case "next behind the table":
            driver.describe(0, driver.buffers, 16, 1, 200)
        case "head behind the table":
            return offer(driver.SIZE)
        case "too many":
            return driver.memory.write(driver.available + 2, pack("<H", 0x7000))
        case "no status":
            driver.describe(0, driver.buffers, 16)
        case "no header":
            driver.describe(0, driver.buffers, 1, 2)
        case "read behind write":
            driver.describe(0, driver.buffers, 16, 3, 1)
            driver.describe(1, driver.buffers, 16)
        case "indirect, not negotiated":
            driver.describe(0, driver.buffers, 16, 4)
        case "header outside memory":
            driver.describe(0, 1 << 40, 16, 1, 1)
            driver.describe(1, driver.buffers, 1, 2)
        case "status outside memory":
            driver.describe(0, driver.buffers, 16, 1, 1)
            driver.describe(1, 1 << 40, 1, 2)
        case "address wraps":
            driver.describe(0, 2**64 - 8, 16, 1, 1)
            driver.describe(1, driver.buffers, 1, 2)
    return offer(0)


@pytest.mark.parametrize("case", [
    "endless chain", "next behind the table", "head behind the table", "too many", "no status", "no header",
    "read behind write", "indirect, not negotiated", "header outside memory", "status outside memory", "address wraps",
])  # fmt: skip
def test_rings_that_break_the_rules(driver, device, disk, case):
    """2.1.1: DEVICE_NEEDS_RESET; nothing moves until the driver resets, then all is well again."""
    before = bytes(disk)
    hostile(driver, case)
    driver.kick()
    assert broken(driver) and device.counters["broken"] == 1
    driver.kick()
    assert device.counters["broken"] == 1
    assert bytes(disk) == before
    driver.next = driver.seen = 0
    driver.memory.write(driver.available, bytes(4096))
    driver.memory.write(driver.used, bytes(4096))
    driver.start()
    assert driver.request(0, 0, 512) == (0, before[:512])


def test_rings_outside_memory(hypervisor, device):
    driver = BlockDriver(hypervisor, PLACE)
    for base in (0xFFFF_FFFF_FFFF_0000, 1 << 40):
        driver.table = driver.available = driver.used = base
        driver.start()
        driver.kick()
        assert broken(driver)


def test_data_outside_memory_is_an_error_of_the_request(driver):
    driver.describe(0, driver.buffers, 16, 1, 1)
    driver.describe(1, 1 << 40, 512, 3, 2)
    driver.describe(2, driver.buffers + 64, 1, 2)
    driver.memory.write(driver.buffers, pack("<IIQ", 0, 0, 0))
    driver.offer(0)
    driver.kick()
    assert driver.memory.read(driver.buffers + 64, 1) == b"\1" and not broken(driver)


def test_without_bus_mastering_nothing_moves(driver):
    driver.configuration.write(4, 2, 2)
    driver.offer(0)
    driver.kick()
    assert broken(driver)


@pytest.mark.parametrize("seed", range(20))
def test_random_rings_end(hypervisor, disk, seed):
    """Random descriptors, rings and register writes: each kick ends, memory beyond what chains name stays."""
    print("seed", seed)
    rng = random.Random(seed)
    VirtioBlock(hypervisor, bytearray(disk), requester_id=0x30)
    driver = BlockDriver(hypervisor, 0x30, features=INDIRECT * rng.getrandbits(1) | EVENT_IDX * rng.getrandbits(1))
    canary = bytes(rng.randbytes(PAGE))
    driver.memory.write(0x800000, canary)
    for _ in range(20):
        driver.start()
        driver.memory.write(driver.available, pack("<HH", 0, rng.choice((1, 3, 8, 9, 0xFFFF))))
        heads = rng.randbytes(16) if rng.random() < 0.2 else pack("<8H", *range(8))
        driver.memory.write(driver.available + 4, heads)
        for index in range(driver.SIZE):
            at = driver.base_of(rng)
            size = rng.choice((0, 1, 16, 512, 48, 0xFFFFFFFF))
            driver.describe(index, at, size, rng.randrange(8), rng.randrange(driver.SIZE + 1))
        driver.memory.write(driver.buffers, pack("<IIQ", rng.choice((0, 1, 4, 8, 11, 13, 77)), 0, rng.randrange(80)))
        driver.kick()
        driver.put(rng.randrange(0x40), 1, rng.randrange(256))
    assert driver.memory.read(0x800000, PAGE) == canary
