"""`kill -9` of a flow at its worst moments; the same command again leaves one order and one model run.

`make test` kills on SQLite between reply and journal; `make kills N=20` repeats each. test_scenarios.py
kills orders at each moment.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivcap_flows.cli import main

sys.path.insert(0, str(Path(__file__).parent))

from harness.ledger import Ledger

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

PIPELINE = Path(__file__).with_name("pipeline.py")
ITEMS = ("ORGANISATION", "MODEL", "DATASET_TEMPLATE", "MODEL_RUN_WORKFLOW_TEMPLATE")
REGISTER = "/provena/prov/model_run/register"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("round_", range(metafunc.config.getoption("--crash-rounds")))


class Process:
    """A process that was forked from the server, whose child it is."""

    def __init__(self, server: subprocess.Popen[bytes], asked: dict[str, object]) -> None:
        assert server.stdin is not None and server.stdout is not None
        self.told = server.stdout
        server.stdin.write(json.dumps(asked).encode() + b"\n")
        self.pid = int(self.told.readline())
        self.status: int | None = None

    def poll(self) -> int | None:
        if self.status is None and select.select([self.told], [], [], 0)[0]:
            self.wait(0)
        return self.status

    def wait(self, seconds: float) -> int:
        if self.status is None:
            assert select.select([self.told], [], [], seconds)[0], f"process {self.pid} does not end"
            self.status = int(self.told.readline())
        return self.status

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert self.wait(10) == -signal.SIGKILL

    def end(self) -> None:
        """Leave nothing of it to be told, however the test went."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait(10)


class Flow:
    """The flow in this test's folder and environment, each time in a process of its own."""

    def __init__(self, folder: Path, server: subprocess.Popen[bytes]) -> None:
        self.folder, self.server = folder, server
        self.source, self.log = folder / "series.csv", folder / "flow.log"
        self.source.write_text(f"YEAR,JAN\n1950,{time.time_ns()}\n", encoding="utf-8")
        self.processes: list[Process] = []

    def start(self, **variables: str) -> Process:
        asked = {"source": str(self.source), "environment": {**ours(), **variables}, "log": str(self.log)}
        self.processes.append(Process(self.server, asked))
        return self.processes[-1]

    def again(self) -> str:
        """The same once more; it must succeed."""
        status = self.start().wait(120)
        assert status == 0, self.said
        return self.log.read_text()

    @property
    def said(self) -> str:
        return self.log.read_text()[-6000:]


def ours() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("IVCAP", "PROVENA"))}


@pytest.fixture(scope="module")
def flow_server(prefect_server: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(PIPELINE), "--serve"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=prefect_server
    ) as server:
        yield server
        assert server.stdin is not None
        server.stdin.close()


@pytest.fixture
def killed_flow(tmp_path, flow_server, embedded_platform, round_) -> Iterator[Flow]:
    flow = Flow(tmp_path, flow_server)
    yield flow
    for process in flow.processes:
        process.end()


@pytest.fixture
def on_either_database(journal_url, monkeypatch) -> None:
    monkeypatch.setenv("IVCAP_FLOWS_JOURNAL", journal_url)


def shown(capsys: pytest.CaptureFixture[str]) -> dict:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["show", "latest", "--json"])
    assert ended.value.code == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def ledger(_embedded, embedded_platform) -> Ledger:
    return Ledger(_embedded.directory)


def check(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """One of each on the platforms, by their own books; one run with both attempts on record."""
    assert len(ledger.orders()) == 1
    assert len(ledger.artifacts()) == 1
    assert len(ledger.aspects("urn:example:schema:note.1")) == 1
    assert len(ledger.items("MODEL_RUN")) == 1 and len(ledger.lodged()) == 1
    # The items are the account's, so an earlier test may have registered them; the dataset is of this test's artifact.
    items = [name for kind in ITEMS for name in ledger.items(kind)]
    assert len(items) == len(set(items))
    assert len(ledger.items("DATASET")) == 1
    run = shown(capsys)
    assert [a["outcome"] for a in run["attempts"]] == ["lost", "completed"]
    effects = [(e["noun"], e["state"]) for e in run["effects"]]
    assert effects.count(("order", "done")) == 1 and effects.count(("model run", "done")) == 1


@pytest.mark.long
def test_killed_just_after_the_request_was_sent(killed_flow, embedded_platform, ledger, capsys):
    """Provena took the request, and no reply came before the kill: the effect is found and adopted."""
    # The effect takes place at once; what is delayed is only that anybody hears of it.
    embedded_platform.add_fault(method="POST", path=f"^{REGISTER}$", count=1, drop_reply_after_effect=True)
    embedded_platform.add_fault(method="GET", path="^/provena/job", delay=3.0, count=2)
    process = killed_flow.start()
    end = time.monotonic() + 60
    while not embedded_platform.requests("POST", REGISTER):
        assert process.poll() is None and time.monotonic() < end, killed_flow.said
        time.sleep(0.02)
    process.kill()
    assert "Continues run" in killed_flow.again()
    check(ledger, capsys)


@pytest.mark.usefixtures("on_either_database")
@pytest.mark.parametrize("journal_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
@pytest.mark.parametrize("noun", ["order", pytest.param("model run", marks=pytest.mark.long)])
def test_killed_between_the_reply_and_its_being_written(killed_flow, ledger, capsys, noun):
    """The reply came and the journal never heard of it: the effect is found and adopted."""
    process = killed_flow.start(KILL_BEFORE_OUTCOME_OF=f"{noun}:{killed_flow.folder / 'killed'}")
    assert process.wait(90) == -signal.SIGKILL, killed_flow.said
    killed_flow.again()
    check(ledger, capsys)
