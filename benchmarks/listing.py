"""A list of 10,000 artifacts by our client against a bare loop over the same pages, 20 ms from the embedded platform.

The loop reads the pages with httpx, as our client does, and decodes their JSON, with nothing checked and no records
made; `ratio_without_latency`, in which the 10 µs count that a checked record takes, is told beside. Peak memory is that
of the whole process above one that runs the loop. The official client is the second peer.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from benchmarks.measure import medians, peer, python, report, rounds, steered_platform

COUNT = 10_000
ROUNDS = 5
LATENCY = 0.02
LIMIT = 1.05
LIMIT_MIB = 30

OURS = """
import asyncio, json, os, resource, time
from pydantic import SecretStr
from ivcap_flows.http.auth import StaticToken
from ivcap_flows.ivcap.client import IvcapClient

async def main():
    async with IvcapClient(os.environ["IVCAP_URL"], StaticToken(SecretStr(os.environ["IVCAP_JWT"]))) as client:
        async for _ in client.artifacts.list(limit=1):
            pass
        begin = time.perf_counter()
        count = 0
        async for artifact in client.artifacts.list():
            count += 1
        return count, time.perf_counter() - begin

cpu = time.process_time()
count, seconds = asyncio.run(main())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"count": count, "seconds": seconds, "cpu": time.process_time() - cpu, "mib": peak}))
"""

BARE = """
import asyncio, json, os, resource, time
import httpx
import ivcap_flows.ivcap.client

async def main():
    headers = {"Authorization": "Bearer " + os.environ["IVCAP_JWT"]}
    async with httpx.AsyncClient(base_url=os.environ["IVCAP_URL"], headers=headers, trust_env=False) as http:
        await http.get("/1/artifacts", params={"limit": 1})
        begin = time.perf_counter()
        count, params = 0, {"limit": 50}
        while params:
            page = json.loads((await http.get("/1/artifacts", params=params)).content)
            for item in page["items"]:
                count += 1
            href = next((link["href"] for link in page["links"] if link["rel"] == "next"), None)
            params = href and {"limit": 50, "page": href.partition("page=")[2]}
        return count, time.perf_counter() - begin

cpu = time.process_time()
count, seconds = asyncio.run(main())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"count": count, "seconds": seconds, "cpu": time.process_time() - cpu, "mib": peak}))
"""

THEIRS = """
import json, os, resource, time
from ivcap_client import IVCAP
iv = IVCAP(url=os.environ["IVCAP_URL"], token=os.environ["IVCAP_JWT"])
begin = time.perf_counter()
count = sum(1 for _ in iv.list_artifacts(limit=10000))
seconds = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"count": count, "seconds": seconds, "mib": peak}))
"""


def fill(environment: dict[str, str]) -> None:
    """Make 10,000 artifacts: one as anybody would, the others as its copies in the platform's database."""
    headers = {"Authorization": f"Bearer {environment['IVCAP_JWT']}", "X-Name": "first", "X-Content-Type": "text/plain"}
    httpx.post(f"{environment['IVCAP_URL']}/1/artifacts", headers=headers, content=b"x").raise_for_status()
    with closing(sqlite3.connect(Path(environment["IVCAP_LOCAL_DIR"], "ivcap.sqlite"), timeout=60)) as database:
        names = [row[1] for row in database.execute("PRAGMA table_info(artifacts)") if row[1] != "seq"]
        differ = {
            "id": "substr(id, 1, length(id) - 8) || printf('%08d', n)",
            "name": "'artifact ' || n",
            "created_at": "created_at - n",
        }
        chosen = ", ".join(differ.get(name, name) for name in names)
        database.execute(
            f"""WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {COUNT - 1})
            INSERT INTO artifacts ({", ".join(names)}) SELECT {chosen} FROM counted, artifacts WHERE seq = 1"""
        )
        database.commit()


def listed(code: str, environment: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = python(code, env=environment)
    if found["count"] != COUNT:
        raise RuntimeError(f"{found['count']} artifacts were listed, not {COUNT}.")
    return found


def official(environment: dict[str, str]) -> dict[str, Any]:
    """The official client."""
    env = {**os.environ, **environment}
    done = subprocess.run([peer("ivcap-client"), "-c", THEIRS], check=True, capture_output=True, text=True, env=env)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    with steered_platform() as (environment, control):
        fill(environment)
        ours, bare = [], []

        def measure(code: str, found: list[dict[str, Any]]) -> float:
            found.append(listed(code, environment))
            return float(found[-1]["seconds"])

        subjects = {"ours": lambda: measure(OURS, ours), "bare": lambda: measure(BARE, bare)}
        near = medians(rounds(subjects, ROUNDS))
        control.add_fault(delay=LATENCY)
        middle = medians(rounds(subjects, ROUNDS))
        theirs = official(environment)
    report(
        "listing",
        middle["ours"] / middle["bare"],
        limit=LIMIT,
        ratio_without_latency=round(near["ours"] / near["bare"], 3),
        latency_ms=1000 * LATENCY,
        seconds=middle,
        cpu_seconds=medians({"ours": [one["cpu"] for one in ours], "bare": [one["cpu"] for one in bare]}),
        memory_above_bare_mib=round(max(one["mib"] for one in ours) - min(one["mib"] for one in bare), 1),
        limit_mib=LIMIT_MIB,
        official_client=theirs,
    )


if __name__ == "__main__":
    main()
