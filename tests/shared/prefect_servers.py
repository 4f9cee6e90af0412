"""Fixtures of real Prefect servers, of their settings, and of process workers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from other_processes import come_up, end_at_once, free_port, stop, turn
from prefect_home import MIGRATED, frugal, keep_migrated

PREFECT = [sys.executable, "-m", "prefect"]


def start_prefect_server(
    home: Path, environment: dict[str, str], *, interface: bool = False
) -> subprocess.Popen[bytes]:
    on_sqlite = "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in environment
    database = home / "prefect.db"
    if on_sqlite and MIGRATED.exists() and not database.exists():
        shutil.copy(MIGRATED, database)
    host, port = environment["PREFECT_API_URL"].removeprefix("http://").removesuffix("/api").split(":")
    log = home / "server.log"
    with log.open("wb") as said:
        program = str(Path(__file__).with_name("prefect_server.py"))
        command = [sys.executable, program, "server", "start", "--host", host, "--port", port]
        command += ["--ui" if interface else "--no-ui"]
        server = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
    health = f"{environment['PREFECT_API_URL']}/health"

    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=2):
            return True
        return False

    come_up(server, answers, log, 150)
    if on_sqlite and not MIGRATED.exists():
        keep_migrated(database)
    return server


def environment_of_clients(home: Path, **settings: str) -> dict[str, str]:
    """That of a server with this home."""
    others = ("PREFECT_", "IVCAP", "PROVENA")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(others)},
        **frugal(home),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        **settings,
    }


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server on SQLite; the value is the environment in which its clients run.

    Its start takes longer than most tests, so the processes of a session share one: the first that needs it starts it,
    the last ends it.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    home, told, users = folder / "prefect", folder / "prefect.json", folder / "prefect-users"
    server: subprocess.Popen[bytes] | None = None
    with turn(folder / "prefect.lock"):
        home.mkdir(exist_ok=True)
        users.mkdir(exist_ok=True)
        environment = environment_of_clients(
            home,
            PREFECT_WORKER_QUERY_SECONDS="1",
            PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS="2",
            # Events are listed once they are written, by default every 5 s.
            PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL="0.3",
            # No test has automations, whose triggers are else held against each event.
            PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED="false",
        )
        if not told.exists():
            environment["PREFECT_API_URL"] = f"http://127.0.0.1:{free_port()}/api"
            server = start_prefect_server(home, environment)
            told.write_text(json.dumps({"pid": server.pid, "url": environment["PREFECT_API_URL"]}))
        known = json.loads(told.read_text())
        environment["PREFECT_API_URL"] = known["url"]
        (users / str(os.getpid())).touch()
    yield environment
    with turn(folder / "prefect.lock"):
        (users / str(os.getpid())).unlink()
        if not any(users.iterdir()):
            told.unlink()
            # The process that started it may be another, and gone.
            with contextlib.suppress(psutil.NoSuchProcess):
                stop(psutil.Process(known["pid"]))
    if server is not None:
        # Whether this process or another has ended it or will: it is not left behind.
        server.returncode = 0


class OwnPrefect:
    """A Prefect server with settings of its own, and with its web interface if asked for. `environment` is that in
    which its clients run; it keeps its port and what it knows when it ends and starts again."""

    def __init__(self, home: Path, *, interface: bool = False, **settings: str) -> None:
        self._home, self._interface = home, interface
        url = f"http://127.0.0.1:{free_port()}/api"
        self.environment = environment_of_clients(home, PREFECT_API_URL=url, **settings)
        self.start()

    def start(self) -> None:
        self._server = start_prefect_server(self._home, self.environment, interface=self._interface)

    def end(self) -> None:
        stop(self._server)

    def kill(self) -> None:
        end_at_once(self._server)


@contextlib.contextmanager
def own_prefect_server(home: Path, *, interface: bool = False, **settings: str) -> Iterator[dict[str, str]]:
    """Run a Prefect server of this kind, and yield the environment of its clients."""
    server = OwnPrefect(home, interface=interface, **settings)
    try:
        yield server.environment
    finally:
        server.end()


@pytest.fixture(scope="session")
def prefect_settings(prefect_server: dict[str, str]) -> dict[Any, Any]:
    """The settings by which flows of a test's own process run by that server, without heartbeat and logs to the API."""
    # Imported late: most tests need no Prefect.
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_HOME,
        PREFECT_LOGGING_TO_API_ENABLED,
    )

    return {
        PREFECT_API_URL: prefect_server["PREFECT_API_URL"],
        PREFECT_HOME: prefect_server["PREFECT_HOME"],
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_LOGGING_TO_API_ENABLED: False,
    }


@pytest.fixture(scope="session")
def _context_of_prefect(prefect_settings: dict[Any, Any]) -> object:
    """Made once: Prefect takes a tenth of a second for it."""
    from prefect.context import get_settings_context
    from prefect.settings import temporary_settings

    with temporary_settings(prefect_settings):
        return get_settings_context()


@pytest.fixture
def prefect_api(_context_of_prefect: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows and blocks of the test's own process are on that server by these settings.

    So are Prefect's own threads, which would start a server of their own without its address.
    """
    monkeypatch.setattr("prefect.context.GLOBAL_SETTINGS_CONTEXT", _context_of_prefect)


@pytest.fixture(scope="session")
def work_pool(prefect_server: dict[str, str]) -> str:
    """A pool for process workers."""
    subprocess.run(
        [*PREFECT, "work-pool", "create", "local", "--type", "process", "--overwrite"],
        env=prefect_server,
        check=True,
        capture_output=True,
    )
    return "local"


@pytest.fixture
def worker(
    prefect_server: dict[str, str], work_pool: str, tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts process workers of the pool `local`, each with variables of its own added; all end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**variables: str) -> subprocess.Popen[bytes]:
        with open(tmp_path / f"worker-{len(started)}.log", "wb") as log:
            process = subprocess.Popen(
                [*PREFECT, "worker", "start", "--pool", work_pool],
                env={**prefect_server, **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        # Asked to end, a worker takes its time, and what it ran has ended.
        end_at_once(process)
