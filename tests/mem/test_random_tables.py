"""The walker against the reference walker, on random tables in every mode, marks and references included."""

from __future__ import annotations

import pytest
from random_tables import run


@pytest.mark.parametrize("seed", range(4))
def test_walks_of_random_tables(seed: int) -> None:
    outcomes = run(1000, seed)
    assert sum(outcomes.values()) == 1000
    # Comparing nothing but faults would prove little.
    assert sum(times for outcome, times in outcomes.items() if outcome.endswith(" 0")) > 100
