"""The files of datasets on an S3 server, if the embedded platform has one."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
from collections.abc import Mapping
from datetime import datetime, timezone
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from fastapi import HTTPException

from ivcap_flows.errors import EmbeddedPlatformError
from ivcap_flows.local import clock

__all__ = ["NAME", "Bucket", "endpoint_of", "presigned"]

NAME: Final = "embedded-provena"
_REGION: Final = "us-east-1"
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_ANY: Final = "embedded"
"""Key id and secret for a server that accepts any."""
_OWN_SECONDS: Final = 60
_PATIENCE: Final = 10


class Bucket:
    """Objects by key in the embedded platform's bucket of a server, which is addressed by path."""

    def __init__(self, endpoint: str) -> None:
        """Create the bucket on the server `endpoint`: `http[s]://[key:secret@]host[:port]`.

        Raises EmbeddedPlatformError.
        """
        parts = urlsplit(endpoint)
        self.endpoint = endpoint_of(endpoint)
        self._key, self._secret = unquote(parts.username or _ANY), unquote(parts.password or _ANY)
        try:
            made = self._status("PUT", "")
        except (OSError, http.client.HTTPException) as error:
            raise EmbeddedPlatformError(
                f"The S3 server at {self.endpoint} does not answer ({error}). Start it before the embedded platforms."
            ) from error
        # 409: it exists already.
        if made not in (200, 409):
            raise EmbeddedPlatformError(f"The S3 server at {self.endpoint} refused to make a bucket ({made}).")

    def credentials(self) -> dict[str, str]:
        """Return keys that the server accepts."""
        return {
            "aws_access_key_id": self._key,
            "aws_secret_access_key": self._secret,
            "aws_session_token": "",
        }

    def put(self, path: str, media_type: str, content: bytes) -> None:
        """Store an object, replacing one of the same path."""
        self._asked("PUT", path, {"Content-Type": media_type}, content)

    def has(self, path: str) -> bool:
        """Return whether there is such an object."""
        return self._asked("HEAD", path) == HTTPStatus.OK

    def url(self, path: str, seconds: int) -> str:
        """Return a URL with which an object can be read for this many seconds."""
        return self._signed("GET", path, seconds)

    def _asked(self, method: str, path: str, headers: Mapping[str, str] | None = None, content: bytes = b"") -> int:
        """Return the status of the reply, 200 or 404. Raises a 500 refusal, as the real API fails if S3 does."""
        try:
            found = self._status(method, path, headers, content)
        except (OSError, http.client.HTTPException) as error:
            raise HTTPException(500, f"The S3 server does not answer ({type(error).__name__}).") from error
        if found not in (200, 404):
            raise HTTPException(500, f"The S3 server answered {found}.")
        return found

    def _status(self, method: str, path: str, headers: Mapping[str, str] | None = None, content: bytes = b"") -> int:
        target = urlsplit(self._signed(method, path, _OWN_SECONDS))
        kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
        with contextlib.closing(kind(target.netloc, timeout=_PATIENCE)) as connection:
            connection.request(method, f"{target.path}?{target.query}", content, dict(headers or {}))
            return connection.getresponse().status

    def _signed(self, method: str, path: str, seconds: int) -> str:
        # S3 uses the machine's time, whatever the embedded platform's clock shows.
        return presigned(method, f"{self.endpoint}/{NAME}/{path}", self._key, self._secret, seconds, clock.machine())


def endpoint_of(address: str) -> str:
    """Return the address of a server without its keys. Raises EmbeddedPlatformError."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EmbeddedPlatformError("The address of the S3 server has to be of the form http://[key:secret@]host:port.")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def presigned(method: str, url: str, key: str, secret: str, seconds: int, now: float) -> str:
    """Return a URL that is valid for this many seconds (AWS Signature Version 4 in the query, the payload unsigned)."""
    parts = urlsplit(url)
    stamp = datetime.fromtimestamp(now, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{_REGION}/s3/aws4_request"
    fields = {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": "host",
    }
    query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in fields.items())
    path = quote(parts.path, safe="/-_.~")
    request = "\n".join([method, path, query, f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD"])
    text = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    signing = f"AWS4{secret}".encode()
    for word in (stamp[:8], _REGION, "s3", "aws4_request", text):
        signing = hmac.digest(signing, word.encode(), "sha256")
    return f"{parts.scheme}://{parts.netloc}{path}?{query}&X-Amz-Signature={signing.hex()}"
