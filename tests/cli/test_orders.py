"""`orders`: what was asked of the platforms, and the user's word on what is in doubt."""

import asyncio
import contextlib
import sqlite3
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.identity import short_id
from ivcap_flows.journal import Journal, NewIntent


def in_doubt(command):
    [row] = command("orders", "--open-only", "--json").json
    return row


def test_orders_are_listed_oldest_first(on_record, world):
    """Of all runs, with their URNs, states and keys; uploads and datasets are not among them."""
    rows = on_record("orders", "--json").json
    assert [(r["noun"], r["subject"], r["status"] or r["state"]) for r in rows] == [
        ("order", "cli-upper", "succeeded"),
        ("order", "fail", "failed"),
        ("order", "echo", "done"),
        ("order", "echo", "sent"),
    ]
    assert not any(row.keys() & {"token", "fence", "process_id"} for row in rows)
    out = on_record("orders").out
    assert world.made["order"] in out and all(short_id(row["key"]) in out for row in rows)


def test_the_newest_orders_are_listed(on_record):
    """As many as asked for; a number below 1 is wrong use, and orphans are always listed whole."""
    rows = on_record("orders", "--json").json
    assert on_record("orders", "--limit", 2, "--json").json == rows[-2:]
    assert on_record("orders", "--limit", 0).status == 2
    assert on_record("orders", "--orphans", "--limit", 2).status == 2


def test_orders_of_one_service_are_told_apart(on_record, journal_file):
    """By the names that the user gave them, by what they were given, and by their accounts where these differ."""
    given = {"coast": "north", "api-token": "xyz-secret", "days": "3"}
    request = {"service": "urn:ivcap:service:tides", "parameters": given}
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        for account, name in (("urn:ivcap:account:mine", "north, daily"), ("urn:ivcap:account:yours", None)):
            asked = {"platform": "p", "account": account, "scope": "s", "request": request, "subject": "tides"}
            key = f"k1:{account[-5:]}"
            journal.intents.claim(NewIntent(key=key, base_key=key, noun="order", name=name, **asked))
    assert "account" not in on_record("orders", "--run", "latest").out
    head, *lines = [line for line in on_record("orders").out.splitlines() if "tides" in line or "given" in line]
    assert "account" in head and "urn:ivcap:account:mine" in lines[0] and "urn:ivcap:account:yours" in lines[1]
    assert "north, daily" in lines[0] and "north, daily" not in lines[1]
    assert all("coast=north, api-token=**********" in line and "days=3" in line for line in lines)
    assert not any("xyz" in line for line in lines)


def test_orders_of_one_run(on_record):
    """By the run's id; an unknown one is wrong use."""
    run = on_record("runs", "--flow", "spoiled", "--json").json[0]["id"]
    assert [row["subject"] for row in on_record("orders", "--run", run, "--json").json] == ["fail"]
    assert on_record("orders", "--run", "nothing").status == 2


def test_whatever_is_in_doubt_or_twice_is_listed(on_record, journal_file):
    """Not orders and jobs alone; and the further URNs under one key are told."""
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        run, asked = journal.runs.recent(1)[0], {"platform": "p", "account": "a", "scope": "s", "request": {}}
        model_run = NewIntent(key="k1:m", base_key="k1:m", noun="model run", run_id=run.id, **asked)
        claim = journal.intents.claim(model_run)
        journal.intents.release(journal.intents.mark_in_doubt(journal.intents.mark_sent(claim.intent), "lost"))
        [upload] = journal.intents.where(noun="upload")
        journal.intents.note_duplicates(upload.key, ["urn:ivcap:artifact:twice"])
    nouns = [row["noun"] for row in on_record("orders", "--json").json]
    assert nouns.count("model run") == 1 and nouns.count("upload") == 1
    assert [row["noun"] for row in on_record("orders", "--open-only", "--json").json] == ["order", "model run"]
    assert "also found under its key: urn:ivcap:artifact:twice" in on_record("orders").out


@pytest.mark.parametrize("short", [True, False])
def test_an_order_in_doubt_is_adopted(on_record, short):
    """By its key or the beginning of it: the next run gets the handle that the flow's task would have got."""
    row = in_doubt(on_record)
    key = short_id(row["key"])[:8] if short else row["key"]
    said = on_record("orders", "adopt", key, "urn:ivcap:order:mine")
    assert said.status == 0 and "urn:ivcap:order:mine" in said.out
    now = next(r for r in on_record("orders", "--json").json if r["key"] == row["key"])
    assert (now["state"], now["urn"], now["how"], now["matched_by"]) == (
        "done",
        "urn:ivcap:order:mine",
        "adopted",
        "user",
    )
    assert (now["outcome"]["kind"], now["outcome"]["urn"]) == ("order", "urn:ivcap:order:mine")
    assert now["outcome"]["service_name"] == "echo" and now["outcome"]["parameters"]
    assert on_record("orders", "--open-only", "--json").json == []


def test_an_order_in_doubt_is_written_off(on_record):
    """It counts as not sent."""
    key = in_doubt(on_record)["key"]
    said = on_record("orders", "write-off", short_id(key))
    assert said.status == 0 and "written off" in said.out
    now = next(r for r in on_record("orders", "--json").json if r["key"] == key)
    assert (now["state"], now["urn"]) == ("dropped", None)


@pytest.mark.parametrize("arguments", [["adopt", "ffff-no-key", "urn:ivcap:order:mine"], ["write-off", "ffff-no-key"]])
def test_a_wrong_key_is_wrong_use(on_record, arguments):
    """The error names it; nothing is decided."""
    said = on_record("orders", *arguments)
    assert said.status == 2 and "'ffff-no-key'" in said.err
    assert in_doubt(on_record)


def test_an_ambiguous_key_is_wrong_use(on_record):
    """The candidates are named."""
    said = on_record("orders", "write-off", "")
    assert said.status == 2 and "k1:" in said.err


def test_the_beginning_of_a_key_names_it(on_record):
    """As `orders` shows it, and as `orders --json` prints it; where it names none, the message says where they are."""
    [key] = [row["key"] for row in on_record("orders", "--open-only", "--json").json]
    assert key in on_record("orders", "resolve", key[:12], "--json").out
    assert "`ivcap-flows orders`" in on_record("orders", "write-off", "ffff-no-key").err


@pytest.mark.parametrize("word", ["adopt", "write-off"])
def test_what_is_not_in_doubt_cannot_be_decided(on_record, world, word):
    """An accepted order stays as it is."""
    [key] = [row["key"] for row in on_record("orders", "--json").json if row["urn"] == world.made["order"]]
    said = on_record("orders", word, key, *(["urn:ivcap:order:other"] if word == "adopt" else []))
    assert said.status == 1 and said.err.startswith("DurabilityError: ")
    assert world.made["order"] in on_record("orders").out


def test_an_order_is_adopted_as_an_order_alone(on_record):
    """The URN of something else is wrong use."""
    key = in_doubt(on_record)["key"]
    assert on_record("orders", "adopt", key, "urn:ivcap:artifact:mine").status == 2
    assert in_doubt(on_record)


def orphans(command):
    return command("orders", "--orphans", "--json").json


def of_journal(command, key):
    return next(r for r in command("orders", "--json").json if r["key"] == key)


def test_what_a_killed_flow_left_is_listed(on_record):
    """The accepted order with its status and hours by the platform, the one in doubt without; who placed each, that its
    process is gone, and what comes next. What ended, or is waited for, is not there."""
    accepted, doubt = [row for row in orphans(on_record) if row["here"]]
    assert (accepted["noun"], accepted["service"], accepted["flow"]) == ("order", "echo", "interrupted")
    assert accepted["status"] == "succeeded" and accepted["hours"] is not None and accepted["ended_at"]
    assert (doubt["status"], doubt["urn"], doubt["hours"]) == ("in doubt", None, None)
    for row in (accepted, doubt):
        assert row["left"] == "lost" and f"next attempt of run {row['run'][-8:]} takes it up" in row["then"]
    out = on_record("orders", "--orphans").out
    assert accepted["urn"] in out and "no call to cancel" in out
    assert f"ivcap-flows orders resolve {short_id(doubt['key'])}" in out


def test_a_platform_that_is_away_hides_no_orphan(on_record, embedded_platform):
    """What the journal knows is told all the same, and that the platform was not asked."""
    embedded_platform.add_fault(path="^/1/", status=503)
    said = on_record("orders", "--orphans")
    embedded_platform.clear_faults()
    assert said.status == 0 and "interrupted" in said.out
    assert "could not be asked" in said.out or "cannot be read" in said.out


@pytest.fixture
def going_on(on_record):
    """The URN of an order that goes on, and whose name bears a key that no journal here has."""

    async def place():
        async with IvcapCredentials.from_environment().get_client() as client:
            service = await client.services.by_name("sleep")
            return await client.orders.place(service.urn, {"seconds": "5"}, name="sleep [0123456789abcdef]")

    return asyncio.run(place()).urn


def test_what_another_journal_placed_is_told_as_anothers(on_record, going_on):
    """What goes on and bears our key, and is in no row here, is not said to be an orphan for sure."""
    [row] = [row for row in orphans(on_record) if row["urn"] == going_on]
    assert (row["here"], row["key"], row["left"]) == (False, "0123456789abcdef", "not known here")
    assert "Of other journals, where a run may wait for them" in on_record("orders", "--orphans").out


def test_an_orphan_that_ended_is_written_off_and_kept(on_record):
    """It is no orphan then, stays on record with its status, and can be written off once."""
    [orphan] = [row for row in orphans(on_record) if row["here"] and row["urn"]]
    said = on_record("orders", "write-off", short_id(orphan["key"]))
    assert said.status == 0 and "ended as succeeded" in said.out
    row = of_journal(on_record, orphan["key"])
    assert (row["state"], row["status"], row["urn"], row["error"]) == (
        "done",
        "succeeded",
        orphan["urn"],
        "written off by the user",
    )
    assert orphan["urn"] not in [row["urn"] for row in orphans(on_record)]
    assert on_record("orders", "write-off", short_id(orphan["key"])).status == 1


def test_an_orphan_is_taken_over(on_record):
    """`adopt` needs no URN for it; it stays accepted and is no orphan any more."""
    [orphan] = [row for row in orphans(on_record) if row["here"] and row["urn"]]
    said = on_record("orders", "adopt", short_id(orphan["key"]))
    assert said.status == 0 and orphan["urn"] in said.out
    row = of_journal(on_record, orphan["key"])
    assert (row["state"], row["how"], row["matched_by"]) == ("done", "sent", "user")
    assert orphan["urn"] not in [row["urn"] for row in orphans(on_record)]


def test_an_orphan_that_goes_on_is_not_written_off(on_record, journal_file, going_on):
    """The platform cannot cancel it, and the error says so."""
    [orphan] = [row for row in orphans(on_record) if row["here"] and row["urn"]]
    with contextlib.closing(sqlite3.connect(journal_file)) as connection, connection:
        connection.execute("UPDATE intents SET urn = ? WHERE key = ?", (going_on, orphan["key"]))
    said = on_record("orders", "write-off", short_id(orphan["key"]))
    assert said.status == 1 and "cannot cancel" in said.err
    assert of_journal(on_record, orphan["key"])["state"] == "done"


def test_resolving_shows_what_it_may_be_and_decides(on_record):
    """The order whose reply was lost bears the key; nothing is decided by looking, and `--urn` adopts it."""
    key = short_id(in_doubt(on_record)["key"])
    said = on_record("orders", "resolve", key, "--json")
    [candidate] = said.json["candidates"]
    assert said.status == 1 and candidate["sign"] == "its name contains the key"
    shown = on_record("orders", "resolve", key)
    assert shown.status == 1 and f"resolve {key} --urn {candidate['urn']}" in shown.out
    assert on_record("orders", "resolve", key, "--urn", candidate["urn"]).status == 0
    assert of_journal(on_record, said.json["key"])["urn"] == candidate["urn"]
    assert on_record("orders", "resolve", key).status == 1


def test_resolving_with_none_writes_off(on_record):
    """And both decisions at once are wrong use."""
    key = in_doubt(on_record)["key"]
    assert on_record("orders", "resolve", key, "--none", "--urn", "urn:ivcap:order:x").status == 2
    assert on_record("orders", "resolve", key, "--none").status == 0
    assert of_journal(on_record, key)["state"] == "dropped"


def test_why_an_order_was_placed_anew(on_record, journal_file):
    """The earlier one of the service with its first differences, reuse that was off, and the idempotency record."""
    first, second = [row for row in on_record("orders", "--json").json if row["subject"] == "echo"]
    said = on_record("orders", "why-not", short_id(second["key"]), "--json")
    assert said.status == 0 and "reuse is off" in said.json["answer"]
    [earlier] = [one for one in said.json["earlier"] if one["urn"] == first["urn"]]
    assert earlier["reasons"][0] == "its request differs in 1 place"
    [difference] = earlier["differences"]
    assert difference["where"] == "parameters.message" and difference["here"] == f"{difference['there']} again"
    out = on_record("orders", "why-not", short_id(second["key"])).out
    assert difference["here"] in out and "here:" in out and "Its idempotency record is on the platform" in out


def test_why_an_order_is_asked_by_its_urn(on_record, world, journal_file):
    """One that this journal did not place is wrong use, and so is what is no order."""
    said = on_record("orders", "why-not", world.made["order"], "--json")
    assert said.status == 0 and said.json["urn"] == world.made["order"] and said.json["earlier"] == []
    assert on_record("orders", "why-not", "urn:ivcap:order:unknown").status == 2
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        [upload] = journal.intents.where(noun="upload")
    assert on_record("orders", "why-not", upload.key).status == 2


def test_an_order_whose_flow_was_killed_and_deleted(on_record, journal_file, prefect_server):
    """Prefect has forgotten the run: its order is listed all the same, can be taken over, and its doubt decided."""
    accepted, doubt = [row for row in orphans(on_record) if row["here"]]
    with Journal.open(f"sqlite:///{journal_file}") as journal:
        [attempt] = journal.runs.attempts(accepted["run"])
    # Prefect's own client tries again while its server is busy.
    here = temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]})
    with here, get_client(sync_client=True) as client:
        client.delete_flow_run(UUID(attempt.flow_run_id))
    assert [row["key"] for row in orphans(on_record) if row["here"]] == [accepted["key"], doubt["key"]]
    assert on_record("orders", "adopt", accepted["key"]).status == 0
    assert on_record("orders", "write-off", doubt["key"]).status == 0
    assert [row for row in orphans(on_record) if row["here"]] == []
    states = {row["key"]: row["state"] for row in on_record("orders", "--json").json}
    assert (states[accepted["key"]], states[doubt["key"]]) == ("done", "dropped")
