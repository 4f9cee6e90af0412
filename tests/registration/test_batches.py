"""Rows become model runs once each, whatever is lost, refused, killed or started twice."""

from __future__ import annotations

import asyncio
import csv
import itertools
import sqlite3
import time
import uuid
from contextlib import closing
from datetime import timedelta

import pytest
from registration_rows import write_lines

from ivcap_flows import loop
from ivcap_flows.durable import Caller, perform
from ivcap_flows.errors import ForbiddenError, InDoubtError, InputError, WaitTimeoutError
from ivcap_flows.handles import ModelRun
from ivcap_flows.journal.store import Store
from ivcap_flows.local.directory import Directory
from ivcap_flows.provena.jobs import JobsApi
from ivcap_flows.provena.models import ModelRun as ModelRunInfo
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.registration import graph_check, model_runs
from ivcap_flows.registration.batch import Batch
from ivcap_flows.registration.job_watch import JobWatch
from ivcap_flows.registration.lookup import LODGE
from ivcap_flows.registration.model_runs import ModelRunEffect
from ivcap_flows.registration.sources import open_source

SENDS = {"method": "POST", "path": "model_run/register$"}
MINTS = {"method": "POST", "path": "mint-dataset$"}
LOST = {"drop_reply_after_effect": True}


@pytest.fixture
def registering(provena, run_items, sqlite_journal, tmp_path):
    """Checks rows and registers them, in a coroutine; the outcome is in `out.csv`. `before` is awaited in between."""

    async def run(
        rows, into=sqlite_journal, *, stall_timeout=20.0, progress=None, before=None, out="out.csv", **options
    ):
        file = write_lines(tmp_path / f"{uuid.uuid4().hex}.jsonl", rows)
        minting = any(
            row["outputs"] and row["outputs"][0]["dataset_id"].startswith("urn:ivcap:artifact") for row in rows
        )
        more = {"terms": run_items.terms if minting else None, "stall_timeout": stall_timeout}
        if progress is not None:
            more["progress"] = progress
        with Batch(open_source(file), provena, **more) as batch:
            await batch.check()
            if before is not None:
                await before(batch)
            return await batch.register(into, out=tmp_path / out if out else None, **options)

    return run


@pytest.fixture
def register(registering):
    return lambda *rows, **options: loop.run(registering(*rows, **options))


@pytest.fixture
def outcomes(tmp_path):
    """The rows of the outcome file, of those with this outcome if one is given."""

    def read(which=None, out="out.csv"):
        with (tmp_path / out).open(encoding="utf-8", newline="") as file:
            return [each for each in csv.DictReader(file) if which in (None, each["outcome"])]

    return read


@pytest.fixture
def asked(embedded_platform):
    """The requests to the platform, or those whose path ends so."""
    return lambda end="": [each for each in embedded_platform.requests() if each["path"].endswith(end)]


@pytest.fixture
def rows_of(run_items):
    """Rows of this test alone, and how their names begin; with an artifact each in the place of the output's dataset;
    or with the key of an order."""

    def rows(count, *, minting=False, orders=False, **changes):
        name = uuid.uuid4().hex
        made = [run_items.record(n, **{"display_name": f"{name} {n}", **changes}) for n in range(count)]
        for row in made:
            if minting:
                row["outputs"][0]["dataset_id"] = f"urn:ivcap:artifact:{uuid.uuid4()}"
            if orders:
                row["key"] = f"urn:ivcap:order:{uuid.uuid4()}"
        return name, made

    return rows


@pytest.fixture
def set_clock(monkeypatch):
    """Lets the journal's clock go ahead by these seconds, or behind; several follow each other at each look."""
    now = Store.now

    def set_to(*seconds):
        steps = itertools.cycle(seconds)
        monkeypatch.setattr(Store, "now", lambda self, on: now(self, on) + timedelta(seconds=next(steps)))

    return set_to


def test_each_row_is_one_model_run(
    register, rows_of, other_journal, lodged, outcomes, asked, embedded_platform, tmp_path
):
    """Every row has its handle in the outcome file as soon as it has come to its end. A second start asks for nothing
    more and says the same; without the journal, every run is found by its key in one pass."""
    name, rows = rows_of(30)
    embedded_platform.add_fault(**SENDS, delay=0.05)
    seen = []

    def tell(what, done, total):
        if what == "registered":
            seen.append((done, len({each["model_run"] for each in outcomes()})))

    async def forget(batch):
        embedded_platform.forget_requests()

    first = register(rows, progress=tell, before=forget)
    assert (first.rows, first.registered, first.is_whole) == (30, 30, True)
    assert len(asked("model_run/register")) == 30
    assert len(seen) > 2 and all(done == known for done, known in seen) and seen[-1] == (30, 30)
    before = outcomes()
    assert [int(each["row"]) for each in before] == list(range(1, 31))
    assert len({each["model_run"] for each in before}) == 30 == len(lodged(name))
    embedded_platform.forget_requests()
    again = register(rows)
    assert (again.registered, outcomes()) == (30, before)
    embedded_platform.forget_requests()
    assert register(rows, other_journal).registered == 30
    assert len(asked("list")) <= 6
    assert [each["model_run"] for each in outcomes()] == [each["model_run"] for each in before]
    assert not asked("model_run/register") and len(lodged(name)) == 30


@pytest.mark.parametrize(
    ("faults", "count", "sent"),
    [
        pytest.param(
            [SENDS | LOST | {"count": 3}], 10, 10, id="replies are lost, and the runs are found by their keys"
        ),
        pytest.param(
            [SENDS | {"count": 3, "reset": True}], 10, 13, id="requests are lost, and sent again when that is sure"
        ),
        pytest.param(
            [
                SENDS | LOST | {"count": 1, "delay": 0.2},
                {"path": "^/provena/(job|registry)", "count": 12, "status": 503},
            ],
            *(20, 20),
            id="Provena is away for a while",
            marks=pytest.mark.long,
        ),
        pytest.param(
            [{"path": "MODEL_RUN_PROV_LODGE", "count": 1, "kill_worker": "after"}],
            *(5, 5),
            id="a worker dies with its work done",
            marks=pytest.mark.long,
        ),
        pytest.param(
            [{"path": "MODEL_RUN_PROV_LODGE", "count": 2, "end_job": "pending"}],
            *(5, 5),
            id="the row of a job goes back with its work done",
        ),
    ],
)
def test_a_fault_costs_no_row_and_makes_none_twice(
    register, rows_of, lodged, asked, embedded_platform, monkeypatch, faults, count, sent
):
    monkeypatch.setattr(graph_check, "_QUIET", 0.5)
    name, rows = rows_of(count)
    for fault in faults:
        embedded_platform.add_fault(**fault)
    patience = 5.0 if "kill_worker" in faults[0] else 600.0
    assert register(rows, stall_timeout=patience).registered == count == len(lodged(name))
    assert len(asked("model_run/register")) == sent


@pytest.mark.parametrize(
    "off",
    [
        *(pytest.param((off,), marks=pytest.mark.long) for off in (600, -600, 10_800, -10_800)),
        (10_800, -600, -10_800, 600),
    ],
)
def test_a_clock_that_is_wrong(register, rows_of, lodged, embedded_platform, set_clock, off):
    """Replies are lost, and the journal's clock is ahead, behind, or steps: each row is registered once."""
    name, rows = rows_of(12)
    set_clock(*off)
    embedded_platform.add_fault(**SENDS, **LOST, count=2, late_visibility=1.0)
    assert register(rows).registered == 12 == len(lodged(name))


@pytest.mark.long
@pytest.mark.parametrize("hours", [3, -3])
def test_a_clock_that_is_set_between_two_starts(
    register, registering, rows_of, sqlite_journal, lodged, embedded_platform, set_clock, hours
):
    """A start ends while its rows do not show yet; the next one, by another clock, waits until they must."""
    name, rows = rows_of(10)
    embedded_platform.add_fault(**SENDS, **LOST, count=1, late_visibility=1.8)

    async def cut_off():
        first = asyncio.create_task(registering(rows))
        while not sqlite_journal.intents.where(state="sent"):
            await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    loop.run(cut_off())
    set_clock(hours * 3600)
    assert register(rows).registered == 10 == len(lodged(name))


@pytest.mark.long
@pytest.mark.parametrize("death", ["before", "amid"])
def test_a_worker_that_dies_leaves_a_doubt(
    register, rows_of, other_journal, lodged, outcomes, asked, embedded_platform, death
):
    """A job that never ends is told with its id, since when, and what was looked at; it is not sent again."""
    name, rows = rows_of(5)
    embedded_platform.add_fault(path="MODEL_RUN_PROV_LODGE", count=1, kill_worker=death)
    report = register(rows, stall_timeout=5.0)
    assert (report.registered, report.doubtful) == (4, 1)
    [doubt] = outcomes("doubtful")
    assert uuid.UUID(doubt["job_id"]) and doubt["since"] and "registry" in doubt["reason"]
    embedded_platform.forget_requests()
    again = register(rows, stall_timeout=5.0)
    [still] = outcomes("doubtful")
    assert (still["job_id"], still["since"]) == (doubt["job_id"], doubt["since"])
    # Halfway, the registry has the run, and lineage does not.
    there = [run.record_status for run in lodged(name)]
    assert (there.count("LODGED"), len(there)) == (4, 5 if death == "amid" else 4)
    assert ("the registry has its run" in doubt["reason"]) == (death == "amid")
    other = register(rows, other_journal, stall_timeout=5.0)
    assert [(each.registered, each.doubtful) for each in (again, other)] == [(4, 1)] * 2
    assert not asked("model_run/register")


@pytest.mark.parametrize("journals", ["one journal", pytest.param("two journals", marks=pytest.mark.long)])
def test_two_at_once(registering, rows_of, sqlite_journal, other_journal, lodged, outcomes, asked, journals):
    """Two starts share the rows, or one follows to its end what another machine has just sent: both tell the handles of
    all, and none is there twice."""
    name, rows = rows_of(30)

    async def both():
        first = asyncio.create_task(registering(rows, out="one.csv"))
        if journals == "one journal":
            return await asyncio.gather(first, registering(rows, out="two.csv"))

        async def all_are_sent(batch):
            while len(asked("model_run/register")) < 30:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)

        return await asyncio.gather(first, registering(rows, other_journal, before=all_are_sent, out="two.csv"))

    assert [report.registered for report in loop.run(both())] == [30, 30]
    assert len(asked("model_run/register")) == 30 == len(lodged(name))
    one, two = ([each["model_run"] for each in outcomes(out=f"{number}.csv")] for number in ("one", "two"))
    assert one == two


@pytest.mark.long
@pytest.mark.parametrize("refused", ["the record", "the caller", "the job"])
def test_only_what_was_refused_is_sent_again(
    register, rows_of, lodged, outcomes, asked, embedded_platform, failing_jobs, refused
):
    """What Provena refuses of records, or fails to lodge, is their reason; what it refuses of the caller is raised."""
    name, rows = rows_of(3)
    if refused == "the job":
        with failing_jobs(f"{name} 1"):
            assert register(rows).failed == 1
        assert [(each["row"], each["reason"]) for each in outcomes("failed")] == [("2", "Out of luck.")]
    else:
        embedded_platform.add_fault(**SENDS, count=1, status=403 if refused == "the caller" else 400)
        if refused == "the caller":
            with pytest.raises(ForbiddenError):
                register(rows)
        else:
            assert register(rows).failed == 1
        assert len(lodged(name)) == 2
    embedded_platform.forget_requests()
    assert register(rows).is_whole and len(lodged(name)) == 3 and len(asked("model_run/register")) == 1


@pytest.mark.parametrize("again_by", ["a batch", "a task"])
def test_what_another_journal_registers_after_a_failure_is_found(
    register, rows_of, other_journal, lodged, asked, failing_jobs, embedded_platform, by_task, again_by
):
    """The journal knows only that its job failed. A batch finds the run by the look that it begins with."""
    name, rows = rows_of(2, orders=True)
    with failing_jobs(f"{name} 0"):
        assert register(rows).failed == 1
    assert register(rows, other_journal).is_whole
    embedded_platform.forget_requests()
    if again_by == "a batch":
        assert register(rows).is_whole
        assert len([*itertools.groupby(asked("/list"), lambda each: each["path"])]) == 2
    else:
        by_task(rows[0])
    assert len(lodged(name)) == 2


@pytest.mark.long
@pytest.mark.timeout(60)
def test_a_refusal_while_rows_are_claimed(register, rows_of, sqlite_journal, lodged, embedded_platform, monkeypatch):
    """What a start that ends so has claimed meanwhile is free for the next one in the same process."""
    name, rows = rows_of(20)
    claim = sqlite_journal.intents.claim

    def slowly(wanted, **limit):
        claimed = claim(wanted, **limit)
        time.sleep(0.1)
        return claimed

    embedded_platform.add_fault(**SENDS, count=1, status=403)
    with monkeypatch.context() as slow, pytest.raises(ForbiddenError):
        slow.setattr(sqlite_journal.intents, "claim", slowly)
        register(rows)
    assert register(rows).is_whole and len(lodged(name)) == 20


def test_rows_that_are_wrong_or_done_are_not_sent(register, rows_of, run_items, done_run, lodged, outcomes, tmp_path):
    """Nothing is sent while a row is wrong; with `skip_invalid` the others are, and the wrong one has its reason. A row
    with Provena's own columns has their handle in the outcome."""
    name, rows = rows_of(4)
    handle, job = done_run
    rows[0] |= {"_model_run_record_id": handle, "_job_id": job}
    rows[2]["study_id"] = run_items.person
    with pytest.raises(InputError, match="1 of the 4 rows of .*jsonl are wrong"):
        register(rows)
    assert lodged(name) == [] and not (tmp_path / "out.csv").exists()
    report = register(rows, skip_invalid=True)
    assert (report.registered, report.done, report.wrong, len(lodged(name))) == (2, 1, 1, 2)
    done, _, wrong, _ = outcomes()
    assert (done["outcome"], done["model_run"], done["job_id"]) == ("done", handle, job)
    assert wrong["outcome"] == "wrong" and wrong["reason"].startswith("study_id: ")


@pytest.fixture
def by_task(provena, sqlite_journal):
    """Registers a row with a key as the task and the sink do."""

    async def register(row):
        record = ModelRunRecord(**{name: value for name, value in row.items() if name != "key"})
        platform, account = await provena.platform(), await provena.username()
        effect = ModelRunEffect.of(row["key"], record, client=provena, platform=platform)
        return (await perform(effect, Caller(sqlite_journal, None, platform, account))).value

    return lambda row: loop.run(register(row))


def test_the_task_the_sink_and_a_batch_meet(register, rows_of, lodged, outcomes, by_task):
    """An order's URN as the key is the key of the task and the sink: whoever comes second finds the run."""
    name, rows = rows_of(3, orders=True)
    first = by_task(rows[0])
    assert register(rows).is_whole
    assert [outcomes()[0]["model_run"], by_task(rows[2]).urn] == [first.urn, outcomes()[2]["model_run"]]
    assert len(lodged(name)) == 3


def test_what_is_written_off_meanwhile_is_not_sent(
    register, rows_of, sqlite_journal, lodged, asked, by_task, monkeypatch
):
    """The user writes a row off after a start has begun: it is not sent by that start, nor by the task or the sink,
    until the user says so."""
    name, [row] = rows_of(1, orders=True)
    claim, keys = sqlite_journal.intents.claim, []

    def once_decided(wanted, **limit):
        keys.append(wanted.key)
        sqlite_journal.intents.release(sqlite_journal.intents.mark_in_doubt(claim(wanted).intent, "the reply was lost"))
        sqlite_journal.decisions.give_up(wanted.key)
        return claim(wanted, **limit)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_journal.intents, "claim", once_decided)
        report = register([row])
    assert (report.failed, report.registered) == (1, 0)
    with pytest.raises(InDoubtError, match="models resolve --resend"):
        by_task(row)
    assert asked("model_run/register") == lodged(name) == []
    sqlite_journal.decisions.send_again(keys[0])
    assert by_task(row).subject == row["key"]


@pytest.fixture
def no_job_left(provena):
    """Waits until no job of an earlier test is on its way, which a fault of this one's would meet.

    A job whose worker was killed stands still for ever, and meets none.
    """

    async def statuses():
        return [row.status async for row in provena.jobs.list(limit=40)]

    def wait():
        before = []
        for _ in range(100):
            now = loop.run(statuses())
            if not {"PENDING", "DEQUEUED"} & set(now) and before[-3:] == [now] * 3:
                return
            before.append(now)
            time.sleep(0.2)
        raise AssertionError(before[-1])

    return wait


@pytest.mark.long
@pytest.mark.parametrize("sent_by", ["a task", "a task whose reply is lost", "a batch"])
def test_a_job_that_fails_half_way(
    register,
    rows_of,
    sqlite_journal,
    lodged,
    asked,
    embedded_platform,
    by_task,
    fail_job,
    no_job_left,
    monkeypatch,
    sent_by,
):
    """The registry has the run and lineage does not: neither the task nor a batch makes a second one, until the user
    says so."""
    name, [row] = rows_of(1, orders=True)
    monkeypatch.setattr(model_runs, "STALL_TIMEOUT", 3.0)
    no_job_left()
    embedded_platform.add_fault(path="MODEL_RUN_PROV_LODGE", count=1, kill_worker="amid")
    if sent_by == "a task whose reply is lost":
        embedded_platform.add_fault(**SENDS, **LOST, count=1)
    if sent_by == "a batch":
        assert register([row], stall_timeout=1.5).doubtful == 1
    else:
        with pytest.raises(WaitTimeoutError):
            by_task(row)
    assert [run.record_status for run in lodged(name)] == ["COMPLETE"]
    fail_job(f"{name} 0")
    for _ in range(2):
        report = register([row])
        assert (report.doubtful, report.failed) == (1, 0)
        with pytest.raises(InDoubtError, match=r"orders resolve .* --urn 102\.100\.100/.*--none") as caught:
            by_task(row)
    assert len(asked("model_run/register")) == len(lodged(name)) == 1
    sqlite_journal.decisions.write_off(caught.value.key)
    assert by_task(row).subject == row["key"]
    assert len(lodged(name)) == 2


@pytest.fixture
def late_job(provena, asked, monkeypatch):
    """Lets jobs that lodge show only after their runs in the registry, to the first that lists when they were sent:
    `late_job(name)`."""
    listed = JobsApi.list

    def hide(name):
        async def once(*args, **options):
            hidden = bool(asked("model_run/register"))
            if hidden:
                monkeypatch.setattr(JobsApi, "list", listed)
                while not await registered_now(provena, name):
                    await asyncio.sleep(0.05)
            async for row in listed(*args, **options):
                if not hidden or row.job_sub_type != LODGE:
                    yield row

        monkeypatch.setattr(JobsApi, "list", once)

    return hide


@pytest.mark.long
def test_a_run_whose_job_shows_later_is_not_taken_for_lodged(
    register, rows_of, other_journal, lodged, embedded_platform, by_task, no_job_left, monkeypatch, late_job
):
    """The registry has the run, and its job, which may still fail, did not show when jobs were looked at."""
    name, [row] = rows_of(1, orders=True)
    monkeypatch.setattr(model_runs, "STALL_TIMEOUT", 1.0)
    no_job_left()
    embedded_platform.add_fault(path="MODEL_RUN_PROV_LODGE", count=1, kill_worker="amid")
    embedded_platform.add_fault(**SENDS, **LOST, count=1)
    late_job(name)
    with pytest.raises(WaitTimeoutError):
        by_task(row)
    late_job(name)
    report = register([row], other_journal, stall_timeout=1.0)
    assert (report.doubtful, report.registered, len(lodged(name))) == (1, 0, 1)


@pytest.mark.long
@pytest.mark.parametrize("known_by", ["the journal", "Provena"])
def test_another_record_under_a_key_is_told(
    register, rows_of, run_items, sqlite_journal, other_journal, lodged, outcomes, known_by
):
    """A row that was changed after it was registered under its own key is not sent, and not taken for the run either:
    its outcome says that the run has another record, and the handle has what the run was registered with."""
    name, rows = rows_of(3)
    for number, row in enumerate(rows):
        row["key"] = f"{name}-{number}"
    assert register(rows).differing == 0
    rows[1]["end_time"] += 1
    rows[1]["inputs"][0]["dataset_id"] = run_items.datasets[1]
    kept = sqlite_journal if known_by == "the journal" else other_journal
    for _ in range(2):
        report = register(rows, kept)
        assert str(report) == "3 rows: 3 registered (1 with another record)" and report.is_whole
    [run] = [each for each in kept.intents.where(limit=None) if each.subject == f"{name} 1"]
    assert ModelRun.model_validate(run.outcome).inputs == (run_items.datasets[0],)
    assert [each["key"] for each in outcomes()] == [row["key"] for row in rows]
    assert ["another record" in each["reason"] for each in outcomes()] == [False, True, False]
    assert len(lodged(name)) == 3


@pytest.mark.long
def test_an_artifact_gets_one_dataset(registering, rows_of, other_journal, lodged, asked):
    """Artifacts in the place of datasets are minted once each, with what the user has stated, and found again, also by
    a start that was checked before another one minted them."""
    name, rows = rows_of(12)
    artifacts = [f"urn:ivcap:artifact:{uuid.uuid4()}" for _ in range(3)]
    for number, row in enumerate(rows):
        row["key"] = f"{name}-{number}"
        row["outputs"][0]["dataset_id"] = artifacts[number % 3]

    async def another(batch):
        assert (await registering(rows)).is_whole

    report = loop.run(registering(rows, other_journal, before=another))
    assert (report.registered, report.differing, len(asked("mint-dataset"))) == (12, 0, 3)
    runs = lodged(name)
    assert len(runs) == 12 and len({run.record.outputs[0].dataset_id for run in runs}) == 3


@pytest.mark.long
def test_provena_is_away_while_datasets_are_minted(register, rows_of, lodged, embedded_platform):
    """Longer than a request is repeated: the batch goes on when Provena is back, and each artifact has one dataset."""
    name, rows = rows_of(4, minting=True)
    embedded_platform.add_fault(**MINTS, **LOST, count=1)

    async def leave(batch):
        embedded_platform.add_fault(path="mint-dataset$|/dataset/list$", count=12, status=503)

    assert register(rows, stall_timeout=40, before=leave).is_whole
    runs = lodged(name)
    assert len(runs) == 4 and len({run.record.outputs[0].dataset_id for run in runs}) == 4


@pytest.mark.long
def test_a_narrow_data_store_loses_no_reply(register, rows_of, lodged, asked, embedded_platform, caplog):
    """50 rows with 50 mints, where two are worked on at once and a reply is lost that takes 15 times as long as a mint:
    no reply is lost, and each artifact is minted for once."""
    name, rows = rows_of(50, minting=True)
    embedded_platform.add_fault(path="^/provena/data/", at_once=2, delay=0.1, lost_after=1.5)
    assert register(rows, stall_timeout=40).is_whole and len(lodged(name)) == 50
    minted = asked("mint-dataset")
    assert [each["status"] for each in minted if not each["dropped"]] == [200] * 50 and len(minted) == 50
    assert not [record for record in caplog.records if "lost" in record.message]


async def registered_now(provena, name):
    """The model runs on Provena whose display name begins so."""
    found = provena.registry.list(ModelRunInfo, page_size=500)
    return [item.info.display_name async for item in found if item.info.display_name.startswith(name)]


@pytest.mark.long
def test_rows_do_not_wait_for_the_datasets_of_others(
    registering, rows_of, run_items, lodged, asked, embedded_platform, provena
):
    """One mint takes long: the other rows are registered before it is answered, and its own row after it."""
    name, rows = rows_of(4, minting=True)
    rows[3]["outputs"][0]["dataset_id"] = run_items.datasets[1]
    embedded_platform.add_fault(**MINTS, delay=12.0, count=1)

    async def both():
        under_way = asyncio.create_task(registering(rows, stall_timeout=40))
        while len(lodged_now := await registered_now(provena, name)) < 3:
            assert not under_way.done(), lodged_now
            await asyncio.sleep(0.05)
        assert sorted(each["status"] or 0 for each in asked("mint-dataset")) == [0, 200, 200]
        assert (await under_way).is_whole

    loop.run(both())
    assert len(lodged(name)) == 4


def test_a_batch_that_is_given_up_mints_nothing_more(registering, rows_of, asked, embedded_platform, caplog):
    """Nor does anything of it go on behind its back, once its rows are put away."""
    _, rows = rows_of(30, minting=True)
    embedded_platform.add_fault(**MINTS, delay=0.5)

    async def given_up():
        under_way = asyncio.create_task(registering(rows))
        while not asked("mint-dataset"):
            await asyncio.sleep(0.02)
        under_way.cancel()
        await asyncio.gather(under_way, return_exceptions=True)
        sent = len(asked("mint-dataset"))
        left = [each for each in asyncio.all_tasks() if "find_or_mint" in repr(each)]
        await asyncio.gather(*left, return_exceptions=True)
        return sent, left

    sent, left = loop.run(given_up())
    assert (len(asked("mint-dataset")), left) == (sent, [])


@pytest.mark.parametrize("status", [403, *(pytest.param(each, marks=pytest.mark.long) for each in (409, 422))])
def test_one_artifact_that_is_refused_stops_no_other(register, rows_of, lodged, outcomes, embedded_platform, status):
    """Its row fails with Provena's reason, the others are registered, and the next start mints it."""
    name, rows = rows_of(3, minting=True)
    embedded_platform.add_fault(**MINTS, status=status, count=1)
    report = register(rows)
    assert (report.registered, report.failed) == (2, 1)
    [failed] = outcomes("failed")
    assert str(status) in failed["reason"]
    assert register(rows).is_whole and len(lodged(name)) == 3


@pytest.mark.long
def test_a_caller_who_may_not_mint_is_refused_as_such(register, rows_of, asked, embedded_platform):
    """As soon as nothing was minted and as many mints were refused as are under way at once."""
    _, rows = rows_of(60, minting=True)
    embedded_platform.add_fault(**MINTS, status=403)
    with pytest.raises(ForbiddenError):
        register(rows, in_flight=20)
    assert len(asked("mint-dataset")) < 60


def test_a_data_store_that_refuses_is_asked_for_less_at_once(register, rows_of, embedded_platform, provena, caplog):
    """429 halves how many are minted at once, also where the request is sent again without a word."""
    _, rows = rows_of(1, minting=True)
    embedded_platform.add_fault(**MINTS, status=429, count=1)
    assert register(rows).is_whole and provena.datastore.minting.at_once == 2
    assert [said for said in caplog.messages if said.startswith("Mints of datasets with Provena: 2 at once instead")]


@pytest.fixture
def full_registry(_embedded, done_run):
    """While the test runs, Provena has 3,000 jobs of the user and as many model runs, made in the last hours."""
    count, run, job = 3_000, *done_run
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
    register, rows_of, asked, embedded_platform, full_registry, monkeypatch
):
    """Five new rows are five runs after at most 40 requests, of old work and of work that has just ended."""
    # How often their jobs are looked at depends on when those end.
    monkeypatch.setitem(JobWatch.__init__.__kwdefaults__, "pauses", (2.0, 2.0))
    for end, lists in ((1_600_000_100, 20), (int(time.time()) + 86_400, 6)):
        _, rows = rows_of(5, end_time=end)
        embedded_platform.forget_requests()
        assert register(rows, out=None).registered == 5
        assert len(asked()) <= 40 and len(asked("/list")) <= lists
