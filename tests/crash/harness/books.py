"""The judge: the embedded platform's own books against what was wanted and against what the journal can show."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness.incidents import LOST
from harness.ledger import rows_of
from harness.scenario import EQUAL, NOTE, Scenario
from harness.steps import CHUNK
from ivcap_flows.identity import INTENT_SCHEMA

__all__ = ["Books", "Verdict"]

JOBS_NAMED: Final = "SELECT id FROM jobs WHERE json_extract(request, '$.name') = ?"
DATASET_OF: Final = "item_subtype = 'DATASET' AND instr(item, ?)"
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
    say; `sent` the requests with bytes of uploads that the embedded platform received, which it may have forgotten some
    of (`forgot`); `slots` how many of the limit on submissions are taken."""

    scenario: Scenario
    folder: Path
    database: Path
    provena: Path
    shown: list[dict[str, Any]]
    orphans: list[dict[str, Any]]
    doctor: list[dict[str, Any]]
    sent: list[dict[str, Any]]
    forgot: bool
    slots: int

    def verdict(self) -> Verdict:
        verdict = Verdict()
        self._orders(verdict)
        self._uploads(verdict)
        if "other effects" in self.scenario.vary:
            self._others(verdict)
        if "equal jobs" in self.scenario.vary:
            self._equal_jobs(verdict)
        self._records(verdict)
        self._attempts(verdict)
        verdict.lost += [f"{self.slots} slots of the limit"] if self.slots else []
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
            urn: (_parameter(parameters, "name"), _parameter(parameters, "series"), status)
            for urn, parameters, status in self._rows("SELECT id, parameters, status FROM orders")
            if _parameter(parameters, "name") in self.scenario.wanted
        }
        # Those of an artifact that the platform has lost fail, and are placed again of the new one.
        placed = Counter(name for name, series, _ in on_platform.values() if series not in self._lost)
        succeeded = {urn for urn, (_, _, status) in on_platform.items() if status == "succeeded"}
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

    @property
    def _lost(self) -> list[str]:
        """The artifacts that the platform has lost."""
        return self._words_in(LOST)

    def _uploads(self, verdict: Verdict) -> None:
        query = "SELECT id, name, size, status FROM artifacts WHERE name LIKE ?"
        rows = self._rows(query, f"{self.scenario.mark}-%")
        ready = Counter(name for _, name, _, status in rows if status == "ready")
        if len(ready) != 2:
            verdict.lost.append(f"artifacts: only {sorted(ready)}")
        if self.scenario.forgetful:
            # Another journal knows an upload only once it is complete, and else makes an equal one.
            return
        verdict.duplicates += [f"{count} artifacts {name}" for name, count in ready.items() if count > 1]
        left = self._known | {urn for finding in self.doctor for note in finding["notes"] for urn in _words(note)}
        verdict.unrecorded += [f"{urn} ({name}, {status})" for urn, name, _, status in rows if urn not in left]
        names = {urn: name for urn, name, _, _ in rows}
        for name, size in {name: size for _, name, size, status in rows if status == "ready"}.items():
            self._bytes(verdict, name, size, [each for each in self.sent if names.get(_artifact(each)) == name])

    def _bytes(self, verdict: Verdict, name: str, size: int, requests: list[dict[str, Any]]) -> None:
        """What the platform has acknowledged is not sent again; of a request that broke off at most a chunk is."""
        whole = [each for each in requests if each["status"] == 204]
        kept, broken = sum(each["received"] for each in whole), len(requests) - len(whole)
        total = sum(each["received"] for each in requests)
        if kept > size or total > size + CHUNK * broken:
            verdict.duplicates.append(f"{total} bytes of {name} sent, which has {size}; {broken} requests broke off")
        if total < size and not self.forgot:
            verdict.lost.append(f"only {total} bytes of {name} sent, which has {size}")

    def _records(self, verdict: Verdict) -> None:
        """Under a key the records name one effect. Of an upload, each journal that was at it before it could see the
        records of others names its own, and all take that of the oldest record.
        """
        one_journal = not (self.scenario.together or self.scenario.forgetful)
        named: dict[str, set[str]] = {effect["key"]: set() for effect in self._effects}
        for (text,) in self._rows("SELECT content FROM aspects WHERE schema = ? ORDER BY seq", INTENT_SCHEMA):
            content = json.loads(text)
            of = named.get(content["key"])
            if of is None or content["urn"] in (None, *self._lost):
                continue
            if content["noun"] != "upload" or one_journal or not of:
                of.add(content["urn"])
        for effect in self._effects:
            if effect["noun"] == "upload" and effect["state"] == "done":
                named[effect["key"]].add(effect["urn"])
        verdict.duplicates += [f"the records of {key} name {sorted(of)}" for key, of in named.items() if len(of) > 1]

    def _others(self, verdict: Verdict) -> None:
        mark = self.scenario.mark
        made = {
            "job": self._rows(JOBS_NAMED, self.scenario.job),
            "aspect": self._rows(
                "SELECT id FROM aspects WHERE schema = ? AND json_extract(content, '$.mark') = ?", NOTE, mark
            ),
            "item": self._items("display_name = ?", self.scenario.owner),
            "dataset": [row for urn in self._series for row in self._items(DATASET_OF, urn)],
        }
        for noun, rows in made.items():
            if not rows:
                verdict.lost.append(f"no {noun}")
            if noun == "aspect" and self.scenario.forgetful:
                # It has no key by which another journal could find it.
                continue
            if len(rows) > 1:
                verdict.duplicates.append(f"{len(rows)} of {noun}")
            verdict.unrecorded += [f"{noun} {urn}" for (urn,) in rows if urn not in self._known]

    def _equal_jobs(self, verdict: Verdict) -> None:
        """There is one for each key, whichever journals have it."""
        made = {urn for (urn,) in self._rows(JOBS_NAMED, self.scenario.equal)}
        if len(made) != EQUAL:
            (verdict.duplicates if len(made) > EQUAL else verdict.lost).append(f"{len(made)} equal jobs for {EQUAL}")
        pairs = {(effect["key"], effect["urn"]) for effect in self._effects if effect["urn"] in made}
        for place, what in enumerate(("key", "equal job")):
            verdict.duplicates += [
                f"{what} {each} {count} times"
                for each, count in Counter(pair[place] for pair in pairs).items()
                if count > 1
            ]
        verdict.unrecorded += [f"job {urn}" for urn in made - self._known]

    @property
    def _series(self) -> list[str]:
        """The artifacts of the first upload: a new journal may have made an equal one."""
        query = "SELECT id FROM artifacts WHERE name = ? AND status = 'ready'"
        return [urn for (urn,) in self._rows(query, f"{self.scenario.mark}-series.bin")]

    def _attempts(self, verdict: Verdict) -> None:
        shown = [attempt for run in self.shown for attempt in run["attempts"]]
        entered = self._words_in("entered")[-1:] if self.scenario.new_journal else self._words_in("entered")
        missing = Counter(entered) - Counter(str(attempt["process"]["pid"]) for attempt in shown)
        # Without a journal nothing is done: a process that found none from its first effect to its end said so.
        missing -= Counter(self._words_in("refused"))
        verdict.unrecorded += [f"the attempt of process {pid}" for pid in missing]
        verdict.unrecorded += [f"attempt {a['number']} is {a['outcome']}" for a in shown if a["outcome"] == "running"]
        unfinished = [f"run {r['run']['id']} is {r['run']['outcome']}" for r in self.shown if _unfinished(r)]
        # Of two that began at once, a later command continues none once the other has completed.
        if not self.scenario.together or len(unfinished) == len(self.shown):
            verdict.lost += unfinished
        if not self.shown:
            verdict.unrecorded.append("the run")

    def _words_in(self, file: str) -> list[str]:
        path = self.folder / file
        return path.read_text(encoding="ascii").split() if path.exists() else []

    def _rows(self, query: str, *values: str) -> list[Any]:
        return rows_of(self.database, query, *values)

    def _items(self, which: str, value: str) -> list[Any]:
        return rows_of(self.provena, f"SELECT id FROM items WHERE {which}", value)


def _artifact(request: dict[str, Any]) -> str:
    """The URN of the artifact whose bytes a request has."""
    return f"urn:ivcap:artifact:{request['path'].split('/')[3]}"


def _unfinished(run: dict[str, Any]) -> bool:
    return bool(run["run"]["outcome"] != "completed")


def _words(note: str) -> list[str]:
    return [word.strip(".,;:()") for word in note.split()]


def _parameter(parameters: str, name: str) -> Any:
    given = json.loads(parameters)
    if isinstance(given, dict):
        return given.get(name)
    return next((each.get("value") for each in given if each.get("name") == name), None)
