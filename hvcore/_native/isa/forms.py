"""From rows to forms: a row at one operand size, one address size and one vector length, with its operands resolved.

A form knows which bytes are it: `when` gives, for each mode and vendor, the values that every field of the key may
have. nodes.py makes the decision nodes of that, native.py the records of the decoder, facts.py what people ask for.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from . import notation, table

FIELDS = {"rm": 3, "reg": 3, "mod": 2, "pp": 2, "L": 2, "W66": 2, "address": 2, "B": 1, "b": 1, "ND": 1, "NF": 1,
          "SCC": 4}
"""Parts of the key from bit 0 up, and their bits; decode/spec.pxd, KeyField, has the same. W66: W, and 66 present."""
ROOTS = tuple((mode, vendor) for vendor in ("intel", "amd") for mode in (16, 32, 64))
"""Modes and vendors in the order of the decoder's options."""
SPACES = {"": 0, "3DNOW": 4, "REX2": 5, "VEX": 8, "EVEX": 16, "XOP": 16}
SIZES = (16, 32, 64)
Cube = tuple[int, ...]

_PLACES = {"REG": ("G", "V", "P", "KG", "TG", "BG", "S", "C", "D", "TR"), "OPCODE": ("Z",), "IS4": ("L",),
           "RM": ("E", "R", "W", "U", "Q", "N", "M", "VM", "KE", "KR", "TE", "BE", "STi"),
           "VVVV": ("B", "H", "KB", "TB"), "OFFSET": ("O",), "IMMEDIATE": ("I",), "TARGET": ("J",), "FAR": ("FAR",),
           "ONE": ("ONE",), "SOURCE": ("X",), "DESTINATION": ("Y",), "TABLE": ("XB",)}
PLACES = {kind: place for place, kinds in _PLACES.items() for kind in kinds}
_CLASSES = {0: ("E", "G", "Z", "B", "R"), 32: ("V", "W", "U", "H", "L"), 64: ("KG", "KE", "KB", "KR"), 72: ("STi",),
            80: ("P", "Q", "N"), 88: ("S",), 96: ("C",), 112: ("D",), 128: ("TR",), 136: ("TG", "TE", "TB"),
            144: ("BG", "BE")}
CLASSES = {kind: first for first, kinds in _CLASSES.items() for kind in kinds}
_FIXED = {"A": 0, "CL": 1, "DX": 2, "ST": 72, "BSR0": 153, **{name: 88 + i for i, name in enumerate(notation.SEGMENTS)},
          **{name: i if i < 4 else 144 + i for i, name in enumerate(notation.BYTES)},
          **{prefix + name: i for i, name in enumerate(notation.GENERAL) for prefix in ("", "E", "R")},
          **{f"XMM{i}": 32 + i for i in range(8)}}
_REGISTER_BITS = {32: 128, 64: 64, 72: 80, 80: 64, 88: 16, 136: 8192, 144: 128, 152: 1024}
_WIDTHS = {"b": 8, "u": 8, "u2": 8, "4": 4, "w": 16, "d": 32, "q": 64, "dq": 128, "qq": 256, "oq": 512, "t": 80}
_FRACTIONS = {"x": 1, "h": 2, "f": 4, "e": 8}


@dataclass(frozen=True)
class Operand:
    """An operand of a form: where it is, and what it is at this size and length."""

    source: table.Operand
    place: str                      # a name of decode/spec.pxd's Place, without PLACE_
    register_base: int              # number of the first register of its class; of a fixed register: its number
    register_bits: int
    memory_bits: int                # 0: it cannot be memory
    immediate_bytes: int

    @property
    def can_be_memory(self) -> bool:
        return self.source.kind in ("E", "W", "Q", "M", "VM", "KE", "BE", "O", "X", "Y", "XB")


@dataclass(frozen=True)
class Form:
    """A row at one operand size, address size and vector length. Sizes are bits; 0 where the row has none."""

    number: int
    row: table.Row
    row_number: int
    operand_size: int
    address_size: int
    length: int | None              # vector length 128 << n; None: none, or ignored
    operands: tuple[Operand, ...]
    when: tuple[Cube | None, ...]   # of each root: allowed values of each field as bit masks, or None: not there
    row_when: tuple[Cube | None, ...]   # the same of all forms of the row together


def table_index(row: table.Row) -> int:
    """Number of the opcode table that the row is in (decode/spec.pxd, Space)."""
    return SPACES[row.space] + row.map


def letters_of(row: table.Row) -> set[str]:
    """The width letters of all operands."""
    return {letter for operand in row.operands for letter in (operand.width, operand.register_width)}


def is_sized(row: table.Row) -> bool:
    """Whether there is a form for each operand size."""
    return bool(row.size is not None or row.attributes & {"d64", "f64", "push", "pop"}
                or {"v", "y", "z", "p"} & letters_of(row))


def effective_size(row: table.Row, mode: int, vendor: str, has_w: bool, has_66: bool) -> int:
    """Operand size in bits under these prefixes."""
    letters = letters_of(row)
    if "y" in letters and not letters & {"v", "z", "p"} and row.size is None:
        return 64 if mode == 64 and has_w else 32
    if mode != 64:
        return 16 if has_66 == (mode == 32) else 32
    if "f64" in row.attributes:
        return 16 if vendor == "amd" and has_66 and not has_w and "amd16" in row.attributes else 64
    if has_w:
        return 32 if vendor == "amd" and "amd32" in row.attributes else 64
    if has_66:
        return 16
    return 64 if "d64" in row.attributes else 32


def _size_mask(row: table.Row, size: int, root: tuple[int, str]) -> int:
    """Allowed values of (W, 66) as a bit mask."""
    mask = 0
    for value in range(4):
        has_w, has_66 = bool(value & 1), bool(value & 2)
        if row.w is not None and has_w != row.w and not ("wig32" in row.attributes and root[0] != 64):
            continue
        if (row.space == "" and has_w and root[0] != 64) or ("no66" in row.attributes and has_66):
            continue
        if not size or effective_size(row, *root, has_w, has_66) == size:
            mask |= 1 << value
    return mask


def _modrm_masks(row: table.Row) -> tuple[int, int, int]:
    kinds = {operand.kind for operand in row.operands}
    if row.fixed_modrm is not None:
        return 1 << (row.fixed_modrm & 7), 1 << (row.fixed_modrm >> 3 & 7), 8
    modes = {"": 15, "mem": 7, "reg": 8}[row.mode]
    if kinds & {"M", "VM"}:
        modes &= 7
    if kinds & {"R", "U", "N", "KR", "STi"} or {"TE", "TB"} <= kinds:
        modes &= 8
    if kinds & {"C", "D", "TR"}:
        modes = 15                      # ModRM.mod is ignored: it always names a register
    return 255 if row.rm is None else 1 << row.rm, 255 if row.digit is None else 1 << row.digit, modes


def cube(row: table.Row, size: int, address: int, lengths: tuple[int, ...] | None,
         root: tuple[int, str]) -> Cube | None:
    """What the key must be like in one mode for these sizes (0, None: any); None if it does not exist there."""
    mode, vendor = root
    words = row.attributes
    if {16: "only64", 32: "only64", 64: "not64"}[mode] in words:
        return None
    if {"intel": "amd", "amd": "intel"}[vendor] in words and ("intel" in words) != ("amd" in words):
        return None
    rm, reg, mod = _modrm_masks(row) if row.has_modrm else (255, 255, 15)
    prefixes = {"": 15, "NP": 1, "66": 2, "F3": 4, "F2": 8}[row.prefix]
    if row.space == "EVEX" and row.map == 4 and not row.prefix:
        prefixes = 3                    # APX: 66 is an operand size, as it was before EVEX
    if "norep" in words:
        prefixes &= 3
    addresses = 7 if not address else 1 << SIZES.index(address)
    ignored = 7 if row.space == "EVEX" else 15
    allowed = ignored if lengths is None else sum(1 << length for length in lengths)
    # 66 is there if pp says so, and for instructions that F2 and F3 may hide it from.
    hides_66 = row.space in ("", "3DNOW", "REX2") and row.prefix in ("F2", "F3")
    with_66 = 15 if hides_66 or prefixes & 3 == 3 else 12 if prefixes & 3 == 2 else 3
    found = (rm, reg, mod, prefixes, allowed, _size_mask(row, size, root) & with_66, addresses,
             3 if row.rex_b is None else 1 << row.rex_b, 3,
             *(1 << row.extras[name] if name in row.extras else (1 << (1 << bits)) - 1
               for name, bits in list(FIELDS.items())[9:]))
    return None if 0 in found else found


def _bits(operand: table.Operand, width: str, size: int, address: int, length: int | None, row: table.Row) -> int:
    """Width of an operand in bits, as its letters say."""
    vector = 128 << (length or 0) if row.space in ("VEX", "EVEX", "XOP") else 128
    if operand.size_bytes:
        return operand.size_bytes * 8
    if operand.kind == "VM":
        return notation.ELEMENT_BITS[operand.element]
    if width in _FRACTIONS:
        return vector // _FRACTIONS[width]
    if width == "v" or (width == "n" and address):
        return size if width == "v" else address
    if width == "y":
        return 64 if size == 64 else 32
    if width == "z":
        return 16 if size == 16 else 32
    if width == "p":
        return 16 + size
    if width == "s":
        return 48 if "not64" in row.attributes else 80
    return _WIDTHS.get(width, 0)


def _operands(row: table.Row, size: int, address: int, length: int | None) -> Iterator[Operand]:
    immediates = 0
    for source in row.operands:
        bits = _bits(source, source.width, size, address, length, row)
        own_bits = _bits(source, source.register_width, size, address, length, row) if source.register_width else bits
        place = PLACES.get(source.kind, "FIXED")
        base = CLASSES.get(source.kind, _FIXED.get(source.kind, 0))
        register_bits = max(bits, 128) if base in range(32, 64) else _REGISTER_BITS.get(base & ~7, own_bits)
        if place == "IMMEDIATE" and immediates:
            place = "IMMEDIATE2"
        immediates += place == "IMMEDIATE" and source.width != "4"
        found = Operand(source, place, base, register_bits, 0, 0)
        if found.can_be_memory:
            found = replace(found, memory_bits=bits)
        if place in ("IMMEDIATE", "IMMEDIATE2"):
            found = replace(found, immediate_bytes=bits // 8)
        elif place == "TARGET":
            found = replace(found, immediate_bytes={"b": 1, "w": 2, "d": 4}.get(source.width, 2 if size == 16 else 4))
        elif place == "IS4":
            found = replace(found, immediate_bytes=1)
        elif place == "FAR":
            found = replace(found, immediate_bytes=size // 8)
        yield found


def _sizes(row: table.Row) -> tuple[int, ...]:
    """The operand sizes that a row may have forms for."""
    if row.size is not None:
        return (row.size,)
    return SIZES if is_sized(row) else (0,)


def _addresses(row: table.Row) -> tuple[int, ...]:
    if row.address is not None:
        return (row.address,)
    return SIZES if "n" in {operand.width for operand in row.operands} else (0,)


def load(rows: list[table.Row]) -> list[Form]:
    """All forms of the rows, in table order, numbered from 1. Raises TableError for a row without any."""
    found: list[Form] = []
    for number, row in enumerate(rows, 1):
        before = len(found)
        row_when = tuple(cube(row, row.size or 0, row.address or 0, row.lengths, root) for root in ROOTS)
        for length in row.lengths if row.lengths is not None else (None,):
            for size in _sizes(row):
                for address in _addresses(row):
                    only = None if length is None else (length,)
                    when = tuple(cube(row, size, address, only, root) for root in ROOTS)
                    if address == 16:       # 64-bit mode has no 16-bit addresses, the others no 64-bit ones
                        when = tuple(None if root[0] == 64 else one for root, one in zip(ROOTS, when, strict=True))
                    elif address == 64:
                        when = tuple(one if root[0] == 64 else None for root, one in zip(ROOTS, when, strict=True))
                    if any(when):
                        found.append(Form(len(found) + 1, row, number, size, address, length,
                                          tuple(_operands(row, size, address, length)), when, row_when))
        if len(found) == before:
            raise table.TableError(f"x64.txt:{row.line}: no mode has this instruction")
    return found
