"""A row of the journal, by which the processes that wait on one account poll in turn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ivcap_flows.journal import Journal
from ivcap_flows.journal.rows import MISSED_ROUNDS, Poll, Wanted


def test_a_round_is_of_one_process(durable_journal: Journal):
    """One process begins a round. What it saw is read by all, and what has ended goes with the next round."""
    polls = durable_journal.polls
    assert polls.read("list") == Poll()
    polls.add("list", {"o1": "s", "o2": "t"})
    noted = polls.add("list", {"o1": "s", "o3": "s"})
    assert noted == Poll(0, 0, {"o1": Wanted("s"), "o2": Wanted("t"), "o3": Wanted("s")}) == polls.read("list")
    assert polls.read("list", noted) is noted
    begun = polls.begin("list", 0)
    assert begun is not None and begun.asking and polls.begin("list", 0) is None
    assert polls.read("list", noted) == begun
    seen = {"o1": Wanted("s", "succeeded"), "o2": Wanted("t", missed=1), "gone": Wanted("s", "executing")}
    polls.add("list", {"late": "s"})
    ended = polls.end("list", 1, seen)
    still_wanted = {"o2": Wanted("t", missed=1), "o3": Wanted("s"), "late": Wanted("s")}
    assert not ended.asking and ended.wanted == {"o1": Wanted("s", "succeeded"), **still_wanted}
    assert polls.read("list", begun) == ended
    overtaken, newer = polls.begin("list", 1), polls.begin("list", 2)
    assert overtaken is not None and newer is not None
    still = polls.end("list", 2, {"o1": Wanted("s", "executing"), "o2": Wanted("t", missed=MISSED_ROUNDS + 1)})
    assert still.asking and still.wanted.keys() == {"o3", "late"}
    assert not polls.end("list", 3, {}).asking
    assert polls.unwatch("list", ["o3", "late"]).wanted == {}


@pytest.mark.catches("rounds of many")
def test_a_round_is_of_one_of_many_processes_at_once(durable_url: str):
    """However many begin the same round at the same moment, one succeeds."""
    journals = [Journal.open(durable_url) for _ in range(8)]
    journals[0].polls.add("at once", {"o1": "s"})
    with ThreadPoolExecutor(len(journals)) as pool:
        for number in range(5):
            found = pool.map(lambda journal, n=number: journal.polls.begin("at once", n), journals)
            assert sum(each is not None for each in found) == 1
    for journal in journals:
        journal.close()
