"""The records that a handle implies: an order, for example, names its service, its inputs and its products."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any, Final

from ivcap_flows.handles import (
    Artifact,
    Aspect,
    Collection,
    Dataset,
    DatasetFile,
    Handle,
    Job,
    JobEvent,
    LocalFile,
    ModelRun,
    Order,
    RegistryItem,
)
from ivcap_flows.identity import file_urn, fingerprint, flows_urn
from ivcap_flows.provenance.records import ANNOTATION, Record, activity, agent, entity, relation
from ivcap_flows.provenance.things import THINGS
from ivcap_flows.secrets import HIDDEN, scrub_alone

__all__ = ["MOST", "content_sha256", "describe", "identify", "reference", "shortened"]

MOST: Final = 100_000
"""The maximum number of characters of a request or a result that are recorded as JSON."""

_SHOWN: Final = 200
"""The maximum number of characters of an event's message in a record."""

_OWN_ANNOTATIONS: Final = "ivcap-"
"""The prefix of the annotations that this package adds to what it registers."""

_BY_URN: Final = sorted(
    ((each.urn, name) for name, each in THINGS.items() if each.urn is not None), key=lambda row: -len(row[0])
)
"""The types of things by how their URNs begin, the longest first."""


def reference(urn: str, **attributes: Any) -> Record:
    """Return a record from a URN alone. Its noun gives kind and type; a URN with an unknown noun is an entity."""
    type_ = next((type_ for prefix, type_ in _BY_URN if urn.startswith(prefix)), "entity")
    return (activity if THINGS[type_].kind == "activity" else entity)(urn, type_, **attributes)


def identify(value: Handle | LocalFile) -> str:
    """Return the id under which a handle's thing is recorded: its URN, or the URN of a file's content."""
    return file_urn(value.sha256) if isinstance(value, LocalFile) else value.urn


def describe(value: object) -> list[Record]:
    """Return the records that a handle implies, the thing itself first; none for other values."""
    if isinstance(value, LocalFile):
        return [entity(identify(value), "content", sha256=value.sha256, size=value.size)]
    if isinstance(value, Artifact):
        return [_artifact(value)]
    if isinstance(value, DatasetFile):
        return list(_dataset_file(value))
    if isinstance(value, Order | Job):
        return list(_work(value))
    if isinstance(value, Aspect):
        return list(_aspect(value))
    if isinstance(value, Collection):
        return [
            entity(value.urn, "collection", name=value.name, description=value.description, platform=value.platform)
        ]
    if isinstance(value, ModelRun):
        return list(_model_run(value))
    if isinstance(value, RegistryItem):
        return list(_registry_item(value))
    if isinstance(value, Handle):
        return [reference(value.urn, name=getattr(value, "name", None), platform=value.platform)]
    return []


def _artifact(value: Artifact) -> Record:
    return entity(
        value.urn,
        "artifact",
        value.created_at,
        name=value.name,
        media_type=value.media_type,
        size=value.size,
        sha256=value.sha256,
        policy=value.policy,
        platform=value.platform,
    )


def _work(value: Order | Job) -> Iterator[Record]:
    yield activity(
        value.urn,
        value.kind,
        _began(value),
        _ended(value),
        name=value.name,
        status=None if value.status == "unknown" else value.status,
        outcome={"succeeded": "completed", "failed": "failed", "error": "failed"}.get(value.status),
        cause=value.error_message,
        requested_at=_text(value.requested_at),
        started_at=_text(value.started_at),
        finished_at=_text(value.finished_at),
        queue_seconds=_seconds(value.requested_at, value.started_at),
        run_seconds=_seconds(value.started_at, value.finished_at),
        service_name=value.service_name,
        service_version=value.service_version,
        parameters=value.parameters or None if isinstance(value, Order) else None,
        request=shortened(value.request) if isinstance(value, Job) else None,
        result_type=value.result_type if isinstance(value, Job) else None,
        events=[_event(event) for event in value.events] or None if isinstance(value, Job) else None,
        key=value.key,
        platform=value.platform,
    )
    if value.service:
        yield entity(value.service, "service", name=value.service_name)
        yield relation("hadPlan", value.urn, value.service)
    if value.account:
        yield agent(value.account, "user")
        yield relation("wasAssociatedWith", value.urn, value.account)
    for urn in value.inputs:
        yield reference(urn)
        yield relation("used", value.urn, urn)
    for product in value.products:
        yield _artifact(product)
        yield relation("wasGeneratedBy", product.urn, value.urn)


def _event(event: JobEvent) -> dict[str, Any]:
    """Return name, message and time of an event, in the SDK's words if there are any (ivcap-service events.py)."""
    data: Mapping[str, Any] = event.data if isinstance(event.data, Mapping) else {}
    options = data.get("options")
    inner: Mapping[str, Any] = options if isinstance(options, Mapping) else {}
    texts = (inner.get("message"), data.get("message"), data.get("error"), event.data)
    words = next((each for each in texts if each and isinstance(each, str)), None)
    shown = {
        "name": str(data.get("name") or event.schema_urn or event.type)[:_SHOWN],
        "message": None if words is None else words[:_SHOWN],
        "at": event.at.isoformat() if event.at else None,
    }
    return {name: text for name, text in shown.items() if text is not None}


def _seconds(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else max(0.0, round((end - begin).total_seconds(), 3))


def _text(time: datetime | None) -> str | None:
    return time.isoformat() if time is not None else None


def _began(value: Order | Job | ModelRun) -> datetime | None:
    """Return when the work began. If the platform does not report it and the work has ended: when it was requested."""
    if isinstance(value, ModelRun) or value.started_at is not None:
        return value.started_at
    return value.requested_at if value.done else None


def _ended(value: Order | Job | ModelRun) -> datetime | None:
    start = _began(value)
    if value.finished_at is not None and start is not None:
        return max(value.finished_at, start)
    return value.finished_at


def _aspect(value: Aspect) -> Iterator[Record]:
    yield entity(
        value.urn,
        "aspect",
        schema=value.schema_urn,
        about=value.entity,
        content_sha256=content_sha256(value.content),
        platform=value.platform,
    )
    yield reference(value.entity)
    yield relation("wasInfluencedBy", value.urn, value.entity)


def content_sha256(content: Any) -> str | None:
    """Return the digest of a content. None if it holds a secret, which the digest would help to guess."""
    return None if content is None or scrub_alone(content) != content else fingerprint(content)


def shortened(value: Any, most: int = MOST) -> Any:
    """Return a JSON value, or if its text has more than `most` characters, a stand-in with its sha256."""
    length = len(json.dumps(value, default=str))
    return value if length <= most else f"… ({length} characters, sha256 {content_sha256(value) or HIDDEN})"


def _model_run(value: ModelRun) -> Iterator[Record]:
    yield activity(
        value.urn,
        "model-run",
        value.started_at,
        _ended(value),
        name=value.display_name,
        description=value.description,
        session_id=value.session_id,
        model_version=value.model_version,
        subject=value.subject,
        key=value.key,
        platform=value.platform,
        **{
            ANNOTATION + name: text for name, text in value.annotations.items() if not name.startswith(_OWN_ANNOTATIONS)
        },
    )
    if value.workflow_template:
        yield entity(value.workflow_template, "workflow-template")
        yield relation("hadPlan", value.urn, value.workflow_template)
    for known in (value.subject and reference(value.subject), value.study and activity(value.study, "study")):
        if known and known.kind == "activity":
            yield known
            yield relation("wasInformedBy", value.urn, known.id)
    for handle, template in _with_templates(value.inputs, value.input_templates):
        yield entity(handle, "dataset")
        yield relation("used", value.urn, handle, role=template)
    for handle, template in _with_templates(value.outputs, value.output_templates):
        yield entity(handle, "dataset")
        yield relation("wasGeneratedBy", handle, value.urn, role=template)
    yield from _people(value)


def _with_templates(datasets: Sequence[str], templates: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Return each dataset with its template, if that is known."""
    return zip_longest(datasets, templates[: len(datasets)])


def _people(value: ModelRun) -> Iterator[Record]:
    """Yield who is responsible for a model run, and who owns its outputs, as in Provena's own graph.

    A person as an agent gets a name of our own, since the handle is the name of the person's record.
    """
    if value.modeller is None:
        return
    person = flows_urn("provena-person", value.modeller)
    yield agent(person, "user", handle=value.modeller)
    yield relation("wasAssociatedWith", value.urn, person)
    for handle in value.outputs:
        yield relation("wasAttributedTo", handle, person)
    if value.organisation is not None:
        organisation = flows_urn("provena-organisation", value.organisation)
        yield agent(organisation, "organisation", handle=value.organisation)
        yield relation("wasAssociatedWith", value.urn, organisation)
        yield relation("actedOnBehalfOf", person, organisation)


def _dataset_file(value: DatasetFile) -> Iterator[Record]:
    yield entity(
        value.urn, "dataset-file", name=value.path, size=value.size, sha256=value.sha256, platform=value.platform
    )
    yield entity(value.dataset, "dataset")
    yield relation("hadMember", value.dataset, value.urn)


def _registry_item(value: RegistryItem) -> Iterator[Record]:
    is_dataset = isinstance(value, Dataset)
    yield entity(
        value.urn,
        "dataset" if is_dataset else "registry-item",
        name=value.display_name,
        subtype=None if is_dataset else value.subtype,
        access_uri=value.access_uri if isinstance(value, Dataset) else None,
        platform=value.platform,
    )
    if isinstance(value, Dataset) and value.access_uri and value.access_uri.startswith("urn:ivcap:artifact:"):
        yield entity(value.access_uri, "artifact")
        yield relation("alternateOf", value.urn, value.access_uri)
