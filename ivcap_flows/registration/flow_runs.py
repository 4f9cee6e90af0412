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

if TYPE_CHECKING:
    from ivcap_flows.journal import AttemptRow, RunRow

__all__ = ["SOFTWARE", "after_failures", "artifact_on_record", "run_inputs", "run_outputs", "run_record"]

SOFTWARE: Final = f"ivcap-flows {__version__}"
_ARTIFACT: Final = "urn:ivcap:artifact:"


def run_inputs(run: RunRow, graph: Graph, entry: MappingEntry) -> list[tuple[str, Artifact]]:
    """Dataset template and artifact for each input of an entry: what the flow was given by a parameter of that name,
    else what it used of that name.

    What the run has not got is left out. InputError for a parameter that is a file of which no artifact is on record.
    """
    used = {link.target for link in graph.relations.values() if link.type == "used"}
    named = [node for node in graph.nodes.values() if node.id in used]
    return [
        (template, artifact_on_record(urn, graph))
        for name, template in entry.inputs.items()
        for urn in _given(name, run, graph) or _called(name, named)
    ]


def run_outputs(graph: Graph, entry: MappingEntry) -> list[tuple[str, Artifact]]:
    """Dataset template and artifact for each output of an entry that the run has made."""
    made = {link.source for link in graph.relations.values() if link.type == "wasGeneratedBy"}
    named = [node for node in graph.nodes.values() if node.id in made]
    return [
        (template, artifact_on_record(urn, graph))
        for name, template in entry.outputs.items()
        for urn in _called(name, named)
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
    *,
    modeller: str,
    inputs: Sequence[TemplatedDataset],
    outputs: Sequence[TemplatedDataset],
) -> ModelRunRecord:
    """What is registered of a run that completed: from the begin of its first attempt to the end of its last.

    Who ran it is the modeller; that software did it for them, and which attempts failed before, is said in the name
    and in the annotations. InputError names every fault at once.
    """
    leading = [attempt for attempt in attempts if attempt.leads]
    failed = [attempt.outcome for attempt in leading[:-1]]
    title = f"{run.flow_name} {run.id[:8]}{after_failures(failed)}, run by {SOFTWARE}"
    annotations = {SOFTWARE_FIELD: SOFTWARE}
    if failed:
        annotations[ATTEMPTS_FIELD] = "; ".join(f"{attempt.number}: {attempt.outcome}" for attempt in leading)
    ended = leading[-1].ended_at or run.updated_at
    record = ModelRunRecord(
        workflow_template_id=entry.workflow_template,
        inputs=list(inputs),
        outputs=list(outputs),
        annotations={**annotations, **entry.annotations},
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
    """The artifacts that a parameter of the flow names, or that hold the file that it is."""
    found = dict.fromkeys(artifact_urns(run.parameters.get(name)))
    for link in graph.relations.values():
        if link.type == "used" and link.target and _is_parameter(name, link, graph):
            found.update(dict.fromkeys(_as_artifacts(name, link.target, run, graph)))
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


def _as_artifacts(name: str, urn: str, run: RunRow, graph: Graph) -> list[str]:
    if urn.startswith(_ARTIFACT):
        return [urn]
    sha256 = graph.nodes[urn].attributes.get("sha256") if urn in graph.nodes else None
    content = file_urn(sha256) if isinstance(sha256, str) else urn
    same = [
        link.source
        for link in graph.relations.values()
        if link.type == "specializationOf" and link.target == content and (link.source or "").startswith(_ARTIFACT)
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
    return [node.id for node in nodes if node.id.startswith(_ARTIFACT) and node.attributes.get("name") == name]
