"""1,000 orders by the task against 1,000 bare POSTs over the same pool of connections, to the same embedded platform.

Ours awaits the tasks together (`asyncio.gather` of `aplace_order` outside of a flow, so that Prefect's own cost is not
in it): parameters checked, an intent on disk before each order leaves, key aspects, outcomes, a journal with the
durability as shipped. The peer sends the same bodies by the same client's session, with nothing before or after. The
service runs no jobs. CPU time is that of the process that sends.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import httpx

from benchmarks.measure import medians, python, report, rounds, steered_twin
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.mapping import RunnerMapping, write_mapping

COUNT = 1000
ROUNDS = 5
LIMIT = 3.0

_BEGIN = """
import asyncio, json, sys, time
from ivcap_flows import loop
from ivcap_flows.capture import journal
from ivcap_flows.tasks import aplace_order
from ivcap_flows.tasks.call import IvcapCall

service, count, mark = sys.argv[1], int(sys.argv[2]), sys.argv[3]
journal()

def report(begin, cpu, urns):
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "orders": len(set(urns))}))
"""

OURS = (
    _BEGIN
    + """
async def main():
    await aplace_order.fn("submitted", {"message": f"{mark} first"})
    begin, cpu = time.perf_counter(), time.process_time()
    orders = await asyncio.gather(*(aplace_order.fn("submitted", {"message": f"{mark} {n}"}) for n in range(count)))
    report(begin, cpu, [order.urn for order in orders])

asyncio.run(main())
"""
)

BARE = (
    _BEGIN
    + """
async def main():
    call = await IvcapCall.of(None)
    orders = call.client.orders
    await orders.place(service, {"message": f"{mark} first"}, name="submitted")
    begin, cpu = time.perf_counter(), time.process_time()
    placed = (orders.place(service, {"message": f"{mark} {n}"}, name="submitted") for n in range(count))
    report(begin, cpu, [order.urn for order in await asyncio.gather(*placed)])

loop.run(main())
"""
)


def service(environment: dict[str, str]) -> str:
    """The URN of a service of which no job begins."""
    schema = "urn:ivcap:schema.service.batch.1"
    definition = {
        "name": "submitted",
        "description": "Takes orders.",
        "parameters": [{"name": "message", "type": "string"}],
        "controller-schema": schema,
        "controller": {"$schema": schema, "image": "none", "command": ["none"]},
    }
    headers = {"Authorization": f"Bearer {environment['IVCAP_JWT']}"}
    reply = httpx.post(f"{environment['IVCAP_URL']}/1/services2", headers=headers, json=definition).raise_for_status()
    urn = str(reply.json()["id"])
    write_mapping(Directory(Path(environment["IVCAP_LOCAL_DIR"])), urn, RunnerMapping(("none",), "/", concurrency=0))
    return urn


def main() -> None:
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "bare": []}
    asked: dict[str, float] = {}
    with steered_twin() as (environment, control):
        urn = service(environment)

        def measured(name: str, code: str) -> float:
            control.forget_requests()
            with tempfile.TemporaryDirectory() as folder:
                env = {**environment, "IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder}/journal.sqlite"}
                one: dict[str, Any] = python(code, urn, str(COUNT), os.urandom(8).hex(), env=env)
            if one["orders"] != COUNT:
                raise RuntimeError(f"{one['orders']} orders were placed, not {COUNT}.")
            asked[name] = len(control.requests()) / COUNT
            found[name].append(one)
            return float(one["seconds"])

        seconds = rounds({"ours": lambda: measured("ours", OURS), "bare": lambda: measured("bare", BARE)}, ROUNDS)
    middle = medians(seconds)
    report(
        "submitting",
        middle["ours"] / middle["bare"],
        limit=LIMIT,
        orders=COUNT,
        seconds=middle,
        best_seconds={name: round(min(values), 2) for name, values in seconds.items()},
        cpu_seconds=medians({name: [one["cpu"] for one in runs] for name, runs in found.items()}),
        requests_per_order={name: round(count, 2) for name, count in asked.items()},
    )


if __name__ == "__main__":
    main()
