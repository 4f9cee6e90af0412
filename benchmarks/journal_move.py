"""`ivcap-flows journal move` of a journal of 10,000 runs: from SQLite to PostgreSQL, and from there to another file.

The rows are those of `benchmarks.journal_size`. The ratio is that of the slower way to the same with a tenth of the
runs, ten times; above 1, a move takes longer than its rows account for. A round is a new process with each command.

    python -m benchmarks.journal_move [--runs 10000]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.journal_size import BEGIN, FACTS, SINK, OnSqlite, Rows
from benchmarks.measure import postgresql, python, report
from ivcap_flows.journal import Journal

MOVED = """
import json, re, sys, time
from ivcap_flows.journal.moves import move

begin = time.perf_counter()
moved = move(*sys.argv[1:])
seconds = time.perf_counter() - begin
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1024
print(json.dumps({"seconds": seconds, "mib": peak, "rows": sum(moved.rows.values())}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal_move")
    parser.add_argument("--runs", type=int, default=10_000, help="runs in the larger journal")
    sizes = {"tenth": parser.parse_args().runs // 10, "whole": parser.parse_args().runs}
    seconds: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, postgresql(*sizes) as servers:
        for (name, runs), server in zip(sizes.items(), servers, strict=True):
            first, last = (f"sqlite:///{Path(folder, name)}-{end}.sqlite" for end in ("first", "last"))
            Journal.open(first).close()
            OnSqlite(first).fill(Rows(range(runs), SINK, BEGIN, delivered=True))
            there, back = python(MOVED, first, server), python(MOVED, server, last)
            seconds[name] = {"to PostgreSQL": there["seconds"], "to SQLite": back["seconds"]}
    report(
        "journal_move",
        max(seconds["whole"][way] / 10 / seconds["tenth"][way] for way in seconds["whole"]),
        runs=sizes["whole"],
        facts=sizes["whole"] * FACTS,
        rows=back["rows"],
        seconds=seconds,
        peak_mib={"to PostgreSQL": there["mib"], "to SQLite": back["mib"]},
    )


if __name__ == "__main__":
    main()
