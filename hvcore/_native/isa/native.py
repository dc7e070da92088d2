"""What the native decoder gets: nodes, form records and lead bytes, as C arrays of a generated header.

The records have the layout of form_t (decode/spec.pxd), which decoder.pyx checks when it is imported.
"""
from __future__ import annotations

import struct
from collections.abc import Iterable

from . import features, forms, handlers, notation, table

PLACES = ("NONE", "REG", "RM", "VVVV", "OPCODE", "IS4", "FIXED", "IMMEDIATE", "IMMEDIATE2", "ONE", "TARGET", "FAR",
          "OFFSET", "SOURCE", "DESTINATION", "TABLE")
RECORD = struct.Struct("<II 8B HHI 2B 5B5B5B5B 2x")
ACCESS = {"r": 1, "w": 2, "rw": 3, "a": 4, "-": 0, "cr": 9, "cw": 10, "rcw": 11, "n": 16}
FLAGS = ("lock", "vvvv", "registers", "signed", "check", "is4", "vsib", "mask", "mask_needed", "zeroing", "broadcast",
         "rounding", "suppress", "offset", "no_rex2", "vector_reg", "vector_rm", "ends_block", "stack", "short_reg",
         "short_rm", "lock_cr8", "no_segment", "promoted", "source_condition")
CHECKS = ("segment", "segment_write", "control", "debug", "bound_reg", "bound_rm", "mask_reg", "distinct",
          "distinct_target", "sib", "no_16", "mask_vvvv", "tile_rm", "not_rsp", "pair")
LEADS = ("opcode", "escape", "rex", "66", "67", "lock", "repne", "rep", "segment", "vex3", "vex2", "evex", "xop",
         "rex2")
_KIND_CHECKS = {"C": "control", "D": "debug", "BG": "bound_reg", "BE": "bound_rm", "KG": "mask_reg",
                "KB": "mask_vvvv", "TG": "mask_reg", "TE": "tile_rm", "TB": "mask_vvvv"}
_WORD_CHECKS = {"distinct": "distinct", "distinct_target": "distinct_target", "norsp": "not_rsp", "pair": "pair",
                "norexr": "mask_reg"}
_NO_REX2 = {0: (0x4, 0x7, 0xA, 0xE), 1: (0x3, 0x8), 2: range(16), 3: range(16)}
"""Rows of sixteen opcodes, by map, that REX2 makes invalid (APX specification, 3.1.2)."""


def names_to_bits(names: Iterable[str], order: tuple[str, ...]) -> int:
    return sum(1 << order.index(name) for name in set(names))


def checks(form: forms.Form) -> set[str]:
    """What only the decoder can check once the form is known (decode/spec.pxd, FormCheck)."""
    row = form.row
    found = {_KIND_CHECKS[operand.kind] for operand in row.operands if operand.kind in _KIND_CHECKS}
    found |= {check for word, check in _WORD_CHECKS.items() if word in row.attributes}
    if row.space == "EVEX" and any(operand.kind in ("KE", "KR") for operand in row.operands):
        found |= {"tile_rm"}
    for operand in row.operands:
        if operand.width == "sib":
            found |= {"sib", "no_16"}
        if operand.kind == "S":
            found |= {"segment", "segment_write"} if operand.writes else {"segment"}
    return found


def flags(form: forms.Form) -> set[str]:
    """Names of the flags of a form (decode/spec.pxd, FormFlag)."""
    row = form.row
    places = {operand.place for operand in form.operands}
    kinds = {operand.kind for operand in row.operands}
    found = {word for word in ("lock",) if word in row.attributes}
    found |= {name for name, is_so in (
        ("vvvv", "VVVV" in places), ("registers", kinds & {"C", "D", "TR"}), ("is4", "IS4" in places),
        ("vsib", "VM" in kinds), ("offset", "OFFSET" in places), ("ends_block", "ends" in row.attributes),
        ("ends_block", row.flow != "next"), ("stack", row.stack_accesses == 1), ("check", checks(form)),
        ("no_rex2", "norex2" in row.attributes or (row.space == "" and row.opcode >> 4 in _NO_REX2[row.map])),
        ("vector_reg", "V" in kinds), ("vector_rm", kinds & {"W", "U", "TE"}), ("short_reg", kinds & {"P", "S", "TR"}),
        ("short_rm", kinds & {"Q", "N", "STi"} or (kinds & {"KE", "KR"} and row.space != "EVEX")),
        ("promoted", row.space == "EVEX" and "apx_f" in row.features), ("source_condition", "SCC" in row.extras),
        ("lock_cr8", "amd_lock" in row.attributes), ("no_segment", "nosegment" in row.attributes),
    ) if is_so}
    for operand in row.operands:
        if operand.mask:
            found |= {"mask"} | ({operand.mask} & {"zeroing"})
            found |= {"mask_needed"} if operand.mask == "needed" else set()
        found |= {operand.rounding} - {""}
        found |= {"broadcast"} if operand.broadcast else set()
        is_signed = operand.kind == "J" or (operand.kind == "I" and operand.width in ("b", "z", "v"))
        found |= {"signed"} if is_signed else set()
    return found


def memory(form: forms.Form) -> forms.Operand | None:
    """The operand that ModRM or an offset may make memory."""
    return next((operand for operand in form.operands
                 if operand.can_be_memory and operand.place not in ("SOURCE", "DESTINATION")), None)


def element_bits(operand: forms.Operand) -> int:
    """Bits of an element of memory; the whole of it where no element is named."""
    return notation.ELEMENT_BITS.get(operand.source.element, operand.memory_bits)


def _shift(bits: int) -> int:
    return max(bits // 8, 1).bit_length() - 1


def displacement_shifts(form: forms.Form) -> tuple[int, int]:
    """log2 of N of disp8*N, without and with broadcast."""
    operand = memory(form)
    if form.row.space != "EVEX" or "apx_f" in form.row.features or operand is None:
        return 0, 0
    element = element_bits(operand)
    by_element = operand.source.kind == "VM" or "tuple1" in form.row.attributes
    return _shift(element if by_element else operand.memory_bits), _shift(operand.source.broadcast_bits or element)


def handled_memory(row: table.Row) -> int:
    """Access bits of the memory operand as the semantic function's handler touches it, for the count of look-ups."""
    operand = next((operand for operand in row.seen if operand.kind in "EMOW"), None)
    if operand is None or operand.width in ("a", "s", "p") or operand.size_bytes:
        return 0
    if operand.access == "-":
        return 3 if row.shape == "tail" and row.flow == "next" and "ends" not in row.attributes else 0
    return ACCESS[operand.access]


def handler(form: forms.Form, numbers: dict[int, int]) -> int:
    """Index of a form's first handler; 0: its row has no semantics."""
    if form.row.semantic == "-":
        return 0
    letter = handlers.deciding_width(form.row)
    size = handlers.OPERAND_BITS.get(letter) or form.operand_size or 32
    return numbers[form.row_number] * handlers.VARIANTS + handlers.SIZES.index(size)


def _padded(values: list[int], filler: int = 0) -> list[int]:
    return values + [filler] * (5 - len(values))


def record(form: forms.Form, mnemonics: dict[str, int], numbers: dict[int, int]) -> bytes:
    row = form.row
    first = [operand.immediate_bytes for operand in form.operands if operand.place in ("IMMEDIATE", "TARGET", "FAR")]
    second = [operand.immediate_bytes for operand in form.operands if operand.place == "IMMEDIATE2"]
    immediate = sum(first) + sum(operand.immediate_bytes for operand in form.operands if operand.place == "IS4")
    far = any(operand.place == "FAR" for operand in form.operands)
    sizes = [operand.register_bits or operand.memory_bits for operand in form.operands]
    return RECORD.pack(
        names_to_bits(flags(form), FLAGS), names_to_bits(checks(form), CHECKS),
        immediate, 2 if far else sum(second), *displacement_shifts(form), form.operand_size, form.length or 0,
        len(form.operands), features.FLOWS.index(row.flow), mnemonics[row.mnemonic], form.row_number,
        handler(form, numbers), row.condition or 0, handled_memory(row),
        *_padded([PLACES.index(operand.place) for operand in form.operands]),
        *_padded([operand.register_base for operand in form.operands]),
        *_padded([ACCESS[operand.source.access] for operand in form.operands]),
        *_padded([_shift(bits) if bits in (8, 16, 32, 64, 128, 256, 512) else 255 for bits in sizes]))


def leads() -> list[int]:
    """Of each mode, what each byte is in front of an opcode."""
    found = []
    named = {0x0F: "escape", 0x66: "66", 0x67: "67", 0xF0: "lock", 0xF2: "repne", 0xF3: "rep", 0xC4: "vex3",
             0xC5: "vex2", 0x62: "evex", 0x8F: "xop"}
    named |= dict.fromkeys((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65), "segment")
    for mode in forms.SIZES:
        here = named | ({**dict.fromkeys(range(0x40, 0x50), "rex"), 0xD5: "rex2"} if mode == 64 else {})
        found += [LEADS.index(here.get(byte, "opcode")) for byte in range(256)]
    return found


def array(kind: str, name: str, values: Iterable[int]) -> str:
    """A C array; 16 numbers a line."""
    numbers = [str(value) if value < 0x10000 else f"{value:#x}u" for value in values]
    rows = [", ".join(numbers[i:i + 16]) for i in range(0, len(numbers), 16)]
    return f"static const {kind} {name}[{len(numbers)}] = {{\n    " + ",\n    ".join(rows) + "\n};\n"


def numbered(rows: list[table.Row]) -> dict[int, int]:
    """Row number to number among the rows that have semantics, from 1."""
    found: dict[int, int] = {}
    for number, row in enumerate(rows, 1):
        if row.semantic != "-":
            found[number] = len(found) + 1
    return found


def mnemonics(rows: list[table.Row]) -> list[str]:
    """Form 0 is no instruction: its mnemonic is `invalid`."""
    return ["invalid", *sorted({row.mnemonic for row in rows})]


def header(rows: list[table.Row], all_forms: list[forms.Form], entries: list[int], roots: list[int]) -> str:
    """The arrays of the decoder: ISA_ENTRIES, ISA_ROOTS, ISA_FORMS, ISA_LEADS."""
    names = {name: number for number, name in enumerate(mnemonics(rows))}
    numbers = numbered(rows)
    records = bytes(RECORD.size) + b"".join(record(form, names, numbers) for form in all_forms)
    words = struct.unpack(f"<{len(records) // 4}I", records)
    return "\n".join(("#include <stdint.h>\n", array("uint32_t", "ISA_ENTRIES", entries),
                      array("uint32_t", "ISA_ROOTS", roots), array("uint32_t", "ISA_FORMS", words),
                      array("uint8_t", "ISA_LEADS", leads())))


assert len(notation.ELEMENTS) < 256 and RECORD.size % 4 == 0
