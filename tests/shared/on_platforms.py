"""Fixtures of what is on the session's embedded platforms: items, services, requests that took effect, failed jobs."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from provena_items import Registry, ask_provena, make_registry
from registration_rows import Items, make_items

from ivcap_flows import loop
from ivcap_flows.blocks import ProvenaCredentials, resolve
from ivcap_flows.durable import poller
from ivcap_flows.forked import PerProcess
from ivcap_flows.http import session
from ivcap_flows.http.retry import Backoff
from ivcap_flows.journal import IntentRow, Journal
from ivcap_flows.local import EmbeddedPlatform, PlatformControl
from ivcap_flows.local.directory import Directory
from ivcap_flows.local.services.register import register
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.registration.job_watch import JobWatch


@pytest.fixture(scope="module")
def quick_polls() -> Iterator[None]:
    """Who waits for work of the embedded platforms, which end it within a second, looks ten times as often."""
    from ivcap_flows.tasks import jobs
    from ivcap_flows.tasks.poll_sources import ask_later

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(poller, "SHORTEST", poller.SHORTEST / 10)
        patch.setattr(jobs, "ask_later", lambda urn, seconds: ask_later(urn, seconds and seconds / 10))
        patch.setattr("ivcap_flows.provena.jobs.FIRST_INTERVAL", 0.05)
        patch.setitem(JobWatch.__init__.__kwdefaults__, "pauses", (0.05, 0.2))
        yield


@pytest.fixture(scope="module")
def short_backoff(quick_polls: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Clients of this module's own, with a short back-off: a test repairs what it breaks within a second, or within the
    `BUDGET` of its module, or never."""
    most = getattr(request.module, "BUDGET", 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "Backoff", lambda budget: Backoff(first=0.05, cap=0.2, budget=min(budget, most)))
        patch.setattr(resolve, "_clients", PerProcess(resolve._Clients))
        yield
        resolve._close_all()


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts are a hundredth of a second at most."""
    monkeypatch.setattr(Backoff, "ceiling", lambda self, attempt: 0.01)


@pytest.fixture(scope="session")
def registry(_embedded: EmbeddedPlatform) -> Registry:
    """The items of the embedded Provena that a registration names. No test changes them."""
    return ask_provena(_embedded, make_registry)


@pytest.fixture(scope="session")
def run_items(_embedded: EmbeddedPlatform) -> Items:
    """What rows of model runs name on the embedded Provena. No test changes it."""
    return ask_provena(_embedded, make_items)


@pytest.fixture
def provena(embedded_platform: PlatformControl, short_backoff: None) -> Iterator[ProvenaClient]:
    """A client of the embedded Provena that gives up within a second; the log of requests is empty."""
    client = ProvenaCredentials.from_environment().get_client()
    embedded_platform.forget_requests()
    yield client
    loop.run(client.aclose())


@dataclass
class Effects:
    """The results of a test: requests on the platform, and intents in the journal."""

    embedded: PlatformControl
    journal: Journal

    def count(self, path: str, method: str = "POST") -> int:
        """Return how many requests of exactly this path took effect."""
        return self._took_effect(method, f"^{re.escape(path)}$")

    def posts(self, ending: str) -> int:
        """Return how many POST requests took effect whose path ends so."""
        return self._took_effect("POST", f"{re.escape(ending)}$")

    def _took_effect(self, method: str, path: str) -> int:
        return len([each for each in self.embedded.requests(method, path) if (each["status"] or 500) < 300])

    def flow_run(self) -> str:
        """Return the id of the newest run at Prefect."""
        [run, *_] = self.journal.runs.recent(1)
        return str(self.journal.runs.attempts(run.id)[0].flow_run_id)

    def intents(self, noun: str) -> list[IntentRow]:
        """Return the intents of a noun, in the order in which they were made."""
        return self.journal.intents.where(noun=noun)


@pytest.fixture
def effects(embedded_platform: PlatformControl, ivcap_journal: Journal) -> Effects:
    """The effects of what the test runs."""
    return Effects(embedded_platform, ivcap_journal)


@contextlib.contextmanager
def _provena_database(embedded: EmbeddedPlatform) -> Iterator[sqlite3.Connection]:
    place = Directory(embedded.directory).root / "provena.sqlite"
    with contextlib.closing(sqlite3.connect(place, timeout=10, isolation_level=None)) as connection:
        yield connection


@pytest.fixture
def leave_pending(_embedded: EmbeddedPlatform) -> Callable[[str], None]:
    """Leaves an artifact without bytes pending, as a platform may for ever."""

    def leave(urn: str) -> None:
        place = Directory(_embedded.directory).root / "ivcap.sqlite"
        with contextlib.closing(sqlite3.connect(place, timeout=10, isolation_level=None)) as connection:
            changed = connection.execute("UPDATE artifacts SET status = 'pending' WHERE id = ? AND size = 0", (urn,))
            assert changed.rowcount == 1

    return leave


FAIL = "UPDATE jobs SET status = 'FAILED', info = 'Out of luck.', due = NULL WHERE "


@pytest.fixture
def fail_job(_embedded: EmbeddedPlatform) -> Callable[[str], None]:
    """Ends the job that lodges the run of this display name, and that stands still, as failed."""

    def fail(name: str) -> None:
        lodges = "job_sub_type = 'MODEL_RUN_PROV_LODGE' AND json_extract(payload, '$.record.display_name') = ?"
        with _provena_database(_embedded) as connection:
            assert connection.execute(FAIL + lodges, (name,)).rowcount == 1

    return fail


@pytest.fixture
def failing_jobs(_embedded: EmbeddedPlatform) -> Callable[..., contextlib.AbstractContextManager[None]]:
    """While its block runs, jobs that lodge a model run, of this display name if given, fail as soon as they exist."""

    @contextlib.contextmanager
    def failing(name: str | None = None) -> Iterator[None]:
        lodges = "NEW.job_sub_type = 'MODEL_RUN_PROV_LODGE'"
        if name is not None:
            lodges += f" AND json_extract(NEW.payload, '$.record.display_name') = '{name}'"
        fail = f"{FAIL} session_id = NEW.session_id;"
        with _provena_database(_embedded) as connection:
            connection.execute(f"CREATE TRIGGER out_of_luck AFTER INSERT ON jobs WHEN {lodges} BEGIN {fail} END")
            try:
                yield
            finally:
                connection.execute("DROP TRIGGER out_of_luck")

    return failing


EXAMPLES = sorted((Path(__file__).parents[2] / "flows/services").glob("*.yaml"))


def register_examples(embedded: EmbeddedPlatform) -> None:
    """Register the services of the example flows."""
    PlatformControl(embedded).register(*EXAMPLES)


@pytest.fixture(scope="session")
def example_services(_embedded: EmbeddedPlatform) -> None:
    """The services of the example flows are on the session's platforms."""
    register_examples(_embedded)


@pytest.fixture(scope="session")
def serve(_embedded: EmbeddedPlatform, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return `serve(name, code, parameters)`, which registers a service, the function `run` of the code, and returns
    its name."""

    def register_service(name: str, code: str, parameters: Sequence[dict[str, Any]] = (), **more: Any) -> str:
        folder = tmp_path_factory.mktemp(name)
        module = f"service_{name.replace('-', '_')}"
        (folder / "setup.cfg").touch()
        (folder / f"{module}.py").write_text(code)
        definition = {"name": name, "entry": f"{module}:run", "parameters": list(parameters), **more}
        register(_embedded.url, _embedded.environment["IVCAP_JWT"], definition, folder / "services.yaml")
        return name

    return register_service


ENDS_WITH_A_FILE = """
import time
from pathlib import Path

def run(request, job):
    while not Path(request["file"]).exists():
        time.sleep(0.05)
"""


@pytest.fixture(scope="session")
def file_service(serve: Callable[..., str]) -> str:
    """The name of a service whose orders end when the file exists that they name."""
    return serve("ends-with-a-file", ENDS_WITH_A_FILE, [{"name": "file", "type": "string"}])
