"""What the jobs and runs that are seen under one key say together."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from ivcap_flows.durable.platform_time import SPREAD
from ivcap_flows.registration.lookup import ProvenaState, Shown, state_of_run

GOING = Shown("k", job="c", status="IN_PROGRESS", at=11)
ENDED = Shown("k", "102/1", job="c", status="SUCCEEDED", at=11)
FAILED = Shown("k", job="c", status="FAILED", info="why", at=11)
LODGED = Shown("k", "102/1", status="LODGED", at=12)
HALF = Shown("k", "102/1", status="COMPLETE", at=12)
SINCE = datetime.fromtimestamp(11, timezone.utc) - SPREAD


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        pytest.param([], None, id="nothing"),
        pytest.param([GOING], ProvenaState("under way", job="c", since=SINCE), id="a job"),
        pytest.param([GOING, HALF], ProvenaState("under way", "102/1", job="c", since=SINCE), id="a job with its run"),
        pytest.param([GOING, LODGED], ProvenaState("lodged", "102/1"), id="a worker that died with its work done"),
        pytest.param([ENDED], ProvenaState("lodged", "102/1", job="c"), id="an ended job"),
        pytest.param([ENDED, LODGED], ProvenaState("lodged", "102/1", job="c"), id="both"),
        pytest.param([HALF], ProvenaState("lodged", "102/1"), id="a run after an update"),
        pytest.param(
            [replace(ENDED, handle=""), HALF],
            ProvenaState("lodged", "102/1"),
            id="a run after an update, with a job that does not name it",
        ),
        pytest.param([FAILED], ProvenaState("failed", job="c", words="why"), id="a failed job"),
        pytest.param([FAILED, HALF], ProvenaState("half", "102/1", job="c", words="why"), id="a failed job with a run"),
        pytest.param(
            [FAILED, replace(GOING, job="q")],
            ProvenaState("under way", job="q", since=SINCE),
            id="sent again after it failed",
        ),
        pytest.param(
            [LODGED, Shown("k", "102/2", status="LODGED", at=30)],
            ProvenaState("lodged", "102/1", ("102/2",)),
            id="twice",
        ),
        pytest.param(
            [Shown("k", "102/2", status="LODGED", at=3), LODGED],
            ProvenaState("lodged", "102/2", ("102/1",)),
            id="twice, the older first",
        ),
    ],
)
def test_what_is_seen_in_one_word(seen, state):
    """Each combination has one meaning; of several runs the oldest counts, and the others are told."""
    assert state_of_run(seen) == state
