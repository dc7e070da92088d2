"""`hvcore translate`: addresses through the page tables in a memory image."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

import numpy as np

from hvcore.cli.failure import Failure, refusals
from hvcore.paging import PagingState, SavedAddressSpace, TranslationStatus

_HEXADECIMAL = ("gva", "gpa", "spa", "size", "error_code")


def translate(options: Namespace) -> int:
    """The command; returns the exit status: 1 if an address was not translated."""
    with refusals(options.image):
        state = PagingState.for_levels(options.levels, cr3=options.cr3, cpl=3 if options.user else 0)
        space = SavedAddressSpace(options.image, state, nested_root=options.nested_root, nested=options.nested_levels)
    gvas = _addresses(options.address)
    with refusals():
        if options.range:
            rows = [row for gva in gvas for row in _runs(space, gva, options)]
        else:
            rows = _translations(space, gvas, options)
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        _show(rows)
    return int(any(row["status"] != "OK" for row in rows))


def _addresses(texts: Iterable[str]) -> list[int]:
    """Numbers from the command line, or from standard input for "-"."""
    found = []
    for text in texts:
        for word in sys.stdin.read().split() if text == "-" else [text]:
            try:
                found.append(int(word, 0))
            except ValueError:
                raise Failure(f"an address must be a number like 0x7fff1000, not {word!r}") from None
            if not 0 <= found[-1] < 1 << 64:
                raise Failure(f"an address must fit in 64 bits: {word}")
    return found


def _translations(space: SavedAddressSpace, gvas: list[int], options: Namespace) -> list[dict[str, Any]]:
    if not gvas:
        return []
    found = space.translate(np.array(gvas, np.uint64), options.access)
    return [_row({"gva": gva} | {name: found[name][i] for name in found}) for i, gva in enumerate(gvas)]


def _runs(space: SavedAddressSpace, gva: int, options: Namespace) -> list[dict[str, Any]]:
    runs = space.translate_range(gva, options.range, options.access)
    return [_row(dict(zip(runs._fields, values, strict=True))) for values in zip(*runs, strict=True)]


def _row(values: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {name: hex(value) if name in _HEXADECIMAL else int(value) for name, value in values.items()}
    return row | {"status": TranslationStatus(int(values["status"])).name}


def _show(rows: list[dict[str, Any]]) -> None:
    """A table: a column a fact, as wide as it must be."""
    if rows:
        cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
        for row in cells:
            print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))
