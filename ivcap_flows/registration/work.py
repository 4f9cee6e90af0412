"""Make the model run record of an order or job as its workflow says: its data, its parameters, the platform's times."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ivcap_flows import __version__
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Job, Order
from ivcap_flows.identity import artifact_urns
from ivcap_flows.provena.models import ModelRunRecord, TemplatedDataset
from ivcap_flows.provenance import Graph, describe
from ivcap_flows.registration.model_runs import check_ended, model_run_record
from ivcap_flows.registration.registry import ATTEMPTS_FIELD, SOFTWARE_FIELD
from ivcap_flows.registration.values import Stated, WorkRecord
from ivcap_flows.registration.workflow import RegisteredUse, RegisteredWorkflow

__all__ = ["SOFTWARE", "after_failures", "annotations_of", "data_of", "data_urns", "work_record"]

SOFTWARE: Final = f"ivcap-flows {__version__}"

_HANDLE: Final = re.compile(r"\d+(?:\.\d+)+/[0-9A-Za-z._-]+")
"""A handle such as `102.100.100/1`. The prefix must have a dot, since `1/1` could also be a relative path."""


def work_record(
    work: Order | Job,
    workflow: RegisteredWorkflow,
    *,
    modeller: str,
    graph: Graph | None = None,
    earlier: Sequence[str] = (),
    **more: Any,
) -> ModelRunRecord:
    """Return the record of succeeded work, in which artifacts stand for their datasets.

    `graph` has what is known of its run; without one, it is what the work's handle says. `modeller` is the person for a
    workflow that names none. `earlier` are the outcomes of earlier requests for the same that failed. `more` are
    arguments of `model_run_record` that win over the workflow. Raises InputError for what the work does not have.
    """
    check_ended(work)
    stated = workflow.stated
    known = WorkRecord.of_work(work, graph or Graph(describe(work)))
    annotations = {SOFTWARE_FIELD: f"{work.service_name or work.service}, asked by {SOFTWARE}"}
    if earlier:
        failures = [f"{n}: {each}" for n, each in enumerate(earlier, 1)]
        annotations[ATTEMPTS_FIELD] = "; ".join([*failures, "then succeeded"])
    given = {name: value for name, value in more.items() if value is not None}
    annotations = {**annotations, **annotations_of(stated.annotations, known), **given.pop("annotations", {})}
    record = model_run_record(
        work,
        workflow_template=workflow.template,
        inputs=_inputs(work, workflow, known),
        outputs=_outputs(work, workflow, known),
        annotations=annotations,
        **{
            "modeller": stated.modeller or modeller,
            "display_name": known.text_if(stated.display_name),
            "description": known.text_if(stated.description),
            "model_version": known.text_if(stated.model_version),
            "organisation": stated.organisation,
            "study": stated.study,
            **given,
        },
    )
    return record.model_copy(update={"display_name": record.display_name + after_failures(earlier)})


def _inputs(work: Order | Job, workflow: RegisteredWorkflow, known: WorkRecord) -> list[TemplatedDataset]:
    """Return the inputs: artifacts by their URNs, datasets by their handles.

    Parameters that the work does not have are left out. Raises InputError for a parameter that is neither an artifact
    nor a dataset.
    """
    given: Any = work.parameters if isinstance(work, Order) else work.request
    values = given if isinstance(given, dict) else {}
    uses = workflow.inputs
    wrong = [
        name
        for name, use in uses.items()
        if use.dataset is None and values.get(name) is not None and not data_urns(values[name])
    ]
    if wrong:
        raise InputError(
            f"The workflow says that {', '.join(wrong)} of {work.service_name or work.service} are artifacts or "
            f"datasets, but {work.urn} was given something else. Remove them from the inputs of the workflow.",
            urn=work.urn,
        )
    return data_of(uses, known, lambda name: data_urns(values.get(name)))


def _outputs(work: Order | Job, workflow: RegisteredWorkflow, known: WorkRecord) -> list[TemplatedDataset]:
    """Return the outputs: the datasets that the workflow names, else the products with its names.

    Products that the work did not make are left out; Provena checks whether they are required.
    """
    return data_of(workflow.outputs, known, lambda name: [each.urn for each in work.products if each.name == name])


def after_failures(outcomes: Iterable[str]) -> str:
    """Return the suffix of a name for attempts without success, such as ` (after 2 failed, 1 lost)`."""
    counts = Counter(outcomes)
    failures = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    return f" (after {failures})" if failures else ""


def data_of(
    uses: Mapping[str, RegisteredUse], known: WorkRecord, found: Callable[[str], list[str]]
) -> list[TemplatedDataset]:
    """Return the data of one side of a workflow: the datasets that it names, else those `found` by the datum's name."""
    return [
        part
        for name, use in uses.items()
        for part in _templated(use, known, _registered(name, use, known) or found(name))
    ]


def _registered(name: str, use: RegisteredUse, known: WorkRecord) -> list[str]:
    """Return the datasets that a workflow names for its data, if any. Raises InputError for one that is not a text."""
    if use.dataset is None:
        return []
    if isinstance(use.dataset, str):
        return [use.dataset]
    values = [each for value in known.values(use.dataset) for each in (value if isinstance(value, list) else [value])]
    wrong = [value for value in values if not (isinstance(value, str) and value)]
    if wrong:
        raise InputError(
            f"The workflow says that {name} of {known.title} is a dataset, but {wrong[0]!r} is not a handle such as "
            "102.100.100/1. Correct the workflow.",
            urn=known.urn,
        )
    return list(dict.fromkeys(values))


def _templated(use: RegisteredUse, known: WorkRecord, found: list[str]) -> list[TemplatedDataset]:
    """Return each datum with its dataset template and the resources that the workflow states."""
    resources = {key: known.text(path) for key, path in use.resources.items()} if found else {}
    return [
        TemplatedDataset(dataset_template_id=use.template, dataset_id=each, resources=resources or None)
        for each in found
    ]


def annotations_of(stated: Mapping[str, Stated], known: WorkRecord) -> dict[str, str]:
    """Return the annotations that a workflow states."""
    return {name: known.text(each) for name, each in stated.items()}


def data_urns(value: Any) -> list[str]:
    """Return the artifacts and the dataset handles in a JSON value, each once."""
    return list(dict.fromkeys([*artifact_urns(value), *_handles(value)]))


def _handles(value: Any) -> Iterator[str]:
    if isinstance(value, str) and _HANDLE.fullmatch(value):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _handles(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _handles(inner)
