"""The tables of what a call did with a thing: what follows from what is known of it, and that no row is idle."""

from typing import Any

import pytest

from ivcap_flows.capture import edge_rules
from ivcap_flows.capture.edge_rules import READ_OR_NOT, WHO_WROTE, WHO_WROTE_WHAT, EdgeFacts, Edges, edges_of

NOTHING = Edges()
MADE = Edges(made=True)
USED = Edges(used="seen")
GIVEN = Edges(used="given")
DECLARED = Edges(used="declared")
IN_PLACE = Edges(used="seen", made=True, derived=True)

TABLE: dict[str, tuple[dict[str, Any], Edges]] = {
    # Left as it was
    "read": ({"change": "same", "read": True}, USED),
    "given, and a library may have read it": ({"change": "same", "given": True}, GIVEN),
    "only in a folder that was given": ({"change": "same"}, NOTHING),
    "opened to write, and left": ({"change": "same", "writer": "me", "kept": True, "given": True}, NOTHING),
    "declared as read": ({"change": "same", "declared": "read"}, DECLARED),
    "declared as written, and left": ({"change": "same", "declared": "written", "given": True}, NOTHING),
    "declared as changed, and left": ({"change": "same", "declared": "changed"}, DECLARED),
    # New
    "new, and written": ({"change": "new", "writer": "me"}, MADE),
    "new, not alone, and written": ({"change": "new", "writer": "me", "alone": False}, MADE),
    "new, alone": ({"change": "new"}, MADE),
    "new, not alone": ({"change": "new", "alone": False}, Edges(unknown=WHO_WROTE)),
    "new, not alone, in the result": ({"change": "new", "alone": False, "named": True}, MADE),
    "new, not alone, declared as written": ({"change": "new", "alone": False, "declared": "written"}, MADE),
    "new, by another": ({"change": "new", "writer": "another"}, NOTHING),
    "new, by another, in the result": ({"change": "new", "writer": "another", "named": True}, NOTHING),
    "new, by several": ({"change": "new", "writer": "several"}, Edges(unknown=WHO_WROTE_WHAT)),
    "in the result, and older than the call": ({"change": "found", "named": True}, NOTHING),
    "in the result, older than the call, and read": ({"change": "found", "named": True, "read": True}, USED),
    # Changed
    "overwritten": ({"change": "changed", "writer": "me"}, MADE),
    "read and overwritten": ({"change": "changed", "writer": "me", "read": True}, IN_PLACE),
    "appended to": ({"change": "changed", "writer": "me", "kept": True}, IN_PLACE),
    "overwritten, declared as written": ({"change": "changed", "writer": "me", "declared": "written"}, MADE),
    "appended to, declared as written": (
        {"change": "changed", "writer": "me", "kept": True, "declared": "written"},
        MADE,
    ),
    "changed unseen": ({"change": "changed"}, Edges(made=True, unknown=READ_OR_NOT)),
    "changed unseen, declared as changed": (
        {"change": "changed", "declared": "changed"},
        Edges("declared", True, True),
    ),
    "changed unseen, declared as read": ({"change": "changed", "declared": "read"}, DECLARED),
    "changed unseen, declared as written": ({"change": "changed", "declared": "written"}, MADE),
    "overwritten, declared as changed": (
        {"change": "changed", "writer": "me", "declared": "changed"},
        Edges("declared", True, True),
    ),
    "read, and changed unseen": ({"change": "changed", "read": True}, IN_PLACE),
    "changed, not alone": ({"change": "changed", "alone": False}, Edges(unknown=WHO_WROTE)),
    "changed by another": ({"change": "changed", "writer": "another"}, NOTHING),
    "given, and changed by another": (
        {"change": "changed", "writer": "another", "given": True},
        Edges(unknown=READ_OR_NOT),
    ),
    "read, and changed by another": ({"change": "changed", "writer": "another", "read": True}, USED),
    "appended to by several": ({"change": "changed", "writer": "several", "kept": True}, Edges(unknown=WHO_WROTE_WHAT)),
    # Gone
    "removed": ({"change": "gone", "writer": "me", "given": True}, NOTHING),
    "read and removed": ({"change": "gone", "writer": "me", "read": True}, USED),
    "removed unseen": ({"change": "gone"}, Edges(unknown=READ_OR_NOT)),
    "removed by another": ({"change": "gone", "writer": "another"}, NOTHING),
    "given, and removed by another": (
        {"change": "gone", "writer": "another", "given": True},
        Edges(unknown=READ_OR_NOT),
    ),
}


@pytest.mark.parametrize(("facts", "edges"), TABLE.values(), ids=TABLE.keys())
def test_what_follows_from_what_is_known(facts, edges):
    """Each row of the table."""
    assert edges_of(EdgeFacts(**facts)) == edges


@pytest.mark.parametrize(
    ("name", "number"),
    [(name, number) for name in ("MADE", "USED", "DERIVED") for number in range(len(getattr(edge_rules, name)))],
)
def test_without_any_row_another_edge_would_follow(name, number, monkeypatch):
    """No row is idle: each decides a case that the others would decide otherwise, or not at all."""
    rows = getattr(edge_rules, name)
    monkeypatch.setattr(edge_rules, name, (*rows[:number], *rows[number + 1 :]))

    def decided(facts: dict[str, Any]) -> Edges | None:
        try:
            return edges_of.__wrapped__(EdgeFacts(**facts))
        except StopIteration:
            return None

    assert any(decided(facts) != edges for facts, edges in TABLE.values())


def test_the_table_has_each_pair_of_change_and_writer_that_can_be():
    """What is as it was, or was there before, nobody else has written."""
    pairs = {(facts["change"], facts.get("writer", "unseen")) for facts, _ in TABLE.values()}
    assert pairs >= {
        (change, writer) for change in ("new", "changed") for writer in ("me", "several", "another", "unseen")
    }
    assert pairs >= {("same", "unseen"), ("same", "me"), ("found", "unseen"), ("gone", "me"), ("gone", "another")}
