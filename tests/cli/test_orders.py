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


def row_of(command, key):
    return next(row for row in command("orders", "--json").json if row["key"] == key)


def orphans(command):
    return command("orders", "--orphans", "--json").json


def orphan(command):
    """The order that the killed flow left, and that the platform accepted."""
    [row] = [row for row in orphans(command) if row["here"] and row["urn"]]
    return row


def test_orders_are_listed_oldest_first_and_can_be_narrowed(on_record, world):
    """Uploads and datasets are not among them."""
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
    assert on_record("orders", "--limit", 2, "--json").json == rows[-2:]
    assert [row["subject"] for row in on_record("orders", "--run", "spoiled", "--json").json] == ["fail"]


def test_orders_of_one_service_are_told_apart(own_record, journal):
    """By the names that the user gave them, by what they were given, and by their accounts where these differ."""
    given = {"coast": "north", "api-token": "xyz-secret", "days": "3"}
    request = {"service": "urn:ivcap:service:tides", "parameters": given}
    for account, name in (("urn:ivcap:account:mine", "north, daily"), ("urn:ivcap:account:yours", None)):
        asked = {"platform": "p", "account": account, "scope": "s", "request": request, "subject": "tides"}
        key = f"k1:{account[-5:]}"
        journal.intents.claim(NewIntent(key=key, base_key=key, noun="order", name=name, **asked))
    assert "account" not in own_record("orders", "--run", "latest").out
    head, *lines = [line for line in own_record("orders").out.splitlines() if "tides" in line or "given" in line]
    assert "account" in head and "urn:ivcap:account:mine" in lines[0] and "urn:ivcap:account:yours" in lines[1]
    assert "north, daily" in lines[0] and "north, daily" not in lines[1]
    assert all("coast=north, api-token=**********" in line and "days=3" in line for line in lines)
    assert not any("xyz" in line for line in lines)


def test_whatever_is_in_doubt_or_twice_is_listed(own_record, journal):
    """Not orders and jobs alone; and the further URNs under one key are told."""
    run, asked = journal.runs.recent(1)[0], {"platform": "p", "account": "a", "scope": "s", "request": {}}
    model_run = NewIntent(key="k1:m", base_key="k1:m", noun="model run", run_id=run.id, **asked)
    claim = journal.intents.claim(model_run)
    journal.intents.release(journal.intents.mark_in_doubt(journal.intents.mark_sent(claim.intent), "lost"))
    [upload] = journal.intents.where(noun="upload")
    journal.intents.note_duplicates(upload.key, ["urn:ivcap:artifact:twice"])
    nouns = [row["noun"] for row in own_record("orders", "--json").json]
    assert nouns.count("model run") == 1 and nouns.count("upload") == 1
    assert [row["noun"] for row in own_record("orders", "--open-only", "--json").json] == ["order", "model run"]
    assert "also found under its key: urn:ivcap:artifact:twice" in own_record("orders").out


def test_an_order_in_doubt_is_resolved_by_the_beginning_of_its_key(own_record):
    """The next run gets the handle that the flow's task would have got."""
    key = in_doubt(own_record)["key"]
    said = own_record("orders", "resolve", short_id(key)[:8], "--urn", "urn:ivcap:order:mine")
    assert said.status == 0 and "urn:ivcap:order:mine" in said.out
    now = row_of(own_record, key)
    decided = (now["state"], now["urn"], now["how"], now["matched_by"])
    assert decided == ("done", "urn:ivcap:order:mine", "adopted", "user")
    assert (now["outcome"]["kind"], now["outcome"]["urn"]) == ("order", "urn:ivcap:order:mine")
    assert now["outcome"]["service_name"] == "echo" and now["outcome"]["parameters"]
    assert own_record("orders", "--open-only", "--json").json == []


def test_a_wrong_decision_changes_nothing(own_record, world):
    """The URN of something else, a command for other requests, an accepted order, and two decisions at once."""
    doubt, before = in_doubt(own_record)["key"], own_record("orders", "--json").json
    [accepted] = [row["key"] for row in before if row["urn"] == world.made["order"]]
    for words, status, fault in (
        (("resolve", doubt, "--urn", "urn:ivcap:artifact:mine"), 2, ""),
        (("adopt", doubt), 1, f"`ivcap-flows orders resolve {short_id(doubt)}`"),
        (("write-off", doubt), 1, f"`ivcap-flows orders resolve {short_id(doubt)}`"),
        (("resolve", doubt, "--none", "--urn", "urn:ivcap:order:x"), 2, ""),
        (("resolve", accepted, "--urn", "urn:ivcap:order:other"), 1, "DurabilityError: "),
        (("resolve", accepted, "--none"), 1, "nothing to decide"),
    ):
        said = own_record("orders", *words)
        assert said.status == status and fault in said.err, words
    assert own_record("orders", "--json").json == before


NOUNS = ["upload", "dataset", "registry item", "item version", "service", "aspect", "message", "model run"]


@pytest.mark.parametrize("noun", NOUNS)
def test_a_command_refuses_what_it_cannot_decide(own_record, journal, noun):
    """In a sentence that names the noun, whether the effect is done or in doubt, and nothing changes."""
    asked = {"platform": "p", "account": "a", "scope": "s", "request": {}, "run_id": journal.runs.recent(1)[0].id}
    for state in ("done", "sent"):
        intent = journal.intents.mark_sent(journal.intents.claim(NewIntent(state, state, noun, **asked)).intent)
        if state == "done":
            journal.intents.settle(intent, urn="urn:ivcap:artifact:x", outcome=None, how="sent")
        else:
            journal.intents.release(intent, "lost")
    commands = [["resolve", "done", "--urn", "urn:ivcap:artifact:x"], ["resolve", "done", "--none"]]
    commands += [["resolve", "sent", "--urn", "urn:ivcap:artifact:y"]]
    for command in ("adopt", "write-off", "resolve", "why-not"):
        commands += [[command, state] for state in ("done", "sent")]
    before = own_record("orders", "--json").json
    for words in commands:
        said = own_record("orders", *words)
        assert said.status in (1, 2) and len(said.err.splitlines()) <= 2, words
        assert noun in said.err and "Error" not in said.err.partition("Error: ")[2] and "get_" not in said.out, said.err
    assert own_record("orders", "--json").json == before


def test_an_order_in_doubt_is_resolved_to_none(own_record):
    """It counts as not sent."""
    key = in_doubt(own_record)["key"]
    assert own_record("orders", "resolve", short_id(key), "--none").status == 0
    now = row_of(own_record, key)
    assert (now["state"], now["urn"]) == ("dropped", None)


def test_resolving_shows_what_it_may_be_and_decides(own_record):
    """The order whose reply was lost bears the key; nothing is decided by looking, and `--urn` adopts it."""
    whole = in_doubt(own_record)["key"]
    said = own_record("orders", "resolve", whole[:12], "--json")
    [candidate] = said.json["candidates"]
    assert said.status == 1 and said.json["key"] == whole and candidate["sign"] == "its name contains the key"
    key = short_id(whole)
    shown = own_record("orders", "resolve", key)
    assert shown.status == 1 and f"resolve {key} --urn {candidate['urn']}" in shown.out
    assert own_record("orders", "resolve", key, "--urn", candidate["urn"]).status == 0
    assert row_of(own_record, whole)["urn"] == candidate["urn"]
    assert own_record("orders", "resolve", key).status == 1


def test_what_a_killed_flow_left_is_listed(on_record, embedded_platform):
    """The accepted order with its status and hours by the platform, the one in doubt without; who placed each, that its
    process is gone, and what comes next. A platform that is away hides none of them."""
    accepted, doubt = [row for row in orphans(on_record) if row["here"]]
    assert (accepted["noun"], accepted["service"], accepted["flow"]) == ("order", "echo", "interrupted")
    assert accepted["status"] == "succeeded" and accepted["hours"] is not None and accepted["ended_at"]
    assert (doubt["status"], doubt["urn"], doubt["hours"]) == ("in doubt", None, None)
    for row in (accepted, doubt):
        assert row["left"] == "lost" and f"next attempt of run {row['run'][-8:]} takes it up" in row["then"]
    out = on_record("orders", "--orphans").out
    assert accepted["urn"] in out and "no call to cancel" in out
    assert f"ivcap-flows orders resolve {short_id(doubt['key'])}" in out
    embedded_platform.add_fault(path="^/1/", status=503)
    said = on_record("orders", "--orphans")
    assert said.status == 0 and "interrupted" in said.out
    assert "could not be asked" in said.out or "cannot be read" in said.out


def test_an_orphan_that_goes_on_is_not_written_off_nor_claimed(own_record, journal_file):
    """The platform cannot cancel it, and the error says so. One that bears our key and is in no row here may be another
    journal's, and is told so."""

    async def place():
        async with IvcapCredentials.from_environment().get_client() as client:
            service = await client.services.by_name("sleep")
            return await client.orders.place(service.urn, {"seconds": "5"}, name="sleep [0123456789abcdef]")

    going_on = asyncio.run(place()).urn
    [row] = [row for row in orphans(own_record) if row["urn"] == going_on]
    assert (row["here"], row["key"], row["left"]) == (False, "0123456789abcdef", "not known here")
    assert "Of other journals, where a run may wait for them" in own_record("orders", "--orphans").out
    key = orphan(own_record)["key"]
    with contextlib.closing(sqlite3.connect(journal_file)) as connection, connection:
        connection.execute("UPDATE intents SET urn = ? WHERE key = ?", (going_on, key))
    said = own_record("orders", "write-off", short_id(key))
    assert said.status == 1 and "cannot cancel" in said.err
    assert row_of(own_record, key)["state"] == "done"


def test_an_orphan_that_ended_is_written_off_and_kept(own_record):
    """It is no orphan then, stays on record with its status, and can be written off once."""
    left = orphan(own_record)
    assert "`adopt` and `write-off`" in own_record("orders", "resolve", short_id(left["key"]), "--none").err
    said = own_record("orders", "write-off", short_id(left["key"]))
    assert said.status == 0 and "ended as succeeded" in said.out
    row = row_of(own_record, left["key"])
    written_off = ("done", "succeeded", left["urn"], "written off by the user")
    assert (row["state"], row["status"], row["urn"], row["error"]) == written_off
    assert left["urn"] not in [row["urn"] for row in orphans(own_record)]
    assert own_record("orders", "write-off", short_id(left["key"])).status == 1


def test_an_order_is_taken_over_though_prefect_has_forgotten_its_run(own_record, prefect_server, journal):
    """It stays accepted; the doubt is decided, too."""
    accepted, doubt = [row for row in orphans(own_record) if row["here"]]
    [attempt] = journal.runs.attempts(accepted["run"])
    # Prefect's own client tries again while its server is busy.
    here = temporary_settings({PREFECT_API_URL: prefect_server["PREFECT_API_URL"]})
    with here, get_client(sync_client=True) as client:
        client.delete_flow_run(UUID(attempt.flow_run_id))
    assert [row["key"] for row in orphans(own_record) if row["here"]] == [accepted["key"], doubt["key"]]
    said = own_record("orders", "adopt", short_id(accepted["key"]))
    assert said.status == 0 and accepted["urn"] in said.out
    assert own_record("orders", "resolve", doubt["key"], "--none").status == 0
    assert [row for row in orphans(own_record) if row["here"]] == []
    row = row_of(own_record, accepted["key"])
    assert (row["state"], row["how"], row["matched_by"]) == ("done", "sent", "user")
    assert row_of(own_record, doubt["key"])["state"] == "dropped"


def test_why_an_order_was_placed_anew(on_record, world):
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
    said = on_record("orders", "why-not", world.made["order"], "--json")
    assert said.status == 0 and said.json["urn"] == world.made["order"] and said.json["earlier"] == []
    with Journal.open(f"sqlite:///{world.journal}") as journal:
        [upload] = journal.intents.where(noun="upload")
    for no_order_here in ("urn:ivcap:order:unknown", upload.key):
        assert on_record("orders", "why-not", no_order_here).status == 2
