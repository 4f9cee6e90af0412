"""Resolve a name to things on record: an id, a run, the sha256 of a content, a git commit."""

from __future__ import annotations

import os
import re
from typing import Final

from ivcap_flows.errors import InputError
from ivcap_flows.identity import file_urn, flows_urn
from ivcap_flows.journal import Journal

__all__ = ["COMMIT", "SHA256", "is_path", "starts_of"]

SHA256: Final = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
COMMIT: Final = re.compile(r"[0-9a-fA-F]{7,40}")
_OWN: Final = ("run", "attempt", "task-run", "call")


def starts_of(journal: Journal, name: str) -> list[str]:
    """Return the ids that a name means; none if nothing of that name is on record.

    A name is an id (URN or handle), a run by any name that `Runs.get` takes, a Prefect task run, a sha256, or the start
    of a git commit with at least seven digits. Raises InputError for an ambiguous name.
    """
    if journal.lineages.knows(name):
        return [name]
    if digits := SHA256.fullmatch(name):
        sha256 = digits.group(1).lower()
        content = file_urn(sha256)
        return [content] if journal.lineages.knows(content) else journal.lineages.with_version(sha256)
    for kind in _OWN:
        if journal.lineages.knows(flows_urn(kind, name)):
            return [flows_urn(kind, name)]
    codes = journal.lineages.with_version(name.lower(), code=True) if COMMIT.fullmatch(name) else []
    runs = _runs(journal, name)
    if codes and runs:
        raise InputError(f"{name} is the beginning of a commit and of the run {runs[0].rpartition(':')[2]}. Give more.")
    return runs or [*codes, *journal.lineages.followed(codes)]


def is_path(journal: Journal, name: str) -> bool:
    """Whether a text that a user gave is a path: something is there, and nothing on record has this name.

    A part of a run's id is no name here, so that a folder may be called `2010`.
    """
    if not os.path.lexists(name):
        return False
    try:
        if journal.lineages.knows(name):
            return False
        run = journal.runs.get(name)
    except InputError:
        return True
    return name != run.id and (run.id.startswith(name.lower()) or run.id.endswith(name.lower()))


def _runs(journal: Journal, name: str) -> list[str]:
    try:
        return [flows_urn("run", journal.runs.get(name).id)]
    except InputError as error:
        if error.data.get("matches"):
            raise
        return []
