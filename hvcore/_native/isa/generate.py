"""Turns the table into what native code needs: decode tables, facts, and a thin handler for every form and width.

Run by setup.py before compiling; the output lies in `generated/`, is never committed, and is written only when it
changed. native.py and nodes.py say what the decoder gets, facts.py what people get, text.py what the formatters get,
handlers.py what a handler is.
"""
from __future__ import annotations

from pathlib import Path

from . import facts, forms, handlers, native, nodes, table, text

HERE = Path(__file__).parent
OUTPUT = HERE / "generated"
BANNER = "# Generated from isa/x64.txt by isa/generate.py. Do not edit.\n"
C_BANNER = "/* Generated from isa/x64.txt by isa/generate.py. Do not edit. */\n"


def names(rows: list[table.Row], all_forms: list[forms.Form]) -> str:
    """What decoder.pyx shows to Python."""
    return (BANNER + f"\nFORM_COUNT = {len(all_forms) + 1}\nMNEMONICS = {native.mnemonics(rows)!r}\n"
            f"FORM_LINES = {[0] + [form.row.line for form in all_forms]!r}\n"
            f"FORM_FEATURES = {[''] + [' '.join(sorted(form.row.features)) for form in all_forms]!r}\n"
            f"\ncdef enum:\n    FORM_TOTAL = {len(all_forms) + 1}\n    ROW_TOTAL = {len(rows) + 1}\n"
            f"    HANDLER_TOTAL = {(len(native.numbered(rows)) + 1) * handlers.VARIANTS}\n"
            f"    FORM_BYTES = {native.RECORD.size}\n")


def write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def main() -> None:
    rows = table.load()
    all_forms = forms.load(rows)
    tree = nodes.build(all_forms)
    OUTPUT.mkdir(exist_ok=True)
    write(OUTPUT / "tables.h", C_BANNER + native.header(rows, all_forms, tree.entries, tree.roots))
    write(OUTPUT / "names.pxi", names(rows, all_forms))
    columns, fact_names = facts.header_and_names(rows, all_forms)
    write(OUTPUT / "facts.h", C_BANNER + columns)
    write(OUTPUT / "facts.pxi", BANNER + fact_names)
    write(OUTPUT / "text.h", C_BANNER + text.header(all_forms))
    for name, unit in handlers.handlers(rows).items():
        write(OUTPUT / f"{name}.pxi", BANNER + handlers.unit_text(unit))


if __name__ == "__main__":
    main()
