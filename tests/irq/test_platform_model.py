"""The platform against models in plain Python: some thousand random operations; a million by random_platform.py."""

from __future__ import annotations

import random

import pytest
from random_platform import RUNS


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", RUNS)
def test_random_operations(name: str, seed: int) -> None:
    print(f"seed {seed}")
    RUNS[name](1500, random.Random(seed))
