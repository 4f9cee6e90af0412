"""The platforms are away for a whole run and an hour more, and `sync` is killed at random moments: the record of each
run, and each model run, is in the platforms' books once.

`make test` kills `sync` twice, `make proofs` five times, and `make kills N=20` a hundred times.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from eventually import until
from harness.stage import Forks
from prefect import flow, task
from provena_items import ask_provena, create, make_registry

from ivcap_flows import loop, recorded
from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.capture import use_journal
from ivcap_flows.cli.sync import sync
from ivcap_flows.handles import Artifact
from ivcap_flows.http import session
from ivcap_flows.http.retry import Backoff
from ivcap_flows.identity import flows_urn
from ivcap_flows.journal import Fact, Journal, RunIdentity
from ivcap_flows.local import PlatformControl, ensure
from ivcap_flows.local.directory import Directory
from ivcap_flows.provena.client import ProvenaClient
from ivcap_flows.provena.models import ModelRun as ModelRunInfo
from ivcap_flows.provena.models import TemplateUse, WorkflowTemplate
from ivcap_flows.provenance import activity, entity, relation
from ivcap_flows.sinks import LINK_SCHEMA, RUN_SCHEMA

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

FLOW = "away"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of embedded platforms of this module's own, which may be ended."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def workflow(home: Path) -> Iterator[dict[str, Any]]:
    """The entry that makes runs of the flow model runs, once the platforms have the templates that it names."""
    embedded = ensure(home, idle=600.0)

    async def made(client: ProvenaClient) -> dict[str, Any]:
        items = await make_registry(client)
        uses = [TemplateUse(template_id=items.template)]
        work = WorkflowTemplate(display_name="W", software_id=items.model, input_templates=uses)
        return {
            "flow": FLOW,
            "workflow_template": await create(client, work),
            "inputs": {"series": items.template},
            "terms": items.terms.model_dump(mode="json", exclude_none=True),
        }

    yield ask_provena(embedded, made)
    ensure(home).end()


@pytest.fixture
def environment(
    home: Path, workflow: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The platforms run; the environment names them, a journal of the test's own and both as sinks."""
    (tmp_path / "workflows.yaml").write_text(yaml.safe_dump([workflow]))
    variables = {
        **ensure(home, idle=600.0).environment,
        "IVCAP_LOCAL_DIR": str(home),
        "IVCAP_FLOWS_JOURNAL": f"sqlite:///{tmp_path / 'journal.sqlite'}",
        "IVCAP_FLOWS_SINKS": f"ivcap,provena:{tmp_path / 'workflows.yaml'}",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def new_artifact(home: Path) -> Artifact:
    platform = ensure(home).instance
    return Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform=platform, name="series.csv")


class Books:
    """What the platforms have written down of runs."""

    def __init__(self, home: Path) -> None:
        self._place = Directory(home).root

    def _rows(self, database: str, query: str, *values: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self._place / database, timeout=20)) as connection:
            return connection.execute(query, values).fetchall()

    def stated(self, schema: str) -> Counter[tuple[str, str]]:
        """How often each run is stated about each entity now, by (run, entity)."""
        rows = self._rows(
            "ivcap.sqlite",
            "SELECT json_extract(content, '$.run'), entity FROM aspects WHERE schema = ? AND valid_to IS NULL",
            schema,
        )
        return Counter((run, about) for run, about in rows)

    def twice(self) -> list[tuple[Any, ...]]:
        """What was ever stated twice in the same words."""
        return self._rows(
            "ivcap.sqlite",
            "SELECT entity, schema, count(*) FROM aspects WHERE schema IN (?, ?) "
            "GROUP BY entity, schema, content HAVING count(*) > 1",
            RUN_SCHEMA,
            LINK_SCHEMA,
        )


def model_runs() -> Counter[str]:
    """How many model runs Provena has of each subject."""

    async def read() -> Counter[str]:
        async with ProvenaCredentials.from_environment().get_client() as client:
            items = [item async for item in client.registry.list(ModelRunInfo)]
            return Counter((item.info.record.annotations or {}).get("ivcap-subject", "") for item in items)

    return loop.run(read())


def judge(home: Path, runs: dict[str, list[Artifact]], registered: set[str]) -> None:
    """Each run is on record once on IVCAP, each of its artifacts linked once; those that completed are model runs."""
    books, urns = Books(home), {flows_urn("run", run): artifacts for run, artifacts in runs.items()}
    records, links = books.stated(RUN_SCHEMA), books.stated(LINK_SCHEMA)
    assert {key: count for key, count in records.items() if key[0] in urns} == {(run, run): 1 for run in urns}
    expected = {(run, artifact.urn): 1 for run, artifacts in urns.items() for artifact in artifacts}
    assert {key: count for key, count in links.items() if key[0] in urns} == expected
    assert books.twice() == []
    wanted = {flows_urn("run", run): 1 for run in registered}
    assert {run: count for run, count in model_runs().items() if run in urns} == wanted


class Syncing:
    """`ivcap-flows sync` in processes that can be killed."""

    def __init__(self, forks: Forks, environment: dict[str, str], folder: Path) -> None:
        self._forks, self._environment, self._folder = forks, environment, folder
        self._log = folder / "sync.log"

    def run(self, killed_at: Callable[[], bool] = lambda: False, **changed: str) -> int:
        """The status, -9 for one that was killed; those that end sooner are not."""
        environment = {**self._environment, **changed}
        words = ["sync", "--again"]
        fork = self._forks.start(environment, folder=self._folder, out=self._log, log=self._log, words=words)
        while not fork.ended.wait(0.005):
            if killed_at():
                fork.kill()
                break
        return fork.wait(60)

    @property
    def said(self) -> str:
        return self._log.read_text()[-6000:]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    made = Forks(dict(os.environ))
    yield made
    made.close()


def a_run(journal: Journal, series: Artifact, *outcomes: Any) -> str:
    """A run of the flow that used an artifact, with attempts that ended so."""
    root = str(uuid.uuid4())
    for outcome in outcomes:
        opened = journal.runs.open_attempt(RunIdentity(FLOW, "/a.py:f", {"series": series.urn}, root, root))
        urn = flows_urn("attempt", opened.attempt.id)
        records = [
            activity(urn, "attempt", opened.attempt.started_at),
            entity(series.urn, "artifact", name=series.name, platform=series.platform),
            relation("used", urn, series.urn, role="series"),
        ]
        journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
        journal.runs.close_attempt(opened.attempt.id, outcome)
    return root


@pytest.mark.parametrize("kills", [2, pytest.param(5, marks=pytest.mark.long)])
def test_a_sync_that_is_killed_delivers_each_record_once(home, environment, forks, tmp_path, round_, kills):
    """Killed at moments drawn at random, it is run to its end: nothing is lost and nothing twice."""
    draw = random.Random(f"{round_}:{os.environ.get('CRASH_SEED', '1')}")
    shared, own = new_artifact(home), new_artifact(home)
    with Journal.open(environment["IVCAP_FLOWS_JOURNAL"]) as journal:
        runs = {
            a_run(journal, shared, "completed"): [shared],
            a_run(journal, own, "failed", "completed"): [own],
            a_run(journal, shared, "failed"): [shared],
        }
    failed = list(runs)[2]
    syncing = Syncing(forks, environment, tmp_path)
    control = PlatformControl(ensure(home))

    def moment(most: int) -> Callable[[], bool]:
        """Tells when so many further requests were made, drawn among `most`, and a little later."""
        drawn, begun = draw.randint(1, most), len(control.requests())
        return lambda: len(control.requests()) - begun >= drawn and (time.sleep(draw.uniform(0, 0.02)) or True)

    # The sinks take turns to be killed: of both at once the slower one would be hit nearly always.
    ivcap, provena = environment["IVCAP_FLOWS_SINKS"].split(",")
    killed = [
        syncing.run(killed_at=moment(15 if kind == ivcap else 40), IVCAP_FLOWS_SINKS=kind)
        for kind in draw.sample([ivcap, ivcap, provena, provena, draw.choice([ivcap, provena])], kills)
    ]
    assert killed.count(-signal.SIGKILL) >= 1, syncing.said
    until(syncing.run, lambda status: status == 0, 90, pause=0.2, said=lambda: syncing.said)
    judge(home, runs, runs.keys() - {failed})


@task
@recorded
def mean(series: Artifact, years: list[int], target: Path) -> Path:
    target.write_text(f"{series.name},{sum(years) / len(years)}\n")
    return target


@flow(name=FLOW)
@recorded
def away(series: Artifact, target: Path, spoiled: bool = False) -> float:
    made = mean(series, [1981, 2010], target)
    if spoiled:
        raise ValueError("spoiled")
    return float(made.read_text().split(",")[1])


@pytest.mark.long
def test_platforms_that_are_away_for_a_run_and_an_hour_get_all_of_it(
    home, environment, prefect_api, tmp_path, monkeypatch, caplog, capsys
):
    """The flow does not notice. `sync` says what it cannot reach, waits longer each time, and delivers once."""
    monkeypatch.setattr(session, "Backoff", lambda budget: Backoff(first=0.02, cap=0.05, budget=min(budget, 0.1)))
    caplog.set_level(logging.WARNING, "ivcap_flows")
    first, second = new_artifact(home), new_artifact(home)

    ensure(home).end()
    with Journal.open(environment["IVCAP_FLOWS_JOURNAL"]) as journal, use_journal(journal):
        assert away(first, tmp_path / "a.csv") == 1995.5
        with pytest.raises(ValueError, match="spoiled"):
            away(second, tmp_path / "b.csv", spoiled=True)
        completed, failed = (journal.runs.recent(1, outcome=outcome)[0].id for outcome in ("completed", "failed"))
        assert [journal.runs.get(run).missing_facts for run in (completed, failed)] == [0, 0]
    assert [record.getMessage() for record in caplog.records if "ivcap_flows" in record.pathname] == []
    assert sync() == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(line.startswith("UnreachableError") for line in said)

    # They are there again, and of no use yet; their addresses are new, and they are the same.
    embedded = ensure(home, idle=600.0)
    for name, value in embedded.environment.items():
        monkeypatch.setenv(name, value)
    control = PlatformControl(embedded)
    control.add_fault(path="^/1/aspects|/registry/|/mint-dataset", status=503)
    with Journal.open(environment["IVCAP_FLOWS_JOURNAL"]) as journal:

        def longest_wait() -> timedelta:
            return max(row.next_try for row in journal.deliveries.where(state="pending")) - datetime.now(timezone.utc)

        assert sync(again=True) == 1
        first_wait = longest_wait()
        for _ in range(5):
            assert sync(again=True) == 1
        assert timedelta(0) < first_wait < longest_wait() <= timedelta(hours=1)

    control.clear_faults()
    control.advance_clock(3600)
    capsys.readouterr()
    assert sync(again=True) == 0, capsys.readouterr()
    judge(home, {completed: [first], failed: [second]}, {completed})
