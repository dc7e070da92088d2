"""iced-x86 as a second opinion on the decoder: over real binaries, and over random strings in every mode.

Longer runs: `python tests/decode/fuzz_iced.py --count 10000000`, and with `--binaries FILE ...` whole files.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

pytest.importorskip("iced_x86", reason="iced-x86 is not installed")

from hvcore._native.decoder import MNEMONICS, form_fields, sweep
from hvcore._native.instructions import decode_one

from .compare import CODES, Comparison, text_of
from .fuzz_iced import run

RANDOM_STRINGS = 200_000
RANDOM_SEED = 20240
MOST_INSTRUCTIONS = 100_000
"""Of one binary."""

FORMS_OF_SEVERAL_CODES = {
    "nop": "operand size means nothing", "jcxz": "the target is 16 bits or 32", "sldt": "memory is 16 bits always",
    "str": "memory is 16 bits always", "smsw": "memory is 16 bits always",
    "mov": "memory of a segment is 16 bits always",
    "lfence": "the low bits of ModRM mean nothing", "mfence": "so do they here", "sfence": "and here",
    "loop": "counts CX, ECX or RCX by address size", "loope": "the same", "loopne": "the same",
    "xstore": "counts in ECX or RCX", "sgdt": "stores all 32 bits of the base at either operand size",
    "sidt": "so does this",
}  # fmt: skip
"""Mnemonics of which one form of hvcore is several codes of iced, and why."""


def binaries() -> dict[str, Path | None]:
    """Programs and libraries that most machines have, by name; None where this one has not."""
    library = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib") / (sysconfig.get_config_var("LDLIBRARY") or "none")
    git, compiler = shutil.which("git"), shutil.which("gcc")
    found = {
        "python": Path(sys.executable).resolve(),
        "libpython": library,
        "libc": next(Path("/").glob("lib*/x86_64-linux-gnu/libc.so.6"), Path("/lib64/libc.so.6")),
        "libm": next(Path("/").glob("lib*/x86_64-linux-gnu/libm.so.6"), Path("/lib64/libm.so.6")),
        "libcrypto": next(Path("/").glob("usr/lib/x86_64-linux-gnu/libcrypto.so.3"), Path("none")),
        "git": Path(git) if git else Path("none"),
        "gcc": Path(compiler).resolve() if compiler else Path("none"),
    }
    return {name: path if path.is_file() else None for name, path in found.items()}


@pytest.mark.parametrize("name", sorted(binaries()))
def test_real_binaries(name: str) -> None:
    path = binaries()[name]
    if path is None:
        pytest.skip(f"{name} is not on this machine")
    address, code = text_of(path)
    if not code:
        pytest.skip(f"{path} has no x86-64 .text")
    comparison = Comparison()
    comparison.sweep(code, address, MOST_INSTRUCTIONS)
    assert not comparison.kinds, f"{path}: {comparison.kinds.total()}\n" + "\n".join(comparison.differences[:20])
    if len(code) >= 4096:
        assert comparison.valid > 500


def test_sweep_stays_in_step_with_iced() -> None:
    path = binaries()["libc"]
    if path is None:
        pytest.skip("libc is not on this machine")
    code = text_of(path)[1][:20_000]
    theirs = [(offset, instruction.len if not instruction.is_invalid else 1)
              for offset, instruction in Comparison().instructions(code, 0, 1 << 20)]
    ours = list(sweep(code))
    assert [item[:2] for item in ours[: len(theirs) - 2]] == theirs[: len(theirs) - 2]
    assert {item[2] for item in ours} <= set(MNEMONICS)


def test_random_strings() -> None:
    found = run(RANDOM_STRINGS, RANDOM_SEED)
    valid = sum(one.valid for one in found)
    print(f"seed {RANDOM_SEED}: {RANDOM_STRINGS} strings, {valid} valid for both")
    differences = [line for one in found for line in one.differences]
    assert valid > RANDOM_STRINGS // 2
    assert not differences, f"{len(differences)}\n" + "\n".join(differences[:30])
    for one in found:
        for form, codes in one.codes.items():
            name = MNEMONICS[form_fields(form)["mnemonic"]]
            assert len(codes) == 1 or name in FORMS_OF_SEVERAL_CODES, f"form {form}: {[CODES[code] for code in codes]}"


def test_what_is_known_to_differ() -> None:
    """The one encoding where iced is not followed: a processor exchanges the registers that REX.B names."""
    comparison = Comparison()
    code = bytes.fromhex("f34190")
    comparison.compare(code, 0, comparison.decoder(code).decode())
    assert comparison.known.total() == 1 and not comparison.kinds
    assert decode_one(code).mnemonic == "xchg"


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
        ("c5 f0 77", "VZEROUPPER with VEX.vvvv other than 1111"),
        ("62 f1 7c 68 58 c0", "EVEX.L'L = 3"),
        ("62 f0 7c 48 58 c0", "EVEX map 0"),
        ("62 f1 7c c8 58 c0", "zeroing without a mask"),
        ("62 f1 7c d9 29 00", "zeroing of memory"),
        ("62 f2 7d 08 92 04 00", "a gather without a mask"),
        ("8f e9 79 80 c0", "XOP with pp"),
        ("06", "PUSH ES"),
        ("27", "DAA"),
        ("60", "PUSHA"),
        ("9a 00 00 00 00 00 00", "far CALL with an immediate"),
        ("ea 00 00 00 00 00 00", "far JMP with an immediate"),
        ("d4 0a", "AAM"),
        ("8d c0", "LEA of a register"),
        ("0f c7 c8", "CMPXCHG8B of a register"),
        ("8e c8", "MOV to CS"),
        ("0f 22 c8", "MOV to CR1"),
        ("44 0f 23 c0", "MOV to DR8"),
    ],
)
def test_invalid(code: str, why: str) -> None:
    assert not decode_one(bytes.fromhex(code) + bytes(16)).valid, why


def test_fifteen_bytes_are_the_limit() -> None:
    assert decode_one(b"\x66" * 13 + b"\x01\xc0").length == 15
    decoded = decode_one(b"\x66" * 14 + b"\x01\xc0")
    assert not decoded.valid
    assert not decoded.truncated


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_cut_off(bits: int) -> None:
    """Every instruction, cut off anywhere, is truncated or invalid, never another one that is complete."""
    for code in ("62f17c48588c8811223344", "c4e37916841122334455667788", "48b81122334455667788", "0f0f4c1801b4",
                 "67a011223344", "66ea11223344", "c8112233", "f2480fc7"):  # fmt: skip
        octets = bytes.fromhex(code)
        whole = decode_one(octets, bits=bits)
        for length in range(1, whole.length if whole.valid else 1):
            cut = decode_one(octets[:length], bits=bits)
            assert cut.truncated, f"{octets[:length].hex()} ({bits}-bit)"


@pytest.mark.parametrize("arguments", [{"bits": 48}, {"vendor": "via"}, {"offset": 3}, {"offset": -1}])
def test_bad_arguments(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(arguments)))):
        decode_one(b"\x90\x90", **arguments)  # type: ignore[arg-type]
