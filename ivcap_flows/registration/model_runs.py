"""Make the model run record of an order or job, register it once, and find out what became of those that were sent."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.durable import Effect, Found, Limit, Resume, look_since
from ivcap_flows.durable.wording import decide
from ivcap_flows.errors import InDoubtError, InputError, NotFoundError, ProtocolError, WaitTimeoutError
from ivcap_flows.handles import Job, ModelRun, Order
from ivcap_flows.identity import OncePer, digest
from ivcap_flows.journal import NewIntent
from ivcap_flows.provena.models import Associations, JobRow, ModelRunRecord, TemplatedDataset
from ivcap_flows.provena.runs import Lodged
from ivcap_flows.provena.wire import Wire
from ivcap_flows.registration.graph_check import is_lodged, unless_done
from ivcap_flows.registration.job_watch import JobWatch
from ivcap_flows.registration.keys import NOUN, has_own_key, marked
from ivcap_flows.registration.lookup import Newest, ProvenaState, job_failed_but_run_exists, look_for
from ivcap_flows.registration.registry import FIRST_LOOK, PACKAGE_FIELDS

if TYPE_CHECKING:
    from ivcap_flows.journal import IntentRow, Journal
    from ivcap_flows.provena.client import ProvenaClient

__all__ = [
    "ModelRunEffect",
    "adopt_sent_runs",
    "check_ended",
    "digest_of",
    "model_run_handle",
    "model_run_record",
    "run_of_state",
]

STALL_TIMEOUT: Final = 1800.0
"""Seconds without progress after which a registration's job is no longer waited for. It is long because Provena starts
workers on demand, and each worker takes one job at a time."""

Look = Callable[["IntentRow"], Awaitable[ProvenaState | None]]
"""A function that returns what Provena shows of a run."""


def check_ended(subject: Order | Job) -> datetime:
    """Return when the work ended. Raises InputError if it has not succeeded: Provena has no other outcome."""
    if not subject.succeeded or subject.finished_at is None:
        raise InputError(
            f"{subject.urn} is {subject.status}, and only work that succeeded can be registered as a model run. Wait "
            f"for it with wait_for_{subject.kind}s first.",
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
    """Return the record of ended work, with the platform's times. Raises InputError that names every fault at once."""
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


@dataclass(frozen=True, kw_only=True)
class ModelRunEffect(Effect[ModelRun]):
    """Registering a record, once per URN of its subject and workflow template.

    `send` waits until the run is lodged, and continues with a job that was dispatched before. Raises
    RegistrationFailedError with Provena's reason, and WaitTimeoutError after `stall_timeout` seconds without progress.
    The runs of a batch share a `job_watch` and a `look`; a single one looks by itself.
    """

    noun: str = NOUN
    once_per: OncePer = "account"
    resumable: bool = True
    bears_key: bool = True
    record: ModelRunRecord
    client: ProvenaClient
    platform: str
    job_watch: JobWatch
    look: Look | None
    stall_timeout: float

    @classmethod
    def of(
        cls,
        subject: str,
        record: ModelRunRecord,
        *,
        client: ProvenaClient,
        platform: str,
        limit: Limit | None = None,
        job_watch: JobWatch | None = None,
        look: Look | None = None,
        stall_timeout: float | None = None,
    ) -> ModelRunEffect:
        return cls(
            record=record,
            client=client,
            platform=platform,
            job_watch=job_watch or JobWatch(client),
            look=look,
            stall_timeout=STALL_TIMEOUT if stall_timeout is None else stall_timeout,
            request={"subject": subject, "workflow-template": record.workflow_template_id},
            visibility_delay=client.visibility_delay,
            subject=record.display_name,
            limit=limit or client.prov.registering,
        )

    async def send(self, intent: IntentRow, progress: Resume) -> ModelRun:
        stored: Any = progress.stored or {}
        try:
            if not stored:
                stored = {"session_id": await self.client.prov.register(self._marked(intent.key))}
                await progress.save(stored)
            # The caller's row is from before the request left.
            intent = replace(intent, state="sent")
            try:
                row = await self._ended(stored["session_id"], intent)
            except WaitTimeoutError:
                # A worker may have lodged the run and died before it said so.
                there = await self._find(intent, wait=False)
                if not there:
                    raise
            else:
                # A job that failed may have made its run in the registry first.
                there = row if isinstance(row, list) else [] if row.succeeded else await self.find(intent)
        except NotFoundError as error:
            # Provena reports an unknown job in another way. So an API of Provena is missing; the run may exist.
            raise ProtocolError(f"{error.message} Check the URLs of Provena's APIs.", **error.data) from error
        if there or isinstance(row, list):
            return there[0].value
        run = row.checked().lodged
        if run is None:
            raise ProtocolError(
                f"The Provena job {row.session_id} succeeded but does not name its model run.",
                platform=self.platform,
                status=200,
                sent=True,
            )
        return self._lodged(row, run, intent.key)

    async def find(self, intent: IntentRow) -> list[Found[ModelRun]]:
        return await self._find(intent, wait=True)

    async def _ended(self, job: str, intent: IntentRow) -> JobRow | list[Found[ModelRun]]:
        """Wait for a job; return its row, or its run if that is lodged and the row does not say so."""

        async def lodged() -> list[Found[ModelRun]] | None:
            try:
                return await self._find(intent, wait=False) or None
            except (InDoubtError, WaitTimeoutError):
                return None

        return await unless_done(self.job_watch.wait(job, self.stall_timeout), lodged, lambda: self.job_watch.moved)

    async def _find(self, intent: IntentRow, *, wait: bool) -> list[Found[ModelRun]]:
        """Return the run if it is lodged. With `wait`, a job that may still lodge it is waited for."""
        state = await self._provena_state(intent)
        if wait and state is not None and state.kind == "under way" and state.job is not None:
            with suppress(WaitTimeoutError):
                row = await self._ended(state.job, intent)
                if isinstance(row, list):
                    return row
                if row.lodged is not None:
                    return [Found(self._lodged(row, row.lodged, intent.key), row.lodged.id, intent.created_at)]
            state = (await look_for(self.client, [intent.key], state.since)).get(intent.key)
        if state is None or state.kind == "failed":
            # After a failed job, a later one under the key may still show.
            return []
        if state.kind == "under way" and state.handle and await is_lodged(self.client, state.handle):
            state = replace(state, kind="lodged")
        subject = self.request["subject"]
        about = f"The run of {subject}" if has_own_key(subject) else f"The run {self.record.display_name!r}"
        if state.kind == "under way":
            there = f"; the registry has its run {state.handle}, which is not lodged" if state.handle else ""
            raise WaitTimeoutError(
                f"{about} is not lodged with Provena yet: its job {state.job} has not ended, and there was no progress"
                f"{there}. Looked at: the job, and your jobs and the registry's model runs since then. Wait again.",
                pending=[state.job],
            )
        if state.kind == "in doubt":
            raise InDoubtError(
                f"{about} is in doubt. {job_failed_but_run_exists(state)}. {decide(intent.key, str(state.handle))}",
                key=intent.key,
                candidates=[state.handle],
            )
        oldest = run_of_state(state, self.request, platform=self.platform, key=intent.key, record=self.record)
        others = [oldest.model_copy(update={"urn": urn, "session_id": None}) for urn in state.more]
        return [Found(oldest, oldest.urn, intent.created_at), *(Found(each, each.urn) for each in others)]

    def decode(self, outcome: Any) -> ModelRun:
        return ModelRun.model_validate(outcome)

    def placeholder(self, key: str) -> ModelRun:
        return self._handle(f"urn:ivcap-flows:planned:{key}", self.record, key, session_id=None)

    async def _provena_state(self, intent: IntentRow) -> ProvenaState | None:
        if self.look is not None:
            return await self.look(intent)
        ended = Newest.after(self.record.end_time, FIRST_LOOK)
        unsent = intent.state == "claimed"
        since = ended if unsent else look_since(self.client.time, intent) or ended.since
        return (await look_for(self.client, [intent.key], since)).get(intent.key)

    def _lodged(self, row: JobRow, run: Lodged, key: str) -> ModelRun:
        return self._handle(run.id, row.record or self.record, key, session_id=row.session_id)

    def _marked(self, key: str) -> ModelRunRecord:
        """Return the record with the key among its annotations, by which the run is found again."""
        own = marked(self.record.annotations, key, self.request["subject"])
        return self.record.model_copy(update={"annotations": own})

    def _handle(self, urn: str, record: ModelRunRecord, key: str, *, session_id: str | None) -> ModelRun:
        return model_run_handle(urn, record, self.request, session_id=session_id, platform=self.platform, key=key)


def model_run_handle(
    id: str,  # noqa: A002 - the platform's own word
    record: ModelRunRecord | None,
    request: Mapping[str, str],
    *,
    session_id: str | None,
    platform: str,
    key: str,
) -> ModelRun:
    """Return the handle of a lodged run, made from its record and the request of its intent."""
    attributes: dict[str, Any] = {"workflow_template": request["workflow-template"]}
    if record is not None:
        attributes = {**record.of_handle(), **attributes, "record_sha256": digest_of(record)}
    return ModelRun(urn=id, platform=platform, session_id=session_id, subject=request["subject"], key=key, **attributes)


def run_of_state(
    state: ProvenaState, request: Mapping[str, str], *, platform: str, key: str, record: ModelRunRecord | None = None
) -> ModelRun:
    """Return the handle of a run that Provena shows as lodged. `record` is used if Provena does not show the record."""
    there = ModelRunRecord.model_validate_json(state.record) if state.record else record
    return model_run_handle(state.handle or "", there, request, session_id=state.job, platform=platform, key=key)


async def adopt_sent_runs(client: ProvenaClient, journal: Journal, run_id: str) -> tuple[list[str], dict[str, str]]:
    """Look for the model runs that a run has sent to this Provena, and settle the intents of those that are lodged.

    Return the keys of those that may still be lodged, and by key the reasons why the others failed.
    """
    rows = await journal.ask(journal.intents.where, run_id=run_id, limit=None)
    rows = [row for row in rows if row.noun == NOUN and row.state == "sent"]
    platform = await client.platform() if rows else None
    sent = [row for row in rows if row.platform == platform]
    if not sent:
        return [], {}
    states = await look_for(client, {intent.key for intent in sent}, look_since(client.time, *sent))
    now = await journal.ask(journal.now)
    waiting: list[str] = []
    failed: dict[str, str] = {}
    for intent in sent:
        state = states.get(intent.key)
        # Before the visibility delay is over, a later job under the key of a failed one may still appear.
        is_old = intent.sent_at is not None and (now - intent.sent_at).total_seconds() > client.visibility_delay
        if state is not None and state.kind == "in doubt":
            failed[intent.key] = f"The model run {intent.key} is in doubt. {job_failed_but_run_exists(state)}."
        elif state is not None and state.kind == "failed" and is_old:
            failed[intent.key] = f"The model run {intent.key} is not registered. Its job failed: {state.words}"
        elif state is None or state.kind != "lodged" or not await _adopt(journal, intent, state):
            waiting.append(intent.key)
    return waiting, failed


async def _adopt(journal: Journal, intent: IntentRow, state: ProvenaState) -> bool:
    """Settle the intent of a lodged run, if it is in doubt still. Return False if a live process holds it, which will
    find the same.
    """
    shared = {field.name for field in fields(NewIntent)} & vars(intent).keys()
    wanted = NewIntent(**{name: getattr(intent, name) for name in shared}, attempt_number=intent.asked_attempt)
    claim = await journal.claim(wanted, in_doubt=True)
    if claim.kind == "doubt":
        try:
            await _settle(journal, claim.intent, state)
        finally:
            await journal.ask_surely(journal.intents.release, claim.intent)
    return claim.kind != "held"


async def _settle(journal: Journal, intent: IntentRow, state: ProvenaState) -> None:
    run = run_of_state(state, intent.request, platform=intent.platform, key=intent.key)
    settle = partial(
        journal.intents.settle,
        intent,
        urn=run.urn,
        outcome=run.model_dump(mode="json"),
        how="adopted",
        matched_by="key",
        duplicates=state.more,
    )
    await journal.ask(settle)


def digest_of(record: ModelRunRecord) -> str:
    """Return the SHA-256 of a record without the annotations and fields that this package or a server adds."""
    content = _content(record)
    annotations = content.pop("annotations", {})
    own = {name: text for name, text in annotations.items() if name not in PACKAGE_FIELDS}
    return digest(json.dumps({**content, "annotations": own}, sort_keys=True).encode())


def _content(part: Any) -> Any:
    if isinstance(part, Wire):
        return {name: _content(value) for name in type(part).model_fields if (value := getattr(part, name))}
    return [_content(each) for each in part] if isinstance(part, list) else part
