"""Rows become model runs once each, whatever is lost, refused, killed or started twice."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from registration_rows import Items, read_outcomes, write_lines

from ivcap_flows import loop
from ivcap_flows.durable import Caller, perform
from ivcap_flows.errors import ForbiddenError, InDoubtError, InputError, WaitTimeoutError
from ivcap_flows.handles import ModelRun
from ivcap_flows.journal import Journal
from ivcap_flows.journal.store import Store
from ivcap_flows.local import EmbeddedPlatform
from ivcap_flows.local.directory import Directory
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.jobs import JobsApi
from ivcap_flows.provena.models import JobRow, ModelRunRecord
from ivcap_flows.provena.models import ModelRun as ModelRunInfo
from ivcap_flows.registration import model_runs
from ivcap_flows.registration.batch import Batch
from ivcap_flows.registration.lookup import LODGE
from ivcap_flows.registration.model_runs import ModelRunEffect
from ivcap_flows.registration.outcome import BatchReport
from ivcap_flows.registration.sources import open_source

REGISTER = "/provena/prov/model_run/register"


@pytest.fixture
def register(provena: ProvenaClient, tmp_path: Path) -> Callable[..., BatchReport]:
    """Checks and registers a file of rows, with the outcome in `out.csv`."""

    def run(
        file: Path, journal: Journal, stall_timeout: float = 20.0, terms: Any = None, **options: Any
    ) -> BatchReport:
        async def both() -> BatchReport:
            with Batch(open_source(file), provena, terms=terms, stall_timeout=stall_timeout) as batch:
                await batch.check()
                return await batch.register(journal, out=tmp_path / "out.csv", **options)

        return loop.run(both())

    return run


def rows_of(items: Items, count: int, **changes: Any) -> tuple[str, list[dict[str, Any]]]:
    """Rows of this test alone, and how their names begin."""
    name = uuid.uuid4().hex
    return name, [items.record(n, **{"display_name": f"{name} {n}", **changes}) for n in range(count)]


def test_each_row_is_one_model_run(run_items, register, journal, lodged, tmp_path, embedded_platform):
    """Every row gets a handle; a second start asks for nothing more, and says the same."""
    name, rows = rows_of(run_items, 60)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    first = register(file, journal)
    assert (first.rows, first.registered, first.is_whole) == (60, 60, True)
    outcomes = read_outcomes(tmp_path / "out.csv")
    assert [int(each["row"]) for each in outcomes] == list(range(1, 61))
    runs = lodged(name)
    assert len(runs) == 60 == len({each["model_run"] for each in outcomes})
    again = register(file, journal)
    assert again == first and read_outcomes(tmp_path / "out.csv") == outcomes
    assert len(embedded_platform.requests("POST", REGISTER)) == 60 == len(lodged(name))


@pytest.mark.long
def test_few_requests_besides_the_registrations(run_items, journal, tmp_path, embedded_platform, provena):
    """Many jobs are looked at by pages of the list, not one by one."""
    _, rows = rows_of(run_items, 60)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    embedded_platform.add_fault(method="POST", path="model_run/register$", delay=0.05)

    async def both() -> None:
        with Batch(open_source(file), provena, stall_timeout=20) as batch:
            await batch.check()
            embedded_platform.forget_requests()
            assert (await batch.register(journal)).is_whole

    loop.run(both())
    paths = [each["path"] for each in embedded_platform.requests()]
    assert paths.count(REGISTER) == 60 and len(paths) < 60 + 30


def test_replies_are_lost(run_items, register, journal, lodged, tmp_path, embedded_platform):
    """Provena took rows and nobody heard of it: their runs are found by their keys, and not sent again."""
    name, rows = rows_of(run_items, 10)
    embedded_platform.add_fault(method="POST", path="model_run/register$", count=3, drop_reply_after_effect=True)
    assert register(write_lines(tmp_path / "rows.jsonl", rows), journal).registered == 10
    assert len(embedded_platform.requests("POST", REGISTER)) == 10 == len(lodged(name))


def test_requests_are_lost(run_items, register, journal, lodged, tmp_path, embedded_platform):
    """Provena never saw some rows: after the visibility delay, and no earlier, they are sent again."""
    name, rows = rows_of(run_items, 10)
    embedded_platform.add_fault(method="POST", path="model_run/register$", count=3, reset=True)
    assert register(write_lines(tmp_path / "rows.jsonl", rows), journal).registered == 10
    assert len(embedded_platform.requests("POST", REGISTER)) == 13 and len(lodged(name)) == 10


@pytest.mark.parametrize(
    "off",
    [*(pytest.param(off, marks=pytest.mark.long) for off in (600, -600, 3 * 3600, -3 * 3600)), None],
    ids=lambda off: f"{off} s" if off else "steps",
)
def test_a_clock_that_is_wrong(run_items, register, journal, lodged, tmp_path, embedded_platform, monkeypatch, off):
    """Replies to batches are lost, and the journal's clock is ahead, behind, or steps: each row is registered once."""
    name, rows = rows_of(run_items, 60)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    steps = itertools.cycle([off] if off else [3 * 3600, -600, -3 * 3600, 600])
    now = Store.now
    monkeypatch.setattr(Store, "now", lambda self, on: now(self, on) + timedelta(seconds=next(steps)))
    embedded_platform.add_fault(
        method="POST", path="model_run/register$", count=2, drop_reply_after_effect=True, late_visibility=1.0
    )
    assert register(file, journal).registered == 60
    assert len(lodged(name)) == 60


@pytest.mark.long
@pytest.mark.parametrize("hours", [3, -3])
def test_a_clock_that_is_set_between_two_starts(
    run_items, provena, register, journal, lodged, tmp_path, embedded_platform, monkeypatch, hours
):
    """A start ends while its batch does not show yet; the next one, by another clock, waits until it must."""
    name, rows = rows_of(run_items, 10)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    embedded_platform.add_fault(
        method="POST", path="model_run/register$", count=1, drop_reply_after_effect=True, late_visibility=1.8
    )

    async def cut_off() -> None:
        with Batch(open_source(file), provena, stall_timeout=20) as batch:
            await batch.check()
            registering = asyncio.create_task(batch.register(journal))
            while not journal.intents.where(state="sent"):
                await asyncio.sleep(0.01)
            registering.cancel()
            await asyncio.gather(registering, return_exceptions=True)

    loop.run(cut_off())
    now = Store.now
    monkeypatch.setattr(Store, "now", lambda self, on: now(self, on) + timedelta(hours=hours))
    assert register(file, journal).registered == 10
    assert len(lodged(name)) == 10


@pytest.mark.long
def test_a_bad_day(run_items, register, journal, lodged, tmp_path, embedded_platform, monkeypatch):
    """A tenth of the replies is lost, a fifth of the requests gets 503: no row twice, every row accounted for."""
    name, rows = rows_of(run_items, 150)
    embedded_platform.add_fault(path="^/provena/", probability=0.1, seed=4, drop_reply_after_effect=True)
    embedded_platform.add_fault(path="^/provena/", probability=0.2, seed=5, status=503)
    report = register(write_lines(tmp_path / "rows.jsonl", rows), journal, stall_timeout=40.0)
    embedded_platform.clear_faults()
    runs = lodged(name)
    assert report.registered == len(runs) == len({run.display_name for run in runs}) == 150


@pytest.mark.long
def test_provena_is_away_for_a_while(run_items, register, journal, lodged, tmp_path, embedded_platform):
    """Provena answers to nothing just when the batch is sent, and comes back: the batch goes on."""
    name, rows = rows_of(run_items, 20)
    embedded_platform.add_fault(
        method="POST", path="model_run/register$", count=1, delay=0.2, drop_reply_after_effect=True
    )
    embedded_platform.add_fault(path="^/provena/(job|registry)", count=12, status=503)
    assert register(write_lines(tmp_path / "rows.jsonl", rows), journal, stall_timeout=40.0).registered == 20
    assert len(lodged(name)) == 20


@pytest.mark.long
@pytest.mark.parametrize("death", ["before", "amid"])
def test_a_worker_that_dies_leaves_a_doubt(run_items, register, journal, lodged, tmp_path, embedded_platform, death):
    """A job that never ends is told with its id, since when, and what was looked at; it is not sent again."""
    name, rows = rows_of(run_items, 5)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    embedded_platform.add_fault(path="MODEL_RUN_PROV_LODGE", count=1, kill_worker=death)
    report = register(file, journal, stall_timeout=1.5)
    assert (report.registered, report.doubtful) == (4, 1)
    [doubt] = [each for each in read_outcomes(tmp_path / "out.csv") if each["outcome"] == "doubtful"]
    assert uuid.UUID(doubt["job_id"]) and doubt["since"] and "registry" in doubt["reason"]
    embedded_platform.forget_requests()
    assert register(file, journal, stall_timeout=1.5) == report
    [still] = [each for each in read_outcomes(tmp_path / "out.csv") if each["outcome"] == "doubtful"]
    assert (still["job_id"], still["since"]) == (doubt["job_id"], doubt["since"])
    # Halfway, the registry has the run, and lineage does not.
    there = [run.record_status for run in lodged(name)]
    assert (there.count("LODGED"), len(there)) == (4, 5 if death == "amid" else 4)
    assert ("the registry has its run" in doubt["reason"]) == (death == "amid")
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
        elsewhere = register(file, other, stall_timeout=1.5)
    assert (elsewhere.registered, elsewhere.doubtful) == (4, 1)
    assert not embedded_platform.requests("POST", REGISTER)


@pytest.mark.long
def test_a_worker_that_dies_with_its_work_done(run_items, register, journal, lodged, tmp_path, embedded_platform):
    """The job never ends, and the registry has the run all the same: that is the row's handle."""
    name, rows = rows_of(run_items, 5)
    embedded_platform.add_fault(path="MODEL_RUN_PROV_LODGE", count=1, kill_worker="after")
    assert register(write_lines(tmp_path / "rows.jsonl", rows), journal, stall_timeout=1.5).registered == 5
    assert len(lodged(name)) == 5


def test_no_journal(run_items, register, journal, lodged, tmp_path, embedded_platform):
    """Elsewhere, with the same file and nothing else, every run is found by its key in one pass, and none is sent."""
    name, rows = rows_of(run_items, 50)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    register(file, journal)
    before = read_outcomes(tmp_path / "out.csv")
    embedded_platform.forget_requests()
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
        assert register(file, other).registered == 50
    assert [each["model_run"] for each in read_outcomes(tmp_path / "out.csv")] == [each["model_run"] for each in before]
    lists = [each for each in embedded_platform.requests("POST") if each["path"].endswith("list")]
    assert len(lists) <= 6 and not embedded_platform.requests("POST", REGISTER) and len(lodged(name)) == 50


@pytest.mark.long
def test_no_journal_while_the_runs_are_under_way(
    run_items, register, journal, lodged, tmp_path, embedded_platform, provena
):
    """What another machine has just sent is followed to its end, and not sent again."""
    name, rows = rows_of(run_items, 30)
    file = write_lines(tmp_path / "rows.jsonl", rows)

    async def both() -> None:
        with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
            one, two = (Batch(open_source(file), provena, stall_timeout=20) for _ in range(2))
            with one, two:
                await asyncio.gather(one.check(), two.check())
                first = asyncio.create_task(one.register(journal))
                while len(embedded_platform.requests("POST", REGISTER)) < 30:
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0.3)
                assert (await two.register(other)).registered == (await first).registered == 30

    loop.run(both())
    assert len(embedded_platform.requests("POST", REGISTER)) == 30 == len(lodged(name))


def test_two_at_once(run_items, journal, lodged, tmp_path, embedded_platform, provena, monkeypatch):
    """Two starts on one journal share the rows: both tell the handles of all, and none is there twice."""
    name, rows = rows_of(run_items, 120)
    file = write_lines(tmp_path / "rows.jsonl", rows)

    async def one(number: int) -> list[dict[str, str]]:
        out = tmp_path / f"out-{number}.csv"
        with Batch(open_source(file), provena, stall_timeout=20) as batch:
            await batch.check()
            assert (await batch.register(journal, out=out)).registered == 120
        return read_outcomes(out)

    async def both() -> list[list[dict[str, str]]]:
        return list(await asyncio.gather(one(1), one(2)))

    first, second = loop.run(both())
    assert len(embedded_platform.requests("POST", REGISTER)) == 120
    assert [each["model_run"] for each in first] == [each["model_run"] for each in second]
    assert len(lodged(name)) == 120


@pytest.mark.long
def test_only_what_failed_is_sent_again(
    run_items, register, journal, lodged, tmp_path, embedded_platform, failing_jobs
):
    """A failed row has Provena's reason; the next start sends it, and no other, again."""
    name, rows = rows_of(run_items, 6)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    with failing_jobs(f"{name} 3"):
        report = register(file, journal)
    assert (report.registered, report.failed) == (5, 1)
    [failed] = [each for each in read_outcomes(tmp_path / "out.csv") if each["outcome"] == "failed"]
    assert (failed["row"], failed["reason"]) == ("4", "Out of luck.")
    embedded_platform.forget_requests()
    assert register(file, journal).is_whole
    assert len(embedded_platform.requests("POST", REGISTER)) == 1 and len(lodged(name)) == 6


@pytest.mark.long
@pytest.mark.parametrize("status", [400, 403])
def test_a_refusal(run_items, register, journal, lodged, tmp_path, embedded_platform, status):
    """What Provena refuses of records is their reason, what it refuses of the caller is raised; both go on later."""
    name, rows = rows_of(run_items, 3)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    embedded_platform.add_fault(method="POST", path="model_run/register$", count=1, status=status)
    if status == 403:
        with pytest.raises(ForbiddenError):
            register(file, journal)
    else:
        assert register(file, journal).failed == 1
    assert len(lodged(name)) == 2 and register(file, journal).is_whole and len(lodged(name)) == 3


@pytest.mark.long
@pytest.mark.timeout(60)
def test_a_refusal_while_rows_are_claimed(
    run_items, register, journal, lodged, tmp_path, embedded_platform, monkeypatch
):
    """What a start that ends so has claimed meanwhile is free for the next one in the same process."""
    name, rows = rows_of(run_items, 20)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    claim = journal.intents.claim

    def slowly(wanted: Any, **limit: Any) -> Any:
        claimed = claim(wanted, **limit)
        time.sleep(0.1)
        return claimed

    embedded_platform.add_fault(method="POST", path="model_run/register$", count=1, status=403)
    with monkeypatch.context() as slow:
        slow.setattr(journal.intents, "claim", slowly)
        with pytest.raises(ForbiddenError):
            register(file, journal)
    assert register(file, journal).is_whole and len(lodged(name)) == 20


def test_what_is_written_off_meanwhile_is_not_sent(
    run_items, journal, lodged, tmp_path, embedded_platform, provena, by_task, monkeypatch
):
    """The user writes a row off after a start has begun: it is not sent by that start, nor by the task or the sink,
    until the user says so."""
    name, rows = rows_of(run_items, 1)
    rows = with_orders(rows)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    claim = journal.intents.claim

    def once_decided(wanted: Any, **limit: Any) -> Any:
        journal.intents.release(journal.intents.mark_in_doubt(claim(wanted).intent, "the reply was lost"))
        journal.decisions.give_up(wanted.key)
        return claim(wanted, **limit)

    async def both() -> tuple[str, BatchReport]:
        with Batch(open_source(file), provena, stall_timeout=20) as batch:
            await batch.check()
            [row] = batch.records()
            with monkeypatch.context() as patch:
                patch.setattr(journal.intents, "claim", once_decided)
                return row.key, await batch.register(journal)

    key, report = loop.run(both())
    assert (report.failed, report.registered) == (1, 0)
    with pytest.raises(InDoubtError, match="models resolve --resend"):
        by_task(rows[0])
    assert embedded_platform.requests("POST", REGISTER) == lodged(name) == []
    journal.decisions.send_again(key)
    assert by_task(rows[0]).subject == rows[0]["key"]


def test_the_outcome_file_grows(run_items, journal, tmp_path, provena, monkeypatch):
    """Each row is in the outcome file as soon as it has come to its end, so that a kill loses none that is known."""
    _, rows = rows_of(run_items, 40)
    file, out = write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out.csv"
    seen: list[tuple[int, int]] = []

    def tell(what: str, done: int, total: int | None) -> None:
        if what == "registered":
            seen.append((done, len({each["model_run"] for each in read_outcomes(out)})))

    async def both() -> None:
        with Batch(open_source(file), provena, stall_timeout=20, progress=tell) as batch:
            await batch.check()
            await batch.register(journal, out=out)

    loop.run(both())
    assert len(seen) > 2 and all(done == known for done, known in seen) and seen[-1] == (40, 40)


def test_wrong_rows_keep_all_from_being_sent(run_items, register, journal, lodged, tmp_path, embedded_platform):
    """Nothing is sent while a row is wrong; with `skip_invalid` the others are, and the wrong one has its reason."""
    name, rows = rows_of(run_items, 4)
    rows[2]["study_id"] = run_items.person
    file = write_lines(tmp_path / "rows.jsonl", rows)
    with pytest.raises(InputError, match="1 of the 4 rows of rows.jsonl are wrong"):
        register(file, journal)
    assert lodged(name) == [] and not (tmp_path / "out.csv").exists()
    report = register(file, journal, skip_invalid=True)
    assert (report.registered, report.wrong) == (3, 1)
    wrong = read_outcomes(tmp_path / "out.csv")[2]
    assert wrong["outcome"] == "wrong" and wrong["reason"].startswith("study_id: ")


@pytest.mark.long
def test_rows_that_provena_has_filled_are_done(
    run_items, done_run, register, journal, lodged, tmp_path, embedded_platform
):
    """A row with Provena's own columns is not sent, and has its handle in the outcome."""
    name, rows = rows_of(run_items, 2)
    handle, job = done_run
    rows[0] |= {"_model_run_record_id": handle, "_job_id": job}
    report = register(write_lines(tmp_path / "rows.jsonl", rows), journal)
    assert (report.done, report.registered, report.is_whole) == (1, 1, True)
    first = read_outcomes(tmp_path / "out.csv")[0]
    assert (first["outcome"], first["model_run"], first["job_id"]) == ("done", handle, job)
    assert len(lodged(name)) == 1


@pytest.fixture
def by_task(provena: ProvenaClient, journal: Journal) -> Callable[[dict[str, Any]], ModelRun]:
    """Registers a row with a key as the task and the sink do."""

    async def register(row: dict[str, Any]) -> ModelRun:
        record = ModelRunRecord(**{name: value for name, value in row.items() if name != "key"})
        platform, account = await provena.platform(), await provena.username()
        effect = ModelRunEffect.of(row["key"], record, client=provena, platform=platform)
        done = await perform(effect, Caller(journal, None, platform, account))
        return done.value

    return lambda row: loop.run(register(row))


def with_orders(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as runs of orders."""
    return [row | {"key": f"urn:ivcap:order:{uuid.uuid4()}"} for row in rows]


def test_the_task_the_sink_and_a_batch_meet(run_items, register, journal, lodged, tmp_path, embedded_platform, by_task):
    """An order's URN as the key is the key of the task and the sink: whoever comes second finds the run."""
    name, rows = rows_of(run_items, 3)
    rows = with_orders(rows)
    first = by_task(rows[0])
    assert register(write_lines(tmp_path / "rows.jsonl", rows), journal).is_whole
    outcomes = read_outcomes(tmp_path / "out.csv")
    assert outcomes[0]["model_run"] == first.urn
    assert by_task(rows[2]).urn == outcomes[2]["model_run"]
    assert len(lodged(name)) == 3


@pytest.mark.long
@pytest.mark.parametrize("reply", ["came", "lost"])
def test_a_job_that_fails_half_way(
    run_items,
    register,
    journal,
    lodged,
    tmp_path,
    embedded_platform,
    by_task,
    fail_job,
    no_job_left,
    monkeypatch,
    reply,
):
    """The registry has the run and lineage does not: neither the task nor a batch makes a second one, until the user
    says so."""
    name, rows = rows_of(run_items, 1)
    [row] = with_orders(rows)
    monkeypatch.setattr(model_runs, "STALL_TIMEOUT", 3.0)
    no_job_left()
    embedded_platform.add_fault(path="MODEL_RUN_PROV_LODGE", count=1, kill_worker="amid")
    if reply == "lost":
        embedded_platform.add_fault(method="POST", path="model_run/register$", count=1, drop_reply_after_effect=True)
    with pytest.raises(WaitTimeoutError):
        by_task(row)
    assert [run.record_status for run in lodged(name)] == ["COMPLETE"]
    fail_job(f"{name} 0")
    for _ in range(2):
        with pytest.raises(InDoubtError, match=r"orders adopt .* 102\.100\.100/.* write-off") as caught:
            by_task(row)
    report = register(write_lines(tmp_path / "rows.jsonl", [row]), journal)
    assert (report.doubtful, report.failed) == (1, 0)
    with pytest.raises(InDoubtError):
        by_task(row)
    assert len(embedded_platform.requests("POST", "/provena/prov/model_run/register")) == len(lodged(name)) == 1
    journal.decisions.write_off(caught.value.key)
    assert by_task(row).subject == row["key"]
    assert len(lodged(name)) == 2


@pytest.fixture
def late_job(provena: ProvenaClient, embedded_platform: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets jobs that lodge show only after their runs in the registry, to the first that lists when they were sent:
    `late_job(name)`."""
    listed = JobsApi.list

    def hide(name: str) -> None:
        async def once(*args: Any, **options: Any) -> AsyncIterator[JobRow]:
            if not [each for each in embedded_platform.requests("POST") if "/model_run/register" in each["path"]]:
                async for row in listed(*args, **options):
                    yield row
                return
            monkeypatch.setattr(JobsApi, "list", listed)
            while not [
                run async for run in provena.registry.list(ModelRunInfo) if run.info.display_name.startswith(name)
            ]:
                await asyncio.sleep(0.05)
            async for row in listed(*args, **options):
                if row.job_sub_type != LODGE:
                    yield row

        monkeypatch.setattr(JobsApi, "list", once)

    return hide


@pytest.mark.long
def test_a_run_whose_job_shows_later_is_not_taken_for_lodged(
    run_items, register, lodged, tmp_path, embedded_platform, by_task, no_job_left, monkeypatch, late_job
):
    """The registry has the run, and its job, which may still fail, did not show when jobs were looked at."""
    name, rows = rows_of(run_items, 1)
    [row] = with_orders(rows)
    monkeypatch.setattr(model_runs, "STALL_TIMEOUT", 1.0)
    no_job_left()
    embedded_platform.add_fault(path="MODEL_RUN_PROV_LODGE", count=1, kill_worker="amid")
    embedded_platform.add_fault(method="POST", path="model_run/register$", count=1, drop_reply_after_effect=True)
    late_job(name)
    with pytest.raises(WaitTimeoutError):
        by_task(row)
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
        late_job(name)
        report = register(write_lines(tmp_path / "rows.jsonl", [row]), other, stall_timeout=1.0)
    assert (report.doubtful, report.registered) == (1, 0)
    assert len(lodged(name)) == 1


@pytest.mark.long
def test_the_task_leaves_a_doubt_of_a_batch(
    run_items, register, journal, lodged, tmp_path, embedded_platform, by_task, fail_job, no_job_left
):
    """A row that a batch has left in doubt is the run that it has become, and is never sent again by itself."""
    name, rows = rows_of(run_items, 2)
    rows = with_orders(rows)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    no_job_left()
    embedded_platform.add_fault(path="MODEL_RUN_PROV_LODGE", count=2, kill_worker="amid")
    assert register(file, journal, stall_timeout=1.5).doubtful == 2
    fail_job(f"{name} 0")
    assert register(file, journal, stall_timeout=1.5).doubtful == 2
    for _ in range(2):
        with pytest.raises(InDoubtError):
            by_task(rows[0])
    assert len(embedded_platform.requests("POST", REGISTER)) == len(lodged(name)) == 2


@pytest.mark.long
def test_an_artifact_gets_one_dataset(run_items, journal, lodged, tmp_path, embedded_platform, provena):
    """Artifacts in the place of datasets are minted once each, with what the user has stated, and found again."""
    name, rows = rows_of(run_items, 12)
    artifacts = [f"urn:ivcap:artifact:{uuid.uuid4()}" for _ in range(3)]
    for number, row in enumerate(rows):
        row["outputs"][0]["dataset_id"] = artifacts[number % 3]
    file = write_lines(tmp_path / "rows.jsonl", rows)

    async def one(opened: Journal) -> None:
        with Batch(open_source(file), provena, terms=run_items.terms, stall_timeout=20) as batch:
            await batch.check()
            assert (await batch.register(opened)).is_whole

    loop.run(one(journal))
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
        loop.run(one(other))
    minted = [each for each in embedded_platform.requests("POST") if each["path"].endswith("mint-dataset")]
    assert len(minted) == 3 and len(lodged(name)) == 12
    assert len({run.record.outputs[0].dataset_id for run in lodged(name)}) == 3


@pytest.mark.long
@pytest.mark.parametrize("known_by", ["the journal", "Provena"])
def test_another_record_under_a_key_is_told(run_items, register, journal, lodged, tmp_path, known_by):
    """A row that was changed after it was registered under its own key is not sent, and not taken for the run either:
    its outcome says that the run has another record, and the handle has what the run was registered with."""
    name, rows = rows_of(run_items, 3)
    for number, row in enumerate(rows):
        row["key"] = f"{name}-{number}"
    assert register(write_lines(tmp_path / "rows.jsonl", rows), journal).differing == 0
    rows[1]["end_time"] += 1
    rows[1]["inputs"][0]["dataset_id"] = run_items.datasets[1]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
        kept = journal if known_by == "the journal" else other
        report = register(file, kept)
        assert register(file, kept) == report
        [run] = [each for each in kept.intents.where(limit=None) if each.subject == f"{name} 1"]
    assert (report.registered, report.differing, report.is_whole) == (3, 1, True)
    assert str(report) == "3 rows: 3 registered (1 with another record)"
    outcomes = read_outcomes(tmp_path / "out.csv")
    assert [each["key"] for each in outcomes] == [row["key"] for row in rows]
    assert [bool(each["reason"]) for each in outcomes] == [False, True, False]
    assert "another record" in outcomes[1]["reason"]
    assert ModelRun.model_validate(run.outcome).inputs == (run_items.datasets[0],)
    assert len(lodged(name)) == 3


@pytest.mark.long
def test_datasets_that_another_start_has_minted(run_items, journal, tmp_path, embedded_platform, provena):
    """A start that was checked before another one minted the datasets finds its runs, and nothing other in them."""
    name, rows = rows_of(run_items, 3)
    artifact = f"urn:ivcap:artifact:{uuid.uuid4()}"
    for number, row in enumerate(rows):
        row["key"] = f"{name}-{number}"
        row["outputs"][0]["dataset_id"] = artifact
    file = write_lines(tmp_path / "rows.jsonl", rows)

    async def both() -> None:
        one, two = (Batch(open_source(file), provena, terms=run_items.terms, stall_timeout=20) for _ in range(2))
        with one, two, Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
            await asyncio.gather(one.check(), two.check())
            assert (await one.register(journal)).registered == 3
            report = await two.register(other)
        assert (report.registered, report.differing) == (3, 0)

    loop.run(both())


@pytest.mark.long
def test_provena_is_away_while_datasets_are_minted(run_items, journal, lodged, tmp_path, embedded_platform, provena):
    """Longer than a request is repeated: the batch goes on when Provena is back, and each artifact has one dataset."""
    name, rows = rows_of(run_items, 4)
    artifacts = [f"urn:ivcap:artifact:{uuid.uuid4()}" for _ in rows]
    for row, artifact in zip(rows, artifacts, strict=True):
        row["outputs"][0]["dataset_id"] = artifact
    file = write_lines(tmp_path / "rows.jsonl", rows)
    mint = "mint-dataset$"
    embedded_platform.add_fault(method="POST", path=mint, count=1, drop_reply_after_effect=True)

    async def both() -> None:
        with Batch(open_source(file), provena, terms=run_items.terms, stall_timeout=40) as batch:
            await batch.check()
            embedded_platform.add_fault(path=f"{mint}|/dataset/list$", count=12, status=503)
            assert (await batch.register(journal)).is_whole

    loop.run(both())
    runs = lodged(name)
    assert len(runs) == 4 and len({run.record.outputs[0].dataset_id for run in runs}) == 4


def minting_rows(items: Items, count: int) -> tuple[str, list[dict[str, Any]]]:
    """Rows with an artifact each in the place of the output's dataset."""
    name, rows = rows_of(items, count)
    for row in rows:
        row["outputs"][0]["dataset_id"] = f"urn:ivcap:artifact:{uuid.uuid4()}"
    return name, rows


@pytest.mark.long
def test_a_narrow_data_store_loses_no_reply(run_items, journal, lodged, tmp_path, embedded_platform, provena, caplog):
    """50 rows with 50 mints, where two are worked on at once and a reply is lost that takes 15 times as long as a mint:
    no reply is lost, and each artifact is minted for once."""
    name, rows = minting_rows(run_items, 50)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    embedded_platform.add_fault(path="^/provena/data/", at_once=2, delay=0.1, lost_after=1.5)

    async def both() -> None:
        with Batch(open_source(file), provena, terms=run_items.terms, stall_timeout=40) as batch:
            await batch.check()
            assert (await batch.register(journal)).is_whole

    loop.run(both())
    minted = [each for each in embedded_platform.requests("POST") if each["path"].endswith("mint-dataset")]
    assert [each["status"] for each in minted if not each["dropped"]] == [200] * 50 and len(minted) == 50
    assert len(lodged(name)) == 50
    assert not [record for record in caplog.records if "lost" in record.message]


@pytest.mark.long
def test_rows_do_not_wait_for_the_datasets_of_others(run_items, journal, lodged, tmp_path, embedded_platform, provena):
    """One mint takes long: the other rows are registered before it is answered, and its own row after it."""
    name, rows = minting_rows(run_items, 6)
    del rows[4:]
    rows[3]["outputs"][0]["dataset_id"] = run_items.datasets[1]
    file = write_lines(tmp_path / "rows.jsonl", rows)
    embedded_platform.add_fault(method="POST", path="mint-dataset$", delay=12.0, count=1)

    async def both() -> None:
        with Batch(open_source(file), provena, terms=run_items.terms, stall_timeout=40) as batch:
            await batch.check()
            registering = asyncio.create_task(batch.register(journal))
            while len(lodged_now := await registered_now(provena, name)) < 3:
                assert not registering.done(), lodged_now
                await asyncio.sleep(0.05)
            mints = [each for each in embedded_platform.requests("POST") if each["path"].endswith("mint-dataset")]
            assert sorted(each["status"] or 0 for each in mints) == [0, 200, 200]
            assert (await registering).is_whole

    loop.run(both())
    assert len(lodged(name)) == 4


@pytest.mark.parametrize("status", [403, *(pytest.param(each, marks=pytest.mark.long) for each in (409, 422))])
def test_one_artifact_that_is_refused_stops_no_other(
    run_items, register, journal, lodged, tmp_path, embedded_platform, status
):
    """Its row fails with Provena's reason, the others are registered, and the next start mints it."""
    name, rows = minting_rows(run_items, 3)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    embedded_platform.add_fault(method="POST", path="mint-dataset$", status=status, count=1)
    report = register(file, journal, terms=run_items.terms)
    assert (report.registered, report.failed) == (2, 1)
    [failed] = [each for each in read_outcomes(tmp_path / "out.csv") if each["outcome"] == "failed"]
    assert str(status) in failed["reason"]
    assert register(file, journal, terms=run_items.terms).is_whole and len(lodged(name)) == 3


@pytest.mark.long
def test_a_caller_who_may_not_mint_is_refused_as_such(run_items, register, journal, tmp_path, embedded_platform):
    """As soon as nothing was minted and as many mints were refused as are under way at once."""
    _, rows = minting_rows(run_items, 60)
    embedded_platform.add_fault(method="POST", path="mint-dataset$", status=403)
    with pytest.raises(ForbiddenError):
        register(write_lines(tmp_path / "rows.jsonl", rows), journal, terms=run_items.terms, in_flight=20)
    assert len([each for each in embedded_platform.requests("POST") if each["path"].endswith("mint-dataset")]) < 60


def test_a_data_store_that_refuses_is_asked_for_less_at_once(
    run_items, journal, lodged, tmp_path, embedded_platform, provena, caplog
):
    """429 halves how many are minted at once, also where the request is sent again without a word."""
    _, rows = minting_rows(run_items, 1)
    file = write_lines(tmp_path / "rows.jsonl", rows)
    embedded_platform.add_fault(method="POST", path="mint-dataset$", status=429, count=1)

    async def both() -> None:
        with Batch(open_source(file), provena, terms=run_items.terms, stall_timeout=40) as batch:
            await batch.check()
            assert (await batch.register(journal)).is_whole

    loop.run(both())
    assert provena.datastore.minting.at_once == 2
    assert [said for said in caplog.messages if said.startswith("Mints of datasets with Provena: 2 at once instead")]


async def registered_now(provena: ProvenaClient, name: str) -> list[str]:
    """The model runs on Provena whose display name begins so."""
    found = provena.registry.list(ModelRunInfo, page_size=500)
    return [item.info.display_name async for item in found if item.info.display_name.startswith(name)]


@pytest.fixture
def full_registry(_embedded: EmbeddedPlatform, done_run: tuple[str, str]) -> Iterator[None]:
    """While the test runs, Provena has 10,000 jobs of the user and as many model runs, made in the last hours."""
    count, run, job = 10_000, *done_run
    with closing(sqlite3.connect(Directory(_embedded.directory).root / "provena.sqlite", timeout=30)) as connection:
        for table, column, key in (("items", "id", run), ("jobs", "session_id", job)):
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            values = [
                {column: f"'full-' || n || {column}", "created_timestamp": "created_timestamp - n"}.get(name, name)
                for name in names
            ]
            connection.execute(
                f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count}) "
                f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} FROM {table}, c "
                f"WHERE {column} = ?",
                (key,),
            )
        connection.commit()
        yield
        for table, column in (("items", "id"), ("jobs", "session_id")):
            connection.execute(f"DELETE FROM {table} WHERE {column} LIKE 'full-%'")
        connection.commit()


@pytest.mark.catches("a look without bounds")
def test_a_few_rows_do_not_read_a_full_registry(
    run_items, register, journal, lodged, tmp_path, embedded_platform, full_registry
):
    """Five new rows are five runs after at most 40 requests, of old work and of work that has just ended."""
    for end, lists in ((1_600_000_100, 20), (int(time.time()) + 86_400, 6)):
        _, rows = rows_of(run_items, 5, end_time=end)
        embedded_platform.forget_requests()
        assert register(write_lines(tmp_path / "rows.jsonl", rows), journal).registered == 5
        asked = embedded_platform.requests()
        assert len(asked) <= 40 and len([each for each in asked if each["path"].endswith("/list")]) <= lists
