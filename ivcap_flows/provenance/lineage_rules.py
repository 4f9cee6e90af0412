"""Whether lineage follows a relation from one of its ends to the other: one table, without side effects.

`docs/reference/provenance.md` shows it, and `tests/provenance/test_lineage_rules.py` holds each of its rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, NamedTuple

from ivcap_flows.provenance.decision_table import holds

__all__ = ["FOLLOWS", "Direction", "Follow", "Row", "Step", "Way", "end_of", "follows"]

Way = Literal["up", "down"]
Direction = Literal["up", "down", "both"]
End = Literal["frame", "fact", "group", "other"]
Follow = Literal["no", "in part", "in full"]

_ENDS: Final[dict[str, End]] = {
    **dict.fromkeys(("flow-run", "attempt"), "frame"),
    **dict.fromkeys(("parameters", "code"), "fact"),
    **dict.fromkeys(("collection", "dataset"), "group"),
}
_NO_FRAME: Final = frozenset[End]({"fact", "group", "other"})


def end_of(type: str) -> End:  # noqa: A002 - the field's name
    """Return what a thing of this type is to lineage.

    A run or an attempt is a frame of what its tasks did, and its parameters and code are facts of it. The members of a
    group come and go; a folder with other files is another version of it.
    """
    return _ENDS.get(type, "other")


class Step(NamedTuple):
    """What is known of a relation, from the end where lineage is (`here`) to the other one (`there`).

    `whole`: what is here is followed in full. `start`: lineage begins here. `naming`: upwards, what is here is another
    name of what was there before, as the dataset of an artifact; downwards, what is there gave such a name.
    """

    direction: Way
    relation: str
    here: End
    there: End
    whole: bool
    start: bool
    naming: bool


class Row(NamedTuple):
    """A row of the table: what it holds for, and what follows. What is None is not asked."""

    follow: Follow
    direction: Way
    relation: str | None = None
    here: frozenset[End] | None = None
    there: frozenset[End] | None = None
    whole: bool | None = None
    start: bool | None = None
    naming: bool | None = None

    def holds(self, step: Step) -> bool:
        """Whether the row is about a step."""
        return holds(self[1:], step)


_FRAME: Final = frozenset[End]({"frame"})
_GROUP: Final = frozenset[End]({"group"})

FOLLOWS: Final = (
    # What a part of another part used is not what the other part used.
    Row("no", "up", "wasStartedBy", _NO_FRAME, _NO_FRAME, whole=False),
    # What was in a group when it was used is followed through the use.
    Row("no", "up", "hadMember", _GROUP, start=False),
    Row("in full", "up", "hadMember", _GROUP),
    Row("no", "up", None, _GROUP, whole=False),
    # A run is reached by what it did to one thing, not to all of its inputs.
    Row("in full", "up", "used", _FRAME, frozenset({"fact"}), whole=False),
    Row("no", "up", "used", _FRAME, whole=False),
    Row("no", "up", "wasInformedBy", _FRAME, whole=False),
    Row("in part", "up", "wasStartedBy", None, _FRAME),
    # Who gave a name to a thing did not make it.
    Row("in part", "up", "wasGeneratedBy", naming=True),
    Row("in full", "up"),
    Row("no", "down", "wasStartedBy", _NO_FRAME, _NO_FRAME, naming=True),
    Row("no", "down", None, _GROUP, whole=False),
    Row("no", "down", "wasStartedBy", _FRAME, whole=False),
    # What a run was given did not become all that it made; its parameters and code did.
    Row("in full", "down", "used", frozenset({"fact"}), _FRAME),
    Row("in part", "down", "used", None, _FRAME),
    Row("in part", "down", "hadMember", None, _GROUP),
    Row("in full", "down"),
)
"""The first row that holds decides."""


@lru_cache(maxsize=8192)
def follows(step: Step) -> Follow:
    """Return whether lineage follows a step, and whether in full: of a part, only what concerns it as a whole is."""
    return next(row.follow for row in FOLLOWS if row.holds(step))
