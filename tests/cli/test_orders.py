"""`orders`: what was asked of the platforms, and the user's word on what is in doubt."""

import asyncio
import contextlib
import sqlite3
from uuid import UUID

import pytest
from eventually import until
from prefect.client.orchestration import get_client

from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.handles import Order
from ivcap_flows.journal import NewIntent

LISTED = {
    "oldest first, without uploads and datasets": """
$ orders
Orders and jobs
what of state how urn asked (…) run key given
order cli-upper succeeded sent {order} … {harvest} … series={series}
order fail failed sent … {spoiled} … message=…
order echo done sent {echo} … {interrupted} {accepted} message=…
order echo in doubt UnreachableError: … {interrupted} {doubt} message=… again
""",
    "only the newest": """
$ orders --limit 2
Orders and jobs
what …
order echo done …
order echo in doubt …
""",
    "only those of a run": """
$ orders --run spoiled
Orders and jobs
what …
order fail …
""",
    "only those in doubt": """
$ orders --open-only
Orders and jobs
what …
order echo in doubt …
""",
    "only those that nobody waits for": """
$ orders --orphans
Orders and jobs that no live run waits for
what of status since (…) hours placed by run urn key
order echo succeeded … 0.0 interrupted run {interrupted} lost {echo} {accepted}
order echo in doubt … interrupted run {interrupted} lost {doubt}
{echo}: the next attempt of run {interrupted} takes it up: … `ivcap-flows orders write-off {accepted}`
{doubt}: the next attempt of run {interrupted} takes it up: … `ivcap-flows orders resolve {doubt}`
…
IVCAP has no call to cancel an order or a job: each runs to its end and is paid for.
""",
    "with the reason why one is new": """
$ orders why-not {doubt}
order {doubt} for echo: in doubt
No earlier one was looked for: reuse is off unless the call says reuse=True.
{echo} (done, run {interrupted}): its request differs in 1 place; …
parameters.message
here: … again
earlier: …
Its idempotency record is on the platform, where reuse=True finds it.
""",
    "with the reason why the first is new": """
$ orders why-not {order}
order … for cli-upper: {order}
No earlier one was looked for: …
This journal has no earlier order of the service.
Its idempotency record is on the platform, where reuse=True finds it.
""",
}


@pytest.mark.parametrize("orders", LISTED)
def test_orders_are_listed(on_record, transcript, orders):
    transcript(on_record, LISTED[orders])


def test_programs_get_all_but_what_is_the_journals_own(on_record, names):
    """As JSON."""
    rows = on_record("orders", "--json").json
    assert [row["urn"] for row in rows][::2] == [names["order"], names["echo"]]
    assert not any(row.keys() & {"token", "fence", "process_id"} for row in rows)
    accepted, doubt = [row for row in on_record("orders", "--orphans", "--json").json if row["here"]]
    assert (accepted["flow"], accepted["left"], accepted["hours"]) == ("interrupted", "lost", 0.0)
    assert (doubt["status"], doubt["urn"], doubt["hours"]) == ("in doubt", None, None)
    [earlier] = on_record("orders", "why-not", names["doubt"], "--json").json["earlier"]
    [difference] = earlier["differences"]
    assert difference["where"] == "parameters.message" and difference["here"] == f"{difference['there']} again"


def test_what_was_never_sent_is_no_orphan(own_record, transcript, journal):
    """Nor is it in doubt."""
    journal.intents.release(ask(journal, "claimed"))
    refused = """
$ orders --open-only
Orders and jobs
what …
order echo in doubt …
$ orders write-off claimed
DurabilityError: The order claimed is claimed and no orphan. Nothing was sent, so there is nothing to decide.
[1]
$ orders resolve claimed --none
order claimed is written off. Nothing had been sent.
"""
    transcript(own_record, refused)


def test_orphans_are_listed_while_the_platform_is_away(on_record, transcript, embedded_platform):
    """How long each took is not known then."""
    embedded_platform.add_fault(path="^/1/", status=503)
    assert {row["hours"] for row in on_record("orders", "--orphans", "--json").json} == {None}
    listed = """
$ orders --orphans
…
{echo}: …
{doubt}: …
The platform could not be asked for their status: … 503 …
…
"""
    transcript(on_record, listed)


def test_orders_of_one_service_are_told_apart(own_record, transcript, journal):
    """By the names that the user gave them, by what they were given, and by their accounts where these differ."""
    given = {"coast": "north", "api-token": "xyz-secret", "days": "3"}
    request = {"service": "urn:ivcap:service:tides", "parameters": given}
    for account, name in (("mine", "north, daily"), ("yours", None)):
        asked = {"platform": "p", "account": account, "scope": "s", "request": request, "subject": "tides"}
        journal.intents.claim(NewIntent(key=account, base_key=account, noun="order", name=name, **asked))
    listed = """
$ orders --limit 2
Orders and jobs
what name of state account asked (…) key given
order north, daily tides claimed mine … coast=north, api-token=**********…, days=3
order tides claimed yours … coast=north, api-token=**********…, days=3
"""
    transcript(own_record, listed)


def test_whatever_is_in_doubt_or_twice_is_listed(own_record, transcript, journal):
    """Not orders and jobs alone; and the further URNs under one key are named."""
    run, asked = journal.runs.recent(1)[0], {"platform": "p", "account": "a", "scope": "s", "request": {}}
    model_run = NewIntent(key="k1:m", base_key="k1:m", noun="model run", run_id=run.id, **asked)
    claim = journal.intents.claim(model_run)
    journal.intents.release(journal.intents.mark_in_doubt(journal.intents.mark_sent(claim.intent), "lost"))
    [upload] = journal.intents.where(noun="upload")
    journal.intents.note_duplicates(upload.key, ["urn:ivcap:artifact:twice"])
    listed = """
$ orders
Orders and jobs
what …
upload series.csv …
order cli-upper …
order fail …
order echo …
order echo …
model run in doubt …
{series}: also found under its key: urn:ivcap:artifact:twice
$ orders --open-only
Orders and jobs
what …
order echo in doubt …
model run in doubt …
"""
    transcript(own_record, listed)


def test_an_aspect_is_named_by_its_schema_and_its_entity(own_record, transcript, journal):
    """The journal has no subject of it. That Provena knows the user by another account, under one name, is no news."""
    about = {"schema": "urn:example:schema:reviewed.1", "entity": "urn:ivcap:artifact:a", "content": {}}
    for noun, account, request in (("aspect", "mine", about), ("model run", "known as", {})):
        key = f"k1:{noun}"
        wanted = NewIntent(key, key, noun, "p", account, "s", request)
        journal.intents.release(journal.intents.mark_sent(journal.intents.claim(wanted).intent))
    listed = """
$ orders --open-only
Orders and jobs
what of state urn asked (…) run key given
…
aspect urn:example:schema:reviewed.1 … entity=urn:ivcap:artifact:a
model run …
"""
    transcript(own_record, listed)


HOW = {
    "reused": (
        {"how": "reused"},
        "It was not placed anew: the order of run other is equal.",
    ),
    "found by its key": (
        {"how": "adopted", "matched_by": "key"},
        "It was not placed anew but found on the platform (by key).",
    ),
    "placed though one was looked for": (
        {"how": "sent"},
        "It was placed anew in spite of reuse=True, because at that time: the order of run other is equal.",
    ),
}


@pytest.mark.parametrize("how", HOW)
def test_why_one_is_what_it_is(own_record, transcript, journal, how):
    settled, said = HOW[how]
    ask(journal, "new", reuse="the order of run other is equal", **settled)
    transcript(
        own_record,
        f"""
$ orders why-not new
order new for tides: urn:ivcap:order:new
{said}
This journal has no earlier order of the service.
The definition of its service was not recorded, so nothing on the platform is compared with it.
""",
    )


EARLIER = """
$ orders why-not new
order new for tides: claimed
No earlier one was looked for: reuse is off unless the call says reuse=True.
urn:ivcap:order:first (succeeded): it is generation 0 of this request, resubmitted as generation 1
urn:ivcap:order:running (done): this journal does not know its end: it is still running, or no task waited for it; …
urn:ivcap:order:failed (failed): the definition of the service has changed since; it ended as failed
off (dropped): the definition of its service was not recorded; it was written off
doubt (in doubt): it is not known whether the platform has it; its discriminator differs ('2', here None)
Its idempotency record is not on the platform: it was refused or retracted, so others cannot find it.
"""


def test_each_earlier_one_has_the_reason_why_it_is_no_replacement(own_record, transcript, journal):
    of = {"definition": "as now"}
    journal.intents.release(journal.intents.mark_sent(ask(journal, "doubt", discriminator="2", **of)), "lost")
    journal.intents.release(journal.intents.mark_sent(ask(journal, "off")), "lost")
    journal.decisions.write_off("off")
    ask(journal, "failed", how="sent", definition="as then")
    journal.intents.finish("failed", "failed")
    ask(journal, "running", how="sent", scope="run:0123456789abcdef", **of)
    ask(journal, "first", base_key="new", how="sent", **of)
    journal.intents.finish("first", "succeeded")
    ask(journal, "new", generation=1, **of)
    transcript(own_record, EARLIER)


def test_nobody_decides_for_a_process_that_is_at_work(own_record, transcript, journal):
    journal.intents.mark_sent(ask(journal, "held"))
    told = """
$ orders resolve held --none
DurabilityError: Process … is working on the order held. Wait until it ends or end it, then try again. …
[1]
$ orders resolve held --urn urn:ivcap:order:mine
DurabilityError: Process … is working on the order held. …
[1]
$ orders resolve held
…
A live process is working on it and will decide.
[1]
"""
    transcript(own_record, told)
    assert journal.intents.get("held").state == "sent"


def ask(journal, key, *, how=None, matched_by=None, **given):
    """Record an order of a service; with `how` it is done."""
    request = {"service": "urn:ivcap:service:tides", "parameters": {"days": "3"}}
    known = {"platform": "p", "account": "a", "scope": "account", "request": request, "subject": "tides"}
    intent = journal.intents.claim(NewIntent(**{"key": key, "base_key": key, "noun": "order", **known, **given})).intent
    if how is None:
        return intent
    if how == "sent":
        intent = journal.intents.mark_sent(intent)
    return journal.intents.settle(intent, urn=f"urn:ivcap:order:{key}", outcome=None, how=how, matched_by=matched_by)


DECIDED = {
    "a doubt is the order that the user names": """
$ orders resolve {doubt} --urn urn:ivcap:order:mine
order {doubt} is urn:ivcap:order:mine.
$ orders --open-only
Orders and jobs: none
$ orders --limit 1
…
order echo done adopted urn:ivcap:order:mine …
""",
    "a doubt is none, and counts as not sent": """
$ orders resolve {doubt} --none
order {doubt} is written off.
$ orders --limit 1
…
order echo dropped written off by the user …
""",
    "an orphan that ended is written off once, and stays on record": """
$ orders resolve {accepted} --none
DurabilityError: The order {accepted} is done and not in doubt: an orphan, which `adopt` and `write-off` decide on.
[1]
$ orders write-off {accepted}
order {accepted} ended as succeeded and is written off. It stays on record and still answers an equal request.
$ orders --run interrupted
Orders and jobs
what …
order echo succeeded sent {echo} … {accepted} …
order echo in doubt …
$ orders --orphans
Orders and jobs that no live run waits for
what …
order echo in doubt …
{doubt}: …
…
$ orders write-off {accepted}
DurabilityError: The order {accepted} is succeeded and no orphan.
[1]
""",
    "a wrong word changes nothing": """
$ orders resolve {doubt} --urn urn:ivcap:artifact:mine
InputError: urn:ivcap:artifact:mine is not the URN of an IVCAP order.
[2]
$ orders resolve {doubt} --urn {echo}
InputError: {echo} is what the order {accepted} became, so the order {doubt} is another one, or none.
[2]
$ orders resolve {doubt} --none --urn urn:ivcap:order:x
InputError: Give either --urn or --none.
[2]
$ orders adopt {doubt}
DurabilityError: … no orphan. `ivcap-flows orders resolve {doubt}` decides on a doubt.
[1]
$ orders write-off {doubt}
DurabilityError: … no orphan. `ivcap-flows orders resolve {doubt}` decides on a doubt.
[1]
$ orders resolve {accepted} --urn urn:ivcap:order:other
DurabilityError: …
[1]
$ orders forget {doubt}
DurabilityError: The order {doubt} is in doubt: the journal has no effect of it to forget.
[1]
$ orders forget {accepted}
DurabilityError: …
[1]
$ orders --run interrupted
…
order echo done sent {echo} …
order echo in doubt UnreachableError: …
""",
}


@pytest.mark.parametrize("decision", DECIDED)
def test_what_the_user_decides(own_record, transcript, decision):
    transcript(own_record, DECIDED[decision])


def test_the_next_run_gets_the_handle_that_the_task_would_have_returned(own_record, names):
    own_record("orders", "resolve", names["doubt"], "--urn", "urn:ivcap:order:mine")
    row = own_record("orders", "--json").json[-1]
    order = Order.model_validate(row["outcome"])
    assert (order.urn, order.service_name, order.key) == ("urn:ivcap:order:mine", "echo", row["key"])
    assert order.parameters["message"].endswith(" again")


def test_a_doubt_is_shown_with_what_it_may_be(own_record, transcript, names):
    """By the beginning of its key, too. Nothing is decided by looking, and `--urn` adopts what bears the key."""
    found = until(
        lambda: own_record("orders", "resolve", names["doubt"][:8], "--json"),
        lambda said: said.json["candidates"][0]["status"] == "succeeded",
    )
    [candidate] = found.json["candidates"]
    assert (found.status, found.json["held"]) == (1, False)
    shown = """
$ orders resolve {doubt}
Candidates for the order {doubt} for echo, requested …
urn why status at (…)
{lost} its name contains the key succeeded …
It is this one: ivcap-flows orders resolve {doubt} --urn {lost}
It is none: ivcap-flows orders resolve {doubt} --none
…
[1]
$ orders resolve {doubt} --urn {lost}
order {doubt} is {lost}.
$ orders resolve {doubt}
DurabilityError: … is … and not in doubt: there is nothing to list.
[1]
"""
    transcript(own_record, shown, lost=candidate["urn"])


UNDECIDABLE = """
$ orders resolve done --urn urn:ivcap:artifact:x
DurabilityError: The {noun} done is done and not in doubt: there is nothing to decide.
[1]
$ orders resolve done --none
DurabilityError: The {noun} done is done and not in doubt: there is nothing to decide.
[1]
$ orders resolve done
DurabilityError: The {noun} done is done and not in doubt: there is nothing to list.
[1]
$ orders resolve sent
DurabilityError: Candidates can be listed only for orders and jobs. {instead}
[1]
$ orders resolve sent --urn urn:ivcap:artifact:y
InputError: … {noun}…
[2]
$ orders adopt done
DurabilityError: The {noun} done is done and no orphan.
[1]
$ orders write-off done
DurabilityError: The {noun} done is done and no orphan.
[1]
$ orders adopt sent
DurabilityError: The {noun} sent is in doubt and no orphan. `ivcap-flows orders resolve sent` decides on a doubt.
[1]
$ orders write-off sent
DurabilityError: The {noun} sent is in doubt and no orphan. `ivcap-flows orders resolve sent` decides on a doubt.
[1]
$ orders why-not done
InputError: done is of the kind {noun}; only orders and jobs are placed anew or reused.
[2]
"""


LOOKED_FOR = "The next run that asks for the {noun} sent looks for it … Run again, or decide with `--none`."
TO_DECIDE = "Decide with `ivcap-flows orders resolve sent --urn <urn>`, or with `--none` to send it again."


@pytest.mark.parametrize(
    ("noun", "instead"),
    [
        *((noun, LOOKED_FOR) for noun in ("upload", "dataset", "registry item", "item version", "service")),
        *((noun, TO_DECIDE) for noun in ("aspect", "message", "model run")),
    ],
)
def test_a_command_refuses_what_it_cannot_decide(own_record, transcript, journal, noun, instead):
    """In a sentence that names the noun, whether the effect is done or in doubt, and nothing changes."""
    asked = {"platform": "p", "account": "a", "scope": "s", "request": {}, "run_id": journal.runs.recent(1)[0].id}
    for state in ("done", "sent"):
        intent = journal.intents.mark_sent(journal.intents.claim(NewIntent(state, state, noun, **asked)).intent)
        if state == "done":
            journal.intents.settle(intent, urn="urn:ivcap:artifact:x", outcome=None, how="sent")
        else:
            journal.intents.release(intent, "lost")
    before = own_record("orders", "--json").json
    transcript(own_record, UNDECIDABLE, noun=noun, instead=instead.format(noun=noun))
    assert own_record("orders", "--json").json == before


def test_an_orphan_that_goes_on_is_not_written_off_nor_claimed(own_record, transcript, names, journal_file):
    """The platform cannot cancel it, and the error says so. One that bears our key and is in no row here may be another
    journal's, and is listed so."""

    async def place():
        async with IvcapCredentials.from_environment().get_client() as client:
            service = await client.services.by_name("sleep")
            return await client.orders.place(service.urn, {"seconds": "5"}, name="sleep [0123456789abcdef]")

    going_on = asyncio.run(place()).urn
    listed = """
$ orders --orphans
…
Of other journals, where a run may wait for them
…
order sleep … not known here {going_on} 0123456789abcdef
…
"""
    transcript(own_record, listed, going_on=going_on)
    with contextlib.closing(sqlite3.connect(journal_file)) as connection, connection:
        connection.execute("UPDATE intents SET urn = ? WHERE urn = ?", (going_on, names["echo"]))
    refused = """
$ orders write-off {accepted}
DurabilityError: The order {accepted} is …, and IVCAP cannot cancel it. … `ivcap-flows orders adopt {accepted}`.
[1]
$ orders --run interrupted
…
order echo done …
order echo in doubt …
"""
    transcript(own_record, refused)


def test_an_order_is_taken_over_though_prefect_has_forgotten_its_run(own_record, transcript, prefect_api, journal):
    """It stays accepted; the doubt is decided, too."""
    [attempt] = journal.runs.attempts(journal.runs.get("interrupted").id)
    # Prefect's own client tries again while its server is busy.
    with get_client(sync_client=True) as client:
        client.delete_flow_run(UUID(attempt.flow_run_id))
    taken_over = """
$ orders --orphans
…
{echo}: …
{doubt}: …
…
$ orders adopt {accepted}
order {accepted} is yours: {echo}. It continues; `get_order("{echo}")` waits for it in any flow.
$ orders resolve {doubt} --none
order {doubt} is written off.
$ orders --orphans
Orders and jobs that no live run waits for: none
…
$ orders --run interrupted
…
order echo done sent {echo} …
order echo dropped …
"""
    transcript(own_record, taken_over)
