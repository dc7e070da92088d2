"""Reads `x64.txt`, the table of the instruction set, into typed rows; the letters are explained at its head.

Used by the build (`generate.py`) and by tests that want to know which forms exist. Every complaint names the line.
"""
from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

TABLE = Path(__file__).with_name("x64.txt")
CONDITIONS = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")
MAPS = {"0F": 1, "0F38": 2, "0F3A": 3}
VEX_MAPS = 4
KINDS = "EGZBIJOVWSCDRMU"
FIXED = {"AL": ("A", "b"), "AX": ("A", "w"), "rAX": ("A", "v"), "CL": ("CL", "b"), "DX": ("DX", "w"),
         "1": ("ONE", "b"), "FS": ("FS", ""), "GS": ("GS", "")}
SHAPES = re.compile(r"int|tail|f?[vr]{1,2}i?|fcmp|vi|-")
FLAG_BITS = {"c": 0, "p": 2, "a": 4, "z": 6, "s": 7, "i": 9, "d": 10, "o": 11}
FEATURES = frozenset(("adx", "bmi1", "bmi2", "cx16", "fxsr", "invpcid", "lzcnt", "movbe", "pku", "popcnt", "smap",
                      "sse", "sse2"))
ATTRIBUTES = FEATURES | {"lock", "d64", "f64", "cpl0", "aligned", "push", "pop", "rep", "load", "io"}
FLOWS = ("next", "jump", "branch", "call", "return", "interrupt", "end")


class TableError(Exception):
    """A row that cannot be understood: file, line and what was expected."""


@dataclass(frozen=True)
class Operand:
    """One operand: where it is (`kind`, a letter or a fixed name), how wide, and how it is accessed."""

    kind: str
    width: str
    access: str

    @property
    def reads(self) -> bool:
        return "r" in self.access

    @property
    def writes(self) -> bool:
        return "w" in self.access


@dataclass(frozen=True)
class Row:
    """One instruction form."""

    line: int
    prefix: str                     # "", "NP", "66", "F3", "F2"
    map: int                        # 0 one-byte, 1 0F, 2 0F38, 3 0F3A; VEX: + 4
    opcode: int
    opcode_register: bool           # the low three bits of the opcode name a register
    digit: int | None               # ModRM.reg as opcode extension
    has_modrm: bool
    mode: str                       # "", "reg", "mem"
    fixed_modrm: int | None
    w: int | None
    size: int | None                # only at this operand size
    rex_b_clear: bool
    mnemonic: str
    operands: tuple[Operand, ...]
    semantic: str
    shape: str
    flags: dict[str, str]
    attributes: frozenset[str]
    flow: str
    condition: int | None

    @property
    def features(self) -> frozenset[str]:
        return self.attributes & FEATURES

    def flag_mask(self, *effects: str) -> int:
        """RFLAGS bits with any of the effects r, w, u, 0, 1."""
        return sum(1 << FLAG_BITS[letter] for letter in set("".join(self.flags.get(e, "") for e in effects)))


def _operands(text: str, access: str, where: str) -> tuple[Operand, ...]:
    names = [name for name in text.split(",") if name]
    accesses = access.split(",") if access != "-" or len(names) == 1 else ["-"] * len(names)
    if len(names) != len(accesses):
        raise TableError(f"{where}: {len(names)} operands, {len(accesses)} accesses")
    operands = []
    for name, how in zip(names, accesses, strict=True):
        if how not in ("r", "w", "rw", "a", "-"):
            raise TableError(f"{where}: access {how!r} is none of r w rw a -")
        if name in FIXED:
            kind, width = FIXED[name]
        elif name[0] in KINDS:
            kind, width = name[0], name[1:]
        else:
            raise TableError(f"{where}: operand {name!r} has an unknown letter")
        operands.append(Operand(kind, width, how))
    return tuple(operands)


def _row(line: int, text: str) -> Row:
    where = f"{TABLE.name}:{line}"
    columns = [column.strip() for column in text.split("|")]
    if len(columns) != 7:
        raise TableError(f"{where}: 7 columns expected, {len(columns)} found")
    encoding, name, access, semantic, shape, flags, attributes = columns
    row = Row(line, "", 0, -1, False, None, False, "", None, None, None, False, "", (), semantic, shape, {},
              frozenset(), "next", None)
    vex = False
    for token in encoding.split():
        token, _, mode = token.partition(":")
        token, _, suffix = token.partition("+")
        if mode:
            row = replace(row, mode=mode)
        if token in ("NP", "66", "F3", "F2") and row.map == 0 and row.opcode < 0 and not row.prefix:
            row = replace(row, prefix=token)
        elif token in ("W0", "W1"):
            row = replace(row, w=int(token[1]))
        elif token in ("o16", "o32", "o64"):
            row = replace(row, size=int(token[1:]))
        elif token == "B=0":
            row = replace(row, rex_b_clear=True)
        elif token == "VEX.L0":
            vex = True
        elif token in MAPS and row.opcode < 0 and row.map == 0:
            row = replace(row, map=MAPS[token])
        elif re.fullmatch("=[0-9A-F]{2}", token):
            row = replace(row, fixed_modrm=int(token[1:], 16), has_modrm=True)
        elif token == "/r":
            row = replace(row, has_modrm=True)
        elif re.fullmatch("/[0-7]", token):
            row = replace(row, has_modrm=True, digit=int(token[1:]))
        elif re.fullmatch("[0-9A-F]{2}", token) and row.opcode < 0:
            row = replace(row, opcode=int(token, 16), opcode_register=suffix == "r",
                          condition=0 if suffix == "cc" else None)
        else:
            raise TableError(f"{where}: encoding token {token!r} is not understood")
    if row.opcode < 0:
        raise TableError(f"{where}: no opcode")
    if not SHAPES.fullmatch(shape):
        raise TableError(f"{where}: shape {shape!r} is not understood")
    mnemonic, _, operands = name.partition(" ")
    effects = dict(item.split("=") for item in flags.split()) if flags != "-" else {}
    if not set("".join(effects.values())) <= set(FLAG_BITS) or not set(effects) <= set("rwu01"):
        raise TableError(f"{where}: flags {flags!r} are not understood")
    words = set(attributes.split(",")) - {"-"}
    flow = next((word[5:] for word in words if word.startswith("flow=")), "next")
    words = {word for word in words if not word.startswith("flow=")}
    if not words <= ATTRIBUTES or flow not in FLOWS:
        raise TableError(f"{where}: attributes {attributes!r} are not understood")
    return replace(row, map=row.map + (VEX_MAPS if vex else 0), mnemonic=mnemonic,
                   operands=_operands(operands.strip(), access, where), flags=effects,
                   attributes=frozenset(words), flow=flow)


def load(path: Path = TABLE) -> list[Row]:
    """All rows in table order, the +cc ones written out. Raises TableError."""
    rows: list[Row] = []
    for line, text in enumerate(path.read_text().splitlines(), 1):
        if not text.strip() or text.startswith("#"):
            continue
        row = _row(line, text)
        if row.condition is None:
            rows.append(row)
            continue
        for number, condition in enumerate(CONDITIONS):
            rows.append(replace(row, opcode=row.opcode + number, condition=number,
                                mnemonic=row.mnemonic.removesuffix("cc") + condition))
    return rows
