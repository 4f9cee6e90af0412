"""`kill -9` of a batch at random moments; the same command again ends with each row as one model run.

`make test` kills a small batch once, `make proofs` at further moments. With `--crash-rounds N` above 1 it is one of
2,000 rows, killed N times, and the journal is lost among 50,000 other runs.
"""

from __future__ import annotations

import csv
import os
import random
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from eventually import until
from harness.ledger import provena_of, rows_of
from harness.stage import Fork, Forks
from other_processes import settings_of_platforms
from registration_rows import Items, write_lines

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]

OURS = ("IVCAP", "PROVENA")
REGISTER = "/provena/prov/model_run/register"


@pytest.fixture
def database(_embedded: Any) -> Path:
    """Of the embedded Provena."""
    return provena_of(_embedded.directory)


class Command:
    """`ivcap-flows models register` on one file, each time in a process of its own."""

    def __init__(self, forks: Forks, folder: Path, items: Items, count: int, database: Path) -> None:
        self.forks = forks
        self.database = database
        self.folder = folder
        self.log = folder / "command.log"
        self.name = uuid.uuid4().hex
        self.count = count
        rows = [items.record(n, display_name=f"{self.name} {n}") for n in range(count)]
        self.file = write_lines(folder / "rows.jsonl", rows)
        self.out = folder / "out.csv"

    def start(self, *options: str, **variables: str) -> Fork:
        words = ["models", "register", str(self.file), "--out", str(self.out), "--json", *options]
        return self.forks.start(
            {**settings_of_platforms(), **variables}, folder=self.folder, out=self.log, log=self.log, words=words
        )

    def again(self, **variables: str) -> None:
        assert self.start(**variables).wait(600) == 0, self.said

    @property
    def said(self) -> str:
        return self.log.read_text()[-6000:]

    def outcomes(self) -> list[dict[str, str]]:
        with self.out.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def runs(self) -> dict[str, list[str]]:
        """The handles in Provena's own books, by the display name of the row."""
        query = "SELECT display_name, id FROM items WHERE item_subtype = 'MODEL_RUN' AND display_name LIKE ?"
        found: dict[str, list[str]] = {}
        for name, handle in rows_of(self.database, query, f"{self.name} %"):
            found.setdefault(name, []).append(handle)
        return found

    def check(self) -> None:
        """Each row is one model run, and the outcome file names it."""
        runs = self.runs()
        assert len(runs) == self.count and all(len(handles) == 1 for handles in runs.values())
        outcomes = self.outcomes()
        assert [each["model_run"] for each in outcomes] == [runs[f"{self.name} {n}"][0] for n in range(self.count)]
        assert {each["outcome"] for each in outcomes} == {"registered"}


@contextmanager
def among_others(database: Path, like: str, count: int) -> Iterator[None]:
    """While the block runs, the user has so many more runs, and jobs that lodged them, of about the same time; each is
    that of the display name `like` with another name, handle and key."""
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        found = connection.execute(
            "SELECT id, json_extract(item, '$.record.annotations.ivcap-flows-key') FROM items WHERE display_name = ?",
            (like,),
        )
        handle, key = next((run, key) for run, key in found if key is not None)
        connection.execute("BEGIN")
        for table, id_, which in (
            ("items", "id", "id = :handle"),
            ("jobs", "session_id", "job_sub_type = 'MODEL_RUN_PROV_LODGE' AND instr(payload, :key)"),
        ):
            values = []
            for _, name, *_ in connection.execute(f"PRAGMA table_info({table})"):
                value = f"replace(replace(replace({name}, :handle, 'other/' || n), :key, 'k1:' || n), :like, 'Other')"
                given = {id_: "'other/' || n", "created_timestamp": "created_timestamp - n % 3600", "due": "NULL"}
                values.append(given.get(name, value))
            connection.execute(
                "WITH RECURSIVE others (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM others WHERE n < :count) "
                f"INSERT INTO {table} SELECT {', '.join(values)} FROM {table}, others WHERE {which}",
                {"handle": handle, "key": key, "like": like, "count": count},
            )
            assert connection.execute("SELECT changes()").fetchone() == (count,)
        connection.execute("COMMIT")
        try:
            yield
        finally:
            connection.execute("DELETE FROM items WHERE id LIKE 'other/%'")
            connection.execute("DELETE FROM jobs WHERE session_id LIKE 'other/%'")


def kill(process: Fork) -> None:
    process.kill()
    process.wait(10)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """Has all that the command needs imported."""
    made = Forks({name: value for name, value in os.environ.items() if not name.startswith(OURS)})
    yield made
    made.close()


@pytest.fixture
def command(
    request: pytest.FixtureRequest,
    forks: Forks,
    tmp_path: Path,
    embedded_platform: Any,
    run_items: Items,
    database: Path,
) -> Command:
    """A small batch, or the long form's, of as many rows as a test says."""
    count = getattr(request, "param", 2000) if request.config.getoption("--crash-rounds") > 1 else 40
    return Command(forks, tmp_path, run_items, count, database)


@pytest.mark.long
def test_killed_at_random_moments(command, embedded_platform, request, database):
    """Wherever the kills fall, and once with the journal gone among many other runs: no row twice, none missing, the
    file complete."""
    rounds = request.config.getoption("--crash-rounds")
    span = None
    for number in range(rounds):
        process = command.start()
        if span is None:
            # The first is killed just when Provena has the batch.
            begun = time.monotonic()
            until(lambda: embedded_platform.requests("POST", REGISTER), seconds=120, said=lambda: command.said)
            span = 3 * (time.monotonic() - begun)
        else:
            time.sleep(random.uniform(0.3, 1.0) * span)
        kill(process)
        if command.out.exists():
            with command.out.open(encoding="utf-8", newline="") as file:
                assert all(None not in row.values() for row in csv.DictReader(file)), f"cut in round {number}"
    command.again()
    command.check()
    before = command.outcomes()
    embedded_platform.forget_requests()
    with among_others(database, f"{command.name} 0", 50_000 if rounds > 1 else 1200):
        command.again(IVCAP_FLOWS_JOURNAL=f"sqlite:///{command.folder / 'elsewhere.sqlite'}")
        command.check()
    assert not embedded_platform.requests("POST", REGISTER)
    assert [each["model_run"] for each in command.outcomes()] == [each["model_run"] for each in before]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"drop_reply_after_effect": True}, id="taken"),
        pytest.param({"at_once": 3, "delay": 1.8}, id="taken within the visibility delay", marks=pytest.mark.long),
        pytest.param({"reset": True}, id="lost", marks=pytest.mark.long),
    ],
)
def test_killed_with_a_batch_on_its_way(command, embedded_platform, fault):
    """Killed while Provena may or may not have the batch: it is looked for, and what is not there is sent again."""
    embedded_platform.add_fault(method="POST", path="model_run/register$", count=3, **fault)
    process = command.start()
    until(lambda: process.status is not None or embedded_platform.faults()[0]["hits"], seconds=120)
    assert process.status is None, command.said
    kill(process)
    embedded_platform.clear_faults()
    command.again()
    command.check()


@pytest.mark.long
def test_two_commands_at_once(command, embedded_platform):
    """The same command in two terminals: both end well, and no row is there twice."""
    first, second = command.start(), command.start()
    assert (first.wait(600), second.wait(600)) == (0, 0), command.said
    command.check()
    text = command.log.read_text()
    assert text.count(f'"registered": {command.count}') == 2


# As long as Provena answers like that, it is asked for one model run at a time: 15 a minute.
@pytest.mark.parametrize("command", [120], indirect=True, ids=["some"])
@pytest.mark.long
def test_a_bad_day(command, embedded_platform, request):
    """A tenth of the replies is lost after the effect, a fifth of the requests gets 503, workers die, and Provena is
    away for a while (in the long form for a minute): no row twice, and each has its handle or is in doubt."""
    deaths, away, patience = (5, 60.0, "180") if request.config.getoption("--crash-rounds") > 1 else (1, 2.0, "6")

    def be_bad() -> None:
        embedded_platform.clear_faults()
        embedded_platform.add_fault(path="^/provena/", probability=0.1, seed=4, drop_reply_after_effect=True)
        embedded_platform.add_fault(path="^/provena/", probability=0.2, seed=5, status=503)

    be_bad()
    embedded_platform.add_fault(method="POST", path="model_run/register$", count=3, drop_reply_after_effect=True)
    process = command.start("--stall-timeout", patience)

    def goes_on_until(happened: Callable[[], bool]) -> None:
        until(lambda: process.status is not None or happened(), seconds=120)
        assert process.status is None, command.said

    goes_on_until(lambda: any(each["status"] == 200 for each in embedded_platform.requests("POST", REGISTER)))
    embedded_platform.clear_faults()
    embedded_platform.add_fault(path="MODEL_RUN_PROV_LODGE", count=deaths, kill_worker="before")
    goes_on_until(lambda: embedded_platform.faults()[0]["hits"] >= deaths)
    embedded_platform.add_fault(path="^/provena/", reset=True)
    time.sleep(away)
    be_bad()
    assert process.wait(1200) == 1, command.said
    embedded_platform.clear_faults()
    outcomes = {f"{command.name} {int(each['row']) - 1}": each for each in command.outcomes()}
    runs = command.runs()
    assert len(outcomes) == command.count and all(len(handles) == 1 for handles in runs.values())
    registered = {name: [each["model_run"]] for name, each in outcomes.items() if each["outcome"] == "registered"}
    assert registered == runs and len(runs) == command.count - deaths
    doubts = [each for each in outcomes.values() if each["outcome"] == "doubtful"]
    assert len(doubts) == deaths and all(each["job_id"] and each["since"] for each in doubts)
