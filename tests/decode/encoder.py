"""Random encodings of a form of x64.txt: the bytes that its row asks for in a mode, everything else by chance."""
from __future__ import annotations

import random
from itertools import product

from hvcore._native.isa import forms, native, table

ROOT = forms.ROOTS.index((64, "intel"))
NAMES = tuple(forms.FIELDS)
ESCAPES = {0: b"", 1: b"\x0F", 2: b"\x0F\x38", 3: b"\x0F\x3A"}
PREFIXES = (b"", b"\x66", b"\xF3", b"\xF2")


def all_forms() -> list[forms.Form]:
    """Those of 64-bit mode on Intel's processors."""
    return [form for form in forms.load(table.load()) if form.when[ROOT] is not None]


def _mode(root: int) -> int:
    return forms.SIZES.index(forms.ROOTS[root][0])


def _fields(form: forms.Form, rng: random.Random, root: int) -> dict[str, int]:
    """A value for each field of the key that the form allows, pp and 66 in agreement."""
    cube = form.when[root]
    assert cube is not None
    allowed = {name: [value for value in range(1 << bits) if mask >> value & 1]
               for (name, bits), mask in zip(forms.FIELDS.items(), cube, strict=True)}
    pairs = [(pp, w66) for pp, w66 in product(allowed["pp"], allowed["W66"])
             if (pp == 1) <= bool(w66 & 2) and (pp == 0) <= (not w66 & 2) and (form.row.space in ("", "3DNOW", "REX2")
                                                                             or (pp == 1) == bool(w66 & 2))]
    found = {name: rng.choice(values) for name, values in allowed.items()}
    found["pp"], found["W66"] = rng.choice(pairs)
    usual = _mode(root)
    other = 0 if usual == 1 else 1
    if usual in allowed["address"]:
        found["address"] = usual if rng.random() < 0.9 or other not in allowed["address"] else other
    else:
        found["address"] = other
    if form.row.space == "EVEX" and "apx_f" not in form.row.features:
        found["ND"] = found["b"]
    return found


def _memory(rng: random.Random, mod: int, rm: int, address: int) -> bytes:
    """SIB and displacement behind a ModRM byte with these fields."""
    if address == 0:
        return rng.randbytes({0: 2 if rm == 6 else 0, 1: 1, 2: 2, 3: 0}[mod])
    sib = bytes((rng.randrange(256),)) if rm == 4 else b""
    size = {1: 1, 2: 4}.get(mod, 4 if rm == 5 or (rm == 4 and sib[0] & 7 == 5) else 0)
    return sib + rng.randbytes(size) if mod != 3 else b""


def _evex(form: forms.Form, field: dict[str, int], rng: random.Random, root: int) -> bytes:
    row = form.row
    extended = rng.random() < 0.5 and _mode(root) == 2
    high = rng.randrange(256) if extended else 0xFF
    has_vvvv = any(operand.place == "VVVV" for operand in form.operands)
    vvvv = rng.randrange(32 if _mode(root) == 2 else 8) if has_vvvv else 0
    b, low = field["b"], 0
    if "SCC" in row.extras:
        b, low, vvvv = 0, row.extras["SCC"] & 7 | (~row.extras["SCC"] & 8), rng.randrange(16)
        v_high = low & 8
    else:
        if "apx_f" in row.features:
            b, low = row.extras["ND"], row.extras["NF"] << 2
        elif any(operand.source.mask for operand in form.operands):
            low = rng.randrange(1, 8)
        v_high = 0 if vvvv & 16 else 8
    if "SCC" in row.extras:
        v_high = row.extras["SCC"] & 8
    u = 4 if field["mod"] == 3 or not extended else rng.choice((0, 4))
    zeroing = rng.choice((0, 0x80)) if low and any(o.source.mask == "zeroing" for o in form.operands) else 0
    first = (high & 0xF0) | (rng.choice((0, 8)) if extended else 0) | row.map
    second = (field["W66"] & 1) << 7 | (~vvvv & 15) << 3 | u | field["pp"]
    third = zeroing | field["L"] << 5 | b << 4 | v_high | (low & 7)
    return bytes((0x62, first, second, third))


def _vex(form: forms.Form, field: dict[str, int], rng: random.Random, root: int) -> bytes:
    vvvv = rng.randrange(16) if any(operand.place == "VVVV" for operand in form.operands) else 0
    lead = 0xC4 if form.row.space == "VEX" else 0x8F
    high = rng.choice((0xE0, rng.randrange(8) << 5)) if _mode(root) == 2 else 0xE0
    return bytes((lead, high | form.row.map,
                  (field["W66"] & 1) << 7 | (~vvvv & 15) << 3 | (field["L"] & 1) << 2 | field["pp"]))


def _legacy(form: forms.Form, field: dict[str, int], rng: random.Random, root: int) -> bytes:
    row, w = form.row, field["W66"] & 1
    lead = (b"\x66" if field["W66"] & 2 else b"") + (PREFIXES[field["pp"]] if field["pp"] > 1 else b"")
    if row.space == "REX2" or (row.map < 2 and row.space == "" and rng.random() < 0.5 and _mode(root) == 2):
        return lead + bytes((0xD5, row.map << 7 | rng.randrange(8) << 4 | w << 3 | rng.randrange(8)))
    rex = 0x40 | w << 3 | rng.randrange(8)
    if _mode(root) == 2 and (rex != 0x40 or rng.random() < 0.2):
        lead += bytes((rex,))
    return lead + (b"\x0F\x0F" if row.space == "3DNOW" else ESCAPES[row.map])


def encode(form: forms.Form, rng: random.Random, root: int = ROOT) -> bytes:
    """One encoding. Registers are random, so rules about them (forms' checks) may still make it invalid."""
    row, field = form.row, _fields(form, rng, root)
    code = b""
    if field["address"] != _mode(root) and (field["mod"] != 3 or not row.has_modrm or form.address_size):
        code = b"\x67"
    code += {"EVEX": _evex, "VEX": _vex, "XOP": _vex}.get(row.space, _legacy)(form, field, rng, root)
    opcode = bytes((row.opcode | (rng.randrange(8) if row.opcode_register else 0),))
    if row.space != "3DNOW":
        code += opcode
    if row.has_modrm:
        mod, reg, rm = field["mod"], field["reg"], field["rm"]
        code += bytes((mod << 6 | reg << 3 | rm,))
        if "registers" not in native.flags(form):
            code += _memory(rng, mod, rm, field["address"])
    code += rng.randbytes(sum(operand.immediate_bytes + 2 * (operand.place == "FAR") for operand in form.operands))
    if any(operand.place == "OFFSET" for operand in form.operands):
        code += rng.randbytes(2 << field["address"])
    return code + (opcode if row.space == "3DNOW" else b"")
