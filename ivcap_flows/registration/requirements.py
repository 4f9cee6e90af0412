"""Compare records with what Provena would refuse, before the first thing is made that nothing takes back."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from ivcap_flows.durable import planning
from ivcap_flows.durable.outages import through_outages
from ivcap_flows.errors import BadRequestError, InputError, NotAuthorizedError, NotFoundError, PlatformError
from ivcap_flows.handles import Artifact
from ivcap_flows.identity import made_for_trial
from ivcap_flows.loop import all_of
from ivcap_flows.provena.models import (
    DatasetInfo,
    DatasetTemplate,
    Item,
    Model,
    ModelRunRecord,
    TemplateUse,
    WorkflowTemplate,
)
from ivcap_flows.provena.prov import MAX_RECORD_BYTES
from ivcap_flows.provena.terms import Terms, collection_format, missing_terms
from ivcap_flows.registration.drafts import Drafts
from ivcap_flows.registration.keys import marked
from ivcap_flows.registration.references import LookedUp, References
from ivcap_flows.registration.registry import check_caller, dataset_of, person_of, trial_of
from ivcap_flows.registration.rows import FaultKind

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["ARTIFACT", "Describe", "OnProgress", "Requirements", "artifacts_in", "silent"]

_SIDES: Final = ("inputs", "outputs")
_AT_ONCE: Final = 16
"""Maximum number of concurrent requests."""
ARTIFACT: Final = "urn:ivcap:artifact:"
"""The prefix of a dataset id that is an artifact's URN; it means the artifact's external dataset."""

T = TypeVar("T")
Describe: TypeAlias = Callable[[str], Awaitable[Artifact]]
"""A function from an artifact's URN to its handle, from which the artifact's dataset is minted."""
OnProgress: TypeAlias = Callable[[str, int, int | None], None]
"""A function that is called with what is being done, how much is done, and the total (None if unknown)."""
Faults: TypeAlias = Iterator[tuple[str, FaultKind, str]]
"""For each fault the place in the record, the kind, and words."""


def silent(what: str, done: int, total: int | None) -> None:
    """Show no progress."""


class Requirements:
    """What Provena requires of one record or of many, in which artifacts may stand for datasets, and drafts for items.

    Name many records with `want`, `look_up` what they name, and read the `faults` of each; `check` does so for one.
    Each id and artifact is looked up once. `terms` are the user's statements for datasets that are minted.
    `stall_timeout` is the number of seconds for which a platform may be unreachable.
    """

    def __init__(
        self,
        drafts: Drafts,
        references: References,
        *,
        terms: Terms | None,
        describe: Describe,
        stall_timeout: float = 0.0,
        progress: OnProgress = silent,
    ) -> None:
        self.drafts = drafts
        self.references = references
        self.terms = terms
        """After `look_up`, with a draft in the place of an owner that Provena does not have."""
        self._client = drafts.client
        self._describe = describe
        self._stall_timeout = stall_timeout
        self._progress = progress
        self._useless_terms: str | None = None
        """Why no dataset can be minted with the terms, if what they name is wrong."""

    def want(self, bodies: Iterable[Mapping[str, Any]]) -> None:
        """Add records, as JSON, to those that are looked up."""
        bodies = [*bodies]
        self.references.want(dict.fromkeys(id_ for body in bodies for id_ in ids_in(body)))
        self.references.want_datasets(dict.fromkeys(urn for body in bodies for urn in artifacts_in(body)))

    async def look_up(self) -> None:
        """Look up what the records name. Raises InputError, with the next step, for a caller who may not write."""
        await self._look_up()
        drafted = bool(self.references.known([*self.drafts.infos]))
        await self._check_making(drafted=drafted, lacks=self.references.lack_datasets())

    def faults(
        self, records: Sequence[tuple[Mapping[str, Any], str, str]]
    ) -> Iterator[tuple[int, str, FaultKind, str]]:
        """Yield all that Provena would refuse of records, each given by its JSON, the key of its run and its subject.

        A fault is the index of the record, the place in it, the kind, and words.
        """
        ids = [id_ for workflow in self.references.workflows() for id_ in needs_of(workflow)]
        ids += [id_ for body, _, _ in records for id_ in ids_in(body)]
        items = self.references.known([*dict.fromkeys(ids)])
        lacking = self.lacking([*dict.fromkeys(urn for body, _, _ in records for urn in artifacts_in(body))])
        for index, (body, key, subject) in enumerate(records):
            for fault in faults_of(body, items, lacking, key=key, subject=subject):
                yield index, *fault

    def lacking(self, artifacts: Sequence[str]) -> dict[str, str | None]:
        """Return why artifacts that have no dataset can get none; None if they can."""
        return {
            urn: refusal or (self._no_dataset(Artifact.model_validate_json(description)) if description else None)
            for urn, (description, refusal) in self.references.lacking(artifacts).items()
        }

    async def check(self, record: ModelRunRecord, *, key: str, subject: str) -> None:
        """Check one record. Raises InputError for all its faults at once (`faults`)."""
        body = record.model_dump(mode="json", exclude_none=True)
        self.want([body])
        await self._look_up()
        lacks = bool(self.references.lacking(artifacts_in(body)))
        await self._check_making(drafted=any(draft in json.dumps(body) for draft in self.drafts.infos), lacks=lacks)
        if faults := [f"{place}: {words}" for _, place, _, words in self.faults([(body, key, subject)])]:
            raise InputError(
                f"The model run of {subject} would be refused, so nothing was made for it. {'. '.join(faults)}. "
                "Correct the workflow or the arguments.",
                faults=faults,
                **({"missing": missing_terms(self.terms)} if lacks else {}),
            )

    async def check_artifact(self, urn: str) -> None:
        """Check an artifact. Raises InputError if it has no dataset and none can be minted."""
        self.references.want_datasets([urn])
        await self._look_up()
        await self._check_making(drafted=False, lacks=bool(self.references.lacking([urn])))
        if words := self.lacking([urn]).get(urn):
            raise InputError(f"{words}.", missing=missing_terms(self.terms))

    async def artifact(self, urn: str) -> Artifact:
        """Return the handle of an artifact."""
        description, _ = self.references.lacking([urn]).get(urn, (None, None))
        return await self._describe(urn) if description is None else Artifact.model_validate_json(description)

    async def _look_up(self) -> None:
        """Ask for each id and artifact that was not asked for yet, and for what workflow templates name."""
        await check_caller(self._client, self.drafts.account, person=False)
        if self.terms is not None:
            self.terms = await self.terms.registered(self.drafts.name)
        await self._ask_for_ids()
        while artifacts := self.references.unasked_artifacts():
            handles = await all_of(self._dataset_of, artifacts, _AT_ONCE)
            found_there = {urn: handle for urn, handle in zip(artifacts, handles, strict=True) if handle is not None}
            self.references.note_datasets(found_there)
            missing = [urn for urn in artifacts if urn not in found_there]
            self.references.note_lacking(await all_of(self._described, missing, _AT_ONCE))

    async def _ask_for_ids(self) -> None:
        asked = 0
        while ids := self.references.unasked():
            found = dict(zip(ids, await all_of(self._item, ids, _AT_ONCE), strict=True))
            self.references.note(found)
            workflows = [each.info for each in found.values() if isinstance(each.info, WorkflowTemplate)]
            self.references.want(id_ for each in workflows for id_ in needs_of(each))
            asked += len(ids)
            self._progress("ids", asked, None)

    async def _check_making(self, *, drafted: bool, lacks: bool) -> None:
        """Find out whether items that are `drafted`, and datasets that Provena `lacks`, may be made.

        Raises InputError, with the next step, if no person is linked to the caller.
        """
        self._useless_terms, mints = None, lacks and not missing_terms(self.terms)
        if mints:
            self._useless_terms = await self._wrong_in_terms()
        if drafted or (mints and self._useless_terms is None):
            await person_of(self._client, self.drafts.account)

    async def _item(self, id: str) -> LookedUp:  # noqa: A002 - the platform's own word
        return await self._ask(lambda: look_up(self._client, id, self.drafts))

    async def _dataset_of(self, artifact: str) -> str | None:
        return await self._ask(lambda: dataset_of(self._client, artifact))

    async def _described(self, urn: str) -> tuple[str, str | None, str | None]:
        """Return an artifact's URN, and the JSON of its handle, or why IVCAP does not give it."""
        try:
            return urn, (await self._ask(lambda: self._describe(urn))).model_dump_json(), None
        except PlatformError as error:
            if error.retryable or isinstance(error, NotAuthorizedError):
                raise
            return urn, None, str(error).rstrip(".")

    async def _wrong_in_terms(self) -> str | None:
        """Return why what the terms name may not own datasets; None if nothing is against it."""
        wanted = {"organisation_id": "ORGANISATION", "publisher_id": "ORGANISATION", "data_custodian_id": "PERSON"}
        named = {name: id_ for name in wanted if (id_ := getattr(self.terms, name))}
        self.references.want(named.values())
        await self._ask_for_ids()
        known = self.references.known([*named.values()])
        for name, id_ in named.items():
            if not known[id_].is_of(wanted[name]):
                return (
                    f"No dataset can be minted: {name} in the Terms must be the handle of a complete item of "
                    f"{wanted[name]}. {known[id_].words or f'{id_} is {known[id_].subtype}'}"
                )
        return None

    def _no_dataset(self, artifact: Artifact) -> str | None:
        """Return why no dataset can be minted for an artifact on this Provena; None if nothing is against it."""
        if made_for_trial(artifact.platform, self.drafts.platform):
            return trial_of(artifact.urn)
        try:
            collection_format(artifact, self.terms).body()
        except InputError as error:
            return str(error).rstrip(".")
        return self._useless_terms

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        return await through_outages(ask, self._stall_timeout)


async def look_up(client: ProvenaClient, id: str, drafts: Drafts) -> LookedUp:  # noqa: A002
    """Look up an item of the registry, or what will be one. The result says why it cannot be used, if it cannot."""
    if (draft := drafts.infos.get(id)) is not None:
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
    if (size := len(json.dumps(whole).encode())) > MAX_RECORD_BYTES:
        yield "the row", "too long", f"The record has {size:,} bytes; Provena's limit is {MAX_RECORD_BYTES:,}"


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
