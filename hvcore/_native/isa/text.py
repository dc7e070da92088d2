"""The records that lines of text are printed from (text/spec.pxd), as C arrays of a generated header.

Each form has a name and a layout in each syntax: base_line() takes both from the table as they stand, syntaxes.py says
what each syntax does otherwise. Words and layouts are kept once each.
"""
from __future__ import annotations

import struct

from . import forms, native, notation, syntaxes
from .syntax import Line, Operand

NAMES = ("NONE", "8", "8_LEGACY", "16", "32", "64", "XMM", "YMM", "ZMM", "MASK", "MMX", "X87", "X87_TOP", "SEGMENT",
         "CONTROL", "DEBUG", "TEST", "TILE", "BOUND", "SCALE")
TEXT_PLACES = ("MASK", "ACCUMULATOR", "ROUNDING", "COUNTER", "OVERRIDE", "NOP_REGISTER")
FIRST_TEXT_PLACE = 32
MARKS = ("MASK", "ROUNDING", "BROADCAST", "STAR")
FLAGS = ("DATA", "DATA_MEMORY", "ADDRESS", "REP", "REPE", "REPNE", "BOUND", "NOTRACK", "HINT", "ACQUIRE", "RELEASE",
         "ELIDE_LOCK", "ALWAYS_REP", "NOP", "REPEATED", "SEGMENT", "LOCK", "RAW_DATA", "NAME_BY_ADDRESS",
         "ADDRESS_IN_64", "NO_SEGMENT", "SECOND", "EVEX", "NO_FLAGS", "DEFAULT_FLAGS", "NAME_BY_SIZE")
OWN_SIZES = ("NONE", "STACK", "DATA", "DATA_OR_W", "OUTSIDE_64", "SHORT_ADDRESS")
WORD = struct.Struct("<B23s")
LAYOUT = struct.Struct("<I6B" + "7B" * 6)
TEXT = struct.Struct("<4H")
OPERANDS_MAXIMUM = 6

GENERAL = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
_LOW = ("al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil")
_FROM_8 = range(8, 32)
REGISTERS = {
    "8": (*_LOW, *(f"r{i}b" for i in _FROM_8)),
    "8_LEGACY": (*_LOW[:4], "ah", "ch", "dh", "bh"),
    "16": (*GENERAL, *(f"r{i}w" for i in _FROM_8)),
    "32": (*(f"e{name}" for name in GENERAL), *(f"r{i}d" for i in _FROM_8)),
    "64": (*(f"r{name}" for name in GENERAL), *(f"r{i}" for i in _FROM_8)),
    **{names: tuple(f"{names.lower()}{i}" for i in range(32)) for names in ("XMM", "YMM", "ZMM")},
    "MASK": tuple(f"k{i}" for i in range(8)), "MMX": tuple(f"mm{i}" for i in range(8)),
    "X87": tuple(f"st({i})" for i in range(8)), "X87_TOP": ("st",), "SEGMENT": ("es", "cs", "ss", "ds", "fs", "gs"),
    "CONTROL": tuple(f"cr{i}" for i in range(16)), "DEBUG": tuple(f"dr{i}" for i in range(16)),
    "TEST": tuple(f"tr{i}" for i in range(8)), "TILE": tuple(f"tmm{i}" for i in range(8)),
    "BOUND": tuple(f"bnd{i}" for i in range(4)), "SCALE": ("bsr0",),
}
_ORDERED = ("eq", "lt", "le", "unord", "neq", "nlt", "nle", "ord")
_EXTENDED = ("eq_uq", "nge", "ngt", "false", "neq_oq", "ge", "gt", "true", "eq_os", "lt_oq", "le_oq", "unord_s",
             "neq_us", "nlt_uq", "nle_uq", "ord_s", "eq_us", "nge_uq", "ngt_uq", "false_os", "neq_os", "ge_oq", "gt_oq",
             "true_us")
CONDITIONS: dict[str, tuple[str, ...]] = {
    "NONE": (), "COMPARE_8": _ORDERED, "COMPARE_32": _ORDERED + _EXTENDED,
    "COMPARE_INTEGER": ("eq", "lt", "le", "false", "neq", "nlt", "nle", "true"),
    "COMPARE_XOP": ("lt", "le", "gt", "ge", "eq", "neq", "false", "true"),
    "MULTIPLY": ("lql", "hql", "lqh", "hqh"),
}
"""What the values of an immediate are called within a mnemonic."""
_CLASSES = {32: "", 64: "MASK", 72: "X87", 80: "MMX", 88: "SEGMENT", 96: "CONTROL", 112: "DEBUG", 128: "TEST",
            136: "TILE", 144: "BOUND", 153: "SCALE"}
NAMELESS = ("IMMEDIATE", "IMMEDIATE2", "ONE", "TARGET", "FAR", "OFFSET", "SOURCE", "DESTINATION", "TABLE")
_VECTORS = {128: "XMM", 256: "YMM", 512: "ZMM"}


def names_of(operand: forms.Operand) -> tuple[str, int]:
    """Which names a register operand has, and the number of a fixed register."""
    base = operand.register_base
    if operand.place == "FIXED" and 148 <= base < 152:
        return "8_LEGACY", base - 144
    first = max((start for start in _CLASSES if start <= base), default=0)
    if not first:
        return (str(operand.register_bits) if operand.register_bits in (8, 16, 32, 64) else "32"), base
    if first == 32:
        return _VECTORS[operand.register_bits], base - 32
    return ("X87_TOP" if first == 72 and operand.place == "FIXED" else _CLASSES[first]), base - first


def immediate_bits(form: forms.Form, operand: forms.Operand) -> int:
    """How many bits of a sign-extended immediate are shown; 64 of any other."""
    if operand.source.width not in ("b", "z", "v"):
        return 64
    first = form.operands[0]
    if first.place == "IMMEDIATE":
        return form.operand_size or 8 * operand.immediate_bytes
    if first.register_base < 32 and first.register_bits:
        return first.register_bits
    return 8 * operand.immediate_bytes


def base_line(form: forms.Form) -> Line:
    """A form as the table has it."""
    operands = []
    for operand in form.operands:
        names, number = ("NONE", 0) if operand.place in NAMELESS else names_of(operand)
        if operand.place != "FIXED":
            number = 0
        if operand.place in ("IMMEDIATE", "IMMEDIATE2"):
            number = immediate_bits(form, operand)
        elif operand.place == "TARGET" and form.row.flow == "transaction":
            number = 32
        marks = {mark for mark, is_so in (("MASK", operand.source.mask), ("BROADCAST", operand.source.broadcast))
                 if is_so}
        operands.append(Operand(operand.place, names, number, marks,
                                memory_bits=operand.memory_bits or (8 if operand.can_be_memory else 0)))
    line = Line(form, operands, form.row.mnemonic)
    if any(operand.access == "a" for operand in form.row.operands) and form.row.mnemonic == "lea":
        line.flags.add("NO_SEGMENT")
    return line


def broadcast_bits(form: forms.Form) -> int:
    """What EVEX.b reads; 0 if it means nothing."""
    for operand in form.operands:
        if operand.source.broadcast:
            return operand.source.broadcast_bits or notation.ELEMENT_BITS[operand.source.element]
    return 0


def pseudo(form: forms.Form) -> tuple[str, int]:
    """Which values of the last immediate have names, and where in the mnemonic those go."""
    name = form.row.mnemonic
    if not form.operands or form.operands[-1].place != "IMMEDIATE":
        return "NONE", 0
    bare = name.removeprefix("v")
    at = len(name) - len(bare)
    if bare in ("cmpps", "cmppd", "cmpss", "cmpsd", "cmpph", "cmpsh", "cmpbf16"):
        return "COMPARE_32" if at else "COMPARE_8", at + 3
    if bare == "pclmulqdq":
        return "MULTIPLY", at + 6
    if at and bare.rstrip("bwdq").rstrip("u") in ("pcmp", "pcom"):
        return "COMPARE_INTEGER" if bare[2] == "m" else "COMPARE_XOP", 5
    return "NONE", 0


def index_bits(form: forms.Form, operand: notation.Operand) -> int:
    """Width of the index register of a VSIB operand."""
    fixed = {"dq": 128, "qq": 256, "oq": 512}
    if operand.index_length in fixed:
        return fixed[operand.index_length]
    return max(128, (128 << (form.length or 0)) // {"x": 1, "h": 2, "f": 4, "e": 8}[operand.index_length])


class Tables:
    """Words, layouts and texts, interned as they come."""

    def __init__(self) -> None:
        self.words: dict[str, int] = {"": 0, "(bad)": 1}
        self.layouts: dict[bytes, int] = {bytes(LAYOUT.size): 0}

    def word(self, text: str) -> int:
        if len(text) > 23:
            raise ValueError(f"{text!r} is too long for a word of text/spec.pxd")
        return self.words.setdefault(text, len(self.words))

    def operand(self, operand: Operand) -> tuple[int, ...]:
        place = FIRST_TEXT_PLACE + TEXT_PLACES.index(operand.place) if operand.place in TEXT_PLACES else \
            native.PLACES.index(operand.place)
        other = operand.word if operand.word_other is None else operand.word_other
        return (place, NAMES.index(operand.names), operand.number, native.names_to_bits(operand.marks, MARKS),
                self.word(operand.word), self.word(other), self.word(operand.word_broadcast))

    def layout(self, line: Line) -> int:
        form = line.form
        kind, at = pseudo(form)
        broadcast = next((o.memory_bits // broadcast_bits(form) for o in form.operands if o.source.broadcast), 0)
        index = next((o.source for o in form.operands if o.source.kind == "VM"), None)
        index_names = 0 if index is None else NAMES.index(_VECTORS[index_bits(form, index)])
        operands = [value for operand in line.operands for value in self.operand(operand)]
        record = LAYOUT.pack(native.names_to_bits(line.flags, FLAGS), OWN_SIZES.index(line.own_size),
                             len(line.operands), broadcast, index_names, list(CONDITIONS).index(kind), at,
                             *operands, *[0] * (7 * OPERANDS_MAXIMUM - len(operands)))
        return self.layouts.setdefault(record, len(self.layouts))

    def text(self, line: Line) -> bytes:
        return TEXT.pack(self.word(line.name), self.word(line.name_memory or line.name), self.word(line.name_other),
                         self.layout(line))


def _register_words(syntax: str) -> list[str]:
    found = []
    for names in NAMES:
        registers = list(REGISTERS.get(names, ()))
        if syntax == "nasm" and names.startswith("X87"):
            registers = [f"st{i}" for i in range(8)]
        found += registers + [""] * (32 - len(registers))
    return found


def _word_bytes(words: list[str]) -> bytes:
    return b"".join(WORD.pack(len(word), word.encode()) for word in words)


def _array(name: str, data: bytes) -> str:
    return native.array("uint32_t", name, struct.unpack(f"<{len(data) // 4}I", data))


def header(all_forms: list[forms.Form]) -> str:
    """The arrays of the formatter: ISA_WORDS, ISA_REGISTERS, ISA_CONDITIONS, ISA_LAYOUTS, ISA_TEXTS."""
    tables = Tables()
    lines = [[base_line(form) for form in all_forms] for _ in syntaxes.RULES]
    for rules, written in zip(syntaxes.RULES.values(), lines, strict=True):
        for line in written:
            rules(line)
            for operand in line.operands:       # words of operands first: they are numbered in a byte
                tables.operand(operand)
    texts = b"".join(b"".join((TEXT.pack(1, 1, 0, 0), *map(tables.text, written))) for written in lines)
    conditions = [word for kind in CONDITIONS.values() for word in (*kind, *[""] * (32 - len(kind)))]
    registers = [word for syntax in syntaxes.RULES for word in _register_words(syntax)]
    return "\n".join(("#include <stdint.h>\n", f"static const uint32_t ISA_TEXT_FORMS = {len(all_forms) + 1};\n",
                      _array("ISA_WORDS", _word_bytes(list(tables.words))),
                      _array("ISA_REGISTERS", _word_bytes(registers)),
                      _array("ISA_CONDITIONS", _word_bytes(conditions)),
                      _array("ISA_LAYOUTS", b"".join(tables.layouts)), _array("ISA_TEXTS", texts)))


assert len(REGISTERS) == len(NAMES) - 1 and len(notation.ELEMENTS) < 256
