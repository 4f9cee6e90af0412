"""A broken build: what it takes out, and the function that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Mutant", "SetAttribute"]

SetAttribute = Callable[[Any, str, Any], None]
"""`setattr`, or what undoes it after a test."""


@dataclass(frozen=True)
class Mutant:
    takes_out: str
    apply: Callable[[SetAttribute], None]
