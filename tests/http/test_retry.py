"""When a request is sent again, and how long is paused between tries, looks, and the parts of a transfer."""

import asyncio
import math
import threading
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ivcap_flows.errors import (
    BadRequestError,
    ConfigurationError,
    NotFoundError,
    ProtocolError,
    UnavailableError,
    UnreachableError,
)
from ivcap_flows.http.pauses import Pauses, Retries, broke_off, retry_until
from ivcap_flows.http.retry import Backoff, is_transient, may_repeat, retry_after
from ivcap_flows.http.server_clock import date_of

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=timezone.utc)


def test_what_may_have_been_processed_is_sent_once_and_a_refusal_is_final():
    """A keyed or unsafe request is repeated only when it surely was not processed; an idempotent one always may be."""
    for repeat in ("keyed", "unsafe"):
        assert not may_repeat(repeat, UnavailableError("x", sent=True))
        assert not may_repeat(repeat, UnreachableError("x"))
        assert may_repeat(repeat, UnreachableError("x", sent=False))
    assert may_repeat("idempotent", UnavailableError("x", sent=True))
    assert is_transient(UnreachableError("x")) and is_transient(UnavailableError("x"))
    for final in (NotFoundError, BadRequestError, ProtocolError, ConfigurationError):
        assert not is_transient(final("x"))


@given(st.integers(1, 5000), st.floats(0.01, 10), st.floats(10, 100), st.floats(100, 1e6))
def test_a_wait_has_full_jitter_below_a_capped_doubling_or_is_what_the_server_asks_for(attempt, first, cap, asked):
    """Neither shortened nor jittered; where it asks for nothing it is not hammered."""
    backoff = Backoff(first=first, cap=cap)
    top = backoff.ceiling(attempt)
    assert top == min(cap, first * 2.0 ** min(attempt - 1, 60))
    assert 0 <= backoff.delay(attempt) <= top
    assert backoff.delay(attempt, uniform=lambda low, high: low) == 0
    for nothing in (None, 0.0):
        assert backoff.delay(attempt, nothing, uniform=lambda low, high: high) == top
    assert backoff.delay(attempt, asked) == asked


def test_a_wait_beyond_the_budget_is_not_begun():
    """The budget counts the time gone and the wait to come."""
    backoff = Backoff(budget=60)
    assert not backoff.exhausted(30, 30)
    assert backoff.exhausted(30, 30.1)


@given(st.integers(0, 10**6))
def test_retry_after_is_read_as_seconds_and_as_date(seconds):
    """Both forms of RFC 9110 give the same wait. A date that has passed is no negative one."""
    assert retry_after(str(seconds)) == seconds
    assert retry_after(format_datetime(NOW + timedelta(seconds=seconds), usegmt=True), NOW) == seconds
    assert retry_after(format_datetime(NOW - timedelta(seconds=seconds)), NOW) == 0


IMPOSSIBLE = (
    "Sun, 06 Nov 1994 08:49:37 +999999999999999",
    "Sun, 06 Nov 1994 08:49:37 -123456789012345",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
)


def test_a_date_that_cannot_be_is_no_date():
    assert [retry_after(text, NOW) for text in IMPOSSIBLE] == [date_of(text) for text in IMPOSSIBLE] == [None] * 5


@given(st.text(max_size=40))
@example(IMPOSSIBLE[0])
def test_retry_after_is_a_finite_wait_or_none(text):
    found = retry_after(text, NOW)
    assert found is None or (found >= 0 and math.isfinite(found))
    assert retry_after(None) is None


@pytest.fixture
def slept(monkeypatch):
    """What is slept in this thread. The package's loop, in a thread of its own, may sleep meanwhile."""
    seen = []
    here, asleep = threading.get_ident(), asyncio.sleep

    async def sleep(seconds: float) -> None:
        if threading.get_ident() == here:
            seen.append(seconds)
        else:
            await asleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return seen


async def test_pauses_double_up_to_the_longest_and_not_beyond_the_time_that_is_left(slept):
    """With a jitter that keeps processes from asking at the same moments. The last look is at the end of the time."""
    pauses = Pauses(1.0, 5.0)
    for _ in range(5):
        await pauses.sleep()
    for seconds, least in zip(slept, (1, 2, 4, 5, 5), strict=True):
        assert least <= seconds <= least + 0.25
    slept.clear()
    for left in (0.5, 0.0, -1.0):
        await pauses.sleep(left)
    assert slept == [0.5, 0.0, 0.0]


async def test_a_transfer_that_breaks_off_too_often_fails(slept):
    """The server's word counts, and the budget counts from the last time that it got on."""
    retries, error = Retries(Backoff(budget=10.0), broke_off("upload of x")), UnreachableError("gone", retry_after=8.0)
    await retries.wait(error)
    assert slept == [8.0]
    with pytest.raises(UnreachableError, match="gone"):
        await retries.wait(UnreachableError("gone", retry_after=11.0))
    retries.begin_anew()
    await retries.wait(error)
    assert slept == [8.0, 8.0]


async def test_the_last_attempt_is_at_the_time_that_the_code_allows(slept):
    """Whatever the server asks for and the budget allows."""
    retries, error = Retries(Backoff(), broke_off("upload of x")), UnreachableError("gone", retry_after=8.0)
    allowed = retry_until.set(time.monotonic() + 5.0)
    await retries.wait(error)
    assert 4.0 < slept[0] <= 5.0
    retry_until.set(time.monotonic())
    with pytest.raises(UnreachableError, match="gone"):
        await retries.wait(error)
    retry_until.reset(allowed)
    await retries.wait(error)
    assert slept[1:] == [8.0]
