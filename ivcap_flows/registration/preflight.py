"""Check all rows before the first one is sent. Each id is looked up once."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.durable.outages import through_outages
from ivcap_flows.errors import NotAuthorizedError, PlatformError
from ivcap_flows.journal import Journal
from ivcap_flows.loop import all_of
from ivcap_flows.provena.models import DatasetTemplate, ModelRunRecord, WorkflowTemplate
from ivcap_flows.provena.terms import Terms, missing_terms
from ivcap_flows.registration.done_rows import DoneRows
from ivcap_flows.registration.drafts import Drafts
from ivcap_flows.registration.keys import run_key, subject_of
from ivcap_flows.registration.registry import check_caller, dataset_of, person_of
from ivcap_flows.registration.requirements import (
    Describe,
    LookedUp,
    artifacts_in,
    check_terms,
    faults_of,
    ids_in,
    look_up,
    needs_of,
    no_dataset,
)
from ivcap_flows.registration.rows import Fault, Row, read_record, unstorable
from ivcap_flows.registration.sources import RowSource
from ivcap_flows.registration.spool import Spool

if TYPE_CHECKING:
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["Preflight"]

_AT_ONCE: Final = 16
"""Maximum number of concurrent requests."""
_BATCH: Final = 500
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
        drafts: Drafts,
        terms: Terms | None,
        describe: Describe,
        stall_timeout: float,
        progress: OnProgress,
        journal: Journal | None = None,
    ) -> None:
        """`journal` may know runs that Provena's jobs no longer show."""
        self._client = client
        self._spool = spool
        self._journal = journal
        self._drafts = drafts
        self._terms = terms
        self._describe = describe
        self._stall_timeout = stall_timeout
        self._progress = progress
        self._templates: dict[str, LookedUp] = {}
        """The templates of workflows and datasets, with their contents."""
        self._names: Mapping[str, str] = {}

    async def run(self, source: RowSource) -> None:
        """Read and check all rows.

        Raises InputError if the source cannot be read at all, and for terms with which no dataset can be minted.
        """
        await asyncio.to_thread(self.read, source)
        self._names = source.names
        await check_caller(self._client, self._drafts.account, person=bool(self._drafts.infos))
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
                body = record.model_dump(mode="json", exclude_none=True)
                rows.append(self._keyed(row, record, body))
                ids |= dict.fromkeys(ids_in(body))
                artifacts |= dict.fromkeys(artifacts_in(body))
            faults += [replace(fault, column=self._column(fault.column, row.body)) for fault in found]
        self._spool.add_rows(rows)
        self._spool.add_faults(faults)
        self._spool.references.want(ids)
        self._spool.references.want_datasets(artifacts)

    def _keyed(self, row: Row, record: ModelRunRecord, body: Any) -> tuple[Any, ...]:
        subject = subject_of(row.key, record)
        workflow = record.workflow_template_id
        key = run_key(self._drafts.platform, self._drafts.account, subject, workflow)
        return (row.number, key, row.key, subject, workflow, record.display_name, json.dumps(body), "ready", None, None)

    async def _ask_for_ids(self) -> None:
        asked = 0
        while ids := self._spool.references.unasked():
            self._spool.references.tell(await all_of(self._ask, ids, _AT_ONCE))
            workflows = [each.info for each in self._templates.values() if isinstance(each.info, WorkflowTemplate)]
            self._spool.references.want(id_ for each in workflows for id_ in needs_of(each))
            asked += len(ids)
            self._progress("ids", asked, None)

    async def _ask(self, id: str) -> tuple[str | None, str | None, str | None, str]:  # noqa: A002 - the platform's word
        found = await self._look_up(id)
        if isinstance(found.info, WorkflowTemplate | DatasetTemplate):
            self._templates[id] = found
        return found.subtype, found.trouble, found.words, id

    async def _look_up(self, id: str) -> LookedUp:  # noqa: A002 - the platform's word
        return await through_outages(lambda: look_up(self._client, id, self._drafts.infos), self._stall_timeout)

    async def _look_for_datasets(self) -> None:
        after, lacking = "", False
        terms = await self._terms.registered(self._drafts.name) if self._terms is not None else None

        async def look(artifact: str) -> tuple[str, str] | None:
            handle = await through_outages(lambda: dataset_of(self._client, artifact), self._stall_timeout)
            return (handle, artifact) if handle else None

        async def describe(urn: str) -> tuple[str | None, str | None, str]:
            try:
                artifact = await through_outages(lambda: self._describe(urn), self._stall_timeout)
            except PlatformError as error:
                if error.retryable or isinstance(error, NotAuthorizedError):
                    raise
                # IVCAP refuses this one.
                return None, str(error).rstrip("."), urn
            return artifact.model_dump_json(), no_dataset(artifact, terms, self._drafts.platform), urn

        while artifacts := self._spool.references.artifacts(after):
            found = [each for each in await all_of(look, artifacts, _AT_ONCE) if each is not None]
            self._spool.references.tell_datasets(found)
            missing = sorted(set(artifacts) - {artifact for _, artifact in found})
            self._spool.references.tell_lacking(await all_of(describe, missing, _AT_ONCE))
            lacking = lacking or bool(missing)
            after = artifacts[-1]
        if lacking and terms is not None and not missing_terms(terms):
            await person_of(self._client, self._drafts.account)
            await check_terms(terms, self._look_up)

    def _check(self) -> None:
        checked = 0
        for page in self._spool.pages("ready", "wrong"):
            needed = [each.info for each in self._templates.values() if isinstance(each.info, WorkflowTemplate)]
            ids = {id_ for row in page for id_ in ids_in(row.body)} | {id_ for each in needed for id_ in needs_of(each)}
            items = {**self._spool.references.known(list(ids)), **self._templates}
            lacking = self._spool.references.lacking(list({each for row in page for each in artifacts_in(row.body)}))
            self._spool.add_faults(
                [
                    Fault(row.number, self._column(place, row.body), kind, words)
                    for row in page
                    for place, kind, words in faults_of(row.body, items, lacking, key=row.key, subject=row.subject)
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

    def _column(self, place: str, body: Mapping[str, Any] | None) -> str:
        """Return the source's name for a field of a record."""
        named = place
        if (found := _SIDE.match(place)) and body is not None:
            parts = body.get(found[1])
            part = parts[int(found[2])] if isinstance(parts, list) and int(found[2]) < len(parts) else None
            template = part.get("dataset_template_id") if isinstance(part, dict) else None
            named = f"{found[1]}[{template}]{place[found.end() :]}"
        return self._names.get(named, self._names.get(place, place))
