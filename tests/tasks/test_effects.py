"""At most one effect for one request, over retries, failures, limits and machines. Scopes are run, flow and account."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from prefect import flow, task

from ivcap_flows import once, recorded
from ivcap_flows.capture import use_journal
from ivcap_flows.durable import intent_record
from ivcap_flows.errors import (
    JobFailedError,
    JournalError,
    OrderFailedError,
    SpendLimitError,
    SupersededError,
    WaitTimeoutError,
)
from ivcap_flows.journal import Journal
from ivcap_flows.tasks import (
    arequest_job,
    attach_aspect,
    get_artifact,
    get_job,
    get_order,
    place_order,
    request_job,
    update_aspect,
    upload_artifact,
    wait_for_jobs,
    wait_for_orders,
)


def warnings_of(caplog):
    """What the durable room said."""
    records = [r for r in caplog.records if "ivcap_flows/durable" in r.pathname and r.levelno == logging.WARNING]
    return [record.getMessage() for record in records]


def jobs_of(effects):
    return [r for r in effects.embedded.requests("POST") if r["path"].endswith("/jobs") and r["status"] < 300]


def test_equal_requests_in_a_run_are_one(in_flow, effects, unique, caplog):
    """Two equal requests in one run place one order. A warning says so, and how to get two."""

    def body():
        return [place_order("echo", {"message": unique}) for _ in range(3)]

    with caplog.at_level(logging.WARNING, "ivcap_flows.durable"):
        orders = in_flow(body)
    assert len({order.urn for order in orders}) == effects.count("/1/orders") == 1
    [warning] = warnings_of(caplog)
    assert "share one" in warning and "discriminator=" in warning


@pytest.mark.parametrize(("times", "warned"), [(1, False), (2, True)])
def test_the_next_try_of_a_task_asks_for_the_same_order(in_flow, effects, unique, caplog, times, warned):
    """Only a task that asks twice in one try, also in what it calls, is told of it."""
    tries = []

    @recorded
    def ask():
        return place_order("echo", {"message": unique}).urn

    @task(retries=1)
    def orders():
        tries.append([ask() for _ in range(times)])
        if len(tries) == 1:
            raise RuntimeError("The first try fails.")

    with caplog.at_level(logging.WARNING, "ivcap_flows.durable"):
        in_flow(orders)
    assert len(tries) == 2 and len({urn for urns in tries for urn in urns}) == effects.count("/1/orders") == 1
    assert [("share one" in text) for text in warnings_of(caplog)] == [True] * warned


@pytest.mark.parametrize(("times", "warned"), [(1, False), (2, True)])
def test_the_next_try_of_a_task_within_a_task_asks_for_the_same_order(in_flow, effects, unique, caplog, times, warned):
    """What its first try asked for is not counted, unlike what the task around it asks for."""
    tries = []

    @task(retries=1)
    def inner():
        tries.append([place_order("echo", {"message": unique}).urn for _ in range(times)])
        if len(tries) == 1:
            raise RuntimeError("The first try fails.")

    @task
    def outer():
        place_order("echo", {"message": f"{unique} before"})
        inner()

    with caplog.at_level(logging.WARNING, "ivcap_flows.durable"):
        in_flow(outer)
    assert len(tries) == 2 and len({urn for urns in tries for urn in urns}) == 1
    assert effects.count("/1/orders") == 2
    assert [("share one" in text) for text in warnings_of(caplog)] == [True] * warned


def test_equal_requests_at_the_same_time_are_one(in_flow, effects, unique):
    """Equal requests from several threads at the same time place one order and one job."""

    def body():
        orders = [place_order.submit("echo", {"message": unique}) for _ in range(5)]
        jobs = [request_job.submit("echo", {"message": unique}) for _ in range(5)]
        return {one.result().urn for one in orders}, {one.result().urn for one in jobs}

    orders, jobs = in_flow(body)
    assert len(orders) == effects.count("/1/orders") == 1
    assert len(jobs) == len(jobs_of(effects)) == 1


def test_a_discriminator_tells_equal_requests_apart(in_flow, effects, unique):
    """Two discriminators place two orders. Each of them is placed once."""

    def body():
        return [place_order("echo", {"message": unique}, discriminator=each) for each in ("a", "b", "a")]

    one, other, again = in_flow(body)
    assert one.urn == again.urn != other.urn
    assert effects.count("/1/orders") == 2


def test_once_per(in_flow, effects, unique):
    """Once per call is never shared, per run within the run, per flow or account with every run of it."""

    def body():
        return {
            word: [place_order("echo", {"message": unique + word}, once_per=word).urn for _ in range(2)]
            for word in ("call", "run", "flow", "account")
        }

    first, second = in_flow(body), in_flow(body)
    distinct = {word: len({*first[word], *second[word]}) for word in first}
    assert distinct == {"call": 4, "run": 2, "flow": 1, "account": 1}
    assert effects.count("/1/orders") == 8


def test_once_per_account_reaches_other_journals(in_flow, effects, unique, tmp_path):
    """With another journal, as on another machine, the idempotency record shows that the order exists."""

    def body():
        return place_order("echo", {"message": unique}, once_per="account").urn

    first = in_flow(body)
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other, use_journal(other):
        assert in_flow(body) == first
    assert effects.count("/1/orders") == 1


def test_a_platform_that_refuses_key_aspects(in_flow, effects, unique, caplog, monkeypatch):
    """If a policy forbids idempotency records, orders are still placed, and a warning names the lost guarantee once."""
    monkeypatch.setattr(intent_record, "_refused_on", set())
    effects.embedded.add_fault(method="POST", path="^/1/aspects$", status=403)

    def body():
        return {place_order("echo", {"message": f"{unique} {n}"}).urn for n in (1, 1, 2)}

    with caplog.at_level(logging.WARNING, "ivcap_flows"):
        assert len(in_flow(body)) == effects.count("/1/orders") == 2
    said = [record.getMessage() for record in caplog.records if "ivcap_flows" in record.pathname]
    assert len([text for text in said if "refuses idempotency records" in text]) == 1


@pytest.mark.parametrize("plain", [False, True], ids=["recorded", "plain"])
def test_a_retried_flow_keeps_what_it_has(in_flow, effects, source, unique, plain, caplog):
    """A Prefect retry runs the body again and gets the order, job, aspect and upload of the first attempt."""
    seen = []

    def body():
        series = upload_artifact(source)
        order = place_order("echo", {"message": series.urn})
        job = request_job("echo", {"message": unique})
        aspect = attach_aspect(order, {"$schema": "urn:example:schema:retry.1"})
        seen.append((series.urn, order.urn, job.urn, aspect.urn))
        if len(seen) == 1:
            raise RuntimeError("the first attempt fails")

    in_flow(body, retries=1, plain=plain)
    assert "Two calls in one run" not in caplog.text
    assert len(seen) == 2 and len(set(seen)) == 1
    assert effects.count("/1/orders") == effects.count("/1/artifacts") == len(jobs_of(effects)) == 1
    [run] = effects.journal.runs.recent()
    assert [each.outcome for each in effects.journal.runs.attempts(run.id)] == ["failed", "completed"]


@pytest.mark.parametrize("plain", [False, True], ids=["recorded", "plain"])
def test_a_replay_that_asks_for_something_else(in_flow, effects, unique, plain, caplog):
    """A retry whose request has changed orders again, and a warning shows both requests."""
    attempts = []

    def body():
        attempts.append(1)
        place_order("echo", {"message": f"{unique} {len(attempts)}"})
        if len(attempts) == 1:
            raise RuntimeError("the first attempt fails")

    in_flow(body, retries=1, plain=plain)
    [told] = [each.message for each in caplog.records if "earlier attempts" in each.message]
    assert f"{unique} 1" in told and f"{unique} 2" in told and "once(" in told
    assert effects.count("/1/orders") == 2


@pytest.mark.parametrize("plain", [False, True], ids=["recorded", "plain"])
def test_two_calls_of_a_subflow_are_no_replay(in_flow, effects, unique, plain):
    """Each orders its own, also in a flow without `@recorded`; when that is tried again, both keep what they have."""
    tries, seen = [], []

    @flow
    @recorded
    def inner(text):
        seen.append(place_order("echo", {"message": text}).urn)
        if len(tries) == 1 and len(seen) == 2:
            raise RuntimeError("the first try fails")

    def body():
        tries.append(1)
        inner(f"{unique} 1")
        inner(f"{unique} 2")

    in_flow(body, retries=1, plain=plain)
    assert len(seen) > 2 and len(set(seen)) == effects.count("/1/orders") == 2
    assert len(effects.journal.runs.recent()) == 1


def cases_by_submit(case):
    for future in [case.submit(number) for number in range(4)]:
        future.result()


def cases_in_a_set(case):
    for number in (3, 2, 1, 0):
        case(number)


def cases_by_gather(case):
    async def gathered():
        await asyncio.gather(*(asyncio.to_thread(case, number) for number in range(4)))

    asyncio.run(gathered())


@pytest.mark.catches("a replay in another order is refused")
@pytest.mark.parametrize("cases", [cases_by_submit, cases_in_a_set, cases_by_gather])
def test_a_replay_may_ask_in_any_order(in_flow, effects, unique, cases):
    """One of four cases had ordered when the flow died; at the replay, its first step takes longer than the others."""
    attempts = []

    @task
    def case(number):
        if number == 0:
            time.sleep(0.5)
        return place_order("echo", {"message": f"{unique} {number}"}).urn

    def body():
        attempts.append(1)
        if len(attempts) == 1:
            case(0)
            raise RuntimeError("the source is down")
        cases(case)

    in_flow(body, retries=1)
    assert effects.count("/1/orders") == 4


def test_a_retry_may_upload_what_changed(in_flow, effects, source):
    """A file that was corrected between two attempts is uploaded. Only changed orders and jobs are a divergence."""
    attempts = []

    def body():
        attempts.append(upload_artifact(source).urn)
        if len(attempts) == 1:
            source.write_text("corrected " + source.read_text())
            raise RuntimeError("the first attempt fails")

    in_flow(body, retries=1)
    assert len(set(attempts)) == effects.count("/1/artifacts") == 2


def test_the_spend_guard(in_flow, effects, unique, monkeypatch):
    """IVCAP_FLOWS_MAX_ORDERS ends a run that requests more orders and jobs. Kept ones do not count."""
    monkeypatch.setenv("IVCAP_FLOWS_MAX_ORDERS", "2")

    def body():
        place_order("echo", {"message": unique})
        place_order("echo", {"message": unique})
        request_job("echo", {"message": unique})
        place_order("echo", {"message": unique + " beyond"})

    with pytest.raises(SpendLimitError, match="IVCAP_FLOWS_MAX_ORDERS") as caught:
        in_flow(body)
    assert (caught.value.limit, caught.value.placed) == (2, 2)
    assert effects.count("/1/orders") + len(jobs_of(effects)) == 2


def test_a_failed_order_stays_the_answer_until_resubmitted(in_flow, effects, unique):
    """A failed order is kept, with its log in the error. `max_resubmits` places the next, up to the limit."""
    urns = []

    def body():
        for most in (0, 0, 1, 1):
            order = place_order("fail", {"message": unique}, max_resubmits=most)
            urns.append(order.urn)
            with pytest.raises(OrderFailedError) as caught:
                wait_for_orders([order], timeout=60)
        return caught.value

    error = in_flow(body)
    assert urns[0] == urns[1] != urns[2] == urns[3]
    assert effects.count("/1/orders") == 2
    assert [intent.generation for intent in effects.intents("order")] == [0, 1]
    assert [order.urn for order in error.orders] == [urns[3]]


def test_failures_carry_the_log_and_the_message(in_flow, effects, unique):
    """After all have ended, one error names all failures: orders with the end of their log, jobs with their message."""

    def body():
        orders = [place_order("fail", {"message": unique}), place_order("echo", {"message": unique})]
        job = request_job("fail", {"message": unique})
        with pytest.raises(OrderFailedError) as of_orders:
            wait_for_orders(orders, timeout=60)
        with pytest.raises(JobFailedError) as of_jobs:
            wait_for_jobs([job], timeout=60)
        return orders, of_orders.value, of_jobs.value, wait_for_orders(orders, raise_on_failure=False)

    orders, of_orders, of_jobs, done = in_flow(body)
    assert "1 of 2 orders did not succeed" in str(of_orders)
    assert unique in of_orders.logs[orders[0].urn] and unique in str(of_orders)
    assert unique in str(of_jobs) and of_jobs.jobs[0].error_message == unique
    assert [(order.urn, order.succeeded) for order in done] == [(orders[0].urn, False), (orders[1].urn, True)]


def test_a_deadline_leaves_the_work_alone(in_flow, effects):
    """After its deadline a wait raises with the pending work. A later wait gets the end of the same order."""

    def body():
        order = place_order("sleep", {"seconds": 0.7})
        with pytest.raises(WaitTimeoutError) as caught:
            wait_for_orders([order], timeout=0.05)
        assert caught.value.pending == [order.urn]
        return wait_for_orders([order, order], timeout=60)

    one, same = in_flow(body)
    assert one == same and one.succeeded
    assert effects.count("/1/orders") == 1


@pytest.mark.long
def test_many_waits_share_one_poller(in_flow, effects, on_platform):
    """More than a few orders are looked up in lists and changes, and read once when they have ended."""

    def asked(orders):
        lists = [*effects.embedded.requests("GET", "/1/orders"), *effects.embedded.requests("GET", "/1/aspects")]
        return len(lists), [len(effects.embedded.requests("GET", f"/1/orders/{order.urn}")) for order in orders]

    def statuses(orders):
        newest = on_platform(lambda client: anext(client.orders.pages()))
        return {record.status for record in newest if record.urn in {order.urn for order in orders}}

    def body():
        orders = [place_order("sleep", {"seconds": 6 + n / 1000}) for n in range(5)]
        effects.embedded.forget_requests()
        with pytest.raises(WaitTimeoutError):
            wait_for_orders(orders, timeout=2)
        meanwhile = asked(orders)
        while statuses(orders) != {"succeeded"}:
            time.sleep(0.2)
        effects.embedded.forget_requests()
        return orders, meanwhile, wait_for_orders(orders, timeout=60), asked(orders)

    orders, (lists, reads), done, at_the_end = in_flow(body)
    assert [one.urn for one in done] == [one.urn for one in orders]
    assert lists >= 2 and not any(reads)
    assert at_the_end[0] >= 1 and at_the_end[1] == [1] * 5


def test_products_and_attached_work(in_flow, effects, source, unique):
    """Existing artifacts, orders and jobs are attached by URN, and waited for like the flow's own."""

    def body():
        series = upload_artifact(source)
        order, job = place_order("echo", {"message": unique}), request_job("echo", {"message": unique})
        [done] = wait_for_orders([get_order(order.urn)], timeout=60)
        [ended] = wait_for_jobs([get_job(job.urn)], timeout=60)
        again = get_artifact(series.urn)
        return series, order, done, ended, again

    series, order, done, ended, again = in_flow(body)
    assert (done.urn, done.service_name, done.key) == (order.urn, "echo", None)
    assert done.parameters["message"] == ended.result["message"] == unique
    assert (again.urn, again.sha256, again.size) == (series.urn, series.sha256, series.size)


def test_an_aspect_is_attached_once_in_a_run(in_flow, effects, unique):
    """Equal aspects in one run are one. Other content or a discriminator makes another."""
    entity = f"urn:example:thing:{unique}"

    def body():
        one = attach_aspect(entity, {"n": 1}, schema="urn:example:schema:add.1")
        same = attach_aspect(entity, {"$schema": "urn:example:schema:add.1", "n": 1})
        other = attach_aspect(entity, {"n": 2}, schema="urn:example:schema:add.1")
        meant = attach_aspect(entity, {"n": 1}, schema="urn:example:schema:add.1", discriminator="again")
        return one, same, other, meant

    one, same, other, meant = in_flow(body)
    assert one.urn == same.urn
    assert len({one.urn, other.urn, meant.urn}) == effects.count("/1/aspects") == 3


def test_another_aspect_without_a_canonical_form_is_no_hindrance(in_flow, effects, unique, on_platform):
    """An existing aspect without a canonical form (RFC 8785) can be replaced. Integers above 2**53 have none."""
    entity, schema = f"urn:test:{unique}", "urn:test:schema:instant.1"
    on_platform(lambda client: client.aspects.add(entity, schema, {"$schema": schema, "at": 1_700_000_000_000_000_001}))
    done = in_flow(lambda: update_aspect(entity, {"$schema": schema, "at": 1}))
    assert done.content == {"$schema": schema, "at": 1}


def test_an_end_that_cannot_be_written_does_not_end_the_flow(in_flow, effects, unique, monkeypatch, caplog):
    """The flow gets its order although the order's end cannot be written to the journal. The next wait writes it."""

    def away(*_):
        raise JournalError("disk full")

    def body():
        order = place_order("echo", {"message": unique})
        with monkeypatch.context() as patch:
            patch.setattr(type(effects.journal.intents), "finish", away)
            [done] = wait_for_orders([order])
        assert effects.journal.intents.get(order.key).state == "done"
        wait_for_orders([order])
        return done

    with caplog.at_level(logging.ERROR, "ivcap_flows.waiting"):
        done = in_flow(body)
    assert done.succeeded and "the next wait does: disk full" in caplog.text
    assert effects.journal.intents.get(done.key).status == "succeeded"


def test_update_aspect_is_idempotent(in_flow, effects, unique):
    """Active content is not sent again, other content replaces it, and changes back and forth end with the last one."""
    entity, schema = f"urn:example:thing:{unique}", "urn:example:schema:update.1"

    def body():
        return [update_aspect(entity, {"n": n}, schema=schema) for n in (1, 1, 2, 1, 1)]

    made = in_flow(body)
    assert made[0].urn == made[1].urn
    assert len({made[0].urn, made[2].urn, made[3].urn}) == 3
    assert made[3].urn == made[4].urn and made[4].content["n"] == 1
    assert effects.count("/1/aspects") + effects.count("/1/aspects", "PUT") == 3


def test_an_update_that_was_retracted_since_is_made_anew(in_flow, effects, unique, on_platform):
    """Equal content after somebody else's retraction is a new update, not the one that the run remembers."""
    entity, schema = f"urn:example:thing:{unique}", "urn:example:schema:update.1"

    def body():
        first = update_aspect(entity, {"n": 1}, schema=schema)
        on_platform(lambda client: client.aspects.retract(first.urn))
        return first, update_aspect(entity, {"n": 1}, schema=schema)

    first, second = in_flow(body)
    assert second.urn != first.urn
    active = on_platform(lambda client: client.aspects.read(second.urn))
    assert active.valid_to is None


def test_a_value_is_kept_for_all_attempts_of_a_run(in_flow):
    """`once` computes in the first attempt. A second call, as in a retry, gets the same value."""
    values = iter([1, 2])

    def body():
        return once("draw", lambda: next(values)), once("draw", lambda: next(values))

    assert in_flow(body) == (1, 1)


def test_update_aspect_does_not_replace_what_it_has_not_read(in_flow, effects, unique, on_platform):
    """An aspect that somebody changed between read and write is not replaced.

    The error holds both, and the next update works.
    """
    entity, schema = f"urn:example:thing:{unique}", "urn:example:schema:superseded.1"

    async def by_another(client):
        await client.aspects.update(entity, schema, {"$schema": schema, "n": 2})

    def body():
        update_aspect(entity, {"n": 1}, schema=schema)
        effects.embedded.forget_requests()
        effects.embedded.add_fault(method="GET", path="^/1/aspects$", count=1, delay=0.0)
        effects.embedded.add_fault(method="GET", path="^/1/aspects$", count=1, delay=1.0)
        ours = update_aspect.submit(entity, {"n": 3}, schema=schema)
        while len(effects.embedded.requests("GET", "/1/aspects")) < 2:
            time.sleep(0.01)
        on_platform(by_another)
        with pytest.raises(SupersededError) as caught:
            ours.result()
        return caught.value, update_aspect(entity, {"n": 3}, schema=schema)

    error, last = in_flow(body)
    assert (error.ours["n"], [their["n"] for their in error.theirs]) == (3, [2])
    assert last.content["n"] == 3
    assert len(effects.embedded.requests("PUT", "/1/aspects")) == 2


async def test_asynchronous_requests_share_as_well(embedded_platform, ivcap_journal, effects, unique):
    """Equal requests that are awaited together are one job."""

    @flow
    @recorded
    async def together():
        return await asyncio.gather(*(arequest_job("echo", {"message": unique}) for _ in range(4)))

    assert len({job.urn for job in await together()}) == len(jobs_of(effects)) == 1
