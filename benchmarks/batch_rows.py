"""20,000 model runs from one file, registered to the end, against 1,000: peak memory, and processor time a row.

The rows go as the task and the command register them, to an embedded platform without latency, each size in a process
of its own. The ratio is that of the memory, which is to be flat: 200 rows are under way at once. 20,000 rows take some
five minutes.

    python -m benchmarks.batch_rows [--rows 20000]
"""

from __future__ import annotations

import argparse

from benchmarks.measure import report
from benchmarks.registration import OURS, registered

FEW = 1_000
ROWS = 20_000
LIMIT = 1.25


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch_rows")
    parser.add_argument("--rows", type=int, default=ROWS)
    rows = parser.parse_args().rows
    few, many = (registered(OURS, "whole", 0, count) for count in (FEW, rows))
    found = {str(FEW): few, str(rows): many}
    report(
        "batch_rows",
        many["peak_mib"] / few["peak_mib"],
        limit=LIMIT,
        peak_mib={count: round(each["peak_mib"], 1) for count, each in found.items()},
        seconds={count: round(each["seconds"], 1) for count, each in found.items()},
        cpu_ms_per_row={count: round(1000 * each["cpu"] / int(count), 2) for count, each in found.items()},
    )


if __name__ == "__main__":
    main()
