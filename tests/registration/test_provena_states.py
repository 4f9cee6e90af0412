"""What the jobs and runs that are seen under one key say together."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from ivcap_flows.durable.platform_time import SPREAD
from ivcap_flows.registration.lookup import Entry, ProvenaState, state_of_run

GOING = Entry("k", job="c", status="IN_PROGRESS", at=11)
ENDED = Entry("k", "102/1", job="c", status="SUCCEEDED", at=11)
FAILED = Entry("k", job="c", status="FAILED", info="why", at=11)
LODGED = Entry("k", "102/1", status="LODGED", at=12)
UPDATED = Entry("k", "102/1", status="COMPLETE", at=12)
OLDER, NEWER = (replace(LODGED, handle="102/2", at=at) for at in (3, 30))
SINCE = datetime.fromtimestamp(11, timezone.utc) - SPREAD

SEEN = {
    "nothing": ([], None),
    "a job": ([GOING], ProvenaState("under way", job="c", since=SINCE)),
    "a job with its run": ([GOING, UPDATED], ProvenaState("under way", "102/1", job="c", since=SINCE)),
    "a worker that died with its work done": ([GOING, LODGED], ProvenaState("lodged", "102/1")),
    "an ended job": ([ENDED], ProvenaState("lodged", "102/1", job="c")),
    "an ended job with its run": ([ENDED, LODGED], ProvenaState("lodged", "102/1", job="c")),
    "a run after an update": ([UPDATED], ProvenaState("lodged", "102/1")),
    "the same, with a job that does not name it": (
        [replace(ENDED, handle=""), UPDATED],
        ProvenaState("lodged", "102/1"),
    ),
    "a failed job": ([FAILED], ProvenaState("failed", job="c", words="why")),
    "a failed job with a run": ([FAILED, UPDATED], ProvenaState("in doubt", "102/1", job="c", words="why")),
    "sent again": ([FAILED, replace(GOING, job="q")], ProvenaState("under way", job="q", since=SINCE)),
    "two runs": ([LODGED, NEWER], ProvenaState("lodged", "102/1", ("102/2",))),
    "two runs, the older first": ([OLDER, LODGED], ProvenaState("lodged", "102/2", ("102/1",))),
}


@pytest.mark.parametrize("case", SEEN)
def test_what_is_seen_in_one_word(case):
    """Each combination has one meaning; of several runs the oldest counts, and the others are told."""
    seen, state = SEEN[case]
    assert state_of_run(seen) == state
