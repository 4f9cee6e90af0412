"""An order or job as a Provena model run: its record, and the effect that registers it once, whoever asks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.durable import CLOCKS, Effect, Found, Progress
from ivcap_flows.errors import InDoubtError, InputError, NotFoundError, ProtocolError, WaitTimeoutError
from ivcap_flows.handles import Job, ModelRun, Order
from ivcap_flows.identity import digest
from ivcap_flows.provena.models import Associations, JobRow, ModelRunRecord, TemplatedDataset
from ivcap_flows.provena.models import ModelRun as ModelRunInfo
from ivcap_flows.provena.wire import Wire
from ivcap_flows.registration.registry import (
    ATTEMPTS_FIELD,
    KEY_FIELD,
    SOFTWARE_FIELD,
    SUBJECT_FIELD,
    items_since,
    moment,
)

if TYPE_CHECKING:
    from ivcap_flows.journal import IntentRow
    from ivcap_flows.provena.client import ProvenaClient

__all__ = [
    "NOUN",
    "check_ended",
    "digest_of",
    "jobs_with_key",
    "model_run_effect",
    "model_run_handle",
    "model_run_record",
]

NOUN: Final = "model run"
"""The noun under which registrations are in the journal."""

_ADDED: Final = frozenset({KEY_FIELD, SUBJECT_FIELD, ATTEMPTS_FIELD, SOFTWARE_FIELD})

_PATIENCE: Final = 1800.0
"""Seconds that a registration's job may take: workers are started on demand, and each takes one job at a time."""


def check_ended(subject: Order | Job) -> datetime:
    """When the work ended. InputError for work that has not succeeded: Provena knows no other outcome."""
    if not subject.succeeded or subject.finished_at is None:
        raise InputError(
            f"{subject.urn} is {subject.status} and cannot be registered as a model run; wait for it with "
            f"wait_for_{subject.kind}s, and register what succeeded.",
            urn=subject.urn,
        )
    return subject.finished_at


def model_run_record(
    subject: Order | Job,
    *,
    workflow_template: str,
    modeller: str,
    inputs: Sequence[TemplatedDataset],
    outputs: Sequence[TemplatedDataset],
    display_name: str | None = None,
    description: str | None = None,
    annotations: Mapping[str, str] | None = None,
    organisation: str | None = None,
    study: str | None = None,
    model_version: str | None = None,
) -> ModelRunRecord:
    """What is registered of ended work; the times are the platform's own. InputError names every fault at once."""
    ended = check_ended(subject)
    title = display_name or subject.name or f"{subject.service_name or subject.service} {subject.urn}"
    record = ModelRunRecord(
        workflow_template_id=workflow_template,
        model_version=model_version,
        inputs=list(inputs),
        outputs=list(outputs),
        annotations=dict(annotations or {}),
        display_name=title,
        description=description or f"{title}, by IVCAP as {subject.urn}.",
        study_id=study,
        associations=Associations(modeller_id=modeller, requesting_organisation_id=organisation),
        start_time=int((subject.started_at or subject.requested_at or ended).timestamp()),
        end_time=int(ended.timestamp()),
    )
    record.body()  # names every fault before anything is sent
    return record


def model_run_effect(subject: str, record: ModelRunRecord, *, client: ProvenaClient, platform: str) -> Effect[ModelRun]:
    """The registration of a record, one for the URN of its subject and the workflow template.

    Sending waits until the run is lodged, and goes on with a job that was dispatched before. Raises
    RegistrationFailedError with Provena's reason, WaitTimeoutError.
    """
    request = {"subject": subject, "workflow-template": record.workflow_template_id}

    def handle(id: str, session_id: str | None, key: str, there: ModelRunRecord | None = None) -> ModelRun:  # noqa: A002 - the platform's own word
        return model_run_handle(id, there or record, request, session_id=session_id, platform=platform, key=key)

    def lodged(row: JobRow, key: str) -> ModelRun:
        run = row.checked().lodged
        if run is None:
            raise ProtocolError(
                f"The Provena job {row.session_id} succeeded without naming its model run.",
                platform=platform,
                status=200,
                sent=True,
            )
        return handle(run.id, row.session_id, key, row.record)

    async def send(intent: IntentRow, progress: Progress) -> ModelRun:
        stored: Any = progress.stored
        if isinstance(stored, dict) and stored.get("doubtful_since") and not stored.get("session_id"):
            raise InDoubtError(
                f"A batch has left the run of {subject} in doubt since {stored['doubtful_since']}. Decide with "
                "`ivcap-flows models resolve`.",
                key=intent.key,
                candidates=[],
            )
        if not (isinstance(stored, dict) and stored.get("session_id")):
            marked = {**(record.annotations or {}), KEY_FIELD: intent.key, SUBJECT_FIELD: subject}
            stored = {"session_id": await client.prov.register(record.model_copy(update={"annotations": marked}))}
            await progress.save(stored)
        try:
            ended = await client.jobs.wait(stored["session_id"], _PATIENCE)
        except NotFoundError as error:
            # Provena says otherwise that it has no such job: what is not there is its job API, and the run may be.
            raise ProtocolError(f"{error.message} Check the URL of Provena's job API.", **error.data) from error
        if ended.checked().result_batch_id is not None:
            # A batch was at it before, and its job has only sent this run on to a job of its own.
            ended = await _child(client, ended.result_batch_id or "", intent.key)
        return lodged(ended, intent.key)

    async def outcome(row: JobRow, key: str) -> Found[ModelRun] | None:
        """What a registration's job came to; None for one that failed, a guess for one that may still succeed."""
        try:
            ended = row if row.done else await client.jobs.wait(row.session_id, client.settle)
            if ended.result_batch_id is not None:
                ended = await _child(client, ended.result_batch_id, key, client.settle)
        except WaitTimeoutError:
            return Found(None, row.session_id, matched_by="guess")  # type: ignore[arg-type]  # a guess is never adopted
        if not ended.succeeded:
            return None
        run = lodged(ended, key)
        return Found(run, run.urn, moment(row.created_timestamp))

    async def find(intent: IntentRow) -> list[Found[ModelRun]]:
        outcomes = [await outcome(row, intent.key) async for row in jobs_with_key(client, intent)]
        found = [one for one in outcomes if one is not None]
        if not found:
            found += [
                Found(handle(item.id, None, intent.key, item.info.record), item.id, moment(item.created_timestamp))
                async for item in items_since(client, ModelRunInfo, intent.created_at)
                if (item.info.record.annotations or {}).get(KEY_FIELD) == intent.key
            ]
        return found

    return Effect(
        noun=NOUN,
        request=request,
        send=send,
        find=find,
        decode=ModelRun.model_validate,
        placeholder=lambda key: handle(f"urn:ivcap-flows:planned:{key}", None, key),
        settle=client.settle,
        scope="account",
        subject=record.display_name,
        resumable=True,
    )


def model_run_handle(
    id: str,  # noqa: A002 - the platform's own word
    record: ModelRunRecord | None,
    request: Mapping[str, str],
    *,
    session_id: str | None,
    platform: str,
    key: str,
) -> ModelRun:
    """The handle of a lodged run, by its record and the request of its intent."""
    return ModelRun(
        urn=id,
        platform=platform,
        session_id=session_id,
        workflow_template=request["workflow-template"],
        display_name=record.display_name if record is not None else None,
        subject=request["subject"],
        inputs=tuple(part.dataset_id for part in record.inputs) if record is not None else (),
        outputs=tuple(part.dataset_id for part in record.outputs) if record is not None else (),
        modeller=record.associations.modeller_id if record is not None else None,
        organisation=record.associations.requesting_organisation_id if record is not None else None,
        key=key,
        record_sha256=digest_of(record) if record is not None else None,
    )


def digest_of(record: ModelRunRecord) -> str:
    """SHA-256 of what a record says: without the annotations and fields that this package or a server adds to it."""
    said = _said(record)
    annotations = said.pop("annotations", {})
    own = {name: text for name, text in annotations.items() if name not in _ADDED}
    return digest(json.dumps({**said, "annotations": own}, sort_keys=True).encode())


def _said(part: Any) -> Any:
    if isinstance(part, Wire):
        return {name: _said(value) for name in type(part).model_fields if (value := getattr(part, name))}
    return [_said(each) for each in part] if isinstance(part, list) else part


async def jobs_with_key(client: ProvenaClient, intent: IntentRow) -> AsyncIterator[JobRow]:
    """The user's jobs since the intent that lodge a run with its key, newest first.

    Where only the job of its batch shows, and that has not failed, it is that one: a job of its own is still to show.
    """
    own, batch = False, None
    async for row in client.jobs.list():
        asked = moment(row.created_timestamp)
        if asked is not None and asked < intent.created_at - CLOCKS:
            break
        if not any((sent.annotations or {}).get(KEY_FIELD) == intent.key for sent in row.records):
            continue
        if row.payload.get("records") is None:
            own = True
            yield row
        elif row.status != "FAILED":
            batch = batch or row
    if batch is not None and not own:
        yield batch


async def _child(client: ProvenaClient, batch_id: str, key: str, patience: float = _PATIENCE) -> JobRow:
    """The ended job of the run with this key in a batch. WaitTimeoutError for one that does not end, or show."""
    deadline = time.monotonic() + patience
    pause = 0.25
    while True:
        async for row in client.jobs.list_batch(batch_id, page_size=500):
            record = row.record
            if row.done and record is not None and (record.annotations or {}).get(KEY_FIELD) == key:
                return row
        if time.monotonic() > deadline:
            raise WaitTimeoutError(
                f"The batch {batch_id} has not lodged its run with the key {key} within {patience:g} s. Wait again.",
                pending=[batch_id],
                status=None,
            )
        await asyncio.sleep(pause)
        pause = min(10.0, 1.5 * pause)
