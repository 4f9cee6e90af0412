"""Orders by the task against the bare replay of the very same requests, over TLS, 20 ms a round trip away.

Ours awaits the tasks together (`asyncio.gather` of `aplace_order` outside of a flow, so that Prefect's own cost is not
in it): parameters checked, an intent on disk before each order leaves, idempotency records, outcomes, a journal with
the durability as shipped. The peer sends what ours sent in a run of before, with other keys of as many digits, as many
at once, on connections that it keeps, by a plain client of httpx that looks at nothing but the status.

1,000 orders at once, and single ones, one after the other (`one_order`). The service runs no jobs. CPU time is that of
the process that sends.

`lagging`: how many times as long ours take where the platform lists an idempotency record after half the visibility
delay, of which each order waits for its own.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks.link import link
from benchmarks.measure import medians, python, report, rounds, steered_platform
from ivcap_flows.local import PlatformControl
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.services.mapping import RunnerMapping, write_mapping
from ivcap_flows.local.settings import VISIBILITY_DELAY

COUNT = 1000
ROUNDS = 5
ONE_BY_ONE = 10
LAGGING = 100
ROUND_TRIP = 0.02
LIMIT = 2.0
LIMIT_OF_ONE = 1.7
MOST_REQUESTS = 4.1

OURS = """
import asyncio, json, sys, time
from ivcap_flows.capture import journal
from ivcap_flows.tasks import aplace_order

count, mark, at_once = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "at once"

async def main():
    journal()
    await aplace_order.fn("submitted", {"message": f"{mark} first"})
    begin, cpu = time.perf_counter(), time.process_time()
    calls = (aplace_order.fn("submitted", {"message": f"{mark} {n}"}) for n in range(count))
    orders = await asyncio.gather(*calls) if at_once else [await call for call in calls]
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
with open(sys.argv[4], "w") as file:
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


def compared(
    environment: dict[str, str], control: PlatformControl, folder: str, count: int, way: str
) -> dict[str, Any]:
    """The seconds of so many orders, "at once" or "one by one", of both, with what else they took."""
    cpu: dict[str, list[float]] = {"ours": [], "bare": []}
    asked: list[float] = []
    replayed = str(Path(folder, "requests.json"))

    def submitted(code: str, *more: str) -> float:
        control.forget_requests()
        one = placed(code, environment, folder, count, way, *more)
        asked.append(len(control.requests()) / count)
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
    return {
        "ratio": round(middle["ours"] / middle["bare"], 3),
        "orders": count,
        "seconds": middle,
        "best_seconds": {name: round(min(values), 2) for name, values in seconds.items()},
        "requests_per_order": round(max(asked), 2),
        "cpu_ms_per_order": medians({name: [1000 * one / count for one in values] for name, values in cpu.items()}),
    }


def placed(code: str, environment: dict[str, str], folder: str, count: int, way: str, *more: str) -> dict[str, Any]:
    """What the process says that placed so many orders, with a journal of its own."""
    mark = os.urandom(8).hex()
    env = {**environment, "IVCAP_FLOWS_JOURNAL": f"sqlite:///{folder}/{mark}.sqlite"}
    one: dict[str, Any] = python(code, str(count), mark, way, *more, env=env)
    if one["orders"] != count:
        raise RuntimeError(f"{one['orders']} orders were placed, not {count}.")
    return one


def lagging(environment: dict[str, str], control: PlatformControl, folder: str, count: int, way: str) -> dict[str, Any]:
    def seconds(lag: float) -> float:
        control.clear_faults()
        if lag:
            control.add_fault(method="POST", path="^/1/aspects", late_in_lists=lag)
        return float(placed(OURS, environment, folder, count, way)["seconds"])

    middle = medians(rounds({"lagging": lambda: seconds(VISIBILITY_DELAY / 2), "at once": lambda: seconds(0)}, ROUNDS))
    control.clear_faults()
    return {"ratio": round(middle["lagging"] / middle["at once"], 3), "orders": count, "seconds": middle}


def main() -> None:
    with steered_platform() as (environment, control), tempfile.TemporaryDirectory() as folder:
        service(environment)
        port = urlsplit(environment["IVCAP_URL"]).port
        assert port is not None
        with link(port, ROUND_TRIP, Path(folder)) as (url, certificate):
            far = {**environment, "IVCAP_URL": url, "SSL_CERT_FILE": str(certificate)}
            one = compared(far, control, folder, ONE_BY_ONE, "one by one")
            many = compared(far, control, folder, COUNT, "at once")
            lags = {
                "at_once": lagging(far, control, folder, LAGGING, "at once"),
                "one_by_one": lagging(far, control, folder, ONE_BY_ONE, "one by one"),
            }
    report(
        "submitting",
        many.pop("ratio"),
        limit=LIMIT,
        **many,
        most_requests_per_order=MOST_REQUESTS,
        one_order={**one, "limit": LIMIT_OF_ONE},
        lagging=lags,
        round_trip_ms=1000 * ROUND_TRIP,
    )


if __name__ == "__main__":
    main()
