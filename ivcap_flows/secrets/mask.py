"""The text that replaces a secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["HIDDEN", "Mask", "hidden"]

HIDDEN: Final = "**********"
"""The text in a record instead of a secret; the same that pydantic prints. Every mask begins with it."""

Mask = Callable[[str], str]
"""Returns the replacement for a secret."""


def hidden(secret: str) -> str:
    """Return the mask that reveals nothing."""
    return HIDDEN
