"""The scheduled flow over changing tables: what it publishes, once, and what it leaves out or refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from platform_books import Books
from table_server import TableServer, measured, noaa_text, table_server

from flows.coastal_el_nino import coastal_el_nino
from flows.services.months import Month
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.capture import use_journal
from ivcap_flows.errors import OrderFailedError
from ivcap_flows.journal import Journal

pytestmark = pytest.mark.xdist_group("e2e")  # which shares the Prefect server


@pytest.fixture
def noaa() -> Iterator[TableServer]:
    """A real server on this machine, with the real series to the end of 2009."""
    with table_server() as server:
        yield server


@pytest.fixture
def published(platforms, prefect_api, noaa, tmp_path):
    """Return `published(worker)`, which runs the flow on the served table as a worker with a journal of its own."""

    def run(worker: str = "first", **parameters: Any) -> Any:
        common = {"source": noaa.url, "base_start": 1971, "base_end": 2000, "output": tmp_path / worker}
        with Journal.open(f"sqlite:///{tmp_path / worker}.sqlite") as journal, use_journal(journal):
            return coastal_el_nino(**{**common, **parameters}, return_state=True)

    return run


@pytest.mark.long
def test_a_table_is_published_once_for_each_content(published, noaa, tmp_path):
    """New, unchanged, corrected: each content has one order and one model run, whichever worker sees it."""
    [(month, (_, first, _))] = published().result().items()
    assert (month, Books.read()) == ("2009-12", Books.of(1))
    assert (tmp_path / "first/2009-12/plot.png").read_bytes().startswith(b"\x89PNG\r\n")

    for worker in ("second", "first"):
        same = published(worker)
        assert (same.name, same.type.value) == ("Unchanged", "COMPLETED")
        assert [(month, run) for month, (_, run, _) in same.result().items()] == [("2009-12", first)]
        assert "As before, to 2009-12" in same.message
    # The first worker still has the table, and is told that it is the newest.
    assert noaa.answered == [200, 200, 304] and (tmp_path / "second/2009-12/plot.png").exists()

    corrected = measured()
    corrected[Month(1998, 3)] += Decimal("0.25")
    noaa.serve(noaa_text({at: value for at, value in corrected.items() if at.year < 2010}))
    [(month, (_, again, _))] = published("second").result().items()
    assert (month, Books.read()) == ("2009-12", Books.of(2))
    assert again.subject != first.subject and again.urn != first.urn


@pytest.mark.long
def test_a_run_that_ended_between_order_and_registration_is_made_up_for(published, noaa, monkeypatch):
    """The next scheduled run registers the order that there is, from another journal, and places no other."""

    def out_of_reach(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Provena is out of reach")

    with monkeypatch.context() as patch:
        patch.setattr("flows.coastal_el_nino.register_model_run", out_of_reach)
        assert published().is_failed()
    assert Books.read() == Books(1, 4, 0)
    assert published("second").name == "Completed" and Books.read() == Books.of(1)
    assert published("third").name == "Unchanged"


@pytest.mark.long
def test_an_order_that_fails_is_placed_again_so_often_over_all_runs(published, noaa):
    """A base period without half of its Januaries fails; later runs do not pay for the same failure again."""
    gaps = {Month(year, 1): Decimal("-99.99") for year in range(1971, 1986)}
    noaa.serve(noaa_text({at: value for at, value in (measured() | gaps).items() if at.year < 2010}))
    for _ in range(2):
        with pytest.raises(OrderFailedError, match="1 of 1 orders did not succeed"):
            published().result()
        # Already the first run places it as often as it may.
        assert Books.read() == Books(4, 1, 0)


@pytest.mark.long
def test_the_accounts_are_those_of_saved_blocks(published, monkeypatch, tmp_path):
    """Without a platform in the environment, a run uses the blocks that its parameters name, in each of its tasks."""
    name = f"publishing-{os.getpid()}"
    IvcapCredentials.from_environment().save(name, overwrite=True)
    ProvenaCredentials.from_environment().save(name, overwrite=True)
    with monkeypatch.context() as patch:
        for variable in list(os.environ):
            if variable.startswith(("IVCAP_URL", "IVCAP_JWT", "PROVENA_")):
                patch.delenv(variable)
        patch.setenv("IVCAP_LOCAL_DIR", str(tmp_path / "another"))
        blocks = {"ivcap": name, "provena": name}
        assert [*published(**blocks).result()] == ["2009-12"]
        assert published(**blocks).name == "Unchanged"
    assert Books.read() == Books.of(1) and not (tmp_path / "another").exists()
