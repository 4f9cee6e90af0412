"""Tasks that change registered model runs: link a run to a study, replace its record."""

from __future__ import annotations

import time
from typing import Final, Literal

from ivcap_flows.capture import mark_existing
from ivcap_flows.errors import InputError, PlatformError, WaitTimeoutError
from ivcap_flows.handles import ModelRun, RegistryItem
from ivcap_flows.http.pauses import Pauses
from ivcap_flows.provena import models
from ivcap_flows.provena.models import Item, JobRow, ModelRunRecord
from ivcap_flows.registration.graph_check import graph_has, unless_done
from ivcap_flows.registration.registry import FIRST_LOOK, moment
from ivcap_flows.tasks.call import ProvenaCall, ProvenaCredentialsLike, urn_of
from ivcap_flows.tasks.ensure_state import ensure_state
from ivcap_flows.tasks.items import check_unlocked, with_package_fields
from ivcap_flows.tasks.pair import task_pair
from ivcap_flows.tasks.planned import only_planned

__all__ = ["alink_model_run_to_study", "aupdate_model_run", "link_model_run_to_study", "update_model_run"]

_PAGE: Final = 100

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

    Idempotent: the run's study is read first, and again after a lost reply. Provena changes the registry before its
    job changes the graph. So if the registry has the study, the caller's newest job for the run decides, else the
    graph. If the graph lacks the link, an equal update is sent, since Provena refuses a second link. Raises InputError
    if the run belongs to another study (change that with `update_model_run`), BadRequestError for an unknown study,
    RegistrationFailedError with Provena's reason, and WaitTimeoutError.
    """
    call = await ProvenaCall.of(credentials)
    call.check(model_run, study)
    run, wanted = urn_of(model_run), urn_of(study)
    if only_planned("link to a study", run):
        return _planned(call, model_run)
    before = (await _read(call, run)).info
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
        return (await _read(call, run)).info.record.study_id == wanted

    if before.record.study_id is None:
        await ensure_state(send, holds)
    if session is not None:
        after = before.record.model_copy(update={"study_id": wanted})
        await _wait(call, run, after, session, timeout)
    else:
        await _ensure_in_graph(call, run, f"The graph lacks the link to the study {wanted}", timeout)
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

    Idempotent: the record is read first. An equal record is sent only if the graph lacks it: if the caller's newest job
    for the run failed, or there is none and the graph shows another record. After a lost reply, the task looks for the
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
    item = await _read(call, run)
    before = item.info.record
    wanted = record.model_copy(update={"annotations": with_package_fields(record.annotations, before.annotations)})
    if before.plain() == wanted.plain():
        await _ensure_in_graph(call, run, reason, timeout)
    elif (session := await _under_way(call, item, wanted)) is not None:
        await _wait(call, run, wanted, session, timeout)
    else:
        await _replace(call, run, wanted, reason, timeout)
    return await _changed(call, model_run)


async def _under_way(call: ProvenaCall, item: Item[models.ModelRun], record: ModelRunRecord) -> str | None:
    """Return the session of an equal update that may still change the registry, such as of a flow that was killed."""
    changed = item.updated_timestamp or 0
    jobs = [row for row in await _newest_jobs(call, item.id) if not row.done and _sets(row, record)]
    return next((row.session_id for row in jobs if (row.created_timestamp or 0) >= changed), None)


async def _ensure_in_graph(call: ProvenaCall, run: str, reason: str, timeout: float) -> None:
    """See to it that the graph has what the registry has of a run, which Provena changes before its job.

    The caller's newest job for the run decides, else the graph. Where the job failed or the graph lacks something, an
    equal update mends it.
    """
    item = await _read(call, run)
    record, deadline, pauses = item.info.record, time.monotonic() + timeout, Pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        jobs = await _newest_jobs(call, run)
        status = _status_of(jobs, record)
        if status == "under way":
            [session, *_] = [row.session_id for row in jobs if not row.done and _sets(row, record)]
            row = await _ended(call, run, record, session, deadline - time.monotonic())
            status = "SUCCEEDED" if row is None else row.status
        if status == "SUCCEEDED" or (status is None and await graph_has(call.client, run, record)):
            return
        if status == "FAILED" or _must_show(call, item):
            break
        # The job of a change that was just made may not show yet.
        left = deadline - time.monotonic()
        if left <= 0:
            raise WaitTimeoutError(
                f"The graph does not show the record of the model run {run} within {timeout:g} s, and no job of yours "
                "shows that would change it. Wait again.",
                pending=[run],
            )
        await pauses.sleep(left)
    await _replace(call, run, record, reason, max(0.0, deadline - time.monotonic()))


def _must_show(call: ProvenaCall, item: Item[models.ModelRun]) -> bool:
    """Return whether the job of the item's last change must be visible by now."""
    changed, platform = moment(item.updated_timestamp), call.client.time
    if changed is None or platform is None:
        return True
    return (platform.earliest - changed).total_seconds() > call.client.visibility_delay


async def _replace(call: ProvenaCall, run: str, record: ModelRunRecord, reason: str, timeout: float) -> None:
    """Send an update and wait until it is done."""
    # Provena accepts an update of a locked run, and its job fails later without a reason. So check the lock first.
    await check_unlocked(call, models.ModelRun, run)
    known = {row.session_id for row in await _newest_jobs(call, run)}
    try:
        session = await call.client.prov.update(run, record, reason=reason)
    except PlatformError as error:
        if not error.retryable or error.data.get("sent") is False:
            raise
        unheard = await _unheard(call, run, record, known, timeout)
        if unheard is None:
            raise
        session = unheard
    await _wait(call, run, record, session, timeout)


async def _wait(call: ProvenaCall, run: str, record: ModelRunRecord, session: str, timeout: float) -> None:
    """Wait for a change. Raises RegistrationFailedError if its job failed."""
    row = await _ended(call, run, record, session, timeout)
    if row is not None:
        row.checked()


async def _ended(call: ProvenaCall, run: str, record: ModelRunRecord, session: str, timeout: float) -> JobRow | None:
    """Wait for the job of a change. Return its row; None if registry and graph have the record, and the row does not
    say so.
    """

    async def done() -> Literal[True] | None:
        there = (await _read(call, run)).info.record.plain() == record.plain()
        return True if there and await graph_has(call.client, run, record) else None

    row = await unless_done(call.client.jobs.wait(session, timeout), done)
    return row if isinstance(row, JobRow) else None


async def _unheard(call: ProvenaCall, run: str, record: ModelRunRecord, known: set[str], timeout: float) -> str | None:
    """Return the session of an update whose reply was lost; None if none shows within the visibility delay."""
    deadline = time.monotonic() + min(timeout, call.client.visibility_delay)
    pauses = Pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        for row in await _newest_jobs(call, run):
            if row.session_id not in known and _sets(row, record):
                return row.session_id
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        await pauses.sleep(left)


async def _newest_jobs(call: ProvenaCall, run: str) -> list[JobRow]:
    """Return the newest of the caller's jobs that lodge or change a run: several if they are of the same second."""
    newest: list[JobRow] = []
    async for row in call.client.jobs.list(page_size=_PAGE, limit=FIRST_LOOK):
        if newest and row.created_timestamp != newest[0].created_timestamp:
            break
        if row.payload.get("model_run_record_id") == run or (row.lodged is not None and row.lodged.id == run):
            newest.append(row)
    return newest


def _status_of(jobs: list[JobRow], record: ModelRunRecord) -> str | None:
    """Return how the job that set a record ended, or "under way"; None if these jobs do not decide it."""
    statuses = {row.status if row.done else "under way" for row in jobs if _sets(row, record)}
    return "under way" if "under way" in statuses else statuses.pop() if len(statuses) == 1 else None


def _sets(row: JobRow, record: ModelRunRecord) -> bool:
    return row.record is not None and row.record.plain() == record.plain()


async def _read(call: ProvenaCall, run: str) -> Item[models.ModelRun]:
    return await call.client.registry.fetch(models.ModelRun, run)


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
