"""The file in which a user states what datasets are minted with: DatasetDefaults as YAML or TOML."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ivcap_flows.errors import InputError
from ivcap_flows.provena.datasets import DatasetDefaults

__all__ = ["read_defaults"]


def read_defaults(path: Path) -> DatasetDefaults:
    """The statements in a file, by its ending TOML or else YAML. InputError names every fault; data: `faults`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The statements of datasets {path} cannot be read: {error}.") from error
    value = _toml(path, text) if path.suffix.lower() == ".toml" else _yaml(path, text)
    try:
        return DatasetDefaults.model_validate(value)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        ]
        raise InputError(f"The statements of datasets {path} are wrong. {'; '.join(faults)}.", faults=faults) from None


def _yaml(path: Path, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"The statements of datasets {path} are no YAML: {error}") from error


def _toml(path: Path, text: str) -> Any:
    try:
        tomllib: Any = import_module("tomllib")
    except ImportError as error:
        raise InputError(f"TOML needs Python 3.11; write the statements of datasets {path} as YAML.") from error
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise InputError(f"The statements of datasets {path} are no TOML: {error}") from error
