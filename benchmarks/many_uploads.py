"""64 files of 1 MiB over links with 100 and 20 ms of latency, against the official client.

Each does it in the way that its users have: ours awaits the tasks together (`asyncio.gather` of `aupload_artifact`
outside of a flow, so that Prefect's own cost is not in it, though journal and idempotency records are), the official
client has only a call that blocks, one file after another. The latency is added by the embedded platform to every
request. Each uploads one file more before the time begins, since the first upload of a process imports what uploads
need and the first of a journal makes its tables. No round sends what an earlier one has sent. The ratio is that of
100 ms; with 20 ms, ours is bound by the processor time that httpx takes for each request.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import QUIET, medians, peer, report, rounds, steered_platform
from benchmarks.upload import MIB, journal

FILES = 64
LATENCIES = (0.1, 0.02)
ROUNDS = 3
LIMIT = 0.25

OURS = """
import asyncio, sys, time
from pathlib import Path
from ivcap_flows.capture import journal
from ivcap_flows.tasks import aupload_artifact

async def upload(paths):
    return await asyncio.gather(*(aupload_artifact.fn(path) for path in paths))

async def main(first, *paths):
    journal()
    artifacts = await upload([first])
    begin = time.perf_counter()
    artifacts += await upload(paths)
    print(time.perf_counter() - begin, len({artifact.urn for artifact in artifacts}))

asyncio.run(main(*sorted(Path(sys.argv[1]).glob("*.bin"))))
"""

THEIRS = """
import os, sys, time
from pathlib import Path
from ivcap_client import IVCAP

iv = IVCAP(url=os.environ["IVCAP_URL"], token=os.environ["IVCAP_JWT"])

def upload(paths):
    return [iv.upload_artifact(name=path.name, file_path=str(path), force_upload=True) for path in paths]

first, *paths = sorted(Path(sys.argv[1]).glob("*.bin"))
artifacts = upload([first])
begin = time.perf_counter()
artifacts += upload(paths)
print(time.perf_counter() - begin, len({artifact.id for artifact in artifacts}))
"""


def make_files(folder: Path) -> None:
    for number in range(FILES + 1):
        (folder / f"{number}.bin").write_bytes(os.urandom(MIB))
    # A file of just now may change again without its time telling, so its digest would not be kept.
    time.sleep(0.1)


def seconds(python: str, code: str, environment: dict[str, str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder))
        done = subprocess.run(
            [python, "-c", code, folder],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **QUIET, **environment, **journal(folder)},
        )
    taken, made = done.stdout.splitlines()[-1].split()
    if int(made) != FILES + 1:
        raise RuntimeError(f"There are {made} artifacts of {FILES + 1} files.")
    return float(taken)


def main() -> None:
    ratios, middles = [], []
    asked: dict[str, int] = {}
    with steered_platform() as (environment, control):

        def measured(name: str, python: str, code: str) -> float:
            control.forget_requests()
            taken = seconds(python, code, environment)
            asked[name] = len(control.requests())
            return taken

        for latency in LATENCIES:
            control.clear_faults()
            control.add_fault(delay=latency)
            taken = rounds(
                {
                    "ours": lambda: measured("ours", sys.executable, OURS),
                    "official_client": lambda: measured("official_client", peer("ivcap-client"), THEIRS),
                },
                ROUNDS,
            )
            middles.append(medians(taken))
            ratios.append(middles[-1]["ours"] / middles[-1]["official_client"])
    report(
        "many_uploads",
        ratios[0],
        limit=LIMIT,
        seconds=middles[0],
        files=FILES,
        latency_ms=1000 * LATENCIES[0],
        ratio_with_20_ms=round(ratios[1], 3),
        requests_per_file={name: round(count / (FILES + 1), 2) for name, count in asked.items()},
    )


if __name__ == "__main__":
    main()
