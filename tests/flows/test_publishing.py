"""The scheduled flow over changing tables: what it publishes, once, and what it leaves out or refuses."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from platform_books import Books
from prefect.settings import temporary_settings
from table_server import Reply, measured, noaa_text

from flows import coastal_el_nino as module
from flows.coastal_el_nino import coastal_el_nino
from flows.services.months import Month
from ivcap_flows.blocks import IvcapCredentials, ProvenaCredentials
from ivcap_flows.capture import use_journal
from ivcap_flows.errors import InputError, OrderFailedError
from ivcap_flows.journal import Journal

pytestmark = pytest.mark.xdist_group("e2e")  # which shares the Prefect server


@pytest.fixture
def published(platforms, prefect_settings, noaa, tmp_path, monkeypatch):
    """Return `published(worker)`, which runs the flow on the served table as a worker with a journal of its own."""
    monkeypatch.setattr(module, "extract", module.extract.with_options(retry_delay_seconds=0))

    def run(worker: str = "first", **parameters: Any) -> Any:
        common = {"source": noaa.url, "base_start": 1971, "base_end": 2000, "output": tmp_path / worker}
        with Journal.open(f"sqlite:///{tmp_path / worker}.sqlite") as journal, use_journal(journal):
            return coastal_el_nino(**{**common, **parameters}, return_state=True)

    with temporary_settings(prefect_settings):
        yield run


def test_a_table_is_published_once_for_each_content(published, noaa, tmp_path):
    """New, unchanged, corrected: each content has one order and one model run, whichever worker sees it."""
    [first] = published().result()
    assert (first.month, Books.read()) == ("2009-12", Books.of(1))
    assert first.events.events and Path(first.plot.path).stat().st_size > 10_000

    same = published("second")
    assert (same.name, same.type.value, same.result()) == ("Unchanged", "COMPLETED", [])
    assert "still ends with 2009-12" in same.message and first.order.urn in same.message
    assert noaa.answered == [200, 304] and (tmp_path / "second/2009-12/plot.png").exists()

    corrected = measured()
    corrected[Month(1998, 3)] += Decimal("0.25")
    noaa.serve(noaa_text({at: value for at, value in corrected.items() if at.year < 2010}))
    [again] = published("second").result()
    assert (again.month, Books.read()) == ("2009-12", Books.of(2))
    assert again.order.urn != first.order.urn and again.model_run.urn != first.model_run.urn


@pytest.mark.long
def test_another_version_with_the_same_temperatures_is_no_new_content(published, noaa):
    """The table is sent again, nothing is ordered, and the run after asks for the version that was sent then."""
    published().result()
    noaa.serve(noaa.text.replace("   26.10", "   26.20"))
    assert [published(worker).name for worker in ("second", "first")] == ["Unchanged", "Unchanged"]
    assert noaa.answered == [200, 200, 304] and Books.read() == Books.of(1)


@pytest.mark.long
def test_what_is_no_table_is_paid_for_by_nobody(published, noaa):
    """A malformed table, a web page, half a table and a server that is down each fail the run, and the next goes on."""
    published().result()
    whole = noaa.text
    half = "".join(line + "\n" for line in whole.splitlines()[:400])
    for text, words in (
        (whole.replace("24.19", " warm", 1), "line 14, NINO1\\+2: Input should be a valid decimal"),
        ("<html>Maintenance</html>", "is a web page"),
        (half, "ends with 1983-03, but 2009-12 was published. Is it half a table?"),
    ):
        noaa.serve(text)
        failed = published("second")
        assert failed.is_failed()
        with pytest.raises(InputError, match=words):
            failed.result()
    noaa.instead = [Reply(503)] * 4
    assert published().is_failed() and noaa.instead == []
    noaa.serve(whole)
    assert published("second").name == "Unchanged"
    assert Books.read() == Books.of(1)


@pytest.mark.long
def test_a_run_that_ended_between_order_and_registration_is_made_up_for(published, noaa, monkeypatch):
    """The next scheduled run registers the order that there is, from another journal, and places no other."""

    def out_of_reach(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Provena is out of reach")

    with monkeypatch.context() as patch:
        patch.setattr(module, "register_workflow", out_of_reach)
        assert published().is_failed()
    assert Books.read() == Books(1, 4, 0)
    [made] = published("second").result()
    assert Books.read() == Books.of(1)
    assert published().name == "Unchanged" and made.month == "2009-12"


@pytest.mark.long
def test_without_its_series_a_known_version_is_asked_for_again(published, noaa, monkeypatch):
    """Where the platform no longer shows the series, the request has no condition, and the table is sent."""
    published().result()
    monkeypatch.setattr(module, "is_readable", lambda *_: False)
    [made] = published().result()
    assert noaa.answered == [200, 200] and "if-none-match" not in noaa.asked[1]
    assert Books.read() == Books.of(1) and made.month == "2009-12"


@pytest.mark.long
def test_a_range_of_months_is_published_as_each_was(published, noaa, tmp_path):
    """Backfill: an index for each month, in a folder of its own; those that were published before are kept."""
    published().result()
    made = published(first_month="2009-10").result()
    assert [each.month for each in made] == ["2009-10", "2009-11", "2009-12"]
    assert Books.read() == Books.of(3)
    for month in ("2009-10", "2009-12"):
        [*_, last] = (tmp_path / "first" / month / "index.csv").read_text().splitlines()
        assert last.startswith(month)
    assert [each.month for each in published(last_month="2009-11").result()] == ["2009-11"]
    assert published().name == "Unchanged" and Books.read() == Books.of(3)


@pytest.mark.long
def test_an_order_that_fails_is_placed_again_so_often_over_all_runs(published, noaa):
    """A base period without half of its Januaries fails; later runs do not pay for the same failure again."""
    gaps = {Month(year, 1): Decimal("-99.99") for year in range(1971, 1986)}
    noaa.serve(noaa_text({at: value for at, value in (measured() | gaps).items() if at.year < 2010}))
    for _ in range(2):
        with pytest.raises(OrderFailedError, match="1 of 1 orders did not succeed"):
            published(max_resubmits=1).result()
        # Already the first run places it as often as it may.
        assert Books.read() == Books(2, 1, 0)


def test_parameters_that_make_no_sense_are_refused_before_anything_is_ordered(published):
    """The error says what is wrong, and nothing was paid for."""
    for given, words in (
        ({"base_end": 2010}, "The base period 1971-2010 should lie in the series, which goes from 1950-01 to 2009-12"),
        ({"base_start": 2001}, "ends in 2000, before it begins in 2001"),
        ({"first_month": "2030-01"}, "no month from 2030-01 to 2009-12"),
    ):
        with pytest.raises(InputError, match=words):
            published(**given).result()
    assert Books.read() == Books(0, 0, 0)


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
        assert [made.month for made in published(**blocks).result()] == ["2009-12"]
        assert published(**blocks).name == "Unchanged"
    assert Books.read() == Books.of(1) and not (tmp_path / "another").exists()
