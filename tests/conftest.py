"""What every test gets: an environment without settings of the user's, and state in a temporary folder. On demand, from
`tests/shared`: a real Prefect server, process workers, embedded platforms, a PostgreSQL and an S3 server, each in
processes of their own."""

from __future__ import annotations

import atexit
import contextlib
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import psutil
import pytest

from ivcap_flows.secrets import scrubbing

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HELPERS = ("shared", "mutants", "checkouts", "scripted", "capture/ordinary", "journal/revisions")
sys.path[:0] = [str(Path(__file__).parent / folder) for folder in HELPERS]

from prefect_home import MIGRATED, frugal  # noqa: E402 - found by the line above

# Each of the hundreds of processes that tests start would else compile the package anew, and pytest all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
# On Python 3.11 before 3.11.12 it may stop a process for ever (docs/how-to/run-on-dask-or-ray.md).
os.environ["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "False"
# Threads of Prefect's outlive a test, and would start a server where none has an address, as between two tests.
os.environ["PREFECT_SERVER_EPHEMERAL_ENABLED"] = "false"
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
if MIGRATED.exists():
    Path(os.environ["PREFECT_HOME"]).mkdir()
    shutil.copy(MIGRATED, os.environ["PREFECT_HOME"])

os.environ.update(frugal(Path(os.environ["XDG_DATA_HOME"])))

SHARED = ("prefect_servers", "journals", "s3_servers", "on_platforms")
pytest_plugins = ["ivcap_flows.testing", *SHARED, "mutant_table", "ordinary_edges"]

OURS = ("IVCAP_", "PROVENA_")


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


@pytest.fixture
def own_series(tmp_path: Path) -> Path:
    """The examples' series with a value that no other test has, since equal content is published once."""
    measured = Path(__file__).parents[1] / "flows/data/ersst_nino12_monthly.csv"
    path = tmp_path / "series.csv"
    path.write_text(measured.read_text().replace("\n1960,24.400", f"\n1960,24.4{time.time_ns()}", 1))
    return path
