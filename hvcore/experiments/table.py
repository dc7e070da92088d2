"""The table that a sweep ends in: one row a point, one NumPy array a column."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvcore.extras import extra

Value = bool | int | float | str | None


class ColumnError(KeyError):
    """There is no such column; the message has those that there are."""

    def __str__(self) -> str:
        return str(self.args[0])


class Results:
    """Rows with the same names: what was varied first, what was measured behind it.

    Parameters
    ----------
    rows
        One mapping of names to numbers, texts, booleans or None a row. A name that a row lacks is None there.
    parameters
        Which of the names were varied; the others were measured.
    """

    def __init__(self, rows: Sequence[Mapping[str, Value]], parameters: Sequence[str]) -> None:
        self.parameters = tuple(parameters)
        names = dict.fromkeys([*parameters, *(name for row in rows for name in row)])
        self.columns: dict[str, NDArray[Any]] = {name: _column([row.get(name) for row in rows]) for name in names}
        self._count = len(rows)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A column. Raises ColumnError, a KeyError."""
        try:
            return self.columns[name]
        except KeyError:
            raise ColumnError(f"no column {name!r}; there are {', '.join(self.columns)}") from None

    def __repr__(self) -> str:
        return f"<Results: {len(self)} rows of {', '.join(self.columns)}>"

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the columns that were not varied."""
        return tuple(name for name in self.columns if name not in self.parameters)

    def rows(self) -> Iterator[dict[str, Value]]:
        """Every row as a dict of Python values."""
        lists = {name: values.tolist() for name, values in self.columns.items()}
        for i in range(len(self)):
            yield {name: values[i] for name, values in lists.items()}

    def where(self, **values: Value) -> Results:
        """The rows that have these values. Raises KeyError for a column that there is not."""
        chosen = np.ones(len(self), dtype=bool)
        for name, value in values.items():
            chosen &= np.array([item == value for item in self[name].tolist()], dtype=bool)
        rows = list(self.rows())
        return Results([rows[i] for i in np.flatnonzero(chosen)], self.parameters)

    def select(self, measured: Sequence[str]) -> Results:
        """What was varied, and of what was measured these columns only. Raises KeyError for one that there is not."""
        kept = [*self.parameters, *measured]
        _ = [self[name] for name in kept]
        return Results([{name: row[name] for name in kept} for row in self.rows()], self.parameters)

    def to_csv(self, path: str | Path) -> None:
        """Write a CSV file: a line of names, then a line a row; None is an empty field."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            for row in self.rows():
                writer.writerow(["" if value is None else value for value in row.values()])

    def to_parquet(self, path: str | Path) -> None:
        """Write a Parquet file. Raises ModuleNotFoundError without pyarrow (the extra `parquet`)."""
        parquet, pyarrow = extra("pyarrow.parquet", "parquet"), extra("pyarrow", "parquet")
        columns = {name: pyarrow.array(values.tolist()) for name, values in self.columns.items()}
        parquet.write_table(pyarrow.table(columns), path)

    def to_json(self) -> str:
        """One JSON object a row, in a list."""
        return json.dumps(list(self.rows()), indent=1)

    def to_text(self) -> str:
        """A table for people: columns aligned, numbers to the right."""
        cells = [[_cell(value) for value in row.values()] for row in self.rows()]
        widths = [max(map(len, column)) for column in zip(list(self.columns), *cells, strict=True)]
        numeric = [values.dtype.kind in "iuf" for values in self.columns.values()]
        lines = [
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, numeric, strict=True)
            ).rstrip()
            for line in [list(self.columns), *cells]
        ]
        return "\n".join(lines)


def _column(values: list[Value]) -> NDArray[Any]:
    """The smallest usual dtype that holds all: bool, int64 (uint64 above), float64; objects for the rest."""
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return np.array(values, dtype=bool)
    if kinds == {int}:
        return np.array(values)
    if kinds and kinds <= {int, float}:
        return np.array(values, dtype=np.float64)
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
