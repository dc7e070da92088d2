"""A thin function for every form, operand size and kind of memory operand, around the semantic function of its row.

It fetches operands, calls, stores the result and passes on. Semantic functions are found by reading sem/*.pxd: one
that is missing, or that no row uses though it has the shape of one, stops the build with the line of the table.
"""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from . import forms, table

SEMANTICS = Path(__file__).parent.parent / "sem"
VARIANTS = 12       # of a row with semantics: register, memory, memory without an index; times four operand sizes
SIZES = (8, 16, 32, 64)
OPERAND_BITS = {"b": 8, "w": 16, "d": 32, "q": 64, "u": 8}
UNITS = {"integer": ("alu_", "shift_", "muldiv_", "bit_", "move"), "control": ("control_", "string_", "atomic_"),
         "system": ("system_",), "sse": ("sse_",)}


@dataclass(frozen=True)
class Semantic:
    """A function of sem/*.pxd: its room and the names of its parameters."""

    room: str
    parameters: tuple[str, ...]


@dataclass
class Unit:
    """One module of handlers: its code, and which slots of the handler table each fills."""

    code: dict[str, str] = field(default_factory=dict)
    slots: list[tuple[int, str]] = field(default_factory=list)
    imports: dict[str, set[str]] = field(default_factory=dict)

    def name(self, text: str, row: table.Row, size: int, memory: bool, suffix: str = "") -> str:
        """The handler with this body: an earlier one, or a new one that is named after the row."""
        return self.code.setdefault(text, f"op_{len(self.code)}_{row.mnemonic}_{'m' if memory else 'r'}{size}{suffix}")


def semantics() -> dict[str, Semantic]:
    """Every inline function of the sem rooms."""
    found = {}
    for path in sorted(SEMANTICS.glob("*.pxd")):
        for name, text in re.findall(r"^cdef inline [\w *]+?\b(\w+)\(([^)]*)\)", path.read_text(), re.MULTILINE):
            names = tuple(part.replace("*", " ").split()[-1] for part in text.split(",") if part.strip())
            found[name] = Semantic(path.stem, names)
    return found


def deciding_width(row: table.Row) -> str:
    """The operand width letter that says how wide the operation is; v if no operand tells."""
    operands = row.seen
    letters = [operand.width for operand in operands]
    for letter in ("v", "y"):
        if letter in letters:
            return letter
    if row.size is not None or "z" in letters:
        return "v"
    for operand in operands:
        if operand.kind not in "IJ" and operand.kind not in ("DX", "CL") and operand.width in OPERAND_BITS:
            return operand.width
    return "v" if operands == () or operands[0].kind in ("I", "J", "FS", "GS", "E", "M", "G") else "d"


def sizes_of(row: table.Row) -> tuple[int, ...]:
    """The operand sizes in bits that the row can be decoded with in 64-bit mode; 32 where it has none."""
    letter = deciding_width(row)
    if letter in OPERAND_BITS:
        return (OPERAND_BITS[letter],)
    if letter != "y" and not forms.is_sized(row):
        return (32,)
    sizes = {forms.effective_size(row, 64, "intel", w, has_66) for w in (False, True) for has_66 in (False, True)}
    return tuple(size for size in SIZES if size in sizes and row.size in (None, size))


def modes_of(row: table.Row) -> tuple[bool, ...]:
    """Whether an operand is memory: the possible answers."""
    kinds = {operand.kind for operand in row.seen}
    if kinds & {"O", "M"} or row.mode == "mem":
        return (True,)
    if row.mode == "reg" or not kinds & {"E", "W"}:
        return (False,)
    return (False, True)


def operand_bits(operand: table.Operand, size: int) -> int:
    return OPERAND_BITS.get(operand.width, 128 if operand.width == "x" else size)


def is_memory_operand(operand: table.Operand, memory: bool) -> bool:
    return operand.kind in "MO" or (memory and operand.kind in ("E", "W"))


def read_register(operand: table.Operand, size: int, row: table.Row) -> str:
    """Expression for the value of an operand that is not memory."""
    bits = operand_bits(operand, size)
    if operand.kind == "A":
        others = {other.kind for other in row.seen if other is not operand}
        return f"register_get(vp, op.{'reg' if others & set('ZEO') else 'rm'}, {bits})"
    place = {"E": "rm", "R": "rm", "Z": "rm", "G": "reg", "B": "third"}.get(operand.kind)
    if place:
        return f"register_get(vp, op.{place}, {bits})"
    return {"I": "<u64>op.immediate", "ONE": "1", "CL": "register_get(vp, 8, 8)",
            "DX": "register_get(vp, 16, 16)"}[operand.kind]


def write_register(operand: table.Operand, size: int, row: table.Row, value: str) -> str:
    place = read_register(operand, size, row).split("op.")[1].split(",")[0]
    return f"register_set(vp, op.{place}, {value}, {operand_bits(operand, size)})"


def call(row: table.Row, semantic: Semantic, values: list[str], size: int, memory: bool, retry: str = "NULL") -> str:
    """The call of the semantic function, parameters known by name filled in, operand values in order."""
    known = {"vp": "vp", "op": "op", "width": str(size), "memory": str(memory), "condition": str(row.condition),
             "retry": retry}
    rest = iter(values)
    arguments = [known[name] if name in known else next(rest) for name in semantic.parameters]
    if left := list(rest):
        raise table.TableError(f"x64.txt:{row.line}: {row.semantic} does not take {left}")
    return f"{row.semantic}({', '.join(arguments)})"


class Handler:
    """The body of one handler, line by line.

    With `twin`, the name of its slow twin, it is the fast one: it touches memory through the fast TLB only, and leaves
    everything else to the twin by a tail call. Without, it is complete."""

    def __init__(self, row: table.Row, semantic: Semantic, size: int, memory: bool, twin: str = "",
                 indexed: bool = True) -> None:
        self.row, self.semantic, self.size, self.memory, self.twin = row, semantic, size, memory, twin
        self.address = "effective(vp, op)" if indexed else "effective_plain(vp, op)"
        self.declarations: list[str] = []
        self.lines: list[str] = []
        self.has_twin = bool({"retry", "quick"} & set(semantic.parameters))

    def fetch_place(self, operand: table.Operand) -> None:
        """Leave a host pointer to the memory operand in `place`, or stop."""
        self.has_twin = True
        size_bytes = operand_bits(operand, self.size) // 8
        self.declarations += [f"cdef u64 gva = {self.address}", "cdef void* place"]
        aligned = "aligned" in self.row.attributes and size_bytes == 16
        verb = "write" if operand.writes else "read"
        if self.twin:
            test = f"not can_{verb}(vp, gva, {size_bytes})" + (" or gva & 15" if aligned else "")
            self.lines += [f"if unlikely({test}):", f"    return {self.twin}(vp, op)",
                           f"place = {verb}_place(vp, gva)"]
            return
        if "cpl0" in self.row.attributes:   # before the operand is looked at
            self.lines += ["if vp.cpl:", "    return raise_error(vp, op, VECTOR_GP, 0)"]
        if aligned:
            self.lines += ["if gva & 15:", "    return raise_error(vp, op, VECTOR_GP, 0)"]
        access = (f"writable(vp, gva, {size_bytes}, op.prefixes & OP_STACK, {operand.reads})" if operand.writes else
                  f"readable(vp, gva, {size_bytes}, op.prefixes & OP_STACK)")
        self.lines += ["vp.accessing = op", f"place = {access}", "if unlikely(place == NULL):", "    return stop_before(vp, op, vp.stop)"]

    def pass_on(self, stored: bool) -> None:
        if stored and not self.twin:
            self.lines += ["if unlikely(bounced(vp, place)):", "    return committed(vp, op)"]
        self.lines.append("return next_op(vp, op)")

    def values(self) -> list[str]:
        """Expressions for the operands that are read."""
        values = []
        for operand in self.row.seen:
            if operand.access == "a":
                values.append(self.address)
            elif operand.reads and is_memory_operand(operand, self.memory):
                values.append(f"memory_get(place, {operand_bits(operand, self.size)})")
            elif operand.reads:
                values.append(read_register(operand, self.size, self.row))
        return values

    def fetch_memory(self) -> table.Operand | None:
        for operand in self.row.seen:
            if is_memory_operand(operand, self.memory) and (operand.reads or operand.writes):
                self.fetch_place(operand)
                return operand
        return None

    def build_int(self) -> None:
        self.fetch_memory()
        target = next((operand for operand in self.row.seen if operand.writes), None)
        result = call(self.row, self.semantic, self.values(), self.size, self.memory)
        if target is None:
            self.lines.append(result)
        elif is_memory_operand(target, self.memory):
            self.lines.append(f"memory_set(place, {result}, {operand_bits(target, self.size)})")
            self.pass_on(True)
            return
        else:
            self.lines.append(write_register(target, self.size, self.row, result))
        self.pass_on(False)

    def build_tail(self) -> None:
        self.fetch_memory()
        self.lines.append("return " + call(self.row, self.semantic, self.values(), self.size, self.memory,
                                           self.twin or "NULL"))

    def vector(self, operand: table.Operand) -> str:
        """Expression for a pointer to a vector operand."""
        if is_memory_operand(operand, self.memory):
            return "<xmm_t*>place"
        return f"xmm_at(vp, op.{'reg' if operand.kind == 'V' else 'rm'})"

    def build_sse(self) -> None:
        """Shapes of letters: see the head of x64.txt. The first operand written is the target."""
        shape, operands = self.row.shape, self.row.seen
        self.lines += ["if unlikely(vp.sse_vector):", "    return raise_fault(vp, op, vp.sse_vector)"]
        memory = self.fetch_memory()
        pieces = ["&vp.mxcsr"] if shape.startswith("f") else []
        letters = "vv" if shape == "fcmp" else shape.lstrip("f")
        for letter, operand in zip(letters, operands, strict=True):
            if letter == "v":
                pieces.append(self.vector(operand))
            elif letter == "i":
                pieces.append("<u8>op.immediate")
            elif not operand.writes:
                pieces.append(f"memory_get(place, {operand_bits(operand, self.size)})"
                              if is_memory_operand(operand, self.memory)
                              else read_register(operand, self.size, self.row))
        pieces += [str(bool(self.twin))] * ("quick" in self.semantic.parameters)
        result = f"{self.row.semantic}({', '.join(pieces)})"
        if letters[0] == "r":
            bits = operand_bits(operands[0], self.size)
            self.declarations.append("cdef u64 value")
            self.lines.append(f"value = {result}")
            if shape.startswith("f"):
                self.lines += ["if unlikely(vp.mxcsr & MXCSR_FAULT):", "    return raise_numeric(vp, op)"]
            self.lines.append(f"memory_set(place, value, {bits})" if is_memory_operand(operands[0], self.memory)
                              else write_register(operands[0], self.size, self.row, "value"))
        elif shape == "fcmp":
            self.declarations.append("cdef u64 flags")
            self.lines += [f"flags = {result}", "if unlikely(vp.mxcsr & MXCSR_FAULT):",
                           "    return raise_numeric(vp, op)", "flags_load(vp, flags)"]
        elif shape.startswith("f"):
            refuse = self.twin if self.twin and "quick" in self.semantic.parameters else "raise_numeric"
            self.lines += [f"if unlikely({result}):", f"    return {refuse}(vp, op)"]
        else:
            self.lines.append(result)
        self.pass_on(memory is not None and memory.writes)

    def build(self) -> str:
        {"int": self.build_int, "tail": self.build_tail}.get(self.row.shape, self.build_sse)()
        return "\n".join("    " + line for line in self.declarations + self.lines) + "\n"


def check_all_used(known: dict[str, Semantic], used: set[str]) -> None:
    """Refuse a function that is named like a semantic one, but that neither a row nor another function of sem/ uses."""
    families = tuple(prefix for prefixes in UNITS.values() for prefix in prefixes)
    text = "".join(path.read_text() for path in sorted(SEMANTICS.glob("*.pxd")))
    for name, semantic in known.items():
        if name.startswith(families) and name not in used and len(re.findall(rf"\b{name}\b", text)) == 1:
            raise table.TableError(f"sem/{semantic.room}.pxd: no row of x64.txt uses {name}")


def handlers(rows: list[table.Row]) -> dict[str, Unit]:
    """All handlers by unit. Forms whose handler reads the same share it."""
    known = semantics()
    used = set()
    units = {name: Unit() for name in UNITS}
    for number, row in enumerate((row for row in rows if row.semantic != "-"), 1):
        semantic = known.get(row.semantic)
        if semantic is None:
            raise table.TableError(f"x64.txt:{row.line}: sem/ has no function {row.semantic}")
        used.add(row.semantic)
        unit = units[next(name for name, prefixes in UNITS.items() if row.semantic.startswith(prefixes))]
        unit.imports.setdefault(semantic.room, set()).add(row.semantic)
        for size in sizes_of(row):
            for memory in modes_of(row):
                base = number * VARIANTS + SIZES.index(size)
                complete = Handler(row, semantic, size, memory)
                text = complete.build()
                columns = (1, 2) if memory else (0,)
                if not complete.has_twin and "effective(" not in text:
                    unit.slots += [(base + 4 * column, unit.name(text, row, size, memory)) for column in columns]
                    continue
                twin = unit.name(text, row, size, memory, "_slow") if complete.has_twin else ""
                for column in columns:
                    fast = Handler(row, semantic, size, memory, twin, indexed=column == 1).build()
                    unit.slots.append((base + 4 * column, unit.name(fast, row, size, memory, "p" * (column == 2))))
    check_all_used(known, used)
    return units


def unit_text(unit: Unit) -> str:
    parts = [f"from hvcore._native.sem.{room} cimport {', '.join(sorted(names))}\n"
             for room, names in sorted(unit.imports.items())]
    parts += [f"\n\ncdef int {name}(vp_t* vp, const op_t* op) noexcept nogil:\n{body}"
              for body, name in unit.code.items()]
    parts.append("\n\ncdef void fill_handlers(handler_t* handlers) noexcept:\n")
    parts += [f"    handlers[{slot}] = {name}\n" for slot, name in unit.slots]
    return "".join(parts)
