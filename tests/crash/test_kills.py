"""`kill -9` of a flow at its worst moments; the same command again leaves one order and one model run.

`make crash N=20` repeats each of them.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ivcap_flows.local.remote import TwinControl

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

PIPELINE = Path(__file__).with_name("pipeline.py")
ROUTES = {"order": "/1/orders", "model run": "/provena/prov/model_run/register"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("round_", range(metafunc.config.getoption("--crash-rounds")))


class Flow:
    """The command that a user types, in this test's folder and environment."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        (folder / "series.csv").write_text(f"YEAR,JAN\n1950,{time.time_ns()}\n", encoding="utf-8")

    def start(self, **variables: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(PIPELINE), str(self.folder / "series.csv")]
        environment = {**self.environment, **variables}
        with open(self.folder / "flow.log", "ab") as log:
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def again(self) -> str:
        """The same command once more; it must succeed."""
        status = self.start().wait(120)
        said = (self.folder / "flow.log").read_text()
        assert status == 0, said[-6000:]
        return said

    def shown(self) -> dict:
        done = subprocess.run(
            [sys.executable, "-m", "ivcap_flows.cli", "show", "latest", "--json"],
            cwd=self.folder,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return json.loads(done.stdout)


@pytest.fixture
def killed_flow(tmp_path, prefect_server, ivcap_twin, round_) -> Flow:
    ours = {name: value for name, value in os.environ.items() if name.startswith(("IVCAP", "PROVENA"))}
    return Flow(tmp_path, {**prefect_server, **ours})


@pytest.fixture
def on_either_database(journal_url, monkeypatch) -> None:
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", journal_url)


def until(condition: Callable[[], object], flow: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert flow.poll() is None, (folder / "flow.log").read_text()[-6000:]
        assert time.monotonic() < end
        time.sleep(0.02)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def accepted(twin: TwinControl, noun: str) -> int:
    return len([r for r in twin.requests("POST", ROUTES[noun]) if (r["status"] or 500) < 300])


def check(flow: Flow, twin: TwinControl) -> None:
    """One order and one model run on the platforms, one run with both attempts on record."""
    assert accepted(twin, "order") == 1
    assert accepted(twin, "model run") == 1
    assert len(twin.requests("POST", "/1/artifacts")) == 1
    shown = flow.shown()
    assert [a["outcome"] for a in shown["attempts"]] == ["lost", "completed"]
    effects = [(e["noun"], e["state"]) for e in shown["effects"]]
    assert effects.count(("order", "terminal")) == 1 and effects.count(("model run", "accepted")) == 1


def test_killed_at_the_wait(killed_flow, ivcap_twin):
    """Killed while it waits, the flow goes on with the order that it had placed."""
    process = killed_flow.start()
    until(lambda: [r for r in ivcap_twin.requests("GET") if "/1/orders/" in r["path"]], process, killed_flow.folder)
    kill(process)
    assert "Continues run" in killed_flow.again()
    check(killed_flow, ivcap_twin)


@pytest.mark.parametrize("noun", ROUTES)
def test_killed_just_after_the_request_was_sent(killed_flow, ivcap_twin, noun):
    """The platform took the request, and no reply came before the kill: the effect is found and adopted."""
    # The effect takes place at once; what is delayed is only that anybody hears of it.
    ivcap_twin.add_fault(method="POST", path=f"^{ROUTES[noun]}$", count=1, drop_reply_after_effect=True)
    ivcap_twin.add_fault(
        method="GET", path="^/1/(orders|aspects)$" if noun == "order" else "^/provena/job", delay=3.0, count=2
    )
    process = killed_flow.start()
    until(lambda: ivcap_twin.requests("POST", ROUTES[noun]), process, killed_flow.folder)
    kill(process)
    killed_flow.again()
    check(killed_flow, ivcap_twin)


@pytest.mark.usefixtures("on_either_database")
@pytest.mark.parametrize("noun", ROUTES)
def test_killed_between_the_reply_and_its_being_written(killed_flow, ivcap_twin, noun):
    """The reply came and the journal never heard of it: the effect is found and adopted."""
    process = killed_flow.start(KILL_BEFORE_OUTCOME_OF=f"{noun}:{killed_flow.folder / 'killed'}")
    assert process.wait(90) == -signal.SIGKILL, (killed_flow.folder / "flow.log").read_text()[-6000:]
    killed_flow.again()
    check(killed_flow, ivcap_twin)
