"""Facts of instructions equal iced-x86's for samples of every Code in every mode; what does not is listed below."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import hvcore as hv

pytest.importorskip("iced_x86", reason="iced-x86 is not installed")

from . import facts_iced, iced_samples

KNOWN: dict[str, tuple[str, set[str]]] = {
    "privileged": (
        "CPL 0 is not needed: IOPL says who may, and RSM needs SMM",
        {"insb", "insw", "insd", "outsb", "outsw", "outsd", "in", "out", "cli", "sti", "rsm"},
    ),
    "flags_read": ("iced knows the count of this very immediate", {"rcl", "rcr"}),
    "flags_written": ("the same", {"rcl", "rcr"}),
    "flags_undefined": ("the same", {"rcl", "rcr"}),
    "features": (
        "one form for several operand or address sizes",
        {"mov", "sldt", "str", "smsw", "loop", "loope", "loopne", "xstore"},
    ),
    "operands": ("[rDI] is implicit memory here", {"maskmovq", "maskmovdqu", "vmaskmovdqu"}),
    "address": ("AL is an implicit register here", {"xlatb"}),
    "registers": (
        "the stack pointer is written without being read, though popped; far returns read CS and SS as data; VIA's",
        {"leave", "skinit", "sysenter", "erets", "iret", "iretd", "xstore_alt"},
    ),
}
"""Kind of fact: the reason, and the mnemonics that it differs for."""

SEGMENT_OF_IMPLICIT_MEMORY = {"ds", "es"}
"""Outside 64-bit mode iced lists the segment register of implicit memory as read, hvcore only that of operands."""


def explained(kind: str, mnemonic: str, theirs: Any, ours: Any, bits: int) -> bool:
    if mnemonic in KNOWN.get(kind.split()[0], ("", set()))[1]:
        return True
    if kind != "registers" or bits == 64:
        return False
    without = {name: access for name, access in theirs.items() if name not in SEGMENT_OF_IMPLICIT_MEMORY}
    return without == {name: access for name, access in ours.items() if name not in SEGMENT_OF_IMPLICIT_MEMORY}


@pytest.mark.parametrize("bits", [64, 32, 16])
def test_every_code(bits: int) -> None:
    found, unused = [], {(kind, name) for kind, (_, names) in KNOWN.items() for name in names}
    for octets in iced_samples.samples(bits).values():
        for code in octets:
            mnemonic = hv.decode_one(code, bits=bits).mnemonic
            for kind, (theirs, ours) in facts_iced.differences(code, bits).items():
                unused.discard((kind.split()[0], mnemonic))
                if not explained(kind, mnemonic, theirs, ours, bits):
                    found.append(f"{code.hex()} {mnemonic}: {kind} {theirs}, hvcore {ours}")
    assert not found, f"{len(found)}\n" + "\n".join(found[:30])
    if bits == 32:
        assert not unused - {("features", "xstore"), ("registers", "erets")}, "listed, but it does not differ"


def test_columns_are_indexed_by_form() -> None:
    table = hv.decode(bytes.fromhex("4801d8 0f05 c5f458c1 f3a4 74f8 c3"))
    assert hv.facts.flags_written[table.form].tolist() == [
        int(instruction.flags_written) for instruction in table
    ]
    assert hv.facts.operand_count[table.form].tolist() == [len(instruction.operands) for instruction in table]
    assert [hv.facts.mnemonics[number] for number in hv.facts.mnemonic[table.form]] == [
        "add", "syscall", "vaddps", "movsb", "je", "ret"
    ]
    assert hv.facts.vector_bits[table.form].tolist() == [0, 0, 256, 0, 0, 0]


def test_columns_are_constant_views() -> None:
    forms = len(hv.facts.mnemonic)
    for name in ("line", "flow", "flags_read", "operand_access", "memory_bits", "features"):
        column = getattr(hv.facts, name)
        assert len(column) == forms and not column.flags.writeable and not column.flags.owndata
        assert not np.any(column[0]), "form 0 is no instruction"
    assert hv.facts.operand_bits.shape == (forms, 5)


def test_every_column_is_in_the_stub() -> None:
    stub = (hv.facts.__file__ or "").rsplit("/", 1)[0] + "/facts.pyi"
    with open(stub) as file:
        text = file.read()
    arrays = [name for name, value in vars(hv.facts).items() if isinstance(value, np.ndarray)]
    assert len(arrays) > 20 and all(f"{name}: Final[NDArray[numpy." in text for name in arrays)


def test_facts_of_one_instruction() -> None:
    one = hv.decode_one(bytes.fromhex("62f17cd9585351"), ip=0x1000)
    assert (one.mnemonic, one.length, one.next_ip, one.encoding, one.vector_bits) == ("vaddps", 7, 0x1007, "EVEX", 512)
    assert one.bytes.hex() == "62f17cd9585351"
    assert (one.mask, one.zeroing, one.broadcast, one.rounding) == (hv.Register.K1, True, True, None)
    target, first, memory = one.operands
    assert (target.name, target.access, first.name) == ("zmm2", hv.Access.WRITE, "zmm0")
    assert (memory.base, memory.displacement, memory.bits, memory.element) == (
        hv.Register.RBX, 0x144, 32, hv.Element.F32
    )
    assert one.features == ("avx512f",) and one.flow is hv.Flow.NEXT and not one.privileged
    assert (one.displacement_offset, one.displacement_size) == (6, 1)
    assert one.used_registers == {
        "zmm2": hv.Access.WRITE, "zmm0": hv.Access.READ, "rbx": hv.Access.READ, "k1": hv.Access.READ
    }


def test_rounding_targets_and_far_pointers() -> None:
    assert hv.decode_one(bytes.fromhex("62f17c7958d1")).rounding == "zero"
    assert hv.decode_one(bytes.fromhex("74fe"), ip=0x10).target == 0x10
    far = hv.decode_one(bytes.fromhex("9a443322116655"), bits=32).operands[0]
    assert (far.kind, far.selector, far.offset) == (hv.OperandKind.FAR, 0x5566, 0x11223344)
    relative = hv.decode_one(bytes.fromhex("8b0510000000"), ip=(1 << 64) - 6).operands[1]
    assert relative.base == hv.Register.RIP and relative.address == 0x10


def test_implicit_operands() -> None:
    push = hv.decode_one(b"\x50")
    assert push.implicit_registers == (("rsp", hv.Access.READ | hv.Access.WRITE),)
    assert push.implicit_memory == (("rsp", hv.Access.WRITE),)
    cpuid = hv.decode_one(b"\x0f\xa2")
    assert dict(cpuid.implicit_registers)["ebx"] == hv.Access.WRITE
    assert cpuid.used_registers["rbx"] == hv.Access.WRITE


def test_what_is_no_instruction() -> None:
    for octets, status in ((b"\x06", "invalid"), (b"\x0f", "truncated"), (b"\x66" * 15, "too long")):
        one = hv.decode_one(octets)
        assert (one.valid, one.status, one.length, one.form) == (False, status, 1, 0)
        assert (one.mnemonic, one.text, one.operands, one.target) == ("invalid", "(bad)", (), None)
        assert one.used_registers == {} and one.features == () and one.flow is hv.Flow.NEXT


@pytest.mark.parametrize("offset", [-1, 2, 1 << 40])
def test_offsets_outside_are_refused(offset: int) -> None:
    for code in (b"\x90\x90", bytearray(b"\x90\x90")):
        with pytest.raises(ValueError, match=f"offset {offset} is outside the 2 bytes of code"):
            hv.decode_one(code, offset=offset)


def test_addresses_wrap() -> None:
    assert hv.decode_one(b"\xeb\x10", ip=(1 << 64) - 1).target == 0x11
    assert hv.decode_one(b"\x90", ip=(1 << 64) - 1).next_ip == 0


def test_decoding_does_not_need_the_rest() -> None:
    """The engine, its handlers and the command line stay unloaded."""
    code = "import sys, hvcore; hvcore.decode_one(b'\\x90').text; assert 'hvcore._native.engine' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
