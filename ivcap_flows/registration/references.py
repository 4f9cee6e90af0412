"""References: the ids and artifacts that records name, and what Provena and IVCAP say of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ivcap_flows.provena.models import DatasetTemplate, WorkflowTemplate
from ivcap_flows.registration.rows import FaultKind
from ivcap_flows.registration.spool_file import PAGE, SpoolFile

__all__ = ["LookedUp", "References"]

_SCHEMA: Final = """
CREATE TABLE ids (
    id TEXT PRIMARY KEY, asked INTEGER NOT NULL DEFAULT 0, subtype TEXT, trouble TEXT, words TEXT, planned INTEGER
);
CREATE INDEX ids_asked ON ids (asked);
CREATE TABLE datasets (
    artifact TEXT PRIMARY KEY, asked INTEGER NOT NULL DEFAULT 0, handle TEXT, description TEXT, refusal TEXT
);
CREATE INDEX datasets_asked ON datasets (asked);
"""


@dataclass(frozen=True)
class LookedUp:
    """What the registry says about an id: its content (`info`, None for a seed), or why it cannot be used.

    What is `planned` would be made before it is used, so it is taken for what is needed.
    """

    subtype: str | None = None
    info: Any = None
    trouble: FaultKind | None = None
    words: str | None = None
    planned: bool = False

    def is_of(self, subtype: str) -> bool:
        """Return whether it can be used as an item of this subtype."""
        return self.planned or (self.trouble is None and self.subtype == subtype)


class References(SpoolFile):
    """The references of some records, of which there may be many."""

    def __init__(self) -> None:
        super().__init__(_SCHEMA)
        self._templates: dict[str, LookedUp] = {}
        """The templates of workflows and datasets, with their contents. They are few."""

    def want(self, ids: Iterable[str]) -> None:
        """Add ids to look up in the registry; each is stored once."""
        self._many("INSERT OR IGNORE INTO ids (id) VALUES (?)", [(each,) for each in ids])

    def unasked(self) -> list[str]:
        """Return some of the ids that were not looked up yet; none if all were."""
        return [row[0] for row in self._all("SELECT id FROM ids WHERE asked = 0 LIMIT ?", PAGE)]

    def note(self, looked_up: Mapping[str, LookedUp]) -> None:
        """Store what the registry says about ids; of the contents, only those of templates."""
        self._templates |= {
            id_: each for id_, each in looked_up.items() if isinstance(each.info, WorkflowTemplate | DatasetTemplate)
        }
        self._many(
            "UPDATE ids SET asked = 1, subtype = ?, trouble = ?, words = ?, planned = ? WHERE id = ?",
            [(each.subtype, each.trouble, each.words, each.planned, id_) for id_, each in looked_up.items()],
        )

    def known(self, ids: Sequence[str]) -> dict[str, LookedUp]:
        """Return what is known about each id that was looked up."""
        query = "SELECT id, subtype, trouble, words, planned FROM ids WHERE asked = 1 AND id IN"
        return {
            id_: self._templates.get(id_) or LookedUp(subtype, None, trouble, words, bool(planned))
            for id_, subtype, trouble, words, planned in self._among(query, ids)
        }

    def workflows(self) -> list[WorkflowTemplate]:
        """Return the workflow templates among the ids that were looked up."""
        return [each.info for each in self._templates.values() if isinstance(each.info, WorkflowTemplate)]

    def want_datasets(self, artifacts: Iterable[str]) -> None:
        """Add artifacts that records name in place of datasets; each is stored once."""
        self._many("INSERT OR IGNORE INTO datasets (artifact) VALUES (?)", [(each,) for each in artifacts])

    def unasked_artifacts(self) -> list[str]:
        """Return some of the artifacts whose datasets were not looked for yet; none if all were."""
        return [row[0] for row in self._all("SELECT artifact FROM datasets WHERE asked = 0 LIMIT ?", PAGE)]

    def note_datasets(self, handles: Mapping[str, str]) -> None:
        """Store the handles of datasets by their artifacts."""
        self._many(
            "UPDATE datasets SET asked = 1, handle = ? WHERE artifact = ?",
            [(handle, artifact) for artifact, handle in handles.items()],
        )

    def datasets(self, artifacts: Sequence[str]) -> dict[str, str]:
        """Return the known datasets by their artifacts."""
        found = self._among("SELECT artifact, handle FROM datasets WHERE handle IS NOT NULL AND artifact IN", artifacts)
        return {str(artifact): str(handle) for artifact, handle in found}

    def note_lacking(self, artifacts: Iterable[tuple[str, str | None, str | None]]) -> None:
        """Store, for artifacts without a dataset, the JSON of their handles, or why IVCAP does not give it."""
        self._many(
            "UPDATE datasets SET asked = 1, description = ?, refusal = ? WHERE artifact = ?",
            [(description, refusal, artifact) for artifact, description, refusal in artifacts],
        )

    def lacking(self, artifacts: Sequence[str]) -> dict[str, tuple[str | None, str | None]]:
        """Return, for each artifact that has no dataset, the JSON of its handle, or why IVCAP does not give it."""
        found = self._among(
            "SELECT artifact, description, refusal FROM datasets WHERE asked = 1 AND handle IS NULL AND artifact IN",
            artifacts,
        )
        return {str(artifact): (description, refusal) for artifact, description, refusal in found}

    def lack_datasets(self) -> bool:
        """Return whether an artifact that was asked for has no dataset."""
        return bool(self._all("SELECT 1 FROM datasets WHERE asked = 1 AND handle IS NULL LIMIT 1"))
