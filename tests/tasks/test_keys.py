"""Keys and runs depend only on the request, not on the process, folder or host."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from other_processes import settings_of_platforms

from ivcap_flows.journal import Journal

pytestmark = pytest.mark.timeout(300)

FLOW = Path(__file__).with_name("keyed_flow.py")
HOSTS = [
    {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C", "MIME_TYPES": "application/geo+json geojson\n"},
    {"PYTHONHASHSEED": "2", "TZ": "Australia/Darwin", "LC_ALL": "C.UTF-8", "MIME_TYPES": "text/x-map geojson\n"},
    {"PYTHONHASHSEED": "3", "TZ": "America/Lima", "LC_ALL": "POSIX", "MIME_TYPES": "text/plain txt\n"},
]
"""What differs from one host or process to another and is none of a request's business."""


@pytest.fixture(scope="session", autouse=True)
def keyed_service(serve) -> None:
    """The service for the flow's orders and jobs."""
    parameters = [{"name": "message", "type": "string"}, {"name": "around", "type": "string"}]
    serve("keyed", "def run(request, job):\n    return {}\n", parameters, **{"request-schema": {"type": "object"}})


@pytest.fixture
def checkout(tmp_path: Path, unique: str) -> Callable[[str], Path]:
    """Return a function that makes the same project in a new folder of this name."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        (folder / ".git").mkdir(parents=True)
        (folder / "flows/data").mkdir(parents=True)
        shutil.copy(FLOW, folder / "flows")
        (folder / "flows/data/unique.txt").write_text(unique)
        (folder / "flows/data/coast.geojson").write_text(json.dumps({"type": "Feature", "id": unique}))
        return folder

    return make


@pytest.fixture
def start(prefect_server, embedded_platform, tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return `start(checkout, scope, host)`.

    It runs the flow of a checkout in its own process, as on one of the hosts.
    """

    def run(folder: Path, scope: str, host: int, **more: str) -> subprocess.CompletedProcess[str]:
        table = tmp_path / f"mime-{host}.types"
        table.write_text(HOSTS[host]["MIME_TYPES"])
        environment = {**prefect_server, **settings_of_platforms(), **HOSTS[host], "MIME_TYPES": str(table), **more}
        # Beside the code, or elsewhere and by its relative path.
        place = [folder / "flows", folder, tmp_path][host]
        command = [sys.executable, os.path.relpath(folder / "flows/keyed_flow.py", place), scope]
        return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def books(effects, on_platform, unique) -> Callable[[], dict[str, int]]:
    """Return how many effects of each kind the platform has got from the flow."""

    def count() -> dict[str, int]:
        posts = [r["path"] for r in effects.embedded.requests("POST") if r["status"] is not None and r["status"] < 300]

        async def aspects(client):
            return [record async for record in client.aspects.list(entity=f"urn:example:{unique}")]

        return {
            "artifacts": posts.count("/1/artifacts"),
            "orders": posts.count("/1/orders"),
            "jobs": len([path for path in posts if path.endswith("/jobs")]),
            "aspects": len(on_platform(aspects)),
        }

    return count


ONE = {"artifacts": 1, "orders": 1, "jobs": 2, "aspects": 1}


@pytest.mark.long
def test_a_killed_script_is_continued_from_another_place_and_host(
    checkout, start, books, ivcap_journal: Journal
) -> None:
    """Another hash seed, time zone, locale, MIME table, working folder and checkout continue the same run with the same
    effects."""
    here = checkout("here")
    first = start(here, "run", 0, DIE="1")
    assert first.returncode == -signal.SIGKILL, first.stderr[-3000:]
    again = start(checkout("there"), "run", 1, DIE="1")
    assert again.returncode == -signal.SIGKILL, again.stderr[-3000:]
    assert f"(attempt 2), which was {here}/flows/keyed_flow.py:keyed before" in again.stderr
    far = checkout("elsewhere/far")
    last = start(far, "run", 2)
    assert last.returncode == 0, last.stderr[-3000:]
    [run] = ivcap_journal.runs.recent()
    # Where the code is now: what shows it or runs it again goes there.
    assert run.entry_point == f"{far}/flows/keyed_flow.py:keyed"
    assert [attempt.outcome for attempt in ivcap_journal.runs.attempts(run.id)] == ["lost", "lost", "completed"]
    assert books() == ONE


@pytest.mark.long
def test_two_checkouts_of_a_flow_share_what_is_of_scope_flow(checkout, start, books, ivcap_journal: Journal) -> None:
    """Runs in different folders, as after `git_clone`, share the order of scope `flow`."""
    for host, name in enumerate(("first", "second")):
        done = start(checkout(name), "flow", host)
        assert done.returncode == 0, done.stderr[-3000:]
    assert [run.outcome for run in ivcap_journal.runs.recent()] == ["completed"] * 2
    assert books() == ONE
