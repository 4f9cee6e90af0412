"""An intent has one holder, changes its state only along the table, and is never lost."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import replace

import pytest
import sqlalchemy as sa
from on_record import wanted

from ivcap_flows.errors import DurabilityError, FencedError, InDoubtError, JournalError, SpendLimitError
from ivcap_flows.http.server_clock import ServerTime
from ivcap_flows.journal import Journal, schema
from ivcap_flows.journal.rows import GIVEN_UP, RESEND, WRITTEN_OFF
from ivcap_flows.journal.states import ARROWS


@pytest.fixture
def sent(journal):
    """Claims a key and marks it as sent."""
    return lambda key="k1:a", **more: journal.intents.mark_sent(journal.intents.claim(wanted(key, **more)).intent)


def test_a_live_claim_holds_and_a_killed_one_is_in_doubt_once_sent(journal_url, journal, child):
    """A request leaves only after the mark, so without the mark the next claim may send at once."""

    def claim():
        with Journal.open(journal_url) as other:
            other.intents.mark_sent(other.intents.claim(wanted("k1:sent")).intent)
            yield other.intents.claim(wanted("k1:claimed")).intent.fence

    process = child(claim)
    keys = ("k1:sent", "k1:claimed")
    assert process.said() == 1
    assert [journal.intents.claim(wanted(key)).kind for key in keys] == ["held", "held"]
    process.kill()
    claims = [journal.intents.claim(wanted(key)) for key in keys]
    assert [(claim.kind, claim.intent.state, claim.intent.fence) for claim in claims] == [
        ("doubt", "sent", 2),
        ("new", "claimed", 2),
    ]
    assert [claim.intent.sent_at is None for claim in claims] == [False, True]
    assert [journal.intents.get(key) for key in keys] == [claim.intent for claim in claims]
    assert [journal.intents.claim(wanted(key)).kind for key in keys] == ["held", "held"]


def test_an_outcome_is_kept_for_whoever_asks(journal, sent):
    """As it was written. That the work has ended is noted once it was accepted, and needs no claim."""
    intents = journal.intents
    intent, outcome = sent(), {"urn": "urn:o", "text": "Niño\u0000\ud800"}
    assert intents.finish(intent.key, "failed").state == "sent"
    done = intents.settle(intent, urn="urn:o", outcome=outcome, how="sent")
    assert intents.settle(done, urn="urn:o", outcome=outcome, how="sent").state == "done", "a reply that comes twice"
    claim = intents.claim(wanted())
    assert (claim.kind, claim.intent.outcome, claim.intent.urn, claim.intent.how) == ("kept", outcome, "urn:o", "sent")
    assert claim.intent.fence == 1
    ended = intents.finish(intent.key, "failed")
    assert (ended.state, ended.status, ended.outcome) == ("done", "failed", outcome)
    assert intents.finish("k1:unknown", "failed") is None


def test_a_claim_ends_with_its_call_or_its_release(journal_url, journal, at_statement):
    """Other journal objects of the process see that, too. What has ended is not written again."""
    intents, statements = journal.intents, []
    with Journal.open(journal_url) as other:
        first = other.intents.claim(wanted()).intent
        assert intents.claim(wanted()).kind == "held"
        other.intents.release(first)
    second = intents.claim(wanted())
    assert second.kind == "new"
    intents.release(intents.mark_sent(second.intent))
    assert intents.claim(wanted()).kind == "doubt"
    some = [intents.claim(wanted(f"k1:{n}")).intent for n in range(3)]
    intents.settle(intents.mark_sent(some[0]), urn="urn:o", outcome={}, how="sent")
    intents.drop(intents.mark_sent(some[1]), "refused")
    intents.release(some[2])
    at_statement(journal, "", lambda: statements.append(1))
    for each in some:
        intents.release(each, "lost")
    assert statements == []
    assert [intents.claim(wanted(f"k1:{n}")).kind for n in range(3)] == ["kept", "new", "new"]


def test_an_older_fence_is_refused_everywhere(journal):
    """A holder that has lost its claim can neither send nor write."""
    intents = journal.intents
    old = intents.claim(wanted()).intent
    intents.release(old)
    new = intents.claim(wanted()).intent
    assert new.fence == old.fence + 1
    for write in (
        lambda: intents.mark_sent(old),
        lambda: intents.mark_in_doubt(old, "lost"),
        lambda: intents.progress(old, {}),
        lambda: intents.settle(old, urn="urn:old", outcome={}, how="sent"),
        lambda: intents.drop(old, "refused"),
    ):
        with pytest.raises(FencedError):
            write()
    assert intents.get("k1:a") == new


def test_arrows_missing_from_the_table_are_refused(journal):
    """And the row is unchanged. Only who knows that an effect is done takes that back."""
    moves = {
        "sent": journal.intents.mark_sent,
        "done": lambda row: journal.intents.settle(row, urn="u", outcome={}, how="sent"),
        "dropped": lambda row: journal.intents.drop(row, "refused"),
    }
    row = journal.intents.claim(wanted()).intent
    missing = [
        (before, after)
        for before in ("claimed", "sent", "done", "dropped")
        for after in moves
        if (before, after) not in ARROWS or (before == "done" != after)
    ]
    assert len(missing) == 5
    for before, after in missing:
        with journal._store.write() as connection:
            connection.execute(sa.update(schema.intents).values(state=before))
        with pytest.raises(DurabilityError, match=f"is {before} and cannot become {after}"):
            moves[after](row)
        assert journal.intents.get("k1:a").state == before


def test_progress_is_kept_until_a_refusal(journal):
    """It changes no state, and the next holder gets it. The fence decides who may write, not how new a row is."""
    intents = journal.intents
    claimed = intents.progress(intents.claim(wanted()).intent, {"at": 0})
    assert (claimed.state, claimed.progress) == ("claimed", {"at": 0})
    assert intents.progress(intents.mark_sent(claimed), {"at": 1}).state == "sent"
    again = intents.mark_sent(claimed)
    assert (again.state, again.progress) == ("sent", {"at": 1}) and again == intents.get("k1:a")
    intents.release(again)
    taken = intents.claim(wanted()).intent
    assert taken.progress == {"at": 1}
    intents.drop(taken, "refused")
    claim = intents.claim(wanted())
    assert (claim.kind, claim.intent.state, claim.intent.progress, claim.intent.error) == ("new", "claimed", None, None)


def test_what_was_sent_again_is_on_record(journal, sent):
    """Sent once more after a doubt, whoever does it; neither the first time nor when it is resumed."""
    intents = journal.intents
    doubted, resumed = (intents.mark_in_doubt(sent(key), "lost") for key in ("k1:again", "k1:resumed"))
    assert not doubted.sent_again
    intents.release(doubted)
    intents.mark_sent(intents.progress(resumed, {"at": 1}))
    intents.settle(sent("k1:again"), urn="urn:o", outcome={}, how="sent")
    assert [row.key for row in intents.where(only="sent again")] == ["k1:again"]


def test_a_doubt_about_what_never_left_is_as_old_as_it_may_be(journal):
    """It is about another journal's request, whose time on the platform is unknown."""
    now = journal.now()
    row = journal.intents.claim(wanted(platform_time=now)).intent
    assert journal.intents.mark_in_doubt(row, "x", ServerTime(now, now)).platform_time is None
    assert journal.intents.get(row.key).platform_time is None


DECISIONS = {
    "resolve": lambda decisions, key: decisions.resolve(key, urn="urn:user", outcome={"by": "user"}),
    "write_off": lambda decisions, key: decisions.write_off(key),
    "give_up": lambda decisions, key: decisions.give_up(key),
    "send_again": lambda decisions, key: decisions.send_again(key),
    "take_over": lambda decisions, key: decisions.take_over(key),
    "account_for": lambda decisions, key: decisions.account_for(key, "failed"),
}
HELD, CLEAR, UNKNOWN = "is working on the", "not in doubt", "not known to exist"
DECIDED = {
    "held": (HELD, HELD, HELD, HELD, UNKNOWN, UNKNOWN),
    "in doubt": ("kept", "new", "given up", "new", UNKNOWN, UNKNOWN),
    "done": (CLEAR, CLEAR, CLEAR, CLEAR, "kept", "kept"),
    "dropped": (CLEAR, CLEAR, CLEAR, "new", UNKNOWN, UNKNOWN),
    "given up": (CLEAR, CLEAR, CLEAR, "new", UNKNOWN, UNKNOWN),
}
"""For an intent in this state, what the next claim gets after each decision, or why the decision is refused."""


@pytest.mark.parametrize("state", DECIDED)
def test_the_user_decides_what_is_open_and_nothing_else(journal, sent, state):
    """While a live process holds it, and once its effect is known, a decision is refused, and nothing changes."""
    intents, rows = journal.intents, {}
    for (name, decide), expected in zip(DECISIONS.items(), DECIDED[state], strict=True):
        before = sent(f"k1:{name}")
        if state == "in doubt":
            intents.release(before)
        elif state == "done":
            intents.settle(before, urn=f"urn:{name}", outcome={"a": 1}, how="sent")
        elif state == "dropped":
            intents.drop(before, "refused")
        elif state == "given up":
            intents.release(before)
            journal.decisions.give_up(before.key)
        if expected in (HELD, CLEAR, UNKNOWN):
            unchanged = intents.get(before.key)
            with pytest.raises(DurabilityError, match=expected):
                decide(journal.decisions, before.key)
            assert intents.get(before.key) == unchanged
            continue
        rows[name] = decide(journal.decisions, before.key)
        assert intents.get(before.key) == rows[name]
        if state == "in doubt":
            with pytest.raises(FencedError):
                intents.mark_sent(before)
        assert intents.claim(wanted(before.key)).kind == expected
    said = {
        "in doubt": [("done", "user", None), *(("dropped", None, why) for why in (WRITTEN_OFF, GIVEN_UP, RESEND))],
        "done": [("done", "user", None), ("done", None, WRITTEN_OFF)],
    }
    said["dropped"] = said["given up"] = [("dropped", None, RESEND)]
    assert [(row.state, row.matched_by, row.error) for row in rows.values()] == said.get(state, [])
    assert state != "in doubt" or rows["resolve"].outcome == {"by": "user"}
    assert state != "done" or (rows["take_over"].urn, rows["account_for"].status) == ("urn:take_over", "failed")


def test_a_claim_whose_commit_was_not_confirmed_is_free_again(journal, begin, failing_commits):
    """If the connection is lost at a commit that took effect, the same process can claim again at once."""
    begin()
    with failing_commits(journal._store, on_disk=True):
        with pytest.raises(JournalError):
            journal.intents.claim(wanted())
        with pytest.raises(JournalError), journal.leases.hold("sink:x"):
            pass
    assert journal.intents.get("k1:a") is not None
    assert journal.intents.claim(wanted()).kind == "new"
    with journal.leases.hold("sink:x") as mine:
        assert mine


@pytest.mark.parametrize("who", ["another claim", "the user"])
def test_what_is_just_being_sent_is_left_to_its_holder(journal, at_statement, who):
    """Nobody goes by a row that was read before the holder sent and wrote the outcome. Otherwise the request would be
    sent twice, or the outcome undone."""
    intent = journal.intents.claim(wanted()).intent

    def send():
        journal.intents.settle(journal.intents.mark_sent(intent), urn="urn:o", outcome={}, how="sent")

    sender = threading.Thread(target=send)

    def send_now():
        if not sender.ident:
            sender.start()
            sender.join(0.2)

    at_statement(journal, "FROM processes", send_now, thread=threading.current_thread().name)
    if who == "another claim":
        assert journal.intents.claim(wanted()).kind == "held"
    else:
        with pytest.raises(DurabilityError, match=HELD):
            journal.decisions.resolve("k1:a", urn="urn:other", outcome={})
    assert sender.ident
    sender.join(10)
    row = journal.intents.get("k1:a")
    assert (row.state, row.urn, row.fence) == ("done", "urn:o", 1)


def test_the_spend_limit_counts_over_all_attempts(journal, begin):
    """All spending intents of a run count, except dropped ones. What is kept or reused may always be requested, and
    counts if the same is paid for after all."""
    begin()

    def claim(key, limit=2, **more):
        return journal.intents.claim(wanted(key, run_id="1", **{"spends": True, **more}), spend_limit=limit)

    free = claim("k1:free", 0, spends=False, reuse="urn:o is used")
    assert (free.kind, free.intent.reuse) == ("new", "urn:o is used")
    journal.intents.release(free.intent)
    with pytest.raises(SpendLimitError):
        claim("k1:free", 0)
    first, _ = claim("k1:free", 1).intent, claim("k1:b")
    assert (first.spends, first.reuse) == (True, None)
    with pytest.raises(SpendLimitError) as caught:
        claim("k1:c")
    assert (caught.value.limit, caught.value.placed, journal.intents.get("k1:c")) == (2, 2, None)
    assert claim("k1:b").kind == "held"
    journal.intents.drop(first, "refused")
    assert claim("k1:c").kind == "new"
    with pytest.raises(SpendLimitError):
        claim("k1:free")


def test_the_spend_limit_holds_for_claims_at_once(journal_url, begin, at_once):
    """Of four processes with a limit of two, two get a claim."""
    begin()

    def spend(number, together):
        with Journal.open(journal_url) as journal:
            together()
            try:
                yield journal.intents.claim(wanted(f"k{number}", spends=True, run_id="1"), spend_limit=2).kind
            except SpendLimitError:
                yield "refused"

    assert sorted(at_once(4, spend)) == ["new"] * 2 + ["refused"] * 2


def test_callers_at_once_get_each_key_once(journal_url):
    """Callers that claim the same keys in another order do not deadlock."""
    got = []

    def claim(opened, keys):
        claims = [opened.intents.claim(wanted(each)) for each in keys]
        got.extend(claim.intent.key for claim in claims if claim.kind == "new")

    keys = [f"k1:{n:03}" for n in range(30)]
    with ExitStack() as stack:
        parts = [(stack.enter_context(Journal.open(journal_url)), some) for some in (keys, keys[::-1], keys[10:])]
        threads = [threading.Thread(target=claim, args=part) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert sorted(got) == keys


def test_more_keys_than_a_statement_takes_are_found(journal, sent):
    sent("k1:0")
    keys = [f"k1:{n}" for n in range(600)]
    with journal._store.write() as connection:
        row = dict(connection.execute(sa.select(schema.intents)).mappings().one())
        connection.execute(sa.insert(schema.intents), [row | {"key": key} for key in keys[1:]])
    assert journal.intents.find_many([*keys, "k1:other"]).keys() == set(keys)
    assert journal.intents.find_many([]) == {}


def test_a_reason_that_no_database_could_store_is_stored_with_escapes(journal):
    """A platform's words may hold a NUL or half a surrogate pair."""
    moved = journal.intents.drop(journal.intents.claim(wanted()).intent, "out\0of \ud800luck")
    assert moved.error == r"out\x00of \ud800luck" and journal.intents.get(moved.key) == moved


def test_what_is_known_by_its_content_is_the_outcome_of_one_key(journal, sent):
    """The second key that would take the same effect raises and keeps its claim."""
    first, second = sent("k1:a"), sent("k1:b")
    journal.intents.settle(first, urn="urn:o", outcome={}, how="adopted", matched_by="content")
    with pytest.raises(InDoubtError, match="is the outcome of another order"):
        journal.intents.settle(second, urn="urn:o", outcome={}, how="adopted", matched_by="content")
    assert journal.intents.get(second.key) == second and journal.intents.held(second)


def test_a_repeated_request_and_a_new_one_after_a_refusal(journal, begin):
    """What is done keeps its row but for the attempt that asked; what was refused belongs to the new request."""
    run = {"run_id": "1", "attempt_id": begin().attempt.id}
    intents = journal.intents
    done, refused = (intents.claim(wanted(key, **run, attempt_number=1)).intent for key in ("k1:a", "k1:b"))
    intents.settle(intents.mark_sent(done), urn="urn:o", outcome={}, how="sent")
    intents.drop(refused, "refused")
    again = {"attempt_number": 2, "spends": True, "definition": "d", "reuse": "r"}
    claims = [intents.claim(wanted(row.key, **run, **again)) for row in (done, refused)]
    assert [intents.get(claim.intent.key) for claim in claims] == [claim.intent for claim in claims]
    assert [
        (claim.kind, row.state, row.asked_attempt, row.spends, row.definition, row.reuse, row.error)
        for claim in claims
        for row in [claim.intent]
    ] == [("kept", "done", 2, False, None, None, None), ("new", "claimed", 2, True, "d", "r", None)]


def test_no_note_of_a_duplicate_is_lost(journal, journal_url, sent):
    """Whoever notes one at the same time, and whatever old copy of the row an outcome is written from."""
    intents = journal.intents
    held, other = sent("k1:old"), sent("k1:other")
    for row in (held, other):
        intents.note_duplicates(row.key, ["urn:1", "urn:2"])
    more = ["urn:2", "urn:3", "urn:kept"]
    intents.settle(replace(held, duplicates=[]), urn="urn:kept", outcome={}, how="adopted", duplicates=more)
    intents.settle(other, urn="urn:o", outcome={}, how="sent")
    assert [intents.get(row.key).duplicates for row in (held, other)] == [
        ["urn:1", "urn:2", "urn:3"],
        ["urn:1", "urn:2"],
    ]
    intents.settle(sent(), urn="urn:a", outcome={}, how="sent")
    begin = threading.Barrier(4)

    def note(number):
        with Journal.open(journal_url) as mine:
            begin.wait()
            for count in range(5):
                mine.intents.note_duplicates("k1:a", ["urn:a", f"urn:{number}:{count}"])

    threads = [threading.Thread(target=note, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(intents.get("k1:a").duplicates) == [
        f"urn:{number}:{count}" for number in range(4) for count in range(5)
    ]
