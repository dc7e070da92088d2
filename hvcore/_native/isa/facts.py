"""What people and tools ask about a form, as columns indexed by form: C arrays of a generated header, and names.

COLUMNS is the list of them: name, C type, how many values a form, and where the value comes from. Form 0, the invalid
instruction, is 0 in every column.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from . import features, forms, native, notation, table, text

OPERANDS = 5
KINDS = {"IMMEDIATE": 3, "IMMEDIATE2": 3, "ONE": 3, "TARGET": 4, "FAR": 5, "OFFSET": 2, "SOURCE": 2,
         "DESTINATION": 2, "TABLE": 2}
REGISTER, MEMORY, REGISTER_OR_MEMORY = 1, 2, 6
SPACES = ("", "3DNOW", "VEX", "EVEX", "XOP", "REX2")
IMPLICIT = ("in", "out", "inout", "cin", "cout", "cinout", "mem")
ORDER = ("intel8086", "intel186", "intel286", "intel386", "intel486", "x64")
PROCESSORS = frozenset(ORDER)
Values = Callable[[forms.Form], list[int]]


def operand_kind(form: forms.Form, operand: forms.Operand) -> int:
    """Number of hv.OperandKind."""
    if operand.place in KINDS:
        return KINDS[operand.place]
    if operand.place != "RM" or form.row.mode == "reg" or not operand.can_be_memory:
        return REGISTER
    if operand.source.kind in ("M", "VM") or form.row.mode == "mem":
        return MEMORY
    return REGISTER_OR_MEMORY


def element_name(operand: forms.Operand) -> str:
    """A name of notation.ELEMENTS; an integer of the whole width where the table has no type, or only says `i`."""
    name = operand.source.element
    if name in ("", "i"):
        whole = f"{name or 'u'}{operand.memory_bits}"
        return whole if whole in notation.ELEMENT_BITS else ""
    return name


def element_label(name: str) -> str:
    """A name that can be a Python one: pairs have the 2 behind."""
    return f"{name[2:]}x2" if name.startswith("2x") else name


def processor(form: forms.Form) -> str:
    """The first that had this operand and address size, of instructions that came with a processor."""
    size = max(form.operand_size, form.address_size)
    return {64: "x64", 32: "intel386"}.get(size, "")


def features_of(form: forms.Form) -> tuple[str, ...]:
    """CPUID features, or the first processor, that bring a form."""
    row = form.row
    sizes = (form.operand_size, 0 if form.length is None else 128 << form.length)
    found = {name for name in row.features if row.conditional.get(name, 0) in (0, *sizes)}
    if "avx512vl" in found and row.lengths is not None and 2 in row.lengths and form.length == 2:
        found.discard("avx512vl")
    if found <= PROCESSORS and 0 not in row.conditional.values():
        found = {max(found | {processor(form)} - {""}, key=ORDER.index, default="intel8086")}
    return tuple(sorted(found))


def memory_bits(operand: forms.Operand) -> int:
    """Bits that are accessed; of a vector of addresses, those at each of them."""
    return notation.ELEMENT_BITS[operand.source.element] if operand.source.kind == "VM" else operand.memory_bits


def _memory(form: forms.Form) -> forms.Operand | None:
    return next((operand for operand in form.operands if operand.can_be_memory), None)


def _index_bits(form: forms.Form) -> int:
    """Width of a VSIB operand's index register."""
    for operand in form.operands:
        if operand.source.kind == "VM":
            return text.index_bits(form, operand.source)
    return 0


def _padded(values: Iterable[int], count: int = OPERANDS) -> list[int]:
    found = list(values)
    return found + [0] * (count - len(found))


def _modes(form: forms.Form) -> int:
    """Bits 0 to 2: 16-, 32- and 64-bit mode have it, whatever the vendor."""
    present = [when is not None for when in form.when]
    return sum(1 << mode for mode in range(3) if any(present[mode::3]))


class Names:
    """Sets that several forms share, numbered as they come."""

    def __init__(self) -> None:
        self.features: dict[tuple[str, ...], int] = {(): 0}
        self.implicit: dict[tuple[tuple[str, str], ...], int] = {(): 0}

    def feature_set(self, form: forms.Form) -> int:
        return self.features.setdefault(features_of(form), len(self.features))

    def implicit_set(self, form: forms.Form) -> int:
        words = [(kind, word) for kind in IMPLICIT for words in form.row.implicit.get(kind, ())
                 for word in re.split("[.+]", words)]
        words += [(kind, str(form.row.stack_accesses)) for kind in ("push", "pop") if kind in form.row.attributes]
        return self.implicit.setdefault(tuple(words), len(self.implicit))


def columns(rows: list[table.Row], names: Names) -> list[tuple[str, str, int, Values]]:
    mnemonics = {name: number for number, name in enumerate(native.mnemonics(rows))}
    return [
        ("mnemonic", "uint16_t", 1, lambda f: [mnemonics[f.row.mnemonic]]),
        ("row", "uint16_t", 1, lambda f: [f.row_number]),
        ("line", "uint16_t", 1, lambda f: [f.row.line]),
        ("flow", "uint8_t", 1, lambda f: [features.FLOWS.index(f.row.flow)]),
        ("flags_read", "uint32_t", 1, lambda f: [f.row.flag_mask("r")]),
        ("flags_written", "uint32_t", 1, lambda f: [f.row.flag_mask("w")]),
        ("flags_cleared", "uint32_t", 1, lambda f: [f.row.flag_mask("0")]),
        ("flags_set", "uint32_t", 1, lambda f: [f.row.flag_mask("1")]),
        ("flags_undefined", "uint32_t", 1, lambda f: [f.row.flag_mask("u")]),
        ("privileged", "uint8_t", 1, lambda f: [int("cpl0" in f.row.attributes)]),
        ("features", "uint16_t", 1, lambda f: [names.feature_set(f)]),
        ("implicit", "uint16_t", 1, lambda f: [names.implicit_set(f)]),
        ("operand_count", "uint8_t", 1, lambda f: [len(f.operands)]),
        ("operand_kind", "uint8_t", OPERANDS, lambda f: _padded(operand_kind(f, o) for o in f.operands)),
        ("operand_register_base", "uint8_t", OPERANDS, lambda f: _padded(o.register_base for o in f.operands)),
        ("operand_bits", "uint16_t", OPERANDS, lambda f: _padded(
            o.register_bits if operand_kind(f, o) in (REGISTER, REGISTER_OR_MEMORY) else o.memory_bits
            for o in f.operands)),
        ("operand_access", "uint8_t", OPERANDS, lambda f: _padded(native.ACCESS[o.source.access] for o in f.operands)),
        ("operand_group", "uint8_t", OPERANDS, lambda f: _padded(o.source.group for o in f.operands)),
        ("memory_bits", "uint16_t", 1, lambda f: [memory_bits(m) if (m := _memory(f)) else 0]),
        ("element", "uint8_t", 1, lambda f: [notation.ELEMENTS.index(element_name(m)) if (m := _memory(f)) else 0]),
        ("broadcast_bits", "uint8_t", 1, lambda f: [text.broadcast_bits(f)]),
        ("index_bits", "uint16_t", 1, lambda f: [_index_bits(f)]),
        ("modes", "uint8_t", 1, lambda f: [_modes(f)]),
        ("space", "uint8_t", 1, lambda f: [SPACES.index(f.row.space)]),
        ("opcode_map", "uint8_t", 1, lambda f: [f.row.map]),
        ("opcode", "uint8_t", 1, lambda f: [f.row.opcode]),
        ("operand_size", "uint8_t", 1, lambda f: [f.operand_size]),
        ("vector_bits", "uint16_t", 1, lambda f: [128 << f.length if f.length is not None else 0]),
    ]


def header_and_names(rows: list[table.Row], all_forms: list[forms.Form]) -> tuple[str, str]:
    """The arrays ISA_FACT_..., and what facts.pyx includes: names, and the list of the columns."""
    names = Names()
    arrays, calls = ["#include <stdint.h>\n"], []
    declared = ['cdef extern from "isa/generated/facts.h":']
    for name, kind, count, values in columns(rows, names):
        numbers = [0] * count + [number for form in all_forms for number in values(form)]
        arrays.append(native.array(kind, f"ISA_FACT_{name.upper()}", numbers))
        declared.append(f"    const {kind}[1] ISA_FACT_{name.upper()}")
        calls.append(f"{name} = column(ISA_FACT_{name.upper()}, FORM_TOTAL * {count}, {kind[:-2]!r}, {count})")
    tuples = [f"mnemonics = {tuple(native.mnemonics(rows))!r}", f"feature_sets = {tuple(names.features)!r}",
              f"implicit_sets = {tuple(names.implicit)!r}", f"spaces = {('legacy', *SPACES[1:])!r}",
              f"elements = {('none', *map(element_label, notation.ELEMENTS[1:]))!r}"]
    enums = f"cdef enum:\n    FORM_TOTAL = {len(all_forms) + 1}\n"
    return "\n".join(arrays), "\n".join((*declared, "", enums, *calls, *tuples, ""))
