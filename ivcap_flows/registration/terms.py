"""Read the user's Terms, with which datasets are minted, from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from ivcap_flows.provena.terms import Terms
from ivcap_flows.registration.yaml_file import read_yaml

__all__ = ["read_terms"]

_TERMS: Final = TypeAdapter(Terms)


def read_terms(path: Path) -> Terms:
    """Read Terms from a YAML file. Raises InputError, which names every fault with its line (data: `faults`)."""
    return read_yaml(path, _TERMS, "terms")
