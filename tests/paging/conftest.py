"""The reference walker and the random tables of tests/mem serve here too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "mem"))
