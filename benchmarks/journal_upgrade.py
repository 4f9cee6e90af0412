"""An upgrade of a journal of 10,000 runs whose largest tables change, beside `ivcap-flows journal move` of the same.

The rows are those of `benchmarks.journal_size`. The upgrade is made up: two tables get another column and lose a
condition, so SQLite copies the file and then both tables. The ratio is that of the upgrade on SQLite to the move from
there to PostgreSQL. Each is a new process.

    python -m benchmarks.journal_upgrade [--runs 10000]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.journal_move import MOVED
from benchmarks.journal_size import BEGIN, FACTS, SINK, OnSqlite, Rows
from benchmarks.measure import postgresql, python, report
from ivcap_flows.journal import Journal

UPGRADED = """
import json, re, sys, time
import sqlalchemy as sa
from ivcap_flows.journal import Journal, revisions


def change(op):
    for name, column in (("facts", "record_id"), ("runs", "code")):
        with revisions.altered(op, name) as table:
            table.add_column(sa.Column("added", sa.Text, nullable=False, server_default=sa.text("'0'")))
            table.alter_column(column, existing_type=sa.Text, nullable=True)


revisions.REVISIONS.append(revisions.Revision(2, "0.2.0", False, change))
begin = time.perf_counter()
Journal.open(sys.argv[1]).close()
seconds = time.perf_counter() - begin
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1024
print(json.dumps({"seconds": seconds, "mib": peak}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal_upgrade")
    parser.add_argument("--runs", type=int, default=10_000, help="runs in the journal")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder, postgresql("upgraded") as [server]:
        first, second = (f"sqlite:///{Path(folder, name)}.sqlite" for name in ("moved", "upgraded"))
        for url in (first, second):
            Journal.open(url).close()
            OnSqlite(url).fill(Rows(range(runs), SINK, BEGIN, delivered=True))
        moved = python(MOVED, first, server)
        upgraded = {"SQLite": python(UPGRADED, second), "PostgreSQL": python(UPGRADED, server)}
    report(
        "journal_upgrade",
        upgraded["SQLite"]["seconds"] / moved["seconds"],
        runs=runs,
        facts=runs * FACTS,
        seconds={name: each["seconds"] for name, each in upgraded.items()} | {"move": moved["seconds"]},
        peak_mib={name: each["mib"] for name, each in upgraded.items()} | {"move": moved["mib"]},
    )


if __name__ == "__main__":
    main()
