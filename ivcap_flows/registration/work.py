"""What a mapping's entry says of the data of an order or job: artifacts under dataset templates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact, Job, Order
from ivcap_flows.identity import artifact_urns
from ivcap_flows.registration.mapping import MappingEntry

__all__ = ["inputs_of", "outputs_of"]


def inputs_of(work: Order | Job, entry: MappingEntry) -> list[tuple[str, str]]:
    """Dataset template and artifact URN. A parameter that the work was not given is left out."""
    given: Any = work.parameters if isinstance(work, Order) else work.request
    values = {name: given[name] for name in entry.inputs if isinstance(given, dict) and given.get(name) is not None}
    wrong = [name for name, value in values.items() if not artifact_urns(value)]
    if wrong:
        raise InputError(
            f"The mapping says that {', '.join(wrong)} of {work.service_name or work.service} are artifacts, and "
            f"{work.urn} was given something else. Take them out of its inputs.",
            urn=work.urn,
        )
    return [(entry.inputs[name], urn) for name, value in values.items() for urn in artifact_urns(value)]


def outputs_of(work: Order | Job, entry: MappingEntry) -> Sequence[tuple[str, Artifact]]:
    """Dataset template and product. What the work has not made is left out; Provena knows whether it must be there."""
    return [(entry.outputs[product.name], product) for product in work.products if product.name in entry.outputs]
