"""64-bit mode: page tables that map memory at its own addresses, segments, and programs placed in memory."""

import pytest

import hvcore
from hvcore import exits
from hvcore.boot import place
from hvcore.boot.elf import Image, Segment
from hvcore.boot.long_mode import block_size, enter_long_mode
from hvcore.boot.program import boot

MEBIBYTE = 1 << 20
HLT = b"\xf4"


@pytest.fixture
def child():
    with hvcore.Hypervisor(memory="64 MiB", processors=1) as hypervisor:
        partition = hypervisor.root.create_partition()
        partition.map_memory(gpa=0, size="8 MiB")
        yield partition


@pytest.mark.parametrize(
    ("mapped", "page", "pages"),
    [
        ("2 MiB", "2 MiB", 3),
        ("1 GiB", "2 MiB", 3),
        ("1026 MiB", "2 MiB", 4),
        ("513 GiB", "2 MiB", 1 + 2 + 513),
        ("2 MiB", "4 KiB", 4),
        ("8 MiB", "4 KiB", 7),
        ("1 GiB", "4 KiB", 515),
    ],
)
def test_block_size(mapped, page, pages):
    """GDT, IDT, then PML4, PDPTs, directories and tables as far as they are needed."""
    assert block_size(mapped, page) == (2 + pages) * 4096


@pytest.mark.parametrize(("page", "shift", "references"), [("4 KiB", 12, 4), ("2 MiB", 21, 3)])
def test_every_page_is_at_its_own_address(child, page, shift, references):
    vp = child.vps[0]
    vp.reset(mode="long64", rip=0x1000, rsp=0x8000, page_size=page)
    for gva in [0, 0x1234, *range(0xFFF, 8 * MEBIBYTE, 0x1_1000), 8 * MEBIBYTE - 1]:
        status, gpa, _, page_shift, _, guest, _ = vp.walk(gva)
        assert (status, gpa, page_shift, guest) == (0, gva, shift, references)
    assert vp.walk(8 * MEBIBYTE)[0] != 0


@pytest.mark.parametrize("page", ["4 KiB", "2 MiB"])
def test_a_map_of_many_tables(child, page):
    vp = child.vps[0]
    mapped = 700 * MEBIBYTE if page == "4 KiB" else 1100 << 30
    vp.reset(mode="long64", identity_map=mapped, tables=MEBIBYTE, page_size=page)
    for gva in (0, mapped // 2, mapped - 1):
        assert vp.walk(gva)[1] == gva
    assert vp.walk(mapped)[0] != 0


def test_registers(child):
    vp = child.vps[0]
    vp.rax = 77
    vp.reset(mode="long64", rip=0x1000, rsp=0x8000, tables=0x10_0000)
    registers = vp.registers()
    expected = {"rip": 0x1000, "rsp": 0x8000, "rflags": 2, "rax": 0, "cr3": 0x10_2000, "mxcsr": 0x1F80}
    assert {name: registers[name] for name in expected} == expected
    assert (registers["cr0"], registers["cr4"], registers["efer"]) == (0x8001_0031, 0x620, 0xD01)
    assert (vp.cs.selector, vp.ss.selector, vp.cpl) == (8, 0x10, 0)
    assert (vp.gdtr, vp.idtr) == ((0x10_0000, 39), (0x10_1000, 0xFFF))


def test_segments_are_those_of_the_gdt(child):
    """The guest loads DS, SS and, by a far return, CS again: nothing changes."""
    vp = child.vps[0]
    vp.reset(mode="long64", rip=0x1000, rsp=0x8000)
    # mov eax, 10h; mov ds, eax; mov ss, eax; push 8; push 1010h; retfq; hlt at 1010h
    code = b"\xb8\x10\0\0\0\x8e\xd8\x8e\xd0\x6a\x08\x68\x1b\x10\0\0\x48\xcb"
    place.write(child, 0x1000, code)
    place.write(child, 0x101B, HLT)
    before = (vp.cs, vp.ds, vp.ss)
    assert isinstance(vp.run(), exits.Halt)
    assert (vp.cs, vp.ds, vp.ss) == before


def test_user_mode(child):
    vp = child.vps[0]
    enter_long_mode(child, vp, rip=0x1000, rsp=0x8000, identity_map="8 MiB", user=True)
    assert (vp.cpl, vp.cs.selector, vp.ss.selector) == (3, 0x1B, 0x23)
    place.write(child, 0x1000, b"\x8c\xc8" + HLT)  # mov eax, cs; hlt is #GP, and there is no handler
    assert isinstance(vp.run(), exits.TripleFault)
    assert (vp.rax, vp.rip) == (0x1B, 0x1002)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"identity_map": "3 KiB"}, "identity_map must be a positive multiple of 0x200000"),
        ({"identity_map": 1 << 48}, "at most 128 TiB"),
        ({"page_size": "1 GiB"}, 'page_size must be "4 KiB" or "2 MiB"'),
        ({"tables": 0x1001}, "tables must be a multiple of 0x1000"),
        ({"tables": 8 << 20}, "no memory is mapped at gpa 0x800000"),
        ({"tables": (8 << 20) - 4096}, "no memory is mapped at gpa 0x800000"),
        ({"identity_map": "128 TiB"}, "tables must be"),
        ({"mode": "vm86"}, 'mode must be "real16" or "long64"'),
    ],
)
def test_misuse_names_the_argument(child, arguments, message):
    with pytest.raises(ValueError, match=message):
        child.vps[0].reset(**{"mode": "long64"} | arguments)


def test_reset_is_power_on(child):
    vp = child.vps[0]
    vp.reset(mode="long64")
    vp.reset()
    assert (vp.cr0, vp.rip, vp.efer) == (0x6000_0010, 0xFFF0, 0)


def test_registers_set_many_at_once(child):
    vp = child.vps[0]
    assert vp.registers(rax=5, xmm3=1 << 127)["xmm3"] == 1 << 127
    assert vp.rax == 5
    with pytest.raises(ValueError, match="there is no register 'eax'"):
        vp.registers(rbx=1, eax=2)
    assert vp.rbx == 0
    with pytest.raises(ValueError, match="rcx cannot hold"):
        vp.registers(rcx=1 << 64)


def test_bytes_across_pages_and_zeros(child):
    place.write(child, 0x1FFE, b"abcd")
    assert child.regions[0][0x1FFE:0x2002] == b"abcd"
    place.write(child, 0x3000, b"\xff" * 0x3000)
    place.zero(child, 0x3801, 0x1FFF)
    assert child.regions[0][0x3000:0x6000] == b"\xff" * 0x801 + bytes(0x1FFF) + b"\xff" * 0x800
    with pytest.raises(ValueError, match="no memory is mapped at gpa 0x800000"):
        place.write(child, 0x7F_FFFE, b"abcd")
    assert child.regions[0][0x7F_FFFE:0x80_0000] == b"\0\0"


def test_boot(child):
    vp = child.vps[0]
    child.regions[0][0x2001:0x2003] = b"xx"
    boot(child, vp, Image(0x1000, [Segment(0x1000, b"\x90" + HLT, 2, 5), Segment(0x2000, b"d", 0x10, 6)]))
    assert child.regions[0][0x2000:0x2010] == b"d" + bytes(15)
    assert vp.rdi == 8 * MEBIBYTE
    assert vp.rsp % 16 == 0
    assert 8 * MEBIBYTE - 0x10_0000 < vp.rsp < 8 * MEBIBYTE
    assert isinstance(vp.run(), exits.Halt)
    with pytest.raises(ValueError, match="is outside memory, which ends at"):
        boot(child, vp, Image(0x1000, [Segment(8 * MEBIBYTE - 0x2000, HLT, 1, 5)]))


def test_no_memory_at_all():
    with hvcore.Hypervisor(memory="64 MiB") as hypervisor:
        partition = hypervisor.root.create_partition()
        assert place.top_of_ram(partition) == 0
        with pytest.raises(ValueError, match="identity_map"):
            partition.vps[0].reset(mode="long64")
