"""iced-x86 as a second opinion on the decoder: lengths and mnemonics over real binaries and over random bytes.

What hvcore does not execute (x87, MMX, AVX ...) must be invalid; every other difference is listed below with its
reason. Hand-picked encodings that must be invalid follow at the end.
"""

from __future__ import annotations

import random
import shutil
import struct
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hvcore._native.decoder import decode_instruction, sweep

iced_x86 = pytest.importorskip("iced_x86", reason="iced-x86 is not installed")

RANDOM_STRINGS = 150_000
RANDOM_SEED = 20240
MOST_INSTRUCTIONS = 250_000
"""Of one binary."""

MNEMONICS = {value: name.lower() for name, value in vars(iced_x86.Mnemonic).items() if isinstance(value, int)}
CODES = {value: name for name, value in vars(iced_x86.Code).items() if isinstance(value, int)}
FEATURES = {value: name for name, value in vars(iced_x86.CpuidFeature).items() if isinstance(value, int)}

IMPLEMENTED = frozenset(
    (
        "INTEL8086", "INTEL186", "INTEL286", "INTEL386", "INTEL486", "X64", "CMOV", "SSE", "SSE2", "BMI1", "BMI2",
        "ADX", "MOVBE", "POPCNT", "LZCNT", "CX8", "CMPXCHG16B", "FXSR", "MULTIBYTENOP", "PAUSE", "CET_IBT",
        "SYSCALL", "TSC", "PREFETCHW", "CLFSH", "RDTSCP", "CPUID", "MSR",
    )
)  # fmt: skip
"""CPUID features, as iced names them, all of whose instructions hvcore knows, less those in LEFT_OUT."""

LEFT_OUT = {
    "MM": "MMX register", "MMM64": "MMX register or memory", "MASKMOVQ": "MMX", "MOVNTQ": "MMX", "MOVDQ2Q": "MMX",
    "MOVQ2DQ": "MMX", "WAIT": "x87",
}  # fmt: skip
"""What hvcore has not got of the implemented features: a word of iced's name for the encoding, and the reason."""

OTHER_NAMES = {
    "pause": ("xchg", "with REX.B it is XCHG R8, as processors have it"),
    "jecxz": ("jrcxz", "a 67 prefix does not change the name in the table"),
    "sysret": ("sysretd", "the table names both operand sizes"),
    "cldemote": ("reservednop", "a hint of later processors; without its feature it is this"),
    "prefetchit0": ("reservednop", "a hint of later processors"),
    "prefetchit1": ("reservednop", "a hint of later processors"),
    "rdsspd": ("reservednop", "shadow stacks are never enabled"),
    "rdsspq": ("reservednop", "shadow stacks are never enabled"),
    "vmgexit": ("vmmcall", "F3 is ignored without SEV-ES"),
    "wbnoinvd": ("wbinvd", "F3 is ignored without WBNOINVD"),
}
"""iced's mnemonic: hvcore's, and why they differ."""

RESERVED_PREFETCHES = "PREFETCHRESERVED"
"""0F 0D /3 to /7: iced names them like their neighbours, the table calls them reservednop."""

ONLY_HVCORE = {"mov": "control registers that do not exist are #UD when executed, not when decoded"}
"""Mnemonics that hvcore decodes and iced does not, by reason."""


def difference(code: bytes, offset: int, iced: Any) -> str | None:
    """What hvcore makes of bytes that iced decoded, if that is neither the same nor accounted for above."""
    ours = decode_instruction(code, offset=offset)
    name = MNEMONICS[iced.mnemonic]
    features = {FEATURES[feature] for feature in iced.cpuid_features()}
    kind = CODES[iced.code]
    if kind.startswith(RESERVED_PREFETCHES):
        name = "reservednop"
    elif name != ours.mnemonic:
        name = OTHER_NAMES.get(name, (name,))[0]
    length = len(iced)
    octets = code[offset : offset + length].hex(" ")
    if ours.valid:
        if ours.length != length:
            return f"{octets}: {kind} has {length} bytes, hvcore says {ours.length}"
        if ours.mnemonic != name:
            return f"{octets}: {kind} is {name}, hvcore says {ours.mnemonic}"
    elif features <= IMPLEMENTED and not LEFT_OUT.keys() & set(kind.split("_")):
        return f"{octets}: {kind} is invalid for hvcore"
    return None


# --- real binaries ---------------------------------------------------------------------------------------------------


def text_of(path: Path) -> tuple[int, bytes]:
    """Address and bytes of the section .text of an ELF file for x86-64; (0, b"") for any other file."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", data, 18)[0] != 62:
        return 0, b""
    table, (entry_size, count, names_index) = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<3H", data, 58)
    sections = [struct.unpack_from("<IIQQQQ", data, table + entry_size * number) for number in range(count)]
    names = sections[names_index][4]
    for name, _, _, address, offset, size in sections:
        if data[names + name :].startswith(b".text\0"):
            return address, data[offset : offset + size]
    return 0, b""


def binaries() -> dict[str, Path | None]:
    """Programs and libraries that most machines have, by name; None where this one has not."""
    library = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib") / (sysconfig.get_config_var("LDLIBRARY") or "none")
    git, compiler = shutil.which("git"), shutil.which("gcc")
    found = {
        "python": Path(sys.executable).resolve(),
        "libpython": library,
        "libc": next(Path("/").glob("lib*/x86_64-linux-gnu/libc.so.6"), Path("/lib64/libc.so.6")),
        "libm": next(Path("/").glob("lib*/x86_64-linux-gnu/libm.so.6"), Path("/lib64/libm.so.6")),
        "git": Path(git) if git else Path("none"),
        "gcc": Path(compiler).resolve() if compiler else Path("none"),
    }
    return {name: path if path.is_file() else None for name, path in found.items()}


def instructions(code: bytes, address: int) -> Iterator[tuple[int, Any]]:
    """Offset and instruction, as iced sweeps over the code."""
    decoder = iced_x86.Decoder(64, code, ip=address)
    for _ in range(MOST_INSTRUCTIONS):
        if not decoder.can_decode:
            return
        offset = decoder.position
        instruction = decoder.decode()
        if not instruction.is_invalid:
            yield offset, instruction


@pytest.mark.parametrize("name", sorted(binaries()))
def test_real_binaries(name: str) -> None:
    path = binaries()[name]
    if path is None:
        pytest.skip(f"{name} is not on this machine")
    address, code = text_of(path)
    if not code:
        pytest.skip(f"{path} has no x86-64 .text")
    seen: set[bytes] = set()
    found = []
    for offset, instruction in instructions(code, address):
        octets = code[offset : offset + len(instruction)]
        if octets not in seen:
            seen.add(octets)
            found.append(difference(code, offset, instruction))
    differences = [text for text in found if text]
    assert not differences, f"{path}: {len(differences)} of {len(found)}\n" + "\n".join(differences[:20])
    if len(code) >= 4096:
        assert len(found) > 500


def test_sweep_stays_in_step_with_iced() -> None:
    """Over code without what hvcore leaves out, sweep() and iced find the same borders."""
    code = bytes.fromhex(
        "f30f1efa 4154 55 4889fd 53 4883ec20 64488b042528000000 4889442418 31c0 f20f1005aabbccdd 660fefc0 f30f6f4710"
        "0f114424f8 c4e2f8f2d1 c4e3fbf0d105 f3480fb8c1 480fbae03f f0480fb14d00 e800000000 0f84f0ffffff 5b 5d 415c c3"
    )
    decoder = iced_x86.Decoder(64, code, ip=0)
    theirs = [(int(i.ip), len(i), MNEMONICS[i.mnemonic]) for i in decoder]
    ours = list(sweep(code))
    assert [item[:2] for item in ours] == [item[:2] for item in theirs]
    assert [item[2] for item in ours] == [item[2] for item in theirs]


# --- random bytes ----------------------------------------------------------------------------------------------------

_LEGACY = (0x66, 0xF2, 0xF3, 0xF0, 0x67, 0x64, 0x65, 0x2E, 0x26, 0x36, 0x3E)


def random_code(rng: random.Random) -> bytes:
    """Bytes that are an instruction more often than noise is."""
    prefixes = b""
    while rng.random() < 0.35:
        prefixes += bytes([rng.choice(_LEGACY)])
    if rng.random() < 0.4:
        prefixes += bytes([0x40 | rng.randrange(16)])
    vex = bytes([0xC4, rng.randrange(8) << 5 | rng.randrange(1, 4), rng.choice((0x78, rng.randrange(256)))])
    escape = rng.choices((b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a", vex), (25, 50, 10, 5, 10))[0]
    return (prefixes + escape + rng.randbytes(20))[:20]


def test_random_bytes() -> None:
    rng = random.Random(RANDOM_SEED)
    differences = []
    both = 0
    for _ in range(RANDOM_STRINGS):
        code = random_code(rng)
        instruction = iced_x86.Decoder(64, code, ip=0).decode()
        ours = decode_instruction(code)
        if instruction.is_invalid:
            if ours.valid and ours.mnemonic not in ONLY_HVCORE:
                differences.append(f"{code[: ours.length].hex(' ')}: invalid, hvcore says {ours.mnemonic}")
        else:
            both += ours.valid
            text = difference(code, 0, instruction)
            differences += [text] if text else []
    print(f"seed {RANDOM_SEED}: {RANDOM_STRINGS} strings, {both} valid for both")
    assert both > RANDOM_STRINGS // 4
    assert not differences, f"{len(differences)}\n" + "\n".join(differences[:30])


# --- what must be invalid --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("f0 01 c0", "LOCK with a register as target"),
        ("f0 8b 00", "LOCK on a load"),
        ("f0 39 00", "LOCK on a comparison"),
        ("f0 0f a3 00", "LOCK on a bit test"),
        ("f0 90", "LOCK on nothing"),
        ("f0 0f b6 00", "LOCK on a move"),
        ("66 c4 e2 f8 f2 d1", "66 before VEX"),
        ("f2 c4 e2 f8 f2 d1", "F2 before VEX"),
        ("f3 c4 e2 f8 f2 d1", "F3 before VEX"),
        ("f0 c4 e2 f8 f2 11", "LOCK before VEX"),
        ("48 c4 e2 f8 f2 d1", "REX before VEX"),
        ("c4 e3 eb f0 d1 05", "RORX with VEX.vvvv other than 1111"),
        ("c4 e2 fc f2 d1", "VEX.L of ANDN"),
        ("c4 e3 ff f0 d1 05", "VEX.L of RORX"),
        ("c5 f8 77", "AVX"),
        ("c5 f0 58 c1", "AVX"),
        ("62 f1 7c 48 58 c0", "EVEX"),
        ("8f e9 78 81 c0", "XOP"),
        ("06", "PUSH ES"),
        ("27", "DAA"),
        ("60", "PUSHA"),
        ("9a 00 00 00 00 00 00", "far CALL with an immediate"),
        ("ea 00 00 00 00 00 00", "far JMP with an immediate"),
        ("d4 0a", "AAM"),
        ("d9 e8", "x87"),
        ("0f 77", "MMX"),
        ("8d c0", "LEA of a register"),
        ("0f c7 c8", "CMPXCHG8B of a register"),
        ("8e c8 90", None),
    ],
)
def test_invalid(code: str, why: str | None) -> None:
    decoded = decode_instruction(bytes.fromhex(code) + bytes(16))
    assert decoded.valid == (why is None), why


def test_fifteen_bytes_are_the_limit() -> None:
    assert decode_instruction(b"\x66" * 13 + b"\x01\xc0").length == 15
    decoded = decode_instruction(b"\x66" * 14 + b"\x01\xc0")
    assert not decoded.valid
    assert not decoded.truncated


def test_every_reason_is_still_needed() -> None:
    """The lists above must not keep what has been fixed: one example of each."""
    examples = {
        "pause": "f3 41 90",
        "jecxz": "67 e3 00", "sysret": "0f 07", "cldemote": "0f 1c 00", "prefetchit0": "0f 18 3d 00 00 00 00",
        "prefetchit1": "0f 18 35 00 00 00 00", "rdsspd": "f3 0f 1e c8", "rdsspq": "f3 48 0f 1e c8",
        "vmgexit": "f3 0f 01 d9", "wbnoinvd": "f3 0f 09",
    }  # fmt: skip
    for name, code in examples.items():
        octets = bytes.fromhex(code)
        assert MNEMONICS[iced_x86.Decoder(64, octets, ip=0).decode().mnemonic] == name
        assert decode_instruction(octets).mnemonic == OTHER_NAMES[name][0]
