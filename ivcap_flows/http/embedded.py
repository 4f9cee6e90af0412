"""Find out whether a server is an embedded platform. Its id is part of every idempotency key."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from ivcap_flows.http.pool import Pool
from ivcap_flows.http.server_clock import ServerClock
from ivcap_flows.http.session import Session
from ivcap_flows.identity import EMBEDDED

__all__ = ["Embedded", "ask_embedded"]

_FINAL: Final = frozenset(range(200, 500)) - {408, 423, 425, 429}
"""Statuses that decide; any other reply is retried."""


@dataclass(frozen=True)
class Embedded:
    """An embedded platform's description of itself.

    `instance` is its id, `visibility_delay` the seconds until a look-up surely sees an accepted request, `s3` the URL
    of the S3 server for the files of datasets, if it has one.
    """

    instance: str
    visibility_delay: float
    s3: str | None = None


async def ask_embedded(
    url: str, *, platform: str, clock: ServerClock, budget: float = 60.0, pool: Pool | None = None
) -> Embedded | None:
    """Return what the embedded platform at a URL says about itself; None for any other platform.

    Only servers on this machine are asked. `clock` records their time. An id or a 404 decides; other failures are
    retried for `budget` seconds. Raises UnreachableError and UnavailableError if they last, and ProtocolError for any
    other reply, such as that of a proxy or a login page.
    """
    parts = urlsplit(url)
    if not _is_loopback(parts.hostname or ""):
        return None
    own = f"{parts.scheme}://{parts.netloc}"
    async with Session(own, platform=platform, budget=budget, pool=pool, clock=clock) as session:
        reply = await session.request("GET", "/_embedded", repeat="idempotent", expect=_FINAL)
    if reply.status == 404:
        return None
    body = reply.json() if reply.status == 200 and reply.is_json else None
    said = body if isinstance(body, dict) else {}
    instance, visibility_delay = said.get("instance"), said.get("visibility_delay")
    if isinstance(instance, str) and instance.startswith(EMBEDDED) and isinstance(visibility_delay, int | float):
        return Embedded(instance, float(visibility_delay), said.get("s3"))
    raise reply.violation(
        f"has the status {reply.status} and does not say whether {parts.netloc} is an embedded platform. See what "
        "answers there: a platform itself answers with its id or with 404"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
