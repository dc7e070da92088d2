"""docs/coverage.md says what the table has, and since.txt knows every feature of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvcore._native.decoder import FORM_COUNT, MNEMONICS
from hvcore._native.isa import coverage, forms, table


def test_page_is_current() -> None:
    assert coverage.PAGE.read_text() == coverage.page(), "python -m hvcore._native.isa.coverage"


def test_numbers_are_those_of_the_decoder() -> None:
    everything, by_feature = coverage.counts(forms.load(table.load()))
    assert everything.forms == FORM_COUNT - 1
    assert len(everything.mnemonics) == len(MNEMONICS) - 1
    assert all(count.rows <= everything.rows for count in by_feature.values())
    assert set().union(*(count.rows for count in by_feature.values())) == everything.rows


def test_features_are_named_once() -> None:
    names = [origin.feature for _, lines in coverage.origins() for origin in lines]
    assert len(names) == len(set(names))


def test_unknown_feature_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shorter = tmp_path / "since.txt"
    shorter.write_text("\n".join(line for line in coverage.SINCE.read_text().splitlines() if not line.startswith("adx ")))
    sections = coverage.origins(shorter)
    monkeypatch.setattr(coverage, "origins", lambda: sections)
    with pytest.raises(coverage.CoverageError, match="adx"):
        coverage.page()
