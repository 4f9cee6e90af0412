"""Who asks a server that is for this machine alone. Pure.

A browser on the machine also runs pages of others: one whose name was made to point to 127.0.0.1 asks with its own name
as `Host`, and any page asks with its `Origin` or is marked `cross-site`. Neither is answered, so that no page can read
or drive what is served.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

__all__ = ["is_loopback", "refused_page"]


@lru_cache(maxsize=256)
def is_loopback(name: str) -> bool:
    """Whether a host's name or address means the machine that asks."""
    bare = name.lower().strip("[]").rstrip(".")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost" or bare.endswith(".localhost")


def refused_page(hosts: Iterable[str], origins: Iterable[str], sites: Iterable[str]) -> tuple[int, str] | None:
    """Status and words for a request of another site's page, told by its headers `Host`, `Origin`, `Sec-Fetch-Site`."""
    if not all(is_loopback(_name(host)) for host in hosts):
        return 421, "This server answers to the names of this machine alone, such as 127.0.0.1."
    if "cross-site" in sites or not all(is_loopback(urlsplit(origin).hostname or "") for origin in origins):
        return 403, "This server does not answer pages of other sites."
    return None


def _name(authority: str) -> str:
    """The host of `host:port`."""
    end = authority.find("]")
    return authority[: end + 1] if authority.startswith("[") and end > 0 else authority.partition(":")[0]
