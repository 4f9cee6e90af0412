"""1,000 live jobs of 5 services among 50,000 finished ones: what waiting for them asks of the platform.

The jobs are rows of the embedded platform's database; requests are counted at its control interface. A tick is a
round, whichever process asks. The peer is the official client's documented wait (`wait_for_finished_async`), whose
round is one read of each job. It goes through its rounds at once, which changes their number a minute and not their
size. Then jobs end, and the delay is from their end on the platform to the return of their wait, as a share of what is
allowed: 5 s, or 5 % of the time that the job ran.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from benchmarks.measure import QUIET, peer, report, steered_platform
from ivcap_flows.local import PlatformControl
from ivcap_flows.local.services.register import register

SERVICES, LIVE, FINISHED = 5, 1000, 50_000
TICKS = 10
ROUNDS = 1
ENDING, RUNS = 200, (10.0, 60.0)
LIMIT, LIMIT_PER_TICK, LIMIT_KIB = 0.025, 25, 100

OURS = """
import asyncio, json, sys, threading, time
from ivcap_flows import loop
from ivcap_flows.journal.rows import Wait
from ivcap_flows.tasks import poll_sources
from ivcap_flows.tasks.call import IvcapCall

jobs, ticks = json.load(open(sys.argv[1])), int(sys.argv[2])
ended = {}

async def wait():
    call = await IvcapCall.of(None)
    source = poll_sources.JobSource(call.client.jobs)
    poller = poll_sources.poller_of(call, source)
    before = memory()
    # All that were made: who looks at the watchlist once a second may see two at once.
    rounds = lambda: poller._sharing.poll.ended
    print("ready", flush=True)

    async def one(urn, service):
        await poll_sources.wait_for(call, source, [Wait(urn, "job", service)], timeout=None)
        ended[urn] = time.time()

    waits = [asyncio.create_task(one(*each)) for each in jobs]
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline and len(ended) < int(sys.argv[3]) and not (ticks and rounds() >= ticks):
        await asyncio.sleep(0.02)
    found = {"rounds": rounds(), "threads": threading.active_count(), "kib": (memory() - before) / len(jobs)}
    print(json.dumps({**found, "ended": ended, "cpu": time.process_time()}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for each in waits:
        each.cancel()

def memory():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1])

loop.run(wait())
"""

THEIRS = """
import asyncio, json, os, sys
from ivcap_client import IVCAP
from ivcap_client.job import Job
from ivcap_client.service import Service

async def main():
    ivcap = IVCAP(url=os.environ["IVCAP_URL"], token=os.environ["IVCAP_JWT"])
    jobs = [Job(ivcap, id=urn, service=Service(ivcap, id=service)) for urn, service in json.load(open(sys.argv[1]))]
    for _ in range(int(sys.argv[2])):
        await asyncio.gather(*(once(job) for job in jobs))

async def once(job):
    try:
        await job.wait_for_finished_async(max_wait_time=0)
    except TimeoutError:
        pass

asyncio.run(main())
"""


def fill(environment: dict[str, str], *, scattered: bool) -> list[tuple[str, str]]:
    """The live jobs with their services. They are the newest, or stand among the finished ones at random."""
    folder = Path(environment["IVCAP_LOCAL_DIR"])
    bearer = {"Authorization": f"Bearer {environment['IVCAP_JWT']}"}
    services = []
    for number in range(SERVICES):
        definition = {"name": f"counted-{number}", "entry": "ivcap_flows.local.services.built_in:echo"}
        services.append(register(environment["IVCAP_URL"], environment["IVCAP_JWT"], definition, folder / "x.yaml"))
        jobs = f"{environment['IVCAP_URL']}/1/services2/{services[-1]}/jobs"
        httpx.post(jobs, headers={**bearer, "Timeout": "30"}, json={"message": "x"}).raise_for_status()
    chosen = random.Random(1).sample(range(FINISHED + LIVE), LIVE) if scattered else range(FINISHED, FINISHED + LIVE)
    with closing(sqlite3.connect(folder / "ivcap.sqlite", timeout=60)) as database:
        database.execute("CREATE TEMP TABLE live (n INTEGER PRIMARY KEY)")
        database.executemany("INSERT INTO live VALUES (?)", [(n,) for n in chosen])
        database.execute(
            f"""CREATE TEMP TABLE made AS WITH RECURSIVE counted(n) AS
            (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n < {FINISHED + LIVE - 1})
            SELECT n, t.id AS old, substr(t.id, 1, length(t.id) - 8) || printf('%08d', n) AS new,
            n IN (SELECT n FROM live) AS live FROM counted
            JOIN jobs t ON t.service = json_extract(?, '$[' || (n % {SERVICES}) || ']')""",
            [json.dumps(services)],
        )
        begin = database.execute("SELECT min(requested_at) FROM jobs").fetchone()[0] - 2 * (FINISHED + LIVE)
        # The end of a live job is set all the same, so that the platform does not look after it.
        differ = {
            "id": "new",
            "leads": "0",
            "status": "CASE WHEN live THEN 'executing' ELSE 'succeeded' END",
            "requested_at": f"{begin} + n",
        }
        _copy(database, "jobs", "t.id = old", differ)
        job = "json_set(content, '$.id', new, '$.status', CASE WHEN live THEN 'executing' ELSE 'succeeded' END)"
        differ = {"id": "'urn:ivcap:aspect:' || substr(new, 15)", "entity": "new", "content": job}
        differ |= {"valid_from": f"{begin} + n"}
        _copy(database, "aspects", "t.entity = old AND t.schema LIKE '%job.2' AND t.valid_to IS NULL", differ)
        live = database.execute("SELECT new, service FROM made JOIN jobs ON jobs.id = new WHERE live").fetchall()
        database.commit()
    return [(str(urn), str(service)) for urn, service in live]


def _copy(database: sqlite3.Connection, table: str, which: str, differ: dict[str, str]) -> None:
    names = [row[1] for row in database.execute(f"PRAGMA table_info({table})") if row[1] != "seq"]
    chosen = ", ".join(differ.get(name, f"t.{name}") for name in names)
    database.execute(
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {chosen} FROM made JOIN {table} t ON {which} ORDER BY n"
    )


def end(environment: dict[str, str], urn: str) -> float:
    """Let a job end as the platform does, with a new aspect; when that was."""
    with closing(sqlite3.connect(Path(environment["IVCAP_LOCAL_DIR"], "ivcap.sqlite"), timeout=60)) as database:
        now = time.time()
        at = int(now * 1000)
        database.execute("UPDATE jobs SET status = 'succeeded', finished_at = ? WHERE id = ?", (at, urn))
        names = [row[1] for row in database.execute("PRAGMA table_info(aspects)") if row[1] != "seq"]
        differ = {"id": "id || 'e'", "content": "json_set(content, '$.status', 'succeeded')", "valid_from": str(at)}
        chosen = ", ".join(differ.get(name, name) for name in names)
        which = "entity = ? AND schema LIKE '%job.2' AND valid_to IS NULL"
        database.execute(f"INSERT INTO aspects ({', '.join(names)}) SELECT {chosen} FROM aspects WHERE {which}", (urn,))
        database.execute(f"UPDATE aspects SET valid_to = ? WHERE {which} AND id NOT LIKE '%e'", (at, urn))
        database.commit()
    return now


class Waits:
    """Processes of ours, each waiting for its share of the jobs; what they ask of the platform is counted."""

    def __init__(
        self,
        control: PlatformControl,
        environment: dict[str, str],
        jobs: list[tuple[str, str]],
        count: int,
        **until: int,
    ) -> None:
        self._control = control
        self._folder = tempfile.TemporaryDirectory()
        env = {**os.environ, **QUIET, **environment}
        env["IVCAP_FLOWS_JOURNAL"] = f"sqlite:///{self._folder.name}/journal.sqlite"
        self._processes = []
        for number in range(count):
            path = Path(self._folder.name, f"{number}.json")
            path.write_text(json.dumps(jobs[number::count]))
            arguments = [str(path), str(until.get("ticks", 0)), str(until.get("ends", len(jobs) + 1))]
            command = [sys.executable, "-c", OURS, *arguments]
            self._processes.append(
                subprocess.Popen(command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            self._line(self._processes[-1])  # the next process joins one that leads
        self.began = time.time()

    @staticmethod
    def _line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline()

    def figures(self, which: int) -> list[dict[str, Any]]:
        """Those of the first so many processes, once they have had enough; then all end."""
        found = [json.loads(self._line(each)) for each in self._processes[:which]]
        self.requests = asked(self._control)
        for each in self._processes:
            each.kill()
            each.wait(10)
        self._folder.cleanup()
        return found


def asked(control: PlatformControl) -> int:
    """Requests about jobs since the log was emptied."""
    return sum("/jobs" in entry["path"] or entry["path"] == "/1/aspects" for entry in control.requests())


def per_tick(control: PlatformControl, environment: dict[str, str], jobs: list[tuple[str, str]], count: int) -> Any:
    control.forget_requests()
    waits = Waits(control, environment, jobs, count, ticks=TICKS)
    [figures] = waits.figures(1)
    return {
        "requests_per_tick": round(waits.requests / figures["rounds"], 2),
        "threads": figures["threads"],
        "kib_per_job": round(figures["kib"], 1),
        "cpu_seconds": round(figures["cpu"], 2),
    }


def official(control: PlatformControl, environment: dict[str, str], jobs: list[tuple[str, str]]) -> float:
    """Requests of the official client per round."""
    control.forget_requests()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "jobs.json")
        path.write_text(json.dumps(jobs))
        command = [peer("ivcap-client"), "-c", THEIRS, str(path), str(ROUNDS)]
        subprocess.run(command, check=True, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    return asked(control) / ROUNDS


def delays(control: PlatformControl, environment: dict[str, str], jobs: list[tuple[str, str]]) -> dict[str, float]:
    """Some of the jobs end; the delays until their waits have returned."""
    control.forget_requests()
    waits = Waits(control, environment, jobs, 1, ends=ENDING)
    draw = random.Random(2)
    planned = sorted((draw.uniform(*RUNS), urn) for urn, _ in draw.sample(jobs, ENDING))
    ended: dict[str, tuple[float, float]] = {}
    for run, urn in planned:
        time.sleep(max(0.0, waits.began + run - time.time()))
        at = end(environment, urn)
        ended[urn] = (at, at - waits.began)
    [figures] = waits.figures(1)
    found = [(figures["ended"][urn] - at, max(5.0, 0.05 * run)) for urn, (at, run) in ended.items()]
    shares = sorted(delay / allowed for delay, allowed in found)
    seconds = sorted(delay for delay, _ in found)
    return {
        "p95_delay_seconds": round(seconds[int(0.95 * len(seconds))], 2),
        "median_delay_seconds": round(statistics.median(seconds), 2),
        "p95_share_of_allowed": round(shares[int(0.95 * len(shares))], 3),
        "requests_per_minute": round(60 * waits.requests / RUNS[1]),
    }


def main() -> None:
    with steered_platform() as (environment, control):
        live = fill(environment, scattered=False)
        one, four = (per_tick(control, environment, live, count) for count in (1, 4))
        theirs = official(control, environment, live)
        delay = delays(control, environment, live)
    with steered_platform() as (environment, control):
        scattered = per_tick(control, environment, fill(environment, scattered=True), 1)
    report(
        "waiting",
        max(one["requests_per_tick"], four["requests_per_tick"]) / theirs,
        limit=LIMIT,
        limit_requests_per_tick=LIMIT_PER_TICK,
        limit_kib_per_job=LIMIT_KIB,
        one_process=one,
        four_processes=four,
        among_finished_ones=scattered,
        official_client_per_round=theirs,
        delay=delay,
    )


if __name__ == "__main__":
    main()
