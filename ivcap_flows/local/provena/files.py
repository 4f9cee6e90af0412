"""The file store behind presigned URLs: metadata of datasets, and reports."""

from __future__ import annotations

import hmac
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ivcap_flows.local import clock
from ivcap_flows.local.provena.keycloak.state import Key
from ivcap_flows.local.provena.store import Store

__all__ = ["Files"]


class Files:
    """Objects by key. As on S3, a URL with a time and a signature gives access to one of them."""

    def __init__(self, store: Store, key: Key, base_url: str) -> None:
        self._store, self._key, self._base_url = store, key, base_url

    def put(self, path: str, media_type: str, content: bytes) -> None:
        """Store an object, replacing one of the same path."""
        self._store.run("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", path, media_type, content)

    def has(self, path: str) -> bool:
        """Return whether there is such an object."""
        return self._store.row("SELECT 1 FROM files WHERE path=?", path) is not None

    def url(self, path: str, seconds: int) -> str:
        """Return a URL with which an object can be read for this many seconds."""
        expires = str(int(clock.seconds()) + seconds)
        query = urlencode({"expires": expires, "signature": self._signature(path, expires)})
        return f"{self._base_url}/{quote(path)}?{query}"

    def read(self, request: Request) -> Response:
        """Reply to a GET of such a URL."""
        path, query = request.path_params["path"], request.query_params
        expires = query.get("expires", "")
        signed = hmac.compare_digest(query.get("signature", "").encode(), self._signature(path, expires).encode())
        if not signed or int(expires) < clock.seconds():
            return JSONResponse({"detail": "Request has expired, or was not signed"}, 403)
        row = self._store.row("SELECT * FROM files WHERE path=?", path)
        if row is None:
            return JSONResponse({"detail": "Not Found"}, 404)
        return Response(row["content"], media_type=row["media_type"])

    def _signature(self, path: str, expires: str) -> str:
        return self._key.secret(f"file {expires} {path}")
