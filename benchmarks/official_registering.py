"""The same as `registering` by the official client, in its own environment: what its users write.

    python benchmarks/official_registering.py singly FILE
    python benchmarks/official_registering.py batches FILE

`singly` has a call for each record, one after the other, and does not wait for the jobs. `batches` cuts the records
into parts of at most 150,000 bytes, as the other side does, sends them by `register_batch_model_runs`, and looks at
their jobs until each record has its handle.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/contract"))

from provena_official import connect
from provenaclient import ProvenaClient
from provenaclient.models import AsyncAwaitSettings
from ProvenaInterfaces.AsyncJobAPI import JobStatus, ListByBatchRequest
from ProvenaInterfaces.ProvenanceAPI import ModelRunRecord, RegisterBatchModelRunRequest

BYTES = 150_000
PAUSE = 0.5


async def singly(client: ProvenaClient, lines: list[str]) -> int:
    sessions = set()
    for line in lines:
        answer = await client.prov_api.register_model_run(ModelRunRecord.model_validate_json(line))
        sessions.add(answer.session_id)
    return len(sessions)


async def batches(client: ProvenaClient, lines: list[str]) -> int:
    parts: list[list[str]] = []
    room = 0
    for line in lines:
        if len(line) > room:
            parts.append([])
            room = BYTES
        parts[-1].append(line)
        room -= len(line)
    sessions = []
    for part in parts:
        records = [ModelRunRecord.model_validate_json(line) for line in part]
        sent = await client.prov_api.register_batch_model_runs(RegisterBatchModelRunRequest(records=records))
        sessions.append(sent.session_id)
    counts = [len(part) for part in parts]
    return sum(await asyncio.gather(*(handles(client, *one) for one in zip(sessions, counts, strict=True))))


async def handles(client: ProvenaClient, session: str, count: int) -> int:
    settings = AsyncAwaitSettings(job_polling_interval=1)
    done = await client.job_api.await_successful_job_completion(session, settings)
    while True:
        asked = ListByBatchRequest(batch_id=done.result["batch_id"], limit=500)
        jobs = await client.job_api.list_all_jobs_in_batch(asked)
        made = {job.result["record"]["id"] for job in jobs if job.status is JobStatus.SUCCEEDED}
        if len(made) == count:
            return count
        await asyncio.sleep(PAUSE)


def main() -> None:
    begin = time.perf_counter()
    client = connect(dict(os.environ))
    lines = Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()
    with contextlib.redirect_stdout(sys.stderr):
        count = asyncio.run((singly if sys.argv[1] == "singly" else batches)(client, lines))
    end = time.perf_counter()
    print(json.dumps({"seconds": end - begin, "count": count}))


if __name__ == "__main__":
    main()
