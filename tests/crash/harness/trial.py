"""One scenario played to its end, and judged."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import shutil
import signal
import sqlite3
import time
import traceback
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psutil
from prefect_servers import OwnPrefect

from harness.books import Books, Verdict
from harness.incidents import INCIDENTS, Incident
from harness.prefect_server import LimitingPrefect
from harness.scenario import DEPLOYED_STEPS, RANDOM, Kill, Scenario
from harness.stage import CHAIN, Database, Fork, Forks, Platform, Stage
from harness.steps import LEASE

__all__ = ["Trial"]

_TURNS: Final = 14
"""So often the same command is given until it succeeds; the last half of them without faults."""
_PATIENCE: Final = 420.0
AHEAD: Final = (0, 600, -10_800, -600, 10_800)
"""Seconds by which the clocks of processes are, one after the other."""
_LONGEST_WAIT: Final = 240.0
"""Seconds after which what is to happen while a deployed run waits is no longer waited for."""
_SURELY: Final = {"CRASHED": 3.0, "FAILED": 3.0, "CANCELLED": 3.0, "RUNNING": 8.0, "PENDING": 20.0}
"""Seconds in a state of Prefect's after which a run without a process is taken to have none for ever. Where the worker
was killed too, nobody tells Prefect; and a worker tells of a crash more than once."""


class Trial:
    """`play` it once; then `verdict` and `seconds` are known, and `unreached` the kills that never came about."""

    def __init__(self, stage: Stage, scenario: Scenario) -> None:
        self.stage, self.scenario = stage, scenario
        self.folder = stage.home / scenario.mark
        self.verdict = Verdict()
        self.unreached: list[Kill] = []
        self.seconds = 0.0
        self.turns = 0
        self.platform: Platform
        self.prefect: LimitingPrefect | None = None
        self.journals: list[str] = []
        """Of all its processes, as URLs."""
        self._watcher: Fork | None = None
        self._database: Database | None = None
        self._again = False
        self._running: list[Fork] = []
        self._living: list[Fork] = []
        """Those whose call was given up."""
        self._started = 0

    def play(self) -> Trial:
        begun = time.monotonic()
        self.platform = self.stage.platform()
        try:
            self._prepare()
            if self.scenario.deployed:
                self._deployed()
            else:
                self._script()
            if self._watcher is not None:
                self._watcher.kill()
            self.verdict = self._books().verdict()
        except Exception as error:
            self.verdict.lost.append(f"{type(error).__name__}: {error}")
            self.say(traceback.format_exc())
        finally:
            if self._watcher is not None:
                self._watcher.kill()
            self.stage.give_back(self.platform)
            for each in self._living:
                each.kill()
            if self._database is not None:
                self._database.end()
            if self.prefect is not None:
                self.prefect.end()
        self.unreached = [k for n, k in enumerate(self.scenario.kills) if not (self.folder / f"kill-{n}").exists()]
        self.seconds = time.monotonic() - begun
        return self

    @property
    def said(self) -> str:
        """The end of what its processes said."""
        log = self.stage.home / "worker.log" if self.scenario.deployed else self.folder / "log"
        return log.read_text(encoding="utf-8", errors="replace")[-6000:] if log.exists() else ""

    def _prepare(self) -> None:
        self.scenario.write(self.folder)
        (self.folder / "ledger").mkdir()
        if not self.scenario.deployed:
            self._go.touch()
        (self.folder / f"{self.scenario.mark}-series.bin").write_bytes(os.urandom(self.scenario.size))
        self.environment = {
            **self.platform.environment,
            "IVCAP_FLOWS_JOURNAL": self._first_journal(),
            "IVCAP_FLOWS_PARK_AFTER": "0",
            "CRASH_FOLDER": str(self.folder),
            "XDG_DATA_HOME": str(self.home),
        }
        if self.scenario.limited:
            self.prefect = LimitingPrefect(OwnPrefect(self._own_folder("prefect")))
        self.platform.forget()
        control = self.platform.control
        for rule in self.scenario.all_rules:
            control.add_fault(**rule)
        self._deaths, self._since = self.platform.deaths, time.monotonic()
        if self.scenario.watched:
            self._watch()

    @property
    def home(self) -> Path:
        """The data of the user, with the locks of the processes if the journal is on a server."""
        return self.folder / "home"

    def _own_folder(self, name: str) -> Path:
        made = self.folder / name
        made.mkdir()
        return made

    def _first_journal(self) -> str:
        """The URL of an empty one, on a server of its own if that is to be killed."""
        if any(kill.victim == "database" for kill in self.scenario.kills):
            self._database = Database(self.scenario.mark)
            self.journals.append(self._database.url)
        else:
            self.journals.append(self.stage.journal(self.folder, self.scenario.backend))
        return self.journals[0]

    def another_journal(self) -> str:
        """The URL of an empty one, with a name of its own in the records."""
        self.journals.append(self.stage.journal(self.folder, "sqlite", len(self.journals)))
        return self.journals[-1]

    def _forks(self, seed: int = 0) -> Forks:
        return self.stage.forks(seed) if self.prefect is None else self.prefect.forks

    def _watch(self) -> None:
        out, log = self.folder / "watched", self.folder / "watcher.log"
        words = ["watch"]
        self._watcher = self.stage.forks().start(self.environment, folder=self.folder, out=out, log=log, words=words)

    def _start(self, **more: str) -> Fork:
        """One more process of the flow, in so far as the scenario wants it another."""
        number, self._started = self._started, self._started + 1
        vary, log = self.scenario.vary, self.folder / "log"
        if number and self.scenario.new_journal:
            self.environment["IVCAP_FLOWS_JOURNAL"] = self.another_journal()
        code = self._checkout(number if "checkout" in vary else 0)
        place = self.folder / f"work-{number if 'working folder' in vary else 0}"
        place.mkdir(exist_ok=True)
        forks = self._forks(self.scenario.seed + number if "hash seed" in vary else 0)
        ahead = {"CRASH_AHEAD": str(AHEAD[(self.scenario.seed + number) % len(AHEAD)])} if "clocks" in vary else {}
        environment = {**self.environment, **ahead, **more}
        return forks.start(environment, folder=self.folder, out=log, log=log, code=code, place=place)

    def begin_another(self, **more: str) -> Fork:
        """One more process of the flow beside those that are at work; the command has succeeded when all have."""
        self._running.append(self._start(**more))
        return self._running[-1]

    def _checkout(self, number: int) -> Path:
        """The flow's code as a user has it: in a repository of its own."""
        root = self.folder / f"checkout-{number}"
        code = root / "flows" / CHAIN.name
        if not code.exists():
            (root / ".git").mkdir(parents=True)
            code.parent.mkdir()
            shutil.copy(CHAIN, code)
        return code

    def _script(self) -> None:
        """The same command until it succeeds."""
        for turn in range(_TURNS):
            self.turns += 1
            if turn == _TURNS // 2:
                self.platform.control.clear_faults()
            self._since = time.monotonic()
            running = self._running = [self._start() for _ in range(2 if self.scenario.twice else 1)]
            try:
                while not all(self._is_over(each) for each in running):
                    self._attend([each.pid for each in running])
                    if time.monotonic() - self._since > _PATIENCE:
                        raise TimeoutError(f"the flow did not end within {_PATIENCE:g} s")
                    time.sleep(0.02)
            finally:
                self._living += [each for each in running if self._lives_on(each)]
                for each in running:
                    if each not in self._living:
                        each.kill()
            told = (self.folder / "result.json").exists() and not (self.scenario.together or self.scenario.asleep)
            succeeded = any(each.status == 0 for each in running)
            # Whoever has the result does not ask again, nor does he for whom the journal had no time meanwhile. What
            # was suspended wakes last, and may complete what the other machine could not. If the other did complete
            # it, what wakes may find that the server has ended its transaction meanwhile.
            cut_off = succeeded and self._is_in("cut off", running[0])
            told = told or (self.scenario.asleep and (running[0].status == 0 or cut_off))
            if told or (succeeded and all(each.status == 0 or self._is_in("refused", each) for each in running)):
                return
        raise RuntimeError(f"the flow did not succeed in {_TURNS} turns")

    def _is_over(self, fork: Fork) -> bool:
        return fork.ended.is_set() or self._lives_on(fork)

    def _lives_on(self, fork: Fork) -> bool:
        return (self.folder / f"gave-up-{fork.pid}").exists()

    def _is_in(self, file: str, fork: Fork) -> bool:
        """Whether the process wrote itself down: that the journal "refused" its first effect, or "cut off" a later."""
        told = self.folder / file
        return told.exists() and str(fork.pid) in told.read_text(encoding="ascii").split()

    def _deployed(self) -> None:
        """One run of the deployment, which is retried whenever it has crashed."""
        parameters = {"folder": str(self.folder), "wanted": self.scenario.parameters}
        run = self.stage.deploy(parameters, self.environment)
        self._since = time.monotonic()
        while time.monotonic() < self._since + _PATIENCE:
            state = self.stage.ask("GET", f"/flow_runs/{run}")["state"]
            entered = self._entered()
            self._attend(entered)
            if self._may_go():
                self._go.touch()
            if self.scenario.twice and not self._again and state["type"] == "RUNNING" and entered:
                # A server that thought the process dead, or a user who did.
                self._again = True
                self.stage.reschedule(run)
            elif not entered and (state["type"] == "COMPLETED" or _seems_over(state)) and not _processes_of(run):
                if state["type"] == "COMPLETED":
                    return
                self.turns += 1
                if self.turns == _TURNS // 2:
                    self.platform.control.clear_faults()
                self.stage.reschedule(run)
            time.sleep(0.2)
        raise TimeoutError(f"the run did not complete within {_PATIENCE:g} s; Prefect has it as {state['name']}")

    @property
    def _go(self) -> Path:
        """What the order that takes long waits for."""
        return self.folder / "ledger" / "go"

    def _may_go(self) -> bool:
        """Whether all has happened that is to happen while the run waits."""
        due = [n for n, kill in enumerate(self.scenario.kills) if kill.step in DEPLOYED_STEPS or kill.step == RANDOM]
        happened = all((self.folder / f"kill-{number}").exists() for number in due)
        parked = (self.folder / "parked").exists() and (self._again or not self.scenario.twice)
        return (parked and happened) or time.monotonic() - self._since > _LONGEST_WAIT

    def _entered(self) -> list[int]:
        """The processes of a deployed run that came to the flow's first line, and live."""
        entered = self.folder / "entered"
        pids = {int(pid) for pid in entered.read_text(encoding="ascii").split()} if entered.exists() else set()
        return [pid for pid in pids if _lives(pid)]

    def _attend(self, pids: list[int]) -> None:
        """Kill what is due."""
        for number, kill in enumerate(self.scenario.kills):
            asked, done = self.folder / f"kill-{number}", self.folder / f"kill-{number}.done"
            due = kill.step == RANDOM and time.monotonic() - self._since >= kill.after
            due = due or (kill.step == "parked" and (self.folder / "parked").exists() and not pids)
            if due and not asked.exists() and (pids or "flow" not in kill.victim):
                asked.touch()
                for pid in pids if kill.victim == "flow" else ():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            if kill.victim == "call":
                continue
            if asked.exists() and not done.exists() and kill.victim == "flow asleep":
                self._let_another_go_on(asked)
                done.touch()
            elif asked.exists() and not done.exists() and kill.victim == "database" and self._database is not None:
                self.say(f"--- the database is killed {kill.step}\n")
                self._database.kill()
                # The flow goes on without it for a while.
                done.touch()
                time.sleep(random.Random(self.scenario.seed).uniform(0.0, 1.5))
                self._database.start()
            elif asked.exists() and not done.exists() and kill.victim != "flow":
                self._kill(kill, pids)
                done.touch()
            if due and asked.exists() and kill.step == RANDOM:
                done.touch()

    def _let_another_go_on(self, asked: Path) -> None:
        """While a process is suspended for longer than its lease, another machine ends the run; then it wakes."""
        end = time.monotonic() + 30
        while not (told := asked.read_text(encoding="ascii")) or not _stopped(int(told)):
            if time.monotonic() > end:
                raise TimeoutError("the flow does not stop")
            time.sleep(0.02)
        self.say("--- the flow is suspended, and another machine goes on\n")
        time.sleep(LEASE + 1)
        other = self.begin_another(CRASH_ELSEWHERE="1")
        try:
            other.wait(_PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(told), signal.SIGCONT)
        self.say("--- the flow wakes\n")

    def _let_happen(self, incident: Incident) -> None:
        for each in self._running if incident.ends else ():
            each.kill()
            each.ended.wait(10)
        incident.happen(self)

    def _kill(self, kill: Kill, pids: list[int]) -> None:
        what = kill.victim if kill.victim in INCIDENTS else f"{kill.victim} is killed"
        self.say(f"--- {what} {kill.step}\n")
        if kill.victim in INCIDENTS:
            self._let_happen(INCIDENTS[kill.victim])
        if kill.victim == "embedded":
            self.platform.kill(random.Random(self.scenario.seed).uniform(0.0, 1.5))
        if "worker" in kill.victim:
            self.stage.kill_worker()
            if kill.step == RANDOM and "flow" in kill.victim:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        if kill.victim == "watcher" and self._watcher is not None:
            self._watcher.kill()
            self._watcher.ended.wait(10)
            self._watch()

    def say(self, text: str) -> None:
        with (self.folder / "log").open("a", encoding="utf-8") as log:
            log.write(text)

    def _books(self) -> Books:
        if self._database is not None:
            # A process whose journal was away to its end could not write how it ended; this asks Prefect.
            self.asked("sync")
        unready = [name for name, status in self._artifacts() if status != "ready"]
        return Books(
            scenario=self.scenario,
            folder=self.folder,
            database=self.platform.database,
            provena=self.platform.provena,
            shown=self._shown(),
            orphans=self.asked("orders", "--orphans"),
            doctor=self.asked("doctor") if unready else [],
            sent=self.platform.sent(),
            forgot=self.platform.deaths != self._deaths,
            slots=0 if self.prefect is None else self.prefect.taken,
        )

    def _shown(self) -> list[dict[str, Any]]:
        """What is on record of the command's run, or of all runs of all journals where more than one was at work."""
        if not self.scenario.together:
            return [self.asked("show", "latest")]
        return [
            self.asked("show", run["id"], journal=journal)
            for journal in self.journals
            for run in self.asked("runs", journal=journal)
        ]

    def _artifacts(self) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(self.platform.database, timeout=30)) as connection:
            query = "SELECT name, status FROM artifacts WHERE name LIKE ?"
            return connection.execute(query, (f"{self.scenario.mark}-%",)).fetchall()

    def asked(self, *words: str, journal: str | None = None) -> Any:
        """What the command line answers, of the newest journal if none is named."""
        of = self.environment if journal is None else {**self.environment, "IVCAP_FLOWS_JOURNAL": journal}
        name = "-".join(word.rpartition("/")[2] for word in (*words, of["IVCAP_FLOWS_JOURNAL"]))
        out, log = self.folder / f"{name}.json", self.folder / "cli.log"
        command = self._forks().start(of, folder=self.folder, out=out, log=log, words=[*words, "--json"])
        status = command.wait(120)
        if status and words[0] != "doctor":
            raise RuntimeError(f"ivcap-flows {' '.join(words)}: {log.read_text(encoding='utf-8')[-1000:]}")
        return json.loads(out.read_text(encoding="utf-8"))


def _stopped(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _seems_over(state: dict[str, Any]) -> bool:
    since = datetime.fromisoformat(state["timestamp"].replace("Z", "+00:00")).timestamp()
    return time.time() - since > _SURELY.get(state["type"], math.inf)


def _processes_of(flow_run_id: str) -> list[int]:
    """The processes that a worker started for a run, whether that worker lives or not."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PREFECT__FLOW_RUN_ID") == flow_run_id:
                found.append(process.pid)
    return found
