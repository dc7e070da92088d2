"""Random SynIC traffic against a model: back-pressure, order, exactly-once delivery under masking, slow guests and
snapshots. The operations are in random_synic.py, the rules once more in reference_synic.py.
"""

import pytest
from random_synic import run


@pytest.mark.parametrize("seed", range(1, 9))
def test_random_sequences_against_a_model(seed):
    print("seed", seed)
    run(3000, seed)
