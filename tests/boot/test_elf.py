"""The ELF loader: what it takes, and the one line with which it refuses."""

import random
import struct

import pytest
from elf_programs import file_of, header

from hvcore.boot import elf
from hvcore.guests import build

CODE = b"\xf4" * 16


def a_file(*segments, **changes):
    return file_of(*(segments or ((1, 0x40_0000, CODE, len(CODE)),)), **changes)


def test_segments_in_order_with_zeros_behind():
    data = a_file((1, 0x60_0000, b"data", 0x1000), (1, 0x40_0000, CODE, len(CODE)), (0x6474E551, 0, b"", 0))
    image = elf.load(data)
    assert image.entry == 0x40_0000
    assert image.segments == [(0x40_0000, CODE, 16, 5), (0x60_0000, b"data", 0x1000, 5)]
    assert image.end == 0x60_1000


def test_empty_segments_take_no_memory():
    assert len(elf.load(a_file((1, 0x40_0000, CODE, 16), (1, 0x40_0008, b"", 0))).segments) == 1


def test_root_guest():
    image = elf.load(build.IMAGE.read_bytes())
    assert image.segments[0].address == 0x20_0000
    assert [segment.flags for segment in image.segments] == [5, 4, 6]
    assert image.entry < image.segments[0].end


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"\x7fE", "not an ELF file"),
        (b"#!/bin/sh\n", "not an ELF file"),
        (b"\x7fELF\x02\x01\x01", "truncated: 7 bytes, the ELF header alone has 64"),
        (a_file()[:100], "truncated: program headers end at 0x78, the file at 0x64"),
        (a_file()[:-1], "truncated: segment at 0x400000 needs the file up to 0x88, not 0x87"),
        (header(ident=b"\x7fELF\x01\x01\x01"), r"class 1 \(32-bit\)"),
        (header(ident=b"\x7fELF\x02\x02\x01"), "little-endian"),
        (a_file(machine=183), r"machine 183, not x86-64 \(62\)"),
        (a_file(kind=3), "ET_DYN"),
        (a_file(kind=1), "not an executable: ELF type 1"),
        (a_file((3, 0, b"/lib/ld.so", 10), (1, 0x40_0000, CODE, 16)), "dynamically linked"),
        (a_file((2, 0x41_0000, b"", 0), (1, 0x40_0000, CODE, 16)), "dynamically linked"),
        (a_file((4, 0x40_0000, CODE, 16)), "no segments to load"),
        (a_file((1, 0x40_0000, CODE, 16), (1, 0x40_000F, CODE, 16)), "0x400000-0x400010 and 0x40000f-0x40001f overlap"),
        (a_file((1, 0x40_0000, CODE, 15)), "0x10 bytes in the file, more than 0xf in memory"),
        (a_file(entry=0x40_0010), "entry point 0x400010 is in none"),
        (a_file(entry_size=32), "program headers have 32 bytes"),
        (a_file((1, (1 << 64) - 8, CODE, 16)), "segment at 0xfffffffffffffff8 .* 64-bit"),
    ],
)
def test_refusals_of_one_line(data, message):
    with pytest.raises(ValueError, match=message) as caught:
        elf.load(data)
    assert "\n" not in str(caught.value)


def test_other_addresses_are_refused():
    data = bytearray(a_file())
    struct.pack_into("<Q", data, 64 + 16, 0xFFFF_8000_0000_0000)
    with pytest.raises(ValueError, match="linked for another address"):
        elf.load(bytes(data))


def test_outside_memory():
    image = elf.load(a_file((1, 0x40_0000, CODE, 0x2000)))
    image.require_inside(0x40_2000)
    with pytest.raises(ValueError, match="segment 0x400000-0x402000 is outside memory, which ends at 0x401fff"):
        image.require_inside(0x40_1FFF)


@pytest.mark.parametrize("length", range(0, 140, 7))
def test_every_cut_is_a_value_error(length):
    with pytest.raises(ValueError):
        elf.load(a_file()[: min(length, 135)])


def test_random_damage_never_raises_anything_else():
    randomness = random.Random(1)
    whole = build.IMAGE.read_bytes()
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(randomness.randrange(1, 6)):
            data[randomness.randrange(0, 300)] = randomness.randrange(256)
        try:
            elf.load(bytes(data))
        except ValueError as error:
            assert "\n" not in str(error)
