"""Stand-ins for native modules that are not built yet; nothing is replaced once they exist."""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

if importlib.util.find_spec("hvcore._native.engine") is None:
    from fakes import engine

    sys.modules["hvcore._native.engine"] = engine
