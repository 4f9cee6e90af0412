"""1,000 orders by the task against the bare replay of the very same requests, with 20 ms to the embedded platform.

Ours awaits the tasks together (`asyncio.gather` of `aplace_order` outside of a flow, so that Prefect's own cost is not
in it): parameters checked, an intent on disk before each order leaves, idempotency records, outcomes, a journal with
the durability as shipped. The peer sends what ours sent in a run of before, with other keys of as many digits, over as
many connections, which it keeps where each request of ours has one of its own, by a plain client of httpx that looks at
nothing but the status. The service runs no jobs. CPU time is that of the process that sends.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import httpx

from benchmarks.measure import medians, python, report, rounds, steered_platform
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.services.mapping import RunnerMapping, write_mapping

COUNT = 1000
ROUNDS = 5
LATENCY = 0.02
LIMIT = 2.5
MOST_REQUESTS = 5

OURS = """
import asyncio, json, sys, time
from ivcap_flows.capture import journal
from ivcap_flows.tasks import aplace_order

count, mark = int(sys.argv[1]), sys.argv[2]

async def main():
    journal()
    await aplace_order.fn("submitted", {"message": f"{mark} first"})
    begin, cpu = time.perf_counter(), time.process_time()
    orders = await asyncio.gather(*(aplace_order.fn("submitted", {"message": f"{mark} {n}"}) for n in range(count)))
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "orders": len({order.urn for order in orders})}))

asyncio.run(main())
"""

RECORDED = (
    """
import base64, httpx, json, sys

send, under_way, most, sent = httpx.AsyncHTTPTransport.handle_async_request, 0, 0, []

async def recorded(self, request):
    global under_way, most
    sent.append([request.method, str(request.url), request.headers.multi_items(), request.content.decode()])
    under_way += 1
    most = max(most, under_way)
    try:
        return await send(self, request)
    finally:
        under_way -= 1

httpx.AsyncHTTPTransport.handle_async_request = recorded
"""
    + OURS
    + """
with open(sys.argv[3], "w") as file:
    json.dump({"connections": most, "requests": sent}, file)
"""
)

BARE = """
import asyncio, hashlib, httpx, json, re, sys, time

def anew(found):
    return hashlib.sha256(f"{sys.argv[2]} {found[0]}".encode()).hexdigest()

with open(sys.argv[1]) as file:
    said = json.loads(re.sub("[0-9a-f]{64}", anew, file.read()))
first, *rest = said["requests"]
count = said["connections"]

async def main():
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=count)
    async with httpx.AsyncClient(limits=limits) as client:

        async def send(method, url, headers, content):
            reply = await client.request(method, url, headers=[tuple(each) for each in headers], content=content)
            reply.raise_for_status()

        async def lane(requests):
            for request in requests:
                await send(*request)

        await send(*first)
        requests = iter(rest)
        begin, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(lane(requests) for _ in range(count)))
        print(json.dumps({"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}))

asyncio.run(main())
"""


def service(environment: dict[str, str]) -> None:
    """A service of which no job begins."""
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


def main() -> None:
    cpu: dict[str, list[float]] = {"ours": [], "bare": []}
    asked: list[float] = []
    with steered_platform() as (environment, control), tempfile.TemporaryDirectory() as folder:
        service(environment)
        control.add_fault(delay=LATENCY)
        replayed = str(Path(folder, "requests.json"))

        def submitted(code: str, *more: str) -> float:
            control.forget_requests()
            mark = os.urandom(8).hex()
            env = {**environment, "IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder}/{mark}.sqlite"}
            one: dict[str, Any] = python(code, str(COUNT), mark, *more, env=env)
            if one["orders"] != COUNT:
                raise RuntimeError(f"{one['orders']} orders were placed, not {COUNT}.")
            asked.append(len(control.requests()) / COUNT)
            cpu["ours"].append(one["cpu"])
            return float(one["seconds"])

        def sent() -> float:
            one = python(BARE, replayed, os.urandom(8).hex(), env=environment)
            cpu["bare"].append(one["cpu"])
            return float(one["seconds"])

        submitted(RECORDED, replayed)
        cpu["ours"].clear()
        seconds = rounds({"ours": lambda: submitted(OURS), "bare": sent}, ROUNDS)
    middle = medians(seconds)
    report(
        "submitting",
        middle["ours"] / middle["bare"],
        limit=LIMIT,
        orders=COUNT,
        latency_ms=1000 * LATENCY,
        seconds=middle,
        best_seconds={name: round(min(values), 2) for name, values in seconds.items()},
        requests_per_order=round(max(asked), 2),
        most_requests_per_order=MOST_REQUESTS,
        cpu_ms_per_order=medians({name: [1000 * one / COUNT for one in values] for name, values in cpu.items()}),
    )


if __name__ == "__main__":
    main()
