"""The comparison itself: it finds what is missing and what is invented, and names things as a reader would."""

from collections.abc import Callable
from pathlib import Path

import pytest
from prefect import flow, task

from ivcap_flows import recorded


@task
@recorded
def clean(source: Path, target: Path) -> Path:
    target.write_text(source.read_text() + "!")
    return target


@task(retries=1, retry_delay_seconds=0)
@recorded
def fetch(tries: Path) -> str:
    if not tries.exists():
        tries.touch()
        raise ValueError("not yet")
    return "done"


def test_a_file_that_is_read_and_one_that_is_made(tmp_path: Path, edges: Callable[..., None]) -> None:
    """The plainest flow, by the names of its files and its task."""
    (tmp_path / "raw.csv").write_text("a")

    @flow
    @recorded
    def prepare() -> None:
        clean(tmp_path / "raw.csv", tmp_path / "clean.csv")

    prepare()
    edges({("used", "clean", "raw.csv"), ("made", "clean", "clean.csv")})


def test_mapped_tasks_are_numbered_as_they_were_mapped(tmp_path: Path, edges: Callable[..., None]) -> None:
    """The index of a mapped task is its place in the list."""
    names = [str(number) for number in range(4)]
    for name in names:
        (tmp_path / f"{name}.in").write_text(name)

    @flow
    @recorded
    def mapped() -> None:
        clean.map([tmp_path / f"{name}.in" for name in names], [tmp_path / f"{name}.out" for name in names]).wait()

    mapped()
    edges(
        {("used", f"clean[{name}]", f"{name}.in") for name in names}
        | {("made", f"clean[{name}]", f"{name}.out") for name in names}
    )


def test_tries_are_numbered(tmp_path: Path, edges: Callable[..., None]) -> None:
    """A second try knows of the first."""

    @flow
    @recorded
    def trying() -> None:
        fetch(tmp_path / "tried")

    trying()
    edges({("made", "fetch", "tried"), ("given", "fetch#2", "tried"), ("informed", "fetch#2", "fetch")})


def test_what_is_missing_and_what_is_invented_is_told(
    tmp_path: Path, edges: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    """Both fail the test that compares, each edge by its names."""

    @flow
    @recorded
    def trying() -> None:
        fetch(tmp_path / "tried")

    trying()
    with pytest.raises(AssertionError) as told:
        edges({("used", "fetch", "nothing")}, not_seen={("informed", "fetch#2", "fetch")})
    # This comparison is wrong on purpose, and says nothing of the record.
    request.node.user_properties.clear()
    assert "missing: ('used', 'fetch', 'nothing')" in str(told.value)
    assert "invented: ('made', 'fetch', 'tried')" in str(told.value)
    assert "seen after all: ('informed', 'fetch#2', 'fetch')" in str(told.value)
