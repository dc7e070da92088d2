"""hvcore's decoder and iced-x86 on the same bytes: validity, length, mnemonic, form, and every operand.

Registers, addresses and immediates are compared as numbers; what of them is text is the formatter's tests' business.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import iced_x86

from hvcore._native.decoder import MNEMONICS, decode_fields, form_fields
from tests.decode.beyond_iced import is_beyond_iced

NAMES = {value: name.lower() for name, value in vars(iced_x86.Mnemonic).items() if isinstance(value, int)}
CODES = {value: name for name, value in vars(iced_x86.Code).items() if isinstance(value, int)}
KINDS = {value: name for name, value in vars(iced_x86.OpKind).items() if isinstance(value, int)}
NONE, RIP = 255, 152
GENERAL = ("AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI")
PLACES = ("none", "reg", "rm", "vvvv", "opcode", "is4", "fixed", "immediate", "immediate2", "one", "target", "far",
          "offset", "source", "destination", "table")  # fmt: skip
"""Place of decode/spec.pxd."""
IMPLICIT_MEMORY = {"MASKMOVQ_RDI_MM_MM", "MASKMOVDQU_RDI_XMM_XMM", "VEX_VMASKMOVDQU_RDI_XMM_XMM"}
"""iced makes [rDI] their first operand; for the table, as for the manuals, it is implicit."""


def _registers() -> dict[int, int]:
    """iced's registers to hvcore's numbers (decode/spec.pxd, Register)."""
    names = {"NONE": NONE, "EIP": RIP, "RIP": RIP, **{f"{x}H": 148 + i for i, x in enumerate("ACDB")}}
    for i, name in enumerate(GENERAL):
        byte = f"{name[0]}L" if i < 4 else f"{name}L"
        names |= {name: i, f"E{name}": i, f"R{name}": i, byte: i}
    for i in range(8, 16):
        names |= {f"R{i}{suffix}": i for suffix in ("", "D", "W", "L")}
    for first, count, stems in ((32, 32, ("XMM", "YMM", "ZMM")), (64, 8, ("K",)), (72, 8, ("ST",)), (80, 8, ("MM",)),
                                (96, 16, ("CR",)), (112, 16, ("DR",)), (128, 8, ("TR",)), (136, 8, ("TMM",)),
                                (144, 4, ("BND",))):  # fmt: skip
        names |= {f"{stem}{i}": first + i for i in range(count) for stem in stems}
    names |= {name: 88 + i for i, name in enumerate(("ES", "CS", "SS", "DS", "FS", "GS"))}
    numbers = {name: value for name, value in vars(iced_x86.Register).items() if isinstance(value, int)}
    return {numbers[name]: number for name, number in names.items() if name in numbers}


REGISTERS = _registers()


def register_of(insn: dict[str, int], form: dict[str, Any], operand: int) -> int:
    """Number of the register that an operand is."""
    place, base, _, size = form["operands"][operand]
    if PLACES[place] == "fixed":
        return int(base)
    number = insn["rm" if PLACES[place] == "opcode" else PLACES[place]]
    if base == 0 and size == 0 and 4 <= number < 8 and not insn["prefixes"] & (32 | 64 | 128 | 256 | 512):
        return 144 + number
    return int(base) + number


def memory_differences(insn: dict[str, int], theirs: Any) -> list[str]:
    """Base, index, scale, displacement and segment of a ModRM operand."""
    displacement = theirs.memory_displacement
    bits = insn["address_size"]
    if insn["base"] == RIP:
        displacement -= theirs.next_ip
    ours = (insn["base"], insn["index"], 1 << insn["scale"] if insn["index"] != NONE else 1,
            insn["displacement"] & ((1 << bits) - 1))
    scale = theirs.memory_index_scale if theirs.memory_index else 1
    other = (REGISTERS[theirs.memory_base], REGISTERS[theirs.memory_index], scale, displacement & ((1 << bits) - 1))
    return [f"memory {ours} and {other}"] if ours != other else []


def operand_differences(insn: dict[str, int], theirs: Any) -> list[str]:
    """What the operands differ in."""
    form = form_fields(insn["form"])
    found: list[str] = []
    if CODES[theirs.code] in IMPLICIT_MEMORY:
        return []
    if len(form["operands"]) != theirs.op_count:
        return [f"{len(form['operands'])} operands and {theirs.op_count}"]
    for i in range(theirs.op_count):
        kind, place = KINDS[theirs.op_kind(i)], PLACES[form["operands"][i][0]]
        if kind == "REGISTER":
            if place == "rm" and insn["is_memory"]:
                found.append(f"operand {i} is memory and a register")
            elif (ours := register_of(insn, form, i)) != REGISTERS[theirs.op_register(i)]:
                found.append(f"operand {i} is register {ours} and {REGISTERS[theirs.op_register(i)]}")
        elif kind == "MEMORY":
            if place == "offset":
                if (insn["displacement"] - theirs.memory_displacement) & (1 << 64) - 1:
                    found.append("offset")
            elif place not in ("rm", "table") or (place == "rm" and not insn["is_memory"]):
                found.append(f"operand {i} is {place} and memory")
            elif place == "rm":
                found += memory_differences(insn, theirs)
        elif kind.startswith("IMMEDIATE"):
            width = int(kind.removeprefix("IMMEDIATE").split("TO")[-1].split("_")[0])
            value = 1 if place == "one" else insn["immediate2" if place == "immediate2" else "immediate"]
            if (value - theirs.immediate(i)) & ((1 << width) - 1):
                found.append(f"operand {i} is {value:#x} and {theirs.immediate(i):#x}")
        elif kind.startswith("NEAR"):
            mask = (1 << int(kind.removeprefix("NEAR_BRANCH"))) - 1
            if (theirs.next_ip + insn["immediate"] - theirs.near_branch_target) & mask:
                found.append(f"target {insn['immediate']:#x}")
        elif kind.startswith("FAR"):
            offset = theirs.far_branch32 if kind.endswith("32") else theirs.far_branch16
            if (insn["immediate2"], insn["immediate"]) != (theirs.far_branch_selector, offset):
                found.append("far pointer")
    if insn["mask"] != (theirs.op_mask - iced_x86.Register.K0 if theirs.op_mask else 0):
        found.append("mask")
    evex = (bool(insn["evex"] & 1), bool(insn["evex"] & 2))
    if evex != (theirs.zeroing_masking, theirs.is_broadcast):
        found.append("zeroing or broadcast")
    rounding = (1 + insn["rounding"] if insn["evex"] & 4 else 0, bool(insn["evex"] & 8))
    if rounding != (theirs.rounding_control, theirs.suppress_all_exceptions):
        found.append(f"rounding {rounding} and {theirs.rounding_control}, {theirs.suppress_all_exceptions}")
    return found


KNOWN = {"name xchg / PAUSE": "F3 90 with REX.B exchanges: hosts do, bddisasm and fadec agree for AMD, iced says PAUSE"}
"""Differences that are meant to be, and why."""


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


class Comparison:
    """Decodes with both and keeps what differs, what is known to differ apart."""

    def __init__(self, bits: int = 64, vendor: str = "intel") -> None:
        self.bits, self.vendor = bits, vendor
        self.options = iced_x86.DecoderOptions.AMD if vendor == "amd" else iced_x86.DecoderOptions.NONE
        self.differences: list[str] = []
        self.kinds: Counter[str] = Counter()
        self.known: Counter[str] = Counter()
        self.strings = self.valid = 0
        self.codes: defaultdict[int, set[int]] = defaultdict(set)
        self.forms: defaultdict[int, set[int]] = defaultdict(set)

    def decoder(self, code: bytes, ip: int = 0) -> Any:
        """iced's, in the same mode."""
        return iced_x86.Decoder(self.bits, code, self.options, ip=ip)

    def instructions(self, code: bytes, address: int, most: int) -> Iterator[tuple[int, Any]]:
        """Offset and instruction as iced sweeps over the code; behind an invalid byte it goes on at the next."""
        decoder = self.decoder(code, address)
        theirs = iced_x86.Instruction()
        offset = 0
        for _ in range(most):
            if offset >= len(code):
                return
            decoder.position, decoder.ip = offset, address + offset
            decoder.decode_out(theirs)
            yield offset, theirs
            offset += 1 if theirs.is_invalid else theirs.len

    def sweep(self, code: bytes, address: int, most: int) -> None:
        """Compare the first `most` instructions of a linear sweep, equal bytes once."""
        seen: set[bytes] = set()
        for offset, theirs in self.instructions(code, address, most):
            octets = code[offset : offset + (16 if theirs.is_invalid else theirs.len)]
            if octets not in seen:
                seen.add(octets)
                self.compare(code, offset, theirs)

    def compare(self, code: bytes, offset: int, theirs: Any) -> bool:
        """Compare the instruction at `offset` with iced's; whether it is one for both."""
        ours = decode_fields(code, offset=offset, bits=self.bits, vendor=self.vendor)
        self.strings += 1
        valid = ours["status"] == 0
        octets = code[offset : offset + (ours["length"] if theirs.is_invalid else theirs.len)]
        if theirs.is_invalid or not valid:
            if valid and is_beyond_iced(octets, ours, self.options):
                return False
            if valid != (not theirs.is_invalid):
                mine = MNEMONICS[form_fields(ours["form"])["mnemonic"]]
                self.note(octets, f"valid {mine} / invalid" if valid else f"invalid / {CODES[theirs.code]}")
            return False
        self.valid += 1
        self.codes[ours["form"]].add(theirs.code)
        self.forms[theirs.code].add(ours["form"])
        name = MNEMONICS[form_fields(ours["form"])["mnemonic"]]
        if ours["length"] != theirs.len:
            self.note(octets, f"length {ours['length']} / {CODES[theirs.code]}")
        elif name != NAMES[theirs.mnemonic]:
            self.note(octets, f"name {name} / {CODES[theirs.code]}")
        else:
            for text in operand_differences(ours, theirs):
                self.note(octets, f"{CODES[theirs.code]}: {text}")
        return True

    def note(self, octets: bytes, kind: str) -> None:
        """Remember a difference; examples of a kind are kept while they are few."""
        if kind in KNOWN:
            self.known[kind] += 1
            return
        self.kinds[kind] += 1
        if self.kinds[kind] <= 3 and len(self.differences) < 300:
            self.differences.append(f"{octets.hex(' ')} ({self.bits}-bit, {self.vendor}): {kind}")
