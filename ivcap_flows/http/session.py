"""A session with one platform: base URL, token, pool, timeouts, retries, and errors of this package."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from json import JSONEncoder
from typing import Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit

import httpx

from ivcap_flows.errors import InputError, IvcapFlowsError, MisfitReplyError, ProtocolError
from ivcap_flows.http.answers import misfit
from ivcap_flows.http.auth import Auth, TokenAuth
from ivcap_flows.http.base import BaseUrl
from ivcap_flows.http.concurrency_limit import answering
from ivcap_flows.http.confirm_send import confirm_send, note_accepted
from ivcap_flows.http.pauses import Retries, retry_until
from ivcap_flows.http.pool import Pool, Reuse, UnansweredError, abandon
from ivcap_flows.http.reply import Reply, StreamedReply, encodings_of
from ivcap_flows.http.retry import Backoff, Repeat, is_transient, may_repeat
from ivcap_flows.http.server_clock import ServerClock, elapsed
from ivcap_flows.http.status import foreign_error, status_error
from ivcap_flows.secrets import logger_of

__all__ = ["UNSET", "Content", "Reply", "Session", "StreamedReply"]

_log = logger_of(__name__)

T = TypeVar("T")

Content = bytes | Callable[[], AsyncIterator[bytes]]
"""A request body: bytes, or a function that returns a new iterator over its blocks for each send."""


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset()
"""Means no JSON body; None is the JSON value null."""

MAX_BODY: Final = 64 * 1024 * 1024
"""Maximum bytes of a reply that is read whole. A larger reply is refused, since only downloads should be large."""

_MAX_ERROR_BODY: Final = 64 * 1024

CONFIRMED_FOR: Final = 15.0
"""Seconds, including those that the machine sleeps, after which a send is confirmed again."""

_CONNECT_TIMEOUT: Final = 10.0
_SAID_AFTER: Final = 3.0
"""Seconds of failures after which the log warns once; retries go on."""

_HEADERS: Final = {"Accept": "*/*", "Accept-Encoding": "gzip, deflate", "User-Agent": "ivcap-flows"}
_HEAD: Final = "http11.send_request_headers"
_BODY: Final = "http11.send_request_body"
_STEPS: Final = {
    *("connection.connect_tcp", "connection.start_tls", "connection.retry", "connection.close"),
    *("proxy.start_tls", "socks.connect_tcp", "socks.setup_socks5_connection", _HEAD, _BODY),
    *("http11.receive_response_headers", "http11.receive_response_body", "http11.response_closed"),
}
"""The steps that httpcore reports of a request."""

_JSON: Final = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Session:
    """HTTP with one platform. Use it as an async context manager, or call `aclose()`.

    `platform` names the platform in errors. `timeout` is the longest silence of the server in seconds. `budget` is the
    number of seconds after the first failure of a request within which it is repeated. The token is sent to the base
    URL's host only. URLs from a server are used only after a check by `own`. Proxies and CA certificates come from
    the environment. Redirects are never followed.
    """

    def __init__(
        self,
        base_url: str,
        *,
        platform: str,
        auth: Auth | None = None,
        timeout: float = 30.0,
        budget: float = 60.0,
        trusted_hosts: Collection[str] = (),
        rewrite_hosts: bool = False,
        host: str | None = None,
        pool: Pool | None = None,
        clock: ServerClock | None = None,
    ) -> None:
        """Create a session; no connection is opened yet.

        `trusted_hosts` are hosts that links may lead to; they do not get the token. `rewrite_hosts` treats any host in
        a link as the base URL's. `host` is sent as the Host header instead of the base URL's own, for a gateway that
        routes by it (the key `host` in a context of the `ivcap` command); links to that host are treated as the base
        URL's. A given `pool` is shared with other sessions, and its owner closes it. A given `clock` collects the time
        from all sessions that share it.
        """
        self._base = BaseUrl(base_url, platform, trusted_hosts=trusted_hosts, rewrite_hosts=rewrite_hosts, alias=host)
        self._host = {} if host is None else {"Host": host}
        self.base_url = self._base.url
        self.platform = platform
        self.auth = auth
        self._timeout = timeout
        self._backoff = Backoff(budget=budget)
        self._said = False
        """Whether the log says that requests fail, since the last one that succeeded."""
        self._pool = pool or Pool()
        self._owns_pool = pool is None
        self._host_name = urlsplit(self.base_url).netloc
        self.clock = clock or ServerClock()

    def __repr__(self) -> str:
        return f"Session({self.base_url!r}, platform={self.platform!r})"

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the session's own pool. A later request opens a new one."""
        if self._owns_pool:
            await self._pool.aclose()

    @property
    def backoff(self) -> Backoff:
        """The waits between attempts, for code above that resumes uploads, downloads or streams."""
        return self._backoff

    def own(self, url: str) -> str:
        """Return a URL given by the server in the form in which the session may request it.

        For the base URL's host, and for a bare path, that is the path and query on the base URL. For another host it is
        the same if the session rewrites hosts, or the URL itself if the host is trusted (no token is sent there).
        Raises ProtocolError otherwise.
        """
        return self._base.own(url)

    async def request(
        self,
        method: str,
        path: str,
        *,
        repeat: Repeat,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = UNSET,
        content: Content | None = None,
        data: Mapping[str, str] | None = None,
        expect: Collection[int] | None = None,
        timeout: float | None = None,
        discreet: bool = False,
        raw: bool = False,
    ) -> Reply:
        """Send a request and read the whole reply.

        `path` is relative to the base URL. Parameters that are None are left out; booleans are sent as `true` and
        `false`. `data` is a form. Statuses in `expect` (default: any 2xx) are returned; any other raises the
        PlatformError of that status. Without a reply, UnreachableError is raised; its data `sent` says whether the
        request may have been processed. `discreet` keeps the platform's message out of errors and logs, since it may
        repeat a secret that was sent. A reply that answers another request raises MisfitReplyError. If the request is
        idempotent, that and truncated JSON count as failures that may be retried. Users' content (`raw`) is not judged.

        The first attempt of an idempotent request uses a kept connection. What is no answer there is requested again at
        once on a new connection, which all else has from the beginning.
        """
        body, type_header = _body(json, content, data)
        wanted = {**type_header, **(headers or {})}
        kept = repeat == "idempotent" and not raw

        async def once(client: httpx.AsyncClient, trace: Reuse | _ConfirmedSend | None) -> Reply:
            with nullcontext() if repeat == "idempotent" else answering():
                response = await self._send(client, method, path, params, wanted, body, timeout, trace)
                try:
                    await self._accept(response, method, path, expect, discreet=discreet)
                    reply = await self._read(response, method, path)
                    if repeat == "idempotent" and not raw:
                        reply.check_whole()
                    if not raw and (fault := misfit(reply, params or {}, json)):
                        raise reply.violation(f"{fault}, so it answers another request", MisfitReplyError)
                except (MisfitReplyError, UnansweredError):
                    await abandon(response)
                    raise
                finally:
                    await response.aclose()
            return reply

        async def attempt() -> Reply:
            nonlocal kept
            if kept:
                kept = False
                try:
                    async with self._pool.turn(kept=True) as client:
                        return await once(client, Reuse())
                except UnansweredError as fault:
                    _log.debug("%s %s is sent again on a new connection: %s", method, _shown(path), fault)
            async with self._pool.turn() as client:
                return await once(client, None if repeat == "idempotent" else _ConfirmedSend())

        reply = await self._tried(attempt, repeat)
        # Callers may expect statuses that refuse, to read their bodies.
        if repeat != "idempotent" and reply.status < 300:
            note_accepted()
        return reply

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        repeat: Repeat,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        expect: Collection[int] | None = None,
        timeout: float | None = None,
        encoded: bool = False,
    ) -> AsyncIterator[StreamedReply]:
        """Send a request and yield the reply before its body is read.

        Failures until then are retried. If the body breaks off later, the caller must resume. A body in a content
        encoding is refused, since that was declined, unless the caller decodes it (`encoded`).
        """
        wanted = {"Accept-Encoding": "identity", **(headers or {})}

        async def once(client: httpx.AsyncClient) -> httpx.Response:
            trace = None if repeat == "idempotent" else _ConfirmedSend()
            response = await self._send(client, method, path, params, wanted, None, timeout, trace)
            try:
                await self._accept(response, method, path, expect)
                if encodings_of(response) and not encoded:
                    raise self._reply(response, method, path, b"").violation("is encoded although that was declined")
            except BaseException:
                await response.aclose()
                raise
            return response

        async with AsyncExitStack() as turn:
            try:
                client = await turn.enter_async_context(self._pool.stream(timeout or self._timeout))
            except httpx.PoolTimeout as error:
                raise self._mapped(error, method, path) from error
            response = await self._tried(partial(once, client), repeat)
            try:
                yield StreamedReply(response, lambda error: self._mapped(error, method, path))
            finally:
                await response.aclose()

    async def _tried(self, attempt: Callable[[], Awaitable[T]], repeat: Repeat) -> T:
        """Return the result of `attempt`. Repeat it while its failures are transient and the budget allows."""
        retries = Retries(self._backoff, self._say)
        given = await retries.run(attempt, lambda error: is_transient(error) and may_repeat(repeat, error))
        self._said = False
        return given

    def _say(self, error: IvcapFlowsError, wait: float, waited: float) -> None:
        if waited + wait < _SAID_AFTER or self._said:
            _log.info("%s Trying again in %.1f s.", error, wait)
        else:
            self._said = True
            left = min(self._backoff.budget - waited, retry_until.get() - time.monotonic())
            _log.warning("%s Trying again for up to %.0f s.", error, left)

    async def _send(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        content: Content | None,
        timeout: float | None,
        trace: Reuse | _ConfirmedSend | None,
    ) -> httpx.Response:
        """Send once, and a second time with a new token if the reply blames the token.

        Raises UnansweredError if a kept connection breaks before a reply.
        """
        own = self._base.owns(path)
        silence = self._timeout if timeout is None else timeout
        timeouts = httpx.Timeout(silence, connect=min(silence, _CONNECT_TIMEOUT))
        token = None
        try:
            request = client.build_request(
                method,
                _with_query(self._base.join(path), params),
                headers={**_HEADERS, **headers, **(self._host if own else {})},
                content=_Anew(content) if callable(content) else content,
                timeout=timeouts,
                extensions={} if trace is None else {"trace": trace},
            )
            began = elapsed()
            auth = TokenAuth(self.auth) if self.auth and own else None
            try:
                response = await client.send(request, stream=True, auth=auth)
            finally:
                token = request.headers.get("authorization")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            if isinstance(trace, Reuse) and trace.broke(error):
                raise UnansweredError("the connection had ended") from error
            raise self._mapped(error, method, path, token) from error
        except UnicodeError as error:
            raise InputError(
                f"{method} {_shown(path)} of {self.platform} was not sent: a header holds characters beyond ASCII, or "
                "a parameter half a surrogate pair.",
                sent=False,
            ) from error
        if own:
            self.clock.note(self._host_name, response.headers.get("date"), began)
        return response

    async def _accept(
        self,
        response: httpx.Response,
        method: str,
        path: str,
        expect: Collection[int] | None,
        *,
        discreet: bool = False,
    ) -> None:
        """Raise the error of a reply with an unexpected status, with the message from its body."""
        if response.status_code in expect if expect is not None else response.is_success:
            return
        body = bytearray()
        try:
            async for block in response.aiter_bytes():
                body += block
                if len(body) >= _MAX_ERROR_BODY:
                    break
        except (httpx.HTTPError, httpx.StreamError) as error:
            _log.debug("The error body of %s %s broke off: %s", method, _shown(path), type(error).__name__)
        self._pool.refuse_copy(response, bytes(body))
        if response.status_code < 400:
            allowed = ", ".join(map(str, sorted(expect))) if expect is not None else "2xx"
            kind = "redirects, and redirects are not followed" if response.is_redirect else f"is not one of {allowed}"
            raise self._reply(response, method, path, b"").violation(f"has the status {response.status_code}: {kind}")
        raise status_error(
            platform=self.platform,
            method=method,
            path=_shown(path),
            status=response.status_code,
            headers=response.headers,
            body=b"" if discreet else bytes(body),
            secrets=_secrets(response.request.headers.get("authorization")),
        )

    async def _read(self, response: httpx.Response, method: str, path: str) -> Reply:
        body = bytearray()
        try:
            async for block in response.aiter_bytes():
                body += block
                if len(body) > MAX_BODY:
                    raise self._reply(response, method, path, b"").violation(f"is larger than {MAX_BODY} bytes")
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise self._mapped(error, method, path, response.request.headers.get("authorization")) from error
        self._pool.refuse_copy(response, bytes(body))
        return self._reply(response, method, path, bytes(body))

    def _reply(self, response: httpx.Response, method: str, path: str, body: bytes) -> Reply:
        return Reply(self.platform, method, _shown(path), response.status_code, response.headers, body)

    def _mapped(self, error: Exception, method: str, path: str, token: str | None = None) -> Exception:
        return foreign_error(
            error,
            platform=self.platform,
            method=method,
            path=_shown(path),
            base_url=self.base_url,
            secrets=_secrets(token),
        )


class _ConfirmedSend:
    """Has each send confirmed right before its head is written, and again if that was long ago when head or body are.

    A trace function of httpcore. When the head is written the connection is open, so head and body are sent within
    twice the time-out. A process that was suspended before that confirms when it runs again; without its body, a
    request that has one is not processed. An event that is not known may be a send that nothing confirms.
    """

    _confirmed_at: float | None = None

    async def __call__(self, event: str, _: Any) -> None:
        step, _, moment = event.rpartition(".")
        if step not in _STEPS:
            raise ProtocolError(
                f"httpx sends in a way in which no send can be confirmed ({event}). Install a version of httpcore that "
                "ivcap-flows was released with.",
                sent=self._confirmed_at is not None,
            )
        if moment != "started" or step not in (_HEAD, _BODY):
            return
        if step == _HEAD:
            await self._confirm()
        if elapsed() - (self._confirmed_at or 0.0) > CONFIRMED_FOR:
            await self._confirm()

    async def _confirm(self) -> None:
        self._confirmed_at = elapsed()
        await confirm_send()


class _Anew:
    """A body that is created again for each send."""

    def __init__(self, make: Callable[[], AsyncIterator[bytes]]) -> None:
        self._make = make

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._make()


def _body(json: Any, content: Content | None, data: Mapping[str, str] | None) -> tuple[Content | None, dict[str, str]]:
    try:
        if data is not None:
            form = httpx.Request("POST", "http://form", data=data)
            return form.read(), {"Content-Type": "application/x-www-form-urlencoded"}
        if isinstance(json, _Unset):
            return content, {}
        return _JSON.encode(json).encode(), {"Content-Type": "application/json"}
    except UnicodeEncodeError as error:
        # Not as its cause, since the error holds the whole request.
        half = error.object[error.start : error.end]
        raise InputError(
            f"The request holds {half!a}, half a surrogate pair, which UTF-8 cannot hold. Leave it out.", sent=False
        ) from None
    except (TypeError, ValueError) as error:
        raise InputError(f"The request is no JSON: {error}.", sent=False) from error


def _with_query(url: str, params: Mapping[str, Any] | None) -> str:
    """Add parameters to a URL. Its own query stays unchanged, since it may be signed."""
    query = {name: value for name, value in (params or {}).items() if value is not None}
    if not query:
        return url
    told = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
    return f"{url}{'&' if '?' in url else '?'}{urlencode(told, doseq=True)}"


def _secrets(token: str | None) -> tuple[str, ...]:
    return (token, token.rpartition(" ")[2]) if token else ()


def _shown(path: str) -> str:
    """Return the path without its query, which may contain a signature."""
    return path.partition("?")[0]
