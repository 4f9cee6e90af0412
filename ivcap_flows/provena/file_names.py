"""Names of a dataset's files: relative paths that mean the same file on every machine and stay in their folder."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

__all__ = ["PLATFORM_FILE", "fault", "matches", "rivals"]

PLATFORM_FILE: Final = "metadata.json"
"""The file that Provena itself keeps with a dataset's files: the metadata that it was minted with."""

_DRIVE: Final = re.compile("[A-Za-z]:")
_UNSEEN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, surrogates (bytes that are not UTF-8), and line separators."""


def fault(name: str) -> str | None:
    """Return why a name may not be used, as the end of a sentence about it; None for a valid name."""
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
    """Return whether a file is the wanted file, or is in the wanted folder."""
    return name == wanted or name.startswith(f"{wanted.rstrip('/')}/")


def rivals(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two names that are one file on some machine; None if there are none.

    Such names differ only in case or in Unicode form, or one of them is a folder of the other.
    """
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
