"""One trial: where it is hit, by what, and on which ground; written down in its folder for all processes to read."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from harness.incidents import INCIDENTS, Incident

__all__ = [
    "ASLEEP_STEPS",
    "DEPLOYED_STEPS",
    "EQUAL",
    "FAULTS",
    "GIVEN_UP_STEPS",
    "LARGE",
    "NOTE",
    "OTHER_STEPS",
    "RANDOM",
    "STEPS",
    "VARIATIONS",
    "VICTIMS",
    "Kill",
    "Scenario",
    "drawn",
]

RANDOM: Final = "at a random moment"
EQUAL: Final = 3
"""How many equal jobs there are to be."""
LARGE: Final = 6_000_000
"""Bytes, a dozen chunks."""

STEPS: Final = (
    "before the intent",
    "after the intent",
    "after the idempotency record",
    "before the request",
    "after the mark",
    "with the request on its way",
    "after the request, before its reply",
    "after the reply",
    "before the outcome is told",
    "in the wait",
    "before the end is noted",
    "before it is placed again",
    "after the reply to that",
    "before the fan-in upload",
    "before its name is noted",
    "in the middle of a chunk",
    "after a chunk",
    "after the last byte",
    "before the upload is noted",
    "before the flow ends",
    "after its end is noted",
)
"""Where a flow that runs anywhere may be hit, in the order of its going."""
DEPLOYED_STEPS: Final = (
    "before the park is noted",
    "between note and schedule",
    "after the schedule",
    "parked",
    "on waking",
)
"""Where a flow that parks may be hit besides."""

NOTE: Final = "urn:example:schema:note.1"
"""Of the aspect."""
OTHER_STEPS: Final = (
    "after the job's reply",
    "after the aspect's reply",
    "after the item's reply",
    "after the mint's reply",
)
"""Where a flow that has other effects may be hit besides."""
GIVEN_UP_STEPS: Final = (
    "after the intent",
    "before the request",
    "with the request on its way",
    "after the request, before its reply",
)
"""Where a call may be cancelled, whose process lives on."""
ASLEEP_STEPS: Final = (
    "after the intent",
    "before the request",
    "after the mark",
    "after the request, before its reply",
    "before the outcome is told",
    "in the wait",
)
"""Where a flow may be suspended for longer than its lease, while another machine goes on with the run."""

VARIATIONS: Final = (
    "hash seed",
    "working folder",
    "checkout",
    "sets",
    "clocks",
    "any order",
    "other effects",
    "equal jobs",
    "large",
    "new journal",
)
"""What may differ from one process of a trial to the next, or from one trial to the next.

Hash seed: of Python, another for each process. Working folder, checkout: likewise, the folder with the flow's code.
Sets: among the parameters. Clocks: the journal's, another time for each process. Any order: tasks that run at once, by
submit or gather, and take another time in each process, place the orders. Other effects: a job, an aspect, an item, a
dataset. Equal jobs: some with one request. Large: files of many chunks. New journal: each process begins with an empty
one, as a pod whose disk is gone with it.
"""

VICTIMS: Final = ("flow", "embedded", "worker", "watcher", "flow and worker")

LATER: Final = "later than the embedded delay"
"""The fault of a platform that is as late as real ones may be."""

FAULTS: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "none": (),
    "lost replies": ({"path": "^/1/", "probability": 0.15, "count": 6, "drop_reply_after_effect": True},),
    "503": ({"path": "^/1/", "probability": 0.2, "count": 6, "status": 503},),
    "500": ({"path": "^/1/", "probability": 0.15, "count": 6, "status": 500},),
    "cut connections": ({"path": "^/1/", "probability": 0.2, "count": 6, "reset": True},),
    "cut replies": ({"path": "^/1/", "probability": 0.15, "count": 6, "truncate": 10},),
    "late": ({"method": "POST", "path": "^/1/(orders|aspects)", "late_visibility": 1.5},),
    LATER: ({"method": "POST", "path": "^/1/(orders|aspects)", "late_visibility": 5.5},),
    "late in lists": ({"method": "POST", "path": "^/1/", "late_in_lists": 1.5},),
    "lost and late": (
        {"method": "POST", "path": "^/1/orders$", "count": 2, "drop_reply_after_effect": True, "late_visibility": 1.5},
    ),
    "expired tokens": ({"path": "^/1/", "probability": 0.1, "count": 2, "expire_token": True},),
    "lost replies of Provena": (
        {"path": "^/provena/", "probability": 0.2, "count": 6, "drop_reply_after_effect": True},
    ),
    "twice at once": (),
}
"""By name, the rules that the embedded platform goes by. Twice at once: two processes of the same, on the same run if
deployed.
"""

_BY_STEP: Final[dict[str, dict[str, Any]]] = {
    "with the request on its way": {"method": "POST", "path": "^/1/orders$", "count": 1, "delay": 1.0},
    "after the request, before its reply": {
        "method": "POST",
        "path": "^/1/orders$",
        "count": 1,
        "drop_reply_after_effect": True,
    },
}
"""What a step needs of the embedded platform to be reached."""


@dataclass(frozen=True)
class Kill:
    """`after`: seconds from the start of a process, for a random moment; else the step is met at its `nth` time. The
    victim may also be "flow asleep": it stops until another machine has taken over the run and ended it; or "call": it
    is cancelled, and its process lives on; or the name of an incident."""

    step: str
    victim: str = "flow"
    after: float = 0.0
    nth: int = 1


@dataclass(frozen=True)
class Scenario:
    """`orders` are placed at once, the first of which fails `fails` times and the last takes `seconds`,
    or until told to end where these are many; then one more. `limited`: under a limit of a Prefect server of its own.
    """

    mark: str
    kills: tuple[Kill, ...] = ()
    fault: str = "none"
    backend: str = "sqlite"
    deployed: bool = False
    watched: bool = False
    limited: bool = False
    build: str | None = None
    orders: int = 3
    fails: int = 1
    seconds: float = 0.5
    size: int = 1_300_000
    seed: int = 0
    rules: tuple[dict[str, Any], ...] = field(default=())
    vary: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[str, Any]:
        """Of the flow, beside its folder."""
        return {"mark": self.mark, "tags": ["wet", "dry", "warm", "cold", "calm"] if "sets" in self.vary else []}

    @property
    def job(self) -> str:
        return f"{self.mark}-job"

    @property
    def equal(self) -> str:
        """The name of the equal jobs."""
        return f"{self.mark}-equal"

    @property
    def owner(self) -> str:
        return f"{self.mark}-owner"

    @property
    def scope(self) -> str:
        """Two commands at once, or with a journal each, are two runs, which are to share their effects."""
        return "flow" if (self.together and not self.deployed) or self.forgetful else "run"

    @property
    def new_journal(self) -> bool:
        return "new journal" in self.vary

    @property
    def forgetful(self) -> bool:
        """Whether a process has a journal that lacks what another one did."""
        return self.new_journal or (self.incident is not None and self.incident.forgets)

    @property
    def asleep(self) -> bool:
        return any(kill.victim == "flow asleep" for kill in self.kills)

    @property
    def lives_on(self) -> bool:
        """Whether a process outlives the call that it gave up."""
        return any(kill.victim == "call" for kill in self.kills)

    @property
    def twice(self) -> bool:
        return self.fault == "twice at once"

    @property
    def incident(self) -> Incident | None:
        return next((INCIDENTS[kill.victim] for kill in self.kills if kill.victim in INCIDENTS), None)

    @property
    def visibility_delay(self) -> float | None:
        """What the processes of the flow assume in place of the embedded platform's."""
        if self.incident is not None and self.incident.visibility_delay is not None:
            return self.incident.visibility_delay
        return 7.0 if self.fault == LATER else None

    @property
    def together(self) -> bool:
        """Whether processes are at work at once, each in a run of its own if that is not deployed."""
        return self.twice or (self.incident is not None and self.incident.together)

    def with_incident(self, name: str, *steps: str) -> Scenario:
        """The same where this happens at these steps. What else were to befall the flow would befall it twice."""
        incident = INCIDENTS[name]
        vary = tuple(each for each in self.vary if each not in incident.without)
        return replace(self, kills=tuple(Kill(step, name) for step in steps), vary=vary, **incident.given)

    @property
    def names(self) -> list[str]:
        """Of the orders that are placed at once."""
        return [f"{self.mark}-{number}" for number in range(self.orders)]

    @property
    def wanted(self) -> dict[str, int]:
        """How many orders of each name there are to be."""
        return {name: 1 + (self.fails if name == self.names[0] else 0) for name in self.names} | {f"{self.mark}-all": 1}

    @property
    def all_rules(self) -> list[dict[str, Any]]:
        by_step = [_BY_STEP[kill.step] for kill in self.kills if kill.step in _BY_STEP]
        drawn = [rule | ({"seed": self.seed} if "probability" in rule else {}) for rule in FAULTS[self.fault]]
        return [*by_step, *self.rules, *drawn]

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "scenario.json").write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Scenario:
        given = json.loads((folder / "scenario.json").read_text(encoding="utf-8"))
        given["kills"] = tuple(Kill(**kill) for kill in given["kills"])
        given["vary"] = tuple(given["vary"])
        return cls(**given)

    def __str__(self) -> str:
        kills = "; ".join(f"{kill.victim} {kill.step}" for kill in self.kills) or "nothing killed"
        how = "deployed, watched" if self.watched else "deployed" if self.deployed else "script"
        return f"{self.mark}: {kills}; {self.fault}; {how}; {self.backend}; {', '.join(self.vary) or 'as ever'}"


def drawn(count: int, seed: int, *, postgresql: bool = True) -> Iterator[Scenario]:
    """So many scenarios: every step and every fault in turn, the rest by the seed's chance."""
    chance = random.Random(seed)
    script = [(step, victim) for victim in ("flow", "embedded") for step in (*STEPS, RANDOM, RANDOM)]
    script += [(step, "flow") for step in STEPS]
    script += [(step, "database") for step in (*STEPS[::3], RANDOM)] if postgresql else []
    deployed = [
        (step, victim)
        for step in (*DEPLOYED_STEPS, "after the reply", "in the wait", RANDOM)
        for victim in VICTIMS
        # A run that is parked has no process to be killed.
        if not (step == "parked" and "flow" in victim)
    ]
    for each in (script, deployed):
        chance.shuffle(each)
    scripts, deployments = itertools.cycle(script), itertools.cycle(deployed)
    faults = itertools.cycle(chance.sample(sorted(FAULTS), len(FAULTS)))
    asleep, others = itertools.cycle(ASLEEP_STEPS), itertools.cycle(OTHER_STEPS)
    given_up = itertools.cycle(GIVEN_UP_STEPS)
    incidents = _incidents(chance, postgresql=postgresql)
    for number in range(count):
        is_deployed = number % 5 == 4
        kills = [Kill(*next(deployments if is_deployed else scripts))]
        if not is_deployed and chance.random() < 0.4:
            kills.append(Kill(*next(scripts)))
        vary = [each for each in VARIATIONS if chance.random() < 0.5]
        if "other effects" in vary and chance.random() < 0.5:
            kills.append(Kill(next(others)))
        if "large" in vary:
            kills += [Kill("after a chunk", nth=chance.randint(2, 9)) for _ in range(2)]
        fault = next(faults)
        if not is_deployed and fault != "twice at once" and chance.random() < 0.1:
            # What else were to befall the sleeper would befall it twice.
            kills = [Kill(next(asleep), "flow asleep")]
        elif not is_deployed and chance.random() < 0.15:
            kills.append(Kill(next(given_up), "call"))
        has_database = any(kill.victim == "database" for kill in kills)
        if is_deployed or fault == "twice at once" or {"database", "flow asleep", "call"} & {k.victim for k in kills}:
            # A worker has the journal of its deployment, and two processes at work at once have one between them.
            vary = [each for each in vary if each != "new journal"]
        if "new journal" in vary:
            # Where it is not known whether each of several equal jobs was requested, the user decides.
            vary = [each for each in vary if each != "equal jobs"]
        on_postgresql = has_database or (chance.random() < 0.35 and "new journal" not in vary)
        latest = 12.0 if is_deployed else 5.0
        timed = [replace(kill, after=chance.uniform(0.2, latest)) if kill.step == RANDOM else kill for kill in kills]
        scenario = Scenario(
            mark=f"s{seed}-{number}",
            kills=tuple(timed),
            fault=fault,
            backend="postgresql" if postgresql and on_postgresql else "sqlite",
            deployed=is_deployed,
            watched=is_deployed and (chance.random() < 0.5 or any(kill.victim == "watcher" for kill in kills)),
            seconds=300.0 if is_deployed else 0.5,
            seed=chance.randrange(10**6),
            size=LARGE if "large" in vary else 1_300_000,
            vary=tuple(vary),
        )
        happens = not is_deployed and fault != "twice at once" and chance.random() < 0.15
        yield scenario.with_incident(*next(incidents)) if happens else scenario


def _incidents(chance: random.Random, *, postgresql: bool) -> Iterator[tuple[str, str]]:
    """Each incident in turn, at each of its steps in turn."""
    steps = {
        name: itertools.cycle(chance.sample(incident.steps, len(incident.steps)))
        for name, incident in INCIDENTS.items()
        if postgresql or incident.given.get("backend") != "postgresql"
    }
    for name in itertools.cycle(chance.sample(sorted(steps), len(steps))):
        yield name, next(steps[name])
