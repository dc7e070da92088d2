"""Encodings derived from forms: bytes that the table says are a form, whatever the decoder makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from hvcore._native.isa import forms, native

SIZES = {16: 0, 32: 1, 64: 2}
VVVV, INDEX, MASK = 6, 5, 1
REGS = (2, 4, 3, 0, 1, 5, 6, 7)
"""Values of ModRM.reg and rm in the order of preference: CR2, SS and TR4 exist, and none is VVVV or INDEX."""


def values(mask: int, order: tuple[int, ...] = REGS) -> list[int]:
    return [value for value in order if mask >> value & 1]


def _displacement(mod: int, rm: int, base: int, address: int) -> bytes:
    if address == 0:
        return bytes(1) if mod == 1 else bytes(2) if mod == 2 or rm == 6 else b""
    if mod == 0 and rm != 5 and not (rm == 4 and base == 5):
        return b""
    return bytes(1 if mod == 1 else 4)


def _tail(form: forms.Form, mod: int, reg: int, rm: int, address: int) -> bytes:
    """ModRM, SIB, displacement and immediates; a register of an immediate is number 1."""
    row = form.row
    code = b""
    if row.has_modrm:
        code += bytes([mod << 6 | reg << 3 | rm])
        if mod != 3 and "registers" not in native.flags(form):
            if rm == 4 and address != 0:
                code += bytes([INDEX << 3 | 1])
            code += _displacement(mod, rm, 1, address)
    for operand in form.operands:
        if operand.place == "IS4":
            code += b"\x10"
        elif operand.place == "OFFSET":
            code += bytes(2 << address)
        elif operand.place == "FAR":
            code += bytes(operand.immediate_bytes + 2)
        else:
            code += bytes(operand.immediate_bytes)
    return code


def _lead(form: forms.Form, pp: int, w: int, has_66: int, length: int, b_register: int, has_b: int) -> bytes:
    """Prefixes, escape or payload, without the opcode; None of the registers is extended."""
    row, flags = form.row, native.flags(form)
    vvvv = VVVV if "vvvv" in flags else 0
    if row.space in ("VEX", "XOP"):
        lead = 0xC4 if row.space == "VEX" else 0x8F
        return bytes([lead, 0xE0 | row.map, w << 7 | (15 - vvvv) << 3 | length << 2 | pp])
    if row.space == "EVEX":
        mask = MASK if "mask_needed" in flags else 0
        return bytes([0x62, 0xF0 | row.map, w << 7 | (15 - vvvv) << 3 | 4 | pp, length << 5 | has_b << 4 | 8 | mask])
    code = b"\x66" if has_66 else b""
    code += {2: b"\xf3", 3: b"\xf2"}.get(pp, b"")
    if w or b_register:
        code += bytes([0x40 | w << 3 | b_register])
    return code + {"": (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")[row.map], "3DNOW": b"\x0f\x0f"}[row.space]


def encodings(form: forms.Form, root: int) -> Iterator[bytes]:
    """Bytes that match the form's condition in a mode, registers and memory by turns; the likeliest come first."""
    mode, _ = forms.ROOTS[root]
    when = form.when[root]
    if when is None:
        return
    fields = dict(zip(forms.FIELDS, when, strict=True))
    default = SIZES[mode]
    addresses = values(fields["address"], (default, {0: 1, 1: 0, 2: 1}[default]))
    legacy = form.row.space in ("", "3DNOW")
    for mod, address, pp, w66, b_register, reg, rm, length in product(
        values(fields["mod"], (0, 3)) if form.row.has_modrm else [0], addresses, values(fields["pp"], (0, 1, 2, 3)),
        values(fields["W66"], (0, 1, 2, 3)), values(fields["B"], (0, 1)),
        values(fields["reg"]) if form.row.has_modrm else [0],
        values(fields["rm"], (4, 3, 0, 1, 2, 5, 6, 7) if form.row.has_modrm else (0,)),
        values(fields["L"], (0, 1, 2)),
    ):  # fmt: skip
        has_66, w = w66 >> 1, w66 & 1
        if legacy and (pp == 1 and not has_66 or pp == 0 and has_66 or b_register and mode != 64):
            continue
        code = b"\x67" if address != default else b""
        code += _lead(form, pp, w, has_66, length, b_register, 0)
        if form.row.space != "3DNOW":
            code += bytes([form.row.opcode])
        code += _tail(form, mod, reg, rm, address)
        yield code + (bytes([form.row.opcode]) if form.row.space == "3DNOW" else b"")
