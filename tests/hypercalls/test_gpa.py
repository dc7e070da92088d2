"""Calls 4B, 4C, 53, 54: GPA space (hyperv-abi.md 4.4, 4.5)."""

from struct import pack, unpack

import pytest
from hypercall_machine import ALL_PRIVILEGES, SELF, UNKNOWN_ID

from hvcore.enums import Hypercall, Status

R, W, KX, UX, RWX = 1, 2, 4, 8, 0xF
LARGE = 0x8000_0000
NO_ACCESS = 0x10000
LAST_PAGE = (1 << 34) - 1


def map_pages(machine, target, base, sources, flags=RWX, **keywords):
    machine.call(Hypercall.MAP_GPA_PAGES, "QQII", target, base, flags, 0, elements=sources, **keywords)


def unmap(machine, target, base, count, flags=0, **keywords):
    machine.call(Hypercall.UNMAP_GPA_PAGES, "QQII", target, base, flags, 0, reps=count, **keywords)


@pytest.mark.parametrize(("flags", "rights"), [(R, 1), (R | W, 3), (R | KX | UX, 5), (RWX, 7), (R | KX, 5)])
def test_map(machine, flags, rights):
    child = machine.child()
    pages = machine.map(child, 0x100, 3, flags)
    for index, page in enumerate(pages):
        assert child.space.lookup((0x100 + index) << 12)[:2] == (page << 12, rights)
    assert child.space.lookup(0x103 << 12) is None


@pytest.mark.parametrize("flags", [W, W | KX, KX, UX, R | UX, 0x10, 0x20000, 0x30000, 0x20 | R, R | NO_ACCESS, 1 << 28])
def test_illegal_flags(machine, flags):
    child = machine.child()
    map_pages(machine, child.id, 0, machine.pages(1), flags, expect=Status.INVALID_PARAMETER)


@pytest.mark.parametrize("flags", [R | 0x8000, R | 0x100000, R | 0x200000])
def test_flags_without_effect_here(machine, flags):
    machine.map(machine.child(), 0, 1, flags)


def test_a_new_mapping_replaces_the_old(machine):
    child = machine.child()
    first, second = machine.map(child, 7, 1, RWX), machine.map(child, 7, 1, R)
    assert child.space.lookup(7 << 12)[:2] == (second[0] << 12, 1)
    assert machine.hypervisor.owners.shared[first[0]] == 0
    assert machine.hypervisor.owners.shared[second[0]] == 1


def test_one_source_many_targets(machine):
    children = [machine.child() for _ in range(2)]
    (page,) = machine.pages(1)
    for child in children:
        map_pages(machine, child.id, 0, [page, page])
    assert machine.hypervisor.owners.shared[page] == 4
    unmap(machine, children[0].id, 0, 2)
    assert machine.hypervisor.owners.shared[page] == 2


def test_large_pages(machine):
    child = machine.child()
    first = machine.hypervisor.free_pages.allocate(1024, align=512)
    map_pages(machine, child.id, 512, [first, first + 512], RWX | LARGE)
    assert child.space.lookup((513 << 12) + 5) == (((first + 1) << 12) + 5, 7, 21)
    unmap(machine, child.id, 513, 1)
    assert child.space.lookup(513 << 12) is None
    assert child.space.lookup(514 << 12)[2] == 12
    unmap(machine, child.id, 512, 2, 2)
    assert child.space.lookup(1024 << 12) is None
    assert not machine.hypervisor.owners.shared.any()


def test_large_pages_whose_backing_is_small(machine):
    parent, grandchild = machine.parent_and_grandchild()
    machine.deposit(parent, 4)
    first = machine.pages(513)
    first = first[1:] if first[0] % 512 == 0 else first[:512]
    map_pages(machine, parent.id, 512, first[:400])
    map_pages(machine, parent.id, 912, first[400:])
    for page in range(8):
        machine.call(Hypercall.DEPOSIT_MEMORY, "Q", grandchild.id, elements=[page], caller=parent)
    machine.call(Hypercall.INITIALIZE_PARTITION, "Q", grandchild.id, caller=parent)
    map_pages(machine, grandchild.id, 0, [512], RWX | LARGE, caller=parent)
    assert grandchild.space.lookup(5 << 12) == (first[5] << 12, 7, 12)


@pytest.mark.parametrize(
    ("base", "source", "flags"),
    [
        (1, 512, RWX | LARGE),
        (512, 513, RWX | LARGE),
        (LAST_PAGE + 1, 5, RWX),
        (1 << 63, 5, RWX),
        ((1 << 64) - 1, 5, RWX),
        (0, LAST_PAGE + 1, RWX),
        (0, (1 << 64) - 1, RWX),
        (0, 1 << 52, RWX | LARGE),
    ],
)
def test_outside_or_unaligned(machine, base, source, flags):
    child = machine.child()
    map_pages(machine, child.id, base, [source], flags, expect=Status.INVALID_PARAMETER)


def test_bad_sources_stop_the_list(machine):
    child = machine.child()
    good = machine.pages(3)
    deposited = machine.deposit(child, 1)
    for bad in (deposited[0], machine.memory.size >> 12):
        input_ = pack("<QQII4Q", child.id, 0, RWX, 0, good[0], good[1], bad, good[2])
        result = machine.root.hypercall(Hypercall.MAP_GPA_PAGES, input_)
        assert (result.status, result.reps_completed) == (Status.OPERATION_DENIED, 2)
        assert child.space.lookup(0x1000) is not None
        assert child.space.lookup(0x2000) is None


def test_insufficient_memory_then_resume(machine):
    child = machine.child(deposit=0)
    pages = machine.pages(4)
    input_ = pack("<QQII4Q", child.id, 510, RWX, 0, *pages)
    result = machine.root.hypercall(Hypercall.MAP_GPA_PAGES, input_)
    assert (result.status, result.reps_completed) == (Status.INSUFFICIENT_MEMORY, 0)
    machine.deposit(child, 3 - child.pool.available)
    result = machine.root.hypercall(Hypercall.MAP_GPA_PAGES, input_)
    assert (result.status, result.reps_completed) == (Status.INSUFFICIENT_MEMORY, 2)
    machine.deposit(child, 1)
    result = machine.root.hypercall(Hypercall.MAP_GPA_PAGES, input_, start=2)
    assert (result.status, result.reps_completed) == (Status.SUCCESS, 4)
    assert child.space.lookup(513 << 12)[0] == pages[3] << 12


def test_a_page_without_rights_is_as_good_as_unmapped(machine):
    child = machine.child()
    machine.map(child, 0, 1, 0)
    assert child.space.lookup(0) is None
    (page,) = machine.pages(1)
    map_pages(machine, SELF, page, [page], 0)
    assert machine.root.space.lookup(page << 12) is None
    map_pages(machine, SELF, page, [page], RWX)
    assert machine.root.space.lookup(page << 12)[:2] == (page << 12, 7)


def test_no_access_makes_a_hole(machine):
    child = machine.child()
    machine.map(child, 0, 2)
    map_pages(machine, child.id, 1, [0], NO_ACCESS)
    assert child.space.lookup(0x1000) is None


def test_root_changes_its_own_rights_only(machine):
    page, other = machine.pages(2)
    map_pages(machine, SELF, page, [page], R)
    assert machine.root.space.lookup(page << 12)[1] == 1
    child = machine.child()
    map_pages(machine, child.id, 0, [page], R | W, expect=Status.OPERATION_DENIED)
    map_pages(machine, child.id, 0, [page], R)
    map_pages(machine, machine.root.id, page, [page], RWX)
    map_pages(machine, child.id, 0, [page], R | W)
    map_pages(machine, SELF, page, [other], R, expect=Status.ACCESS_DENIED)
    deposited = machine.deposit(child, 1)
    map_pages(machine, SELF, deposited[0], deposited, R, expect=Status.ACCESS_DENIED)


def test_what_a_parent_loses_its_children_lose(machine):
    parent, grandchild = machine.parent_and_grandchild()
    for page in range(8):
        machine.call(Hypercall.DEPOSIT_MEMORY, "Q", grandchild.id, elements=[page], caller=parent)
    machine.call(Hypercall.INITIALIZE_PARTITION, "Q", grandchild.id, caller=parent)
    map_pages(machine, grandchild.id, 0x10, [20, 21, 22], RWX, caller=parent)
    map_pages(machine, grandchild.id, 0x13, [20], R | W, caller=parent)
    spa = parent.space.lookup(20 << 12)[0]
    unmap(machine, parent.id, 20, 1)
    assert grandchild.space.lookup(0x10 << 12) is None
    assert grandchild.space.lookup(0x13 << 12) is None
    assert grandchild.space.lookup(0x11 << 12) is not None
    assert machine.hypervisor.owners.shared[spa >> 12] == 0
    machine.map(parent, 21)
    assert grandchild.space.lookup(0x11 << 12) is None
    map_pages(machine, parent.id, 22, [parent.space.lookup(22 << 12)[0] >> 12], R)
    assert grandchild.space.lookup(0x12 << 12) is None


def test_unmap(machine):
    child = machine.child()
    machine.map(child, 0, 2)
    unmap(machine, child.id, 0, 5)
    unmap(machine, child.id, 0, 1, 1)
    assert child.space.lookup(0) is None
    for base, count, flags in ((1, 1, 2), (0, 1, 4), (LAST_PAGE, 2, 0), (1 << 63, 1, 0)):
        unmap(machine, child.id, base, count, flags, expect=Status.INVALID_PARAMETER)
    unmap(machine, SELF, 0, 1, expect=Status.INVALID_PARTITION_ID)
    unmap(machine, machine.root.id, 0, 1, expect=Status.ACCESS_DENIED)


def test_map_targets(machine):
    parent, grandchild = machine.parent_and_grandchild()
    map_pages(machine, UNKNOWN_ID, 0, [5], expect=Status.INVALID_PARTITION_ID)
    map_pages(machine, grandchild.id, 0, [5], expect=Status.ACCESS_DENIED)
    map_pages(machine, SELF, 0, [5], caller=parent, expect=Status.ACCESS_DENIED)
    map_pages(machine, grandchild.id, 0, [5], caller=parent, expect=Status.INVALID_PARTITION_STATE)
    map_pages(machine, parent.id, 0, [5], caller=machine.child(), expect=Status.ACCESS_DENIED)


def test_a_childs_rights_bound_its_own_children(machine):
    parent, grandchild = machine.parent_and_grandchild()
    for page in range(8):
        machine.call(Hypercall.DEPOSIT_MEMORY, "Q", grandchild.id, elements=[page], caller=parent)
    machine.call(Hypercall.INITIALIZE_PARTITION, "Q", grandchild.id, caller=parent)
    machine.map(parent, 200, 1, R)
    map_pages(machine, grandchild.id, 0, [200], R | W, caller=parent, expect=Status.OPERATION_DENIED)
    map_pages(machine, grandchild.id, 0, [200], R, caller=parent)
    map_pages(machine, grandchild.id, 0, [300], R, caller=parent, expect=Status.OPERATION_DENIED)
    assert parent.privileges == ALL_PRIVILEGES


def read_gpa(machine, partition_id, gpa, size, *, vp=0, flags=6, **keywords):
    return machine.call(Hypercall.READ_GPA, "QIIQQ", partition_id, vp, size, gpa, flags, **keywords)


def write_gpa(machine, partition_id, gpa, size, data=b"", *, vp=0, flags=6, **keywords):
    output = machine.call(Hypercall.WRITE_GPA, "QIIQQ16s", partition_id, vp, size, gpa, flags, data, **keywords)
    return unpack("<II", output)[0] if output else None


def test_read_and_write_gpa(machine):
    child = machine.child(vps=1)
    machine.map(child, 4)
    assert write_gpa(machine, child.id, 0x4FF8, 8, b"ABCDEFGHIJ") == 0
    assert read_gpa(machine, child.id, 0x4FF8, 8) == pack("<II16s", 0, 0, b"ABCDEFGH")
    assert read_gpa(machine, child.id, 0x4FFA, 3) == pack("<II16s", 0, 0, b"CDE")


def test_gpa_access_results(machine):
    child = machine.child(vps=1)
    machine.map(child, 0, 1, R)
    machine.map(child, 1, 1, 0)
    for gpa in (0x1000, 0x5000):
        assert unpack("<I", read_gpa(machine, child.id, gpa, 4)[:4]) == (1,)
        assert write_gpa(machine, child.id, gpa, 4) == 1
    assert write_gpa(machine, child.id, 0, 4) == 3
    child.space.set_overlay(1, 0, 9, child.hypercall_frame, 5)
    assert write_gpa(machine, child.id, 0x9000, 4) == 4


@pytest.mark.parametrize(
    ("gpa", "size", "flags"),
    [(0, 0, 6), (0, 17, 6), (0xFF8, 9, 6), (1 << 46, 1, 6), (0, 1, 2), (0, 1, 7), (0, 1, 0x100), (0, 1 << 31, 6)],
)
def test_gpa_access_parameters(machine, gpa, size, flags):
    child = machine.child(vps=1)
    machine.map(child, 0)
    read_gpa(machine, child.id, gpa, size, flags=flags, expect=Status.INVALID_PARAMETER)
    write_gpa(machine, child.id, gpa, size, flags=flags, expect=Status.INVALID_PARAMETER)


def test_gpa_access_targets(machine):
    child = machine.child(vps=1)
    read_gpa(machine, UNKNOWN_ID, 0, 1, expect=Status.INVALID_PARTITION_ID)
    write_gpa(machine, UNKNOWN_ID, 0, 1, expect=Status.INVALID_PARTITION_ID)
    for vp in (1, 0xFFFFFFFE, 0xFFFFFFFF):
        read_gpa(machine, child.id, 0, 1, vp=vp, expect=Status.INVALID_VP_INDEX)
        write_gpa(machine, child.id, 0, 1, vp=vp, expect=Status.INVALID_VP_INDEX)
    read_gpa(machine, machine.root.id, 0, 1, expect=Status.ACCESS_DENIED)
    write_gpa(machine, child.id, 0, 1, caller=child, expect=Status.ACCESS_DENIED)
