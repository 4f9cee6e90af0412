"""What 2,000 parked runs cost the process that watches them: memory, processor, requests, statements on the journal.

Each run waits for an order of its own, on the embedded platform, of which no job begins. The journal and Prefect's
server are on PostgreSQL. The watcher is as shipped, with its requests and statements counted, and is measured for two
minutes once it knows all runs; first with 20 of them, then with all. The ratio is that of its memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from benchmarks.measure import postgresql, python, report, steered_platform
from benchmarks.prefect_server import Prefect, on_postgresql, prefect
from benchmarks.submitting import service

RUNS = 2000
FEW = 20
SECONDS = 120
SETTLING = 60

PARK = """
import asyncio, json, sys
from datetime import datetime, timedelta, timezone
from ivcap_flows import loop
from ivcap_flows.blocks.resolve import ivcap_client
from ivcap_flows.capture import journal
from ivcap_flows.journal import RunIdentity
from ivcap_flows.journal.rows import Park, Wait
from ivcap_flows.tasks import aplace_order

first, *flow_runs = json.load(open(sys.argv[1]))

async def placed():
    orders = (aplace_order.fn("submitted", {"message": f"parked {first + n}"}) for n in range(len(flow_runs)))
    client = await ivcap_client(None, deployed=False)
    return (await client.platform(), await client.account()), await asyncio.gather(*orders)

asks, orders = loop.run(placed())
now = datetime.now(timezone.utc)
for flow_run, order in zip(flow_runs, orders, strict=True):
    identity = RunIdentity("waits", "flows.py:waits", {"order": order.urn}, flow_run, flow_run, deployed=True)
    opened = journal().runs.open_attempt(identity)
    waits = (Wait(order.urn, "order", order.service),)
    journal().parks.note(opened.attempt.id, Park(1, *asks, None, waits, now, now + timedelta(days=1)))
    journal().runs.close_attempt(opened.attempt.id, "parked")
print(len(orders))
"""

WATCH = """
import json, os, re, sys, threading, time
from collections import Counter
import httpx, sqlalchemy
from sqlalchemy.engine import Engine
from ivcap_flows import loop
from ivcap_flows.capture import journal
from ivcap_flows.tasks.park_watcher import Watcher

settling, seconds = map(float, sys.argv[1:])
prefect = os.environ["PREFECT_API_URL"]
counts = Counter()

def counted(kind, name):
    send = getattr(kind, name)
    def count(self, request, *rest):
        counts["prefect" if str(request.url).startswith(prefect) else "platform"] += 1
        return send(self, request, *rest)
    setattr(kind, name, count)

counted(httpx.HTTPTransport, "handle_request")
counted(httpx.AsyncHTTPTransport, "handle_async_request")

@sqlalchemy.event.listens_for(Engine, "before_cursor_execute")
def statement(*_):
    counts["statements"] += 1

def now():
    status = open("/proc/self/status").read()
    mib = int(re.search(r"VmRSS:\\s+(\\d+)", status).group(1)) / 1024
    threads = int(re.search(r"Threads:\\s+(\\d+)", status).group(1))
    return {**counts, "cpu": time.process_time(), "mib": mib, "threads": threads}

told = []

def look():
    time.sleep(settling)
    told.append(now())
    time.sleep(seconds)
    told.append(now())

looking = threading.Thread(target=look)
looking.start()
loop.run(Watcher(journal(), tell=lambda text: None).watch(seconds=settling + seconds + 5))
looking.join()
begin, end = told
since = {name: end.get(name, 0) - begin.get(name, 0) for name in ("prefect", "platform", "statements", "cpu")}
print(json.dumps({
    "mib": round(end["mib"], 1), "threads": end["threads"],
    "platform_requests_a_minute": round(60 * since["platform"] / seconds, 1),
    "prefect_requests_a_minute": round(60 * since["prefect"] / seconds, 1),
    "statements_a_second": round(since["statements"] / seconds, 2),
    "cores": round(since["cpu"] / seconds, 3),
}))
"""


def park(server: Prefect, deployment: str, folder: Path, numbers: range) -> None:
    """Have so many more runs that are parked, for a day."""
    wake_at = (datetime.now(timezone.utc) + timedelta(days=1)).isoformat()
    details = {"scheduled_time": wake_at}
    flow_runs = [
        server.run(deployment, {"message": str(number)}, name="Parked", state_details=details) for number in numbers
    ]
    (folder / "parked.json").write_text(json.dumps([numbers.start, *flow_runs]))
    if python(PARK, str(folder / "parked.json"), env=server.environment) != len(numbers):
        raise RuntimeError("Runs are missing.")
    print(f"{numbers.stop} runs are parked.", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parked")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="how long the watcher is measured each time")
    chosen = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        postgresql("journal", "prefect") as (journal, prefects),
        steered_platform() as (environment, _),
    ):
        folder = Path(name)
        (folder / "flows").mkdir()
        service(environment)
        with prefect({**environment, **on_postgresql(prefects), "IVCAP_FLOWS_JOURNAL": journal}, folder) as server:
            deployment = server.deploy(Path(__file__).with_name("fleet_flows.py"), "waits", folder / "flows")
            for numbers in (range(FEW), range(FEW, chosen.runs)):
                park(server, deployment, folder, numbers)
                settling = min(SETTLING, chosen.seconds)
                told = python(WATCH, str(settling), str(chosen.seconds), env=server.environment)
                found[str(numbers.stop)] = told
                print(told, file=sys.stderr)
    few, all_ = found.values()
    report("parked", all_["mib"] / few["mib"], watcher=found, runs=chosen.runs)


if __name__ == "__main__":
    main()
