"""llvm-mc on what iced-x86 does not know: APX, AVX10.2, MOVRS, USER_MSR, MSR_IMM, the newer AMX.

Every form is encoded at least once, at random, and LLVM's text must say the same: mnemonic, length, operands, masks.
Around those encodings bits are turned over: what is valid for us must be the same instruction for LLVM, and what is
not must not be one for LLVM, but for what is listed here.
"""

from __future__ import annotations

import random
import re

import pytest

from hvcore._native.decoder import FORM_FEATURES
from hvcore._native.instructions import Instruction, decode_one
from hvcore._native.isa import forms
from tests.decode import encoder, llvm
from tests.decode.beyond_iced import FEATURES, is_form_beyond_iced

if llvm.program() is None:
    pytest.skip(f"no llvm-mc of version {llvm.OLDEST} or later (docs/development.md says where to get one)",
                allow_module_level=True)

SEED = 1042
ENCODINGS = 2
"""Of each form."""
PREFIXES = bytes.fromhex("26 2E 36 3E 64 65 66 67 F0 F2 F3")
MUTATIONS = 6000
WITHOUT = frozenset(("ace_1", "amx_tf32", "amx_transpose", "avx512_bmm"))
"""LLVM has not got the first three; of the last it takes masks and broadcasts that AMD's manual has not got."""
SWAPPED = frozenset((("urdmsr", 0xF8), ("vmovd", 0xD6), ("vmovw", 0x7E)))
"""LLVM prints two registers in the wrong order; ModRM.rm is the destination (XED, binutils)."""


def is_unknown(code: bytes, form: forms.Form) -> bool:
    """A form that LLVM has not got, or that has an alias of the opcode that LLVM has not got."""
    row = form.row
    if row.mnemonic in ("urdmsr", "uwrmsr") and code[0] in (0x66, 0x67):
        return True
    return bool(row.features & WITHOUT or row.mnemonic in ("udb", "sal")
                or (row.digit == 1 and ("SCC" in row.extras or row.mnemonic == "test"))
                or (row.mnemonic == "imulzu" and row.extras["NF"]))


def is_scaled(code: bytes, form: forms.Form) -> bool:
    """LLVM scales the displacement of one byte of EVEX SETcc by 16; instructions of map 4 have none to scale (XED)."""
    return form.row.mnemonic.startswith("set") and form.row.space == "EVEX" and code[code.index(0x62) + 5] >> 6 == 1


def for_llvm(code: bytes, form: forms.Form) -> bytes:
    """The same instruction without bits that are ignored and that LLVM takes notice of.

    LLVM 24 adds 16 to vector registers in ModRM.rm by B4, sees a base register in SIB where mod = 0 and the base field
    is 5 if B4 is set, and wants W = 0, L'L = 0 and b = 0 in some instructions that ignore them."""
    at = next(at for at, byte in enumerate(code) if byte not in PREFIXES)
    changed = bytearray(code)
    is_evex = code[at] == 0x62
    modrm = at + (5 if is_evex else 3)
    if form.row.has_modrm and code[at] in (0x62, 0xD5):
        mod, rm = code[modrm] >> 6, code[modrm] & 7
        vector = any(operand.place == "RM" and operand.register_base != 0 for operand in form.operands)
        if (mod == 3 and vector) or (mod == 0 and rm == 4 and code[modrm + 1] & 7 == 5):
            changed[at + 1] &= ~8 if is_evex else ~0x10
    if is_evex and "norounding" in form.row.attributes and code[modrm] >= 0xC0:
        changed[at + 3] &= 0xEF
    if is_evex and form.row.w is None and not {operand.source.width for operand in form.operands} & set("vyz"):
        changed[at + 2] &= 0x7F
    if is_evex and form.row.lengths is None and not code[at + 3] & 0x10:
        changed[at + 3] &= 0x9F
    return bytes(changed)


def compare(found: list[tuple[bytes, Instruction, forms.Form]]) -> list[str]:
    """What LLVM says otherwise about valid instructions."""
    wrong = []
    theirs = llvm.first([for_llvm(code, form) for code, _, form in found])
    for (code, ours, form), other in zip(found, theirs, strict=True):
        if is_unknown(code, form):
            continue
        if other is None:
            wrong.append(f"{code.hex()} {ours.text}: LLVM knows no such instruction")
            continue
        length, text = other
        mine, their = llvm.read(ours.text, len(code)), llvm.read(text, len(code))
        if is_scaled(code, form):
            continue
        if (ours.mnemonic, form.row.opcode) in SWAPPED and {one[0] for one in their.operands} == {"register"}:
            their = llvm.Reading(their.mnemonic, their.notes, their.operands[::-1])
        differ = llvm.differences(mine, their)
        if length != len(code) or differ:
            wrong.append(f"{code.hex()} {ours.text}: LLVM says {text}, {length} bytes; {'; '.join(differ)}")
    return wrong


def valid_encodings(form: forms.Form, rng: random.Random, count: int) -> list[tuple[bytes, Instruction, forms.Form]]:
    """Up to `count` encodings that hvcore decodes as this form."""
    found: list[tuple[bytes, Instruction, forms.Form]] = []
    for _ in range(800):
        code = encoder.encode(form, rng)
        ours = decode_one(code + llvm.PADDING * 15)
        if ours.valid and ours.form == form.number and ours.length == len(code):
            found.append((code, ours, form))
            if len(found) == count:
                break
    return found


@pytest.fixture(scope="module")
def encodings() -> list[tuple[bytes, Instruction, forms.Form]]:
    """Each form that is beyond iced, a few times."""
    rng = random.Random(SEED)
    found = []
    for form in encoder.all_forms():
        if is_form_beyond_iced(form):
            some = valid_encodings(form, rng, ENCODINGS)
            assert some, f"no encoding of {form.row.mnemonic}, x64.txt:{form.row.line}, was found (seed {SEED})"
            found += some
    return found


def test_every_form_beyond_iced_reads_the_same(encodings: list[tuple[bytes, Instruction, forms.Form]]) -> None:
    wrong = compare(encodings)
    assert not wrong, f"seed {SEED}: {len(wrong)} of {len(encodings)}\n" + "\n".join(wrong[:40])
    assert len({form.number for _, _, form in encodings}) > 2000


NAMED_BY_ICED = re.compile(r"xchg|lkgs|(nop|prefetch\w+) .*|ud0|vp2intersect[dq]|(jmp|call) far|(push|pop) r\d+w$")
"""Our lines read as iced's would; LLVM has another order of operands, other registers or names, or no such hint. And
it forgets 66 in front of REX2 PUSH and POP."""
EXTENDED = re.compile(r"\br(1[6-9]|2\d|3[01])[bwd]?\b")


def is_general(form: forms.Form, code: bytes) -> bool:
    """Whether LLVM can judge REX2 here: it adds R4 to vector registers too, and reads 66 F3, 66 F2 and 66 W in its own
    way."""
    if form.row.prefix == "66" and form.row.w is None:
        return False
    of_other_kinds = any(operand.place in ("REG", "RM") and operand.register_base for operand in form.operands)
    return not of_other_kinds and not (0x66 in code[:3] and {0xF2, 0xF3} & set(code[:3]))


def test_registers_16_to_31_in_other_instructions() -> None:
    """REX2 with general registers, and EVEX instructions that were there before APX, with bit 4 of registers set."""
    rng = random.Random(SEED + 1)
    found = []
    for form in encoder.all_forms():
        row = form.row
        if row.features & FEATURES or row.space not in ("", "EVEX"):
            continue
        found += [one for one in valid_encodings(form, rng, 1)
                  if EXTENDED.search(one[1].text) and not NAMED_BY_ICED.match(one[1].text)
                  and (row.space or is_general(form, one[0]))]
    wrong = compare(found)
    assert len(found) > 400
    assert not wrong, f"seed {SEED + 1}: {len(wrong)} of {len(found)}\n" + "\n".join(wrong[:40])


def test_mutations(encodings: list[tuple[bytes, Instruction, forms.Form]]) -> None:
    """One bit turned over: still LLVM's instruction, or none for both."""
    rng = random.Random(SEED + 2)
    by_number = {form.number: form for form in encoder.all_forms()}
    valid, invalid = [], []
    for _ in range(MUTATIONS):
        code = rng.choice(encodings)[0]
        bit = rng.randrange(8 * min(len(code), 8))
        octets = bytearray(code)
        octets[bit >> 3] ^= 1 << (bit & 7)
        ours = decode_one(bytes(octets) + llvm.PADDING * 15)
        if not ours.valid:
            invalid.append(bytes(octets))
        elif FEATURES & set(FORM_FEATURES[ours.form].split()) and ours.length <= 15:
            valid.append(((bytes(octets) + llvm.PADDING * 15)[: ours.length], ours, by_number[ours.form]))
    wrong = compare(valid)
    assert not wrong, f"seed {SEED + 2}: {len(wrong)} of {len(valid)}\n" + "\n".join(wrong[:40])
    theirs = llvm.disassemble([code + llvm.PADDING * 15 for code in invalid])
    taken = [(code, lines[0]) for code, lines in zip(invalid, theirs, strict=True) if lines]
    again = llvm.assemble([PREFIX_WORDS.sub("", text) for _, text in taken])
    wrong = [f"{code.hex()} {text}: {why}" for (code, text), octets in zip(taken, again, strict=True)
             if (why := why_too_much(code, text, octets))]
    assert not wrong, f"seed {SEED + 2}: {len(wrong)} of {len(invalid)}\n" + "\n".join(wrong[:40])


PREFIX_WORDS = re.compile(rf"\b({'|'.join(llvm.PREFIXES)}) ")
BUGS = tuple(map(re.compile, (
    r"{k0} {z}",                                                # zeroing without a mask
    r"^(67)?62..[0-7][0-9a-f]...*bf16 [xyz]mm.*[xyz]mm\d+$",    # U = 0 once meant rounding of 256 bits
    r"{nf} (sh|ro|rc|sa)[lr] r\w+, \w+$",                       # 66 and W: a register more than there are operands
    r"(vcvtt|vmin|vmax).* [xy]mm.*{sae}",
    r" j\w+ -?0x",                                               # REX2 in front of Jcc; the target is none in assembly
    r"(push|pop)2p? (.*\brsp|(\w+), \3$)",                       # RSP, or a register popped twice
    r"tdp\w+ .*(tmm\d).*\1",                                    # tiles that should differ
    r"vbmacx?or.*{k\d}",                                        # AMD's manual has no mask
    r"vbmacx?or.*\[",                                           # and no L'L = 2 of memory
)))
"""Bytes and text of what LLVM 24 makes of bytes that are no instruction, and does not assemble."""


def why_too_much(code: bytes, text: str, again: bytes | None) -> str:
    """LLVM overlooks reserved bits: what it makes of bytes that are no instruction must be one of ours when assembled
    as it should be, in other bytes. What is wrong if that is not so."""
    if any(bug.search(f"{code.hex()} {text}") for bug in BUGS):
        return ""
    if again is None:
        return "LLVM does not assemble it"
    ours = decode_one(again + llvm.PADDING)
    if not ours.valid:
        return f"assembled: {again.hex()}, invalid for hvcore"
    return "; ".join(llvm.differences(llvm.read(ours.text, len(again)), llvm.read(text, len(again))))
