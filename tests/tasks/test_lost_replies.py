"""After a lost reply the effect is found again and exists once, also if the journal's clock is wrong."""

from __future__ import annotations

import itertools
import logging
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
from listings import all_of

from ivcap_flows import tasks
from ivcap_flows.capture import use_journal
from ivcap_flows.errors import InDoubtError, PlatformError
from ivcap_flows.identity import INTENT_SCHEMA, key_entity, short_id
from ivcap_flows.journal import Journal
from ivcap_flows.journal.store import Store
from ivcap_flows.provena.models import Model
from ivcap_flows.work.duplicates import duplicates_on_ivcap

NOTE = "urn:example:schema:lost.1"
CLOCKS = {
    "right": [timedelta()],
    "ten minutes ahead": [timedelta(minutes=10)],
    "ten minutes behind": [timedelta(minutes=-10)],
    "three hours ahead": [timedelta(hours=3)],
    "three hours behind": [timedelta(hours=-3)],
    "stepping": [timedelta(hours=3), timedelta(minutes=-10), timedelta(hours=-3), timedelta(minutes=10)],
}


@pytest.fixture
def journal_clock(request, monkeypatch):
    """Set the journal's clock off by this. One that steps is off by another amount at each reading."""
    off, now = itertools.cycle(CLOCKS[request.param]), Store.now
    monkeypatch.setattr(Store, "now", lambda self, connection: now(self, connection) + next(off))


def some_long(cases, *short):
    return [pytest.param(*case, marks=() if case in short else pytest.mark.long) for case in cases]


with_any_clock = pytest.mark.parametrize(
    ("journal_clock",), some_long([(clock,) for clock in CLOCKS], ("stepping",)), indirect=True
)


@pytest.fixture
def lose(embedded_platform):
    """`lose(path)`: the reply to the next request of this path is lost. Its effect shows `late` seconds later."""

    def rule(path, method="POST", late=0.0):
        embedded_platform.add_fault(
            method=method, path=path, count=1, drop_reply_after_effect=True, late_visibility=late
        )

    return rule


POSTS = {
    "order": "/1/orders",
    "job": "/jobs",
    "registry item": "/model/create",
    "item version": "/version",
    "dataset": "/mint-dataset",
    "model run": "/model_run/register",
}


@pytest.mark.catches("records belong to the journal")
@pytest.mark.parametrize("noun", ["order", "job"])
@pytest.mark.parametrize("fault", [{"status": 503}, {"drop_reply_after_effect": True}], ids=["503", "lost"])
def test_a_journal_that_was_put_back_orders_nothing_again(effects, tmp_path, unique, noun, fault):
    """Yesterday's copy is used, and the first request for an idempotency record fails."""
    ask = {"order": tasks.place_order.fn, "job": tasks.request_job.fn}[noun]
    today, yesterday = tmp_path / "today.sqlite", tmp_path / "yesterday.sqlite"

    def urn(file, message):
        with Journal.open(f"sqlite:///{file}") as journal, use_journal(journal):
            return ask("echo", {"message": f"{unique} {message}"}, once_per="account").urn

    urn(today, "before")
    with closing(sqlite3.connect(today)) as source, closing(sqlite3.connect(yesterday)) as copy:
        source.backup(copy)
    first = urn(today, "after")
    effects.embedded.add_fault(method="POST", path="/1/aspects", count=1, **fault)
    assert urn(yesterday, "after") == first
    assert effects.posts("/1/orders" if noun == "order" else "/jobs") == 2


@pytest.mark.parametrize(
    ("journal_clock", "late"),
    some_long(itertools.product(CLOCKS, (0.0, 0.4)), ("right", 0.0), ("stepping", 0.4)),
    indirect=["journal_clock"],
)
def test_each_effect_exists_once(
    journal_clock, in_flow, effects, lose, on_platform, unique, artifact, ended_order, registry, late
):
    """It is returned, adopted by its key, or by its content where the platform keeps no key."""
    entity = f"urn:example:thing:{unique}"
    model = Model(
        display_name=unique,
        name=unique,
        description="Computes.",
        documentation_url="https://example.org/docs",
        source_url="https://example.org/source",
    )

    def body():
        lose("^/1/aspects$", late=late)
        aspect = tasks.attach_aspect(entity, {"text": "once"}, schema=NOTE)
        for noun, path in POSTS.items():
            lose(f"{path}$", late=0.0 if noun in ("registry item", "item version") else late)
        together = {
            "order": tasks.place_order.submit("echo", {"message": unique}),
            "job": tasks.request_job.submit("echo", {"message": unique}),
            "registry item": tasks.register_item.submit(model),
            "dataset": tasks.mint_dataset.submit(artifact, terms=registry.terms),
        }
        made = {noun: future.result() for noun, future in together.items()}
        made["item version"] = tasks.provena.version_item(made["registry item"], reason="better")
        data = {registry.template: made["dataset"]}
        made["model run"] = tasks.register_model_run(
            ended_order, workflow_template=registry.workflow, inputs=data, outputs=data
        )
        return aspect, made

    aspect, made = in_flow(body)
    found = on_platform(lambda client: all_of(client.aspects.list(entity=entity)))
    assert [record.urn for record in found] == [aspect.urn]
    assert {noun: effects.posts(path) for noun, path in POSTS.items()} == dict.fromkeys(POSTS, 1)
    intents = {noun: effects.intents(noun) for noun in POSTS}
    assert {noun: [(one.urn, one.how) for one in some] for noun, some in intents.items()} == {
        noun: [(made[noun].urn, "adopted")] for noun in POSTS
    }
    assert [intents[noun][0].matched_by for noun in ("order", "job", "model run")] == ["key", "content", "key"]


@with_any_clock
def test_what_has_no_key_is_told_from_what_was_there_before(
    journal_clock, in_script, effects, lose, on_platform, unique
):
    """An equal aspect of somebody else's is not adopted, and a job is found though no record has its intent's time."""
    entity, document = f"urn:example:thing:{unique}", {"$schema": NOTE, "text": "once"}
    before = on_platform(lambda client: client.aspects.add(entity, NOTE, document))
    effects.embedded.advance_clock(3600)

    def body():
        # The platform's time is known by its replies.
        tasks.list_aspects(f"{entity}:other")
        lose("^/1/aspects$")
        aspect = tasks.attach_aspect(entity, {"text": "once"}, schema=NOTE)
        lose("/jobs$", late=0.4)
        effects.embedded.add_fault(method="POST", path="^/1/aspects$", status=403)
        return aspect, tasks.request_job("echo", {"message": unique})

    aspect, job = in_script(body)
    found = on_platform(lambda client: all_of(client.aspects.list(entity=entity)))
    assert {record.urn for record in found} == {before, aspect.urn} and before != aspect.urn
    [intent] = effects.intents("job")
    assert (intent.urn, intent.how, intent.matched_by) == (job.urn, "adopted", "content")
    assert effects.posts("/jobs") == 1


@pytest.mark.long
@with_any_clock
def test_an_order_that_shows_too_late_is_seen(journal_clock, in_script, effects, lose, on_platform, unique):
    """A second order is placed, which is unavoidable. When the first shows, `doctor` names both."""
    lose("^/1/orders$", late=60)
    order = in_script(lambda: tasks.place_order("echo", {"message": unique}))
    effects.embedded.advance_clock(120)
    assert effects.count("/1/orders") == 2
    found, _ = on_platform(lambda client: duplicates_on_ivcap(client, effects.journal))
    [twice] = [each for each in found if short_id(each.key) == short_id(order.key)]
    assert len(twice.urns) == 2 and twice.urns[order.urn] == "this journal"


def test_each_request_around_an_effect_may_be_lost(in_script, effects, lose, on_platform, source, unique):
    """An order that never arrived is sent again. Of a lost record before or after an order, a lost replacement, and a
    lost creation of an artifact or its bytes, there is one."""
    entity = f"urn:example:thing:{unique}"

    def body():
        effects.embedded.add_fault(method="POST", path="^/1/orders$", count=1, reset=True)
        orders = [tasks.place_order("echo", {"message": f"{unique} refused"})]
        for method in ("POST", "PUT"):
            lose("^/1/aspects$", method)
            orders.append(tasks.place_order("echo", {"message": f"{unique} {method}"}))
        tasks.attach_aspect(entity, {"text": "old"}, schema=NOTE)
        lose("^/1/aspects$", "PUT")
        changed = tasks.update_aspect(entity, {"text": "new"}, schema=NOTE)
        lose("^/1/artifacts$")
        lose("/1/artifacts", "PATCH")
        return orders, changed, tasks.upload_artifact(source, name=unique)

    orders, changed, uploaded = in_script(body)
    assert [(intent.urn, intent.how) for intent in effects.intents("order")] == [(one.urn, "sent") for one in orders]
    assert effects.count("/1/orders") == 3
    dropped = [r["method"] for r in effects.embedded.requests() if r["dropped"]]
    assert sorted(dropped) == ["PATCH", "POST", "POST", "POST", "PUT", "PUT"]

    async def read(client):
        records = [await all_of(client.aspects.list(entity=key_entity(o.key), schema=INTENT_SCHEMA)) for o in orders]
        artifacts = await all_of(client.artifacts.list(limit=20))
        return records, await all_of(client.aspects.list(entity=entity)), artifacts

    records, active, artifacts = on_platform(read)
    assert [[record.content["urn"] for record in some] for some in records] == [[order.urn] for order in orders]
    assert [(record.urn, record.content["text"]) for record in active] == [(changed.urn, "new")]
    assert [one.urn for one in artifacts if one.name == unique and one.status == "ready"] == [uploaded.urn]
    assert len(effects.intents("upload")) == 1
    # The platform was asked for the offset, and no byte was sent twice.
    assert sum(r["received"] for r in effects.embedded.requests("PATCH")) == source.stat().st_size == uploaded.size


@pytest.mark.parametrize("outage", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_wait_outlasts_a_platform_that_does_not_show_or_answer(in_script, effects, unique, caplog, outage):
    """An order that is hidden for a moment is not reported as missing, and an outage is logged once."""

    def body():
        effects.embedded.add_fault(method="POST", path="^/1/orders$", count=1, late_visibility=1.5)
        order = tasks.place_order("sleep", {"seconds": 0.3 + int(unique[:4], 16) / 1e6})
        if outage:
            effects.embedded.add_fault(method="GET", path="^/1/orders/", count=22, status=503)
        return tasks.wait_for_orders([order], timeout=60)

    with caplog.at_level(logging.WARNING, "ivcap_flows.waiting"):
        [done] = in_script(body)
    assert done.succeeded
    statuses = {r["status"] for r in effects.embedded.requests("GET", f"/1/orders/{done.urn}")}
    assert (503 if outage else 404) in statuses
    said = [record.getMessage() for record in caplog.records if "ivcap_flows/durable/poll" in record.pathname]
    assert len(said) == (2 if outage else 0)
    assert not outage or (said[0].startswith("Still waiting for 1 order") and "answers again" in said[1])


def refusal_of(call, *given):
    """What the error of a call says; nothing if it has none."""
    try:
        call(*given)
    except (InDoubtError, PlatformError) as error:
        return str(error)
    return ""


@pytest.mark.catches("what may not be read is ours")
@pytest.mark.parametrize("status", [403, pytest.param(404, marks=pytest.mark.long)])
def test_work_of_others_that_may_not_be_read_hides_none(in_script, effects, lose, unique, status):
    """A job is found beside it, and requested again where it never arrived."""

    def body():
        other = tasks.request_job("echo", {"message": f"{unique} other"})
        effects.embedded.add_fault(method="GET", path=f"/jobs/{other.urn}$", status=status)
        lose("/jobs$")
        found = tasks.request_job("echo", {"message": f"{unique} arrived"})
        effects.embedded.add_fault(method="POST", path="/jobs$", count=1, reset=True)
        return found, tasks.request_job("echo", {"message": f"{unique} never"})

    found, again = in_script(body)
    assert [(row.urn, row.how) for row in effects.intents("job")][1:] == [(found.urn, "adopted"), (again.urn, "sent")]
    assert effects.posts("/jobs") == 3


def test_work_that_the_platform_fails_to_show_may_be_ours(in_script, effects, lose, unique):
    """What is found beside it is taken. Where nothing is, nothing is requested again."""

    def body():
        other = tasks.request_job("echo", {"message": f"{unique} other"})
        effects.embedded.add_fault(method="GET", path=f"/jobs/{other.urn}$", status=500)
        lose("/jobs$")
        found = tasks.request_job("echo", {"message": f"{unique} arrived"})
        effects.embedded.add_fault(method="POST", path="/jobs$", count=1, reset=True)
        return found, refusal_of(tasks.request_job, "echo", {"message": f"{unique} never"})

    found, refusal = in_script(body)
    _, arrived, never = effects.intents("job")
    assert (arrived.urn, arrived.how) == (found.urn, "adopted")
    assert never.in_doubt and " answered 500 " in refusal and effects.posts("/jobs") == 2


@pytest.mark.catches("an order that cannot be read is others'")
@pytest.mark.parametrize("status", [403, pytest.param(404, marks=pytest.mark.long)])
def test_an_order_that_bears_the_key_and_cannot_be_read_is_not_placed_again(in_script, effects, lose, unique, status):
    """It is found as soon as it can be read."""

    def body():
        effects.embedded.add_fault(method="GET", path="^/1/orders/[^/]+$", status=status)
        lose("^/1/orders$")
        refusal_of(tasks.place_order, "echo", {"message": unique})
        effects.embedded.clear_faults()
        return tasks.place_order("echo", {"message": unique})

    order = in_script(body)
    [intent] = effects.intents("order")
    assert (intent.urn, intent.how) == (order.urn, "adopted") and effects.posts("/1/orders") == 1


@pytest.mark.catches("a look that sees nothing proves something")
def test_where_no_job_may_be_read_none_is_requested_again(in_script, effects, lose, unique):
    """What was not seen may be there. It is found as soon as it may be read."""

    def body():
        effects.embedded.add_fault(method="GET", path="/jobs/", status=403)
        lose("/jobs$")
        refusal = refusal_of(tasks.request_job, "echo", {"message": unique})
        effects.embedded.clear_faults()
        return refusal, tasks.request_job("echo", {"message": unique})

    refusal, job = in_script(body)
    assert "may read none of the jobs that urn:ivcap:service:" in refusal
    [intent] = effects.intents("job")
    assert (intent.urn, intent.how) == (job.urn, "adopted") and effects.posts("/jobs") == 1
