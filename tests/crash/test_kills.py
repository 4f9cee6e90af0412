"""`kill -9` of a flow at its worst moments; the same command again leaves one order and one model run.

`make test` kills on SQLite between reply and journal; `make kills N=20` repeats each. test_scenarios.py
kills orders at each moment.
"""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import until
from harness.ledger import Ledger
from harness.stage import Fork, Forks
from other_processes import settings_of_platforms

from ivcap_flows.cli import main

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

PIPELINE = Path(__file__).with_name("pipeline.py")
ITEMS = ("ORGANISATION", "MODEL", "DATASET_TEMPLATE", "MODEL_RUN_WORKFLOW_TEMPLATE")
REGISTER = "/provena/prov/model_run/register"


class Flow:
    """The flow in this test's folder and environment, each time in a process of its own."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        self.folder, self.forks = folder, forks
        self.source, self.log = folder / "series.csv", folder / "flow.log"
        self.source.write_text(f"YEAR,JAN\n1950,{time.time_ns()}\n", encoding="utf-8")

    def start(self, **variables: str) -> Fork:
        ours = {**settings_of_platforms(), **variables}
        words = ["run", f"{PIPELINE}:pipeline", "-p", f"source={self.source}"]
        return self.forks.start(ours, folder=self.folder, out=self.log, log=self.log, words=words)

    def again(self) -> str:
        """The same once more; it must succeed."""
        assert self.start().wait(120) == 0, self.said
        return self.log.read_text()

    @property
    def said(self) -> str:
        return self.log.read_text()[-6000:]


@pytest.fixture(scope="module")
def forks(prefect_server: dict[str, str]) -> Iterator[Forks]:
    made = Forks(prefect_server)
    yield made
    made.close()


@pytest.fixture
def killed_flow(tmp_path, forks, embedded_platform, round_) -> Flow:
    return Flow(tmp_path, forks)


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
    until(lambda: process.status is not None or embedded_platform.requests("POST", REGISTER))
    assert process.status is None, killed_flow.said
    process.kill()
    process.wait(10)
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
