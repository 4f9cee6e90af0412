"""Commands on a journal of 100,000 runs and a million facts and more, against the same on a tenth of it.

Each run has what a recorded run with one task and one order has: an attempt, an intent, two deliveries and 19 facts.
Ten runs each make a series: a run reads the file of the one before. `runs` lists the newest 20, `show` finds one by the
end of its id, `trace` follows a file through the ten runs of its series, `sync` delivers 20 new runs as PROV-JSON,
`prune` deletes 20 that are ten years old. The same work is found in both journals; only what lies around it differs.

A round is a new process. It runs the command on a third, small journal first, so that the figures have no import in
them: they would hide what grows. The rows are written past the journal's own code, as fast as the database takes them.

    python -m benchmarks.journal_size [--runs 100000] [--postgresql]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sqlite3
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from benchmarks.measure import medians, postgresql, python, report, rounds
from ivcap_flows.identity import digest, file_urn, flows_urn, short_run
from ivcap_flows.journal import Journal
from ivcap_flows.provenance import Record, activity, agent, entity, relation

ROUNDS = 5
LIMIT = 2.0
LENGTH = 10
NEW = 20
NEAR = 100
"""Runs of the journal on which each command runs first."""
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
LONG_AGO = datetime(2015, 1, 1, tzinfo=timezone.utc)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
SINK = "prov-json"

TIMED = """
import contextlib, io, json, os, re, sys, time
from ivcap_flows.cli.app import app

near, near_command, url, command = (json.loads(each) for each in sys.argv[1:])

def seconds(url, command):
    os.environ["IVCAP_FLOWS_JOURNAL"] = url
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = app(command, exit_on_error=False, print_error=False, result_action="return_value")
    assert not status, printed.getvalue()
    return time.perf_counter() - begin, printed.getvalue()

seconds(near, near_command)
taken, printed = seconds(url, command)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1024
print(json.dumps({"seconds": taken, "mib": peak, "printed": printed}))
"""


def run_id(number: int) -> str:
    return str(uuid.UUID(bytes=hashlib.blake2b(f"run {number}".encode(), digest_size=16).digest()))


def attempt_id(number: int) -> str:
    return str(uuid.UUID(bytes=hashlib.blake2b(f"attempt {number}".encode(), digest_size=16).digest()))


def made_by(series: int, step: int) -> str:
    """The file that a step of a series made."""
    return file_urn(digest(f"{series}:{step}".encode()))


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def stated(number: int, at: datetime) -> Iterator[Record]:
    """What one run states."""
    series, step = divmod(number, LENGTH)
    run, attempt = flows_urn("run", run_id(number)), flows_urn("attempt", attempt_id(number))
    task, order = flows_urn("task-run", attempt_id(number)), f"urn:ivcap:order:{run_id(number)}"
    code, user, software = flows_urn("code", "c" * 64), flows_urn("user", "me"), flows_urn("software", "ivcap-flows:1")
    yield activity(run, "flow-run", at, name="monthly", deployed=True)
    yield activity(attempt, "attempt", at, name="monthly", number=1, outcome="running", host="here")
    yield relation("wasStartedBy", attempt, run, at)
    yield agent(software, "software", name="ivcap-flows", version="1")
    yield relation("wasAssociatedWith", attempt, software)
    yield agent(user, "user", name="me", local=True)
    yield relation("wasAssociatedWith", attempt, user)
    yield relation("actedOnBehalfOf", software, user)
    yield entity(code, "code", name="monthly", commit="c" * 40)
    yield relation("hadPlan", attempt, code)
    yield activity(task, "task-run", at, at, name="update", outcome="completed")
    yield relation("wasStartedBy", task, attempt, at)
    taken, made = made_by(series, step), made_by(series, step + 1)
    yield entity(taken, "file", sha256=taken[-64:], size=1000, path="/data/series.csv")
    yield relation("used", task, taken, at, role="series")
    yield entity(made, "file", sha256=made[-64:], size=1000, path="/data/series.csv")
    yield relation("wasGeneratedBy", made, task, at, role="result")
    yield activity(order, "order", at, at, name=f"order {number}", service_name="index", status="succeeded")
    yield relation("wasStartedBy", order, task, at)
    yield activity(attempt, "attempt", at, at, name="monthly", outcome="completed")


FACTS = len(list(stated(0, BEGIN)))


class Rows:
    """The rows of the runs with these numbers, one method for each table. Numbers begin at 0 and leave none out."""

    def __init__(self, numbers: range, sink: str, begin: datetime, *, delivered: bool) -> None:
        self.numbers, self.sink, self.begin, self._delivered = numbers, sink, begin, delivered

    def at(self, number: int) -> datetime:
        return self.begin + timedelta(seconds=number)

    def runs(self) -> Iterator[dict[str, Any]]:
        for number in self.numbers:
            at = micros(self.at(number))
            names = {"flow_name": f"monthly-{number % 20}", "entry_point": "flows.py:monthly", "code": "flows.py"}
            times = {"created_at": at, "updated_at": at}
            how = {"deployed": True, "outcome": "completed", "missing_facts": 0}
            parameters = {"parameters": '{"month":1}', "parameters_sha256": "0" * 64}
            ids = {"id": run_id(number), "short_id": short_run(run_id(number)), "seq": number + 1}
            yield {**ids, **names, **parameters, **how, **times}

    def attempts(self) -> Iterator[dict[str, Any]]:
        for number in self.numbers:
            at, id_ = micros(self.at(number)), run_id(number)
            flow_run = {"flow_run_id": id_, "flow_run_name": f"swift-owl-{number}", "root_flow_run_id": id_}
            names = {"flow_name": f"monthly-{number % 20}", "entry_point": "flows.py:monthly", **flow_run}
            how = {"number": 1, "leads": True, "process_id": "p", "outcome": "completed", "newest_at_end": 1}
            times = {"started_at": at, "ended_at": at}
            yield {"id": attempt_id(number), "seq": number + 1, "run_id": id_, **names, **how, **times}

    def intents(self) -> Iterator[dict[str, Any]]:
        for number in self.numbers:
            at, id_ = micros(self.at(number)), run_id(number)
            key = f"k1:{digest(id_.encode())}"
            whose = {"platform": "p", "account": "a", "scope": f"run:{id_}", "run_id": id_}
            how = {"state": "done", "fence": 1, "spends": True, "sent_again": False, "lingering": False}
            what = {"noun": "order", "request": "{}", "duplicates": "[]", "urn": f"urn:ivcap:order:{id_}"}
            times = {"created_at": at, "updated_at": at, "sent_at": at}
            counts = {"generation": 0, "asked_attempt": 1, "attempt_id": attempt_id(number)}
            yield {"key": key, "base_key": key, **whose, **how, **what, **times, **counts}

    def facts(self) -> Iterator[dict[str, Any]]:
        for number in self.numbers:
            at, run, attempt = self.at(number), run_id(number), attempt_id(number)
            for place, record in enumerate(stated(number, at), number * FACTS + 1):
                ends = {"record_id": record.id, "source": record.source, "target": record.target, "type": record.type}
                version = record.attributes.get("sha256") or record.attributes.get("commit")
                text = record.model_dump_json(exclude_defaults=True)
                whose = {"seq": place, "run_id": run, "attempt_id": attempt, "recorded_at": micros(at)}
                yield {**whose, **ends, "record": text, "version": version}

    def deliveries(self) -> Iterator[dict[str, Any]]:
        for number in self.numbers if self._delivered else ():
            for sink in (self.sink, "ivcap:p"):
                key = f"{run_id(number)}@{(number + 1) * FACTS}"
                how = {"state": "delivered", "tries": 1, "updated_at": micros(self.at(number))}
                yield {"sink": sink, "key": key, "run_id": run_id(number), **how}


TABLES = ("runs", "attempts", "intents", "facts", "deliveries")
PROCESS = {"id": "p", "host": "gone", "pid": 1, "heartbeat_at": 0}


class OnSqlite:
    """A journal in a file."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._path = url.removeprefix("sqlite:///")

    def write(self, rows: Rows) -> None:
        with closing(sqlite3.connect(self._path)) as database:
            with database:
                for table in TABLES:
                    self._insert(database, table, getattr(rows, table)())
            # What follows would else begin with a long write-ahead log.
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def fill(self, rows: Rows) -> None:
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        with closing(sqlite3.connect(self._path)) as database:
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -200000"):
                database.execute(f"PRAGMA {pragma}")
            # An index that is made at the end costs a fraction of one that is kept.
            indexes = database.execute(query).fetchall()
            for name, _ in indexes:
                database.execute(f"DROP INDEX {name}")
            self._insert(database, "processes", iter([PROCESS]))
            for table in TABLES:
                self._insert(database, table, getattr(rows, table)())
            for _, statement in indexes:
                database.execute(statement)
            seq = len(rows.numbers) * FACTS
            self._insert(database, "cursors", iter([{"sink": rows.sink, "seq": seq, "behind": "[]"}]))
            database.commit()
            database.execute("PRAGMA journal_mode = WAL")

    @staticmethod
    def _insert(database: sqlite3.Connection, table: str, rows: Iterator[dict[str, Any]]) -> None:
        first = next(rows, None)
        if first is None:
            return
        statement = f"INSERT INTO {table} ({', '.join(first)}) VALUES ({', '.join('?' * len(first))})"
        database.execute(statement, tuple(first.values()))
        database.executemany(statement, (tuple(row.values()) for row in rows))


class OnPostgresql:
    """A journal in a database of a server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def fill(self, rows: Rows) -> None:
        import psycopg

        seq = len(rows.numbers) * FACTS
        with psycopg.connect(self.url) as database:
            self._copy(database, "processes", iter([PROCESS]))
            self._copy(database, "cursors", iter([{"sink": rows.sink, "seq": seq, "behind": "[]"}]))
        self.write(rows)
        with psycopg.connect(self.url, autocommit=True) as database:
            database.execute("VACUUM ANALYZE")

    def write(self, rows: Rows) -> None:
        import psycopg

        with psycopg.connect(self.url) as database:
            for table in TABLES:
                self._copy(database, table, getattr(rows, table)())
            for table in ("runs", "attempts", "facts"):
                counter = f"pg_get_serial_sequence('{table}', 'seq')"
                database.execute(f"SELECT setval({counter}, (SELECT max(seq) FROM {table}))")

    @staticmethod
    def _copy(database: Any, table: str, rows: Iterator[dict[str, Any]]) -> None:
        first = next(rows, None)
        if first is None:
            return
        with database.cursor().copy(f"COPY {table} ({', '.join(first)}) FROM STDIN") as copy:
            copy.write_row(tuple(first.values()))
            for row in rows:
                copy.write_row(tuple(row.values()))


class Measured:
    """A journal that grows by what the commands need anew."""

    def __init__(self, place: OnSqlite | OnPostgresql, folder: Path, count: int) -> None:
        self.place, self.sink, self.count = place, f"{SINK}:{folder}", count
        self.base = count
        Journal.open(place.url).close()
        place.fill(Rows(range(count), self.sink, BEGIN, delivered=True))

    def add(self, *, old: bool) -> None:
        """Write runs that `sync` delivers, or that `prune` deletes."""
        numbers = range(self.count, self.count + NEW)
        begin = LONG_AGO - timedelta(seconds=self.count) if old else BEGIN
        self.place.write(Rows(numbers, self.sink, begin, delivered=old))
        self.count += NEW

    def command(self, name: str) -> list[str]:
        middle = self.base // 2 // LENGTH
        return {
            "runs": ["runs"],
            "show": ["show", short_run(run_id(middle * LENGTH))],
            "trace": ["trace", made_by(middle, LENGTH)],
            "sync": ["sync"],
            "prune": ["runs", "prune", "--older-than-days", "3650"],
        }[name]


@contextmanager
def places(folder: Path, names: Sequence[str], *, on_server: bool) -> Iterator[list[OnSqlite | OnPostgresql]]:
    """A place for each journal."""
    if not on_server:
        yield [OnSqlite(f"sqlite:///{folder}/{name}.sqlite") for name in names]
        return
    with postgresql(*names) as urls:
        yield [OnPostgresql(url) for url in urls]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal_size")
    parser.add_argument("--runs", type=int, default=100_000, help="runs in the larger journal")
    parser.add_argument("--postgresql", action="store_true", help="measure journals on PostgreSQL")
    chosen = parser.parse_args()
    sizes = {"near": NEAR, "tenth": chosen.runs // 10, "whole": chosen.runs}
    found: dict[str, dict[str, list[float]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        places(Path(folder), list(sizes), on_server=chosen.postgresql) as where,
    ):
        delivered = Path(folder, "delivered")
        journals = {}
        for place, (name, count) in zip(where, sizes.items(), strict=True):
            journals[name] = Measured(place, delivered, count)
            print(f"{name}: {count} runs, {count * FACTS} facts", file=sys.stderr)
        env = {"IVCAP_FLOWS_SINKS": f"{SINK}:{delivered}", "PREFECT_API_URL": "", "PREFECT_HOME": f"{folder}/prefect"}

        def timed(command: str, name: str) -> float:
            near, journal = journals["near"], journals[name]
            for one in (near, journal) if command in ("sync", "prune") else ():
                one.add(old=command == "prune")
            arguments = (near.place.url, near.command(command), journal.place.url, journal.command(command))
            told = python(TIMED, *map(json.dumps, arguments), env=env)
            found.setdefault(command, {}).setdefault(name, []).append(told["mib"])
            if command in ("sync", "prune") and f" {NEW} " not in f" {told['printed']}":
                raise RuntimeError(f"{command} did not find its {NEW} runs: {told['printed']}")
            return float(told["seconds"])

        middle: dict[str, dict[str, float]] = {}
        for command in ("runs", "show", "trace", "sync", "prune"):
            subjects: dict[str, Callable[[], float]] = {
                name: lambda command=command, name=name: timed(command, name)  # type: ignore[misc]
                for name in ("tenth", "whole")
            }
            print(command, file=sys.stderr)
            middle[command] = medians(rounds(subjects, ROUNDS))
    ratios = {command: seconds["whole"] / seconds["tenth"] for command, seconds in middle.items()}
    report(
        "journal_size",
        max(ratios.values()),
        limit=LIMIT,
        database="postgresql" if chosen.postgresql else "sqlite",
        runs=chosen.runs,
        facts=chosen.runs * FACTS,
        ratios={command: round(ratio, 2) for command, ratio in ratios.items()},
        seconds=middle,
        peak_mib={command: medians(mib) for command, mib in found.items()},
    )


if __name__ == "__main__":
    main()
