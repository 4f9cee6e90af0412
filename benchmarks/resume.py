"""An upload of 1 GiB that is killed at half, and asked for again by another process: what is sent twice.

Counted are the bytes of content that reached the embedded platform, by its own log of requests. The limit is one chunk,
which is what a server that keeps no part of a broken request would lose.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import QUIET, report, steered_platform
from benchmarks.upload import MIB, journal, make_file
from ivcap_flows.http.tus import CHUNK
from ivcap_flows.local import PlatformControl

SIZE = 1024 * MIB
KILLED_AT = SIZE // 2 + CHUNK // 2
"""In the middle of the chunk after half: at the end of one there is nothing to lose."""
ROUNDS = 3
LIMIT = 1.0

UPLOAD = """
import json, sys
from ivcap_flows.tasks import upload_artifact
print(json.dumps(upload_artifact.fn(sys.argv[1]).sha256))
"""


def sent(control: PlatformControl) -> int:
    return sum(int(request["received"]) for request in control.requests("PATCH"))


def killed_and_again(control: PlatformControl, environment: dict[str, str]) -> dict[str, float]:
    """Bytes sent before the kill and after it, and the seconds of the second process."""
    control.forget_requests()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data.bin")
        make_file(path, SIZE)
        command = [sys.executable, "-c", UPLOAD, str(path)]
        variables = {**os.environ, **QUIET, **environment, **journal(folder)}
        first = subprocess.Popen(command, env=variables)
        while sent(control) < KILLED_AT:
            if first.poll() is not None:
                raise RuntimeError("The upload ended before it could be killed.")
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
        first.wait()
        before = sent(control)
        begin = time.perf_counter()
        again = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables)
        seconds = time.perf_counter() - begin
        digest = subprocess.run(["sha256sum", str(path)], check=True, stdout=subprocess.PIPE, text=True).stdout
    if json.loads(again.stdout.splitlines()[-1]) != digest.split()[0]:
        raise RuntimeError("The artifact has another digest than the file.")
    made = [request for request in control.requests("POST", "/1/artifacts") if request["status"] == 201]
    if len(made) != 1:
        raise RuntimeError(f"There are {len(made)} artifacts of one file.")
    return {"before": before, "after": sent(control) - before, "seconds": round(seconds, 3)}


def main() -> None:
    with steered_platform() as (environment, control):
        found = [killed_and_again(control, environment) for _ in range(ROUNDS)]
    again = max(one["before"] + one["after"] - SIZE for one in found)
    report(
        "resume",
        again / CHUNK,
        limit=LIMIT,
        sent_again_mib=round(again / MIB, 3),
        chunk_mib=CHUNK // MIB,
        size_mib=SIZE // MIB,
        rounds=found,
    )


if __name__ == "__main__":
    main()
