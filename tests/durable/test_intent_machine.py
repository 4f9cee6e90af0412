"""Whatever befalls processes, replies and journals, in whatever order: one effect for each key, and none unrecorded."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import ClassVar

import pytest
from durable_platform import VISIBILITY_DELAY
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from intent_world import TRIGGERS, Call, Killed, World, inhabit
from mutants import mutate
from simulated import journal_to_copy, try_out
from simulated_aspects import RECORD_FAULTS

from ivcap_flows.errors import IvcapFlowsError
from ivcap_flows.journal.states import ARROWS

EXAMPLES = 100
FAULTS = ("", "lost before", "lost", "late", "late and lost", "slow", "refuse")
LAST = 11
"""The last step of a call that nothing befalls."""
SENT = 8
"""The step at which its request has taken effect, and no reply came."""
REQUESTS = 3
"""How many requests for idempotency records a call sends."""
FAR = (600.0, -600.0, 10_800.0, -10_800.0)
"""Seconds by which clocks are set: some minutes and some hours, both ways."""
JUMPS = st.sampled_from(FAR)
MACHINES = st.sampled_from([0, 1])
STEPS = st.none() | st.integers(1, 24)
"""At which step a process dies or is suspended, or a call is cancelled; one with a lost reply has some twenty."""
ARROWS_OF_CALLS = {
    (None, "claimed"),
    ("claimed", "claimed"),
    ("claimed", "sent"),
    ("claimed", "done"),
    ("sent", "sent"),
    ("sent", "done"),
    ("sent", "dropped"),
    ("dropped", "claimed"),
}

keys = st.integers(0, 1)
faults = st.lists(st.sampled_from(FAULTS), max_size=3)
calls = st.builds(
    Call,
    key=keys,
    faults=faults,
    kill_at=STEPS,
    cancel_at=STEPS,
    pause=st.sampled_from([0.0, VISIBILITY_DELAY / 64]),
    machine=MACHINES,
    suspend_at=STEPS,
    clock=st.none() | st.tuples(st.integers(1, 12), JUMPS),
)
in_services = st.builds(
    lambda call: replace(call, machine=call.service % 2),
    st.builds(Call, key=keys, faults=faults, kill_at=st.none() | STEPS, cancel_at=STEPS, service=st.integers(0, 2)),
)
"""In processes that live on when the call has ended."""
slow_requests = st.builds(
    lambda key, one, other: [Call(key, ["slow"], machine=one), Call(key, machine=other, after=VISIBILITY_DELAY)],
    *(keys, MACHINES, MACHINES),
)
sleeping_machines = st.builds(
    lambda key, step: [Call(key, machine=1, suspend_at=step), Call(key, machine=0)], keys, st.integers(1, 10)
)
late_or_refused = st.builds(Call, key=keys, faults=st.just(["very late"]), kill_at=STEPS) | st.builds(
    Call, key=keys, faults=st.just(["refuse"])
)


class Intents(RuleBasedStateMachine):
    """Processes ask for effects of a few keys, one after the other and at once; at the end everybody asks in peace."""

    template: ClassVar[Path]
    seen: ClassVar[set[tuple[str | None, str]]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=self.template.parent)
        self.world = World(Path(self.folder.name), self.template)

    def teardown(self) -> None:
        try:
            self.everybody_gets_the_one_effect()
            type(self).seen |= self.world.arrows()
        finally:
            self.folder.cleanup()

    @initialize(has_server=st.booleans())
    def choose_the_journal(self, has_server: bool) -> None:
        self.world.has_server = has_server

    @rule(call=calls)
    def ask(self, call: Call) -> None:
        self.play([call])

    @rule(some=st.lists(calls, min_size=2, max_size=3))
    def ask_at_once(self, some: list[Call]) -> None:
        self.play(some)

    @rule(some=st.lists(in_services, min_size=1, max_size=3))
    def ask_in_services(self, some: list[Call]) -> None:
        self.play(some)

    @rule(call=late_or_refused)
    def ask_in_vain(self, call: Call) -> None:
        self.play([call])

    @rule(some=slow_requests | sleeping_machines)
    def ask_while_another_is_at_it(self, some: list[Call]) -> None:
        self.play(some)

    @rule(clock=st.sampled_from(["journal", "platform"]) | MACHINES, by=JUMPS)
    def set_a_clock(self, clock: str | int, by: float) -> None:
        if clock == "journal":
            self.world.journal_ahead += by
        elif clock == "platform":
            self.world.account.ahead += by
        else:
            self.world.machines[int(clock)].ahead += by

    @rule(back=st.booleans())
    def copy_the_journal_or_put_it_back(self, back: bool) -> None:
        if back:
            self.world.put_back()
        else:
            self.world.copy_journal()

    @rule(machine=st.none() | MACHINES)
    def reboot_or_lose_the_journal(self, machine: int | None) -> None:
        if machine is None:
            self.world.lose_journal()
        else:
            self.world.reboot(machine)

    def play(self, some: list[Call]) -> None:
        for result in self.world.run(some):
            # What a caller may see: an effect, a kill, a cancellation, an error of ours.
            expected = isinstance(result, Killed | asyncio.CancelledError | IvcapFlowsError)
            if isinstance(result, BaseException) and not expected:
                raise result

    @invariant()
    def one_effect_for_each_key(self) -> None:
        made = Counter(effect["of"] for effect in self.world.account.effects)
        twice = {key: count for key, count in made.items() if count > 1 and key not in self.world.excused}
        assert not twice, twice

    @invariant()
    def nothing_is_unrecorded(self) -> None:
        for effect in self.world.account.effects:
            if effect["journal"] is None:
                # Its journal was put back since.
                continue
            row = self.world.rows(effect["journal"]).get(effect["key"])
            assert row is not None and row["state"] in {"sent", "done"}, effect

    @invariant()
    def only_arrows_of_the_table(self) -> None:
        assert self.world.arrows() <= set(ARROWS)

    def everybody_gets_the_one_effect(self) -> None:
        """No fault, no kill: each key that was ever asked for has its effect, and whatever there is is on record."""
        for key in sorted(self.world.asked):
            [done] = self.world.run([Call(key)])
            assert not isinstance(done, BaseException), done
            made = [effect for effect in self.world.account.effects if effect["of"] == key]
            assert done.value["urn"] in [effect["urn"] for effect in made]
            row = self.world.rows(self.world.path)[made[0]["key"]]
            assert row["state"] == "done" and row["urn"] == done.value["urn"]
            if key not in self.world.excused:
                assert len(made) == 1
            elif key not in self.world.forgotten:
                assert row["sent_again"] or len(made) == 1
        self.one_effect_for_each_key()
        self.nothing_is_unrecorded()
        self.only_arrows_of_the_table()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Intents]]:
    """The machine on empty journals that note each change of a state, in memory where the machine has room for it."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path) as folder:
        inhabit(monkeypatch)
        # Thousands of lost replies are told of; nobody reads it.
        monkeypatch.setattr(logging.getLogger("ivcap_flows.durable"), "disabled", True)
        template = journal_to_copy(Path(folder), TRIGGERS)
        yield type("Tried", (Intents,), {"template": template, "seen": set()})


@contextmanager
def played_out(machine: type[Intents]) -> Iterator[Intents]:
    """A world of its own, in which at the end everybody asks in peace."""
    state = machine()
    try:
        yield state
    except BaseException:
        state.folder.cleanup()
        raise
    state.teardown()


def suspended(machine: type[Intents]) -> None:
    """A process is suspended at each of its steps in turn, and another machine asks for the same meanwhile."""
    for step in range(1, 12):
        with played_out(machine) as state:
            state.play([Call(0, machine=1, suspend_at=step), Call(0, machine=0)])


def given_up(machine: type[Intents]) -> None:
    """A call is cancelled at each of its steps in turn, its process lives, and others ask for the same."""
    for step in range(1, 10):
        with played_out(machine) as state:
            state.play([Call(0, service=1, machine=1, cancel_at=step)])
            begun = state.world.clock.seconds
            [done] = state.world.run([Call(0)])
            assert not isinstance(done, BaseException), done
            # What one claim is waited for, and a second until it is seen that the claim has ended.
            assert state.world.clock.seconds - begun <= 2 * VISIBILITY_DELAY + 1, step


def slow(machine: type[Intents]) -> None:
    """A request takes longer than a process may be silent, and others ask for the same meanwhile."""
    for one, other in product((0, 1), repeat=2):
        with played_out(machine) as state:
            state.play([Call(0, ["slow"], machine=one), Call(0, machine=other, after=VISIBILITY_DELAY)])


def set_at_each_step(machine: type[Intents]) -> None:
    """The clock of machine and journal is wrong from the beginning, or set at each step of a call in turn. Its first
    reply is lost and its effect shows late; or its process dies, and another takes over."""
    for step, by, kill_at in product(range(12), FAR, (None, 7)):
        with played_out(machine) as state:
            state.world.machines[0].ahead = by if step == 0 else 0.0
            state.play([Call(0, ["late and lost"], kill_at=kill_at, clock=(step, by))])
            state.play([Call(0, clock=(step, by))])


def journal_lost(machine: type[Intents]) -> None:
    """The process of a call dies at each step in turn, and its journal is lost."""
    for kill_at in range(1, 12):
        with played_out(machine) as state:
            state.play([Call(0, kill_at=kill_at)])
            state.world.lose_journal()


def put_back(
    machine: type[Intents],
    copies: Sequence[int | None] = (None, 1, 4, 5),
    deaths: Sequence[int | None] = (None, SENT),
    requests: int = 2,
    faults: Sequence[str] = ("503", "lost"),
) -> None:
    """The journal is copied before a call (None), and at steps of it: after the intent, the record, the mark. Its
    process dies at that step or a later one, or not (None). The copy is put back, and each of the first `requests` for
    idempotency records of the next run fails in each way."""
    for copy_at, kill_at in product(copies, deaths):
        if kill_at is None or kill_at >= (copy_at or 0):
            for request, fault in product(range(requests), faults):
                with played_out(machine) as state:
                    state.play([Call(0, copy_at=copy_at, kill_at=kill_at)])
                    state.world.put_back()
                    state.play([Call(0, record_faults=[*[""] * request, fault])])


def put_back_from_anywhere(machine: type[Intents]) -> None:
    """The same for each step, and each fault of each request."""
    everywhere = (None, *range(1, LAST + 1))
    put_back(machine, everywhere, everywhere, REQUESTS, tuple(RECORD_FAULTS))


def too_late(machine: type[Intents]) -> None:
    """A platform shows a request only after it was sent again. The process of the first dies at each step in turn, or
    lives and does both."""
    for kill_at in (None, *range(1, 20)):
        with played_out(machine) as state:
            state.play([Call(0, ["very late"], kill_at=kill_at)])


def everything(machine: type[Intents]) -> None:
    """Whatever the draw brings."""
    try_out(machine, EXAMPLES, steps=6)


STEPPED = (suspended, given_up, slow, set_at_each_step, journal_lost, put_back)
STEPPED_LONG = (put_back_from_anywhere, too_late)
FOUND = {
    "no settle": everything,
    "sent before it is marked": everything,
    "no idempotency records": journal_lost,
    "no fence": suspended,
    "sends are not confirmed": suspended,
    "release not written": given_up,
    "every holder dead": slow,
    "no fence, every holder dead": slow,
    "local clock in a look-up": set_at_each_step,
    "records belong to the journal": put_back,
    "sent again not noted": too_late,
}
"""Which test must fail on which build."""
SLOWLY = ("no settle", "sent before it is marked")


@pytest.mark.timeout(0)
@pytest.mark.mutant(None)
@pytest.mark.parametrize("examples", [10, pytest.param(EXAMPLES, marks=pytest.mark.long)])
def test_one_effect_for_each_key_and_none_unrecorded(machine, pytestconfig, examples):
    """With several processes, kills and cancellations at any step, lost and late replies, and journals that are lost;
    in many ways every arrow that a call can cause is seen. `--crash-rounds N` tries N times as many."""
    try_out(machine, examples * pytestconfig.getoption("--crash-rounds"), steps=6)
    assert examples < EXAMPLES or machine.seen >= ARROWS_OF_CALLS


@pytest.mark.mutant(None)
@pytest.mark.parametrize(
    "played", [*STEPPED, *(pytest.param(played, marks=pytest.mark.long) for played in STEPPED_LONG)]
)
def test_one_effect_whatever_happens_at_each_step(machine, played):
    played(machine)


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(name, marks=[pytest.mark.mutant(name), *([pytest.mark.long] if name in SLOWLY else [])])
        for name in FOUND
    ],
)
def test_a_broken_build_is_found(machine, monkeypatch, build):
    mutate(build, monkeypatch.setattr)
    with pytest.raises(AssertionError):
        FOUND[build](machine)
