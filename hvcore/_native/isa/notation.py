"""The letters of operands in `x64.txt`: where an operand is, how wide, what is in it. Explained at the table's head."""
from __future__ import annotations

import re
from dataclasses import dataclass

KINDS = ("KG", "KE", "KB", "KR", "TG", "TE", "TB", "BG", "BE", "STi", "ST", "TR", "E", "G", "Z", "B", "R", "M", "O",
         "I", "J", "A", "XB", "X", "Y", "V", "W", "U", "H", "L", "P", "Q", "N", "S", "C", "D")
GENERAL = ("AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI")
BYTES = ("AL", "CL", "DL", "BL", "AH", "CH", "DH", "BH")
SEGMENTS = ("ES", "CS", "SS", "DS", "FS", "GS")
FIXED = {"AL": ("A", "b"), "AX": ("A", "w"), "rAX": ("A", "v"), "eAX": ("A", "z"), "EAX": ("A", "d"),
         "RAX": ("A", "q"), "CL": ("CL", "b"),
         "DX": ("DX", "w"), "1": ("ONE", "b"), **{name: (name, "") for name in SEGMENTS},
         **{name: (name, "b") for name in BYTES if name not in ("AL", "CL")},
         **{f"E{name}": (f"E{name}", "d") for name in GENERAL if name != "AX"},
         **{f"R{name}": (f"R{name}", "q") for name in GENERAL if name != "AX"},
         **{name: (name, "w") for name in GENERAL if name not in ("AX", "DX")},
         "BSR0": ("BSR0", ""), **{f"XMM{number}": (f"XMM{number}", "x") for number in range(8)}}
"""Operands that name themselves: the kind and the width that they stand for."""
WIDTHS = frozenset(("", *"b w d q x dq qq oq h f e v y z t p s a n u u2 4 sib".split()))
ELEMENT_BITS = {**{f"u{bits}": bits for bits in (8, 16, 32, 64, 128, 256, 512)}, "u52": 64,
                **{f"i{bits}": bits for bits in (8, 16, 32, 64, 128)}, "f16": 16, "bf16": 16, "f32": 32, "f64": 64,
                "f80": 80, "f128": 128, "bcd": 80, "2xf16": 32, "2xbf16": 32, "bf8": 8, "hf8": 8, "tf32": 32}
"""Types of the elements of memory, and how wide they lie there."""
ELEMENTS = ("", *ELEMENT_BITS)
"""The position is the number in the facts."""
ACCESSES = ("r", "w", "rw", "a", "-", "cr", "cw", "rcw", "n")
MASKS = {"{k}": "merging", "{kz}": "zeroing", "{k!}": "needed"}
ROUNDING = {"{er}": "rounding", "{sae}": "suppress"}
_OPERAND = re.compile(rf"(?:(?P<kind>{'|'.join(KINDS)})(?P<width>[a-z0-9]*?)|vm(?P<index>32|64)(?P<length>[a-z]+))"
                      r"(?:\((?P<bytes>\d+)\))?(?P<group>\+[13])?(?:\.(?P<element>\w+))?"
                      r"(?P<broadcast>/b(?P<bits>32|64)?)?")


class NotationError(Exception):
    """What is wrong with an operand; the caller adds the line."""


@dataclass(frozen=True)
class Operand:
    """One operand: where it is (`kind`, letters or a fixed name), how wide, and how it is accessed."""

    kind: str
    width: str                      # of memory, and of the register too unless that has its own
    access: str
    register_width: str = ""        # where it differs, as in Evw
    size_bytes: int = 0             # written in parentheses
    group: int = 0                  # a group of this many further registers
    element: str = ""
    broadcast: bool = False
    mask: str = ""                  # "", "merging", "zeroing", "needed"
    rounding: str = ""              # "", "rounding", "suppress"
    index_bits: int = 0             # of a VSIB operand's index elements
    index_length: str = ""          # width letter of its index register
    broadcast_bits: int = 0         # where it is not one element that is broadcast

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
    kind, width, element = match["kind"] or "VM", match["width"] or "", match["element"] or ""
    register_width = ""
    if kind == "E" and len(width) == 2 and width not in WIDTHS:
        register_width, width = width[0], width[1]
    if not {width, register_width} <= WIDTHS or element not in (*ELEMENTS, "i"):
        raise NotationError(f"operand {text!r} has an unknown width or element")
    return Operand(kind, width, access, register_width, int(match["bytes"] or 0), int(match["group"] or 0), element,
                   match["broadcast"] is not None, mask, rounding, int(match["index"] or 0), match["length"] or "",
                   int(match["bits"] or 0))


def split(text: str) -> list[str]:
    """The operands of a row's text."""
    return [name.strip() for name in text.split(",") if name.strip()]
