"""A flow of 250 trivial tasks, recorded, against the same flow plain; Prefect's heartbeat off in both.

Both run in one process against one temporary Prefect server, which lets the events of task runs go by: one that takes
them in is behind by minutes, on one of two cores, and slows down whoever comes next by far more than is measured here.
The journal is SQLite with the durability as shipped. A round begins when Prefect has sent the events of the round
before, and after a full garbage collection: both take as long as hundreds of records, and fall on either flow by
chance. The figures are of the mean difference between neighbouring rounds; `ms_error` is its standard error.

The same once more in a process that knows 5,000 secrets, each of which is looked for in all that is recorded.

Then files, small and large, go through recorded tasks, up to an embedded platform and down again: how often each was
hashed is the number of bytes that went into a sha256 over the bytes of the files, and over those that were sent, which
are hashed as they leave. A file of less than 32 KiB that is younger than a tick of the clock, by which a change of it
would not show, is read again.

Last, a task copies a folder of many small files, recorded and plain, in turns; the figure is of the fastest of each.
Recording costs some 0.8 ms for each file that is copied, most of it for the five facts about it that are written: two
files, which call read the one and made the other, and that one comes from the other.
"""

import statistics
import tempfile

from benchmarks.measure import QUIET, embedded, python, report

TASKS = 250
ROUNDS = 40
LIMIT = 1.1
SECRETS = 5_000
LIMIT_SECRETS = 1.1
LIMIT_PASSES = 1.0
COPIES = 4_000
LIMIT_COPYING = 5.0

SERVICES = ("TASK_RUN_RECORDER", "EVENT_PERSISTER", "TRIGGERS")
"""Of a Prefect server, those that take in events."""

CODE = f"""
import gc, json, sys, time
from uuid import uuid4
from prefect import flow, task
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness
from ivcap_flows import recorded
from ivcap_flows.capture import hide

for _ in range(int(sys.argv[1])): hide(f"{{uuid4()}}+x")

@task
def plain_task(n): return n + 1

@task
@recorded
def recorded_task(n): return n + 1

@flow
def plain():
    for n in range({TASKS}): plain_task(n)

@flow
@recorded
def recorded_flow():
    for n in range({TASKS}): recorded_task(n)

def timed(f):
    EventsWorker.instance().wait_until_empty()
    gc.collect()
    begin = time.perf_counter()
    f()
    return time.perf_counter() - begin

with prefect_test_harness(server_startup_timeout=120), temporary_settings({{PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}}):
    timed(plain); timed(recorded_flow)
    gc.freeze()
    print(json.dumps([[timed(plain), timed(recorded_flow)] for _ in range({ROUNDS})]))
"""

HASHED = """
import hashlib, json, os, sys

hashed = 0
sha256 = hashlib.sha256

class Counting:
    def __init__(self, data=b"", **options):
        self.inner = sha256(**options)
        self.update(data)
    def update(self, data):
        global hashed
        # Files are read in blocks; a key or a line of JSON is no file.
        hashed += len(data) if len(data) >= 2**15 else 0
        self.inner.update(data)
    def __getattr__(self, name):
        return getattr(self.inner, name)

hashlib.sha256 = Counting

from pathlib import Path
from prefect import flow, task
from prefect.testing.utilities import prefect_test_harness
from ivcap_flows import recorded
from ivcap_flows.tasks import download_artifact, upload_artifact

folder = Path(sys.argv[1])
sizes = [2**16, 2**20, 2**23, 2**25 + 1]

@task
@recorded
def copied(source: Path, target: Path) -> Path:
    target.write_bytes(source.read_bytes()[::-1])
    return target

@task
@recorded
def looked(source: Path, again: Path) -> int:
    return source.stat().st_size

@flow
@recorded
def through(paths: list[Path]):
    for path in paths:
        made = copied(path, path.with_suffix(".copy"))
        looked(path, made)
        artifact = upload_artifact(made)
        looked(made, path)
        down = download_artifact(artifact, path.with_suffix(".down"))
        looked(Path(down.path), made)

paths = []
for number, size in enumerate(sizes):
    path = folder / f"{number}.bin"
    path.write_bytes(os.urandom(size))
    paths.append(path)
with prefect_test_harness(server_startup_timeout=120):
    through(paths)
print(json.dumps({"hashed": hashed, "bytes": (3 + 1) * sum(sizes), "files": 3 * len(sizes)}))
"""


COPYING = f"""
import json, shutil, sys, time
from pathlib import Path
from prefect import flow, task
from prefect.testing.utilities import prefect_test_harness
from ivcap_flows import recorded

folder = Path(sys.argv[1])
source = folder / "source"
source.mkdir()
for number in range({COPIES}):
    (source / f"{{number}}.txt").write_text(f"{{number}} " * 20)

def copy(source: Path, target: Path) -> None:
    target.mkdir()
    for each in source.iterdir():
        shutil.copy(each, target / each.name)

plain_copy, recorded_copy = task(copy), task(recorded(copy))

@flow
def plain(target: Path) -> None:
    plain_copy(source, target)

@flow
@recorded
def recorded_flow(target: Path) -> None:
    recorded_copy(source, target)

def timed(f, name):
    begin = time.perf_counter()
    f(folder / name)
    return time.perf_counter() - begin

with prefect_test_harness(server_startup_timeout=120):
    print(json.dumps([[timed(plain, f"p{{n}}"), timed(recorded_flow, f"r{{n}}")] for n in range(4)]))
"""


def timed_pairs(secrets: int) -> list[list[float]]:
    """Seconds of each round, plain and recorded, in a process that knows so many secrets."""
    off = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in SERVICES}
    with tempfile.TemporaryDirectory() as folder:
        journal = {"IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder}/journal.sqlite"}
        pairs: list[list[float]] = python(CODE, str(secrets), env={**QUIET, **off, **journal})
    return pairs


def difference(pairs: list[list[float]]) -> tuple[float, float, float]:
    """Seconds of a plain round, how many more a recorded one takes, and the standard error of that."""
    differences = [recorded - plain for plain, recorded in pairs]
    plain = statistics.mean(plain for plain, _ in pairs)
    return plain, statistics.mean(differences), statistics.stdev(differences) / len(pairs) ** 0.5


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, embedded() as environment:
        journal = {**QUIET, "IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder}/journal.sqlite"}
        told = python(HASHED, folder, env={**journal, **environment})
    pairs, with_secrets = timed_pairs(0), timed_pairs(SECRETS)
    with tempfile.TemporaryDirectory() as folder:
        copied = python(COPYING, folder, env={**QUIET, "IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder}/journal.sqlite"})
    plain, more, error = difference(pairs)
    plain_then, more_then, error_then = difference(with_secrets)
    report(
        "recording",
        (plain + more) / plain,
        limit=LIMIT,
        seconds={"plain": round(plain, 4), "recorded": round(plain + more, 4)},
        ms_per_task=round(more / TASKS * 1000, 3),
        ms_error=round(error / TASKS * 1000, 3),
        tasks=TASKS,
        secrets=SECRETS,
        with_secrets=round((plain_then + more_then) / plain_then, 3),
        limit_with_secrets=LIMIT_SECRETS,
        ms_per_task_with_secrets=round(more_then / TASKS * 1000, 3),
        ms_error_with_secrets=round(error_then / TASKS * 1000, 3),
        hash_passes_per_file=round(told["hashed"] / told["bytes"], 3),
        limit_hash_passes_per_file=LIMIT_PASSES,
        hashed=told,
        copying=round(min(r for _, r in copied) / min(p for p, _ in copied), 3),
        limit_copying=LIMIT_COPYING,
        copies=COPIES,
    )


if __name__ == "__main__":
    main()
