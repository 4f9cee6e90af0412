"""Find the data of an order or job by a mapping's entry: artifacts and datasets, each with its dataset template."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from ivcap_flows.errors import InputError
from ivcap_flows.handles import Job, Order
from ivcap_flows.identity import artifact_urns
from ivcap_flows.provena.models import TemplatedDataset
from ivcap_flows.registration.mapping import DataUse, MappingEntry
from ivcap_flows.registration.values import WorkRecord

__all__ = ["annotations_of", "data_urns", "inputs_of", "outputs_of", "registered", "templated"]

_HANDLE: Final = re.compile(r"\d+(?:\.\d+)+/[0-9A-Za-z._-]+")
"""A handle such as `102.100.100/1`. The prefix must have a dot, since `1/1` could also be a relative path."""


def inputs_of(work: Order | Job, entry: MappingEntry, known: WorkRecord) -> list[TemplatedDataset]:
    """Return the inputs: artifacts by their URNs, datasets by their handles.

    Parameters that the work does not have are left out. Raises InputError for a parameter that is neither an artifact
    nor a dataset.
    """
    given: Any = work.parameters if isinstance(work, Order) else work.request
    values = given if isinstance(given, dict) else {}
    uses = entry.uses("inputs")
    wrong = [
        name
        for name, use in uses.items()
        if use.dataset is None and values.get(name) is not None and not data_urns(values[name])
    ]
    if wrong:
        raise InputError(
            f"The mapping says that {', '.join(wrong)} of {work.service_name or work.service} are artifacts or "
            f"datasets, but {work.urn} was given something else. Remove them from the inputs of the mapping.",
            urn=work.urn,
        )
    return [
        part
        for name, use in uses.items()
        for part in templated(use, known, registered(name, use, known) or data_urns(values.get(name)))
    ]


def outputs_of(work: Order | Job, entry: MappingEntry, known: WorkRecord) -> list[TemplatedDataset]:
    """Return the outputs: the datasets that the entry names, else the products with the entry's names.

    Products that the work did not make are left out; Provena checks whether they are required.
    """
    return [
        part
        for name, use in entry.uses("outputs").items()
        for part in templated(
            use, known, registered(name, use, known) or [each.urn for each in work.products if each.name == name]
        )
    ]


def registered(name: str, use: DataUse, known: WorkRecord) -> list[str]:
    """Return the datasets that an entry names for its data, if any. Raises InputError for one that is not a text."""
    if use.dataset is None:
        return []
    if isinstance(use.dataset, str):
        return [use.dataset]
    values = [each for value in known.values(use.dataset) for each in (value if isinstance(value, list) else [value])]
    wrong = [value for value in values if not (isinstance(value, str) and value)]
    if wrong:
        raise InputError(
            f"The mapping says that {name} of {known.title} is a dataset, but {wrong[0]!r} is not a handle such as "
            "102.100.100/1. Correct the mapping.",
            urn=known.urn,
        )
    return list(dict.fromkeys(values))


def templated(use: DataUse, known: WorkRecord, data: Iterable[str]) -> list[TemplatedDataset]:
    """Return each datum with its dataset template and the resources that the entry states."""
    found = list(data)
    resources = {key: known.text(path) for key, path in use.resources.items()} if found else {}
    return [
        TemplatedDataset(dataset_template_id=use.template, dataset_id=each, resources=resources or None)
        for each in found
    ]


def annotations_of(entry: MappingEntry, known: WorkRecord) -> dict[str, str]:
    """Return the annotations that an entry states."""
    return {name: known.text(stated) for name, stated in entry.annotations.items()}


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
