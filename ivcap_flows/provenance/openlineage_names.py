"""Names of datasets and jobs in OpenLineage, by its naming specification (openlineage.io/docs/spec/naming).

All versions of a thing have the same name, so that its history is visible. A facet says which version it was.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from ivcap_flows.provenance.activities import Activities
from ivcap_flows.provenance.names import uri
from ivcap_flows.provenance.records import Record

__all__ = ["OWN", "Names"]

OWN: Final = "ivcap-flows"
"""The namespace of flows and tasks, and of values that never leave their memory."""
_HANDLES: Final = "https://hdl.handle.net"
_FILES: Final = frozenset({"file", "directory", "unhashed"})
_PROVENA: Final = frozenset({"dataset", "registry-item", "model-run", "workflow-template"})

Name = tuple[str, str]
"""A namespace, and a name within it."""


class Names:
    """The names of the things in a graph. Each thing has one name in all events."""

    def __init__(self, activities: Activities) -> None:
        self._activities = activities
        self._graph = activities.graph

    def dataset(self, record: Record) -> Name:
        """Return the name of a dataset.

        A file has its path, a thing on a platform its name there, and a value in memory the role in which it was made.
        Any other thing has its URI.
        """
        attributes = record.attributes
        if record.type == "dataset-file" and record.id.startswith("s3://"):
            place = urlsplit(record.id)
            return f"s3://{place.netloc}", place.path.lstrip("/")
        if record.type in _FILES and attributes.get("path"):
            return "file", str(attributes["path"])
        if record.type == "aspect" and attributes.get("about"):
            return self._platform(record), f"{attributes['about']}/{attributes.get('schema')}"
        if attributes.get("platform") or record.type in _PROVENA:
            return self._platform(record), str(attributes.get("name") or uri(record.id))
        for made in self._graph.links_from(record.id, "wasGeneratedBy")[:1]:
            role = made.attributes.get("role") or record.type
            roles = role if isinstance(role, list) else [role]
            return OWN, ".".join([self.job(self._graph.nodes[made.target or ""])[1], *map(str, roles[:1])])
        return OWN, uri(record.id)

    def job(self, activity: Record) -> Name:
        """Return what is run: an order's or job's service, a model run's workflow template, or a task of its flow."""
        plan = self._activities.plan(activity)
        if plan is not None and plan.type in ("service", "workflow-template"):
            named = plan.attributes.get("name") or activity.attributes.get("service_name")
            return self._platform(activity), str(named or uri(plan.id))
        own = str(activity.attributes.get("name") or activity.type)
        if activity.type == "flow-run":
            return OWN, own
        if activity.type == "attempt":
            return OWN, own if activity.attributes.get("subflow") else f"{own}.attempt"
        flow = self._activities.flow_of(activity.id)
        name = flow.attributes.get("name") if flow is not None else None
        return OWN, f"{name}.{own}" if name else own

    def _platform(self, record: Record) -> str:
        """Return `ivcap://` or `provena://` with the host, or with the id of an embedded platform."""
        platform = record.attributes.get("platform")
        scheme = "provena" if record.type in _PROVENA else "ivcap"
        if not platform:
            return _HANDLES if scheme == "provena" else scheme
        return f"{scheme}://{urlsplit(str(platform)).netloc or platform}"
