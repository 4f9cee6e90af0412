"""Where the tests of the documentation find what they share, and what makes the pages."""

from __future__ import annotations

import sys
from pathlib import Path

# Test modules are imported one by one, so what they share has to be found; and so has what makes the pages.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "docs")]
