"""`orders`: what was asked of the platforms, and the user's word on what is in doubt."""

import pytest

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
        ("order", "echo", "accepted"),
        ("order", "echo", "in_doubt"),
    ]
    assert not any(row.keys() & {"token", "fence", "process_id"} for row in rows)
    out = on_record("orders").out
    assert world.made["order"] in out and all(short_id(row["key"]) in out for row in rows)


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
        "accepted",
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
    assert (now["state"], now["urn"]) == ("abandoned", None)


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
