"""The official clients, service SDKs and validators that tests hold ours against, in environments of their own."""

from __future__ import annotations

from pathlib import Path

import pytest


def interpreter(peer: str) -> Path:
    """The interpreter that has it; fails with the next step where there is none."""
    folder = Path(__file__).parents[2] / ".venvs" / peer
    if not (folder / ".installed").exists():
        pytest.fail(f"{peer} is not installed in {folder}. Run `make peers`.")
    return folder / "bin" / "python"
