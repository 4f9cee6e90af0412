"""Tables and arrays in memory, before and after a call. Identified by content digest, else by object identity."""

from __future__ import annotations

import os
import threading
import uuid
import weakref
from dataclasses import dataclass, field
from typing import Any, Final

from ivcap_flows.capture.contents import Facts, UnhashedError, family, read
from ivcap_flows.forked import PerProcess
from ivcap_flows.identity import digest, flows_urn
from ivcap_flows.provenance.records import Record, entity
from ivcap_flows.secrets import logger_of

__all__ = ["DataVersion", "is_data", "place_of", "snapshot"]

log = logger_of("ivcap_flows.capture")

_MOST_PARTS: Final = 200


@dataclass(eq=False)
class DataVersion:
    """A value at one moment.

    `id` names its content. If the content was not read, `id` names the object. If another value may have the same
    content by chance, `id` names both. `source` is the file from which a lazy value was opened.
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
        """The value itself, or None once the flow has released it."""
        return None if self._value is None else self._value()

    @property
    def content(self) -> str | None:
        """The name of the content, which all values with this content share; None if it was not read."""
        return flows_urn(self.kind, f"sha256:{self.sha256}") if self.sha256 is not None else None

    @property
    def shown(self) -> dict[str, str]:
        """The stand-in for the value among the parameters."""
        if self.content is not None:
            return {"content": self.content}
        return {"unhashed": self.reason or "not read"}

    def record(self) -> Record:
        """Return the entity for the value."""
        facts = {"content_sha256": self.sha256} if self.sha256 is not None else {"reason": self.reason}
        return entity(self.id, self.kind if self.sha256 is not None else "unhashed", **facts, **self.facts)


def is_data(value: Any) -> bool:
    """Whether a value is a table or an array that `snapshot` can read."""
    cls: Any = type(value)
    return family(cls) is not None


def snapshot(role: str, value: Any) -> DataVersion:
    """Read a table or an array. Lazy values are not computed. If reading fails, the value is recorded as unhashed."""
    kind, facts, found, reason, source = "array", dict[str, Any](), None, None, None
    try:
        kind, facts, content = read(value)
        source = _opened_from(value)
        found = content()
    except UnhashedError as why:
        reason = str(why)
    except Exception as error:
        log.debug("A %s could not be read.", type(value).__qualname__, exc_info=True)
        reason = f"it could not be read ({type(error).__name__})"
    if found is None:
        return DataVersion(role, _names.of(value), kind, facts, None, reason, source, _weakly(value))
    name = f"sha256:{found.sha256}" if found.identifies else digest(f"{_names.of(value)} {found.sha256}".encode())
    return DataVersion(role, flows_urn(kind, name), kind, facts, found.sha256, None, None, _weakly(value))


def place_of(value: Any) -> str | None:
    """Return the path of the file or store that a value is a view of: a numpy memory map, a Zarr group or array."""
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
    """Return the file or store that xarray has opened, as it notes on the data set or on its variables."""
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
    """Names for living objects that are known only by identity. A name is forgotten with its object."""

    def __init__(self) -> None:
        self._lock = PerProcess(threading.RLock)
        self._known: dict[int, tuple[Any, str]] = {}

    def of(self, value: Any) -> str:
        key = id(value)
        with self._lock():
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
        with self._lock():
            if key in self._known and self._known[key][1] == name:
                del self._known[key]


_names: Final = _Names()
