"""The letters of operands in `x64.txt`: where an operand is, how wide, what is in it. Explained at the table's head."""
from __future__ import annotations

import re
from dataclasses import dataclass

KINDS = ("KG", "KE", "KB", "KR", "TG", "TE", "TB", "BG", "BE", "STi", "ST", "TR", "E", "G", "Z", "B", "R", "M", "O",
         "I", "J", "A", "X", "Y", "V", "W", "U", "H", "L", "P", "Q", "N", "S", "C", "D")
GENERAL = ("AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI")
BYTES = ("AL", "CL", "DL", "BL", "AH", "CH", "DH", "BH")
SEGMENTS = ("ES", "CS", "SS", "DS", "FS", "GS")
FIXED = {"AL": ("A", "b"), "AX": ("A", "w"), "rAX": ("A", "v"), "EAX": ("A", "d"), "RAX": ("A", "q"), "CL": ("CL", "b"),
         "DX": ("DX", "w"), "1": ("ONE", "b"), **{name: (name, "") for name in SEGMENTS},
         **{name: (name, "b") for name in BYTES if name not in ("AL", "CL")},
         **{f"E{name}": (f"E{name}", "d") for name in GENERAL if name != "AX"},
         **{f"R{name}": (f"R{name}", "q") for name in GENERAL if name != "AX"},
         **{name: (name, "w") for name in GENERAL if name not in ("AX", "DX")},
         **{f"XMM{number}": (f"XMM{number}", "x") for number in range(8)}}
"""Operands that name themselves: the kind and the width that they stand for."""
WIDTHS = frozenset(("", "b", "w", "d", "q", "x", "dq", "qq", "oq", "h", "f", "e", "v", "y", "z", "t", "p", "s", "a", "n",
                    "u", "u2", "4"))
ELEMENTS = ("", "u8", "u16", "u32", "u64", "u128", "u256", "u512", "i8", "i16", "i32", "i64", "f16", "bf16", "f32", "f64",
            "f80", "f128", "bcd", "bf8", "hf8", "tf32")
"""Types of the elements of memory; the position is the number in the facts."""
ACCESSES = ("r", "w", "rw", "a", "-", "cr", "cw", "crw", "rcw", "n")
MASKS = {"{k}": "merging", "{kz}": "zeroing", "{k!}": "needed"}
ROUNDING = {"{er}": "rounding", "{sae}": "suppress"}
_OPERAND = re.compile(rf"(?:(?P<kind>{'|'.join(KINDS)})(?P<width>[a-z0-9]*?)|vm(?P<index>32|64)(?P<length>[a-z]))"
                      r"(?:\((?P<bytes>\d+)\))?(?P<group>\+[13])?(?:\.(?P<element>[a-z]\w*))?(?P<broadcast>/b)?"
                      r"(?P<decorations>(?:\{\w+!?\})*)")


class NotationError(Exception):
    """What is wrong with an operand; the caller adds the line."""


@dataclass(frozen=True)
class Operand:
    """One operand: where it is (`kind`, letters or a fixed name), how wide, and how it is accessed."""

    kind: str
    width: str
    access: str
    size_bytes: int = 0             # written in parentheses
    group: int = 0                  # a group of this many further registers
    element: str = ""
    broadcast: bool = False
    mask: str = ""                  # "", "merging", "zeroing", "needed"
    rounding: str = ""              # "", "rounding", "suppress"
    index_bits: int = 0             # of a VSIB operand's index elements
    index_length: str = ""          # width letter of its index register

    @property
    def reads(self) -> bool:
        return "r" in self.access

    @property
    def writes(self) -> bool:
        return "w" in self.access


def operand(text: str, access: str) -> Operand:
    """One operand of a row. Raises NotationError."""
    if access not in ACCESSES:
        raise NotationError(f"access {access!r} is none of {' '.join(ACCESSES)}")
    name, brace, decorations = text.partition("{")
    mask = rounding = ""
    for word in re.findall(r"\{[^}]*\}", brace + decorations):
        mask = MASKS.get(word, mask)
        rounding = ROUNDING.get(word, rounding)
        if word not in MASKS and word not in ROUNDING:
            raise NotationError(f"operand {text!r} has the unknown decoration {word}")
    if name == "Ap":
        return Operand("FAR", "p", access)
    if name in FIXED:
        kind, width = FIXED[name]
        return Operand(kind, width, access, mask=mask, rounding=rounding)
    match = _OPERAND.fullmatch(name)
    if match is None:
        raise NotationError(f"operand {text!r} has an unknown letter")
    width, element = match["width"] or "", match["element"] or ""
    if width not in WIDTHS or element not in ELEMENTS:
        raise NotationError(f"operand {text!r} has an unknown width or element")
    return Operand(match["kind"] or "VM", width, access, int(match["bytes"] or 0), int(match["group"] or 0), element,
                   match["broadcast"] is not None, mask, rounding, int(match["index"] or 0), match["length"] or "")


def split(text: str) -> list[str]:
    """The operands of a row's text."""
    return [name.strip() for name in text.split(",") if name.strip()]
