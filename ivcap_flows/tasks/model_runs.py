"""Tasks for Provena model runs: register an order or job once, whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from ivcap_flows.durable import Effect, Found, Progress
from ivcap_flows.errors import InputError, NotFoundError, ProtocolError, WaitTimeoutError
from ivcap_flows.handles import Artifact, Dataset, Handle, Job, ModelRun, Order, RegistryItem
from ivcap_flows.journal import IntentRow
from ivcap_flows.provena.datasets import DatasetDefaults
from ivcap_flows.provena.models import Associations, JobRow, ModelRunRecord, TemplatedDataset
from ivcap_flows.provena.models import ModelRun as ModelRunInfo
from ivcap_flows.tasks.call import ProvenaCall, ProvenaCredentialsLike, urn_of
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.registry import KEY_FIELD, alinked_person, amint_dataset, items_since

__all__ = ["Data", "aregister_model_run", "register_model_run"]

Data = Artifact | Dataset | str
"""An artifact, for which a dataset is found or minted; or a dataset, or its handle."""

_PATIENCE: Final = 1800.0
"""Seconds that a registration's job may take: workers are started on demand, and each takes one job at a time."""

_CLOCKS: Final = timedelta(minutes=5)
"""By how much this machine's clock and Provena's may differ."""


async def _register_model_run(
    subject: Order | Job,
    *,
    workflow_template: RegistryItem | str,
    inputs: Mapping[RegistryItem | str, Data | Sequence[Data]],
    outputs: Mapping[RegistryItem | str, Data | Sequence[Data]],
    display_name: str | None = None,
    description: str | None = None,
    resources: Mapping[RegistryItem | str, Mapping[str, str]] | None = None,
    annotations: Mapping[str, str] | None = None,
    modeller: RegistryItem | str | None = None,
    organisation: RegistryItem | str | None = None,
    study: RegistryItem | str | None = None,
    model_version: str | None = None,
    datasets: DatasetDefaults | None = None,
    credentials: ProvenaCredentialsLike = None,
) -> ModelRun:
    """Register an ended order or job with Provena as a model run, once for its URN and the workflow template.

    `inputs` and `outputs` map dataset templates to their data: artifacts, for each of which an external dataset is
    found or minted from `datasets`, or dataset handles. `resources` gives the deferred resources of a template, key to
    relative path. The modeller is the caller's linked person unless given. The times are the platform's own.

    Waits until the run is lodged. Raises InputError for work that has not ended and for what nobody has stated,
    RegistrationFailedError with Provena's reason, InDoubtError where a registration may still happen.
    """
    call = await ProvenaCall.of(credentials)
    call.check(workflow_template, list(inputs), list(outputs), modeller, organisation, study)
    call.check([each for _, each in (*_rows(inputs), *_rows(outputs)) if isinstance(each, Dataset)])
    if not subject.succeeded or subject.finished_at is None:
        raise InputError(
            f"{subject.urn} is {subject.status} and cannot be registered as a model run; wait for it with "
            f"wait_for_{subject.kind}s, and register what succeeded.",
            urn=subject.urn,
        )
    template = urn_of(workflow_template)
    person = urn_of(modeller) if modeller is not None else (await alinked_person.fn(credentials=credentials)).urn
    title = display_name or subject.name or f"{subject.service_name or subject.service} {subject.urn}"
    sides = [await _datasets(side, resources or {}, datasets, credentials) for side in (inputs, outputs)]
    record = ModelRunRecord(
        workflow_template_id=template,
        model_version=model_version,
        inputs=sides[0],
        outputs=sides[1],
        annotations=dict(annotations or {}),
        display_name=title,
        description=description or f"{title}, by IVCAP as {subject.urn}.",
        study_id=urn_of(study) if study is not None else None,
        associations=Associations(
            modeller_id=person,
            requesting_organisation_id=urn_of(organisation) if organisation is not None else None,
        ),
        start_time=_seconds(subject.started_at or subject.requested_at or subject.finished_at),
        end_time=_seconds(subject.finished_at),
    )
    record.body()  # names every fault before anything is sent

    def handle(id: str, session_id: str | None, key: str) -> ModelRun:  # noqa: A002 - the platform's own word
        return ModelRun(
            urn=id,
            platform=call.platform,
            session_id=session_id,
            workflow_template=template,
            display_name=title,
            subject=subject.urn,
            inputs=tuple(part.dataset_id for part in record.inputs),
            outputs=tuple(part.dataset_id for part in record.outputs),
            key=key,
        )

    def lodged(row: JobRow, key: str) -> ModelRun:
        run = row.checked().lodged
        if run is None:
            raise ProtocolError(
                f"The Provena job {row.session_id} succeeded without naming its model run.",
                platform=call.platform,
                status=200,
                sent=True,
            )
        return handle(run.id, row.session_id, key)

    async def send(intent: IntentRow, progress: Progress) -> ModelRun:
        stored: Any = progress.stored
        if not (isinstance(stored, dict) and stored.get("session_id")):
            marked = {**(record.annotations or {}), KEY_FIELD: intent.key, "ivcap-subject": subject.urn}
            stored = {"session_id": await call.client.prov.register(record.model_copy(update={"annotations": marked}))}
            await progress.save(stored)
        try:
            ended = await call.client.jobs.wait(stored["session_id"], _PATIENCE)
        except NotFoundError as error:
            # Provena says otherwise that it has no such job: what is not there is its job API, and the run may be.
            raise ProtocolError(f"{error.message} Check the URL of Provena's job API.", **error.data) from error
        return lodged(ended, intent.key)

    async def find(intent: IntentRow) -> list[Found[ModelRun]]:
        found = []
        async for row in call.client.jobs.list():
            if row.created_timestamp is not None and _moment(row.created_timestamp) < intent.created_at - _CLOCKS:
                break
            if any((sent.annotations or {}).get(KEY_FIELD) == intent.key for sent in row.records):
                one = await _outcome(call, row, intent.key, lodged)
                found += [one] if one is not None else []
        if not found:
            async for item in items_since(call, ModelRunInfo, intent.created_at):
                if (item.info.record.annotations or {}).get(KEY_FIELD) == intent.key:
                    when = _moment(item.created_timestamp) if item.created_timestamp else None
                    found.append(Found(handle(item.id, None, intent.key), item.id, when))
        return found

    done = await call.perform(
        Effect(
            noun="model run",
            request={"subject": subject.urn, "workflow-template": template},
            send=send,
            find=find,
            decode=ModelRun.model_validate,
            placeholder=lambda key: handle(f"urn:ivcap-flows:planned:{key}", None, key),
            settle=call.client.settle,
            scope="account",
            subject=title,
            resumable=True,
        )
    )
    return done.value


async def _outcome(call: ProvenaCall, row: JobRow, key: str, lodged: Any) -> Found[ModelRun] | None:
    """What a registration's job came to; None for one that failed, a guess for one that may still succeed."""
    try:
        ended = row if row.done else await call.client.jobs.wait(row.session_id, call.client.settle)
    except WaitTimeoutError:
        return Found(None, row.session_id, matched_by="guess")  # type: ignore[arg-type]  # a guess is never adopted
    if not ended.succeeded:
        return None
    run: ModelRun = lodged(ended, key)
    return Found(run, run.urn, _moment(row.created_timestamp) if row.created_timestamp else None)


async def _datasets(
    side: Mapping[RegistryItem | str, Data | Sequence[Data]],
    resources: Mapping[RegistryItem | str, Mapping[str, str]],
    defaults: DatasetDefaults | None,
    credentials: ProvenaCredentialsLike,
) -> list[TemplatedDataset]:
    paths = {urn_of(template): dict(given) for template, given in resources.items()}
    rows = _rows(side)
    handles = await asyncio.gather(*(_dataset(each, defaults, credentials) for _, each in rows))
    return [
        TemplatedDataset(dataset_template_id=template, dataset_id=dataset, resources=paths.get(template))
        for (template, _), dataset in zip(rows, handles, strict=True)
    ]


def _rows(side: Mapping[RegistryItem | str, Data | Sequence[Data]]) -> list[tuple[str, Data]]:
    """Dataset template and datum, one row for each datum."""
    return [
        (urn_of(template), each)
        for template, data in side.items()
        for each in ([data] if isinstance(data, Handle | str) else data)
    ]


async def _dataset(data: Data, defaults: DatasetDefaults | None, credentials: ProvenaCredentialsLike) -> str:
    if isinstance(data, Artifact):
        return (await amint_dataset.fn(data, datasets=defaults, credentials=credentials)).urn
    return urn_of(data)


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


register_model_run, aregister_model_run = task_pair(
    _register_model_run, name="Register model run", run_name="register {subject}"
)
