"""What a failing task shows: its message, and no long traceback."""

import asyncio
import logging
import traceback

import pytest
from prefect import flow

from ivcap_flows.errors import NotFoundError
from ivcap_flows.tasks import aget_order, get_order

NOWHERE = "urn:ivcap:order:00000000-0000-0000-0000-000000000000"
WAY = ("in _get_order", "http/session.py", "loop.py", "During handling", "direct cause")


@pytest.mark.parametrize("kind", ["synchronous", "asynchronous"])
def test_an_error_of_a_task_is_short(in_flow, caplog, kind):
    """Neither Prefect nor Python shows the frames of loop, client and HTTP, or the errors on the way."""

    @flow
    async def lost() -> None:
        await aget_order(NOWHERE)

    caplog.set_level(logging.INFO)
    with pytest.raises(NotFoundError) as raised:
        in_flow(lambda: get_order(NOWHERE)) if kind == "synchronous" else asyncio.run(lost())
    shown = "".join(traceback.format_exception(raised.value))
    for told in (shown, caplog.text):
        assert raised.value.message in told
        assert [line for line in told.splitlines() if any(part in line for part in WAY)] == []
    assert raised.value.status == 404


def test_the_way_to_an_error_is_in_the_log_at_debug(in_script, caplog):
    """The full traceback is in the log at level DEBUG."""
    caplog.set_level(logging.DEBUG, "ivcap_flows.tasks")
    with pytest.raises(NotFoundError):
        in_script(lambda: get_order(NOWHERE))
    [record] = [record for record in caplog.records if record.name == "ivcap_flows.tasks"]
    assert record.levelno == logging.DEBUG
    assert "in _get_order" in "".join(traceback.format_exception(*record.exc_info))
