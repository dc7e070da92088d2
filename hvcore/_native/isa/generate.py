"""Turns the table into what native code needs: decode tables, names, and a thin handler for every form and width.

Run by setup.py before compiling; the output lies in `generated/`, is never committed, and is written only when it
changed. What a handler looks like is in handlers.py.
"""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

try:
    from . import handlers, table
except ImportError:                     # setup.py loads this file by path, before the package can be imported
    import handlers  # type: ignore[import-not-found, no-redef]
    import table  # type: ignore[import-not-found, no-redef]

HERE = Path(__file__).parent
OUTPUT = HERE / "generated"
BANNER = "# Generated from isa/x64.txt by isa/generate.py. Do not edit.\n"
KIND = {**{k: f"KIND_{k}" for k in "EGZBIJOVWSCD"}, "R": "KIND_E", "M": "KIND_E", "U": "KIND_W", "A": "KIND_A",
        "CL": "KIND_CL", "DX": "KIND_DX", "ONE": "KIND_ONE", "FS": "KIND_FS", "GS": "KIND_GS"}
WIDTH = {"b": "WIDTH_B", "w": "WIDTH_W", "d": "WIDTH_D", "q": "WIDTH_Q", "x": "WIDTH_X", "v": "WIDTH_V",
         "y": "WIDTH_Y", "z": "WIDTH_Z", "u": "WIDTH_U", "u2": "WIDTH_U"}
FLOW = {name: f"FLOW_{name.upper()}" for name in table.FLOWS}


def form_fields(row: table.Row, mnemonics: dict[str, int]) -> str:
    flags = [name for attribute, name in (("lock", "FORM_LOCK"), ("cpl0", "FORM_PRIVILEGED"),
             ("aligned", "FORM_ALIGNED"), ("rep", "FORM_REP"), ("d64", "FORM_DEFAULT_64"), ("f64", "FORM_FORCED_64"),
             ("push", "FORM_STACK_WRITE"), ("pop", "FORM_STACK_READ")) if attribute in row.attributes]
    memory = next((o for o in row.operands if o.kind in "EMOW"), None)
    touched = "0" if memory is None or memory.width in ("a", "s", "f", "512") else \
        {"r": "1", "w": "2", "rw": "3"}.get(memory.access, "4" if memory.access == "a" else "3"
                                           if row.shape == "tail" and row.flow == "next" else "0")
    operands = list(row.operands) + [table.Operand("", "", "-")] * (4 - len(row.operands))
    kinds = ", ".join(KIND.get(o.kind, "KIND_NONE") for o in operands)
    widths = ", ".join(WIDTH.get(o.width, "WIDTH_NONE") for o in operands)
    access = ", ".join(str({"r": 1, "w": 2, "rw": 3, "a": 4}.get(o.access, 0)) for o in operands)
    return (f"form_t(mnemonic={mnemonics[row.mnemonic]}, operand_count={len(row.operands)}, "
            f"width={WIDTH[handlers.deciding_width(row)]}, flow={FLOW[row.flow]}, flags={' | '.join(flags) or '0'}, "
            f"condition={row.condition or 0}, memory_access={touched}, kinds=[{kinds}], widths=[{widths}], "
            f"access=[{access}])")


def rule_fields(form: int, row: table.Row) -> str:
    prefixes = {"": 15, "NP": 1, "66": 2, "F3": 4, "F2": 8}[row.prefix]
    digits, rms, modes = 0xFF, 0xFF, {"": 3, "mem": 1, "reg": 2}[row.mode]
    kinds = {operand.kind for operand in row.operands}
    if "M" in kinds:
        modes &= 1
    if kinds & {"R", "U"}:
        modes &= 2
    if kinds & {"C", "D"}:
        modes = 3                       # ModRM.mod is ignored: it always names a register
    if row.digit is not None:
        digits = 1 << row.digit
    if row.fixed_modrm is not None:
        digits, rms, modes = 1 << (row.fixed_modrm >> 3 & 7), 1 << (row.fixed_modrm & 7), 2
    sizes = 7 if row.size is None else {16: 1, 32: 2, 64: 4}[row.size]
    return (f"rule_t(form={form}, prefixes={prefixes}, digits={digits}, modes={modes}, rms={rms}, "
            f"w={3 if row.w is None else 1 << row.w}, sizes={sizes}, rex_b={1 if row.rex_b_clear else 3}, "
            f"has_modrm={int(row.has_modrm)})")


def opcodes_of(row: table.Row) -> Iterator[int]:
    for low in range(8 if row.opcode_register else 1):
        yield row.map << 8 | row.opcode + low


def decode_tables(rows: list[table.Row]) -> str:
    """Form 0 is no instruction: its mnemonic is `invalid`."""
    names = ["invalid", *sorted({row.mnemonic for row in rows})]
    mnemonics = {name: number for number, name in enumerate(names)}
    by_opcode: dict[int, list[tuple[int, table.Row]]] = {}
    for form, row in enumerate(rows, 1):
        for opcode in opcodes_of(row):
            by_opcode.setdefault(opcode, []).append((form, row))
    lines = [BANNER, f"\nDEF_FORM_COUNT = {len(rows) + 1}\nMNEMONICS = {names!r}\n",
             f"FORM_LINES = {[0] + [row.line for row in rows]!r}\n",
             f"FORM_FEATURES = {[''] + [' '.join(sorted(row.features)) for row in rows]!r}\n",
             "\n\ncdef void fill_tables(opcode_t* opcodes, rule_t* rules, form_t* forms) noexcept:\n"]
    lines.append("    forms[0] = form_t(mnemonic=0)\n")
    lines += [f"    forms[{form}] = {form_fields(row, mnemonics)}\n" for form, row in enumerate(rows, 1)]
    first = 0
    for opcode, entries in sorted(by_opcode.items()):
        modrm = any(row.has_modrm for _, row in entries)
        lines.append(f"    opcodes[{opcode}] = opcode_t(first={first}, count={len(entries)}, has_modrm={int(modrm)})\n")
        lines += [f"    rules[{first + i}] = {rule_fields(form, row)}\n" for i, (form, row) in enumerate(entries)]
        first += len(entries)
    lines.append("")
    return "".join(lines).replace("DEF_FORM_COUNT", "FORM_COUNT").replace(
        "\n\ncdef void", f"RULE_COUNT = {first}\n\n\ncdef void", 1)


def write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def main() -> None:
    rows = table.load()
    OUTPUT.mkdir(exist_ok=True)
    write(OUTPUT / "tables.pxi", decode_tables(rows))
    for name, unit in handlers.handlers(rows).items():
        write(OUTPUT / f"{name}.pxi", BANNER + handlers.unit_text(unit))


if __name__ == "__main__":
    main()
