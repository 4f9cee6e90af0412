"""The judge: the twin's own books against what was wanted and against what the journal can show."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness.scenario import Scenario
from harness.steps import CHUNK

__all__ = ["Books", "Verdict"]

FULL: Final = {"PRAGMA synchronous 2", "SHOW synchronous_commit on"}


@dataclass
class Verdict:
    """What is wrong, each in words; all empty where nothing is."""

    duplicates: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    undurable: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        return not any(vars(self).values())

    def __str__(self) -> str:
        return "; ".join(f"{kind}: {', '.join(told)}" for kind, told in vars(self).items() if told) or "fine"


@dataclass(frozen=True)
class Books:
    """`shown` is what `ivcap-flows show --json` says of each run of the journal, `orphans` and `doctor` what these
    say; `sent` the bytes of uploads that the twin received, None where it has forgotten; `hits` how often a process
    was killed or a request disturbed."""

    scenario: Scenario
    folder: Path
    database: Path
    shown: list[dict[str, Any]]
    orphans: list[dict[str, Any]]
    doctor: list[dict[str, Any]]
    sent: int | None
    hits: int

    def verdict(self) -> Verdict:
        verdict = Verdict()
        self._orders(verdict)
        self._uploads(verdict)
        self._attempts(verdict)
        commits = set((self.folder / "commits").read_text(encoding="ascii").splitlines())
        verdict.undurable += sorted(commits - FULL) or ([] if commits else ["no commit was seen"])
        return verdict

    @property
    def _effects(self) -> list[dict[str, Any]]:
        return [effect for run in self.shown for effect in run["effects"]]

    @property
    def _known(self) -> set[str]:
        """Every URN that the journal names."""
        return {urn for effect in self._effects for urn in (effect["urn"], *effect["duplicates"]) if urn}

    def _orders(self, verdict: Verdict) -> None:
        on_platform = {
            urn: (_parameter(parameters, "name"), status)
            for urn, parameters, status in self._rows("SELECT id, parameters, status FROM orders")
            if str(_parameter(parameters, "name")).startswith(f"{self.scenario.mark}-")
        }
        placed = Counter(name for name, _ in on_platform.values())
        succeeded = {urn for urn, (_, status) in on_platform.items() if status == "succeeded"}
        for name, wanted in self.scenario.wanted.items():
            if placed[name] > wanted:
                verdict.duplicates.append(f"{placed[name]} orders of {name} for {wanted}")
            if placed[name] < wanted:
                verdict.lost.append(f"{placed[name]} orders of {name} for {wanted}")
        result = self.folder / "result.json"
        told = set(json.loads(result.read_text(encoding="utf-8"))) if result.exists() else set()
        if self.scenario.deployed:
            # What a worker's process returns is Prefect's; the ends of its orders are in the journal.
            told = {e["urn"] for e in self._effects if e["noun"] == "order" and e["status"] == "succeeded"}
        if len(told) != len(self.scenario.wanted) or not told <= succeeded:
            verdict.lost.append(
                f"the flow knows of {len(told)} orders that succeeded, wanted {len(self.scenario.wanted)}"
            )
        verdict.unrecorded += sorted(set(on_platform) - self._known)
        verdict.unrecorded += [
            f"{e['urn'] or e['key']} is {e['state']}" for e in self._effects if e["noun"] == "order" and not e["status"]
        ]
        verdict.lost += [f"{e['urn']} is not on the platform" for e in self._effects if self._is_gone(e, on_platform)]
        verdict.lost += [f"{each['urn']} has no owner" for each in self.orphans if each["urn"] in on_platform]

    def _is_gone(self, effect: dict[str, Any], on_platform: dict[str, Any]) -> bool:
        return effect["noun"] == "order" and effect["urn"] is not None and effect["urn"] not in on_platform

    def _uploads(self, verdict: Verdict) -> None:
        query = "SELECT id, name, size, status FROM artifacts WHERE name LIKE ?"
        rows = self._rows(query, f"{self.scenario.mark}-%")
        ready = Counter(name for _, name, _, status in rows if status == "ready")
        verdict.duplicates += [f"{count} artifacts {name}" for name, count in ready.items() if count > 1]
        if len(ready) != 2:
            verdict.lost.append(f"artifacts: only {sorted(ready)}")
        left = self._known | {urn for finding in self.doctor for note in finding["notes"] for urn in _words(note)}
        verdict.unrecorded += [f"{urn} ({name}, {status})" for urn, name, _, status in rows if urn not in left]
        if self.sent is not None and len(ready) == 2:
            wanted = sum({name: size for _, name, size, status in rows if status == "ready"}.values())
            most = wanted + CHUNK * self.hits
            if self.sent > most:
                verdict.duplicates.append(f"{self.sent} bytes sent of {wanted}, with {self.hits} interruptions")
            if self.sent < wanted:
                verdict.lost.append(f"{self.sent} bytes sent of {wanted}")

    def _attempts(self, verdict: Verdict) -> None:
        entered = (self.folder / "entered").read_text(encoding="ascii").split()
        shown = [attempt for run in self.shown for attempt in run["attempts"]]
        missing = Counter(entered) - Counter(str(attempt["process"]["pid"]) for attempt in shown)
        verdict.unrecorded += [f"the attempt of process {pid}" for pid in missing]
        verdict.unrecorded += [f"attempt {a['number']} is {a['outcome']}" for a in shown if a["outcome"] == "running"]
        unfinished = [f"run {r['run']['id']} is {r['run']['outcome']}" for r in self.shown if _unfinished(r)]
        # Of two that began at once, a later command continues none once the other has completed.
        if not self.scenario.twice or len(unfinished) == len(self.shown):
            verdict.lost += unfinished
        if not self.shown:
            verdict.unrecorded.append("the run")

    def _rows(self, query: str, *values: str) -> list[Any]:
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(query, values).fetchall()


def _unfinished(run: dict[str, Any]) -> bool:
    return bool(run["run"]["outcome"] != "completed")


def _words(note: str) -> list[str]:
    return [word.strip(".,;:()") for word in note.split()]


def _parameter(parameters: str, name: str) -> Any:
    given = json.loads(parameters)
    if isinstance(given, dict):
        return given.get(name)
    return next((each.get("value") for each in given if each.get("name") == name), None)
