"""What stands in the place of a secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["HIDDEN", "Mask", "hidden"]

HIDDEN: Final = "**********"
"""What stands in a record instead of a secret; the same that pydantic prints. Every mask begins with it."""

Mask = Callable[[str], str]
"""What stands for a secret, from the secret."""


def hidden(secret: str) -> str:
    """The mask that tells nothing."""
    return HIDDEN
