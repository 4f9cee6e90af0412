"""Starting on demand: one server per directory, clear errors, and an end when idle."""

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from ivcap_flows.errors import EmbeddedPlatformError, NewerSchemaError
from ivcap_flows.local import ensure, serve

ENSURE = "import sys; from ivcap_flows.local import ensure; t = ensure(sys.argv[1]); print(t.url, t.instance)"


def server_of(root):
    return psutil.Process(json.loads((root / "server.json").read_text())["pid"])


@pytest.fixture
def started(tmp_path):
    """A directory whose on-demand server is stopped after the test."""
    root = tmp_path / "embedded"
    yield root
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        server_of(root).terminate()


def test_many_processes_get_one_server(started):
    """Processes that ask at the same time get the same URL and instance, of one server process."""

    def ask(_):
        done = subprocess.run([sys.executable, "-c", ENSURE, str(started)], capture_output=True, text=True, timeout=120)
        return done.stdout.strip() or done.stderr

    with ThreadPoolExecutor(4) as pool:
        (answer,) = set(pool.map(ask, range(4)))
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert len([command for command in commands if "serve" in command and str(started) in command]) == 1
    url, instance = answer.split()
    assert httpx.get(url + "/_embedded").json()["instance"] == instance
    assert (started / "server.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.long
def test_an_idle_server_ends_and_takes_its_address_away(local_home):
    """With `--idle` a server without requests and jobs stops. A running job keeps it alive."""
    caller = local_home.start("--idle", "0.6").caller()
    caller.order("sleep", seconds="5.0")
    caller.http.close()
    time.sleep(2.0)
    assert local_home.process.poll() is None, "ended while a job was running"
    assert local_home.process.wait(60) == 0
    assert not (local_home.root / "server.json").exists()


def test_jobs_end_with_the_platform_where_that_is_asked_for(local_home):
    """As at the end of a session of tests, whose folders nobody uses again. Else a job goes on without a server."""
    caller = local_home.start().caller()
    caller.executing(caller.order("sleep", seconds="600"))
    platform = ensure(local_home.root)
    platform.end()
    assert local_home.process.wait(60) == 0 and local_home.runners()
    platform = ensure(local_home.root)
    platform.end_with_jobs()
    assert not local_home.runners() and not (local_home.root / "server.json").exists()


def test_a_second_server_of_a_directory_is_refused(local_platform):
    """The error of a second `serve` names the process and URL of the first."""
    with pytest.raises(EmbeddedPlatformError, match=f"process {local_platform.process.pid}") as refused:
        serve(directory=local_platform.root)
    assert local_platform.url in refused.value.message


@pytest.mark.long
def test_a_directory_of_a_newer_version_is_refused(local_home):
    """The error names both versions, however the server is started. Nothing is changed."""
    local_home.start().stop()
    with sqlite3.connect(local_home.root / "ivcap.sqlite") as connection:
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


def test_a_server_that_cannot_start_after_a_killed_one_says_so_at_once(local_home):
    """What the killed one wrote about itself is no reason to wait for it."""
    local_home.start().kill()
    (local_home.root / "provena.sqlite").write_bytes(b"not a database" * 100)
    for beside in ("-wal", "-shm"):
        (local_home.root / f"provena.sqlite{beside}").unlink(missing_ok=True)
    begun = time.monotonic()
    with pytest.raises(EmbeddedPlatformError, match=r"provena\.sqlite cannot be opened"):
        ensure(local_home.root)
    assert time.monotonic() - begun < 20


def test_importing_the_package_loads_no_server():
    """A flow that finds a running server does not load Starlette and uvicorn."""
    heavy = "{'starlette', 'uvicorn', 'jwt', 'httpx', 'pydantic'}"
    code = f"import sys, ivcap_flows.local; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
