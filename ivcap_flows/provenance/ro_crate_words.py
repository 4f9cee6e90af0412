"""The terms and the small parts of which the entities of an RO-Crate are made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Final

from ivcap_flows import media_types
from ivcap_flows.identity import last_part
from ivcap_flows.provenance import labels
from ivcap_flows.provenance.names import uri
from ivcap_flows.provenance.records import CONCLUDED, LEFT_OUT, Record

__all__ = [
    "ACTIONS",
    "CONTEXT",
    "DATA",
    "FAILED",
    "NOT_STATED",
    "PACKAGES",
    "PREFECT",
    "PROFILES",
    "PROPERTIES",
    "PROV",
    "PYTHON",
    "README",
    "TOOL",
    "VERSION",
    "WORDS",
    "Entity",
    "file_entity",
    "kind_of",
    "media_type_of",
    "moment",
    "name_of",
    "one_or_all",
    "python_of",
    "ref_to",
    "refs_to",
    "text_of",
    "url_of",
    "version_of",
    "why_left_out",
]

VERSION: Final = "1.1"
CONTEXT: Final = "https://w3id.org/ro/terms/workflow-run/context"
PROV: Final = "provenance/prov.json"
"""The place of the whole record in the crate."""
PACKAGES: Final = "code/requirements.txt"
"""The place of the packages' versions in the crate."""
README: Final = "README.md"
PROFILES: Final[Mapping[str, tuple[str, str, str]]] = {
    "process": ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
    "workflow": ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
    "provenance": ("https://w3id.org/ro/wfrun/provenance/0.5", "Provenance Run Crate", "0.5"),
    "base": ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0"),
}
WORDS: Final = "https://w3id.org/ro/terms/workflow-run"
PROPERTIES: Final = frozenset(
    {
        "host_kind",
        "batch_system",
        "machine",
        "system",
        "number",
        "try",
        "queue_seconds",
        "run_seconds",
        "rows",
        "shape",
        CONCLUDED,
    }
)
PYTHON: Final = "https://www.python.org/"
PREFECT: Final = "https://www.prefect.io/"
FAILED: Final = frozenset({"failed", "crashed", "lost", "cancelled", "abandoned"})
DATA: Final = frozenset({"File"})
TOOL: Final = ("SoftwareApplication",)
NOT_STATED: Final = "not stated"

Entity = dict[str, Any]
_MEDIA_TYPE: Final = re.compile(r"\w+/\w[\w.-]*(\+\w[\w.-]*)?")
ACTIONS: Final = ("CreateAction", "ActivateAction", "Action", "OrganizeAction")


def file_entity(place: str, name: str, encoding: str, description: str) -> Entity:
    return {"@id": place, "@type": "File", "name": name, "encodingFormat": encoding, "description": description}


def ref_to(id: str) -> Entity:  # noqa: A002
    return {"@id": id}


def refs_to(ids: Iterable[str]) -> Any:
    return one_or_all([ref_to(id_) for id_ in dict.fromkeys(ids)])


def one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def name_of(record: Record) -> str:
    """Return a thing's name, or else the last part of its path, or else of its URI."""
    return last_part(labels.name_of(record) or "") or record.id.rpartition(":")[2]


def media_type_of(record: Record) -> str:
    """Return the media type that the platform reports, without parameters, or else that of the thing's name."""
    media_type = media_types.essence(str(record.attributes.get("media_type") or ""))
    return media_type if _MEDIA_TYPE.fullmatch(media_type) else media_types.media_type_of(name_of(record))


def version_of(record: Record | None) -> str:
    if record is None:
        return NOT_STATED
    found = (record.attributes.get(name) for name in ("version", "commit", "source_sha256"))
    return str(next((value for value in found if value), NOT_STATED))


def python_of(code: Record) -> str:
    return str(code.attributes.get("python") or NOT_STATED)


def why_left_out(record: Record) -> str | None:
    """Return a sentence that says why the content of a thing is not in the crate; None if nothing keeps it out."""
    reason = record.attributes.get(LEFT_OUT)
    return f"The content is left out: {reason}." if reason else None


def url_of(code: Record) -> str:
    remote = code.attributes.get("remote")
    return remote if isinstance(remote, str) and remote.startswith(("https://", "http://")) else uri(code.id)


def moment(time: datetime) -> str:
    """Return a time to the millisecond with an offset in hours, as the profiles require."""
    return time.astimezone(timezone.utc).isoformat(timespec="milliseconds")


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "Boolean"
    if isinstance(value, int):
        return "Integer"
    if isinstance(value, float):
        return "Float"
    return "Text" if isinstance(value, str) else "PropertyValue"
