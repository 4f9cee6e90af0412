"""Waiting: the requests that it makes, counted on the platform, and what Prefect shows of it."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from broken_program import on_build
from eventually import until
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.runtime import flow_run

from ivcap_flows import loop, wait_or_park
from ivcap_flows.durable import poller
from ivcap_flows.errors import InputError, OutcomeError, UnavailableError, WaitTimeoutError
from ivcap_flows.handles import Order
from ivcap_flows.http.pauses import retry_until
from ivcap_flows.http.session import Session
from ivcap_flows.journal import Journal
from ivcap_flows.tasks import (
    collection_items,
    create_collection,
    jobs,
    parking,
    place_order,
    poll_sources,
    progress,
    request_job,
    upload_artifact,
    wait_for_jobs,
    wait_for_orders,
)
from ivcap_flows.tasks.waiting import Ended, Patience, failure

BUDGET = 0.4
"""Seconds for which the clients of this file repeat a request."""


def polls(embedded):
    """Return the requests that read jobs, without event streams."""
    return [
        each["path"]
        for each in embedded.requests("GET")
        if ("/jobs" in each["path"] and not each["path"].endswith("/events")) or each["path"] == "/1/aspects"
    ]


@pytest.mark.long
def test_the_reply_of_the_platform_says_when_to_ask_first(in_script, monkeypatch):
    """Until the `retry-later` of a 202 has passed, nothing is requested, although the job is waited for."""
    said, asked, request = [], [], Session.request

    def later(urn, seconds):
        said.append((seconds, time.monotonic()))
        poll_sources.ask_later(urn, 3.0)

    def noted(session, method, path, **options):
        if method == "GET" and ("/jobs" in path or path == "/1/aspects"):
            asked.append(time.monotonic())
        return request(session, method, path, **options)

    monkeypatch.setattr(jobs, "ask_later", later)
    monkeypatch.setattr(Session, "request", noted)

    def body():
        job = request_job("sleep", {"seconds": 1.0})
        asked.clear()
        wait_for_jobs([job], timeout=60)

    in_script(body)
    [(seconds, replied)] = said
    assert seconds == 1 and asked[0] - replied >= 3.0


@pytest.mark.long
def test_the_setting_bounds_the_requests_of_a_minute(in_script, effects, unique, monkeypatch):
    """A quarter of the minute's requests is allowed at once, the rest over the minute. No end is lost."""
    monkeypatch.setenv("IVCAP_FLOWS_POLLS_PER_MINUTE", "20")

    def body():
        work = [request_job("sleep", {"seconds": 30 + n / 1000}) for n in range(6)]
        effects.embedded.forget_requests()
        with pytest.raises(WaitTimeoutError):
            wait_for_jobs(work, timeout=6.0)

    in_script(body)
    assert 1 <= len(polls(effects.embedded)) <= 5 + 2


ALONE = "each asks for itself"


@pytest.mark.long
@pytest.mark.parametrize("build", [None, pytest.param(ALONE, marks=pytest.mark.mutant(ALONE))])
def test_three_processes_share_their_rounds(in_script, effects, file_service, sqlite_url, tmp_path, build):
    """Each waits for an order of its own and for three that all wait for, and hears of their end. The platform is asked
    once a round, whoever's round it is, and no more often than by one process. A build in which each asks for itself is
    found."""
    file, numbers = tmp_path / "ended", map(str, range(6))
    orders = in_script(lambda: [place_order(file_service, {"file": str(file)}, discriminator=each) for each in numbers])
    watchlist = f"orders {orders[0].account} {orders[0].platform}"
    effects.embedded.forget_requests()

    def asked() -> int:
        return len(effects.embedded.requests("GET", "^/1/orders$"))

    program = [sys.executable, *on_build(build), str(Path(__file__).with_name("polling.py"))]
    environment, begun = {**os.environ, "IVCAP_FLOWS_JOURNAL": sqlite_url}, time.monotonic()
    processes = [
        subprocess.Popen([*program, *(order.urn for order in orders[:3]), own.urn], env=environment)
        for own in orders[3:]
    ]
    try:
        with Journal.open(sqlite_url) as journal:
            until(asked, lambda count: count >= 3, 120)
            requests, rounds = asked(), journal.polls.read(watchlist).begun
            most = 1 + (time.monotonic() - begun) / ((1 - poller._JITTER) * poller.SHORTEST)
            assert (requests <= rounds <= most) == (build is None)
            file.touch()
            assert [process.wait(60) for process in processes] == [0, 0, 0]
            assert build or asked() <= journal.polls.read(watchlist).begun
    finally:
        for process in processes:
            process.kill()
            process.wait(5)


def test_a_malformed_urn_is_an_error_before_anything_is_asked(in_script, effects):
    """No other process hears of it, and no list is read to find it. Only orders and jobs are waited for."""

    def body():
        for wait in (wait_for_orders, wait_or_park):
            with pytest.raises(InputError, match="must be a URN"):
                wait([f"urn:ivcap:order:{n}/2" for n in range(9)])
        with pytest.raises(InputError, match="neither"):
            wait_or_park(["urn:ivcap:artifact:1"])

    effects.embedded.forget_requests()
    in_script(body)
    assert not [each for each in effects.embedded.requests("GET") if each["path"].startswith("/1/orders")]


def test_a_timeout_counts_from_the_call():
    """However long it takes to learn that the platform is away. What a platform answers late is read all the same."""
    patience, tried = Patience.of(["urn:ivcap:order:1"], 0.1), []

    async def ask():
        tried.append(retry_until.get())
        await asyncio.sleep(0.2)
        raise UnavailableError("The platform is away.")

    async def answers():
        return retry_until.get()

    with pytest.raises(WaitTimeoutError, match="The platform is away") as caught:
        loop.run(patience.read(ask))
    assert caught.value.pending == ["urn:ivcap:order:1"]
    assert tried == [patience.until] and patience.left == 0
    assert loop.run(patience.read(answers)) == patience.until and retry_until.get() == math.inf
    patience.has_ended = True
    with pytest.raises(WaitTimeoutError, match="The platform is away") as caught:
        loop.run(patience.read(ask))
    assert caught.value.pending == []


def test_the_last_try_is_at_the_end_of_the_timeout():
    """Also where the platform asks to come later. A platform that is back by then is read."""
    patience, tried = Patience.of(["urn:ivcap:order:1"], 0.3), []

    async def ask():
        tried.append(patience.left)
        if patience.left > 0.05:
            raise UnavailableError("The platform is away.", retry_after=30.0)
        return "there"

    assert loop.run(patience.read(ask)) == "there" and len(tried) <= 3


def test_an_outage_after_the_end_of_a_job_ends_no_wait(in_flow, effects, unique):
    """The poll shows the job, and what is then read of it is away: the name of its service."""

    def body():
        [done] = wait_for_jobs([request_job("echo", {"message": unique})])
        effects.embedded.add_fault(method="GET", path="^/1/services2/[^/]+$", status=503)
        threading.Timer(2 * BUDGET, effects.embedded.clear_faults).start()
        return wait_for_jobs([done.model_copy(update={"service_name": None})])

    [done] = in_flow(body)
    assert done.service_name == "echo"


def test_an_outage_ends_no_wait(in_flow, effects, source, tasks_service, monkeypatch):
    """What a wait reads besides the work itself, such as its products, it reads when the platform answers again.

    It waits for that until its timeout.
    """

    def body():
        series = upload_artifact(source)
        order = place_order(tasks_service, {"series": series})
        job = request_job(tasks_service, {"series": series, "base": 1990})
        wait_for_orders([order])
        wait_for_jobs([job])
        effects.embedded.add_fault(method="GET", path="/products$|^/1/(services|aspects)", status=503)
        with pytest.raises(WaitTimeoutError, match=r"The timeout .* is over, .* 503"):
            wait_for_orders([order], timeout=5 * BUDGET)
        monkeypatch.setattr(parking, "READING", BUDGET)
        with pytest.raises(WaitTimeoutError, match=r"The timeout .* is over, .* 503"):
            wait_or_park([order], timeout=5 * BUDGET)
        threading.Timer(2 * BUDGET, effects.embedded.clear_faults).start()
        waits = wait_for_orders.submit([order.urn]), wait_for_jobs.submit([job.urn])
        return [*wait_or_park([order.urn, job.urn]), *(ended for wait in waits for ended in wait.result())]

    for ended in in_flow(body):
        assert ended.service_name == tasks_service and len(ended.products) == 2


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"drop_reply_after_effect": True}, id="lost replies"),
        pytest.param({"status": 503}, marks=pytest.mark.long, id="refused"),
        pytest.param({"status": 503, "method": "GET"}, marks=pytest.mark.long, id="unread"),
    ],
)
def test_an_outage_keeps_no_product_from_its_collection(in_flow, effects, source, tasks_service, unique, fault):
    """Whichever wait it is, it adds the products when the platform answers again, each once, or until its timeout."""

    def body():
        series, collections = upload_artifact(source), [create_collection(f"{unique} {number}") for number in range(2)]
        orders = [
            place_order(tasks_service, {"series": series, "base": base}, collection=collection)
            for base, collection in enumerate(collections)
        ]
        wait_for_orders([order.urn for order in orders])
        effects.embedded.add_fault(**{"method": "POST", **fault}, path="^/1/aspects")
        if "status" in fault:
            with pytest.raises(WaitTimeoutError) as caught:
                wait_for_orders(orders[:1], timeout=5 * BUDGET)
            assert caught.value.pending == []
        threading.Timer(2 * BUDGET, effects.embedded.clear_faults).start()
        waits = wait_for_orders.submit(orders[:1])
        done = [*wait_or_park(orders[1:]), *waits.result()]
        return done, [collection_items(collection) for collection in collections[::-1]]

    for done, items in zip(*in_flow(body), strict=True):
        assert sorted(each.urn for each in items) == sorted(each.urn for each in done.products) and len(items) == 2


def test_equal_orders_fill_the_collection_of_each(in_script, effects, source, tasks_service, unique):
    """Two equal requests of a run share one order. What it makes gets into both collections, and each handle has its
    own."""

    def body():
        given = {"series": upload_artifact(source)}
        collections = [create_collection(f"{unique} {number}") for number in range(2)]
        orders = [place_order(tasks_service, given, collection=each) for each in collections]
        done = wait_for_orders([*orders, orders[0].urn])
        return collections, orders, done, [collection_items(each) for each in collections]

    collections, orders, done, items = in_script(body)
    assert effects.count("/1/orders") == 1 and orders[0].urn == orders[1].urn
    assert [each.collection for each in done[:2]] == [each.urn for each in collections]
    made = sorted(product.urn for product in done[0].products)
    assert len(made) == 2 and [sorted(each.urn for each in some) for some in items] == [made, made]


FAILS = """
def run(request, job):
    job.log("nearly there")
    job.log(request["message"])
    raise ValueError("no more memory")
"""


@pytest.mark.parametrize(("ask", "wait"), [(place_order, wait_for_orders), (request_job, wait_for_jobs)])
def test_a_failure_that_is_not_raised_is_in_the_log_and_on_the_page(in_flow, effects, serve, unique, caplog, ask, wait):
    """One warning has the name and the service's reason, and so has the row of the run's page. What succeeds has none,
    and a failure that is raised is not told twice: its error has the end of the log, too."""
    failing = serve("waiting-fails", FAILS, [{"name": "message", "type": "string"}])

    def body():
        work = [ask(failing, {"message": unique}), ask("echo", {"message": unique})]
        done = wait(work, raise_on_failure=False)
        with pytest.raises(OutcomeError, match=rf"1 of 2 .*\n{failing}.*no more memory\n  \| (.*\n)*?  \| {unique}"):
            wait(work)
        return flow_run.id, done

    run, [failed, succeeded] = in_flow(body)
    said = {each.getMessage() for each in caplog.records if each.levelname == "WARNING"}
    [said] = [each for each in said if "did not succeed" in each]
    assert said.startswith(f"1 of 2 {failed.kind}s did not succeed.\n{failing}") and said.endswith("no more memory")
    assert "no more memory" in failed.error_message and succeeded.error_message is None
    [row, _] = effects.journal.intents.where(noun=failed.kind)
    assert "no more memory" in row.error and row.status == failed.status

    async def page():
        async with get_client() as client:
            of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
            return [
                each.data for each in await client.read_artifacts(artifact_filter=of_run) if each.type == "markdown"
            ]

    pages = until(lambda: loop.run(page()))
    assert f"| {failed.status}: " in pages[0] and "no more memory |" in pages[0]


def test_of_many_failures_the_log_names_some():
    """The warning counts all and says how to list them."""
    one = Order(urn="urn:ivcap:order:1", platform="p", service="s", status="failed", error_message=300 * "no ")
    *some, last = failure([Ended(one, True)] * 30, 40, "order", logs=False)
    assert some[0] == "30 of 40 orders did not succeed." and len(some) == 21 and last.startswith("and 10 more")
    assert some[1].startswith("s (urn:ivcap:order:1) ended as failed: no no") and len(some[1]) < 600


@pytest.fixture
def brisk(monkeypatch):
    """Let Prefect show a wait at once."""
    monkeypatch.setattr(progress, "FIRST", 0.1)


async def shown(run):
    async with get_client() as client:
        found = await client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        )
        return {kind: [each for each in found if each.type == kind] for kind in ("progress", "table")}


@pytest.mark.long
def test_a_run_shows_its_waits_and_all_of_its_work_in_one_table(in_flow, brisk, unique, monkeypatch):
    """Two waits write one table, at the end, and in between not more often than the interval."""
    told = []
    ashow = progress.ashow

    async def counted(artifact, known):
        told.append((artifact.kind, known is None))
        return await ashow(artifact, known)

    monkeypatch.setattr(progress, "ashow", counted)

    def body():
        orders = [place_order("sleep", {"seconds": 2.5}, name="nap"), place_order("echo", {"message": unique})]
        ended = wait_for_orders(orders)
        time.sleep(1.1)
        [job] = wait_for_jobs([request_job("echo", {"message": unique})])
        return flow_run.id, [*ended, job]

    run, work = in_flow(body)
    urns = [each.urn for each in work]
    found = loop.run(shown(run))
    [table] = found["table"]
    rows = json.loads(table.data) if isinstance(table.data, str) else table.data
    assert [row["place"] for row in rows] == urns and len({tuple(row) for row in rows}) == 1
    assert {row["status"] for row in rows} == {"succeeded"}
    assert [row["ended (UTC)"] for row in rows] == [f"{each.finished_at:%Y-%m-%d %H:%M:%S}" for each in work]
    assert [row["requested (UTC)"] for row in rows] == [f"{each.requested_at:%Y-%m-%d %H:%M:%S}" for each in work]
    assert [row["name"] for row in rows] == ["nap", "echo", None]
    bars = found["progress"]
    assert {(each.data, each.key) for each in bars} == {(100, None)}
    assert len({each.task_run_id for each in bars} - {None}) == len(bars) <= 2
    assert told.count(("table", True)) == 1 and told.count(("progress", True)) == len(bars) and len(told) <= 8


def test_a_wait_that_ends_with_an_error_is_shown_as_far_as_it_came(in_flow):
    """The table of the run names the work that was waited for, although the wait itself gave up."""

    def body():
        job = request_job("sleep", {"seconds": 30.0})
        with pytest.raises(WaitTimeoutError):
            wait_for_jobs([job], timeout=3.0)
        return flow_run.id, job.urn

    run, urn = in_flow(body)
    [table] = loop.run(shown(run))["table"]
    [row] = json.loads(table.data)
    assert row["place"].endswith(urn) and row["status"] not in ("unknown", "succeeded")


def test_a_prefect_that_does_not_answer_fails_no_wait(in_flow, in_script, brisk, unique, monkeypatch):
    """It is asked once, and then not for a while. Outside of a flow it is not asked: no run could show the wait."""
    asked = []

    async def broken(*_):
        asked.append(1)
        raise OSError("no route to host")

    monkeypatch.setattr(progress, "ashow", broken)

    def body():
        return [wait_for_jobs([request_job("echo", {"message": f"{unique}{i}"})])[0].status for i in range(2)]

    assert in_script(body) == ["succeeded", "succeeded"] and asked == []
    assert in_flow(body) == ["succeeded", "succeeded"] and asked == [1]
