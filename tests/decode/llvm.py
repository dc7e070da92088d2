"""llvm-mc as an oracle: disassembles byte strings, and reads its and our Intel text into the same facts.

HVCORE_LLVM_MC names the program; otherwise the newest on PATH is taken. docs/development.md says where to get one.
"""
from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

OLDEST = 20             # older ones lack parts of APX and all of AVX10.2
_END = "movabs rax, 0x5ca1ab1e0ddba11"
_END_BYTES = b"\x48\xB8" + (0x5CA1AB1E0DDBA11).to_bytes(8, "little")
PADDING = b"\xCC"
PREFIXES = frozenset("addr32 data16 rep repe repne lock rex64 bnd notrack xacquire xrelease".split())
"""Words in front of a mnemonic; LLVM prints them where they have no effect too."""


@dataclass(frozen=True)
class Reading:
    """What a line of a disassembler says, whatever its style."""

    mnemonic: str
    notes: frozenset[str]           # nf, dfv flags, mask, zeroing, rounding
    operands: tuple[tuple[object, ...], ...]


@cache
def program() -> tuple[str, int] | None:
    """Path and major version of the newest llvm-mc, if it is new enough."""
    names = [os.environ.get("HVCORE_LLVM_MC", "")] + [f"llvm-mc-{n}" for n in range(40, OLDEST - 1, -1)] + ["llvm-mc"]
    for name in names:
        path = shutil.which(name) if name else None
        if path is None:
            continue
        text = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60).stdout
        version = re.search(r"version (\d+)", text)
        if version and int(version[1]) >= OLDEST:
            return path, int(version[1])
    return None


def disassemble(codes: list[bytes]) -> list[list[str]]:
    """The lines of each byte string; a line list that stops early where bytes are no instruction."""
    found = program()
    assert found is not None
    lines = (",".join(f"{byte:#04x}" for byte in code) for code in codes)
    end = ",".join(f"{byte:#04x}" for byte in _END_BYTES)
    done = subprocess.run([found[0], "--disassemble", "--triple=x86_64", "--output-asm-variant=1", "--print-imm-hex"],
                          input="".join(f"[{line}]\n[{end}]\n" for line in lines), capture_output=True, text=True,
                          timeout=600, check=False)
    blocks: list[list[str]] = [[]]
    for line in done.stdout.splitlines():
        text = " ".join(line.split())
        if text == _END:
            blocks.append([])
        elif text and not text.startswith("."):
            blocks[-1].append(text)
    assert len(blocks) == len(codes) + 1, f"{len(codes)} byte strings, {len(blocks) - 1} blocks"
    return blocks[:-1]


def first(codes: list[bytes]) -> list[tuple[int, str] | None]:
    """(length, text) of the instruction that each byte string is, None for no instruction.

    A byte string must be one whole instruction, or none: what follows it is padding."""
    found: list[tuple[int, str] | None] = []
    for code, lines in zip(codes, disassemble([code + PADDING * 16 for code in codes]), strict=True):
        padding = 0
        while padding < len(lines) and lines[-1 - padding] == "int3":
            padding += 1
        whole = len(lines) - padding == 1
        found.append((len(code) + 16 - padding, lines[0]) if whole else None)
    return found


def assemble(lines: list[str]) -> list[bytes | None]:
    """The shortest encoding of each line of Intel syntax, None for what the assembler does not take."""
    found = program()
    assert found is not None
    source = "".join(f"line{at}:\n{line}\n" for at, line in enumerate(lines))
    done = subprocess.run([found[0], "--triple=x86_64", "--x86-asm-syntax=intel", "--show-encoding"], input=source,
                          capture_output=True, text=True, timeout=600, check=False)
    codes: list[bytes | None] = [None] * len(lines)
    at = 0
    for line in done.stdout.splitlines():
        if label := re.match(r"line(\d+):", line):
            at = int(label[1])
        elif octets := re.search(r"encoding: \[([0-9a-fx,]*)\]", line):
            codes[at] = bytes(int(octet, 16) for octet in octets[1].split(","))
    return codes


def _number(text: str) -> int:
    text = text.strip()
    sign = -1 if text.startswith("-") else 1
    text = text.lstrip("+-")
    value = int(text[:-1], 16) if text.endswith("h") else int(text, 16 if text.startswith("0x") else 10)
    return sign * value


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?(0x[0-9a-f]+|[0-9][0-9a-f]*h|[0-9]+)", text) is not None


def _memory(text: str, following: int) -> tuple[object, ...]:
    """`dword ptr fs:[rax + 8*rcx - 16]`: size word, segment, sum of registers and displacement.

    What is relative to RIP becomes an address; `following` is the one behind the instruction."""
    outer, _, rest = text.partition("[")
    inner = rest.rpartition("]")[0]
    words = outer.replace("ptr", " ").replace(":", ": ").split()
    segment = next((word for word in words if word in ("fs:", "gs:")), "")      # the others mean nothing in 64-bit mode
    size = next((word for word in words if not word.endswith(":")), "")
    registers, total = [], 0
    for term in re.sub(r"\s*([+-])\s*", r" \1", inner).split():
        sign, term = (-1, term[1:]) if term[0] == "-" else (1, term.lstrip("+"))
        if _is_number(term):
            total += sign * _number(term)
            continue
        left, star, right = term.partition("*")
        scale, name = (1, left) if not star else (int(left), right) if left.isdigit() else (int(right), left)
        if name in ("rip", "eip"):
            total = total + following
        elif name not in ("riz", "eiz"):
            registers.append((name, scale))
    width = 32 if re.search(r"\b(e[a-z]{2}|r\d+d)\b", inner) else 64
    return "memory", size, segment, tuple(sorted(registers)), total & (1 << width) - 1


def read(text: str, following: int = 0) -> Reading:
    """The facts of a line of Intel syntax, of LLVM's or ours."""
    notes = set()
    text = text.lower().partition("#")[0]
    for word in re.findall(r"\{([^}]*)\}", text):
        if word.startswith("dfv"):
            notes |= {f"dfv {flag.strip()}" for flag in word[4:].split(",") if flag.strip()} | {"dfv"}
        elif not word.startswith("1to") and word != "evex":
            notes.add(word.strip().replace("rne", "rn"))
    if re.match(r"vp?(gather|scatter)", text) and (mask := re.search(r",(k[1-7])\b", text)):
        notes.add(mask[1])                      # ours is an operand, as in iced
        text = text.replace(mask[0], "")
    words = re.sub(r"\{[^}]*\}", " ", text).split(maxsplit=1)
    while len(words) > 1 and words[0] in PREFIXES:
        words = words[1].split(maxsplit=1)
    operands: list[tuple[object, ...]] = []
    for part in re.split(r",(?![^\[]*\])", words[1]) if len(words) > 1 else []:
        part = part.strip()
        if "[" in part:
            operands.append(_memory(part, following))
        elif part and _is_number(part):
            operands.append(("number", _number(part)))
        elif part:
            operands.append(("register", part.split()[-1]))
    if words[0][0] == "f" and len(operands) == 2 and ("register", "st") in operands and "[" in text:
        operands.remove(("register", "st"))     # LLVM leaves it out
    return Reading(words[0].replace("movabs", "mov"), frozenset(notes), tuple(operands))


def _is_same(ours: tuple[object, ...], theirs: tuple[object, ...]) -> bool:
    """LLVM shows immediates signed; what has no size for one has a size for the other."""
    if ours[0] == theirs[0] == "number":
        mine, other = ours[1], theirs[1]
        assert isinstance(mine, int) and isinstance(other, int)
        return mine == other or (other < 0 and any(mine - other == 1 << bits for bits in (8, 16, 32, 64)))
    if ours[0] == theirs[0] == "memory":
        return ours[2:] == theirs[2:] and (ours[1] == theirs[1] or not ours[1] or not theirs[1])
    return ours == theirs


def differences(ours: Reading, theirs: Reading) -> list[str]:
    """What two readings of one instruction differ in."""
    found = [f"{name}: {mine} and {other}" for name, mine, other in (
        ("mnemonic", ours.mnemonic, theirs.mnemonic), ("notes", sorted(ours.notes), sorted(theirs.notes)))
        if mine != other]
    mine = list(ours.operands)
    if len(mine) == len(theirs.operands) + 1 and mine[-1] == ("number", 1):
        mine.pop()                      # a shift by 1
    if len(mine) != len(theirs.operands) or not all(map(_is_same, mine, theirs.operands)):
        found.append(f"operands: {mine} and {list(theirs.operands)}")
    return found
