"""1,000 model runs over a link with 20 ms of latency, against the official client: until accepted, and to the end.

Each does it in the way that its users have: ours registers the records with `Batch`, as the task and the command do
(checks, journal and keys are in it). The latency is added by the embedded platform to every request.

Until all are accepted: both send one request for each record, the official client one after the other, ours so many at
once as Provena answers in time. Accepted means that the reply to the last record is there; that the jobs come to their
end is waited for by none. The requests are those until then, and a bound on what they are besides the registrations.
Provena has no other runs then.

In a full registry: how many requests a row costs of a file with few new rows, where the user has 20,000 jobs and model
runs already and the work is old, so that their times do not end the look for them earlier (`full_registry`). The
embedded platform has pages of 1,000, while Provena's hold some 125 runs: it takes up to 8 requests more.

End to end: the official client sends the same records in long batches, and looks at their jobs until each record has
its handle; ours sends each row by itself. Here that costs CPU of the one process that serves Provena, which has 1,000
runs lodged in two seconds. A Provena takes a second and more for each, with three workers, so there the ratio is near
1: what counts is the time for each row (`seconds_a_row`), which has to be less than that. Our checks, which the
official client has not, are told apart (`check`).
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.measure import QUIET, medians, peer, python, report, rounds, steered_platform
from benchmarks.upload import journal

RECORDS = 1000
LATENCY = 0.02
ROUNDS = 3
LIMIT = 0.25
"""Here ours has no moment without work: some 12 ms of processor time a row, of which the request takes 5 and the
journal 3, beside those of the server on the same two cores. A Provena takes a second and more for each row, so this
only tells when the package adds to it."""
MOST_SECONDS_A_ROW = 0.05
OURS = (sys.executable, "-m", "benchmarks.registering")
FULL = 20_000
NEW_ROWS = 5
LIMIT_IN_A_FULL_REGISTRY = 40
SPARE = 150
"""Requests besides one for each record and one for each id in them: looks for the rows, and at their jobs."""

MAKE_ITEMS = """
import asyncio, json, sys
from ivcap_flows.blocks import ProvenaCredentials
sys.path.insert(0, "tests/shared")
from registration_rows import make_items

async def make():
    async with ProvenaCredentials.from_environment().get_client() as client:
        return (await make_items(client)).record(0)

print(json.dumps(asyncio.run(make())))
"""


def write_records(path: Path, record: dict[str, Any], count: int) -> None:
    """Records that no other round has."""
    name = uuid.uuid4().hex
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(json.dumps({**record, "display_name": f"{name} {number}"}) + "\n")


def ids_in(value: Any) -> set[str]:
    """The handles of a record."""
    if isinstance(value, dict):
        return set().union(*map(ids_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(ids_in, value))
    return {value} if isinstance(value, str) and value.partition("/")[0].replace(".", "").isdecimal() else set()


def fill(folder: Path) -> None:
    """Give Provena copies of its model run and of the job that lodged it, each made a second before the other."""
    with closing(sqlite3.connect(folder / "provena.sqlite", timeout=30)) as connection, connection:
        for table, column, kind in (
            ("items", "id", "item_subtype = 'MODEL_RUN'"),
            ("jobs", "session_id", "job_sub_type = 'MODEL_RUN_PROV_LODGE'"),
        ):
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            changed = {column: f"n || {column}", "created_timestamp": "created_timestamp - n"}
            values = ", ".join(changed.get(name, name) for name in names)
            connection.execute(
                f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {FULL}) "
                f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} "
                f"FROM (SELECT * FROM {table} WHERE {kind} LIMIT 1), c"
            )


def run(command: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **QUIET, **environment}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)


def registered(
    command: tuple[str, ...], what: str, latency: float = LATENCY, count: int = RECORDS, *, full: bool = False
) -> dict[str, float]:
    """What the last line of a command says that registers new records with a Provena that has none, or is `full`; with
    its requests, and what they may be."""
    with tempfile.TemporaryDirectory() as folder, steered_platform() as (environment, control):
        record = python(MAKE_ITEMS, env=environment)
        path = Path(folder, "records.jsonl")
        if full:
            Path(folder, "first").mkdir()
            write_records(path, record, 1)
            run([*OURS, "whole", str(path)], environment | journal(f"{folder}/first"))
            fill(Path(environment["IVCAP_LOCAL_DIR"]))
        write_records(path, record, count)
        control.forget_requests()
        if latency:
            control.add_fault(delay=latency)
        done = run([*command, what, str(path)], environment | journal(folder))
        said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        if said["count"] != count:
            raise RuntimeError(f"{said['count']} of {count} records were registered.")
        limit = len(ids_in(record)) + count + SPARE
        return {**said, "requests": len(control.requests()), "requests_limit": limit}


def official() -> tuple[str, str]:
    return peer("provenaclient"), "benchmarks/official_registering.py"


def until_accepted() -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {"ours": [], "official_client": []}

    def measure(name: str, command: tuple[str, ...], what: str) -> float:
        found[name].append(registered(command, what))
        return found[name][-1]["seconds"]

    taken = rounds(
        {
            "ours": lambda: measure("ours", OURS, "accepted"),
            "official_client": lambda: measure("official_client", official(), "singly"),
        },
        ROUNDS,
    )
    return {
        "seconds": medians(taken),
        "requests": {name: max(int(each["requests"]) for each in all_) for name, all_ in found.items()},
        "requests_limit": min(int(each["requests_limit"]) for each in found["ours"]),
    }


def to_the_end() -> dict[str, Any]:
    checks: list[float] = []

    def ours() -> float:
        found = registered(OURS, "whole")
        checks.append(found["check"])
        return found["register"]

    theirs = lambda: registered(official(), "batches")["seconds"]  # noqa: E731
    taken = rounds({"ours": ours, "official_client": theirs}, ROUNDS)
    seconds = medians(taken)
    a_row = seconds["ours"] / RECORDS
    if a_row > MOST_SECONDS_A_ROW:
        raise SystemExit(f"{a_row:.3f} s a row are more than {MOST_SECONDS_A_ROW}.")
    return {
        "ratio": round(seconds["ours"] / seconds["official_client"], 3),
        "seconds_a_row": round(a_row, 4),
        "limit": MOST_SECONDS_A_ROW,
        "seconds": {**seconds, "check": medians({"check": checks})["check"]},
        "rounds": {name: [round(each, 2) for each in values] for name, values in taken.items()},
    }


def in_a_full_registry() -> dict[str, Any]:
    """Raise an error above the limit."""
    requests = int(registered(OURS, "whole", count=NEW_ROWS, full=True)["requests"])
    if requests > LIMIT_IN_A_FULL_REGISTRY:
        raise SystemExit(f"{requests} requests for {NEW_ROWS} rows are more than {LIMIT_IN_A_FULL_REGISTRY}.")
    said = {"runs": FULL, "rows": NEW_ROWS, "requests": requests, "limit": LIMIT_IN_A_FULL_REGISTRY}
    return {**said, "requests_a_row": requests / NEW_ROWS}


def main() -> None:
    full_registry = in_a_full_registry()
    accepted = until_accepted()
    report(
        "registration",
        accepted["seconds"]["ours"] / accepted["seconds"]["official_client"],
        limit=LIMIT,
        **accepted,
        records=RECORDS,
        latency_ms=1000 * LATENCY,
        full_registry=full_registry,
        end_to_end=to_the_end(),
    )


if __name__ == "__main__":
    main()
