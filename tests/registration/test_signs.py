"""What the jobs and runs that are seen under one key say together."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from ivcap_flows.durable.platform_time import SPREAD
from ivcap_flows.registration.lookup import Seen, Sign, read_sign

GOING = Seen("k", job="c", status="IN_PROGRESS", at=11)
ENDED = Seen("k", "102/1", job="c", status="SUCCEEDED", at=11)
FAILED = Seen("k", job="c", status="FAILED", info="why", at=11)
LODGED = Seen("k", "102/1", status="LODGED", at=12)
HALF = Seen("k", "102/1", status="COMPLETE", at=12)
SINCE = datetime.fromtimestamp(11, timezone.utc) - SPREAD


@pytest.mark.parametrize(
    ("seen", "sign"),
    [
        pytest.param([], None, id="nothing"),
        pytest.param([GOING], Sign("under way", job="c", since=SINCE), id="a job"),
        pytest.param([GOING, HALF], Sign("under way", "102/1", job="c", since=SINCE), id="a job with its run there"),
        pytest.param([GOING, LODGED], Sign("lodged", "102/1"), id="a worker that died with its work done"),
        pytest.param([ENDED], Sign("lodged", "102/1", job="c"), id="an ended job"),
        pytest.param([ENDED, LODGED], Sign("lodged", "102/1", job="c"), id="both"),
        pytest.param([HALF], Sign("lodged", "102/1"), id="a run after an update"),
        pytest.param(
            [replace(ENDED, handle=""), HALF],
            Sign("lodged", "102/1"),
            id="a run after an update, with a job that does not name it",
        ),
        pytest.param([FAILED], Sign("failed", job="c", words="why"), id="a failed job"),
        pytest.param([FAILED, HALF], Sign("half", "102/1", job="c", words="why"), id="a failed job with its run there"),
        pytest.param(
            [FAILED, replace(GOING, job="q")],
            Sign("under way", job="q", since=SINCE),
            id="sent again after it failed",
        ),
        pytest.param(
            [LODGED, Seen("k", "102/2", status="LODGED", at=30)], Sign("lodged", "102/1", ("102/2",)), id="twice"
        ),
        pytest.param(
            [Seen("k", "102/2", status="LODGED", at=3), LODGED],
            Sign("lodged", "102/2", ("102/1",)),
            id="twice, the older first",
        ),
    ],
)
def test_what_is_seen_in_one_word(seen, sign):
    """Each combination has one meaning; of several runs the oldest counts, and the others are told."""
    assert read_sign(seen) == sign
