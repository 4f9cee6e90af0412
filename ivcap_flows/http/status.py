"""Turn a refused reply, or an exception of httpx, into an error of this package, with one table for each."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import httpx

from ivcap_flows.errors import (
    BadRequestError,
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    InputError,
    InvalidParameterError,
    IvcapFlowsError,
    NotAuthorizedError,
    NotFoundError,
    NotUniqueError,
    PlatformError,
    ProtocolError,
    UnavailableError,
    UnreachableError,
)
from ivcap_flows.http.retry import retry_after
from ivcap_flows.http.server_clock import date_of
from ivcap_flows.secrets import scrub_text
from ivcap_flows.secrets.forms import SecretForms, replaced
from ivcap_flows.secrets.scrubbing import hidden

__all__ = ["FOREIGN", "detail_of", "error_class", "foreign_error", "redact", "status_error"]

DETAIL_LIMIT: Final = 500
"""Maximum characters of the platform's message in an error."""

_STATUS_ERRORS: Final[Mapping[int, type[PlatformError]]] = MappingProxyType(
    {
        401: NotAuthorizedError,
        403: ForbiddenError,
        404: NotFoundError,
        408: UnavailableError,
        409: ConflictError,
        410: NotFoundError,
        422: InvalidParameterError,
        423: UnavailableError,
        424: NotUniqueError,
        425: UnavailableError,
        429: UnavailableError,
        501: BadRequestError,
    }
)
"""Status to error class; any other 4xx is a BadRequestError, 5xx an UnavailableError, 1xx to 3xx a ProtocolError."""

_REFUSED_UNPROCESSED: Final = frozenset({423, 425, 429})

_NEXT_STEP: Final[Mapping[type[PlatformError], str]] = {
    NotAuthorizedError: "Check that the token is set, belongs to this platform and has not expired.",
    ForbiddenError: "The account or the token's scopes do not allow it; ask for access or use another policy.",
    UnavailableError: "Try again later.",
}

_TAG = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


class _Foreign(NamedTuple):
    error: type[IvcapFlowsError]
    sent: bool
    phrase: str
    step: str = ""
    """The next step to suggest, if it is not the usual one for `sent`."""


FOREIGN: Final[Mapping[type[Exception], _Foreign]] = {
    httpx.ConnectTimeout: _Foreign(UnreachableError, False, "no connection within the time allowed"),
    httpx.ConnectError: _Foreign(UnreachableError, False, "the connection failed"),
    httpx.PoolTimeout: _Foreign(
        UnreachableError,
        False,
        "all connections of this client were in use for longer than allowed",
        "Do less at once, or close streams of events and downloads that are not read on.",
    ),
    httpx.ProxyError: _Foreign(UnreachableError, False, "the proxy refused"),
    httpx.UnsupportedProtocol: _Foreign(ConfigurationError, False, "the URL must begin with http:// or https://"),
    httpx.InvalidURL: _Foreign(ConfigurationError, False, "the URL is malformed"),
    httpx.LocalProtocolError: _Foreign(InputError, False, "the request cannot be written as HTTP"),
    httpx.TimeoutException: _Foreign(UnreachableError, True, "no reply within the time allowed"),
    httpx.RemoteProtocolError: _Foreign(UnreachableError, True, "the reply broke off"),
    httpx.TransportError: _Foreign(UnreachableError, True, "the connection broke"),
    httpx.DecodingError: _Foreign(ProtocolError, True, "the reply's content encoding is broken"),
    httpx.TooManyRedirects: _Foreign(ProtocolError, True, "the redirects do not end"),
    httpx.HTTPError: _Foreign(ProtocolError, True, "the exchange failed"),
    httpx.CookieConflict: _Foreign(ProtocolError, True, "the cookies contradict each other"),
    httpx.StreamError: _Foreign(ProtocolError, True, "the reply was read twice or after its end"),
}
"""The most specific class of an httpx exception decides. `sent` is False if no byte of the request can have left."""


def error_class(status: int) -> type[PlatformError]:
    """Return the error class of a status."""
    if status in _STATUS_ERRORS:
        return _STATUS_ERRORS[status]
    if status >= 500:
        return UnavailableError
    return BadRequestError if status >= 400 else ProtocolError


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the text without the given secrets, other known secrets, and anything that looks like one."""
    return scrub_text(replaced(text, SecretForms(secrets).found_in(text), hidden))


def _words(value: Any) -> str:
    """Return the message of a JSON error body in any of the known shapes."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, map(_words, value)))
    if not isinstance(value, dict):
        return ""
    if "msg" in value:  # FastAPI: {"loc": ["body", "name"], "msg": "…"}
        where = ".".join(str(part) for part in value.get("loc", ()) if part != "body")
        return f"{where}: {value['msg']}" if where else str(value["msg"])
    for key in ("message", "detail", "details", "error_description", "error", "status"):
        if key in value and (words := _words(value[key])):
            name = value.get("name")
            return f"{name}: {words}" if key == "message" and isinstance(name, str) and name not in words else words
    return ""


def detail_of(body: bytes, *, limit: int = DETAIL_LIMIT) -> str:
    """Return the platform's message from an error body as one line of limited length.

    The body may be JSON of several shapes, HTML, plain text or empty.
    """
    text = body[: 64 * 1024].decode("utf-8", errors="replace").strip()
    try:
        words = _words(json.loads(text)) or text
    except (ValueError, RecursionError):
        words = _TAG.sub(" ", text) if text.startswith("<") else text
    line = " ".join(words.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def status_error(
    *,
    platform: str,
    method: str,
    path: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    secrets: Iterable[str] = (),
) -> PlatformError:
    """Return the error for a refused reply.

    Besides PlatformError's data it has `code` (goa-error), `retry_after`, `sent`.
    """
    cls = error_class(status)
    detail = redact(detail_of(body), secrets)
    message = f"{platform} answered {status} to {method} {path}" + (f": {detail.rstrip('.')}." if detail else ".")
    if step := _NEXT_STEP.get(cls):
        message = f"{message} {step}"
    data: dict[str, Any] = {"platform": platform, "method": method, "path": path, "status": status, "detail": detail}
    data["sent"] = status not in _REFUSED_UNPROCESSED
    if code := headers.get("goa-error"):
        data["code"] = code
    if cls is UnavailableError:
        # A date is on the server's clock, so count from the server's time: this machine's may differ.
        data["retry_after"] = retry_after(headers.get("retry-after"), date_of(headers.get("date")))
    return cls(message, **data)


def foreign_error(
    error: Exception, *, platform: str, method: str, path: str, base_url: str, secrets: Iterable[str] = ()
) -> IvcapFlowsError:
    """Return the error for an exception of httpx. Besides PlatformError's data it has `sent`.

    The exception, which becomes its cause, loses the headers and the body of its request.
    """
    if isinstance(error, httpx.RequestError):
        # They hold the token, and Dask pickles the causes of an error, too (`tblib.pickling_support`).
        error.request = httpx.Request(method, base_url)
    known = next(FOREIGN[cls] for cls in type(error).__mro__ if cls in FOREIGN)
    detail = redact(str(error), secrets)
    words = f"{known.phrase} ({detail})" if detail else known.phrase
    data = {"platform": platform, "method": method, "path": path, "status": None, "detail": detail, "sent": known.sent}
    if _untrusted(error):
        return ConfigurationError(
            f"The certificate of {base_url} is not trusted ({detail}). "
            "Name the CA bundle of your site in SSL_CERT_FILE or correct the URL.",
            **data,
        )
    if issubclass(known.error, PlatformError):
        place = f"{platform} at {base_url}"
        if known.sent or known.step:
            message = f"{place} gave no reply to {method} {path}: {words}. {known.step or 'Try again later.'}"
        else:
            # What was asked does not matter, and the user may never have asked it.
            message = f"{place} cannot be reached: {words}. Check the URL and the network."
        return known.error(message, **data)
    return known.error(f"{method} {path} of {platform} at {base_url} was not sent: {words}.", **data)


def _untrusted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return "CERTIFICATE_VERIFY_FAILED" in str(error)
