"""Equal requests under several keys, whose effects the platform does not tell apart: each key gets an effect of its
own, in one journal and in two."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from durable_platform import Account, Platform
from simulated import Clock, run_on

from ivcap_flows.durable import Performed
from ivcap_flows.journal import IntentRow, Journal

KEYS = ("a", "b", "c")
SLOW = (0.15, 1.2)
"""Seconds for which the outcome of an effect is being written."""


class Jobs(Platform):
    """A journal's view of a platform that shows no key: its requests take a moment, and its outcomes longer."""

    def __init__(self, account: Account, faults: Any = (), outcomes: float = 0.0) -> None:
        super().__init__(account, faults)
        self.matched_by = "content"
        self._outcomes = outcomes

    async def travel(self) -> None:
        await asyncio.sleep(0.05 if self.asked[-1:] != ["outcome"] else 0.05 + self._outcomes)

    async def all_of(self, journal: Journal, keys: Any = KEYS, after: float = 0.0) -> list[Any]:
        await asyncio.sleep(after)
        calls = (self.call(journal, records=True, discriminator=each) for each in keys)
        return await asyncio.gather(*calls, return_exceptions=True)


@pytest.fixture
def journals(tmp_path: Path) -> Iterator[list[Journal]]:
    with ExitStack() as opened:
        yield [opened.enter_context(Journal.open(f"sqlite:///{tmp_path / name}")) for name in "ab"]


def rows_of(*journals: Journal) -> list[IntentRow]:
    return [row for journal in journals for row in journal.intents.where(limit=None) if row.state == "done"]


def is_one_to_one(*journals: Journal) -> bool:
    """Whether each key has one effect, whichever journals know it, and each effect one key."""
    pairs = {(row.key, row.urn) for row in rows_of(*journals)}
    return len(pairs) == len({key for key, _ in pairs}) == len({urn for _, urn in pairs})


BEFALLS = ("", "lost", "late and lost", "lost before", "given up", "given up before")


@pytest.mark.catches("equal requests not asked for", "rivals not waited for")
@pytest.mark.parametrize("befalls", [BEFALLS[:2], pytest.param(BEFALLS, marks=pytest.mark.long)], ids=["some", "all"])
def test_two_journals_agree_on_the_effect_of_each_key(journals, befalls):
    """Whatever befalls the requests of the one, however long it writes its outcomes, and whenever the other begins."""
    for faults, slow, after in product(product(befalls, repeat=3), SLOW, (0.0, 0.2, 0.5)):
        account = Account(Clock())
        for journal in journals:
            with journal._store.write() as connection:
                connection.exec_driver_sql("DELETE FROM intents")

        async def both(account: Account, faults: Any, slow: float, after: float) -> list[Any]:
            one, other = Jobs(account, faults, slow), Jobs(account, (), slow)
            return await asyncio.gather(one.all_of(journals[0]), other.all_of(journals[1], after=after))

        done = run_on(account.clock, both(account, faults, slow, after))
        case = faults, slow, after, [[getattr(each, "how", each) for each in some] for some in done]
        assert is_one_to_one(*journals), case
        if not {"lost before", "given up before"} & set(faults):
            assert len(account.effects) == len(KEYS), case
            assert all(isinstance(each, Performed | asyncio.CancelledError) for some in done for each in some), case
        given = [each.value["urn"] for some in done for each in some if isinstance(each, Performed)]
        assert set(given) == {row.urn for row in rows_of(*journals)}, case


@pytest.mark.catches("all take the oldest")
def test_two_journals_whose_processes_all_died_take_different_ones(journals):
    """All requests were accepted, and none of the keys knows its own: at the same moment, both find all of them."""
    account = Account(Clock())

    async def both(faults: Any) -> list[Any]:
        one, other = Jobs(account, faults, 0.0), Jobs(account, faults, 0.0)
        done = await asyncio.gather(one.all_of(journals[0], ("1", "2")), other.all_of(journals[1], ("3", "4")))
        return [each for some in done for each in some]

    died = run_on(account.clock, both(["given up"] * 2))
    assert all(isinstance(each, asyncio.CancelledError) for each in died) and len(account.effects) == 4
    done = run_on(account.clock, both(()))
    assert [each.how for each in done] == ["adopted"] * 4 and len(account.effects) == 4
    assert is_one_to_one(*journals)


@pytest.mark.catches("who loses gives up")
def test_equal_effects_whose_replies_were_all_lost_are_found_again(journals):
    """All of them are there, so each key gets one: who loses the race for one looks again at once."""
    keys = [str(number) for number in range(14)]
    jobs = Jobs(Account(Clock()), ["lost"] * len(keys))
    done = run_on(jobs.account.clock, jobs.all_of(journals[0], keys))
    assert {each.how for each in done} == {"adopted"} and len(jobs.urns) == len(keys)
    assert sorted(each.value["urn"] for each in done) == sorted(jobs.urns)
    assert not any(row.duplicates for row in rows_of(journals[0]))
