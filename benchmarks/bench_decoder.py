"""What does an instruction cost in columns, and how many times more with other decoders?"""

import pytest

from benchmarks.corpus import corpus
from benchmarks.decoders import measures, table
from benchmarks.measure import report, run_rounds

ROUNDS = 5


def test_columns(benchmark, smoke):
    code = corpus(1 << 17, 1 << 15) if smoke else corpus()
    if not code:
        pytest.skip("no x86-64 programs to decode")
    results = run_rounds(benchmark, measures(code, 1 << 14 if smoke else 1 << 20), ROUNDS)
    report(benchmark, results, "hvcore portable, nine columns")
    print(table(results))
