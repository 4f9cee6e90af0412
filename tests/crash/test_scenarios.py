"""A pipeline of orders, killed and disturbed wherever it can be: at the end the platform's own books are right.

`make proofs` meets each step once. `make crash N=200` draws scenarios over step, victim, fault and database by a seed
(`SEED=`), plays several at a time, and prints what came of them by step, by fault and by what was varied.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness.incidents import INCIDENTS
from harness.scenario import FAULTS, LARGE, OTHER_STEPS, RANDOM, STEPS, VARIATIONS, Kill, Scenario, drawn
from harness.stage import Stage
from harness.table import lines_of
from harness.trial import Trial

pytestmark = [pytest.mark.crash, pytest.mark.long, pytest.mark.timeout(4 * 3600)]

AT_ONCE = 4


def kills(*steps: str, victim: str = "flow") -> tuple[Kill, ...]:
    return tuple(Kill(step, victim) for step in steps)


SHORT = {
    each.mark: each
    for each in (
        Scenario("sending", kills(*STEPS[:6]), orders=1, fails=0, vary=("hash seed", "working folder", "checkout")),
        Scenario(
            "replies",
            kills(*STEPS[6:9]),
            orders=1,
            fails=0,
            fault="lost and late",
            backend="postgresql",
            vary=("clocks",),
            seed=1,
        ),
        Scenario(
            "waiting", kills(*STEPS[9:13]), orders=2, fault="503", rules=FAULTS["cut connections"], vary=("any order",)
        ),
        Scenario(
            "uploading",
            (*kills(*STEPS[13:17]), *(Kill("after a chunk", nth=nth) for nth in (2, 4, 3))),
            orders=1,
            fails=0,
            fault="late in lists",
            size=LARGE,
            vary=("large",),
        ),
        Scenario(
            "others",
            kills(*OTHER_STEPS),
            orders=1,
            fails=0,
            fault="lost replies of Provena",
            vary=("other effects", "hash seed", "sets", "clocks"),
        ),
        Scenario(
            "new-journals",
            kills("after the request, before its reply", "after the last byte", *OTHER_STEPS),
            orders=2,
            vary=("other effects", "new journal"),
        ),
        Scenario(
            "no-database",
            kills("after the intent", "after the reply", "before the upload is noted", victim="database"),
            orders=1,
            fails=0,
            backend="postgresql",
        ),
        Scenario("asleep", kills("after the mark", victim="flow asleep"), orders=1, fails=0),
        Scenario("given-up", kills("before the request", victim="call"), orders=1, fails=0),
        Scenario("ending", kills(*STEPS[16:]), orders=1, fails=0, fault="expired tokens", rules=FAULTS["500"]),
        Scenario(
            "no-embedded", kills("before the request", "in the wait", victim="embedded"), orders=1, fault="lost replies"
        ),
        Scenario("at-once", (Kill(RANDOM, after=2.0),), orders=2, fault="twice at once", rules=FAULTS["cut replies"]),
        Scenario(
            "parked",
            (Kill("between note and schedule"), Kill("parked", "embedded"), Kill("parked", "watcher")),
            orders=1,
            fails=0,
            seconds=300.0,
            deployed=True,
            watched=True,
            backend="postgresql",
        ),
    )
}
SHORT |= {
    mark: Scenario(mark, orders=1, fails=0).with_incident(name, *incident.steps)
    for name, incident in INCIDENTS.items()
    for mark in [name.replace(" ", "-").lower()]
}
SHORT["equal-jobs"] = Scenario("equal-jobs", orders=1, fails=0, vary=("equal jobs",)).with_incident(
    "two journals", "after the job's reply", "before the outcome is told"
)
BROKEN = {
    each.mark: each
    for each in (
        Scenario("too-late", kills("after the reply"), orders=1, fails=0, build="intent after the effect"),
        Scenario("no-settle", orders=1, fails=0, fault="lost and late", build="no settle"),
        Scenario("not-synced", orders=1, fails=0, build="synchronous off"),
        Scenario(
            "not-stored",
            (Kill("after a chunk", nth=5),),
            orders=1,
            fails=0,
            size=LARGE,
            build="progress not stored",
        ),
        Scenario("by-path", orders=1, fails=0, fault="twice at once", vary=("checkout",), build="key by path"),
        Scenario(
            "unsorted",
            kills("after the aspect's reply"),
            orders=1,
            fails=0,
            vary=("other effects", "hash seed", "sets"),
            build="sets unsorted",
        ),
    )
}
BROKEN |= {
    mark: Scenario(mark, orders=1, fails=0, build=incident.build[0]).with_incident(name, incident.build[1])
    for name, incident in INCIDENTS.items()
    for mark in [f"{name.replace(' ', '-').lower()}-broken"]
    if incident.build is not None
}
RIGHT = {f"{mark}-right": replace(each, mark=f"{mark}-right", build=None) for mark, each in BROKEN.items()}
FINDS = {mark: each.incident.finds if each.incident else "duplicates" for mark, each in BROKEN.items()}
FINDS["not-synced"] = "undurable"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # The long form meets what the short one does, and more.
    rounds = metafunc.config.getoption("--crash-rounds")
    if "mark" in metafunc.fixturenames:
        metafunc.parametrize("mark", list(SHORT) if rounds == 1 else ())


@pytest.fixture(scope="module")
def stage(
    prefect_server: dict[str, str],
    made_journal: Path,
    postgresql_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("stage"), prefect_server, made_journal, postgresql_server)
    yield made
    made.close()


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, stage: Stage) -> Iterator[dict[str, Future[Trial]]]:
    """The trials that the session's tests ask for, several under way at once."""
    wanted = {item.callspec.params[name] for item in request.session.items for name in _names(item)}
    every = [each for each in (SHORT | BROKEN | RIGHT).values() if each.mark in wanted]
    # Those that wait most begin first.
    every.sort(key=lambda scenario: not (scenario.deployed or scenario.asleep))
    with ThreadPoolExecutor(AT_ONCE) as lanes:
        yield {scenario.mark: lanes.submit(Trial(stage, scenario).play) for scenario in every}


def _names(item: Any) -> list[str]:
    if item.path != Path(__file__) or not hasattr(item, "callspec"):
        return []
    return [name for name in ("mark", "broken", "right") if name in item.callspec.params]


def test_killed_and_disturbed(played, mark):
    """Each order once, each byte once but for a chunk, all of it on record, and each step was come to."""
    trial = played[mark].result()
    assert trial.verdict.fine, f"{trial.scenario}\n{trial.verdict}\n{trial.said}"
    assert not trial.unreached, trial.said


def of(mark: str, build: str | None) -> Any:
    return pytest.param(mark, marks=pytest.mark.mutant(build))


@pytest.mark.parametrize("broken", [of(mark, each.build) for mark, each in BROKEN.items()])
def test_a_broken_build_is_found(played, broken, record_property):
    """An intent after its effect, no visibility delay, a journal that does not wait for the disk: each is found."""
    trial = played[broken].result()
    record_property("seconds", trial.seconds)
    assert getattr(trial.verdict, FINDS[broken]), f"{trial.verdict}\n{trial.said}"


@pytest.mark.parametrize("right", [of(mark, None) for mark in RIGHT])
def test_the_right_build_passes_the_same(played, right, record_property):
    """What shows in the books of a broken build is not there in those of the right one."""
    trial = played[right].result()
    record_property("seconds", trial.seconds)
    assert trial.verdict.fine, f"{trial.verdict}\n{trial.said}"


def test_the_short_form_leaves_no_step_out():
    """A step or a fault that is added to the long form is added to the short one, too."""
    short = SHORT.values()
    assert {kill.step for scenario in short for kill in scenario.kills} >= {*STEPS, *OTHER_STEPS}
    assert {each for scenario in short for each in scenario.vary} >= set(VARIATIONS)
    rules = [rule for scenario in short for rule in (*FAULTS[scenario.fault], *scenario.rules)]
    effects = {effect for rule in rules for effect in rule}
    assert {effect for rules in FAULTS.values() for rule in rules for effect in rule} - {"late_visibility"} <= effects


def test_scenarios_drawn(request, stage, capfd):
    """Nothing twice, nothing lost, nothing unrecorded, whatever is killed and disturbed when."""
    count = request.config.getoption("--crash-rounds")
    seed = int(os.environ.get("CRASH_SEED") or random.randrange(10**6))
    trials: list[Trial] = []
    with capfd.disabled(), ThreadPoolExecutor(AT_ONCE) as lanes:
        print(f"\n{count} scenarios, seed {seed}", flush=True)
        asked = [each for each in drawn(count, seed) if os.environ.get("CRASH_ONLY") in (None, "", each.mark)]
        playing = [lanes.submit(Trial(stage, scenario).play) for scenario in asked]
        for done in as_completed(playing):
            trials.append(done.result())
            trial = trials[-1]
            told = f"{len(trials):>4}  {trial.seconds:>5.1f} s  {trial.turns} tries  {trial.scenario}  {trial.verdict}"
            print(told, flush=True)
            if not trial.verdict.fine:
                print(trial.said, flush=True)
        print("\n".join(lines_of(trials)), flush=True)
    bad = [trial for trial in trials if not trial.verdict.fine]
    # What was printed is lost where the test runs in a process of pytest-xdist.
    assert not bad, "\n".join(f"{trial.scenario}  {trial.verdict}\n{trial.said}" for trial in bad)
