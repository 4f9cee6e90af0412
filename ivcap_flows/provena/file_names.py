"""The names of a dataset's files: relative paths that mean the same file on every machine and stay in their folder."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

__all__ = ["PLATFORM_FILE", "fault", "matches", "rivals"]

PLATFORM_FILE: Final = "metadata.json"
"""What Provena itself keeps beside a dataset's files: the metadata that it was minted with."""

_DRIVE: Final = re.compile("[A-Za-z]:")
_UNSEEN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, halves of characters (bytes that are no UTF-8), and separators of lines."""


def fault(name: str) -> str | None:
    """Why a name may not be used, as the end of a sentence about it; None for a good one."""
    parts = name.split("/")
    if name.startswith("/"):
        return "is absolute"
    if ".." in parts or "." in parts:
        return "holds `.` or `..`"
    if "" in parts:
        return "holds an empty part"
    if "\\" in name:
        return "holds a backslash"
    if _DRIVE.match(name):
        return "names a drive"
    if any(unicodedata.category(character) in _UNSEEN for character in name):
        return "holds a control character or is no UTF-8"
    return None


def matches(name: str, wanted: str) -> bool:
    """Whether a file is the wanted one, or lies in the wanted folder."""
    return name == wanted or name.startswith(f"{wanted.rstrip('/')}/")


def rivals(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that are one on some machine: they differ in case or in the form of a letter, or one is a folder."""
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        above = [str(folder) for folder in PurePosixPath(folded).parents][:-1]
        other = files.get(folded) or folders.get(folded) or next((files[each] for each in above if each in files), None)
        if other is not None:
            return other, name
        files[folded] = name
        folders.update(dict.fromkeys(above, name))
    return None
