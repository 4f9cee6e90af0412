"""Tables and arrays in memory. A version is an object as a call made it or was given it; its content is a digest."""

from __future__ import annotations

import os
import uuid
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from ivcap_flows.capture.contents import Shape, UnhashedError, family, is_immutable, read
from ivcap_flows.capture.objects import Objects
from ivcap_flows.identity import flows_urn
from ivcap_flows.provenance.records import Record, entity
from ivcap_flows.secrets import logger_of

__all__ = ["DataVersion", "given", "is_data", "left", "place_of", "returned"]

log = logger_of("ivcap_flows.capture")

_MOST_PARTS: Final = 200


@dataclass(eq=False)
class DataVersion:
    """A table or an array as it was from one change to the next.

    `maker` is the call that made it, if that is known, and `origin` the record of the version before it of the object.
    `sha256` is the digest of its content, or None for the `reason`; if it does not `identify` the content, another
    value may have it by chance. `source` is the file from which a lazy value was opened.
    """

    id: str
    kind: str
    facts: Shape
    sha256: str | None = None
    identifies: bool = False
    reason: str | None = None
    source: str | None = None
    maker: str | None = None
    origin: Record | None = None
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
        """Return the entity for the version."""
        if self.sha256 is None:
            return entity(self.id, "unhashed", reason=self.reason, **self.facts)
        by_chance = None if self.identifies else True
        return entity(self.id, self.kind, content_sha256=self.sha256, by_chance=by_chance, **self.facts)

    def _is_still(self, seen: DataVersion) -> bool:
        """Whether the object is as it was. A lazy one that was computed is: only now its content is known."""
        if self.sha256 is None:
            self.sha256, self.identifies, self.reason = seen.sha256, seen.identifies, seen.reason
            self.kind, self.facts = seen.kind, seen.facts
        return seen.sha256 is None or seen.sha256 == self.sha256


_versions: Final = Objects[DataVersion]()


def is_data(value: Any) -> bool:
    """Whether a value is a table or an array that can be followed."""
    cls: Any = type(value)
    return family(cls) is not None


def given(value: Any, maker: str | None) -> DataVersion:
    """Return the version of a value that a call is given. If it is new, or was changed, `maker` made that version."""
    return _next(value, maker)


def left(version: DataVersion, maker: str) -> DataVersion:
    """Return the version of a value that a call was given, as the call left it.

    It is the same one unless its content has changed. What had no digest is not read, and counts as unchanged.
    """
    value = version.value
    return version if value is None or version.sha256 is None else _next(value, maker)


def returned(value: Any, maker: str, *, given: DataVersion | None, of_flow: bool) -> DataVersion:
    """Return the version of a value that the call `maker` returns, as which it was `given` it, or None.

    A known value keeps its version, except one without a digest that a call was given: the call may have changed it,
    unless it is a flow, whose tasks do the work.
    """
    known = _versions.get(value)
    if known is None:
        return _next(value, maker)
    if given is None or given.sha256 is not None or of_flow or is_immutable(value):
        return known
    made = _read(value)
    made.maker, made.origin = maker, given.record()
    return _versions.update(value, lambda _: made)


def _next(value: Any, maker: str | None) -> DataVersion:
    seen = _read(value)

    def decide(known: DataVersion | None) -> DataVersion:
        if known is not None and known._is_still(seen):
            return known
        seen.maker, seen.origin = maker, None if known is None else known.record()
        return seen

    return _versions.update(value, decide)


def _read(value: Any) -> DataVersion:
    """Read a table or an array, as a version of its own. Lazy values are not computed. If reading fails, say why."""
    seen = DataVersion(flows_urn("array", uuid.uuid4()), "array", {}, _value=_weakly(value))
    try:
        seen.kind, seen.facts, content = read(value)
        seen.id = flows_urn(seen.kind, uuid.uuid4())
        seen.sha256, seen.identifies = content()
    except UnhashedError as why:
        seen.reason = str(why)
        with suppress(Exception):
            seen.source = _opened_from(value)
    except Exception as error:
        log.debug("A %s could not be read.", type(value).__qualname__, exc_info=True)
        seen.reason = f"it could not be read ({type(error).__name__})"
    return seen


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
