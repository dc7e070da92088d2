"""Reads `x64.txt`, the table of the instruction set, into typed rows; the notation is explained at its head.

Used by the build (`generate.py`) and by tests that want to know which rows exist. Every complaint names the line.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import notation
from .features import CONDITION_FLAGS, COUNTED, FEATURES, FLAG_BITS, FLAG_EFFECTS, FLOWS, IMPLICIT, WORDS

TABLE = Path(__file__).with_name("x64.txt")
CONDITIONS = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")
SOURCE_CONDITIONS = (*CONDITIONS[:10], "t", "f", *CONDITIONS[12:])
"""Of CCMPscc and CTESTscc: always and never where the others have parity."""
MAPS = {"0F": 1, "0F38": 2, "0F3A": 3, **{f"MAP{number:X}": number for number in range(4, 11)}}
LENGTHS = {"L0": (0,), "L1": (1,), "L2": (2,), "L01": (0, 1), "L12": (1, 2), "L012": (0, 1, 2), "LIG": None, "LZ": (0,)}
SPACES = ("VEX", "EVEX", "XOP")
CHOICES = ("ND", "NF", "SCC")
SHAPES = re.compile(r"int|tail|f?[vr]{1,2}i?|fcmp|vi|-")
Operand = notation.Operand
FIXED = notation.FIXED


class TableError(Exception):
    """A row that cannot be understood: file, line and what was expected."""


@dataclass(frozen=True)
class Row:
    """One line of the table: an instruction at every operand size and vector length that it has."""

    line: int
    prefix: str = ""                # "", "NP", "66", "F3", "F2"
    space: str = ""                 # "", "VEX", "EVEX", "XOP", "3DNOW"
    map: int = 0                    # 0 one-byte, 1 0F, 2 0F38, 3 0F3A, 4 .. 10 as VEX, EVEX and XOP number them
    lengths: tuple[int, ...] | None = None      # vector lengths 128 << n; None: ignored
    opcode: int = -1
    opcode_register: bool = False   # the low three bits of the opcode name a register
    digit: int | None = None        # ModRM.reg as opcode extension
    has_modrm: bool = False
    mode: str = ""                  # "", "reg", "mem"
    rm: int | None = None           # ModRM.rm as opcode extension
    fixed_modrm: int | None = None
    w: int | None = None
    size: int | None = None         # only at this operand size
    address: int | None = None      # only at this address size
    rex_b: int | None = None        # only with this REX.B
    extras: Mapping[str, int] = field(default_factory=dict)     # values of ND NF SCC
    choices: frozenset[str] = frozenset()       # which of them are free: the line stands for a row of each value
    mnemonic: str = ""
    operands: tuple[Operand, ...] = ()
    semantic: str = "-"
    shape: str = "-"
    handled: tuple[str, ...] = ()   # access of the operands as the semantic function sees it
    flags: Mapping[str, str] = field(default_factory=dict)
    attributes: frozenset[str] = frozenset()
    features: frozenset[str] = frozenset()
    conditional: Mapping[str, int] = field(default_factory=dict)    # features at this length or operand size only
    stack_accesses: int = 0
    implicit: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    flow: str = "next"
    condition: int | None = None

    def flag_mask(self, *effects: str) -> int:
        """RFLAGS bits with any of the effects r, w, u, 0, 1."""
        return sum(1 << FLAG_BITS[letter] for letter in set("".join(self.flags.get(e, "") for e in effects)))

    @property
    def seen(self) -> tuple[Operand, ...]:
        """The operands that handlers care for, with the access that the semantic function is bound by."""
        pairs = zip(self.operands, self.handled, strict=True)
        return tuple(replace(operand, access=access) for operand, access in pairs
                     if operand.kind not in ("X", "Y", "XB"))


def _encoding(row: Row, text: str) -> Row:
    """`row` with what the encoding column says. Raises ValueError with the token that is not understood."""
    for part in text.split():
        token, _, mode = part.partition(":")
        token, _, suffix = token.partition("+")
        if mode not in ("", "reg", "mem"):
            raise ValueError(part)
        before = row.opcode < 0 and row.map == 0
        space, _, length = token.partition(".")
        if token in ("NP", "66", "F3", "F2") and before and not row.prefix and not row.space:
            row = replace(row, prefix=token)
        elif space in SPACES and length in LENGTHS and before:
            row = replace(row, space=space, lengths=LENGTHS[length])
        elif token in ("W0", "W1"):
            row = replace(row, w=int(token[1]))
        elif token in ("o16", "o32", "o64"):
            row = replace(row, size=int(token[1:]))
        elif token in ("a16", "a32", "a64"):
            row = replace(row, address=int(token[1:]))
        elif token in ("B=0", "B=1"):
            row = replace(row, rex_b=int(token[2]))
        elif token in CHOICES:
            row = replace(row, choices=row.choices | {token})
        elif token == "REX2" and before and not row.space:
            row = replace(row, space="REX2")
        elif match := re.fullmatch(r"(ND|NF)([01])", token):
            row = replace(row, extras={**row.extras, match[1]: int(match[2])})
        elif token == "0F0F" and before:
            row = replace(row, space="3DNOW", has_modrm=True)
        elif token in MAPS and before:
            row = replace(row, map=MAPS[token])
        elif re.fullmatch("rm=[0-7]", token):
            row = replace(row, rm=int(token[3]))
        elif re.fullmatch("=[0-9A-F]{2}", token):
            row = replace(row, fixed_modrm=int(token[1:], 16), has_modrm=True)
        elif token == "/r":
            row = replace(row, has_modrm=True)
        elif re.fullmatch("/[0-7]", token):
            row = replace(row, has_modrm=True, digit=int(token[1:]))
        elif re.fullmatch("[0-9A-F]{2}", token) and row.opcode < 0 and suffix in ("", "r", "cc"):
            row = replace(row, opcode=int(token, 16), opcode_register=suffix == "r",
                          condition=0 if suffix == "cc" else None)
        else:
            raise ValueError(part)
        row = replace(row, mode=mode or row.mode)
    return row


def _access(text: str, count: int, where: str) -> list[str]:
    accesses = text.split(",") if text != "-" or count == 1 else ["-"] * count
    if len(accesses) != count:
        raise TableError(f"{where}: {count} operands, {len(accesses)} accesses")
    return accesses


def _attributes(row: Row, text: str) -> tuple[Row, str]:
    """`row` with what the attribute column says, and the access of its operands where that is an attribute.

    Raises ValueError with the word that is not understood."""
    words, features, implicit, conditional, access = set(), set(), {}, {}, ""
    for word in text.split(","):
        name, equals, value = word.partition("=")
        feature, _, at = word.removeprefix("=").partition("@")
        if name == "flow" and value in FLOWS:
            row = replace(row, flow=value)
        elif name in IMPLICIT and value:
            implicit[name] = tuple(value.split("." if name != "mem" else "+"))
        elif name == "access" and value:
            access = value.replace(".", ",")
        elif name in COUNTED and (not equals or value.isdigit()):
            words.add(name)
            row = replace(row, stack_accesses=int(value or 1))
        elif word in WORDS:
            words.add(word)
        elif feature in FEATURES and (not at or at.isdigit()):
            features.add(feature)
            if at or word.startswith("="):
                conditional[feature] = int(at or 0)
        elif word != "-":
            raise ValueError(word)
    return replace(row, attributes=frozenset(words), features=frozenset(features), conditional=conditional,
                   implicit=implicit), access


def _row(line: int, text: str) -> Row:
    where = f"{TABLE.name}:{line}"
    columns = [column.strip() for column in text.split("|")]
    if len(columns) == 5:
        columns[3:3] = ["-", "-"]
    if len(columns) != 7:
        raise TableError(f"{where}: 7 columns expected (5 without semantic and shape), {len(columns)} found")
    encoding, name, access, semantic, shape, flags, attributes = columns
    try:
        row = _encoding(Row(line), encoding)
    except ValueError as error:
        raise TableError(f"{where}: encoding token {str(error)!r} is not understood") from None
    if row.opcode < 0:
        raise TableError(f"{where}: no opcode")
    if not SHAPES.fullmatch(shape):
        raise TableError(f"{where}: shape {shape!r} is not understood")
    effects = dict(item.partition("=")[::2] for item in flags.split()) if flags != "-" else {}
    if effects.get("r") == "cc":
        effects["r"] = "" if row.condition is None else "cc"
    if not set("".join(effects.values())) <= set(FLAG_BITS) or not set(effects) <= set(FLAG_EFFECTS):
        raise TableError(f"{where}: flags {flags!r} are not understood")
    try:
        row, real_access = _attributes(row, attributes)
    except ValueError as error:
        raise TableError(f"{where}: attribute {str(error)!r} is not understood") from None
    mnemonic, _, operands = name.partition(" ")
    names = notation.split(operands)
    handled = _access(access, len(names), where)
    try:
        parsed = tuple(notation.operand(word, how)
                       for word, how in zip(names, _access(real_access or access, len(names), where), strict=True))
    except notation.NotationError as error:
        raise TableError(f"{where}: {error}") from None
    return replace(row, mnemonic=mnemonic, operands=parsed, semantic=semantic, shape=shape, flags=effects,
                   handled=tuple(handled))


def _of_conditions(row: Row) -> list[Row]:
    """A +cc line as sixteen rows."""
    if row.condition is None:
        return [row]
    return [replace(row, opcode=row.opcode + number, condition=number, mnemonic=row.mnemonic.replace("cc", name, 1),
                    flags={**row.flags, "r": CONDITION_FLAGS[number >> 1]} if "r" in row.flags else row.flags)
            for number, name in enumerate(CONDITIONS)]


def _of_source_conditions(row: Row) -> list[Row]:
    """A line with SCC as sixteen rows."""
    if "SCC" not in row.choices:
        return [row]
    return [replace(row, condition=number, mnemonic=row.mnemonic.replace("scc", name),
                    extras={**row.extras, "SCC": number},
                    flags={**row.flags, "r": "" if name in ("t", "f") else CONDITION_FLAGS[number >> 1]})
            for number, name in enumerate(SOURCE_CONDITIONS)]


def _of_choices(row: Row) -> list[Row]:
    """A line with ND or NF as its rows: with ND the result goes to a register of its own, with NF flags stay."""
    rows = [row]
    if "ND" in row.choices:
        first, *others = row.operands
        rows = [replace(row, extras={**row.extras, "ND": 0}),
                replace(row, extras={**row.extras, "ND": 1}, features=row.features | {"apx_nci_ndd_nf"},
                        operands=(Operand("B", first.width, "w"), replace(first, access="r"), *others),
                        handled=("w", "r", *row.handled[1:]))]
    if "NF" in row.choices:
        rows = [variant for one in rows for variant in (
            replace(one, extras={**one.extras, "NF": 0}),
            replace(one, extras={**one.extras, "NF": 1}, features=one.features | {"apx_nci_ndd_nf"}, flags={}))]
    if row.space == "EVEX" and "apx_f" in row.features:
        fixed = {"ND": 0} if "SCC" in row.choices else {"ND": 0, "NF": 0}
        rows = [replace(one, extras={**fixed, **one.extras}) for one in rows]
    return rows


def load(path: Path = TABLE) -> list[Row]:
    """All rows in table order, lines that stand for several written out. Raises TableError."""
    rows: list[Row] = []
    for line, text in enumerate(path.read_text().splitlines(), 1):
        if text.strip() and not text.startswith("#"):
            rows += [row for one in _of_conditions(_row(line, text)) for two in _of_source_conditions(one)
                     for row in _of_choices(two)]
    return rows
