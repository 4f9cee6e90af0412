"""What exists already: `reuse=True` uses what anybody in the account has paid for, and `handle.how` says how a run came
by a thing. A flow that publishes only what is new takes its word for it.
"""

from __future__ import annotations

import logging
import os

import pytest

from ivcap_flows.capture import use_journal
from ivcap_flows.durable import plan
from ivcap_flows.errors import SpendLimitError
from ivcap_flows.identity import INTENT_SCHEMA, key_entity
from ivcap_flows.journal import Journal
from ivcap_flows.local.services.register import register
from ivcap_flows.tasks import place_order, request_job, upload_artifact, wait_for_jobs, wait_for_orders
from ivcap_flows.tasks.waiting import PlannedError


def ordered(unique, **options):
    return wait_for_orders([place_order("echo", {"message": unique}, reuse=True, **options)])[0]


def only(journal):
    [row] = journal.intents.where(noun="order")
    return row


def test_what_another_machine_paid_for_is_used(in_script, effects, other_journal, tasks_service, source, monkeypatch):
    """A run with another journal and discriminator gets the same order and products, and the same job and result, even
    with a limit of none. A plan names them. The record says that the task did not start them.

    Without `reuse` no aspect is searched by content, and it orders again.
    """

    def body(**options):
        series = upload_artifact(source)
        order = place_order(tasks_service, {"series": series}, **options)
        job = request_job("echo", {"message": series.urn}, **options)
        return wait_for_orders([order])[0], wait_for_jobs([job])[0]

    def asked():
        series = upload_artifact(source)
        place_order(tasks_service, {"series": series}, reuse=True)
        request_job("echo", {"message": series.urn}, reuse=True)

    with use_journal(other_journal):
        first, first_job = in_script(lambda: body(discriminator="there"))
    assert not [r for r in effects.embedded.requests("GET", "/1/aspects$") if "content-path" in str(r)]
    assert only(other_journal).reuse is None
    monkeypatch.setenv("IVCAP_FLOWS_MAX_ORDERS", "0")
    with plan() as planned:
        in_script(asked)
    assert [(one.source, one.urn) for one in planned.effects[1:]] == [("reused", first.urn), ("reused", first_job.urn)]
    assert planned.new == [] and effects.journal.intents.where() == []

    second, second_job = in_script(lambda: body(reuse=True))
    assert (second.urn, second.status, effects.count("/1/orders")) == (first.urn, "succeeded", 1)
    assert [p.urn for p in second.products] == [p.urn for p in first.products] and len(second.products) == 2
    assert (second_job.urn, second_job.result) == (first_job.urn, first_job.result) and second_job.result
    row = only(effects.journal)
    assert (row.how, row.state, row.status, row.spends) == ("reused", "done", "succeeded", False)
    assert row.reuse.startswith(f"{first.urn} of the flow ") and row.reuse.endswith(" is used")
    assert [row.how for row in effects.intents("job")] == ["reused"]
    links = [f.record for f in effects.journal.facts.about(first.urn) if f.record.kind == "relation"]
    placed = [r for r in links if r.attributes.get("role") == "reused"]
    assert [(r.type, r.target) for r in placed] == [("wasInformedBy", first.urn)]
    assert not [r for r in links if r.type == "wasStartedBy" and r.source == first.urn]
    with pytest.raises(SpendLimitError):
        in_script(body)


def test_what_an_earlier_run_could_have_spared_is_said(in_flow, effects, unique, caplog):
    """A plan and the end of a run count the new orders and jobs that equal one which has succeeded, and say how to use
    it, by the journal alone. One that failed, was reused, or was told apart in the same run does not count.
    """

    def body(word, **options):
        orders = [
            *(place_order("echo", {"message": f"{unique} {which}"}, **options) for which in ("same", word)),
            place_order("fail", {"message": unique}, **options),
        ]
        job = request_job("echo", {"message": unique}, **options)
        wait_for_orders(orders, raise_on_failure=False)
        wait_for_jobs([job])
        again = request_job("echo", {"message": unique}, discriminator="again", **options)
        return orders[0].urn, wait_for_jobs([job, again])[0].urn

    def said():
        found = [r.getMessage() for r in caplog.records if "an earlier one that has succeeded" in r.getMessage()]
        caplog.clear()
        return found

    with caplog.at_level(logging.INFO):
        first = in_flow(lambda: body("first"))
        assert said() == []
        effects.embedded.forget_requests()
        with plan() as planned, pytest.raises(PlannedError):
            in_flow(lambda: body("second"), plain=True)
        assert [one.equals for one in planned.effects] == [first[0], None, None, first[1]]
        assert f"equals {first[0]}" in str(planned)
        assert not [r for r in effects.embedded.requests("GET", "/1/aspects$") if "content-path" in str(r)]
        in_flow(lambda: body("second"))
        assert said() == [
            "3 of 5 new orders and jobs equal an earlier one that has succeeded. "
            "With `reuse=True`, that is used instead of paying again."
        ]
        in_flow(lambda: body("third", reuse=True))
        assert said() == []


@pytest.mark.long
def test_what_asks_for_something_else_failed_or_still_runs_is_not_used(
    in_script, effects, other_journal, unique, caplog
):
    """An order with another parameter or policy is not reused, nor failed and running work. The reason is recorded.

    Running work is also logged, since the second is paid for too.
    """

    def failed():
        return wait_for_orders([place_order("fail", {"message": unique}, reuse=True)], raise_on_failure=False)[0].urn

    def slow():
        return place_order("sleep", {"seconds": 60 + int(unique[:4], 16) / 1e6}, reuse=True).urn

    def others():
        policy = "urn:ivcap:policy:ivcap.open.artifact"
        other = place_order("echo", {"message": f"{unique} else"}, reuse=True)
        with_policy = place_order("echo", {"message": unique}, reuse=True, policy=policy)
        return [other.urn, with_policy.urn, failed(), slow()]

    with use_journal(other_journal):
        made = in_script(lambda: [ordered(unique).urn, failed(), slow()])
    with caplog.at_level(logging.INFO, "ivcap_flows.durable"):
        anew = in_script(others)
    assert not set(made) & set(anew) and len(set(anew)) == 4
    reasons = [row.reuse for row in effects.intents("order")]
    assert all("no earlier one has an equal request" in reason for reason in reasons[:2])
    assert reasons[2] == f"{made[1]} ended as failed" and reasons[3].startswith(f"{made[2]} is ")
    [warned] = [r for r in caplog.records if r.levelno == logging.WARNING and made[2] in r.getMessage()]
    assert "get_order" in warned.getMessage()


@pytest.mark.long
def test_a_changed_service_is_not_reused(in_script, effects, other_journal, tmp_path, unique):
    """Work is reused only for the same service definition, also if that is restored later."""
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "services_of_reuse.py").write_text("def f(request, job):\n    return 1\n")
    definition = {
        "name": f"reuse-{unique[:8]}",
        "entry": "services_of_reuse:f",
        "parameters": [{"name": "x", "type": "int"}],
    }

    def body():
        return wait_for_orders([place_order(definition["name"], {"x": 1}, reuse=True)])[0]

    def defined():
        register(os.environ["IVCAP_URL"], os.environ["IVCAP_JWT"], definition, tmp_path / "services.yaml")

    defined()
    with use_journal(other_journal):
        first = in_script(body)
    defined()
    assert in_script(body).urn == first.urn
    definition["parameters"] = [{"name": "x", "type": "int", "default": "2"}]
    defined()
    assert in_script(body).urn != first.urn


@pytest.mark.long
def test_products_that_cannot_be_read_are_not_used(in_script, effects, other_journal, tasks_service, source):
    """If its products cannot be read, the order is placed again, and the journal says why."""

    def body(**options):
        order = place_order(tasks_service, {"series": upload_artifact(source)}, reuse=True, **options)
        return wait_for_orders([order])[0]

    with use_journal(other_journal):
        first = in_script(body)
    gone = first.products[0].urn
    effects.embedded.add_fault(method="GET", path=f"^/1/artifacts/{gone}$", count=1, status=404)
    second = in_script(body)
    assert second.urn != first.urn
    assert gone in only(effects.journal).reuse and "cannot be read" in only(effects.journal).reuse


def test_products_without_bytes_may_be_pending(in_script, other_journal, tasks_service, source, leave_pending):
    """They lack nothing, and the order is used."""
    source.write_bytes(b"")

    def body():
        order = place_order(tasks_service, {"series": upload_artifact(source)}, reuse=True)
        return wait_for_orders([order])[0]

    with use_journal(other_journal):
        first = in_script(body)
    for product in first.products:
        leave_pending(product.urn)
    assert in_script(body).urn == first.urn


@pytest.mark.long
def test_a_forged_aspect_is_not_believed(in_script, effects, other_journal, on_platform, unique):
    """An aspect that assigns another order's URN to a request is ignored, since the order itself shows its request."""
    with use_journal(other_journal):
        other, first = in_script(lambda: (ordered(unique + "other"), ordered(unique)))

    async def forge(client):
        [record] = [r async for r in client.aspects.list(entity=key_entity(first.key), schema=INTENT_SCHEMA)]
        await client.aspects.update(record.entity, INTENT_SCHEMA, {**record.content, "urn": other.urn})

    on_platform(forge)
    assert in_script(lambda: ordered(unique)).urn not in (other.urn, first.urn)
    assert "is not what its idempotency record says" in only(effects.journal).reuse


def test_what_exists_is_kept_adopted_or_reused(in_flow, in_script, embedded_platform, source, unique, tmp_path):
    """Kept is what another run of the journal requested, whatever became of it since then, and a file's content that is
    there already; adopted, what is found on the platform; reused, what was paid for by another request. What a run
    requested it has sent: also in its next attempt, after the wait, and if the reply was lost. In a plan it is planned.
    """
    rule = {"method": "POST", "path": "^/1/orders$", "drop_reply_after_effect": True}
    seen = []

    def of_account(word):
        return place_order("echo", {"message": unique + word}, once_per="account")

    def found():
        reused = place_order("echo", {"message": unique}, reuse=True)
        return [of_account("kept"), upload_artifact(source), of_account("adopted"), reused]

    def requested():
        orders = [place_order("echo", {"message": f"{unique} {n}"}) for n in range(2)]
        [job] = wait_for_jobs([request_job("echo", {"message": unique})])
        return [*orders, *wait_for_orders(orders), job, upload_artifact(unique.encode(), name="new")]

    def twice():
        seen.append((found(), requested()))
        if len(seen) == 1:
            raise RuntimeError("The first attempt fails.")

    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other, use_journal(other):
        assert in_script(lambda: of_account("adopted")).how == "sent"
        in_script(lambda: wait_for_orders([place_order("echo", {"message": unique})]))
    first = in_script(lambda: [of_account("kept"), upload_artifact(source)])
    with plan():
        assert place_order.fn("echo", {"message": unique}).how == "planned"
    embedded_platform.add_fault(**rule, count=1)
    in_flow(twice, retries=1)
    for there, mine in seen:
        assert [each.how for each in there] == ["kept", "kept", "adopted", "reused"]
        assert [each.how for each in mine] == ["sent"] * 6
    assert [each.how for each in first] == ["sent", "sent"]
    assert len({first[0], *(there[0] for there, _ in seen)}) == 1
