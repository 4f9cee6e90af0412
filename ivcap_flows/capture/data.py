"""Tables and arrays in memory as a call found and left them: known by what they hold, else by which one they are."""

from __future__ import annotations

import os
import threading
import uuid
import weakref
from dataclasses import dataclass, field
from typing import Any, Final

from ivcap_flows.capture.contents import Facts, UnhashedError, family, read
from ivcap_flows.identity import digest, flows_urn
from ivcap_flows.provenance.records import Record, entity
from ivcap_flows.secrets import logger_of

__all__ = ["Held", "is_data", "look", "place_of"]

log = logger_of("ivcap_flows.capture")

_MOST_PARTS: Final = 200
_IDENTIFYING: Final = 4
"""Arrays of fewer values are known by the object."""
_FIRST: Final = 1_000


@dataclass(eq=False)
class Held:
    """A value at one moment. `id` names its content, or the object itself where the content was not read, and both
    where another value may have the content by chance. `source` is the file that a lazy value was opened from.
    """

    role: str
    id: str
    kind: str
    facts: Facts
    sha256: str | None = None
    reason: str | None = None
    source: str | None = None
    _value: Any = field(default=None, repr=False)

    @property
    def value(self) -> Any:
        """The value itself, None once the flow has let go of it."""
        return None if self._value is None else self._value()

    @property
    def content(self) -> str | None:
        """The name of the content, the same for every value that holds it; None where it was not read."""
        return flows_urn(self.kind, f"sha256:{self.sha256}") if self.sha256 is not None else None

    @property
    def shown(self) -> dict[str, str]:
        """What stands for the value among the parameters."""
        if self.content is not None:
            return {"content": self.content}
        return {"unhashed": self.reason or "not read"}

    def record(self) -> Record:
        """The entity that the value is."""
        facts = {"content_sha256": self.sha256} if self.sha256 is not None else {"reason": self.reason}
        return entity(self.id, self.kind if self.sha256 is not None else "unhashed", **facts, **self.facts)


def is_data(value: Any) -> bool:
    """Whether a value is a table or an array that `look` can look at."""
    cls: Any = type(value)
    return family(cls) is not None


def look(role: str, value: Any) -> Held:
    """What a table or an array holds now; nothing lazy is computed. One that breaks when it is read is not read."""
    kind, facts, sha256, reason, source, trivial = "array", dict[str, Any](), None, None, None, False
    try:
        kind, facts, content = read(value)
        source = _opened_from(value)
        sha256 = content()
        trivial = _is_trivial(value)
    except UnhashedError as why:
        reason = str(why)
    except Exception as error:
        log.debug("A %s could not be read.", type(value).__qualname__, exc_info=True)
        reason = f"it could not be read ({type(error).__name__})"
    if sha256 is None:
        return Held(role, _names.of(value), kind, facts, None, reason, source, _weakly(value))
    name = f"sha256:{sha256}" if not trivial else digest(f"{_names.of(value)} {sha256}".encode())
    return Held(role, flows_urn(kind, name), kind, facts, sha256, None, None, _weakly(value))


def _is_trivial(value: Any) -> bool:
    """Whether others may hold the same by chance: an array of numpy's with less than four values, or all of one value.
    What has labels, a table or an array of xarray's, is told by these as well."""
    if type(value).__module__.partition(".")[0] != "numpy" or value.dtype.hasobject:
        return False
    if value.size < _IDENTIFYING:
        return True
    flat = value.reshape(-1)
    return all(bool((flat[:most] == flat[0]).all()) for most in (_FIRST, value.size))


def place_of(value: Any) -> str | None:
    """The path of the file or store that a value is a view of: a memory map of numpy's, a Zarr group or array."""
    root = type(value).__module__.partition(".")[0]
    if root == "numpy":
        place = getattr(value, "filename", None)
    elif root == "zarr":
        store = getattr(value, "store", None)
        local = type(store).__name__ in ("LocalStore", "DirectoryStore", "NestedDirectoryStore", "ZipStore")
        place = (getattr(store, "root", None) or getattr(store, "path", None)) if local else None
    else:
        return None
    return os.fspath(place) if isinstance(place, str | os.PathLike) and os.fspath(place) else None


def _opened_from(value: Any) -> str | None:
    """What xarray notes of the file or store that it has opened, on the data set or on its variables."""
    if not type(value).__module__.startswith("xarray"):
        return None
    inner = getattr(value, "variables", None)
    parts = [value, *(inner.values() if inner is not None else [])]
    sources = (part.encoding.get("source") for part in parts[:_MOST_PARTS])
    return next((source for source in sources if isinstance(source, str) and "://" not in source), None)


def _weakly(value: Any) -> Any:
    try:
        return weakref.ref(value)
    except TypeError:
        return None


class _Names:
    """A name for each living object of which only that is known. Forgotten with the object."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._known: dict[int, tuple[Any, str]] = {}

    def of(self, value: Any) -> str:
        key = id(value)
        with self._lock:
            known = self._known.get(key)
            if known is not None and known[0]() is value:
                return known[1]
            name = flows_urn("unhashed", uuid.uuid4())
            reference = _weakly(value)
            if reference is not None:
                self._known[key] = reference, name
                weakref.finalize(value, self._forget, key, name).atexit = False
            return name

    def _forget(self, key: int, name: str) -> None:
        with self._lock:
            if key in self._known and self._known[key][1] == name:
                del self._known[key]


_names: Final = _Names()


def _forget_locks() -> None:
    """In a forked child: whoever held the lock is the parent's."""
    _names._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
