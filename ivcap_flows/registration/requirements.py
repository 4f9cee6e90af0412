"""Compare records with the requirements of their workflow templates before they are sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.errors import BadRequestError, InputError, NotAuthorizedError, NotFoundError
from ivcap_flows.provena.models import DatasetInfo, DatasetTemplate, Item, ModelRunRecord, TemplateUse, WorkflowTemplate
from ivcap_flows.registration.rows import FaultKind

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["ARTIFACT", "LookedUp", "Requirements", "look_up", "unmet", "uses_of"]

_SIDES: Final = ("inputs", "outputs")
ARTIFACT: Final = "urn:ivcap:artifact:"
"""The prefix of a dataset id that is an artifact's URN; it means the artifact's external dataset."""


@dataclass(frozen=True)
class LookedUp:
    """What the registry says about an id: its content (`info`, None for a seed), or why it cannot be used."""

    subtype: str | None = None
    info: Any = None
    trouble: FaultKind | None = None
    words: str | None = None


async def look_up(client: ProvenaClient, id: str) -> LookedUp:  # noqa: A002 - the platform's own word
    """Look up an item of the registry. The result says why it cannot be used if it is not complete and readable."""
    try:
        item = await client.registry.fetch_any(id)
    except (NotFoundError, BadRequestError):
        return LookedUp(trouble="unknown id", words=f"The registry has no item {id}")
    except NotAuthorizedError as error:
        if error.about != "item":
            raise
        return LookedUp(trouble="no access", words=f"You may not read {id}; ask its owner for access")
    if not isinstance(item, Item):
        words = f"{id} is a seed, an id without content; complete it first"
        return LookedUp(item.item_subtype, trouble="unknown id", words=words)
    return LookedUp(item.item_subtype, item.info)


@dataclass
class Requirements:
    """Checks records before datasets replace their artifacts. Each id is looked up once."""

    client: ProvenaClient
    _known: dict[str, LookedUp] = field(default_factory=dict)

    async def check(self, record: ModelRunRecord) -> None:
        """Raise InputError if a record has faults; it names all of them (data: `faults`).

        The record may still name artifacts in place of their datasets.
        """
        faults: list[str] = []
        workflow = await self._of(record.workflow_template_id, WorkflowTemplate, faults)
        templates: dict[str, DatasetTemplate] = {}
        for use in uses_of(workflow) if workflow is not None else ():
            template = await self._of(use.template_id, DatasetTemplate, faults)
            if template is not None:
                templates[use.template_id] = template
        for part in (*record.inputs, *record.outputs):
            if not part.dataset_id.startswith(ARTIFACT):
                await self._of(part.dataset_id, DatasetInfo, faults)
        if workflow is not None:
            body = record.model_dump(mode="json", exclude_none=True)
            faults += [words for _, _, words in unmet(workflow, templates, body)]
        if faults:
            raise InputError(
                f"The workflow does not fit the workflow template {record.workflow_template_id}. {'. '.join(faults)}. "
                "Correct the workflow.",
                faults=faults,
            )

    async def _of(self, id: str, kind: type[Any], faults: list[str]) -> Any:  # noqa: A002
        if id not in self._known:
            self._known[id] = await look_up(self.client, id)
        found = self._known[id]
        if found.words is not None:
            faults.append(found.words)
        elif not isinstance(found.info, kind):
            faults.append(f"{id} is {found.subtype}, but {kind.subtype} is needed")
        else:
            return found.info
        return None


def uses_of(workflow: WorkflowTemplate) -> list[TemplateUse]:
    """Return the dataset templates of a workflow template."""
    return [*workflow.input_templates, *workflow.output_templates]


def unmet(
    workflow: WorkflowTemplate, templates: Mapping[str, DatasetTemplate], body: Mapping[str, Any]
) -> Iterator[tuple[str, FaultKind, str]]:
    """Yield what a record's JSON lacks or must not have: the place in it, the kind of fault, and words.

    `templates` are the known dataset templates. Inputs and outputs may each name any template of either, as in Provena
    (source: provena/provena, prov-api).
    """
    every = {use.template_id for use in uses_of(workflow)}
    kinds: dict[str, FaultKind] = {"inputs": "missing input", "outputs": "missing output"}
    for side, uses in (("inputs", workflow.input_templates), ("outputs", workflow.output_templates)):
        filled = {part["dataset_template_id"] for part in body[side]}
        for use in uses:
            if not use.optional and use.template_id not in filled:
                name = templates[use.template_id].display_name if use.template_id in templates else ""
                words = f"No dataset for the template {use.template_id}{f' ({name})' if name else ''}"
                yield f"{side}[{use.template_id}]", kinds[side], words
    for side in _SIDES:
        for number, part in enumerate(body[side]):
            place, id_ = f"{side}[{number}]", part["dataset_template_id"]
            if id_.strip() and id_ not in every:
                words = f"The workflow template has no dataset template {id_}"
                yield f"{place}.dataset_template_id", "unknown template", words
            elif id_ in templates:
                yield from _resources(place, part, templates[id_])
    given = body.get("annotations") or {}
    for key in workflow.annotations.required if workflow.annotations else ():
        if key not in given:
            yield (f"annotations.{key}", "missing annotation", f"The workflow template requires the annotation {key!r}")


def _resources(place: str, part: Mapping[str, Any], template: DatasetTemplate) -> Iterator[tuple[str, FaultKind, str]]:
    given = part.get("resources") or {}
    known = {resource.key: resource for resource in template.deferred_resources}
    for key, resource in known.items():
        if not resource.optional and not (given.get(key) or "").strip():
            yield (
                f"{place}.resources.{key}",
                "missing resource",
                f"The template {template.display_name!r} needs {key!r}",
            )
    for key in given:
        if key not in known:
            words = f"The template {template.display_name!r} has no deferred resource {key!r}"
            yield f"{place}.resources.{key}", "unknown resource", words
