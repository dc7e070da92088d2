"""What an instruction uses besides its operands. See implicit.pyx."""
import re
from typing import Final

ACCESS: Final[dict[str, int]]
GENERAL: Final[dict[str, int]]
HOW: Final[dict[str, int]]
MEMORY: Final[re.Pattern[str]]
ONLY_64: Final[re.Pattern[str]]
THIRTY_TWO: Final[dict[str, str]]
