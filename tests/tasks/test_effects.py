"""At most one effect for one request, over retries, failures, limits and machines. Scopes are run, flow and account."""

from __future__ import annotations

import contextlib
import logging
import time

import pytest
from eventually import until
from prefect import flow, task

from ivcap_flows import once, recorded, tasks
from ivcap_flows.errors import (
    JobFailedError,
    JournalError,
    OrderFailedError,
    SpendLimitError,
    SupersededError,
    WaitTimeoutError,
)
from ivcap_flows.identity import flows_urn
from ivcap_flows.provenance import faults
from ivcap_flows.sinks import run_graph
from ivcap_flows.tasks.aspects import UpdateEffect


@pytest.fixture
def shared(caplog):
    """Return the warnings that two calls share an effect."""
    caplog.set_level(logging.WARNING, "ivcap_flows.durable")
    return lambda: [message for message in caplog.messages if "share one" in message]


def test_equal_requests_in_a_run_are_one(in_flow, effects, unique, shared):
    """Also from several threads at the same time. A warning says so, once, and how to get two."""

    def body():
        named = [
            tasks.place_order("echo", {"message": unique}, discriminator=each) for each in (None, None, None, "a", "a")
        ]
        together = [tasks.place_order.submit("echo", {"message": f"{unique} together"}) for _ in range(5)]
        jobs = [tasks.request_job.submit("echo", {"message": unique}) for _ in range(5)]
        orders, of_jobs = [{one.result().urn for one in some} for some in (together, jobs)]
        return [order.urn for order in named], orders, of_jobs

    named, together, jobs = in_flow(body)
    assert named[:3] == named[:1] * 3 and named[3] == named[4] != named[0]
    assert len(together) == len(jobs) == effects.posts("/jobs") == 1
    assert effects.count("/1/orders") == 3
    assert len(shared()) == 4 and all("discriminator=" in warning for warning in shared())


@pytest.mark.parametrize("times", [1, 2])
def test_the_next_try_of_a_task_asks_for_the_same_order(in_flow, effects, unique, shared, times):
    """Only a task that asks twice in one try, also in what it calls and within a task, is told of it."""
    tries = {"alone": [], "inner": []}

    @recorded
    def ask(where):
        return tasks.place_order("echo", {"message": f"{unique} {where}"}).urn

    @task(retries=1)
    def asks(where):
        tries[where].append([ask(where) for _ in range(times)])
        if len(tries[where]) == 1:
            raise RuntimeError("The first try fails.")

    @task
    def outer():
        ask("before")
        asks("inner")

    def body():
        asks("alone")
        outer()

    in_flow(body)
    for each in tries.values():
        assert len(each) == 2 and len({urn for urns in each for urn in urns}) == 1
    assert effects.count("/1/orders") == 3
    assert len(shared()) == (0 if times == 1 else 2)


def test_once_per(in_script, effects, unique):
    """Once per call is never shared, per run within the run, per flow or account with every run of it."""

    def body(*words):
        return {
            word: [tasks.place_order("echo", {"message": unique + word}, once_per=word).urn for _ in range(2)]
            for word in words
        }

    words = ("call", "run", "flow", "account")
    first, second = in_script(lambda: body(*words)), in_script(lambda: body(*words))
    distinct = {word: len({*first[word], *second[word]}) for word in first}
    assert distinct == {"call": 4, "run": 2, "flow": 1, "account": 1}
    assert effects.count("/1/orders") == 8


def test_a_platform_that_refuses_key_aspects(in_script, effects, unique, caplog):
    """If a policy forbids idempotency records, orders are still placed, and a warning names the lost guarantee once."""
    effects.embedded.add_fault(method="POST", path="^/1/aspects$", status=403)

    def body():
        return {tasks.place_order("echo", {"message": f"{unique} {n}"}).urn for n in (1, 1, 2)}

    with caplog.at_level(logging.WARNING, "ivcap_flows"):
        assert len(in_script(body)) == effects.count("/1/orders") == 2
    said = [record.getMessage() for record in caplog.records if "ivcap_flows" in record.pathname]
    assert len([text for text in said if "refuses idempotency records" in text]) == 1


@pytest.mark.parametrize(
    "plain", [pytest.param(False, id="recorded"), pytest.param(True, marks=pytest.mark.long, id="plain")]
)
def test_a_retried_flow_keeps_what_it_has(in_flow, effects, source, unique, plain, caplog, shared):
    """A Prefect retry runs the body again and gets the order, job, aspect and upload of the first attempt; each of two
    calls of a subflow keeps its own.

    Another order is placed, too, and at the end a warning shows both requests. A file that was corrected is just
    uploaded.
    """
    seen = []
    corrected = source.with_name("corrected.csv")

    @flow
    @recorded
    def inner(text):
        return tasks.place_order("echo", {"message": text}).urn

    def body():
        series = tasks.upload_artifact(source)
        corrected.write_text(f"{unique} {len(seen)}")
        tasks.upload_artifact(corrected)
        order = tasks.place_order("echo", {"message": series.urn})
        job = tasks.request_job("echo", {"message": unique})
        aspect = tasks.attach_aspect(order, {"$schema": "urn:example:schema:retry.1"})
        of_subflows = [inner(f"{unique} {number}") for number in (1, 2)]
        seen.append((series.urn, order.urn, job.urn, aspect.urn, *of_subflows))
        tasks.place_order("echo", {"message": f"{unique} try {len(seen)}"})
        if len(seen) == 1:
            raise RuntimeError("the first attempt fails")

    in_flow(body, retries=1, plain=plain)
    assert len(seen) == 2 and len(set(seen)) == 1 and len(set(seen[0])) == 6 and not shared()
    assert (effects.count("/1/orders"), effects.count("/1/artifacts"), effects.posts("/jobs")) == (5, 3, 1)
    [told] = [each for each in caplog.messages if "in vain" in each]
    assert f"{unique} try 1" in told and f"{unique} try 2" in told and "once(" in told
    [run] = effects.journal.runs.recent()
    attempts = [each for each in effects.journal.runs.attempts(run.id) if each.leads]
    assert [each.outcome for each in attempts] == ["failed", "completed"]


@pytest.mark.catches("a subflow leads")
@pytest.mark.parametrize("again", ["Prefect's retry", "the same command"])
def test_a_replay_of_what_failed_within_a_subflow(in_flow, effects, unique, again):
    """A subflow that fails half-way is replayed with its order, whoever runs the flow again. The record has two
    attempts of both flows; the order is of the first one's subflow, and the second found it."""
    asked = []

    @flow(name="inner")
    @recorded
    def inner():
        asked.append(tasks.place_order("echo", {"message": unique}).urn)
        if len(asked) == 1:
            raise RuntimeError("half-way")
        asked.append(tasks.place_order("echo", {"message": f"{unique} rest"}).urn)

    def outer():
        in_flow(inner, name="outer", retries=1 if again == "Prefect's retry" else 0)

    if again == "the same command":
        with pytest.raises(RuntimeError, match="half-way"):
            outer()
    outer()
    first, kept, rest = asked
    assert first == kept != rest and effects.count("/1/orders") == 2
    [run] = effects.journal.runs.recent()
    attempts = {(each.flow_name, each.number): each for each in effects.journal.runs.attempts(run.id)}
    assert {name: (each.leads, each.outcome, each.cause) for name, each in attempts.items()} == {
        ("outer", 1): (True, "failed", "RuntimeError: half-way"),
        ("inner", 1): (False, "failed", "RuntimeError: half-way"),
        ("outer", 2): (True, "completed", None),
        ("inner", 2): (False, "completed", None),
    }
    graph = run_graph(effects.journal, run.id)
    assert faults(graph) == []
    started = {each.source: each.target for each in graph.relations.values() if each.type == "wasStartedBy"}
    assert len(started) == sum(each.type == "wasStartedBy" for each in graph.relations.values())
    for number, order in ((1, first), (2, rest)):
        inner_one, outer_one = (flows_urn("attempt", attempts[name, number].id) for name in ("inner", "outer"))
        assert started[started[order]] == inner_one and started[inner_one] == outer_one


@pytest.mark.catches("a replay in another order is refused")
def test_a_replay_may_ask_in_any_order(in_flow, effects, unique):
    """One of four cases had ordered when the flow died, which the replay asks for last."""
    attempts = []

    def body():
        attempts.append(1)
        for number in (0,) if len(attempts) == 1 else (3, 2, 1, 0):
            tasks.place_order("echo", {"message": f"{unique} {number}"})
        if len(attempts) == 1:
            raise RuntimeError("the source is down")

    in_flow(body, retries=1)
    assert effects.count("/1/orders") == 4


@pytest.mark.parametrize("case", ["a slow branch", "a failure that is paid again", "a failed run", "a changed request"])
def test_what_was_paid_for_in_vain_is_said_when_it_is_true(in_flow, effects, unique, caplog, case):
    """A replay that asks for something new has left nothing behind while a branch of it may still ask, nor if it asks
    for more than before, nor if it failed. At the end of one that completed, all is known."""
    attempts, warned = [], []

    @task
    def slowly(number):
        time.sleep(0.7 if len(attempts) > 1 else 0)
        return tasks.place_order("echo", {"message": f"{unique} {number}"})

    def body():
        attempts.append(1)
        begun = len(attempts) == 1
        if case == "a failure that is paid again":
            failing = tasks.place_order("fail", {"message": unique}, max_resubmits=1)
            tasks.wait_for_orders([failing], raise_on_failure=False)
            if begun:
                failing = tasks.place_order("fail", {"message": unique}, max_resubmits=1)
                tasks.wait_for_orders([failing], raise_on_failure=False)
            else:
                tasks.place_order("fail", {"message": f"{unique} more"})
        else:
            branches = [slowly.submit(1)] if begun or case == "a slow branch" else []
            if not begun:
                tasks.place_order("echo", {"message": f"{unique} second"})
            warned.extend(each for each in caplog.messages if "in vain" in each)
            for branch in branches:
                branch.result()
        if begun or case == "a failed run":
            raise RuntimeError("the source is down")

    with contextlib.suppress(RuntimeError):
        in_flow(body, retries=1)
    assert len(attempts) == 2 and warned == []
    told = [each for each in caplog.messages if "in vain" in each]
    assert len(told) == (case == "a changed request")
    assert all(f"{unique} second" in each and f"{unique} 1" in each for each in told)


def test_the_spend_guard(in_script, effects, unique, monkeypatch):
    """IVCAP_FLOWS_MAX_ORDERS ends a run that requests more orders and jobs. Kept ones do not count."""
    monkeypatch.setenv("IVCAP_FLOWS_MAX_ORDERS", "2")

    def body():
        tasks.place_order("echo", {"message": unique})
        tasks.place_order("echo", {"message": unique})
        tasks.request_job("echo", {"message": unique})
        tasks.place_order("echo", {"message": unique + " beyond"})

    with pytest.raises(SpendLimitError, match="IVCAP_FLOWS_MAX_ORDERS") as caught:
        in_script(body)
    assert (caught.value.limit, caught.value.placed) == (2, 2)
    assert effects.count("/1/orders") + effects.posts("/jobs") == 2


def test_a_failed_order_stays_the_answer_until_resubmitted(in_script, effects, unique):
    """`max_resubmits` places the next, up to the limit. After all have ended, one error names all failures: orders with
    the end of their log, jobs with their message."""
    urns = []

    def body():
        for most in (0, 0, 1, 1):
            order = tasks.place_order("fail", {"message": unique}, max_resubmits=most)
            urns.append(order.urn)
            orders = [order, tasks.place_order("echo", {"message": unique})]
            with pytest.raises(OrderFailedError) as of_orders:
                tasks.wait_for_orders(orders, timeout=60)
        job = tasks.request_job("fail", {"message": unique})
        with pytest.raises(JobFailedError) as of_jobs:
            tasks.wait_for_jobs([job], timeout=60)
        return of_orders.value, of_jobs.value, tasks.wait_for_orders(orders, raise_on_failure=False)

    of_orders, of_jobs, done = in_script(body)
    assert urns[0] == urns[1] != urns[2] == urns[3]
    assert effects.count("/1/orders") == 3
    assert [i.generation for i in effects.intents("order") if i.urn in urns] == [0, 1]
    assert [order.urn for order in of_orders.orders] == [urns[3]] and "1 of 2 orders did not succeed" in str(of_orders)
    assert unique in of_orders.logs[urns[3]] and unique in str(of_orders)
    assert unique in str(of_jobs) and of_jobs.jobs[0].error_message == unique
    assert [(order.urn == urns[3], order.succeeded) for order in done] == [(True, False), (False, True)]


def test_a_wait_leaves_the_work_alone(in_script, effects, source, unique, monkeypatch, caplog):
    """After its deadline a wait raises with the pending work. A later wait gets the end of the same order, also of one
    attached by its URN, and although the order's end could not be written to the journal; the next wait writes it."""

    def away(*_, **__):
        raise JournalError("disk full")

    def body():
        order = tasks.place_order("sleep", {"seconds": 1.5})
        with pytest.raises(WaitTimeoutError) as caught:
            tasks.wait_for_orders([order], timeout=0.05)
        assert caught.value.pending == [order.urn]
        job, series = tasks.request_job("echo", {"message": unique}), tasks.upload_artifact(source)
        with monkeypatch.context() as patch:
            patch.setattr(type(effects.journal.intents), "finish", away)
            [done] = tasks.wait_for_orders([order])
        assert effects.journal.intents.get(order.key).state == "done"
        one, same = tasks.wait_for_orders([order, order], timeout=60)
        assert done == one == same and one.succeeded
        [attached] = tasks.wait_for_orders([tasks.get_order(order.urn)], timeout=60)
        [ended] = tasks.wait_for_jobs([tasks.get_job(job.urn)], timeout=60)
        return order, attached, ended, series, tasks.get_artifact(series.urn)

    with caplog.at_level(logging.ERROR, "ivcap_flows.waiting"):
        order, attached, ended, series, again = in_script(body)
    assert "the next wait does: disk full" in caplog.text
    assert effects.journal.intents.get(order.key).status == "succeeded" and effects.count("/1/orders") == 1
    assert (attached.urn, attached.service_name, attached.key) == (order.urn, "sleep", None)
    assert attached.parameters["seconds"] == "1.5" and ended.result["message"] == unique
    assert (again.urn, again.sha256, again.size) == (series.urn, series.sha256, series.size)


@pytest.mark.long
def test_many_waits_share_one_poller(in_script, effects, on_platform):
    """More than a few orders are looked up in lists and changes, and read once when they have ended."""

    def asked(orders):
        lists = [*effects.embedded.requests("GET", "/1/orders$"), *effects.embedded.requests("GET", "/1/aspects$")]
        return len(lists), [len(effects.embedded.requests("GET", f"/1/orders/{order.urn}$")) for order in orders]

    def statuses(orders):
        newest = on_platform(lambda client: anext(client.orders.pages()))
        return {record.status for record in newest if record.urn in {order.urn for order in orders}}

    def body():
        orders = [tasks.place_order("sleep", {"seconds": 6 + n / 1000}) for n in range(5)]
        effects.embedded.forget_requests()
        with pytest.raises(WaitTimeoutError):
            tasks.wait_for_orders(orders, timeout=2)
        meanwhile = asked(orders)
        until(lambda: statuses(orders), {"succeeded"}.__eq__)
        effects.embedded.forget_requests()
        return orders, meanwhile, tasks.wait_for_orders(orders, timeout=60), asked(orders)

    orders, (lists, reads), done, at_the_end = in_script(body)
    assert [one.urn for one in done] == [one.urn for one in orders]
    assert lists >= 2 and not any(reads)
    assert at_the_end[0] >= 1 and at_the_end[1] == [1] * 5


def test_an_aspect_is_attached_or_updated_once(in_script, effects, unique, on_platform):
    """Equal aspects in one run are one; other content or a discriminator makes another.

    Active content is not sent again, other content replaces it, and changes back and forth end with the last one. What
    somebody has retracted since is made anew. `once` keeps a value likewise.
    """
    entity, schema = f"urn:example:thing:{unique}", "urn:example:schema:add.1"
    drawn = iter([1, 2])

    def body():
        assert [once("draw", lambda: next(drawn)) for _ in range(2)] == [1, 1]
        attached = [
            tasks.attach_aspect(entity, {"n": 1}, schema=schema),
            tasks.attach_aspect(entity, {"$schema": schema, "n": 1}),
            tasks.attach_aspect(entity, {"n": 2}, schema=schema),
            tasks.attach_aspect(entity, {"n": 1}, schema=schema, discriminator="again"),
        ]
        updated = [tasks.update_aspect(f"{entity}:u", {"n": n}, schema=schema) for n in (1, 1, 2, 1, 1)]
        sent = effects.count("/1/aspects") + effects.count("/1/aspects", "PUT")
        on_platform(lambda client: client.aspects.retract(updated[-1].urn))
        return attached, updated, sent, tasks.update_aspect(f"{entity}:u", {"n": 1}, schema=schema)

    attached, updated, sent, anew = in_script(body)
    assert attached[0].urn == attached[1].urn and len({one.urn for one in attached}) == 3
    assert updated[0].urn == updated[1].urn and updated[3].urn == updated[4].urn
    assert len({updated[0].urn, updated[2].urn, updated[3].urn}) == 3 and updated[4].content["n"] == 1
    assert sent == 6
    assert anew.urn != updated[4].urn
    assert on_platform(lambda client: client.aspects.read(anew.urn)).valid_to is None


def test_update_aspect_does_not_replace_what_it_has_not_read(in_flow, effects, unique, monkeypatch):
    """An aspect that somebody changed between read and write is not replaced.

    The error holds both, and the next update works. One without a canonical form (RFC 8785) can be replaced, too;
    integers above 2**53 have none.
    """
    entity, schema = f"urn:example:thing:{unique}", "urn:example:schema:superseded.1"
    send = UpdateEffect.send

    async def after_another(self, *args):
        await self.call.client.aspects.update(entity, schema, {"$schema": schema, "n": 2**53 + 1})
        return await send(self, *args)

    def body():
        tasks.update_aspect(entity, {"n": 1}, schema=schema)
        effects.embedded.forget_requests()
        with monkeypatch.context() as patch, pytest.raises(SupersededError) as caught:
            patch.setattr(UpdateEffect, "send", after_another)
            tasks.update_aspect(entity, {"n": 3}, schema=schema)
        return caught.value, tasks.update_aspect(entity, {"n": 3}, schema=schema)

    error, last = in_flow(body)
    assert (error.ours["n"], [their["n"] for their in error.theirs]) == (3, [2**53 + 1])
    assert last.content == {"$schema": schema, "n": 3}
    assert len(effects.embedded.requests("PUT", "/1/aspects$")) == 2
