"""Share logins with IVCAP's own `ivcap` command: read and write the contexts in its file (ivcap-cli `cmd/config.go`).

The file belongs to that command. Everything except a context's tokens keeps its keys, values, quotes and order;
comments and blank lines are lost, but the command writes none. The file is replaced as a whole, only its owner can read
it, and one process of this package writes it at a time.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import yaml
from platformdirs import user_config_path
from pydantic import SecretStr

from ivcap_flows.errors import ConfigurationError, UnreachableError
from ivcap_flows.http.oauth import Tokens, renewed
from ivcap_flows.http.shared_login import Login, login_ended
from ivcap_flows.ivcap.authinfo import provider_at
from ivcap_flows.secrets import hide, logger_of
from ivcap_flows.threads import alone
from ivcap_flows.whole_file import write_private

__all__ = ["ACTIVE", "Context", "ContextFile", "ContextLogin", "config_file"]

_log = logger_of(__name__)

ACTIVE: Final = "active"
"""The name that selects the active context of the `ivcap` command."""

_VERSION: Final = "v1"
_MARGIN: Final = 10.0
"""Seconds by which the command records an expiry too early."""
_LOGIN: Final = "Log in by `ivcap-flows login` or `ivcap login`."


def config_file() -> Path:
    """Return the file of the `ivcap` command's contexts: `ivcap-cli/config.yaml` in the user's configuration folder."""
    return user_config_path("ivcap-cli", appauthor=False, roaming=True) / "config.yaml"


@dataclass(frozen=True)
class Context(Login):
    """A login that has a name in the file. `host` overrides the Host header."""

    name: str = ""
    host: str | None = None


class ContextFile:
    """The file of the `ivcap` command.

    `longest_wait` is for how many seconds to wait for another process that renews the login. After a twentieth of
    them, the log says which it is.
    """

    def __init__(self, path: Path | None = None, *, longest_wait: float = 60.0) -> None:
        self.path = path or config_file()
        self._longest_wait = longest_wait

    def check(self) -> None:
        """Raise ConfigurationError if there is a file that cannot be read."""
        self._document()

    def read(self, name: str) -> Context:
        """Read a context by its name, or the active one by the name `active`.

        A context that is itself named `active` takes precedence. Raises ConfigurationError with the existing names.
        """
        document = self._document()
        known = _contexts(document)
        chosen = name if name in known or name != ACTIVE else _text(document, "active-context") or ""
        if chosen not in known:
            there = f" It has {', '.join(sorted(known))}." if known else ""
            what = f"no context named {chosen!r}" if chosen else "no active context"
            raise ConfigurationError(
                f"{self.path} has {what}.{there} Log in by `ivcap-flows login URL` or `ivcap login`."
            )
        found = known[chosen]
        url = _text(found, "url")
        if not url:
            raise ConfigurationError(f"The context {chosen!r} in {self.path} has no url. {_LOGIN}")
        return Context(
            name=chosen,
            url=url,
            host=_text(found, "host"),
            account=_text(found, "account-id"),
            access=_hidden(_text(found, "access-token")),
            refresh=_hidden(_text(found, "refresh-token")),
            expires_at=_moment(_text(found, "access-token-expiry")),
        )

    def write(self, name: str, tokens: Tokens, more: Mapping[str, str] | None = None) -> None:
        """Write tokens into the context of this name, and create the context if it does not exist.

        Hold `locked()` meanwhile. `more` are the keys that a login sets; after a login no earlier token remains. After
        a renewal without a new refresh token, the old refresh token stays. The first context of a file becomes the
        active one.
        """
        document = self._document()
        if document is None:
            document = _node({"version": _VERSION, "active-context": name, "contexts": []})
        found = _contexts(document).get(name)
        if found is None:
            found = _node({"api-version": 1, "name": name})
            _sequence(document).value.append(found)
            if not _text(document, "active-context"):
                _put(document, "active-context", name)
        for key, value in (more or {}).items():
            _put(found, key, value)
        _put(found, "access-token", tokens.access.get_secret_value())
        if tokens.expires_at is not None:
            moment = datetime.fromtimestamp(tokens.expires_at - _MARGIN, timezone.utc)
            _put(found, "access-token-expiry", moment.isoformat(timespec="seconds").replace("+00:00", "Z"), _TIME)
        else:
            _drop(found, "access-token-expiry")
        if tokens.refresh is not None:
            _put(found, "refresh-token", tokens.refresh.get_secret_value())
        elif more is not None:
            _drop(found, "refresh-token")
        self._replace(yaml.serialize(document, Dumper=yaml.SafeDumper, width=2**31, allow_unicode=True))

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Keep other processes of this package from renewing and writing meanwhile; the command takes no lock."""
        descriptor = self._lock_file()
        began, said = time.monotonic(), False
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waited = time.monotonic() - began
                    if waited > self._longest_wait:
                        raise self._held(descriptor) from None
                    if waited > self._longest_wait / 20 and not said:
                        said = True
                        _log.warning("%s", self._held(descriptor))
                await asyncio.sleep(0.1)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _held(self, descriptor: int) -> UnreachableError:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace") or "of an unknown number"
        detail = f"process {holder} of this machine renews the login in {self.path}"
        return UnreachableError(
            f"The login cannot be renewed, since {detail}. If it is stopped (Ctrl-Z) or hangs, continue it or end it.",
            platform="IVCAP",
            method="POST",
            path="",
            status=None,
            detail=detail,
            sent=False,
        )

    def _lock_file(self) -> int:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self.path.with_name("config.yaml.ivcap-flows.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from error

    def _document(self) -> yaml.MappingNode | None:
        """Return the file as a tree; None if there is no file."""
        try:
            # Compose instead of load, so that quotes, tags and timestamps are written back unchanged.
            document = yaml.compose(self.path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise self._unusable(error) from error
        except yaml.YAMLError:
            # Leave out YAML's message: it shows the line, which may contain a token.
            raise ConfigurationError(f"{self.path} is no YAML. Mend it, or log in anew after moving it away.") from None
        if not isinstance(document, yaml.MappingNode) or _text(document, "version") != _VERSION:
            raise ConfigurationError(f"{self.path} is not of version {_VERSION}, the only one known. {_LOGIN}")
        return document

    def _replace(self, text: str) -> None:
        try:
            # If the file is a symbolic link, replace its target and keep the link.
            write_private(self.path.resolve(), text)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> ConfigurationError:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return ConfigurationError(f"{self.path}, the file of the `ivcap` command, cannot be used: {reason}.")


class ContextLogin:
    """A context as the store of a shared login, so that the command's login stays valid."""

    platform = "IVCAP"
    next_step = _LOGIN

    def __init__(self, file: ContextFile, name: str) -> None:
        self._file = file
        self._name = name

    def __str__(self) -> str:
        return f"The context {self._name!r} in {self._file.path}"

    def locked(self) -> AbstractAsyncContextManager[None]:
        return self._file.locked()

    async def read(self) -> Context:
        return await alone(self._file.read, self._name)

    async def renew(self, login: Login) -> Tokens:
        if login.refresh is None:
            raise login_ended(self, "it has no refresh token")
        host = login.host if isinstance(login, Context) else None
        provider = await provider_at(login.url, host)
        return await renewed(provider.token_url, provider.client_id, refresh_token=login.refresh)

    async def write(self, tokens: Tokens) -> None:
        await alone(self._file.write, self._name, tokens)


_TEXT: Final = "tag:yaml.org,2002:str"
_TIME: Final = "tag:yaml.org,2002:timestamp"


def _node(value: Any) -> yaml.MappingNode:
    node = yaml.compose(yaml.safe_dump(value, sort_keys=False, default_flow_style=False), Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    return node


def _text(mapping: yaml.MappingNode | None, key: str) -> str | None:
    for name, value in mapping.value if mapping is not None else ():
        if name.value == key and isinstance(value, yaml.ScalarNode) and value.tag != "tag:yaml.org,2002:null":
            return str(value.value) or None
    return None


def _put(mapping: yaml.MappingNode, key: str, value: str, tag: str = _TEXT) -> None:
    node = yaml.ScalarNode(tag, value)
    for index, (name, _) in enumerate(mapping.value):
        if name.value == key:
            mapping.value[index] = (name, node)
            return
    mapping.value.append((yaml.ScalarNode(_TEXT, key), node))


def _drop(mapping: yaml.MappingNode, key: str) -> None:
    mapping.value[:] = [(name, value) for name, value in mapping.value if name.value != key]


def _sequence(document: yaml.MappingNode) -> yaml.SequenceNode:
    for index, (name, value) in enumerate(document.value):
        if name.value == "contexts":
            if not isinstance(value, yaml.SequenceNode):
                value = yaml.SequenceNode("tag:yaml.org,2002:seq", [])
            # `[]` is in flow style, which would write a context on one line.
            value.flow_style = False
            document.value[index] = (name, value)
            return value
    made = yaml.SequenceNode("tag:yaml.org,2002:seq", [], flow_style=False)
    document.value.append((yaml.ScalarNode(_TEXT, "contexts"), made))
    return made


def _contexts(document: yaml.MappingNode | None) -> dict[str, yaml.MappingNode]:
    if document is None:
        return {}
    found = [node for node in _sequence(document).value if isinstance(node, yaml.MappingNode)]
    return {name: node for node in found if (name := _text(node, "name"))}


def _hidden(token: str | None) -> SecretStr | None:
    if token is None:
        return None
    hide(token)
    return SecretStr(token)


def _moment(text: str | None) -> float | None:
    """Return an expiry as Go writes it, with up to nine digits of a second; None for Go's zero time, in the year 1."""
    if text is None:
        return None
    loaded = yaml.safe_load(text)
    if not isinstance(loaded, datetime) or loaded.year < 1970:
        return None
    return (loaded if loaded.tzinfo else loaded.replace(tzinfo=timezone.utc)).timestamp()
