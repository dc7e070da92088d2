"""Reads `registers.txt` and writes what the engine includes: access by HV_REGISTER_NAME and properties for Python.

Run by setup.py before compiling, like isa/generate.py, into the same folder.
"""
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE / "registers.txt"
OUTPUT = HERE.parent / "isa" / "generated" / "registers.pxi"
# Kinds that look different as attributes: how they are read, and how an assigned value is packed.
VIEWS = {"segment": ("segment_of(get_segment(self.vp, &self.vp.{}))", "pack_segment(value)"),
         "table": ("table_of(get_table(self.vp, &self.vp.{}))", "pack_table(value)"),
         "suspension": ("bool(get_suspension(self.vp, &self.vp.{}) & 1)", "value"),
         "bit": ("bool(get_bit(self.vp, &self.vp.{}))", "value")}


def rows() -> list[tuple[str, int, str, str]]:
    """(attribute, HV_REGISTER_NAME, field, kind)."""
    found = []
    for line in TABLE.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            attribute, name, field, kind = (column.strip() for column in line.split("|"))
            found.append((attribute, int(name, 16), field, kind))
    return found


def text() -> str:
    lines = ["# Generated from cpu/registers.txt by cpu/registers.py. Do not edit.\n\n"]
    lines.append("cdef object read_named(vp_t* vp, u32 name):\n")
    lines += [f"    if name == {name:#x}:\n        return get_{kind}(vp, &vp.{field})\n"
              for _, name, field, kind in rows()]
    lines.append("    return None\n\n\ncdef int write_named(vp_t* vp, u32 name, object value) except -1:\n")
    lines += [f"    if name == {name:#x}:\n        return set_{kind}(vp, &vp.{field}, value)\n"
              for _, name, field, kind in rows()]
    lines.append("    return UNKNOWN_REGISTER_NAME\n\n\nREGISTER_NAMES = {\n")
    lines += [f"    {attribute!r}: {name:#x},\n" for attribute, name, _, _ in rows()]
    lines.append("}\n\n\ncdef class RegisterFile:\n"
                 "    \"\"\"The registers of a virtual processor as attributes.\"\"\"\n\n"
                 "    def __cinit__(self, *arguments, **keywords):\n"
                 "        self.vp = <vp_t*>aligned_alloc(64, (sizeof(vp_t) + 63) & ~63)\n"
                 "        if self.vp == NULL:\n"
                 "            raise MemoryError(\"the host has no memory for a virtual processor\")\n"
                 "        memset(self.vp, 0, sizeof(vp_t))\n\n"
                 "    def __dealloc__(self):\n"
                 "        free(self.vp)\n")
    for attribute, _, field, kind in rows():
        view, value = VIEWS.get(kind, (f"get_{kind}(self.vp, &self.vp.{{}})", "value"))
        lines.append(f"\n    @property\n    def {attribute}(self):\n        return {view.format(field)}\n\n"
                     f"    @{attribute}.setter\n    def {attribute}(self, value):\n"
                     f"        require_thread(guard_of(self.vp))\n"
                     f"        check_set({attribute!r}, set_{kind}(self.vp, &self.vp.{field}, {value}), value)\n")
    return "".join(lines)


def main() -> None:
    if not OUTPUT.exists() or OUTPUT.read_text() != text():
        OUTPUT.write_text(text())


if __name__ == "__main__":
    main()
