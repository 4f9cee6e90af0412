"""Operations of the IVCAP OpenAPI description that the embedded platform answers with 501."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from ivcap_flows.local.ivcap import errors
from ivcap_flows.local.ivcap.routing import Call, Operation

__all__ = ["OPERATIONS"]

_PATHS: Final = {
    "search": ("/1/search",),
}


def _refuse(call: Call) -> Response:
    noun = next(noun for noun, paths in _PATHS.items() if call.request.url.path.startswith(paths[0].rsplit("/{", 1)[0]))
    raise errors.not_implemented(noun)


OPERATIONS: Final = tuple(
    Operation(method, path, _refuse, f"Not available: {noun}", answers=(501,))
    for noun, paths in _PATHS.items()
    for path in paths
    for method in ("GET", "POST", "PUT", "DELETE")
)
