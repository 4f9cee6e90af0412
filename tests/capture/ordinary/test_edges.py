"""The comparison itself: it finds what is missing and what is invented, and names things as a reader would."""

from pathlib import Path

import pytest

from ivcap_flows import flow, task


def test_what_is_missing_and_what_is_invented_is_told(tmp_path, edges, request):
    """Both fail the test that compares, each edge by its names. Mapped tasks are numbered as they were mapped."""

    @task(retries=1, retry_delay_seconds=0)
    def fetch(tries: Path) -> str:
        if not tries.exists():
            tries.write_text(tries.name)
            raise ValueError("not yet")
        return "done"

    @flow
    def trying() -> None:
        fetch.map([tmp_path / str(number) for number in range(3)]).wait()

    trying()
    true = {
        edge
        for number in range(3)
        for edge in (
            ("made", f"fetch[{number}]", f"{number}"),
            ("given", f"fetch[{number}]#2", f"{number}"),
            ("informed", f"fetch[{number}]#2", f"fetch[{number}]"),
        )
    }
    edges(true)
    beyond = ("informed", "fetch[2]#2", "fetch[2]")
    with pytest.raises(AssertionError) as told:
        edges(true - {("made", "fetch[1]", "1"), beyond} | {("used", "fetch[0]", "nothing")}, not_seen={beyond})
    # This comparison is wrong on purpose, and says nothing of the record.
    request.node.user_properties.pop()
    assert "missing: ('used', 'fetch[0]', 'nothing')" in str(told.value)
    assert "invented: ('made', 'fetch[1]', '1')" in str(told.value)
    assert f"seen after all: {beyond}" in str(told.value)
