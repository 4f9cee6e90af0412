"""Generations, limits, divergence, values kept from the first attempt, and resumed uploads."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from durable_platform import Platform, Scripted, forget_platform_warnings, order, perform

from ivcap_flows.durable import Effect, Performed, Resume, aonce, once
from ivcap_flows.errors import InputError, NotFoundError, SpendLimitError, UnreachableError
from ivcap_flows.identity import OncePer
from ivcap_flows.journal import IntentRow, Journal, OpenedAttempt, RunIdentity


@pytest.fixture
def platform(tmp_path: Any) -> Platform:
    forget_platform_warnings()
    return Platform(tmp_path / "platform")


@pytest.fixture
def journal(sqlite_journal: Journal) -> Journal:
    return sqlite_journal


def attempt_of(
    journal: Journal, root: str = "1", flow: str = "f", folder: str = "", *, deployed: bool = False
) -> OpenedAttempt:
    asked = RunIdentity(flow, f"{folder}f.py:f", {"root": root}, root, root, deployed=deployed)
    return journal.runs.open_attempt(asked)


async def call(effect: Effect[Any], journal: Journal, attempt: OpenedAttempt | None, **options: Any) -> Performed[Any]:
    return await perform(effect, journal=journal, attempt=attempt, platform="https://x", account="urn:acc", **options)


def run(effect: Effect[Any], journal: Journal, attempt: OpenedAttempt | None, **options: Any) -> Performed[Any]:
    return asyncio.run(call(effect, journal, attempt, **options))


def test_scopes_share_as_far_as_they_say(journal: Journal, platform: Platform) -> None:
    """run: within one logical run; flow: any run of the same flow; account: any; call: never; none without a run."""
    # Each in a folder of its own, as after a clone.
    first = attempt_of(journal, "1", folder="/a/", deployed=True)
    second = attempt_of(journal, "2", folder="/b/", deployed=True)
    other = attempt_of(journal, "3", "g")
    shares: dict[OncePer, list[OpenedAttempt | None]] = {
        "run": [first, first, second],
        "flow": [first, second, other],
        "account": [first, second, other, None],
        "call": [first, first],
    }
    counts = {}
    for once_per, attempts in shares.items():
        made = {
            run(order(platform, once_per, once_per=once_per), journal, attempt).value["urn"] for attempt in attempts
        }
        counts[once_per] = len(made)
    assert counts == {"run": 2, "flow": 2, "account": 1, "call": 2}
    with pytest.raises(InputError, match="once_per is one of 'run', 'flow', 'account', 'call', not 'flows'"):
        run(order(platform, once_per="flows"), journal, first)  # type: ignore[arg-type]
    loose = [run(order(platform, "loose", once_per="run"), journal, None).value["urn"] for _ in range(2)]
    assert loose[0] != loose[1]


def test_failed_order_keeps_its_key(journal: Journal, platform: Platform) -> None:
    """By default a retry gets the failed order again, so that nothing is paid twice."""
    first = run(order(platform), journal, None)
    journal.intents.finish(first.key, "failed")
    again = run(order(platform), journal, None)
    assert (again.how, again.value) == ("kept", first.value)


def test_resubmission_has_generations_and_a_limit(journal: Journal, platform: Platform) -> None:
    """With max_resubmits each failure takes the next generation, up to the limit; success takes none."""
    keys = []
    for _ in range(4):
        done = run(order(platform), journal, None, max_resubmits=2)
        keys.append(done.key)
        journal.intents.finish(done.key, "failed")
    assert [key.removeprefix(keys[0]) for key in keys] == ["", ".1", ".2", ".2"]
    assert len(platform.urns) == 3
    other = run(order(platform, "y"), journal, None, max_resubmits=3)
    journal.intents.finish(other.key, "succeeded")
    assert run(order(platform, "y"), journal, None, max_resubmits=3).how == "kept"


def test_resubmission_at_once_is_one(journal: Journal, platform: Platform) -> None:
    """Ten calls that see the same failure resubmit it once."""
    journal.intents.finish(run(order(platform), journal, None).key, "error")

    async def many() -> list[Performed[Any]]:
        platform.faults = ["slow"]
        return await asyncio.gather(*(call(order(platform), journal, None, max_resubmits=3) for _ in range(10)))

    assert len({done.key for done in asyncio.run(many())}) == 1
    assert len(platform.urns) == 2


def test_spend_limit_stops_before_sending(journal: Journal, platform: Platform) -> None:
    """An order beyond max_orders is not sent. Existing orders are still returned."""
    attempt = attempt_of(journal)
    for n in range(2):
        run(order(platform, n, once_per="run"), journal, attempt, max_orders=2)
    with pytest.raises(SpendLimitError):
        run(order(platform, 2, once_per="run"), journal, attempt, max_orders=2)
    assert len(platform.sends) == 2
    retried = attempt_of(journal)
    assert run(order(platform, 1, once_per="run"), journal, retried, max_orders=2).how == "kept"


@pytest.mark.catches("a changed request is not named")
def test_a_replay_that_asks_for_something_else_is_told(
    journal: Journal, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    """A request in place of an earlier one is sent, since that may come yet. One warning a subject shows both."""
    run(order(platform, {"at": "monday"}, once_per="run"), journal, attempt_of(journal))
    replay = attempt_of(journal)
    for day in ("tuesday", "wednesday"):
        assert run(order(platform, {"at": day}, once_per="run"), journal, replay).how == "sent"
    [told] = [each.message for each in caplog.records if "earlier attempts" in each.message]
    assert re.search(r"(?s)tuesday.*monday.*once\(name, fn\)", told)


def test_replay_that_asks_for_more_goes_on(journal: Journal, platform: Platform) -> None:
    """A replay after two of three orders may request all three in any order and at once: that is no divergence."""
    first = attempt_of(journal)
    for n in range(2):
        run(order(platform, n, once_per="run"), journal, first)

    async def replay(attempt: OpenedAttempt) -> list[str]:
        calls = (call(order(platform, n, once_per="run"), journal, attempt) for n in (2, 1, 0))
        return [done.how for done in await asyncio.gather(*calls)]

    assert asyncio.run(replay(attempt_of(journal))) == ["sent", "kept", "kept"]


def test_refused_or_other_requests_do_not_diverge(
    journal: Journal, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is warned of an earlier request that had no effect, or that is not shared."""
    first = attempt_of(journal)
    run(order(platform, "own", once_per="call"), journal, first)
    platform.faults = ["refuse"]
    with pytest.raises(Exception, match="no such parameter"):
        run(order(platform, "bad", once_per="run"), journal, first)
    assert run(order(platform, "good", once_per="run"), journal, attempt_of(journal)).how == "sent"
    assert "earlier attempts" not in caplog.text


def test_once_gives_the_first_attempts_value(journal: Journal) -> None:
    """The function runs in the first attempt only. Both attempts get the value as JSON returns it."""
    run_id = attempt_of(journal).run.id
    calls: list[int] = []

    def now() -> tuple[int, str]:
        calls.append(1)
        return (len(calls), "Niño")

    async def later() -> float:
        calls.append(1)
        return 0.1

    values = [once("now", now, journal=journal, run_id=run_id) for _ in range(2)]
    assert values == [[1, "Niño"]] * 2
    assert asyncio.run(aonce("now", later, journal=journal, run_id=run_id)) == [1, "Niño"]
    assert asyncio.run(aonce("later", later, journal=journal, run_id=run_id)) == 0.1
    assert len(calls) == 2
    with pytest.raises(InputError, match=r"once\('set'"):
        once("set", lambda: {1}, journal=journal, run_id=run_id)


class Upload:
    """An upload of four parts that is made once, sent part by part, and cut off where the test says."""

    def __init__(self, cut: list[int]) -> None:
        self.cut = cut
        self.made: list[str] = []
        self.parts: list[int] = []

    async def send(self, intent: IntentRow, progress: Resume) -> dict[str, str]:
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

    def effect(self) -> Scripted:
        return Scripted(
            noun="upload",
            request={"sha256": "0"},
            on_send=self.send,
            on_find=self.find,
            visibility_delay=60.0,
            once_per="account",
            resumable=True,
        )


def test_upload_goes_on_where_it_stopped(journal: Journal) -> None:
    """An upload that is cut off twice within a call resumes each time.

    No part is sent twice, and no visibility delay is waited for.
    """
    upload = Upload([1, 3])
    assert run(upload.effect(), journal, None).how == "sent"
    assert (upload.made, upload.parts) == (["urn:artifact:0"], [0, 1, 2, 3])


def test_upload_goes_on_in_a_later_call(journal: Journal) -> None:
    """An upload that was cut off for good is resumed by the next call, from the stored progress."""
    upload = Upload([1, 1, 1])
    with pytest.raises(UnreachableError):
        run(upload.effect(), journal, None)
    assert run(upload.effect(), journal, None).value == {"urn": "urn:artifact:0"}
    assert (upload.made, upload.parts) == (["urn:artifact:0"], [0, 1, 2, 3])


def test_upload_that_the_platform_forgot_begins_anew(journal: Journal) -> None:
    """If the platform refuses to resume an upload, its progress is deleted and the next call makes a new one."""
    upload = Upload([1, 1, 1])
    with pytest.raises(UnreachableError):
        run(upload.effect(), journal, None)
    original = upload.send

    async def gone(intent: IntentRow, progress: Resume) -> dict[str, str]:
        raise NotFoundError("no such upload", status=404)

    upload.send = gone  # type: ignore[method-assign]
    with pytest.raises(NotFoundError):
        run(upload.effect(), journal, None)
    upload.send = original  # type: ignore[method-assign]
    assert run(upload.effect(), journal, None).value == {"urn": "urn:artifact:1"}
