"""Tables from an address or a path: asked for conditionally, tried again, refused where they are none."""

import pytest
from prefect.settings import temporary_settings
from table_server import BUNDLED, Reply

from flows import monthly_source
from flows.monthly_source import SourceUnavailableError, Validators, data_file, extract
from ivcap_flows import flow
from ivcap_flows.errors import InputError

fetch = extract.fn.__wrapped__
"""The task's function itself."""


def test_a_table_is_written_and_its_version_is_known(noaa, tmp_path):
    """The file is what the server sent, and both validators are returned."""
    extracted = fetch(noaa.url, tmp_path)
    assert extracted.file == tmp_path / "ersst5.nino.mth.91-20.ascii"
    assert extracted.file.read_text() == noaa.text
    assert extracted.validators.etag and extracted.validators.last_modified


def test_a_version_that_is_known_is_not_sent_again(noaa, tmp_path):
    """The second request is conditional, and the reply 304 means that there is nothing new."""
    known = fetch(noaa.url, tmp_path).validators
    assert fetch(noaa.url, tmp_path, known) is None
    assert noaa.answered == [200, 304]
    assert noaa.asked[1]["if-none-match"] == known.etag
    assert noaa.asked[1]["if-modified-since"] == known.last_modified


def test_a_304_that_nobody_asked_for_is_asked_again(noaa, tmp_path):
    """Without a known version, a 304 is followed by a request that no cache may answer."""
    noaa.instead = [Reply(304)]
    assert fetch(noaa.url, tmp_path) is not None
    assert noaa.asked[1]["cache-control"] == "no-cache" and "if-none-match" not in noaa.asked[1]
    noaa.instead = [Reply(304), Reply(304)]
    with pytest.raises(SourceUnavailableError, match="answered 304"):
        fetch(noaa.url, tmp_path, Validators())


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (Reply(503), SourceUnavailableError, "answered 503 Service Unavailable"),
        (Reply(408), SourceUnavailableError, "answered 408"),
        (Reply(425), SourceUnavailableError, "answered 425"),
        (Reply(429), SourceUnavailableError, "answered 429"),
        (Reply(200, b"YR MON", promised=4000), SourceUnavailableError, "did not send its table"),
        (Reply(404, b"<html>", media_type="text/html"), InputError, "answered 404 Not Found instead of its table"),
        (Reply(200, b"<html><title>Maintenance</title>", media_type="text/html"), InputError, "is a web page"),
        (Reply(200, b" YR MON NINO1+2 ANOM\n1950 1 23.1 0.1\n1950 2 24."), InputError, "line 3: 3 cells"),
    ],
)
def test_what_is_no_table_is_an_error_and_no_file(noaa, tmp_path, reply, error, words):
    """Each says what came instead of a table, and whether another try can help. No file is written."""
    noaa.instead = [reply]
    with pytest.raises(error, match=words) as caught:
        fetch(noaa.url, tmp_path)
    assert caught.value.retryable is (error is SourceUnavailableError)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_unavailable(tmp_path):
    """A refused connection is worth another try."""
    with pytest.raises(SourceUnavailableError, match="did not send its table"):
        fetch("http://127.0.0.1:9/table", tmp_path)


def test_paths_and_names_of_bundled_files(tmp_path, monkeypatch):
    """A table of a path is read where it is; a name is one of flows/data, unless a file here has it."""
    monkeypatch.chdir(tmp_path)
    assert fetch(BUNDLED.name, tmp_path).file.read_bytes() == BUNDLED.read_bytes()
    (tmp_path / BUNDLED.name).write_text("mine")
    assert data_file(BUNDLED.name).read_text() == "mine"
    with pytest.raises(InputError, match="cannot be read"):
        fetch("nowhere.csv", tmp_path)


@pytest.mark.xdist_group("e2e")  # which shares the Prefect server
def test_only_what_may_pass_is_tried_again(noaa, prefect_settings, ivcap_journal, tmp_path, monkeypatch):
    """The task is tried again after a server error, and not after a page in place of the table."""
    quick = extract.with_options(retry_delay_seconds=0)

    @flow
    def extracts():
        return quick(noaa.url, tmp_path)

    with temporary_settings(prefect_settings):
        noaa.instead = [Reply(503), Reply(502)]
        assert extracts() is not None
        assert noaa.answered == [503, 502, 200]
        noaa.instead = [Reply(200, b"<html>")] * 2
        with pytest.raises(InputError, match="is a web page"):
            extracts()
    assert len(noaa.instead) == 1
    assert extract.retries == 3 and monthly_source.is_transient is extract.retry_condition_fn
