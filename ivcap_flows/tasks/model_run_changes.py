"""Tasks that change registered model runs: link a run to a study, replace its record."""

from __future__ import annotations

import time
from typing import Final

from ivcap_flows.capture import mark_existing
from ivcap_flows.errors import InputError, PlatformError
from ivcap_flows.handles import ModelRun, RegistryItem
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.provena import models
from ivcap_flows.provena.models import JobRow, ModelRunRecord
from ivcap_flows.tasks.call import ProvenaCall, ProvenaCredentialsLike, urn_of
from ivcap_flows.tasks.ensure_state import ensure_state
from ivcap_flows.tasks.items import check_unlocked, with_package_fields
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import only_planned

__all__ = ["alink_model_run_to_study", "aupdate_model_run", "link_model_run_to_study", "update_model_run"]

_RECENT: Final = 100
"""Number of the caller's newest jobs that are searched for an update whose reply was lost."""

_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 10.0
"""Seconds between two looks: the first pause and the longest one."""


async def _link_model_run_to_study(
    model_run: ModelRun | str,
    study: RegistryItem | str,
    *,
    timeout: float = 600.0,
    credentials: ProvenaCredentialsLike = None,
) -> ModelRun:
    """Add a model run to a study, in the registry and then in the graph. Waits at most `timeout` seconds for it.

    Idempotent: the run's study is read first, and again after a lost reply. Raises InputError if the run belongs to
    another study (change that with `update_model_run`), BadRequestError for an unknown study, and WaitTimeoutError.
    """
    call = await ProvenaCall.of(credentials)
    call.check(model_run, study)
    run, wanted = urn_of(model_run), urn_of(study)
    if only_planned("link to a study", run):
        return _planned(call, model_run)
    before = await _read(call, run)
    if before.record.study_id not in (None, wanted):
        raise InputError(
            f"The model run {run} belongs to the study {before.record.study_id}. Use update_model_run to change that.",
            study=before.record.study_id,
        )
    session: str | None = None

    async def send() -> None:
        nonlocal session
        session = await call.client.prov.link_to_study(run, wanted)

    async def holds() -> bool:
        return (await _read(call, run)).record.study_id == wanted

    if before.record.study_id is None:
        await ensure_state(send, holds)
    if session is not None:
        (await call.client.jobs.wait(session, timeout)).checked()
    return await _changed(call, model_run)


async def _update_model_run(
    model_run: ModelRun | str,
    record: ModelRunRecord,
    *,
    reason: str,
    timeout: float = 600.0,
    credentials: ProvenaCredentialsLike = None,
) -> ModelRun:
    """Replace the record of a model run, in the registry and in the graph; `reason` is stored in its history.

    Idempotent: the record is read first, and an equal record is not sent; after a lost reply, the task looks for the
    update's job. Annotations that this package wrote stay unless `record` sets them; the idempotency key always stays.
    Waits at most `timeout` seconds. Raises InputError before anything is sent, NotAuthorizedError (about "item") for a
    locked run, which says who locked it, BadRequestError if Provena refuses the record, RegistrationFailedError with
    Provena's reason, and WaitTimeoutError.
    """
    call = await ProvenaCall.of(credentials)
    call.check(model_run)
    run = urn_of(model_run)
    if only_planned("model run update", run):
        return _planned(call, model_run)
    before = (await _read(call, run)).record
    wanted = record.model_copy(update={"annotations": with_package_fields(record.annotations, before.annotations)})
    if before.plain() != wanted.plain():
        # Provena accepts an update of a locked run, and its job fails later without a reason. So check the lock first.
        await check_unlocked(call, models.ModelRun, run)
        known = {row.session_id for row in await _updates(call, run, wanted)}
        try:
            session = await call.client.prov.update(run, wanted, reason=reason)
        except PlatformError as error:
            if not error.retryable or error.data.get("sent") is False:
                raise
            unheard = await _unheard(call, run, wanted, known, timeout)
            if unheard is None:
                raise
            session = unheard
        (await call.client.jobs.wait(session, timeout)).checked()
    return await _changed(call, model_run)


async def _unheard(call: ProvenaCall, run: str, record: ModelRunRecord, known: set[str], timeout: float) -> str | None:
    """Return the session of an update whose reply was lost; None if none shows within the visibility delay."""
    deadline = time.monotonic() + min(timeout, call.client.visibility_delay)
    pauses = Pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        for row in await _updates(call, run, record):
            if row.session_id not in known:
                return row.session_id
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        await pauses.sleep(left)


async def _updates(call: ProvenaCall, run: str, record: ModelRunRecord) -> list[JobRow]:
    """Return the caller's recent jobs that set this record for the run."""
    rows = [row async for row in call.client.jobs.list(page_size=_RECENT, limit=_RECENT)]
    return [
        row
        for row in rows
        if row.job_sub_type == "MODEL_RUN_UPDATE"
        and row.payload.get("model_run_record_id") == run
        and row.record is not None
        and row.record.plain() == record.plain()
    ]


async def _read(call: ProvenaCall, run: str) -> models.ModelRun:
    return (await call.client.registry.fetch(models.ModelRun, run)).info


async def _changed(call: ProvenaCall, model_run: ModelRun | str) -> ModelRun:
    """Return the run's current handle, with the fields that only the given handle has."""
    item = await call.client.registry.fetch(models.ModelRun, urn_of(model_run))
    mark_existing(item.id)
    now = item.handle(call.platform)
    assert isinstance(now, ModelRun)
    if isinstance(model_run, str):
        return now
    own = {name: getattr(model_run, name) for name in ("session_id", "subject", "key")}
    return now.model_copy(update=own)


def _planned(call: ProvenaCall, model_run: ModelRun | str) -> ModelRun:
    if isinstance(model_run, ModelRun):
        return model_run
    return ModelRun(urn=model_run, platform=call.platform, workflow_template="")


link_model_run_to_study, alink_model_run_to_study = task_pair(_link_model_run_to_study, "link {model_run} to {study}")
update_model_run, aupdate_model_run = task_pair(_update_model_run, "update {model_run}")
