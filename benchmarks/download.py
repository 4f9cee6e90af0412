"""A verified download of 1 GiB against `curl` followed by `sha256sum`, from the same embedded platform.

Peak memory is that of the whole process above an interpreter that has imported Prefect. The official client, which
verifies nothing, is the second peer.
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
from benchmarks.upload import BARE, LIMIT, LIMIT_MIB, MIB, ROUNDS, SIZE, SIZES, journal, make_file, ours

DOWNLOAD = """
import json, resource, sys, time
from prefect import flow, task
from ivcap_flows.tasks import download_artifact
begin = time.perf_counter()
download_artifact.fn(sys.argv[1], sys.argv[2])
seconds = time.perf_counter() - begin
print(json.dumps({"seconds": seconds, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""

THEIRS = """
import json, os, resource, sys, time
from ivcap_client import IVCAP
iv = IVCAP(url=os.environ["IVCAP_URL"], token=os.environ["IVCAP_JWT"])
artifact = iv.get_artifact(sys.argv[1])
begin = time.perf_counter()
with open(sys.argv[2], "wb") as file:
    for block in artifact.as_stream():
        file.write(block)
seconds = time.perf_counter() - begin
print(json.dumps({"seconds": seconds, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def fetch(urn: str, target: Path, environment: dict[str, str], folder: str) -> dict[str, Any]:
    target.unlink(missing_ok=True)
    found: dict[str, Any] = python(DOWNLOAD, urn, str(target), env={**environment, **journal(folder)})
    return found


def by_hand(urn: str, target: Path, environment: dict[str, str]) -> float:
    target.unlink(missing_ok=True)
    auth = ["-H", f"Authorization: Bearer {environment['IVCAP_JWT']}"]
    url = f"{environment['IVCAP_URL']}/1/artifacts/{urn.rsplit(':', 1)[1]}/blob"
    begin = time.perf_counter()
    timed(["curl", "-sf", *auth, "-o", str(target), url])
    timed(["sha256sum", str(target)])
    return time.perf_counter() - begin


def official(urn: str, target: Path, environment: dict[str, str]) -> dict[str, Any]:
    """The official client."""
    done = subprocess.run(
        [peer("ivcap-client"), "-c", THEIRS, urn, str(target)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, embedded() as environment:
        source, target = Path(folder, "data.bin"), Path(folder, "back.bin")
        make_file(source, SIZE)
        urn = ours(source, environment, folder)["urn"]
        seconds = rounds(
            {
                "ours": lambda: float(fetch(urn, target, environment, folder)["seconds"]),
                "curl_and_sha256sum": lambda: by_hand(urn, target, environment),
            },
            ROUNDS,
        )
        theirs = official(urn, target, environment)
        bare = python(BARE)
        above: dict[str, float] = {}
        for size in SIZES:
            make_file(source, size)
            urn = ours(source, environment, folder)["urn"]
            above[f"{size // MIB} MiB"] = round(fetch(urn, target, environment, folder)["mib"] - bare, 1)
    middle = medians(seconds)
    report(
        "download",
        middle["ours"] / middle["curl_and_sha256sum"],
        limit=LIMIT,
        seconds=middle,
        memory_above_prefect_mib=above,
        limit_mib=LIMIT_MIB,
        official_client=theirs,
    )


if __name__ == "__main__":
    main()
