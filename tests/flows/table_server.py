"""A server of NOAA's monthly table, which a test lets grow month by month."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from flows.monthly_table import read_table
from flows.services.months import Month

BUNDLED = Path(__file__).parents[2] / "flows/data/ersst_nino12_monthly.csv"
HEADER = " YR   MON  NINO1+2   ANOM   NINO3    ANOM   NINO4    ANOM NINO3.4    ANOM"


def measured() -> dict[Month, Decimal]:
    """The real series, by month."""
    return dict(read_table(BUNDLED).temperatures)


def noaa_text(temperatures: Mapping[Month, Decimal]) -> str:
    """The series as NOAA writes it. The other regions are made up: nothing reads them."""
    rows = (
        f"{at.year} {at.month:>3} {value:>8.2f} {0.1:>7.2f} {26.1:>8.2f} {0.2:>7.2f} {28.1:>8.2f} {-0.1:>7.2f} "
        f"{27.1:>7.2f} {0.3:>7.2f}"
        for at, value in temperatures.items()
    )
    return "".join(f"{line}\n" for line in (HEADER, *rows))


@dataclass
class TableServer:
    """Serves `text` with an ETag and a Last-Modified, and answers 304 to who has that version."""

    url: str = ""
    text: str = ""
    answered: list[int] = field(default_factory=list)
    """The status of each reply."""
    _changed: float = 1_700_000_000.0

    def serve(self, text: str) -> None:
        self.text, self._changed = text, self._changed + 60

    def reply(self, known: str | None) -> tuple[int, bytes, dict[str, str]]:
        etag = f'"{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"'
        headers = {"ETag": etag, "Last-Modified": formatdate(self._changed, usegmt=True)}
        if known == etag:
            return 304, b"", headers
        body = self.text.encode()
        return 200, body, headers | {"Content-Type": "text/plain", "Content-Length": str(len(body))}


@contextmanager
def table_server() -> Iterator[TableServer]:
    """A real server on this machine, with the real series to the end of 2009."""
    server = TableServer()
    server.serve(noaa_text({at: value for at, value in measured().items() if at.year < 2010}))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body, headers = server.reply(self.headers.get("If-None-Match"))
            server.answered.append(status)
            self.send_response(status)
            for name, value in {**headers, "Connection": "close"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Write nothing to the test's output."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listening.server_port}/data/indices/ersst5.nino.mth.91-20.ascii"
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    listening.shutdown()
    listening.server_close()
    thread.join(10)
