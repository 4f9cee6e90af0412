"""Facts are appended all or none, and a reader by pages misses none."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import pytest

from ivcap_flows.errors import JournalError
from ivcap_flows.journal import Fact, Journal, RunIdentity
from ivcap_flows.provenance import activity, entity, relation

FORK = multiprocessing.get_context("fork")


def _run(journal: Journal, name: str = "1") -> str:
    return journal.runs.open_attempt(RunIdentity("f", "f.py:f", {"n": name}, name, name)).run.id


def test_facts_come_back_as_they_were(journal: Journal) -> None:
    """Every field of a record survives, any text included, and each fact has a number and a time."""
    run_id = _run(journal)
    records = [
        activity(
            "a", "order", journal.now(), journal.now(), status="ok", text='Niño "\u0000"', nested={"x": [1, None]}
        ),
        entity("e", "file", size=2**60),
        relation("used", "a", "e"),
    ]
    journal.facts.append([Fact(record, run_id) for record in records])
    facts = journal.facts.of_run(run_id)
    assert [fact.record for fact in facts] == records
    assert [fact.seq for fact in facts] == sorted({fact.seq for fact in facts})
    assert all(fact.recorded_at for fact in facts)
    assert journal.facts.last_seq(run_id) == facts[-1].seq
    assert journal.facts.last_seq("none") == 0


def test_text_that_is_no_unicode_is_kept_readable(journal: Journal) -> None:
    """Bytes of a file name that are not UTF-8 are made readable in any field. No fact is lost."""
    run_id = _run(journal)
    name = os.fsdecode("/data/Niño-".encode() + b"\xff.csv")
    records = [
        activity("a", "call", journal.now(), nested={name: [name, 1, None], "n": 2**60}),
        entity(name, "file", path=name),
        relation("used", "a", name),
    ]
    journal.facts.append([Fact(record, run_id) for record in records])
    shown = "/data/Niño-\\udcff.csv"
    call, file, used = (fact.record for fact in journal.facts.of_run(run_id))
    assert (call.time, call.attributes) == (records[0].time, {"nested": {shown: [shown, 1, None], "n": 2**60}})
    assert (file.id, file.attributes, used.target) == (shown, {"path": shown}, shown)
    assert len(journal.facts.about(shown)) == 2


def test_facts_are_read_in_pages(journal: Journal) -> None:
    """Pages by number follow each other without a gap, for one run and for all."""
    first, second = _run(journal, "1"), _run(journal, "2")
    for n in range(5):
        journal.facts.append([Fact(entity(f"{run_id}-{n}", "file"), run_id) for run_id in (first, second)])
    page = journal.facts.of_run(first, limit=3)
    rest = journal.facts.of_run(first, after=page[-1].seq, limit=3)
    assert [fact.record.id for fact in page + rest] == [f"{first}-{n}" for n in range(5)]
    assert len(journal.facts.since(0)) == 10
    assert len(journal.facts.since(page[-1].seq)) == 5


def test_thing_is_found_in_every_run(journal: Journal) -> None:
    """The facts about a thing, its own record and its relations, are found in all runs, by an index."""
    for name in ("1", "2"):
        run_id = _run(journal, name)
        records = [entity("urn:x", "artifact"), relation("used", f"a{name}", "urn:x"), relation("used", "a", "urn:y")]
        journal.facts.append([Fact(record, run_id) for record in records])
    assert [fact.record.type for fact in journal.facts.about("urn:x")] == ["artifact", "used"] * 2
    assert len(journal.facts.about("a1")) == 1
    if journal.url.startswith("sqlite"):
        with journal._store.read() as connection:
            query = "EXPLAIN QUERY PLAN SELECT * FROM facts WHERE record_id = 'x' OR source = 'x' OR target = 'x'"
            plan = " ".join(str(row) for row in connection.exec_driver_sql(query))
        assert "SCAN" not in plan


def test_append_is_all_or_none(journal: Journal) -> None:
    """If one fact of a batch cannot be written, none of the batch is."""
    run_id = _run(journal)
    with pytest.raises(JournalError):
        journal.facts.append([Fact(entity("good", "file"), run_id), Fact(entity("bad", "file"), "no such run")])
    assert journal.facts.of_run(run_id) == []


def _append_many(url: str, run_id: str, who: int) -> None:
    with Journal.open(url) as journal:
        for n in range(20):
            journal.facts.append([Fact(entity(f"{who}-{n}-{part}", "file"), run_id) for part in range(3)])


def test_reader_by_number_passes_no_writer_by(journal_url: str, journal: Journal) -> None:
    """While four processes append, a reader by pages sees each fact once."""
    run_id = _run(journal)
    children: list[Any] = [FORK.Process(target=_append_many, args=(journal_url, run_id, who)) for who in range(4)]
    for child in children:
        child.start()
    seen: list[str] = []
    last = 0
    while True:
        running = any(child.is_alive() for child in children)
        page = journal.facts.since(last, limit=7)
        seen += [fact.record.id for fact in page]
        last = page[-1].seq if page else last
        if not page and not running:
            break
    assert len(seen) == len(set(seen)) == 240
