"""Download files behind presigned URLs. Such a URL carries its own permission, so no token is sent with it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from ivcap_flows.errors import ProtocolError
from ivcap_flows.handles import LocalFile
from ivcap_flows.http import download
from ivcap_flows.http.pool import Pool
from ivcap_flows.http.session import Session

__all__ = ["Documents"]

# Provena stores its files in Amazon S3, whose host names are `<bucket>.s3.<region>.amazonaws.com` and older forms.
_S3: Final = re.compile(r"(?:[a-z0-9.-]+\.)?s3(?:[.-][a-z0-9-]+)*\.amazonaws\.com(?:\.cn)?")


class Documents:
    """Downloads from Provena's own hosts, from Amazon S3 by https, and from hosts that the user trusts."""

    def __init__(self, hosts: Collection[str], pool: Pool) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._pool = pool

    async def save(self, url: SecretStr | str, target: str | os.PathLike[str], *, what: str) -> LocalFile:
        """Download into the file `target`, in bounded memory; it appears whole or not at all. Errors call it `what`.

        Raises ProtocolError for a host that is not trusted, and the error that matches a platform's refusal, such as
        ForbiddenError for a URL that has expired.
        """
        plain = url.get_secret_value() if isinstance(url, SecretStr) else url
        parts = urlsplit(plain)
        if not self.trusts(plain):
            raise ProtocolError(
                f"Provena gave a URL of the host {parts.hostname} for {what}, which is neither its own nor Amazon "
                "S3's. It is not followed. If it is right, name the host in the credentials' `trusted_hosts`.",
                platform="Provena",
                method="GET",
                path=parts.path,
                status=None,
                detail=None,
                sent=False,
            )
        source = f"{parts.path}?{parts.query}" if parts.query else parts.path
        async with Session(f"{parts.scheme}://{parts.netloc}", platform="Provena", pool=self._pool) as session:
            return await download.fetch(session, source, target, urn=what)

    def trusts(self, url: str) -> bool:
        """Return whether a URL leads to one of these hosts."""
        parts = urlsplit(url)
        scheme, host = parts.scheme, (parts.hostname or "").lower()
        if scheme not in ("http", "https"):
            return False
        return host in self._hosts or (scheme == "https" and _S3.fullmatch(host) is not None)
