"""Compare records with what Provena would refuse, before the first thing is made that nothing takes back."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ivcap_flows.durable import planning
from ivcap_flows.errors import BadRequestError, ForbiddenError, InputError, NotAuthorizedError, NotFoundError
from ivcap_flows.handles import Artifact
from ivcap_flows.identity import made_for_trial
from ivcap_flows.loop import all_of
from ivcap_flows.provena.models import (
    DatasetInfo,
    DatasetTemplate,
    Info,
    Item,
    Model,
    ModelRunRecord,
    TemplateUse,
    WorkflowTemplate,
)
from ivcap_flows.provena.prov import MAX_BATCH_BYTES
from ivcap_flows.provena.terms import Terms, collection_format, missing_terms
from ivcap_flows.registration.drafts import Drafts
from ivcap_flows.registration.keys import marked
from ivcap_flows.registration.registry import check_caller, dataset_of, trial_of
from ivcap_flows.registration.rows import FaultKind

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = [
    "ARTIFACT",
    "Describe",
    "LookedUp",
    "Requirements",
    "artifacts_in",
    "check_terms",
    "faults_of",
    "ids_in",
    "look_up",
    "needs_of",
    "no_dataset",
]

_SIDES: Final = ("inputs", "outputs")
_AT_ONCE: Final = 16
ARTIFACT: Final = "urn:ivcap:artifact:"
"""The prefix of a dataset id that is an artifact's URN; it means the artifact's external dataset."""

Describe: TypeAlias = Callable[[str], Awaitable[Artifact]]
"""A function from an artifact's URN to its handle, from which the artifact's dataset is minted."""
Faults: TypeAlias = Iterator[tuple[str, FaultKind, str]]
"""For each fault the place in the record, the kind, and words."""


@dataclass(frozen=True)
class LookedUp:
    """What the registry says about an id: its content (`info`, None for a seed), or why it cannot be used.

    What is `planned` would be made before it is used, so it is taken for what is needed.
    """

    subtype: str | None = None
    info: Any = None
    trouble: FaultKind | None = None
    words: str | None = None
    planned: bool = False

    def is_of(self, subtype: str) -> bool:
        """Return whether it can be used as an item of this subtype."""
        return self.planned or (self.trouble is None and self.subtype == subtype)


async def look_up(client: ProvenaClient, id: str, drafts: Mapping[str, Info]) -> LookedUp:  # noqa: A002
    """Look up an item of the registry, or what will be one. The result says why it cannot be used, if it cannot."""
    if (draft := drafts.get(id)) is not None:
        return LookedUp(draft.subtype, draft)
    if (plan := planning()) is not None and id in plan.values:
        return LookedUp(planned=True)
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


def faults_of(
    body: Mapping[str, Any],
    items: Mapping[str, LookedUp],
    lacking: Mapping[str, str | None],
    *,
    key: str,
    subject: str,
) -> Faults:
    """Yield all that Provena would refuse in a record's JSON, in which artifacts may stand for their datasets.

    `items` has what was found out about each id in it and in its workflow template; `lacking`, why an artifact that has
    no dataset can get none. Inputs and outputs may each name any template of either, as in Provena (source:
    provena/provena, prov-api).
    """
    yield from _item("workflow_template_id", body["workflow_template_id"], WorkflowTemplate.subtype, items)
    yield from _item("study_id", body.get("study_id"), "STUDY", items)
    people = body["associations"]
    yield from _item("associations.modeller_id", people.get("modeller_id"), "PERSON", items)
    organisation = people.get("requesting_organisation_id")
    yield from _item("associations.requesting_organisation_id", organisation, "ORGANISATION", items)
    for place, part in _parts(body):
        place, id_ = f"{place}.dataset_id", part["dataset_id"]
        if not id_.startswith(ARTIFACT):
            yield from _item(place, id_, DatasetInfo.subtype, items)
        elif (words := lacking.get(id_)) is not None:
            yield place, "no dataset", words
    found = items.get(body["workflow_template_id"])
    if found is not None and isinstance(found.info, WorkflowTemplate):
        yield from _unmet(found.info, body, items)
        yield from _unusable(found.info, items)
    whole = {**body, "annotations": marked(body.get("annotations"), key, subject)}
    if (size := len(json.dumps(whole).encode())) > MAX_BATCH_BYTES:
        yield "the row", "too long", f"The record has {size:,} bytes; Provena's limit is {MAX_BATCH_BYTES:,}"


def ids_in(body: Mapping[str, Any]) -> list[str]:
    """Return the ids of the registry in a record's JSON, each once."""
    named = [body["workflow_template_id"], body.get("study_id"), *body["associations"].values()]
    named += [part["dataset_id"] for _, part in _parts(body)]
    return list(dict.fromkeys(id_ for id_ in named if id_ and id_.strip() and not id_.startswith(ARTIFACT)))


def artifacts_in(body: Mapping[str, Any]) -> list[str]:
    """Return the artifacts in a record's JSON whose datasets are meant, each once."""
    named = (part["dataset_id"] for _, part in _parts(body))
    return list(dict.fromkeys(id_ for id_ in named if id_.startswith(ARTIFACT)))


def needs_of(workflow: WorkflowTemplate) -> list[str]:
    """Return the ids that a workflow template names: its dataset templates and its model."""
    return [*(use.template_id for use in _uses(workflow)), workflow.software_id]


def no_dataset(artifact: Artifact, terms: Terms | None, platform: str) -> str | None:
    """Return why no dataset can be minted for an artifact on this Provena; None if nothing is against it."""
    if made_for_trial(artifact.platform, platform):
        return trial_of(artifact.urn)
    try:
        collection_format(artifact, terms).body()
    except InputError as error:
        return str(error).rstrip(".")
    return None


async def check_terms(terms: Terms, ask: Callable[[str], Awaitable[LookedUp]]) -> None:
    """Raise InputError unless what the terms name may own datasets."""
    wanted = {"organisation_id": "ORGANISATION", "publisher_id": "ORGANISATION", "data_custodian_id": "PERSON"}
    for name, subtype in wanted.items():
        if not (id_ := getattr(terms, name)):
            continue
        found = await ask(id_)
        if not found.is_of(subtype):
            raise InputError(
                f"No dataset can be minted: {name} in the Terms must be the handle of a complete item "
                f"of {subtype}. {found.words or f'{id_} is {found.subtype}'}."
            )


@dataclass
class Requirements:
    """Checks single records, with what they would have made. Each id is looked up once, also for many records."""

    client: ProvenaClient
    drafts: Drafts
    describe: Describe
    looked: dict[str, LookedUp] = field(default_factory=dict)
    _artifacts: dict[str, Artifact] = field(default_factory=dict)

    async def check(self, record: ModelRunRecord, terms: Terms | None, *, key: str, subject: str) -> frozenset[str]:
        """Return the artifacts for which datasets must be minted. Raise InputError for all faults at once (`faults`).

        The record may name artifacts in place of their datasets, and drafts.
        """
        body = record.model_dump(mode="json", exclude_none=True)
        lacking = await self._lacking(artifacts_in(body), terms)
        drafted = any(draft in json.dumps(body) for draft in self.drafts.infos)
        await check_caller(self.client, self.drafts.account, person=drafted or bool(lacking))
        await self._look_up(ids_in(body))
        if isinstance(workflow := self.looked[record.workflow_template_id].info, WorkflowTemplate):
            await self._look_up(needs_of(workflow))
        found = faults_of(body, self.looked, lacking, key=key, subject=subject)
        if faults := [f"{place}: {words}" for place, _, words in found]:
            raise InputError(
                f"The model run of {subject} would be refused, so nothing was made for it. {'. '.join(faults)}. "
                "Correct the workflow or the arguments.",
                faults=faults,
                **({"missing": missing_terms(terms)} if lacking else {}),
            )
        return frozenset(lacking)

    async def check_artifact(self, urn: str, terms: Terms) -> bool:
        """Return whether a dataset must be minted for an artifact. Raise InputError if none can be."""
        lacking = await self._lacking([urn], terms)
        if words := lacking.get(urn):
            raise InputError(f"{words}.", missing=missing_terms(terms))
        if lacking:
            await check_caller(self.client, self.drafts.account, person=True)
        return bool(lacking)

    async def artifact(self, urn: str) -> Artifact:
        """Return the handle of an artifact."""
        if urn not in self._artifacts:
            self._artifacts[urn] = await self.describe(urn)
        return self._artifacts[urn]

    async def _lacking(self, artifacts: Sequence[str], terms: Terms | None) -> dict[str, str | None]:
        found = await all_of(lambda urn: dataset_of(self.client, urn), artifacts, _AT_ONCE)
        lacking: dict[str, str | None] = {}
        for urn in (urn for urn, dataset in zip(artifacts, found, strict=True) if dataset is None):
            try:
                lacking[urn] = no_dataset(await self.artifact(urn), terms, self.drafts.platform)
            except ForbiddenError as error:
                # IVCAP hides it.
                lacking[urn] = str(error).rstrip(".")
        if lacking and terms is not None and not missing_terms(terms):
            try:
                await check_terms(terms, self._look)
            except InputError as error:
                return {urn: why or str(error).rstrip(".") for urn, why in lacking.items()}
        return lacking

    async def _look_up(self, ids: Sequence[str]) -> None:
        await all_of(self._look, ids, _AT_ONCE)

    async def _look(self, id: str) -> LookedUp:  # noqa: A002 - the platform's own word
        if id not in self.looked:
            self.looked[id] = await look_up(self.client, id, self.drafts.infos)
        return self.looked[id]


def _parts(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for side in _SIDES:
        for number, part in enumerate(body[side]):
            yield f"{side}[{number}]", part


def _uses(workflow: WorkflowTemplate) -> list[TemplateUse]:
    return [*workflow.input_templates, *workflow.output_templates]


def _item(place: str, id: str | None, subtype: str, items: Mapping[str, LookedUp]) -> Faults:  # noqa: A002
    if not id or not id.strip():
        return
    found = items[id]
    if found.trouble is not None:
        yield place, found.trouble, found.words or id
    elif not found.is_of(subtype):
        yield place, "wrong type", f"{id} is {found.subtype}, but {subtype} is needed"


def _unusable(workflow: WorkflowTemplate, items: Mapping[str, LookedUp]) -> Faults:
    """Yield the reasons why no run of a workflow template can be registered."""
    for use in _uses(workflow):
        if not items[use.template_id].is_of(DatasetTemplate.subtype):
            words = f"You cannot read its dataset template {use.template_id} as a complete DATASET_TEMPLATE"
            yield "workflow_template_id", "unknown id", words
    model = items[workflow.software_id]
    if not model.is_of(Model.subtype):
        words = model.words or f"{workflow.software_id} is {model.subtype}"
        yield "workflow_template_id", "unknown id", f"Its model cannot be used: {words}"


def _unmet(workflow: WorkflowTemplate, body: Mapping[str, Any], items: Mapping[str, LookedUp]) -> Faults:
    """Yield what a record lacks of what its workflow template requires, or must not have."""
    templates = {
        use.template_id: found.info
        for use in _uses(workflow)
        if isinstance((found := items[use.template_id]).info, DatasetTemplate)
    }
    kinds: dict[str, FaultKind] = {"inputs": "missing input", "outputs": "missing output"}
    for side, uses in (("inputs", workflow.input_templates), ("outputs", workflow.output_templates)):
        filled = {part["dataset_template_id"] for part in body[side]}
        for use in uses:
            if not use.optional and use.template_id not in filled:
                name = templates[use.template_id].display_name if use.template_id in templates else ""
                words = f"No dataset for the template {use.template_id}{f' ({name})' if name else ''}"
                yield f"{side}[{use.template_id}]", kinds[side], words
    every = {use.template_id for use in _uses(workflow)}
    for place, part in _parts(body):
        id_ = part["dataset_template_id"]
        if id_.strip() and id_ not in every:
            words = f"The workflow template has no dataset template {id_}"
            yield f"{place}.dataset_template_id", "unknown template", words
        elif id_ in templates:
            yield from _resources(place, part, templates[id_])
    given = body.get("annotations") or {}
    for key in workflow.annotations.required if workflow.annotations else ():
        if key not in given:
            yield (f"annotations.{key}", "missing annotation", f"The workflow template requires the annotation {key!r}")


def _resources(place: str, part: Mapping[str, Any], template: DatasetTemplate) -> Faults:
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
