"""Read the user's DatasetDefaults, with which datasets are minted, from a YAML or TOML file."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ivcap_flows.errors import InputError
from ivcap_flows.provena.datasets import DatasetDefaults

__all__ = ["read_defaults"]


def read_defaults(path: Path) -> DatasetDefaults:
    """Read DatasetDefaults from a file: TOML if it ends in .toml, else YAML.

    Raises InputError, which names every fault (data: `faults`).
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The DatasetDefaults in {path} cannot be read: {error}.") from error
    value = _toml(path, text) if path.suffix.lower() == ".toml" else _yaml(path, text)
    try:
        return DatasetDefaults.model_validate(value)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'the whole file'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        ]
        raise InputError(f"The DatasetDefaults in {path} are wrong. {'; '.join(faults)}.", faults=faults) from None


def _yaml(path: Path, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"The DatasetDefaults in {path} are not valid YAML: {error}") from error


def _toml(path: Path, text: str) -> Any:
    try:
        tomllib: Any = import_module("tomllib")
    except ImportError as error:
        raise InputError(f"TOML needs Python 3.11: write the DatasetDefaults in {path} as YAML instead.") from error
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise InputError(f"The DatasetDefaults in {path} are not valid TOML: {error}") from error
