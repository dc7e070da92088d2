"""Smoke runs take tiny sizes."""

import pytest


@pytest.fixture
def smoke(benchmark) -> bool:
    """Only show that it works: --benchmark-disable."""
    return benchmark.disabled
