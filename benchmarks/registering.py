"""One process of the registration benchmark: registers the records of a file as the task and the command do.

    python -m benchmarks.registering accepted FILE
    python -m benchmarks.registering whole FILE

`accepted` ends with the reply to the last row; the rows whose jobs are still on their way are left to themselves.
`whole` ends when each row has its handle. Prints one JSON line: seconds of all, of the checks and of what follows them;
how many records; and the peak of the process's memory.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path

from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.capture import journal
from ivcap_flows.provena.models import ModelRunRecord
from ivcap_flows.provena.prov import ProvApi
from ivcap_flows.registration.batch import Batch
from ivcap_flows.registration.sources import open_source

# The journal has its tables, as it has but once.
journal()
BEGIN = time.perf_counter()


async def accepted(batch: Batch, count: int) -> int:
    """How many records Provena has accepted when it has as many as there are."""
    taken = 0
    whole = asyncio.Event()
    register = ProvApi.register

    async def told(self: ProvApi, record: ModelRunRecord) -> str:
        nonlocal taken
        session = await register(self, record)
        taken += 1
        if taken == count:
            whole.set()
        return session

    ProvApi.register = told  # type: ignore[method-assign]  # counts what it passes on
    tasks = [asyncio.create_task(batch.register(journal())), asyncio.create_task(whole.wait())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return taken


async def run(what: str, path: Path) -> dict[str, float]:
    async with ProvenaCredentials.from_environment().get_client() as client:
        with Batch(open_source(path), client) as batch:
            report = await batch.check()
            checked = time.perf_counter()
            if what == "accepted":
                count = await accepted(batch, report.rows)
            else:
                count = (await batch.register(journal(), out=path.with_suffix(".csv"))).registered
            end = time.perf_counter()
    unit = 1024 if sys.platform != "darwin" else 1
    return {
        "seconds": end - BEGIN,
        "check": checked - BEGIN,
        "register": end - checked,
        "count": count,
        "cpu": time.process_time(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(sys.argv[1], Path(sys.argv[2])))))
