"""What both embedded platforms share."""

from __future__ import annotations

from typing import Final

__all__ = ["VISIBILITY_DELAY"]

VISIBILITY_DELAY: Final = 2.0
"""Seconds within which an accepted request is surely seen by a look-up, as `GET /_embedded` tells."""
