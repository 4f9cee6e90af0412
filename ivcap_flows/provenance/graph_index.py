"""An index of relations: by each of their ends, and by their type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ivcap_flows.provenance.records import Record

__all__ = ["RelationIndex"]

ByType = Mapping[str, Sequence[Record]]


class RelationIndex:
    """Relations in the order in which they were recorded: of one type, and by type at each source and each target."""

    def __init__(self, relations: Iterable[Record]) -> None:
        self._of_type: dict[str, list[Record]] = {}
        self._from: dict[str, dict[str, list[Record]]] = {}
        self._to: dict[str, dict[str, list[Record]]] = {}
        # Plain dictionaries: a graph of years has very many ends, and a factory is called for each of them.
        for link in relations:
            type_ = link.type
            self._of_type.setdefault(type_, []).append(link)
            for by_end, end in ((self._from, link.source or ""), (self._to, link.target or "")):
                by_type = by_end.get(end)
                if by_type is None:
                    by_end[end] = {type_: [link]}
                elif type_ in by_type:
                    by_type[type_].append(link)
                else:
                    by_type[type_] = [link]

    def of_type(self, type: str) -> Sequence[Record]:  # noqa: A002 - the field's name
        return self._of_type.get(type, ())

    def from_(self, id: str) -> ByType:  # noqa: A002
        """Return the relations with this source, by type."""
        return self._from.get(id, {})

    def to(self, id: str) -> ByType:  # noqa: A002
        """Return the relations with this target, by type."""
        return self._to.get(id, {})

    def at(self, id: str) -> Iterator[Record]:  # noqa: A002
        """Yield all relations with this source, then those with this target."""
        for by_type in (self.from_(id), self.to(id)):
            for links in by_type.values():
                yield from links
