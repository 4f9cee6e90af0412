"""When a request is sent again, and after how long."""

import math
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
from ivcap_flows.http.retry import Backoff, is_transient, may_repeat, retry_after
from ivcap_flows.http.server_clock import ServerClock, date_of

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize("repeat", ["keyed", "unsafe"])
def test_what_may_have_been_processed_is_sent_once(repeat):
    """A keyed or unsafe request is repeated only when it surely was not processed; an idempotent one always may be."""
    assert not may_repeat(repeat, UnavailableError("x", sent=True))
    assert not may_repeat(repeat, UnreachableError("x"))
    assert may_repeat(repeat, UnreachableError("x", sent=False))
    assert may_repeat("idempotent", UnavailableError("x", sent=True))


def test_transient_is_no_reply_or_unavailable():
    """A refusal is final, whatever the request."""
    assert is_transient(UnreachableError("x"))
    assert is_transient(UnavailableError("x"))
    for final in (NotFoundError, BadRequestError, ProtocolError, ConfigurationError):
        assert not is_transient(final("x"))


@given(st.integers(1, 5000), st.floats(0.01, 10), st.floats(10, 100))
def test_a_wait_has_full_jitter_below_a_capped_doubling(attempt, first, cap):
    """The wait lies between nothing and first·2^(n-1), never above the cap."""
    backoff = Backoff(first=first, cap=cap)
    top = backoff.ceiling(attempt)
    assert top == min(cap, first * 2.0 ** min(attempt - 1, 60))
    assert 0 <= backoff.delay(attempt) <= top
    assert backoff.delay(attempt, uniform=lambda low, high: low) == 0
    assert backoff.delay(attempt, uniform=lambda low, high: high) == top


@given(st.integers(1, 50), st.floats(0.5, 1e6))
def test_the_servers_word_is_exact(attempt, asked):
    """What the server asks for is neither shortened nor jittered."""
    assert Backoff(first=0.5).delay(attempt, asked) == asked


def test_a_server_that_asks_for_nothing_is_not_hammered():
    """`Retry-After: 0` falls back to our own growing wait."""
    assert Backoff(first=1).delay(4, 0.0, uniform=lambda low, high: high) == 8


def test_a_wait_beyond_the_budget_is_not_begun():
    """The budget counts the time gone and the wait to come."""
    backoff = Backoff(budget=60)
    assert not backoff.exhausted(30, 30)
    assert backoff.exhausted(30, 30.1)


@given(st.integers(0, 10**6))
def test_retry_after_is_read_as_seconds_and_as_date(seconds):
    """Both forms of RFC 9110 give the same wait."""
    assert retry_after(str(seconds)) == seconds
    assert retry_after(format_datetime(NOW + timedelta(seconds=seconds), usegmt=True), NOW) == seconds


IMPOSSIBLE = [
    "Sun, 06 Nov 1994 08:49:37 +999999999999999",
    "Sun, 06 Nov 1994 08:49:37 -123456789012345",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
]


@pytest.mark.parametrize("text", IMPOSSIBLE)
def test_a_date_that_cannot_be_is_no_date(text):
    """Neither a wait nor the platform's time comes of it, and no error."""
    clock = ServerClock()
    clock.note("host", text, 0.0)
    assert retry_after(text, NOW) is None and date_of(text) is None and clock.time is None


@given(st.text(max_size=40))
@example(IMPOSSIBLE[0])
def test_retry_after_survives_any_text(text):
    """An unreadable header is no header; a readable one is a finite wait."""
    found = retry_after(text, NOW)
    assert found is None or (found >= 0 and math.isfinite(found))


def test_retry_after_in_the_past_is_now():
    """A date that has passed is no negative wait, and no header is none."""
    assert retry_after(format_datetime(NOW - timedelta(hours=1)), NOW) == 0
    assert retry_after(None) is None
