"""Random operations on six APICs of one fabric against a slow model; a million by `random_apic.py --count 1000000`."""

from __future__ import annotations

import pytest
from random_apic import OPERATIONS, run


@pytest.mark.parametrize("seed", range(4))
def test_random_operations_against_the_model(seed: int) -> None:
    print("seed", seed)
    done = run(6000, seed)
    assert set(done) == set(OPERATIONS)
