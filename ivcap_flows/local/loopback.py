"""Decide who may use a server that is for this machine only. Pure.

A browser on this machine also runs pages of other sites. A page whose host name was made to point to 127.0.0.1 sends
its own name as `Host`; any other page sends its `Origin` or is marked `cross-site`. Both are refused, so that no page
can read or control the server.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

__all__ = ["is_loopback", "refused_page"]

_AUTHORITY: Final = re.compile(r"([^:\[\]]*|\[[^\[\]]*\])(?::\d*)?")


@lru_cache(maxsize=256)
def is_loopback(name: str) -> bool:
    """Return whether a host's name or address means this machine."""
    bare = name.lower().strip("[]").rstrip(".")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost" or bare.endswith(".localhost")


def refused_page(hosts: Iterable[str], origins: Iterable[str], sites: Iterable[str]) -> tuple[int, str] | None:
    """Return status and message for a request of another site's page, by its `Host`, `Origin` and `Sec-Fetch-Site`.

    None for any other request.
    """
    if not all(is_loopback(_name(host)) for host in hosts):
        return 421, "This server accepts only the names of this machine, such as 127.0.0.1."
    if any(site.lower() == "cross-site" for site in sites) or not all(map(_is_of_this_machine, origins)):
        return 403, "This server refuses requests from pages of other sites."
    return None


def _name(authority: str) -> str:
    """Return the host of `host:port`; a text that is none, if it is not of that form."""
    found = _AUTHORITY.fullmatch(authority)
    return found[1] if found else ""


def _is_of_this_machine(origin: str) -> bool:
    try:
        return is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False
