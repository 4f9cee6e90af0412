"""Starting on demand: one server per directory, clear errors, and an end when idle."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from ivcap_flows.errors import EmbeddedPlatformError, NewerSchemaError
from ivcap_flows.local import ensure, serve

ENSURE = "import sys; from ivcap_flows.local import ensure; t = ensure(sys.argv[1]); print(t.url, t.instance)"


@pytest.fixture
def started(tmp_path):
    """A directory whose on-demand server is stopped after the test."""
    root = tmp_path / "embedded"
    yield root
    with contextlib.suppress(OSError, ValueError):
        os.kill(json.loads((root / "server.json").read_text())["pid"], 15)


def test_eight_processes_get_one_server(started):
    """Eight processes that ask at the same time get the same URL and instance, of one server process."""

    def ask(_):
        done = subprocess.run([sys.executable, "-c", ENSURE, str(started)], capture_output=True, text=True, timeout=60)
        return done.stdout.strip() or done.stderr

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(ask, range(8)))
    assert len(answers) == 1 and next(iter(answers)).startswith("http://127.0.0.1:"), answers
    served = [pid for pid in os.listdir("/proc") if pid.isdigit() and _serves(pid, started)]
    assert len(served) == 1


def _serves(pid, root):
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return False
    return "serve" in command and str(root) in command


def test_a_second_call_finds_the_first_ones_server(started, monkeypatch):
    """A second call starts no process. Its value hides its tokens."""
    one = ensure(started)
    monkeypatch.delattr(subprocess, "Popen")
    assert ensure(started) == one
    assert one.environment["IVCAP_JWT"] not in repr(one) and one.control not in repr(one)
    assert (started / "server.json").stat().st_mode & 0o777 == 0o600
    assert httpx.get(one.url + "/_embedded").json()["instance"] == one.instance


def test_a_killed_server_is_replaced_under_the_same_instance(started):
    """The files of a killed server do not mislead anybody."""
    one = ensure(started)
    os.kill(json.loads((started / "server.json").read_text())["pid"], 9)
    two = ensure(started)
    assert two.instance == one.instance
    assert httpx.get(two.url + "/1/artifacts", headers={"Authorization": f"Bearer {one.environment['IVCAP_JWT']}"})


@pytest.mark.long
def test_an_idle_server_ends_and_takes_its_address_away(local_home):
    """With `--idle` a server without requests and jobs stops. A running job keeps it alive."""
    a = local_home.start("--idle", "0.6").caller()
    a.order("sleep", seconds="1.5")
    a.http.close()
    time.sleep(1.2)
    assert local_home.process.poll() is None, "ended while a job was running"
    assert local_home.process.wait(10) == 0
    assert not (local_home.root / "server.json").exists()


def test_a_second_server_of_a_directory_is_refused(local_home):
    """The error of a second `serve` names the process and URL of the first."""
    local_home.start()
    with pytest.raises(EmbeddedPlatformError, match=f"process {local_home.process.pid}") as refused:
        serve(directory=local_home.root)
    assert local_home.url in refused.value.message


@pytest.mark.long
def test_a_directory_of_a_newer_version_is_refused(local_home):
    """The error names both versions, however the server is started. Nothing is changed."""
    local_home.start().stop()
    database = local_home.root / "ivcap.sqlite"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 99")
    for start in (lambda: ensure(local_home.root), lambda: serve(directory=local_home.root, announce=False)):
        with pytest.raises(NewerSchemaError, match="newer version") as refused:
            start()
        assert refused.value.found == 99 and refused.value.known < 99


@pytest.mark.parametrize("start", [ensure, lambda root: serve(directory=root)])
def test_a_folder_that_cannot_be_used_is_named(tmp_path, start):
    """A path that leads through a file is an error with the path and the next step."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedPlatformError, match="IVCAP_LOCAL_DIR") as refused:
        start(tmp_path / "file" / "embedded")
    assert str(tmp_path / "file" / "embedded") in refused.value.message


def test_a_damaged_database_is_an_error_with_the_next_step(tmp_path):
    """A file that is no SQLite database is not overwritten."""
    root = tmp_path / "embedded"
    root.mkdir()
    (root / "ivcap.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(EmbeddedPlatformError, match="cannot be opened"):
        serve(directory=root)
    assert (root / "ivcap.sqlite").read_bytes().startswith(b"not a database")


def test_importing_the_package_loads_no_server():
    """A flow that finds a running server does not load Starlette and uvicorn."""
    heavy = "{'starlette', 'uvicorn', 'jwt', 'httpx', 'pydantic'}"
    code = f"import sys, ivcap_flows.local; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
