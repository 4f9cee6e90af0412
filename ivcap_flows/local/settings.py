"""Settings that both embedded platforms share."""

from __future__ import annotations

from typing import Final

__all__ = ["VISIBILITY_DELAY"]

VISIBILITY_DELAY: Final = 2.0
"""Seconds within which a look-up surely sees an accepted request; `GET /_embedded` returns it."""
