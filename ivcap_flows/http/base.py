"""The base URL of a platform, and the check of URLs that a server gives."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ivcap_flows.arguments import texts
from ivcap_flows.errors import ConfigurationError, ProtocolError
from ivcap_flows.http.status import redact

__all__ = ["BaseUrl"]

_DEFAULT_PORT: Final = {"http": 80, "https": 443}
_WHOLE: Final = ("http://", "https://")


class BaseUrl:
    """A base URL. `url` has no trailing slash; it may have a path prefix. Raises ConfigurationError if invalid."""

    def __init__(
        self,
        url: str,
        platform: str,
        *,
        trusted_hosts: Collection[str] = (),
        rewrite_hosts: bool = False,
        alias: str | None = None,
    ) -> None:
        """`alias` is another name of the same platform, `host` or `host:port`, which its links may have."""
        self._parts = _checked(url, platform)
        self.url = url.strip().rstrip("/")
        self._origin = _origin(self._parts)
        self._platform = platform
        self._trusted = frozenset(host.lower() for host in texts(trusted_hosts, "trusted_hosts", "the client"))
        self._rewrite = rewrite_hosts
        self._alias = None if alias is None else _origin(urlsplit(f"{self._parts.scheme}://{alias}"))

    def join(self, path: str) -> str:
        """Return the whole URL of a path below the base; a whole URL is returned unchanged."""
        return path if path.startswith(_WHOLE) else f"{self.url}/{path.lstrip('/')}"

    def owns(self, path: str) -> bool:
        """Return whether a path or a whole URL leads to the platform itself."""
        return not path.startswith(_WHOLE) or _origin(urlsplit(path)) == self._origin

    def own(self, url: str) -> str:
        """See `Session.own`."""
        try:
            parts = urlsplit(url.strip())
            given = _origin(parts)
        except ValueError as error:
            raise self._refused(url, "is malformed") from error
        if parts.scheme not in ("", "http", "https"):
            raise self._refused(url, "has an unknown scheme")
        if not parts.netloc or given in (self._origin, self._alias) or self._rewrite:
            path = parts.path or "/"
            prefix = self._parts.path.rstrip("/")
            if prefix and path.startswith(prefix + "/"):
                path = path[len(prefix) :]
            return f"{path}?{parts.query}" if parts.query else path
        if (parts.hostname or "").lower() in self._trusted:
            return parts._replace(fragment="").geturl()
        raise self._refused(url, f"names the host {parts.hostname}, which is not the platform's")

    def _refused(self, url: str, fault: str) -> ProtocolError:
        shown = url.partition("?")[0][:200]  # a query may contain a signature
        return ProtocolError(
            f"{self._platform} at {self.url} gave the URL {shown}, which {fault}; it is not followed.",
            platform=self._platform,
            method="GET",
            path=shown,
            status=None,
            detail=fault,
            sent=False,
        )


def _checked(url: str, platform: str) -> SplitResult:
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"The URL of {platform} must be like https://host/path, not {redact(url)!r}.")
    if parts.username or parts.password:
        raise ConfigurationError(f"The URL of {platform} must not hold a user name or password; use a token.")
    if parts.query or parts.fragment:
        raise ConfigurationError(f"The URL of {platform} must not have a query or fragment.")
    return parts


def _origin(parts: SplitResult) -> tuple[str, int | None]:
    """Return host and port; the port is None if it is the scheme's default.

    This way http and https of one gateway are the same origin.
    """
    port = parts.port
    return (parts.hostname or "").lower(), None if port in (None, _DEFAULT_PORT.get(parts.scheme)) else port
