"""A fleet: machines with Prefect's process workers, Dask or Ray, which share a journal and Prefect's server, both on
PostgreSQL, and an account on the embedded platforms.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from eventually import until
from machines import Machine
from other_processes import free_port, settings_of_platforms
from prefect_api import ask_prefect

from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import Journal
from ivcap_flows.local import PlatformControl
from ivcap_flows.provenance import Graph
from ivcap_flows.sinks import run_graph

__all__ = ["ROOT", "Fleet"]

ROOT: Final = Path(__file__).parents[2]
POOL: Final = "fleet"
PATIENCE: Final = 600.0
"""Seconds for what takes a few on a quiet machine."""


class Fleet:
    """`prefect` is the environment of the server's clients, `journal` the URL of an empty journal."""

    def __init__(self, folder: Path, prefect: Mapping[str, str], journal: str, platform: PlatformControl) -> None:
        self.folder, self.journal, self.platform = folder, journal, platform
        self.environment = {
            **prefect,
            **settings_of_platforms(),
            "IVCAP_FLOWS_JOURNAL": journal,
            "PREFECT_LOGGING_LEVEL": "WARNING",
            # It may stop a worker for ever on Python 3.11: python/cpython issue 106883.
            "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
            # The 30 s that a client is given to connect are few for a busy machine.
            "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "300",
        }
        self.shared = folder / "shared"
        self.shared.mkdir()
        self.machines: list[Machine] = []
        self._folders: list[str] = []
        self.counts: Counter[str] = Counter()
        """What was counted of the runs that were looked at, for the table at the end."""
        self.killed: tuple[datetime, datetime] | None = None
        """From when to when the test killed something."""
        self._attempts_before: dict[str, int] = {}
        """How many attempts each run had when it was last started."""
        self.runner = ""
        self.python = sys.executable
        self._make("/work_pools/", {"name": POOL, "type": "process"})

    def machine(self, name: str) -> Machine:
        """A machine of this fleet, without processes."""
        made = Machine(name, self.folder / name, self.environment)
        self.machines.append(made)
        return made

    def worker(self, machine: Machine) -> subprocess.Popen[bytes]:
        """A process worker of Prefect, for runs of the machine's own queue and those of none."""
        machine.environment["FLEET_RUNNER"] = self.runner
        self._make(f"/work_pools/{POOL}/queues", {"name": machine.name})
        queues = ("--work-queue", "default", "--work-queue", machine.name)
        return machine.start(self.python, "-m", "prefect", "worker", "start", "--pool", POOL, *queues)

    def dask(self, scheduler: Machine, *workers: Machine) -> None:
        """A Dask scheduler, and on each of these machines a worker process of one thread, which a nanny watches."""
        port = free_port()
        self.runner = f"dask=tcp://127.0.0.1:{port}"
        self.start_scheduler = lambda: scheduler.start(
            self.python, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port),
            "--no-dashboard", "--no-jupyter",
        )  # fmt: skip
        self.start_scheduler()
        for machine in workers:
            self.dask_worker(machine)

    def dask_worker(self, machine: Machine) -> None:
        address = self.runner.removeprefix("dask=")
        machine.start(
            self.python, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--nworkers", "1",
            "--host", "127.0.0.1", "--no-dashboard", "--local-directory", str(machine.folder / "dask"),
        )  # fmt: skip

    def ray(self, head: Machine, *workers: Machine) -> None:
        """A Ray head without processors of its own, and on each of these machines a node with one."""
        port, client = free_port(), free_port()
        self.runner = f"ray=ray://127.0.0.1:{client}"
        self._ray_address = f"127.0.0.1:{port}"
        options = (f"--port={port}", f"--ray-client-server-port={client}", "--num-cpus=0", "--include-dashboard=false")
        self._ray_start(head, "--head", *options)
        for machine in workers:
            self.ray_node(machine)

    def ray_node(self, machine: Machine) -> None:
        self._ray_start(machine, f"--address={self._ray_address}", "--num-cpus=1")

    def _ray_start(self, machine: Machine, *options: str) -> None:
        # Sockets lie in it, whose paths may not be long.
        folder = tempfile.mkdtemp(prefix="ray-")
        self._folders.append(folder)
        ray = str(Path(self.python).with_name("ray"))
        machine.start(ray, "start", "--block", "--disable-usage-stats", f"--temp-dir={folder}", *options)
        # One after the other: each gives up after 30 s.
        self.until("a node of Ray", lambda: "Ray runtime started" in machine.said())

    def run(self, flow: str, *, on: str = "default", **parameters: Any) -> str:
        """Schedule a run of a flow of `fleet_flows.py`, `on` a machine or on any; the value is its id."""
        deployment = {
            "name": f"{self.folder.name}-{on}",
            "flow_id": self.ask("/flows/", {"name": flow})["id"],
            "work_pool_name": POOL,
            "work_queue_name": on,
            "entrypoint": f"fleet_flows.{flow}",
            "pull_steps": [],
        }
        made = self.ask("/deployments/", deployment)["id"]
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return str(self.ask(f"/deployments/{made}/create_flow_run", body)["id"])

    def again(self, run: str) -> None:
        """Have a worker run it once more, as a user does, or an automation on missing heartbeats."""
        self._attempts_before[run] = self._attempts(run)
        state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
        self.ask(f"/flow_runs/{run}/set_state", {"state": state, "force": True})

    def state(self, run: str) -> str:
        return str(self.ask(f"/flow_runs/{run}", method="GET")["state"]["type"])

    def until(self, what: str, holds: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        return until(holds, seconds=seconds, pause=0.1, said=lambda: f"waited for: {what}\n{self.said()}")

    def reaches(self, run: str, what: str, holds: Callable[[], Any]) -> None:
        """Until it holds of a run."""

        def held() -> bool:
            self._state(run)
            return bool(holds())

        self.until(what, held)

    def ended(self, run: str) -> str:
        """The state in which a run ended."""

        def end() -> str | None:
            state = self._state(run)
            return state if state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        return str(self.until("the end of the run", end))

    def _state(self, run: str) -> str:
        """The state of a run, which is run again if it crashed before it began: Ray's client may not start."""
        state = self.state(run)
        crashed = state == "CRASHED" and self.runner.startswith("ray")
        if crashed and self._attempts(run) == self._attempts_before.get(run, 0):
            # The worker tells of its process's end a moment after the process did.
            time.sleep(5)
            self.again(run)
            return "SCHEDULED"
        return state

    def _attempts(self, run: str) -> int:
        with Journal.open(self.journal) as journal:
            found = journal.runs.attempt_of(run)
            return 0 if found is None else len(journal.runs.attempts(found.run.id))

    def completes(self, run: str, *, again: bool) -> None:
        """Until a run completes: by itself, or when it is run `again` once, if it then ended otherwise."""
        state = self.ended(run)
        if again and state != "COMPLETED":
            self.again(run)
            state = self.ended(run)
        assert state == "COMPLETED", self.said()

    def said(self) -> str:
        """The end of what the processes of each machine printed."""
        return "\n".join(each.said() for each in self.machines)

    def task_runs(self, run: str) -> dict[str, Any]:
        """What Prefect knows of the task runs of a flow run and of the runs within it, by id.

        It makes one for each flow run within a run, too; these are left out.
        """
        found: dict[str, Any] = {}
        runs, seen = [run], set[str]()
        while runs:
            flow_run = runs.pop()
            seen.add(flow_run)
            within = self.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": 200})
            offset = 0
            while within:
                begun = [each for each in within if each["state_type"] not in (None, "PENDING")]
                found |= {each["id"]: each for each in begun if not each["state"]["state_details"]["child_flow_run_id"]}
                offset += len(within)
                body = {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": 200, "offset": offset}
                within = self.ask("/task_runs/filter", body)
            children = {"flow_runs": {"parent_flow_run_id": {"any_": [flow_run]}}, "limit": 200}
            runs += [each["id"] for each in self.ask("/flow_runs/filter", children) if each["id"] not in seen]
        return found

    def ask(self, path: str, body: object = None, *, method: str = "POST") -> Any:
        return ask_prefect(self.environment, path, body, method=method)

    def _make(self, path: str, body: object) -> None:
        """Create a thing on Prefect's server, unless it exists."""
        reply = httpx.post(f"{self.environment['PREFECT_API_URL']}{path}", json=body, timeout=60)
        assert reply.is_success or reply.status_code == 409, reply.text

    def graph(self, run: str) -> Graph:
        with Journal.open(self.journal) as journal:
            return run_graph(journal, journal.runs.get(run).id)

    def orders(self) -> int:
        """How many were placed on the platform in this test."""
        placed = self.platform.requests("POST", "/1/orders")
        return len([request for request in placed if (request["status"] or 500) < 300])

    def processes(self, runs: Iterable[str]) -> set[str]:
        """The processes, other than the flows' own, that ran tasks of these runs."""
        nodes = [node for run in runs for node in self.graph(run).nodes.values()]
        return {str(node.attributes["process"]) for node in nodes if "process" in node.attributes}

    def audit(self, run: str) -> None:
        """What a run that ended has asked for was accepted, and every task run that Prefect knows is on record."""
        with Journal.open(self.journal) as journal:
            # Prefect runs a flow's hooks, of which one closes the attempt, after it has told its server of the end.
            self.until("the end on record", lambda: journal.runs.get(run).outcome != "running", 60)
            found = journal.runs.get(run)
            assert (found.outcome, found.missing_facts) == ("completed", 0), f"{found}\n{self.said()}"
            rows = journal.intents.where(run_id=found.id, limit=None)
            attempts = journal.runs.attempts(found.id)
            self.counts["attempts"] += len(attempts)
        states = Counter((row.noun, row.state) for row in rows)
        assert {state for _, state in states} <= {"done"}, states
        graph = self.graph(run)
        starts = {link.target for link in graph.relations.values() if link.type == "wasStartedBy"}
        assert {flows_urn("attempt", attempt.id) for attempt in attempts} <= starts
        of_prefect = {flows_urn("task-run", each): about for each, about in self.task_runs(run).items()}
        recorded = {node.id for node in graph.nodes.values() if node.type == "task-run"}
        missing = [
            f"{each['name']}, {each['state_type']} since {each['start_time']}"
            for urn, each in of_prefect.items()
            if urn not in recorded and not self._died_young(each)
        ]
        assert of_prefect and not missing, f"not on record, with a kill at {self.killed}: {missing}"
        self.counts["task runs"] += len(of_prefect)
        self.counts["other processes"] += len(self.processes([run]))
        self.counts["orders"] = self.orders()

    def _died_young(self, task_run: Mapping[str, Any]) -> bool:
        """Whether its process was killed in the second in which it began: facts are written together."""
        if task_run["state_type"] != "RUNNING" or self.killed is None:
            return False
        begin, end = self.killed
        return begin - timedelta(seconds=1) < datetime.fromisoformat(task_run["start_time"]) < end

    def end(self) -> None:
        for machine in self.machines:
            machine.kill()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
