"""Plans, generations, replays that diverge, values kept from the first attempt, and resumed uploads."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from durable_platform import Platform
from simulated import run_on

from ivcap_flows.durable import Resume, aonce, once, plan, planning
from ivcap_flows.errors import InputError, NotFoundError, UnreachableError
from ivcap_flows.journal import IntentRow, Journal, OpenedAttempt, RunIdentity


def attempt_of(journal: Journal) -> OpenedAttempt:
    return journal.runs.open_attempt(RunIdentity("f", "f.py:f", {}, "1", "1"))


def test_outside_of_a_run_a_call_shares_nothing(sqlite_journal, platform):
    loose = [platform.run(sqlite_journal, once_per="run").value["urn"] for _ in range(2)]
    assert loose[0] != loose[1]
    with pytest.raises(InputError, match="once_per is one of 'run', 'flow', 'account', 'call', not 'flows'"):
        platform.run(sqlite_journal, once_per="flows")


def test_resubmission_has_generations_and_a_limit(sqlite_journal, platform):
    """With max_resubmits each failure takes the next generation, up to the limit, once however many see the failure;
    success takes none, and by default the failed one is kept, so that nothing is paid twice."""
    keys = []
    for _ in range(4):
        done = platform.run(sqlite_journal, max_resubmits=2)
        keys.append(done.key)
        sqlite_journal.intents.finish(done.key, "failed")
    assert [key.removeprefix(keys[0]) for key in keys] == ["", ".1", ".2", ".2"]
    kept = platform.run(sqlite_journal)
    assert (kept.how, kept.key) == ("kept", keys[-1]) and len(platform.urns) == 3

    other = platform.run(sqlite_journal, "y", max_resubmits=3)
    sqlite_journal.intents.finish(other.key, "succeeded")
    assert platform.run(sqlite_journal, "y", max_resubmits=3).how == "kept"

    sqlite_journal.intents.finish(platform.run(sqlite_journal, "z").key, "error")

    async def slowly(intent, progress):
        await asyncio.sleep(1)
        return await platform.send(intent, progress)

    async def at_once():
        calls = (platform.call(sqlite_journal, "z", max_resubmits=3, on_send=slowly) for _ in range(10))
        return await asyncio.gather(*calls)

    assert len({done.key for done in run_on(platform.account.clock, at_once())}) == 1
    assert len(platform.urns) == 6


@pytest.mark.catches("a changed request is not named")
def test_a_replay_that_asks_for_something_else_is_told(sqlite_journal, platform, caplog):
    """A request in place of an earlier one is sent, since that may come yet. One message a subject shows both, and does
    not judge; none names an earlier request that had no effect, or that is not shared."""
    caplog.set_level("INFO", "ivcap_flows.durable")
    first = attempt_of(sqlite_journal)
    platform.run(sqlite_journal, "own", once_per="call", attempt=first)
    platform.faults = ["refuse"]
    with pytest.raises(Exception, match="no such parameter"):
        platform.run(sqlite_journal, "bad", once_per="run", attempt=first)
    second = attempt_of(sqlite_journal)
    assert platform.run(sqlite_journal, {"at": "monday"}, once_per="run", attempt=second).how == "sent"
    assert "earlier attempts" not in caplog.text
    replay = attempt_of(sqlite_journal)
    for day in ("tuesday", "wednesday"):
        assert platform.run(sqlite_journal, {"at": day}, once_per="run", attempt=replay).how == "sent"
    [told] = [message for message in caplog.messages if "earlier attempts" in message]
    assert re.search(r"(?s)tuesday.*monday.*once\(name, fn\)", told) and "in vain" not in told
    assert [each.levelname for each in caplog.records if each.getMessage() == told] == ["INFO"]


def test_plan_tells_and_changes_nothing(sqlite_journal, platform, tmp_path):
    """A plan distinguishes new, kept, adopted, doubtful and resubmitted effects. It sends and writes nothing."""
    kept = platform.run(sqlite_journal, "kept")
    sqlite_journal.intents.finish(platform.run(sqlite_journal, "failed").key, "failed")
    platform.faults = ["given up before"]
    with pytest.raises(asyncio.CancelledError):
        platform.run(sqlite_journal, "doubt")
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other:
        platform.run(other, "adopted", records=True)

    def state() -> str:
        account = platform.account
        return repr((account.effects, account.records, sqlite_journal.intents.where(), platform.sends))

    before = state()
    with plan() as planned:
        values = [
            platform.run(sqlite_journal, request, records=True, max_resubmits=3)
            for request in ("new", "kept", "failed", "doubt", "adopted", "new")
        ]
    assert [effect.source for effect in planned.effects] == ["new", "kept", "resubmitted", "in doubt", "adopted"]
    assert [value.how for value in values] == ["planned", "kept", "planned", "planned", "adopted", "planned"]
    assert values[1].value == kept.value
    assert values[0].value == {"urn": f"urn:plan:{values[0].key}"}
    assert [effect.request for effect in planned.new] == ["new", "failed"]
    assert f"kept: order for service, {kept.value['urn']}" in str(planned)
    assert state() == before and planning() is None


def test_once_gives_the_first_attempts_value(sqlite_journal):
    """The function runs in the first attempt only. Both attempts get the value as JSON returns it."""
    of = {"journal": sqlite_journal, "run_id": attempt_of(sqlite_journal).run.id}
    calls: list[int] = []

    def now() -> tuple[int, str]:
        calls.append(1)
        return (len(calls), "Niño")

    async def later() -> float:
        calls.append(1)
        return 0.1

    assert [once("now", now, **of) for _ in range(2)] == [[1, "Niño"]] * 2
    assert asyncio.run(aonce("now", later, **of)) == [1, "Niño"]
    assert asyncio.run(aonce("later", later, **of)) == 0.1
    assert len(calls) == 2
    with pytest.raises(InputError, match=r"once\('set'"):
        once("set", lambda: {1}, **of)


class Upload(Platform):
    """Takes an upload of four parts, which is made once, sent part by part, and cut off where the test says."""

    def __init__(self, *cut: int) -> None:
        super().__init__()
        self.cut = list(cut)
        self.made: list[str] = []
        self.parts: list[int] = []
        self.forgotten = False

    async def send(self, intent: IntentRow, progress: Resume) -> dict[str, str]:
        if self.forgotten:
            raise NotFoundError("no such upload", status=404)
        if progress.stored is None:
            self.made.append(f"urn:artifact:{len(self.made)}")
            await progress.save({"urn": self.made[-1]})
        while len(self.parts) < 4:
            if self.cut and len(self.parts) == self.cut[0]:
                self.cut.pop(0)
                raise UnreachableError("time-out")
            self.parts.append(len(self.parts))
        return {"urn": progress.stored["urn"]}

    async def find(self, intent: IntentRow) -> list[Any]:
        raise AssertionError("an upload with progress is resumed, not looked for")


def test_upload_goes_on_where_it_stopped(sqlite_journal):
    """An upload that is cut off is resumed within the call, and by the next one if it was cut off for good.

    No part is sent twice, and no visibility delay is waited for. If the platform has forgotten it, the next call makes
    a new one.
    """
    upload = Upload(1, 3)
    assert upload.run(sqlite_journal, resumable=True).how == "sent"
    assert (upload.made, upload.parts) == (["urn:artifact:0"], [0, 1, 2, 3])
    upload = Upload(1, 1, 1)
    with pytest.raises(UnreachableError):
        upload.run(sqlite_journal, "y", resumable=True)
    assert upload.run(sqlite_journal, "y", resumable=True).value == {"urn": "urn:artifact:0"}
    assert (upload.made, upload.parts, upload.account.clock.seconds < 1) == (["urn:artifact:0"], [0, 1, 2, 3], True)
    upload = Upload(1, 1, 1)
    for upload.forgotten, error in ((False, UnreachableError), (True, NotFoundError)):
        with pytest.raises(error):
            upload.run(sqlite_journal, "z", resumable=True)
    upload.forgotten = False
    assert upload.run(sqlite_journal, "z", resumable=True).value == {"urn": "urn:artifact:1"}
