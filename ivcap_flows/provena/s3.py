"""The objects of one S3 bucket. botocore sends each request in a thread, with keys that are renewed in time."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

from ivcap_flows import __version__
from ivcap_flows.errors import (
    ConfigurationError,
    InputError,
    IntegrityError,
    IvcapFlowsError,
    NotAuthorizedError,
    ProtocolError,
    UnreachableError,
)
from ivcap_flows.http.status import DETAIL_LIMIT, error_class, redact
from ivcap_flows.provena.datastore import S3Credentials

__all__ = ["AT_ONCE", "Bucket", "Listed", "need_library"]

T = TypeVar("T")

AT_ONCE: Final = 8
"""Maximum number of requests to one bucket at a time."""
ATTEMPTS: Final = 5
"""How often botocore sends a request in all if it gets no reply, or 429, 500, 502, 503 or 504."""
_CONNECT_SECONDS: Final = 10
_SILENCE_SECONDS: Final = 40
_EARLY_SECONDS: Final = 600.0
"""Seconds before their expiry at which keys are renewed; short-lived keys are renewed after half their lifetime."""
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_WRONG_KEYS: Final = _EXPIRED | {"InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
_THREADS: Final = "ivcap-flows-s3"
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Listed(NamedTuple):
    """An object in a listing; `etag` includes its quotes."""

    key: str
    size: int
    etag: str
    modified_at: datetime


class _Open(NamedTuple):
    client: Any
    renew_at: float
    """On the clock of `time.time`."""


class Bucket:
    """One bucket, accessed with the keys that `ask_keys` returns. An asynchronous context manager.

    `endpoint` is the address of the server; None means Amazon's own. Errors are those of this package.
    """

    def __init__(
        self,
        name: str,
        ask_keys: Callable[[], Awaitable[S3Credentials]],
        endpoint: str | None,
    ) -> None:
        self.name = name
        self._ask_keys, self._endpoint = ask_keys, endpoint
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=_THREADS)
        self._opening = asyncio.Lock()
        self._open: _Open | None = None
        self._clients: list[Any] = []
        self._secrets: list[str] = []

    def __repr__(self) -> str:
        return f"Bucket({self.name!r})"

    async def __aenter__(self) -> Bucket:
        try:
            await self._current()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        # Do not wait for requests of cancelled tasks that still run in a thread; they end on their own.
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients:
            client.close()

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run blocking work in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Run an operation of botocore's S3 client on this bucket, such as `head_object`, and return its reply.

        Idempotent, as S3's operations are: it is sent up to five times until it is answered, and once more with new
        keys if the old ones are refused as expired.
        """
        key = arguments.get("Key") or arguments.get("Prefix") or ""
        opened = await self._current()
        try:
            return await self._send(opened, operation, arguments)
        except Exception as error:  # noqa: BLE001 - naming botocore's errors would mean importing it
            # The request and the server's message may contain the session token, so do not pass that error on.
            told = self.explained(error, operation, self.uri(key))
        if told.data.get("code") not in _EXPIRED:
            raise told from None
        opened = await self._current(instead_of=opened)
        try:
            return await self._send(opened, operation, arguments)
        except Exception as error:  # noqa: BLE001
            told = self.explained(error, operation, self.uri(key))
        raise told from None

    async def list(self, prefix: str) -> AsyncIterator[Listed]:
        """Yield all objects whose keys begin with `prefix`, sorted by key, in pages of 1,000."""
        more: dict[str, str] = {}
        while True:
            page = await self.ask("list_objects_v2", Prefix=prefix, **more)
            for found in page.get("Contents", ()):
                yield Listed(found["Key"], found["Size"], found["ETag"], found["LastModified"])
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def explained(self, error: Exception, operation: str, uri: str) -> IvcapFlowsError:
        """Return this package's error for one of botocore's, without the bucket's keys; raise any other unchanged."""
        # Each dataset has its own keys for an hour, so `hide` would collect them.
        return _explained(error, operation, uri, self._secrets)

    def uri(self, key: str) -> str:
        """Return the object's URI: `s3://<bucket>/<key>`, with the key quoted as in a URL."""
        return f"s3://{self.name}/{quote(key)}"

    async def _send(self, opened: _Open, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await self.run(
            partial(getattr(opened.client, operation), Bucket=self.name, **arguments)
        )
        return answer

    async def _current(self, instead_of: _Open | None = None) -> _Open:
        async with self._opening:
            known = self._open
            if known is None or known is instead_of or time.time() >= known.renew_at:
                keys = await self._ask_keys()
                for secret in (keys.aws_secret_access_key, keys.aws_session_token):
                    self._secrets.append(secret.get_secret_value())
                client = await self.run(_client, keys, self._endpoint)
                self._clients.append(client)
                left = keys.expiry.timestamp() - time.time()
                known = self._open = _Open(client, time.time() + max(left - _EARLY_SECONDS, left / 2))
            return known


def need_library() -> None:
    """Raise ConfigurationError if botocore is not installed."""
    try:
        import botocore.session  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "Files of datasets need an extra. Install it with `pip install 'ivcap-flows[s3]'`."
        ) from error


def _client(keys: S3Credentials, endpoint: str | None) -> Any:
    """Create a client that ignores the user's own AWS files, since those are for other accounts."""
    from botocore.config import Config
    from botocore.session import Session

    nowhere = (None, None, os.devnull, None)
    session = Session({"profile": (None, None, None, None), "config_file": nowhere, "credentials_file": nowhere})
    here = endpoint is not None and urlsplit(endpoint).hostname in _LOOPBACK
    try:
        client = session.create_client(
            "s3",
            # If the bucket is in another region, S3 names it and botocore follows.
            region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
            endpoint_url=endpoint,
            verify=os.environ.get("SSL_CERT_FILE") or None,
            aws_access_key_id=keys.aws_access_key_id,
            aws_secret_access_key=keys.aws_secret_access_key.get_secret_value(),
            aws_session_token=keys.aws_session_token.get_secret_value() or None,
            config=Config(
                signature_version="s3v4",
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_SILENCE_SECONDS,
                max_pool_connections=AT_ONCE,
                proxies={} if here else None,
                request_checksum_calculation="when_required",
                user_agent_extra=f"ivcap-flows/{__version__}",
            ),
        )
    except ValueError as error:
        raise ConfigurationError(f"{endpoint!r} is no address of an S3 server: {error}.") from error
    _keep_out_of_logs()
    return client


class _NotOurs(logging.Filter):
    """Drops DEBUG records of our own threads: at that level botocore logs headers, which contain the session token."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.DEBUG or not threading.current_thread().name.startswith(_THREADS)


_not_ours: Final = _NotOurs()


def _keep_out_of_logs() -> None:
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "botocore":
            logging.getLogger(name).addFilter(_not_ours)


def _explained(error: Exception, operation: str, uri: str, secrets: Sequence[str]) -> IvcapFlowsError:
    from botocore import exceptions as botocore

    if isinstance(error, IvcapFlowsError):
        return error
    data: dict[str, Any] = {"platform": "S3", "method": operation, "path": uri}
    if isinstance(error, botocore.ClientError):
        return _refused(error.response, data, secrets)
    detail = redact(str(error), secrets)[:DETAIL_LIMIT]
    data |= {"status": None, "detail": detail}
    if isinstance(error, botocore.SSLError):
        return ConfigurationError(
            f"The certificate of the S3 server is not trusted ({detail}). Name the CA bundle of your site in "
            "SSL_CERT_FILE.",
            **data,
        )
    if isinstance(error, botocore.FlexibleChecksumError):
        return IntegrityError(f"{uri} arrived with another checksum than S3 has for it: {detail}", urn=uri)
    if isinstance(error, botocore.HTTPClientError | botocore.ConnectionError | botocore.IncompleteReadError):
        return UnreachableError(f"S3 gave no reply to {operation} of {uri}: {detail} Try again later.", **data)
    if isinstance(error, botocore.ParamValidationError):
        return InputError(f"{uri} cannot be asked for: {detail}")
    if isinstance(error, botocore.BotoCoreError):
        return ProtocolError(f"{operation} of {uri} failed: {detail}", **data)
    raise error


def _refused(response: dict[str, Any], data: dict[str, Any], secrets: Sequence[str]) -> IvcapFlowsError:
    told = response.get("Error", {})
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    code = str(told.get("Code") or status)
    detail = redact(str(told.get("Message") or code), secrets)[:DETAIL_LIMIT]
    data |= {"status": status, "detail": detail, "code": code}
    message = f"S3 answered {status} to {data['method']} of {data['path']}: {code}, {detail.rstrip('.')}."
    return (NotAuthorizedError if code in _WRONG_KEYS else error_class(status))(message, **data)
