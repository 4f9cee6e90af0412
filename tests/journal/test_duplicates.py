"""Further effects under one key: no note of one is lost, whatever other processes note at the same time."""

from __future__ import annotations

import threading
from dataclasses import replace

from ivcap_flows.journal import IntentRow, Journal, NewIntent

WANTED = NewIntent("k1:a", "k1:a", "order", "https://x", "urn:acc", "account", {"n": 1}, subject="service")


def sent(journal: Journal) -> IntentRow:
    return journal.intents.mark_sent(journal.intents.claim(WANTED).intent)


def noted(journal: Journal) -> list[str]:
    row = journal.intents.get(WANTED.key)
    assert row is not None
    return row.duplicates


def test_two_that_note_at_once_lose_none(journal: Journal, journal_url: str) -> None:
    """Two connections that note duplicates at the same time do not overwrite each other."""
    journal.intents.settle(sent(journal), urn="urn:kept", outcome={}, how="sent")
    others = [Journal.open(journal_url) for _ in range(4)]
    begin = threading.Barrier(4)

    def note(number: int) -> None:
        begin.wait()
        for count in range(10):
            others[number].intents.note_duplicates(WANTED.key, ["urn:kept", f"urn:{number}:{count}"])

    threads = [threading.Thread(target=note, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in others:
        other.close()
    assert sorted(noted(journal)) == sorted(f"urn:{number}:{count}" for number in range(4) for count in range(10))


def test_an_outcome_keeps_what_was_noted_before(journal: Journal, journal_url: str) -> None:
    """An outcome that is written from an old copy of the row keeps the duplicates noted since, each once."""
    held = sent(journal)
    with Journal.open(journal_url) as other:
        other.intents.note_duplicates(WANTED.key, ["urn:1", "urn:2"])
    stale = replace(held, duplicates=[])
    journal.intents.settle(stale, urn="urn:kept", outcome={}, how="adopted", duplicates=["urn:2", "urn:3", "urn:kept"])
    assert noted(journal) == ["urn:1", "urn:2", "urn:3"]


def test_an_outcome_without_more_keeps_them_too(journal: Journal) -> None:
    """An outcome without duplicates of its own, the usual case, keeps those that were noted."""
    held = sent(journal)
    journal.intents.note_duplicates(WANTED.key, ["urn:1"])
    journal.intents.settle(held, urn="urn:kept", outcome={}, how="sent")
    assert noted(journal) == ["urn:1"]
