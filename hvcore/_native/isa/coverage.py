"""Makes docs/coverage.md, what the decoder knows and since when there is such a thing: `python -m hvcore._native.isa.coverage`.

All numbers are counted from the table; since.txt says where the features come from.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from . import facts, forms, table

SINCE = Path(__file__).with_name("since.txt")
PAGE = Path(__file__).parents[3] / "docs/coverage.md"
MODES = (16, 32, 64)
HEAD = """# Coverage

What `hv.decode` and its kin know. This page is made from the instruction table; a test refuses it when it is out of date:

```sh
python -m hvcore._native.isa.coverage
```

"""
WORDS = """A *row* is a line of `hvcore/_native/isa/x64.txt` (one for each condition where there are conditions); a *form* is a row
at one operand size and one vector length. A form that needs several features is counted with each of them. *Executed*:
rows that the processor of `hvcore` has code for; the others raise #UD there, as on a processor without the feature.
Years in parentheses are those of the announcement.

"""
LEFT_OUT = """
## Left out

Encodings that only one old or withdrawn processor had, and that mean something else today: MVEX of Knights Corner, MPX
(its bytes are reserved no-operations), Cyrix's own, the 80386's UMOV, XBTS, IBTS, LOADALL and test registers, the first
stepping of the 80486, PCOMMIT, JMPE, ALTINST. `POP CS` of the 8086 is the escape byte 0F.
"""


class CoverageError(Exception):
    """A feature of the table that since.txt does not know, or the other way round."""


@dataclass(frozen=True)
class Origin:
    """A line of since.txt."""

    feature: str
    meaning: str
    processor: str
    year: str


@dataclass
class Count:
    """What there is of one feature, or of all."""

    rows: set[int] = field(default_factory=set)
    executed: set[int] = field(default_factory=set)
    mnemonics: set[str] = field(default_factory=set)
    forms: int = 0
    modes: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(self, form: forms.Form) -> None:
        self.rows.add(form.row_number)
        self.mnemonics.add(form.row.mnemonic)
        self.forms += 1
        if form.row.semantic != "-":
            self.executed.add(form.row_number)
        for mode in range(3):
            self.modes[mode] += any(form.when[mode::3])

    def cells(self) -> list[str]:
        return [str(number) for number in
                (len(self.mnemonics), len(self.rows), self.forms, *self.modes, len(self.executed))]


def origins(path: Path = SINCE) -> list[tuple[str, list[Origin]]]:
    """Sections of since.txt with their lines."""
    sections: list[tuple[str, list[Origin]]] = [("the base", [])]
    for line in path.read_text().splitlines():
        if line.startswith("# ----"):
            sections.append((line.removeprefix("# ----").strip(), []))
        elif line.strip() and not line.startswith("#"):
            sections[-1][1].append(Origin(*(cell.strip() for cell in line.split("|"))))
    return sections


def counts(all_forms: Iterable[forms.Form]) -> tuple[Count, dict[str, Count]]:
    """Of everything, and by feature."""
    everything, by_feature = Count(), dict[str, Count]()
    for form in all_forms:
        everything.add(form)
        for feature in facts.features_of(form):
            by_feature.setdefault(feature, Count()).add(form)
    return everything, by_feature


def markdown(header: list[str], lines: list[list[str]]) -> str:
    """A table with columns as wide as they need to be; those of numbers flush right."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    numbers = [all(line[i].isdigit() for line in lines) for i in range(len(header))]
    rule = ["-" * (width - 1) + ":" if number else "-" * width for width, number in zip(widths, numbers, strict=True)]
    written = [[cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(line, widths, numbers, strict=True)] for line in (header, *lines)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (written[0], rule, *written[1:]))


def page() -> str:
    """The text of docs/coverage.md. Raises CoverageError."""
    everything, by_feature = counts(forms.load(table.load()))
    sections = origins()
    known = {origin.feature for _, lines in sections for origin in lines}
    if missing := set(by_feature) - known:
        raise CoverageError(f"since.txt does not say where {', '.join(sorted(missing))} come from")
    text = [HEAD, f"{len(everything.mnemonics)} mnemonics, {len(everything.rows)} rows, {everything.forms} forms: ",
            ", ".join(f"{number} in {mode}-bit mode" for number, mode in zip(everything.modes, MODES, strict=True)),
            f". {len(everything.executed)} rows are executed.\n\n", WORDS]
    header = ["feature", "what it is", "first processor", "year", "mnemonics", "rows", "forms",
              *(f"{mode}-bit" for mode in MODES), "executed"]
    for title, lines in sections:
        here = [[origin.feature, origin.meaning, origin.processor, origin.year, *by_feature[origin.feature].cells()]
                for origin in lines if origin.feature in by_feature]
        if here:
            text += [f"## {title[0].upper()}{title[1:]}\n\n", markdown(header, here), "\n"]
    return "".join(text).rstrip("\n") + "\n" + LEFT_OUT


def main() -> None:
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
