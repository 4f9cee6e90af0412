"""References: the ids and artifacts that rows name, and what Provena says of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ivcap_flows.registration.requirements import LookedUp
from ivcap_flows.registration.spool_file import PAGE, SpoolFile

__all__ = ["References"]

_SCHEMA: Final = """
CREATE TABLE ids (id TEXT PRIMARY KEY, subtype TEXT, trouble TEXT, words TEXT);
CREATE TABLE datasets (artifact TEXT PRIMARY KEY, handle TEXT, description TEXT, trouble TEXT);
"""


class References:
    """The references of the rows in a spool's file."""

    def __init__(self, file: SpoolFile) -> None:
        self._file = file
        file.create(_SCHEMA)

    def want(self, ids: Iterable[str]) -> None:
        """Add ids to look up in the registry; each is stored once."""
        self._file.many("INSERT OR IGNORE INTO ids (id) VALUES (?)", [(each,) for each in ids])

    def unasked(self) -> list[str]:
        return [
            row[0]
            for row in self._file.all("SELECT id FROM ids WHERE subtype IS NULL AND trouble IS NULL LIMIT ?", PAGE)
        ]

    def tell(self, told: Sequence[tuple[str | None, str | None, str | None, str]]) -> None:
        """Store what the registry says about ids, as `(subtype, trouble, words, id)`."""
        self._file.many("UPDATE ids SET subtype = ?, trouble = ?, words = ? WHERE id = ?", told)

    def known(self, ids: Sequence[str]) -> dict[str, LookedUp]:
        """Return what is known about each id, without its content."""
        found = self._file.among("SELECT id, subtype, trouble, words FROM ids WHERE id IN", ids)
        return {row[0]: LookedUp(row[1], trouble=row[2], words=row[3]) for row in found}

    def want_datasets(self, artifacts: Iterable[str]) -> None:
        """Add artifacts that rows name in place of datasets; each is stored once."""
        self._file.many("INSERT OR IGNORE INTO datasets (artifact) VALUES (?)", [(each,) for each in artifacts])

    def artifacts(self, after: str = "") -> list[str]:
        """Return the next page of artifacts after `after`."""
        query = "SELECT artifact FROM datasets WHERE artifact > ? ORDER BY artifact LIMIT ?"
        return [row[0] for row in self._file.all(query, after, PAGE)]

    def tell_datasets(self, handles: Sequence[tuple[str, str]]) -> None:
        """Store datasets, as pairs of the dataset's handle and its artifact."""
        self._file.many("UPDATE datasets SET handle = ? WHERE artifact = ?", handles)

    def datasets(self, artifacts: Sequence[str]) -> dict[str, str]:
        """Return the known datasets by their artifacts."""
        found = self._file.among(
            "SELECT artifact, handle FROM datasets WHERE handle IS NOT NULL AND artifact IN", artifacts
        )
        return {str(artifact): str(handle) for artifact, handle in found}

    def tell_lacking(self, artifacts: Sequence[tuple[str | None, str | None, str]]) -> None:
        """Store, of artifacts without a dataset, the handle's JSON and why none can be minted, if that is so."""
        self._file.many("UPDATE datasets SET description = ?, trouble = ? WHERE artifact = ?", artifacts)

    def lacking(self, artifacts: Sequence[str]) -> dict[str, str | None]:
        """Return why artifacts that have no dataset can get none; None if they can."""
        found = self._file.among(
            "SELECT artifact, trouble FROM datasets WHERE handle IS NULL AND artifact IN", artifacts
        )
        return {str(artifact): trouble for artifact, trouble in found}

    def description(self, artifact: str) -> str:
        """Return the JSON of the handle of an artifact that had no dataset."""
        return str(self._file.all("SELECT description FROM datasets WHERE artifact = ?", artifact)[0][0])
