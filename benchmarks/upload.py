"""An upload of 1 GiB against `sha256sum` followed by `curl`, on the same embedded platform.

The peer creates the record with one curl and sends all bytes with another, as a careful user would by hand. Peak memory
is that of the whole process above an interpreter that has imported Prefect. The official client is the second peer.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import embedded, medians, peer, python, report, rounds, timed

MIB = 1 << 20
SIZE = 1024 * MIB
SIZES = (128 * MIB, 1024 * MIB, 4096 * MIB)
ROUNDS = 3
LIMIT = 1.1
LIMIT_MIB = 80

OURS = """
import json, resource, sys, time
from prefect import flow, task
from ivcap_flows.tasks import upload_artifact
from ivcap_flows import loop
begin = time.perf_counter()
artifact = upload_artifact.fn(sys.argv[1])
seconds = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "mib": peak, "urn": artifact.urn}))
"""

BARE = """
import json, resource
from prefect import flow, task
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
"""

THEIRS = """
import json, os, resource, sys, time
from ivcap_client import IVCAP
iv = IVCAP(url=os.environ["IVCAP_URL"], token=os.environ["IVCAP_JWT"])
begin = time.perf_counter()
iv.upload_artifact(name="benchmark", file_path=sys.argv[1], force_upload=True)
seconds = time.perf_counter() - begin
print(json.dumps({"seconds": seconds, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def make_file(path: Path, size: int) -> None:
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(block)


def stamp(path: Path) -> None:
    """Give a file another content without writing it anew: what was uploaded once would not be sent again."""
    with path.open("r+b") as file:
        file.write(os.urandom(32))


def ours(path: Path, environment: dict[str, str], folder: str) -> dict[str, Any]:
    stamp(path)
    time.sleep(0.1)
    found: dict[str, Any] = python(OURS, str(path), env={**environment, **journal(folder)})
    return found


def journal(folder: str) -> dict[str, str]:
    return {"IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder}/journal.sqlite"}


def by_hand(path: Path, environment: dict[str, str]) -> float:
    token, size = environment["IVCAP_JWT"], path.stat().st_size

    def curl(method: str, url: str, *options: str, **headers: str) -> list[str]:
        said = {"Authorization": f"Bearer {token}", "Tus-Resumable": "1.0.0", **headers}
        return ["curl", "-sf", "-X", method, *(x for k, v in said.items() for x in ("-H", f"{k}: {v}")), *options, url]

    begin = time.perf_counter()
    timed(["sha256sum", str(path)])
    announced = {
        "X-Content-Length": str(size),
        "Content-Length": "0",
        "X-Content-Type": "application/octet-stream",
    }
    create = curl("POST", f"{environment['IVCAP_URL']}/1/artifacts", **announced)
    target = json.loads(subprocess.run(create, check=True, capture_output=True).stdout)["data-href"]
    part = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    timed(curl("PATCH", target, "-H", "Expect:", "-T", str(path), **part))
    return time.perf_counter() - begin


def official(path: Path, environment: dict[str, str]) -> dict[str, Any]:
    """The official client."""
    stamp(path)
    done = subprocess.run(
        [peer("ivcap-client"), "-c", THEIRS, str(path)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, embedded() as environment:
        path = Path(folder, "data.bin")
        make_file(path, SIZE)
        seconds = rounds(
            {
                "ours": lambda: float(ours(path, environment, folder)["seconds"]),
                "sha256sum_and_curl": lambda: by_hand(path, environment),
            },
            ROUNDS,
        )
        theirs = official(path, environment)
        bare = python(BARE)
        above: dict[str, float] = {}
        for size in SIZES:
            make_file(path, size)
            above[f"{size // MIB} MiB"] = round(ours(path, environment, folder)["mib"] - bare, 1)
    middle = medians(seconds)
    report(
        "upload",
        middle["ours"] / middle["sha256sum_and_curl"],
        limit=LIMIT,
        seconds=middle,
        memory_above_prefect_mib=above,
        limit_mib=LIMIT_MIB,
        official_client=theirs,
    )


if __name__ == "__main__":
    main()
