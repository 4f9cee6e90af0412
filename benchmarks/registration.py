"""1,000 model runs over a link with 20 ms of latency, against the official client, until all are accepted.

Each does it in the way that its users have: ours registers the records with `Batch`, as the task and the command do
(checks, journal and keys are in it), the official client has one call for each record, one after the other, and does
not wait for the jobs. The latency is added by the embedded platform to every request. Accepted means that the reply to
the last batch, or to the last record, is there; that the jobs come to their end is waited for by none. No round sends
what an earlier one has sent.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import QUIET, medians, report, rounds, steered_twin
from benchmarks.upload import journal
from ivcap_flows.local.remote import TwinControl

RECORDS = 1000
LATENCY = 0.02
ROUNDS = 3
LIMIT = 0.1
OFFICIAL = Path(".venvs/provenaclient/bin/python")
OFFICIAL_LOGIN = Path("tests/contract")
BATCH_BYTES = 150_000
"""Of records in one batch, by which the bound on requests counts."""
SPARE = 10

MAKE_ITEMS = """
import asyncio, json, sys
from ivcap_flows.blocks import ProvenaCredentials
sys.path.insert(0, "tests/registration")
from registration_rows import make_items

async def make():
    async with ProvenaCredentials.from_environment().get_client() as client:
        return (await make_items(client)).record(0)

print(json.dumps(asyncio.run(make())))
"""

OURS = """
import asyncio, json, sys, time
from pathlib import Path
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.capture import journal
from ivcap_flows.provena.prov import ProvApi
from ivcap_flows.registration.batch import Batch
from ivcap_flows.registration.sources import open_source

kept = journal()
accepted = []
whole = asyncio.Event()
register = ProvApi.register_batch

async def told(self, records):
    session = await register(self, records)
    accepted.extend(records)
    if len(accepted) == int(sys.argv[2]):
        whole.set()
    return session

ProvApi.register_batch = told

async def send(path):
    async with ProvenaCredentials.from_environment().get_client() as client:
        with Batch(open_source(path), client) as batch:
            await batch.check()
            registering = asyncio.create_task(batch.register(kept))
            waiting = asyncio.create_task(whole.wait())
            await asyncio.wait([registering, waiting], return_when=asyncio.FIRST_COMPLETED)
            taken = time.perf_counter() - begin
            waiting.cancel()
            registering.cancel()
            await asyncio.gather(registering, waiting, return_exceptions=True)
    return taken

begin = time.perf_counter()
print(asyncio.run(send(Path(sys.argv[1]))), len(accepted))
"""

THEIRS = """
import asyncio, contextlib, os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from provena_official import ModelRunRecord, connect

async def send(path):
    client = connect(dict(os.environ))
    sessions = set()
    for line in path.read_text().splitlines():
        answer = await client.prov_api.register_model_run(ModelRunRecord.model_validate_json(line))
        sessions.add(answer.session_id)
    return len(sessions)

begin = time.perf_counter()
with contextlib.redirect_stdout(sys.stderr):
    accepted = asyncio.run(send(Path(sys.argv[1])))
print(time.perf_counter() - begin, accepted)
"""


def write_records(path: Path, record: dict[str, Any]) -> None:
    """Records that no other round has."""
    name = uuid.uuid4().hex
    rows = ({**record, "display_name": f"{name} {number}"} for number in range(RECORDS))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def ids_in(value: Any) -> set[str]:
    """The handles of a record."""
    if isinstance(value, dict):
        return set().union(*map(ids_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(ids_in, value))
    return {value} if isinstance(value, str) and value.partition("/")[0].replace(".", "").isdecimal() else set()


def seconds(python: str, code: str, record: dict[str, Any], environment: dict[str, str]) -> tuple[float, int]:
    """Until all are accepted; and the bytes of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "records.jsonl")
        write_records(path, record)
        done = subprocess.run(
            [python, "-c", code, str(path), str(RECORDS), str(OFFICIAL_LOGIN)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **QUIET, **environment, **journal(folder)},
        )
        size = path.stat().st_size
    taken, accepted = done.stdout.splitlines()[-1].split()
    if int(accepted) != RECORDS:
        raise RuntimeError(f"{accepted} of {RECORDS} records were accepted.")
    return float(taken), size


def made(environment: dict[str, str]) -> dict[str, Any]:
    """A record whose items are on the embedded Provena."""
    done = subprocess.run(
        [sys.executable, "-c", MAKE_ITEMS],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **QUIET, **environment},
    )
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def measured(
    control: TwinControl, environment: dict[str, str], record: dict[str, Any], asked: dict[str, int], sizes: set[int]
) -> Callable[[str, str, str], float]:
    def measure(name: str, python: str, code: str) -> float:
        control.forget_requests()
        taken, size = seconds(python, code, record, environment)
        asked[name] = max(asked.get(name, 0), len(control.requests()))
        sizes.add(size)
        return taken

    return measure


def main() -> None:
    with steered_twin() as (environment, control):
        record = made(environment)
        control.add_fault(delay=LATENCY)
        asked: dict[str, int] = {}
        sizes: set[int] = set()
        measure = measured(control, environment, record, asked, sizes)
        taken = rounds(
            {
                "ours": lambda: measure("ours", sys.executable, OURS),
                "official_client": lambda: measure("official_client", str(OFFICIAL), THEIRS),
            },
            ROUNDS,
        )
    middle = medians(taken)
    report(
        "registration",
        middle["ours"] / middle["official_client"],
        limit=LIMIT,
        seconds=middle,
        records=RECORDS,
        latency_ms=1000 * LATENCY,
        requests=asked,
        requests_limit=len(ids_in(record)) + math.ceil(max(sizes) / BATCH_BYTES) + SPARE,
    )


if __name__ == "__main__":
    main()
