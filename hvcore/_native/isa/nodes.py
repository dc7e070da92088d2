"""Decision nodes: from the conditions of forms to a structure that the decoder walks with one load a step.

An opcode table has 256 entries. An entry is a form, or a node: a window of the key and 2**n further entries. Of two
forms that both match, the one wins whose row's condition is strictly narrower (`F3 90` before `90+r`); that neither
is narrower is an error of the table. Equal subtrees are one.
"""
from __future__ import annotations

from collections import defaultdict
from functools import cache

from . import forms, table

FORM, SHIFT, WIDTH, MODRM, NODE = (1 << 21) - 1, 21, 26, 1 << 30, 1 << 31
TABLES = 32
MOST_BITS = 5
"""Of a window that covers more than one field: wider ones make few steps fewer and many entries more."""
NAMES = tuple(forms.FIELDS)
BITS = tuple(forms.FIELDS.values())
FIRST = tuple(sum(BITS[:i]) for i in range(len(BITS)))
FULL = tuple((1 << (1 << bits)) - 1 for bits in BITS)
Candidate = tuple[int, forms.Cube]      # index of a form in the list, and what is left of its condition


@cache
def asked(cube: forms.Cube) -> int:
    """The fields that a condition asks for, as a bit mask."""
    return sum(1 << i for i, mask in enumerate(cube) if mask != FULL[i])


@cache
def answered(cube: forms.Cube, first: int, last: int, value: int) -> forms.Cube | None:
    """What is left of a condition when these fields of the key have this value; None if it fails."""
    rest = list(cube)
    for i in range(first, last + 1):
        if not cube[i] >> (value & (1 << BITS[i]) - 1) & 1:
            return None
        value >>= BITS[i]
        rest[i] = FULL[i]
    return tuple(rest)


@cache
def window(fields: int) -> tuple[int, int]:
    """The fields to look at next, first and last: the widest run of those asked for."""
    runs = [(first, last) for first in range(len(BITS)) for last in range(first, len(BITS))
            if all(fields >> i & 1 for i in range(first, last + 1))
            and (first == last or sum(BITS[first:last + 1]) <= MOST_BITS)]
    return max(runs, key=lambda run: (sum(BITS[run[0]:run[1] + 1]), -run[0]))


class Tree:
    """All entries of all opcode tables, filled by `add_root`."""

    def __init__(self, all_forms: list[forms.Form]) -> None:
        self.forms = all_forms
        self.entries: list[int] = []
        self.roots: list[int] = []
        self._placed: dict[tuple[int, ...], int] = {}
        self._known: dict[tuple[Candidate, ...], int] = {}
        self._cells: dict[tuple[tuple[int, forms.Cube, forms.Cube | None], ...], int] = {}

    def place(self, entries: list[int]) -> int:
        """Index of these entries, which may be there already."""
        key = tuple(entries)
        if key not in self._placed:
            self._placed[key] = len(self.entries)
            self.entries += entries
        return self._placed[key]

    def winner(self, candidates: tuple[Candidate, ...], root: int) -> int:
        """The form whose row is strictly narrower than those of all others; TableError if there is none."""
        best = candidates[0][0]
        for other, _ in candidates[1:]:
            if self.is_narrower(other, best, root):
                best = other
        for other, _ in candidates:
            if other != best and not self.is_narrower(best, other, root):
                lines = sorted({self.forms[best].row.line, self.forms[other].row.line})
                raise table.TableError(f"x64.txt:{lines[-1]}: matches bytes that x64.txt:{lines[0]} matches too "
                                       f"({forms.ROOTS[root][0]}-bit mode)")
        return best

    def is_narrower(self, one: int, other: int, root: int) -> bool:
        a, b = self.forms[one].row_when[root], self.forms[other].row_when[root]
        assert a is not None and b is not None
        return a != b and all(x & ~y == 0 for x, y in zip(a, b, strict=True))

    def build(self, candidates: tuple[Candidate, ...], root: int) -> int:
        """Entry for what is left to be decided."""
        if not candidates:
            return 0
        known = self._known.get(candidates)
        if known is not None:
            return known
        free = tuple(item for item in candidates if item[1] == FULL)
        if free:
            winner = self.winner(free, root)
            if all(item[1] == FULL or self.is_narrower(winner, item[0], root) for item in candidates):
                return self.forms[winner].number
        fields = 0
        for _, cube in candidates:
            fields |= asked(cube)
        first, last = window(fields)
        entries = []
        width = sum(BITS[first:last + 1])
        for value in range(1 << width):
            left = ((form, answered(cube, first, last, value)) for form, cube in candidates)
            entries.append(self.build(tuple((form, rest) for form, rest in left if rest is not None), root))
        if len(set(entries)) == 1:
            entry = entries[0]
        else:
            entry = NODE | width << WIDTH | FIRST[first] << SHIFT | self.place(entries)
        self._known[candidates] = entry
        return entry

    def add_root(self, root: int) -> None:
        """The opcode tables of one mode and vendor."""
        self._known.clear()
        cells: dict[tuple[int, int], list[Candidate]] = defaultdict(list)
        for index, form in enumerate(self.forms):
            cube = form.when[root]
            if cube is not None:
                for low in range(8 if form.row.opcode_register else 1):
                    cells[forms.table_index(form.row), form.row.opcode + low].append((index, cube))
        for number in range(TABLES):
            entries = []
            for opcode in range(256):
                candidates = tuple(cells.get((number, opcode), ()))
                lines = {self.forms[index].row.has_modrm: self.forms[index].row.line for index, _ in candidates}
                if len(lines) == 2:
                    raise table.TableError(f"x64.txt:{lines[True]}: has a ModRM byte, x64.txt:{lines[False]} has none")
                # Most cells are the same in several modes.
                cell = tuple((index, cube, self.forms[index].row_when[root]) for index, cube in candidates)
                if cell not in self._cells:
                    self._cells[cell] = self.build(candidates, root) | (MODRM if True in lines else 0)
                entries.append(self._cells[cell])
            self.roots.append(self.place(entries))


def build(all_forms: list[forms.Form]) -> Tree:
    """Raises TableError where two forms match the same bytes, and where others match all bytes of a form."""
    tree = Tree(all_forms)
    tree.place([0] * 256)
    for root in range(len(forms.ROOTS)):
        tree.add_root(root)
    reached = {entry & FORM for entry in tree.entries if not entry & NODE}
    for form in all_forms:
        if form.number not in reached:
            raise table.TableError(f"x64.txt:{form.row.line}: narrower rows match all of {form.row.mnemonic} "
                                   f"(operand size {form.operand_size}, length {form.length})")
    return tree
