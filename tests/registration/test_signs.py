"""What the jobs and runs that are seen under one key say together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ivcap_flows.registration.lookup import Sign, read_sign
from ivcap_flows.registration.spool import Seen

PARENT = Seen("k", job="p", batch="b", status="SUCCEEDED", at=10, parent=True)
BROKEN = Seen("k", job="p", status="FAILED", info="no", parent=True)
GOING = Seen("k", job="c", batch="b", status="IN_PROGRESS", at=11)
ENDED = Seen("k", "102/1", job="c", batch="b", status="SUCCEEDED", at=11)
FAILED = Seen("k", job="c", batch="b", status="FAILED", info="why", at=11)
LODGED = Seen("k", "102/1", status="LODGED", at=12)
HALF = Seen("k", "102/1", status="COMPLETE", at=12)


@pytest.mark.parametrize(
    ("seen", "sign"),
    [
        ([], None),
        ([PARENT], Sign("under way", job="p", batch="b", parent=True, at=10)),
        ([PARENT, GOING], Sign("under way", job="c", batch="b", at=11)),
        ([PARENT, GOING, HALF], Sign("under way", "102/1", job="c", batch="b", at=11)),
        ([PARENT, GOING, LODGED], Sign("lodged", "102/1")),
        ([PARENT, HALF], Sign("under way", "102/1", job="p", batch="b", parent=True, at=10)),
        ([BROKEN, HALF], Sign("half", "102/1", job="p", words="no")),
        ([PARENT, ENDED], Sign("lodged", "102/1", job="c")),
        ([PARENT, ENDED, LODGED], Sign("lodged", "102/1", job="c")),
        ([HALF], Sign("lodged", "102/1")),
        ([PARENT, replace(ENDED, handle=""), HALF], Sign("lodged", "102/1")),
        ([PARENT, FAILED], Sign("failed", job="c", words="why")),
        ([PARENT, FAILED, HALF], Sign("half", "102/1", job="c", words="why")),
        (
            [PARENT, FAILED, Seen("k", job="q", status="PENDING", at=20, parent=True)],
            Sign("under way", job="q", parent=True, at=20),
        ),
        ([BROKEN], Sign("failed", job="p", words="no", parent=True)),
        ([LODGED, Seen("k", "102/2", status="LODGED", at=30)], Sign("lodged", "102/1", ("102/2",))),
        ([Seen("k", "102/2", status="LODGED", at=3), LODGED], Sign("lodged", "102/2", ("102/1",))),
    ],
    ids=[
        "nothing",
        "a batch",
        "its child",
        "its child with its run in the registry",
        "a worker that died with its work done",
        "a batch with a run in the registry whose job does not show yet",
        "a failed batch with a run in the registry",
        "an ended job",
        "both",
        "a run after an update",
        "a run after an update, with a job that does not name it",
        "a failed job",
        "a failed job with its run in the registry",
        "sent again after it failed",
        "a failed batch",
        "twice",
        "twice, the older first",
    ],
)
def test_what_is_seen_in_one_word(seen, sign):
    """Each combination has one meaning; of several runs the oldest counts, and the others are told."""
    assert read_sign(seen) == sign
