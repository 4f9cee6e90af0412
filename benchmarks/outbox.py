"""Facts into the journal, from records to rows on disk, against sqlite3's own `executemany` of the same rows.

The peer writes rows that were made before, into a database with the same tables, indexes and settings (WAL,
`synchronous = FULL`), as many in a transaction. Ours begins with records: it makes the rows, too. Then the outbox: a
journal of 100,000 facts in 1,000 runs is drained into a sink that only counts, in a process whose memory is watched;
what it needs for ten times the facts is a figure of its own.
"""

import tempfile

from benchmarks.measure import medians, python, report

FACTS = 20_000
BATCH = 2_000
ROUNDS = 5
LIMIT = 0.5
"""At least so many of the facts a second that the peer writes."""
FLAT = 1.25
"""Ten times the facts may need so much more memory at the most."""

MADE = """
import sys
from datetime import datetime, timezone
from ivcap_flows.journal import Fact, Journal, RunIdentity
from ivcap_flows.provenance import activity, entity, relation

NOON = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)

def records(run, number):
    task = f"urn:ivcap-flows:task-run:{run}-{number}"
    artifact = f"urn:ivcap:artifact:{run}-{number}"
    yield activity(task, "task-run", NOON, NOON, name="step", outcome="completed", parameters={"n": number})
    yield entity(artifact, "artifact", NOON, name="a.csv", media_type="text/csv", size=number, sha256=f"{number:064x}")
    yield relation("used", task, artifact, NOON, role="series")
    yield relation("wasStartedBy", task, f"urn:ivcap-flows:attempt:{run}", NOON)

def a_run(journal, name, count):
    opened = journal.runs.open_attempt(RunIdentity("flow", "a.py:f", {"name": name}, name, name))
    facts = [Fact(r, name, opened.attempt.id) for n in range(count // 4) for r in records(name, n)]
    return opened, facts
"""

WRITTEN = (
    MADE
    + """
import json, time, sqlite3
folder, count, batch, rounds = sys.argv[1], *map(int, sys.argv[2:])
taken = {"ours": [], "executemany": []}

def ours(place):
    with Journal.open(f"sqlite:///{place}") as journal:
        opened, facts = a_run(journal, "run", count)
        begin = time.perf_counter()
        for start in range(0, count, batch):
            journal.facts.append(facts[start:start + batch])
        taken["ours"].append(time.perf_counter() - begin)

def peer(place, source):
    with Journal.open(f"sqlite:///{place}") as journal:
        a_run(journal, "run", 0)
    rows = sqlite3.connect(source).execute("SELECT * FROM facts").fetchall()
    connection = sqlite3.connect(place, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # The rows name an attempt of the other journal.
    connection.execute("PRAGMA foreign_keys = OFF")
    statement = f"INSERT INTO facts VALUES ({', '.join('?' * len(rows[0]))})"
    begin = time.perf_counter()
    for start in range(0, count, batch):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(statement, rows[start:start + batch])
        connection.execute("COMMIT")
    taken["executemany"].append(time.perf_counter() - begin)
    connection.close()

for number in range(rounds + 1):
    ours(f"{folder}/ours-{number}.sqlite")
    peer(f"{folder}/peer-{number}.sqlite", f"{folder}/ours-{number}.sqlite")
print(json.dumps({name: seconds[1:] for name, seconds in taken.items()}))
"""
)

DRAINED = (
    MADE
    + """
import json, resource, time
from ivcap_flows.sinks import Delivery, drain
url, runs, each = sys.argv[1], *map(int, sys.argv[2:])

class Counting:
    name, got = "counting", 0
    async def deliver(self, run, graph):
        Counting.got += len(graph)
        return Delivery("delivered")

with Journal.open(url) as journal:
    for number in range(runs):
        opened, facts = a_run(journal, f"run-{number}", each)
        journal.facts.append(facts)
        journal.runs.close_attempt(opened.attempt.id, "completed")
    begin = time.perf_counter()
    assert drain(journal, [Counting()])[0].delivered == runs
    drained = time.perf_counter() - begin
    begin = time.perf_counter()
    drain(journal, [Counting()])
    nothing = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"drained": drained, "nothing_new": nothing, "peak_mib": peak}))
"""
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        seconds = medians(python(WRITTEN, folder, str(FACTS), str(BATCH), str(ROUNDS)))
        drained = {
            runs: python(DRAINED, f"sqlite:///{folder}/drained-{runs}.sqlite", str(runs), "100") for runs in (100, 1000)
        }
    growth = drained[1000]["peak_mib"] / drained[100]["peak_mib"]
    report(
        "outbox",
        seconds["executemany"] / seconds["ours"],
        better="higher",
        limit=LIMIT,
        facts_per_second={name: round(FACTS / taken) for name, taken in seconds.items()},
        peak_mib={f"{100 * runs} facts": round(told["peak_mib"], 1) for runs, told in drained.items()},
        memory_growth=round(growth, 3),
        memory_growth_limit=FLAT,
        drained_facts_per_second=round(100_000 / drained[1000]["drained"]),
        seconds_when_nothing_is_new=round(drained[1000]["nothing_new"], 4),
    )


if __name__ == "__main__":
    main()
