"""The lineage of a file through a thousand of 100,000 runs, against a recursive query written by hand on the same rows.

The journal holds 100 series of 1,000 runs each; every run takes the file of the run before it and one that all share,
with one code and one user. The query follows relations from source to target and gives the records of what it reaches
and the relations among these, each as JSON text that is then decoded: no rules, no merging, no valid graph. What every
run states anew (code, user) it reads once for each thing. Both have looked up something near before. Peak memory is
that of the process, compared with the same lineage in a journal of 1,000 runs.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from benchmarks.measure import medians, python, report, rounds
from ivcap_flows.identity import digest, file_urn, flows_urn, short_run
from ivcap_flows.journal import Journal
from ivcap_flows.provenance import Record, activity, agent, entity, relation

RUNS = int(os.environ.get("TRACE_RUNS", "100000"))
LENGTH = 1_000
ROUNDS = 5
LIMIT = 3.0
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)

OURS = """
import json, re, sys, time
from ivcap_flows.journal import Journal
from ivcap_flows.reading import lineage

path, direction, start, near = sys.argv[1:]
with Journal.open(f"sqlite:///{path}") as journal:
    lineage(journal, near, direction)
    begin = time.perf_counter()
    found = lineage(journal, start, direction)
    seconds = time.perf_counter() - begin
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1024
print(json.dumps({"count": len(found.graph.nodes), "seconds": seconds, "mib": peak}))
"""

BY_HAND = """
import json, re, sqlite3, sys, time

path, direction, start, near = sys.argv[1:]
here, there = ("source", "target") if direction == "up" else ("target", "source")
query = f'''
WITH RECURSIVE reached(id) AS (
    SELECT ? UNION SELECT f.{there} FROM reached JOIN facts f ON f.{here} = reached.id
)
SELECT (SELECT record FROM facts WHERE record_id = reached.id ORDER BY seq DESC LIMIT 1) FROM reached
UNION ALL
SELECT f.record FROM reached CROSS JOIN facts f WHERE f.source = reached.id AND f.target IN (SELECT id FROM reached)
'''
with sqlite3.connect(path) as database:
    database.execute(query, (near,)).fetchall()
    begin = time.perf_counter()
    records = [json.loads(text) for (text,) in database.execute(query, (start,))]
    seconds = time.perf_counter() - begin
nodes = sum(record["kind"] != "relation" for record in records)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1024
print(json.dumps({"count": nodes, "seconds": seconds, "mib": peak}))
"""


def made_by(series: int, step: int) -> str:
    """The file that a step of a series made."""
    return file_urn(digest(f"{series}:{step}".encode()))


def stated(number: int, count: int) -> Iterator[Record]:
    """What one run states."""
    series, step = number % count, number // count
    at = BEGIN + timedelta(minutes=number)
    run, attempt = flows_urn("run", uuid.UUID(int=number)), flows_urn("attempt", uuid.UUID(int=2**64 + number))
    task = flows_urn("task-run", uuid.UUID(int=2**65 + number))
    code, user = flows_urn("code", "c" * 64), flows_urn("user", "me")
    yield activity(run, "flow-run", at, name="monthly")
    yield activity(attempt, "attempt", at, at, name="monthly", outcome="completed")
    yield relation("wasStartedBy", attempt, run, at)
    yield agent(user, "user", name="me", local=True)
    yield relation("wasAssociatedWith", attempt, user)
    yield entity(code, "code", name="monthly", commit="c" * 40)
    yield relation("hadPlan", attempt, code)
    yield activity(task, "task-run", at, at, name="update", outcome="completed")
    yield relation("wasStartedBy", task, attempt, at)
    for role, urn in (("series", made_by(series, step)), ("mask", file_urn(digest(b"mask")))):
        yield entity(urn, "file", sha256=urn[-64:], size=1000, path=f"/data/{role}.csv")
        yield relation("used", task, urn, at, role=role)
    made = made_by(series, step + 1)
    yield entity(made, "file", sha256=made[-64:], size=1000, path="/data/series.csv")
    yield relation("wasGeneratedBy", made, task, at, role="result")


def fill(path: Path, runs: int) -> None:
    """A journal with so many runs, written as fast as the database takes it."""
    Journal.open(f"sqlite:///{path}").close()
    count = runs // LENGTH

    def rows() -> Iterator[tuple[Any, ...]]:
        for number in range(runs):
            for record in stated(number, count):
                ends = record.id, record.source, record.target
                version = record.attributes.get("sha256") or record.attributes.get("commit")
                yield (
                    str(uuid.UUID(int=number)),
                    number,
                    *ends,
                    record.model_dump_json(exclude_defaults=True),
                    record.type,
                    version,
                )

    run_rows = (
        (id_, short_run(id_), number + 1, number, number)
        for number in range(runs)
        for id_ in [str(uuid.UUID(int=number))]
    )
    with closing(sqlite3.connect(path)) as database:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -200000"):
            database.execute(f"PRAGMA {pragma}")
        # An index that is made at the end costs a fraction of one that is kept.
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'facts' AND sql IS NOT NULL"
        indexes = database.execute(query).fetchall()
        for name, _ in indexes:
            database.execute(f"DROP INDEX {name}")
        database.executemany(
            """INSERT INTO runs (id, short_id, seq, flow_name, entry_point, code, parameters, parameters_sha256,
            deployed, outcome, created_at, updated_at, missing_facts)
            VALUES (?, ?, ?, 'monthly', '', '', '{}', '', 0, 'completed', ?, ?, 0)""",
            run_rows,
        )
        database.executemany(
            """INSERT INTO facts (run_id, recorded_at, record_id, source, target, record, type, version)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
            rows(),
        )
        for _, statement in indexes:
            database.execute(statement)
        database.commit()


def traced(code: str, path: Path, direction: str, found: list[dict[str, Any]]) -> float:
    start, near = (made_by(0, step if direction == "up" else LENGTH - step) for step in (LENGTH, 1))
    found.append(python(code, str(path), direction, start, near))
    return float(found[-1]["seconds"])


def main() -> None:
    middle: dict[str, dict[str, float]] = {}
    counts: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder, "large.sqlite"), Path(folder, "small.sqlite")
        fill(large, RUNS)
        fill(small, LENGTH)
        peaks = {"large": 0.0, "small": 0.0}
        for direction in ("up", "down"):
            ours: list[dict[str, Any]] = []
            theirs: list[dict[str, Any]] = []
            subjects = {
                "ours": lambda direction=direction, ours=ours: traced(OURS, large, direction, ours),
                "by_hand": lambda direction=direction, theirs=theirs: traced(BY_HAND, large, direction, theirs),
            }
            middle[direction] = medians(rounds(subjects, ROUNDS))
            counts[direction] = [ours[0]["count"], theirs[0]["count"]]
            peaks["large"] = max(peaks["large"], *(one["mib"] for one in ours))
            few: list[dict[str, Any]] = []
            traced(OURS, small, direction, few)
            peaks["small"] = max(peaks["small"], few[0]["mib"])
    ratios = {direction: seconds["ours"] / seconds["by_hand"] for direction, seconds in middle.items()}
    report(
        "trace",
        max(ratios.values()),
        limit=LIMIT,
        runs=RUNS,
        ratios={direction: round(ratio, 2) for direction, ratio in ratios.items()},
        seconds=middle,
        things=counts,
        peak_mib={name: round(value, 1) for name, value in peaks.items()},
        memory_ratio=round(peaks["large"] / peaks["small"], 3),
    )


if __name__ == "__main__":
    main()
