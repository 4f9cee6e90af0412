"""Check all rows before the first one is sent. Each id is looked up once."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.durable.outages import through_outages
from ivcap_flows.errors import InputError
from ivcap_flows.journal import Journal
from ivcap_flows.loop import all_of
from ivcap_flows.provena.models import DatasetTemplate, ModelRunRecord, WorkflowTemplate
from ivcap_flows.provena.prov import MAX_BATCH_BYTES
from ivcap_flows.provena.terms import Terms, missing_terms
from ivcap_flows.registration.done_rows import DoneRows
from ivcap_flows.registration.keys import marked, run_key, subject_of
from ivcap_flows.registration.registry import dataset_of, person_of
from ivcap_flows.registration.requirements import ARTIFACT, look_up, unmet, uses_of
from ivcap_flows.registration.rows import Fault, FaultKind, Row, read_record, unstorable
from ivcap_flows.registration.sources import RowSource
from ivcap_flows.registration.spool import Spool, Spooled

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["Preflight"]

_AT_ONCE: Final = 16
"""Maximum number of concurrent requests."""
_BATCH: Final = 500
_SIDES: Final = ("inputs", "outputs")
_SIDE: Final = re.compile(r"^(inputs|outputs)\[(\d+)\]")

OnProgress = Callable[[str, int, int | None], None]
"""A function that is called with what is being done, how much is done, and the total (None if unknown)."""


class Preflight:
    """Reads a source into a spool and checks it. Call `run` once; then the spool contains every fault."""

    def __init__(
        self,
        client: ProvenaClient,
        spool: Spool,
        *,
        platform: str,
        account: str,
        terms: Terms | None,
        stall_timeout: float,
        progress: OnProgress,
        journal: Journal | None = None,
    ) -> None:
        """`journal` may know runs that Provena's jobs no longer show."""
        self._client = client
        self._spool = spool
        self._journal = journal
        self._platform = platform
        self._account = account
        self._terms = terms
        self._stall_timeout = stall_timeout
        self._progress = progress
        self._workflows: dict[str, WorkflowTemplate] = {}
        self._templates: dict[str, DatasetTemplate] = {}
        self._names: Mapping[str, str] = {}

    async def run(self, source: RowSource) -> None:
        """Read and check all rows.

        Raises InputError if the source cannot be read at all, and for terms with which no dataset can be minted.
        """
        await asyncio.to_thread(self.read, source)
        self._names = source.names
        await DoneRows(self._client, self._spool, self._journal, self._stall_timeout).check()
        await self._ask_for_ids()
        await self._look_for_datasets()
        await asyncio.to_thread(self._check)

    def read(self, source: RowSource) -> None:
        """Read the rows and check each without asking Provena. Call it in a thread."""
        rows = source.rows()
        number = 0
        while batch := list(itertools.islice(rows, _BATCH)):
            self._names = source.names
            self._store(batch)
            number += len(batch)
            self._progress("read", number, None)

    def _store(self, batch: Iterable[Row]) -> None:
        rows: list[tuple[Any, ...]] = []
        faults: list[Fault] = []
        ids: dict[str, None] = {}
        artifacts: dict[str, None] = {}
        for row in batch:
            if wrong := unstorable(row):
                rows.append((row.number, None, None, None, None, None, None, "wrong", None, None))
                faults += [replace(fault, column=self._column(fault.column, row.body)) for fault in wrong]
                continue
            if row.is_done:
                rows.append((row.number, None, row.key, None, None, None, None, "done", row.handle, row.job))
                continue
            record, found = None, list(row.faults)
            if row.body is not None:
                record, more = read_record(row.number, row.body, frozenset(fault.column for fault in found))
                found += more
            if record is None:
                rows.append((row.number, None, row.key, None, None, None, None, "wrong", None, None))
            else:
                rows.append(self._keyed(row, record))
                for each in _datasets(record):
                    (artifacts if each.startswith(ARTIFACT) else ids)[each] = None
                ids |= dict.fromkeys(filter(None, (record.workflow_template_id, record.study_id, *_agents(record))))
            faults += [replace(fault, column=self._column(fault.column, row.body)) for fault in found]
        self._spool.add_rows(rows)
        self._spool.add_faults(faults)
        self._spool.references.want(each for each in ids if each.strip())
        self._spool.references.want_datasets(artifacts)

    def _keyed(self, row: Row, record: ModelRunRecord) -> tuple[Any, ...]:
        subject = subject_of(row.key, record)
        workflow = record.workflow_template_id
        key = run_key(self._platform, self._account, subject, workflow)
        body = json.dumps(record.model_dump(mode="json", exclude_none=True))
        return (row.number, key, row.key, subject, workflow, record.display_name, body, "ready", None, None)

    async def _ask_for_ids(self) -> None:
        asked = 0
        while ids := self._spool.references.unasked():
            self._spool.references.tell(await all_of(self._ask, ids, _AT_ONCE))
            needed = [use.template_id for flow in self._workflows.values() for use in uses_of(flow)]
            needed += [flow.software_id for flow in self._workflows.values()]
            self._spool.references.want(needed)
            asked += len(ids)
            self._progress("ids", asked, None)

    async def _ask(self, id: str) -> tuple[str | None, str | None, str | None, str]:  # noqa: A002 - the platform's word
        found = await through_outages(lambda: look_up(self._client, id), self._stall_timeout)
        if isinstance(found.info, WorkflowTemplate):
            self._workflows[id] = found.info
        elif isinstance(found.info, DatasetTemplate):
            self._templates[id] = found.info
        return found.subtype, found.trouble, found.words, id

    async def _look_for_datasets(self) -> None:

        async def look(artifact: str) -> tuple[str, str] | None:
            handle = await through_outages(lambda: dataset_of(self._client, artifact), self._stall_timeout)
            return (handle, artifact) if handle else None

        after, lacking = "", False
        while artifacts := self._spool.references.artifacts(after):
            found = [each for each in await all_of(look, artifacts, _AT_ONCE) if each is not None]
            self._spool.references.tell_datasets(found)
            lacking = lacking or len(found) < len(artifacts)
            after = artifacts[-1]
        if lacking and self._terms is not None and not missing_terms(self._terms):
            await self._check_terms(self._terms)

    async def _check_terms(self, terms: Terms) -> None:
        """Check the items that the terms name, since minting is the first effect and must not be refused later."""
        await person_of(self._client, self._account)
        wanted = {"organisation_id": "ORGANISATION", "publisher_id": "ORGANISATION", "data_custodian_id": "PERSON"}
        for name, subtype in wanted.items():
            if (id_ := getattr(terms, name)) is None:
                continue
            found, _, words, _ = await self._ask(id_)
            if found != subtype or words is not None:
                raise InputError(
                    f"No dataset can be minted: {name} in the Terms must be the handle of a complete item "
                    f"of {subtype}. {words or f'{id_} is {found}'}."
                )

    def _check(self) -> None:
        broken = {id_: list(self._unusable(workflow)) for id_, workflow in self._workflows.items()}
        checked = 0
        for page in self._spool.pages("ready", "wrong"):
            ids = list({each for row in page for each in _ids(row.body)})
            known = self._spool.references.known(ids)
            datasets = self._spool.references.datasets(ids)
            self._spool.add_faults(
                [
                    fault
                    for row in page
                    for fault in (
                        *self._faults(row, known, datasets),
                        *(self._fault(row, *one) for one in broken.get(row.workflow, ())),
                    )
                ]
            )
            checked += len(page)
            self._progress("checked", checked, None)
        repeated = []
        for number, first, own_key in self._spool.repeated():
            if own_key is None:
                words = f"The row is equal to row {first}; remove it, or give each a `key` if they are two runs"
                repeated.append(Fault(number, "the row", "identical rows", words))
            else:
                repeated.append(Fault(number, "key", "repeated key", f"Row {first} also has the key {own_key!r}"))
        self._spool.add_faults(repeated)

    def _faults(
        self, row: Spooled, known: Mapping[str, tuple[str | None, str | None, str | None]], datasets: Mapping[str, str]
    ) -> Iterator[Fault]:
        body = row.body

        def fault(place: str, kind: FaultKind, words: str) -> Fault:
            return self._fault(row, place, kind, words)

        def item(place: str, id: str | None, subtype: str) -> Iterator[Fault]:  # noqa: A002 - the platform's word
            if not id or not id.strip():
                return
            found, trouble, words = known[id]
            if trouble is not None:
                kind: FaultKind = "no access" if trouble == "no access" else "unknown id"
                yield fault(place, kind, words or id)
            elif found != subtype:
                yield fault(place, "wrong type", f"{id} is {found}, but {subtype} is needed")

        yield from item("workflow_template_id", row.workflow, WorkflowTemplate.subtype)
        yield from item("study_id", body.get("study_id"), "STUDY")
        people = body["associations"]
        yield from item("associations.modeller_id", people.get("modeller_id"), "PERSON")
        yield from item(
            "associations.requesting_organisation_id", people.get("requesting_organisation_id"), "ORGANISATION"
        )
        for side in _SIDES:
            for number, part in enumerate(body[side]):
                place, id_ = f"{side}[{number}].dataset_id", part["dataset_id"]
                if not id_.startswith(ARTIFACT):
                    yield from item(place, id_, "DATASET")
                elif id_ not in datasets and (missing := missing_terms(self._terms)):
                    words = f"{id_} has no dataset, and to mint one these are missing: {', '.join(missing)}"
                    yield fault(place, "no dataset", f"{words}. State them in Terms")
        workflow = self._workflows.get(row.workflow)
        if workflow is not None:
            for place, kind, words in unmet(workflow, self._templates, body):
                yield fault(place, kind, words)
        whole = {**body, "annotations": marked(body.get("annotations"), row.key, row.subject)}
        if (size := len(json.dumps(whole).encode())) > MAX_BATCH_BYTES:
            yield fault("the row", "too long", f"The record has {size:,} bytes; Provena's limit is {MAX_BATCH_BYTES:,}")

    def _unusable(self, workflow: WorkflowTemplate) -> Iterator[tuple[str, FaultKind, str]]:
        """Yield the reasons why no run of a workflow template can be registered."""
        for template in uses_of(workflow):
            if template.template_id not in self._templates:
                words = f"You cannot read its dataset template {template.template_id} as a complete DATASET_TEMPLATE"
                yield "workflow_template_id", "unknown id", words
        found, _, words_of_model = self._spool.references.known([workflow.software_id])[workflow.software_id]
        if found != "MODEL" or words_of_model is not None:
            words = words_of_model or f"{workflow.software_id} is {found}"
            yield "workflow_template_id", "unknown id", f"Its model cannot be used: {words}"

    def _fault(self, row: Spooled, place: str, kind: FaultKind, words: str) -> Fault:
        return Fault(row.number, self._column(place, row.body), kind, words)

    def _column(self, place: str, body: Mapping[str, Any] | None) -> str:
        """Return the source's name for a field of a record."""
        named = place
        if (found := _SIDE.match(place)) and body is not None:
            parts = body.get(found[1])
            part = parts[int(found[2])] if isinstance(parts, list) and int(found[2]) < len(parts) else None
            template = part.get("dataset_template_id") if isinstance(part, dict) else None
            named = f"{found[1]}[{template}]{place[found.end() :]}"
        return self._names.get(named, self._names.get(place, place))


def _datasets(record: ModelRunRecord) -> list[str]:
    return [part.dataset_id for part in (*record.inputs, *record.outputs)]


def _agents(record: ModelRunRecord) -> tuple[str | None, ...]:
    return record.associations.modeller_id, record.associations.requesting_organisation_id


def _ids(body: Mapping[str, Any]) -> Iterator[str]:
    yield body["workflow_template_id"]
    yield from filter(None, (body.get("study_id"), *body["associations"].values()))
    for side in _SIDES:
        yield from (part["dataset_id"] for part in body[side])
