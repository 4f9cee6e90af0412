"""Make the model run record of a flow run: its inputs and outputs among the recorded artifacts, and its metadata."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact
from ivcap_flows.identity import artifact_urns, file_urn, flows_urn, short_run
from ivcap_flows.journal.rows import COMES_BACK
from ivcap_flows.provena.models import Associations, ModelRunRecord, TemplatedDataset
from ivcap_flows.provenance.graph import Graph
from ivcap_flows.provenance.records import Record
from ivcap_flows.registration.registry import ATTEMPTS_FIELD, SOFTWARE_FIELD
from ivcap_flows.registration.requirements import ARTIFACT
from ivcap_flows.registration.values import WorkRecord
from ivcap_flows.registration.work import SOFTWARE, after_failures, annotations_of, data_of, data_urns
from ivcap_flows.registration.workflow import RegisteredWorkflow

if TYPE_CHECKING:
    from ivcap_flows.journal import AttemptRow, RunRow

__all__ = ["artifact_on_record", "run_record"]


def _inputs(run: RunRow, workflow: RegisteredWorkflow, known: WorkRecord) -> list[TemplatedDataset]:
    """Return the inputs of a run: artifacts by their URNs and datasets by their handles.

    Each input is the dataset that the workflow names, else the value of the flow's parameter with that name, else an
    artifact with that name that the run used. Inputs that the run does not have are left out. Raises InputError for a
    parameter that is a file without a recorded artifact.
    """
    graph = known.graph
    named = [node for node in graph.nodes.values() if graph.links_to(node.id, "used")]
    return data_of(workflow.inputs, known, lambda name: _given(name, run, graph) or _called(name, named))


def _outputs(workflow: RegisteredWorkflow, known: WorkRecord) -> list[TemplatedDataset]:
    """Return the outputs: the datasets that the workflow names, else artifacts of that name that the run made."""
    graph = known.graph
    named = [node for node in graph.nodes.values() if graph.links_from(node.id, "wasGeneratedBy")]
    return data_of(workflow.outputs, known, lambda name: _called(name, named))


def artifact_on_record(urn: str, graph: Graph, platform: str | None = None) -> Artifact:
    """Return the handle of an artifact from a run's record. An artifact without recorded facts has only its URN."""
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
    workflow: RegisteredWorkflow,
    graph: Graph,
    *,
    modeller: str,
) -> ModelRunRecord:
    """Return the record of a completed run, from the start of its first attempt to the end of its last.

    In it, artifacts stand for their datasets. The modeller is the person who ran it. The annotations name the software
    that ran the flow and the attempts that failed before. The name says both as well; a name that the workflow states
    only gets the failed attempts. Raises InputError, which names every fault at once.
    """
    stated, known = workflow.stated, WorkRecord.of_run(run, attempts, graph)
    leading = [attempt for attempt in attempts if attempt.leads]
    # One that parked or was paused has not failed: the next one goes on with it.
    failed = [attempt.outcome for attempt in leading[:-1] if attempt.outcome not in COMES_BACK]
    name = known.text_if(stated.display_name)
    if name is None:
        title = f"{run.flow_name} {short_run(run.id)}{after_failures(failed)}, run by {SOFTWARE}"
    else:
        title = name + after_failures(failed)
    annotations = {SOFTWARE_FIELD: SOFTWARE}
    if failed:
        annotations[ATTEMPTS_FIELD] = "; ".join(f"{attempt.number}: {attempt.outcome}" for attempt in leading)
    ended = leading[-1].ended_at or run.updated_at
    record = ModelRunRecord(
        workflow_template_id=workflow.template,
        model_version=known.text_if(stated.model_version),
        inputs=_inputs(run, workflow, known),
        outputs=_outputs(workflow, known),
        annotations={**annotations, **annotations_of(stated.annotations, known)},
        display_name=title,
        description=known.text_if(stated.description)
        or f"The flow {run.flow_name}, run by {SOFTWARE} as {flows_urn('run', run.id)}.",
        study_id=stated.study,
        associations=Associations(
            modeller_id=stated.modeller or modeller, requesting_organisation_id=stated.organisation
        ),
        start_time=int(leading[0].started_at.timestamp()),
        end_time=int(ended.timestamp()),
    )
    record.body()  # names every fault before anything is sent
    return record


def _given(name: str, run: RunRow, graph: Graph) -> list[str]:
    """Return the artifacts and datasets that a parameter of the flow names, or the artifact of its file's content."""
    value = run.parameters.get(name)
    found = dict.fromkeys(artifact_urns(value))
    used = [link.target or "" for link in graph.links("used") if _is_parameter(name, link, graph)]
    for urn in used:
        found.update(dict.fromkeys(_as_data(name, urn, run, graph)))
    # A text that names a file is not a handle, even if it looks like one.
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
        link.source for link in graph.links_to(content, "specializationOf") if (link.source or "").startswith(ARTIFACT)
    ]
    if not same:
        raise InputError(
            f"The workflow says that {name} of the flow {run.flow_name} is an artifact, but in the run "
            f"{flows_urn('run', run.id)} it is a file that the run did not upload. Upload it in the flow, or remove "
            f"{name} from the inputs of the workflow.",
            urn=flows_urn("run", run.id),
        )
    return [same[0] or ""]


def _called(name: str, nodes: Iterable[Record]) -> list[str]:
    return [node.id for node in nodes if node.id.startswith(ARTIFACT) and node.attributes.get("name") == name]
