"""Files from the web: whole, only when they are new, and with their address on record."""

from __future__ import annotations

import gzip
import logging
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ivcap_flows import flow
from ivcap_flows.errors import InputError, UnavailableError
from ivcap_flows.http.web import check_address
from ivcap_flows.sinks import run_graph
from ivcap_flows.tasks import fetch_url

NEW, OLD = b"a,b\n1,2\n", b"a,b\n"
TAGGED = {"ETag": '"v1"', "Last-Modified": "Mon, 05 Jan 2026 00:00:00 GMT"}


@dataclass
class Reply:
    """What the server says once. `promised` is the length that it announces, if that is another."""

    status: int = 200
    body: bytes = NEW
    headers: dict[str, str] = field(default_factory=dict)
    promised: int | None = None


@dataclass
class Web:
    """A server that gives its replies in turn, the last one for ever."""

    url: str
    replies: list[Reply] = field(default_factory=lambda: [Reply()])
    asked: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def web() -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            there.asked.append({name.lower(): value for name, value in self.headers.items()} | {":path": self.path})
            reply = there.replies.pop(0) if len(there.replies) > 1 else there.replies[0]
            self.send_response(reply.status)
            for name, value in {"Content-Type": "text/csv", **reply.headers}.items():
                self.send_header(name, value)
            if reply.status != 304:
                self.send_header("Content-Length", str(reply.promised or len(reply.body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"" if reply.status == 304 else reply.body)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Write nothing to the test's output."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    there = Web(f"http://127.0.0.1:{listening.server_port}/table.csv")
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield there
    listening.shutdown()
    listening.server_close()
    thread.join(10)


def test_what_is_there_is_not_sent_again(web, in_script, tmp_path):
    """Any run asks with the version that it has; another file in its place, or a new version, is replaced."""
    target = tmp_path / "new" / "table.csv"
    web.replies = [Reply(headers=TAGGED), Reply(304), Reply(body=OLD, headers={"ETag": '"v2"'}), Reply(headers=TAGGED)]
    first, same, newer = [in_script(lambda: fetch_url(web.url, target)) for _ in range(3)]
    assert first == same and target.read_bytes() == OLD and newer.size == len(OLD)
    target.write_bytes(b"mine")
    assert in_script(lambda: fetch_url(web.url, target)) == first
    conditions = [(each.get("if-none-match"), "if-modified-since" in each) for each in web.asked]
    assert conditions == [(None, False), ('"v1"', True), ('"v1"', True), (None, False)]


def test_the_address_is_on_record(web, ivcap_journal, tmp_path):
    """The file came of the task, which used the address; of a file that was there, the task that fetched it did."""
    web.replies = [Reply(headers=TAGGED), Reply(304)]

    @flow
    def fetched() -> None:
        fetch_url(web.url, tmp_path / "table.csv")

    for _ in range(2):
        fetched()
    for run in ivcap_journal.runs.recent(2):
        graph = run_graph(ivcap_journal, run.id)
        [used] = [link for link in graph.relations.values() if link.type == "used" and link.target == web.url]
        assert graph.nodes[web.url].type == "url" and used.attributes["etag"] == '"v1"'
    [file] = [node.id for node in graph.nodes.values() if node.type == "file"]
    assert web.url in graph.lineage(file, "up").nodes


def test_no_log_shows_what_an_address_hides(web, in_script, tmp_path, caplog):
    """Nor what it leads to: httpx logs whole addresses, as soon as a script asks for its messages."""
    key, signature = "kq7Vx2mB9pLs4TzR", "c29tZS1zaWduYXR1cmU9"
    web.replies = [Reply(302, headers={"Location": f"{web.url}?expires=9&sig={signature}"}), Reply()]
    with caplog.at_level(logging.DEBUG):
        in_script(lambda: fetch_url(f"{web.url}?api_key={key}", tmp_path / "table.csv"))
    assert [each[":path"].partition("=")[2] for each in web.asked] == [key, f"9&sig={signature}"]
    assert len([each for each in caplog.records if each.name == "httpx"]) == 2
    assert key not in caplog.text and signature not in caplog.text


def test_what_may_pass_is_tried_again(web, in_script, tmp_path):
    """Half a file is none: it appears once it is whole. Of a server that stays away, the error says that it can pass:
    Prefect's own retries may ask later."""
    whole = web.replies[0]
    passing = [Reply(503), Reply(429), Reply(promised=len(NEW) + 5), Reply(body=b"", promised=len(NEW))]

    def body():
        for number, first in enumerate(passing):
            web.replies = [first, whole]
            assert Path(fetch_url(web.url, tmp_path / f"{number}.csv")).read_bytes() == NEW
        web.replies = [Reply(503)]
        with pytest.raises(UnavailableError) as caught:
            fetch_url(web.url, tmp_path / "away.csv")
        assert caught.value.retryable

    in_script(body)
    assert sorted(path.name for path in tmp_path.iterdir() if "csv" in path.name) == [f"{n}.csv" for n in range(4)]


def test_a_redirect_leads_to_the_file(web, in_script, tmp_path):
    """A relative one, too; one that leads round in circles is an error."""

    def body():
        web.replies = [Reply(302, headers={"Location": "/moved.csv"}), Reply()]
        fetch_url(web.url, tmp_path / "table.csv")
        assert [each[":path"] for each in web.asked] == ["/table.csv", "/moved.csv"]
        web.replies = [Reply(307, headers={"Location": "/moved.csv"})]
        with pytest.raises(InputError, match="without an end"):
            fetch_url(web.url, tmp_path / "table.csv")

    in_script(body)


def test_what_is_no_file_is_an_error_and_leaves_what_was_there(web, in_script, tmp_path):
    """The error names the address without its query, which may hold a secret, and the next step."""
    target = tmp_path / "table.csv"
    target.write_bytes(b"mine")

    def body():
        for reply, words in (
            (Reply(404, b"no such table"), r"answered 404: no such table.*Is the address right\?"),
            (Reply(401, b""), "answered 401.* log in to the server.*a link that needs no login"),
            (Reply(403, b"members only"), "answered 403.*members only.*a link that needs no login"),
            (Reply(300, b"table.csv.en, table.csv.de"), "answered 300.*table.csv.en, .*Give the address of one"),
            (Reply(304), "answered 304.*though it was asked for the whole file.*cache.*later"),
            (Reply(204, b""), "answered 204.*no file"),
            (Reply(headers={"Content-Encoding": "br"}), r"in the encoding 'br'.*curl --compressed"),
            (Reply(headers={"Content-Encoding": "gzip"}), "cannot be decoded"),
        ):
            web.replies = [reply]
            with pytest.raises(InputError, match=words) as caught:
                fetch_url(f"{web.url}?token=hunter2", target)
            assert target.read_bytes() == b"mine" and web.url in str(caught.value)
            assert "hunter2" not in str(caught.value)

    in_script(body)


PAGE = b"<!-- 1 -->\n<!DOCTYPE html><html><title>Log in</title></html>"
XML = b'<?xml version="1.0"?><Error><Code>SlowDown</Code></Error>'
JSON = b'{"error": "no such table"}'


def test_an_error_with_status_200_is_refused(web, in_script, tmp_path):
    """By a look at it, whatever type the server states; what a name or `media_type` leads to expect is taken."""

    def body():
        for content, kind, name, given, words in (
            (PAGE, "text/html", "t.csv", None, r"a web page .*Log in.*Is the address right.*media_type='text/html'"),
            (PAGE, "text/csv", "t.csv", None, "a web page"),
            (PAGE, "text/html", "t", None, "a web page"),
            (b"<h1>Sorry</h1><p>Later</p>", "text/html", "t.txt", None, "a web page"),
            (XML, "application/xml", "t.csv", None, "XML .*SlowDown.*media_type='application/xml'"),
            (b"<ServiceException>\n</ServiceException>\n", "text/xml", "t.nc", None, "XML"),
            (JSON, "application/json", "t.csv", None, "JSON .*no such table.*media_type='application/json'"),
            (JSON, "application/json", "t.json", "text/csv", "JSON"),
            (b"[]", "text/csv", "t.csv", None, "JSON"),
            (JSON, "text/csv", "t.csv.gz", None, "JSON"),
            (gzip.compress(PAGE), "text/html", "t.csv.gz", None, "a web page .*Log in"),
            (gzip.compress(JSON), "application/gzip", "t.json.gz", None, None),
            (gzip.compress(JSON), "application/gzip", "t.gz", "application/json", None),
            (gzip.compress(JSON), "application/gzip", "t.csv.gz", "application/gzip", None),
            (JSON, "application/gzip", "t.gz", "application/gzip", "JSON"),
            (STORED, "application/gzip", "t.csv.gz", None, None),
            (NEW, "text/html; charset=utf-8", "t.csv", None, None),
            (b"<TICKER>,<B>\n1,2\n", "text/html", "t.csv", None, None),
            (PAGE, "text/html", "t.html", None, None),
            (PAGE, "text/html", "t", "text/html", None),
            (JSON, "application/json", "t.json", None, None),
            (JSON, "application/json", "t.geojson", None, None),
            (JSON, "application/json", "t.txt", None, None),
            (JSON, "application/json", "t.csv", "application/json; charset=utf-8", None),
            (XML, "application/xml", "t.kml", None, None),
            (b"", "text/csv", "t.csv", None, None),
        ):
            web.replies = [Reply(body=content, headers={"Content-Type": kind})]
            target = tmp_path / name
            target.write_bytes(b"mine")
            if words is None:
                fetch_url(web.url, target, media_type=given)
                assert target.read_bytes() == content
            else:
                with pytest.raises(InputError, match=words):
                    fetch_url(web.url, target, media_type=given)
                assert target.read_bytes() == b"mine"

    in_script(body)


@pytest.mark.parametrize("headers", [TAGGED, {}], ids=["with a version", "without"])
def test_what_was_there_before_says_what_is_expected(web, in_script, tmp_path, headers):
    """A table in a file whose name says nothing stays, if the address then gives an error or nothing; a newer table
    replaces it. Where it was JSON before, JSON is right."""
    target = tmp_path / "table.txt"

    def fetched(content: bytes, url: str = web.url) -> None:
        web.replies = [Reply(body=content, headers=headers)]
        in_script(lambda: fetch_url(url, target))
        assert target.read_bytes() == content

    fetched(NEW)
    for content, words in ((JSON, "JSON"), (XML, "XML"), (PAGE, "web page"), (b"", "nothing.*delete")):
        with pytest.raises(InputError, match=words) as caught:
            fetched(content)
        assert target.read_bytes() == NEW and "table.txt stays as it was" in str(caught.value)
    fetched(OLD)
    for content in (JSON, b'[{"a": 1}]', NEW):
        fetched(content, f"{web.url}?form=json")


MEMBERS = gzip.compress(NEW) + gzip.compress(OLD)
STORED = gzip.compress(NEW)


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP"])
@pytest.mark.parametrize(
    ("path", "name", "kind", "sent", "kept"),
    [
        ("/table.csv", "table.csv", "text/csv", STORED, NEW),
        ("/table.csv", "members.csv", "text/csv", MEMBERS, NEW + OLD),
        ("/table.csv", "empty.csv", "text/csv", b"", b""),
        ("/table.csv.gz", "table.csv.gz", "text/csv", STORED, STORED),
        ("/table.csv.gz", "table", "text/csv", STORED, STORED),
        ("/table.tgz?a=b", "twice.tgz", "application/x-tar", gzip.compress(STORED), STORED),
        ("/latest", "latest.csv.gz", "application/octet-stream", STORED, STORED),
        ("/latest", "latest", "application/x-gzip", STORED, STORED),
        ("/latest", "other", "application/gzip", MEMBERS, MEMBERS),
    ],
)
def test_a_file_is_kept_as_it_is_stored(web, in_script, tmp_path, coding, path, name, kind, sent, kept):
    """Of a server that compresses although that was declined, what it compressed is undone; a file that is stored
    compressed is kept so. All members of a gzip file are one content."""
    web.replies = [Reply(body=sent, headers={"Content-Encoding": coding, "Content-Type": kind})]
    in_script(lambda: fetch_url(web.url.replace("/table.csv", path), tmp_path / name))
    assert (tmp_path / name).read_bytes() == kept


def test_other_encodings_are_undone(web, in_script, tmp_path):
    """Several, deflate, and those that change nothing. A gzip stream without its end is asked for again."""

    def body():
        for coding, sent in (
            ("deflate", zlib.compress(NEW)),
            ("gzip, gzip", gzip.compress(STORED)),
            ("identity", NEW),
            ("", NEW),
        ):
            web.replies = [Reply(body=sent, headers={"Content-Encoding": coding})]
            fetch_url(web.url, tmp_path / "table.csv")
            assert (tmp_path / "table.csv").read_bytes() == NEW
        headers = {"Content-Encoding": "gzip"}
        web.replies = [Reply(body=STORED[:-9], headers=headers), Reply(body=STORED, headers=headers)]
        fetch_url(web.url, tmp_path / "again.csv")
        assert (tmp_path / "again.csv").read_bytes() == NEW

    in_script(body)


@pytest.mark.parametrize("media_type", ["", "csv", 3])
def test_a_media_type_is_checked(media_type, tmp_path):
    """It has two parts, as in `text/csv`."""
    with pytest.raises(InputError, match="`media_type` must be .*such as text/csv"):
        fetch_url.fn("https://example.org/t.csv", tmp_path / "t.csv", media_type=media_type)


NO_ADDRESSES = {
    "another scheme": "ftp://example.org/table.csv",
    "no scheme": "table.csv",
    "no scheme, but a host": "//example.org/table.csv",
    "no host": "https:///table.csv",
    "nothing": "",
    "an open bracket": "https://[::1",
    "after a bracket": "http://[::1]extra/x",
    "no IPv6": "https://[1::2::3]/x",
    "a port out of range": "https://example.org:99999/x",
    "port 0": "https://example.org:0/x",
    "a port of letters": "https://example.org:abc/x",
    "a negative port": "https://example.org:-1/x",
    "a blank in the host": "https://exa mple.org/x",
    "a blank before": " https://example.org/x",
    "a line feed after": "https://example.org/x\n",
    "a tab": "https://exa\tmple.org/x",
    "a NUL": "https://example.org/\0",
    "an empty label": "https://example..org/x",
    "a hyphen first": "https://-example.org/x",
    "a backslash": "https://example.org\\x",
    "an escape": "https://%41.org/x",
    "a long label": f"https://{'a' * 64}.org/x",
    "a long name": f"https://{'a.' * 130}org/x",
    "no internationalized name": "https://xn--a/x",
    "a user": "https://ada@example.org/x",
    "a password": "https://ada:hunter2@example.org/x",
}


@pytest.mark.parametrize("url", NO_ADDRESSES.values(), ids=NO_ADDRESSES)
def test_what_is_no_address_is_refused(url, tmp_path):
    """Before anything is asked; a password is not repeated."""
    with pytest.raises(InputError, match=r"is no address of the web, such as|Leave it out") as caught:
        fetch_url.fn(url, tmp_path / "table.csv")
    assert "hunter2" not in str(caught.value)


def test_a_redirect_to_no_address_is_refused(web, in_script, tmp_path):
    """As an address that the user wrote."""
    for location in ("http://h:99999/x", "http://a b/x", "ftp://h/x", "http://[x/"):
        web.replies = [Reply(302, b"", {"Location": location})]
        with pytest.raises(InputError, match="is no address of the web"):
            in_script(lambda: fetch_url(web.url, tmp_path / "table.csv"))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "HTTPS://EXAMPLE.org.:443/a b?c=d#e",
        "https://exämple.org/ü",
        "https://my_host/x",
        "http://127.0.0.1:1/x",
        "http://[::1]:8080/x",
    ],
)
def test_an_address_of_the_web_is_taken(url):
    """Also by number, without a path, and with letters beyond ASCII."""
    check_address(url)
