"""The file that the official tools write next to a file they upload: `.ivcap-<name>.txt` with `<md5>|<artifact URN>`.

ivcap-client (`artifact.py`) ends it with a line break, ivcap-cli (`pkg/artifact.go`) does not. It names neither the
deployment nor the account, so a reader must check whether the artifact exists.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from ivcap_flows.errors import InputError, SourceChangedError
from ivcap_flows.file_state import FileState, reading
from ivcap_flows.http.tus import BLOCK
from ivcap_flows.secrets import logger_of

__all__ = ["read_side_car", "side_car_of", "write_side_car"]

_log = logger_of(__name__)

_LONGEST: Final = 4096
_ARTIFACT: Final = "urn:ivcap:artifact:"


def side_car_of(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file's side-car."""
    source = Path(path)
    return source.with_name(f".ivcap-{source.name}.txt")


def read_side_car(path: str | os.PathLike[str]) -> str | None:
    """Return the URN of the artifact that a file's side-car names, if the file still has the same content.

    A damaged or unreadable side-car counts as missing. Raises InputError if the file itself cannot be read.
    """
    FileState.of(path)
    marker = side_car_of(path)
    try:
        FileState.of(marker)  # reject a pipe or folder
        with marker.open("rb") as file:
            text = file.read(_LONGEST).decode("ascii").strip()
    except (InputError, OSError, UnicodeDecodeError):
        return None
    md5, bar, urn = text.partition("|")
    named = bar and urn.startswith(_ARTIFACT) and not any(c.isspace() or c == "|" for c in urn)
    return urn if named and md5.lower() == _md5(path) else None


def write_side_car(path: str | os.PathLike[str], urn: str, *, state: FileState | None = None) -> bool:
    """Write the side-car of a file that was uploaded as `urn`, whole or not at all; False if that is not possible.

    Raises SourceChangedError if the file differs from `state`, and InputError if it cannot be read.
    """
    if not urn.startswith(_ARTIFACT):
        raise InputError(f"A side-car names an artifact by its URN, not {urn!r}.")
    before = state or FileState.of(path)
    text = f"{_md5(path)}|{urn}\n"
    if FileState.of(path) != before:
        raise SourceChangedError(f"{os.fspath(path)} changed since it was uploaded.", path=os.fspath(path))
    marker = side_car_of(path)
    temporary = marker.with_name(f".ivcap-{secrets.token_hex(8)}.part")
    try:
        with temporary.open("x", encoding="ascii") as file:
            file.write(text)
        temporary.replace(marker)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _log.debug("%s was not written: %s", marker, error.strerror or type(error).__name__)
        return False
    return True


def _md5(path: str | os.PathLike[str]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with reading(path), open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
