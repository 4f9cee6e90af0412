"""Turn aspects into rows: the columns of a `:load_aspect`, applied to one aspect.

    "entity"              the URN that the aspect is about
    ".a.b"                a member of the content
    ".a[*]"  ".a[2]"      each element of an array, or one
    ".a[*].x|y"           two columns: members of the same element

An aspect gives one row for each combination of its columns' values, and none if a column has no value: if a member is
absent or null, or an element lacks one of the members. As in `content-path`, a member is looked up in the elements of
an array, and a value that is not an array counts as its only element.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from ivcap_flows.local.ivcap.search.program import Name, ProgramError, Tree, Value

__all__ = ["Columns", "from_json", "to_json"]

_KEY: Final = r'(?:[\w$@-]+|"[^"\\]*")'
_STEP: Final = re.compile(rf"\.(?P<keys>{_KEY}(?:\|{_KEY})*)|\[(?P<index>\*|\d{{1,9}})\]")
_LONGEST: Final = 1000

Cells = Callable[[str, Any], Iterator[tuple[Value, ...]]]


def from_json(value: Any) -> Value | None:
    """Return the Mangle value of JSON: true and false become the names `/true` and `/false`, null becomes None."""
    if isinstance(value, bool):
        return Name("/true" if value else "/false")
    if isinstance(value, dict | list):
        return Tree(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
    return value  # type: ignore[no-any-return]


def to_json(value: Value) -> Any:
    if isinstance(value, Tree):
        return json.loads(value.text)
    if isinstance(value, Name):
        return {"/true": True, "/false": False}.get(value.text, value.text)
    return value


class Columns:
    """The columns of one predicate; `width` is the number of its terms. Raises ProgramError."""

    def __init__(self, names: Sequence[str]) -> None:
        compiled = [_column(name) for name in names]
        self.width = sum(width for width, _ in compiled)
        self._cells = [cells for _, cells in compiled]

    def rows(self, entity: str, content: Any) -> Iterator[tuple[Value, ...]]:
        """Yield the rows of an aspect."""
        found = [list(cells(entity, content)) for cells in self._cells]
        for parts in itertools.product(*found):
            yield tuple(itertools.chain.from_iterable(parts))


def _column(name: str) -> tuple[int, Cells]:
    if name == "entity":
        return 1, lambda entity, content: iter([(entity,)])
    steps: list[tuple[list[str], str]] = []
    at = 0
    while at < len(name) and len(name) <= _LONGEST:
        found = _STEP.match(name, at)
        if found is None or (steps and len(steps[-1][0]) > 1):
            break
        keys = [key.strip('"') for key in re.findall(_KEY, found["keys"] or "")]
        steps.append((keys, found["index"] or ""))
        at = found.end()
    if not steps or at < len(name) or not name.startswith("."):
        raise ProgramError(
            f'The column {name[:60]!r} is neither "entity" nor a path of the content such as ".a.b", ".a[*]" or'
            ' ".a[*].x|y".'
        )
    *way, (last, index) = steps

    def cells(entity: str, content: Any) -> Iterator[tuple[Value, ...]]:
        values = [content]
        for keys, element in way:
            values = [inner for value in values for inner in _step(value, keys[:1], element)]
        for value in values:
            if len(last) > 1:
                rows = [[one.get(key) for key in last] for one in _elements(value) if isinstance(one, dict)]
            else:
                rows = [[inner] for inner in _step(value, last, index)]
            for row in rows:
                made = [from_json(inner) for inner in row]
                if None not in made:
                    yield tuple(made)  # type: ignore[arg-type]

    return max(1, len(last)), cells


def _elements(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _step(value: Any, keys: list[str], index: str) -> list[Any]:
    if keys:
        return [one[keys[0]] for one in _elements(value) if isinstance(one, dict) and keys[0] in one]
    elements = _elements(value)
    return elements if index == "*" else elements[int(index) : int(index) + 1]
