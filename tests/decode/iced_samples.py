"""Bytes for every Code of iced-x86, made from what its OpCodeInfo says about the encoding and checked with its decoder.

A Code gets up to four samples: registers and memory, without and with an EVEX mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import iced_x86 as iced

IP = {64: 0x401000, 32: 0x401000, 16: 0x1000}
CODES: dict[int, str] = {value: name for name, value in vars(iced.Code).items() if isinstance(value, int)}
_PREFIXES = {value: name for name, value in vars(iced.MandatoryPrefix).items() if isinstance(value, int)}
_TABLES = {value: name for name, value in vars(iced.OpCodeTableKind).items() if isinstance(value, int)}
_ENCODINGS = {value: name for name, value in vars(iced.EncodingKind).items() if isinstance(value, int)}
_MANDATORY = {"NONE": b"", "PNP": b"", "P66": b"\x66", "PF3": b"\xf3", "PF2": b"\xf2"}
_PP = {"NONE": 0, "PNP": 0, "P66": 1, "PF3": 2, "PF2": 3}
_ESCAPES = {"NORMAL": b"", "T0F": b"\x0f", "T0F38": b"\x0f\x38", "T0F3A": b"\x0f\x3a"}
_MAPS = {"NORMAL": 0, "T0F": 1, "T0F38": 2, "T0F3A": 3, **{f"MAP{number}": number for number in range(4, 11)}}
_TAIL = bytes([0x51]) + bytes(range(0x12, 0x12 + 12))
_SIB = bytes([0x4B])


def samples(bits: int, vendor: str = "intel") -> dict[int, list[bytes]]:
    """Instructions of each Code of a mode that iced decodes without further options."""
    found = {}
    for code in CODES:
        info = iced.OpCodeInfo(code)
        known = getattr(info, f"{vendor}_decoder{bits}") and info.decoder_option == iced.DecoderOptions.NONE
        if info.is_instruction and known and not info.fwait:        # FWAIT and another are two instructions to decoders
            found[code] = _samples(code, info, bits, vendor)
    return found


def decoder(octets: bytes, bits: int, vendor: str = "intel", ip: int | None = None) -> Any:
    """iced's decoder."""
    options = iced.DecoderOptions.AMD if vendor == "amd" else iced.DecoderOptions.NONE
    return iced.Decoder(bits, octets, options, ip=IP[bits] if ip is None else ip)


def _samples(code: int, info: Any, bits: int, vendor: str) -> list[bytes]:
    seen: dict[tuple[bool, bool], bytes] = {}
    for octets in _candidates(info, bits):
        instruction = decoder(octets, bits, vendor).decode()
        if instruction.code == code:
            kinds = [instruction.op_kind(number) for number in range(instruction.op_count)]
            seen.setdefault((iced.OpKind.MEMORY in kinds, instruction.has_op_mask), octets[: len(instruction)])
            if len(seen) == (4 if info.can_use_op_mask_register else 2):
                break
    return list(seen.values())


def _modrm(info: Any, bits: int) -> list[bytes]:
    """ModRM with what follows it, to try: registers, and memory with a base, with a SIB byte."""
    if info.op_code_len == 2:
        choices = [info.op_code & 0xFF]
    elif info.rm_group_index >= 0:
        choices = [0xC0 | max(info.group_index, 0) << 3 | info.rm_group_index]
    else:
        digit = info.group_index if info.group_index >= 0 else 2
        choices = [low | digit << 3 for low in (0xC1, 0x43, 0x44, 0x04)]
        if info.group_index < 0:
            choices += [0xC0 | digit << 3, 0xC4 | digit << 3, 0xC3 | digit << 3, 0xC3]
    found = []
    for modrm in choices:
        found.append(bytes([modrm]) + _TAIL)
        if modrm < 0xC0 and modrm & 7 == 4:
            found.append(bytes([modrm]) + _SIB + _TAIL)
    return found


def _candidates(info: Any, bits: int) -> Iterator[bytes]:
    encoding, table, mandatory = (_ENCODINGS[info.encoding], _TABLES[info.table], _PREFIXES[info.mandatory_prefix])
    opcode = info.op_code >> 8 if info.op_code_len == 2 else info.op_code
    rests = _modrm(info, bits)
    if encoding == "LEGACY":
        rexes = (b"", b"\x48", b"\x40", b"\x41") if bits == 64 else (b"",)
        for size, rex in product((b"", b"\x66", b"\x67", b"\x66\x67"), rexes):
            lead = size.replace(b"\x66", b"") if mandatory == "P66" else size
            start = lead + _MANDATORY[mandatory] + rex + _ESCAPES[table]
            for rest in rests:
                yield start + bytes([opcode]) + rest
            yield start + bytes([opcode]) + _TAIL
            yield start + bytes([opcode | 1]) + _TAIL
    elif encoding == "D3NOW":
        for rest in (b"\xc1", b"\x41\x51"):
            yield b"\x0f\x0f" + rest + bytes([opcode]) + _TAIL
            yield b"\x67\x0f\x0f" + rest + bytes([opcode]) + _TAIL
    else:
        yield from _with_payload(info, encoding, _MAPS[table], _PP[mandatory], opcode, rests)


def _with_payload(info: Any, encoding: str, number: int, pp: int, opcode: int, rests: list[bytes]) -> Iterator[bytes]:
    """VEX, XOP and EVEX."""
    for w, length, size, vvvv in product((0, 1) if info.is_wig else (info.w,), range(4), (b"", b"\x67"), (0xF, 0xD)):
        if encoding == "EVEX":
            for mask, rest in product((0, 1), rests):
                payload = bytes([0x62, 0xF0 | number, w << 7 | vvvv << 3 | 4 | pp, length << 5 | 8 | mask])
                yield size + payload + bytes([opcode]) + rest
        elif length < 2:
            lead = 0xC4 if encoding == "VEX" else 0x8F
            for rest in rests:
                yield size + bytes([lead, 0xE0 | number, w << 7 | vvvv << 3 | length << 2 | pp, opcode]) + rest
                yield size + bytes([lead, 0xE0 | number, w << 7 | vvvv << 3 | length << 2 | pp, opcode]) + \
                    rest[:2] + b"\x06" + rest[2:]
