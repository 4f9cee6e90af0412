"""A flow's run as a model run: which of the artifacts on record are its inputs and outputs, and what is said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from ivcap_flows import __version__
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact
from ivcap_flows.identity import artifact_urns, file_urn, flows_urn
from ivcap_flows.provena.models import Associations, ModelRunRecord, TemplatedDataset
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record
from ivcap_flows.registration.mapping import MappingEntry
from ivcap_flows.registration.registry import ATTEMPTS_FIELD, SOFTWARE_FIELD
from ivcap_flows.registration.requirements import ARTIFACT
from ivcap_flows.registration.values import WorkRecord
from ivcap_flows.registration.work import annotations_of, data_urns, registered, templated

if TYPE_CHECKING:
    from ivcap_flows.journal import AttemptRow, RunRow

__all__ = ["SOFTWARE", "after_failures", "artifact_on_record", "run_inputs", "run_outputs", "run_record"]

SOFTWARE: Final = f"ivcap-flows {__version__}"


def run_inputs(run: RunRow, entry: MappingEntry, known: WorkRecord) -> list[TemplatedDataset]:
    """The inputs, artifacts by their URNs and datasets by their handles.

    Each is the dataset that the entry names, else what the flow was given by a parameter of that name, else what it
    used of that name. What the run has not got is left out. InputError for a parameter that is a file of which no
    artifact is on record.
    """
    graph = known.graph
    used = {link.target for link in graph.relations.values() if link.type == "used"}
    named = [node for node in graph.nodes.values() if node.id in used]
    return [
        part
        for name, use in entry.uses("inputs").items()
        for part in templated(
            use, known, registered(name, use, known) or _given(name, run, graph) or _called(name, named)
        )
    ]


def run_outputs(entry: MappingEntry, known: WorkRecord) -> list[TemplatedDataset]:
    """The outputs, likewise: the dataset that the entry names, else the artifacts of that name that the run made."""
    graph = known.graph
    made = {link.source for link in graph.relations.values() if link.type == "wasGeneratedBy"}
    named = [node for node in graph.nodes.values() if node.id in made]
    return [
        part
        for name, use in entry.uses("outputs").items()
        for part in templated(use, known, registered(name, use, known) or _called(name, named))
    ]


def artifact_on_record(urn: str, graph: Graph, platform: str | None = None) -> Artifact:
    """An artifact as a run has recorded it; of one that it only named, the URN."""
    record = graph.nodes.get(urn)
    facts = record.attributes if record is not None else {}
    return Artifact(
        urn=urn,
        platform=platform or facts.get("platform") or "IVCAP",
        name=facts.get("name"),
        media_type=facts.get("media_type"),
        created_at=record.time if record is not None else None,
    )


def run_record(
    run: RunRow,
    attempts: Sequence[AttemptRow],
    entry: MappingEntry,
    known: WorkRecord,
    *,
    modeller: str,
    inputs: Sequence[TemplatedDataset],
    outputs: Sequence[TemplatedDataset],
) -> ModelRunRecord:
    """What is registered of a run that completed: from the begin of its first attempt to the end of its last.

    Who ran it is the modeller. That software did it for them is said in the annotations, and in the name unless the
    entry states one; so is which attempts failed before. InputError names every fault at once.
    """
    leading = [attempt for attempt in attempts if attempt.leads]
    failed = [attempt.outcome for attempt in leading[:-1]]
    name = known.text_if(entry.display_name)
    if name is None:
        title = f"{run.flow_name} {run.id[:8]}{after_failures(failed)}, run by {SOFTWARE}"
    else:
        title = name + after_failures(failed)
    annotations = {SOFTWARE_FIELD: SOFTWARE}
    if failed:
        annotations[ATTEMPTS_FIELD] = "; ".join(f"{attempt.number}: {attempt.outcome}" for attempt in leading)
    ended = leading[-1].ended_at or run.updated_at
    record = ModelRunRecord(
        workflow_template_id=entry.workflow_template,
        model_version=known.text_if(entry.model_version),
        inputs=list(inputs),
        outputs=list(outputs),
        annotations={**annotations, **annotations_of(entry, known)},
        display_name=title,
        description=f"The flow {run.flow_name}, run by {SOFTWARE} as {flows_urn('run', run.id)}.",
        study_id=entry.study,
        associations=Associations(modeller_id=modeller, requesting_organisation_id=entry.organisation),
        start_time=int(leading[0].started_at.timestamp()),
        end_time=int(ended.timestamp()),
    )
    record.body()  # names every fault before anything is sent
    return record


def after_failures(outcomes: Iterable[str]) -> str:
    """What a name says of attempts that came to nothing, such as ` (after 2 failed, 1 lost)`."""
    counts = Counter(outcomes)
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    return f" (after {said})" if said else ""


def _given(name: str, run: RunRow, graph: Graph) -> list[str]:
    """The artifacts and datasets that a parameter of the flow names, or the artifacts that hold the file that it is."""
    value = run.parameters.get(name)
    found = dict.fromkeys(artifact_urns(value))
    used = [
        link.target
        for link in graph.relations.values()
        if link.type == "used" and link.target and _is_parameter(name, link, graph)
    ]
    for urn in used:
        found.update(dict.fromkeys(_as_data(name, urn, run, graph)))
    # A text that names a file is no handle, though it may look like one.
    if found.keys() >= set(used):
        found.update(dict.fromkeys(data_urns(value)))
    return list(found)


def _is_parameter(name: str, link: Record, graph: Graph) -> bool:
    source = graph.nodes.get(link.source or "")
    if source is None or source.type != "attempt" or source.attributes.get("subflow"):
        return False
    roles = link.attributes.get("role")
    return any(
        role == name or str(role).startswith((f"{name}.", f"{name}["))
        for role in (roles if isinstance(roles, list) else [roles])
    )


def _as_data(name: str, urn: str, run: RunRow, graph: Graph) -> list[str]:
    if urn.startswith(ARTIFACT) or (urn in graph.nodes and graph.nodes[urn].type == "dataset"):
        return [urn]
    sha256 = graph.nodes[urn].attributes.get("sha256") if urn in graph.nodes else None
    content = file_urn(sha256) if isinstance(sha256, str) else urn
    same = [
        link.source
        for link in graph.relations.values()
        if link.type == "specializationOf" and link.target == content and (link.source or "").startswith(ARTIFACT)
    ]
    if not same:
        raise InputError(
            f"The mapping says that {name} of the flow {run.flow_name} is an artifact, and the run "
            f"{flows_urn('run', run.id)} was given a file that it did not upload. Upload it in the flow, or take it "
            "out of the inputs.",
            urn=flows_urn("run", run.id),
        )
    return [same[0] or ""]


def _called(name: str, nodes: Iterable[Record]) -> list[str]:
    return [node.id for node in nodes if node.id.startswith(ARTIFACT) and node.attributes.get("name") == name]
