"""Facts are appended all or none, and a reader by pages misses none."""

from __future__ import annotations

import os

import pytest

from ivcap_flows.errors import JournalError
from ivcap_flows.journal import Fact, Journal
from ivcap_flows.provenance import activity, entity, relation


def test_facts_come_back_as_they_were(journal, begin):
    """Every field of a record survives, any text included; bytes of file names that are not UTF-8 are made readable."""
    run_id, now = begin().run.id, journal.now()
    name = os.fsdecode("/data/Niño-".encode() + b"\xff.csv")
    records = [
        activity("a", "order", now, now, status="ok", text='Niño "\u0000"', nested={"x": [1, None]}),
        entity("e", "file", size=2**60),
        relation("used", "a", "e"),
        activity("b", "call", now, nested={name: [name, 1, None], "n": 2**60}),
        entity(name, "file", path=name),
        relation("used", "b", name),
    ]
    journal.facts.append([Fact(record, run_id) for record in records])
    facts = journal.facts.of_run(run_id)
    assert [fact.record for fact in facts[:3]] == records[:3]
    assert [fact.seq for fact in facts] == sorted({fact.seq for fact in facts}) and all(
        each.recorded_at for each in facts
    )
    assert (journal.facts.last_seq(run_id), journal.facts.last_seq("none")) == (facts[-1].seq, 0)
    shown = "/data/Niño-\\udcff.csv"
    call, file, used = (fact.record for fact in facts[3:])
    assert (call.time, call.attributes) == (now, {"nested": {shown: [shown, 1, None], "n": 2**60}})
    assert (file.id, file.attributes, used.target) == (shown, {"path": shown}, shown)
    assert len(journal.facts.about(shown)) == 2


def test_facts_are_read_in_pages(journal, begin):
    """Pages by number follow each other without a gap, for one run and for all."""
    first, second = (begin(name).run.id for name in "12")
    for n in range(5):
        journal.facts.append([Fact(entity(f"{run_id}-{n}", "file"), run_id) for run_id in (first, second)])
    page = journal.facts.of_run(first, limit=3)
    rest = journal.facts.of_run(first, after=page[-1].seq, limit=3)
    assert [fact.record.id for fact in page + rest] == [f"{first}-{n}" for n in range(5)]
    assert [len(journal.facts.since(after)) for after in (0, page[-1].seq)] == [10, 5]


def test_a_thing_is_found_in_every_run(journal, begin):
    """The facts about it, its own record and its relations."""
    for name in ("1", "2"):
        run_id = begin(name).run.id
        records = [entity("urn:x", "artifact"), relation("used", f"a{name}", "urn:x"), relation("used", "a", "urn:y")]
        journal.facts.append([Fact(record, run_id) for record in records])
    assert [fact.record.type for fact in journal.facts.about("urn:x")] == ["artifact", "used"] * 2
    assert len(journal.facts.about("a1")) == 1


def test_append_is_all_or_none(journal, begin):
    run_id = begin().run.id
    with pytest.raises(JournalError):
        journal.facts.append([Fact(entity("good", "file"), run_id), Fact(entity("bad", "file"), "no such run")])
    assert journal.facts.of_run(run_id) == []


def test_reader_by_number_passes_no_writer_by(journal_url, journal, begin, child):
    """While three processes append, a reader by pages sees each fact once."""
    run_id, seen, last = begin().run.id, [], 0

    def append():
        with Journal.open(journal_url) as other:
            for n in range(8):
                other.facts.append([Fact(entity(f"{os.getpid()}-{n}-{part}", "file"), run_id) for part in range(3)])
            yield "done"

    writers = [child(append) for _ in range(3)]
    while True:
        running = not all(writer.has_said() for writer in writers)
        page = journal.facts.since(last, limit=7)
        seen += [fact.record.id for fact in page]
        last = page[-1].seq if page else last
        if not page and not running:
            break
    assert len(seen) == len(set(seen)) == 72
