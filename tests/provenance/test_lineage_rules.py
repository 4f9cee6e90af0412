"""The table of lineage: what follows from what is known of a step, and that no row of it is idle."""

from typing import Any

import pytest

from ivcap_flows.provenance.lineage_rules import FOLLOWS, Follow, Step, follows

CASES: dict[str, tuple[str, Follow]] = {
    # Up: direction, relation, here, there, and what else is known
    "what a file came from": ("up wasDerivedFrom other other", "in full"),
    "who made a file": ("up wasGeneratedBy other other", "in full"),
    "who registered an artifact as a dataset": ("up wasGeneratedBy group other naming", "in part"),
    "what started the task that registered it": ("up wasStartedBy other other part", "no"),
    "what started a function that made a file": ("up wasStartedBy other other", "in full"),
    "the run of a task": ("up wasStartedBy other frame", "in part"),
    "the run of that task's run": ("up wasStartedBy frame frame part", "in part"),
    "the parameters of that run": ("up used frame fact part", "in full"),
    "the other inputs of that run": ("up used frame other part", "no"),
    "the inputs of a run that is asked for": ("up used frame other", "in full"),
    "whose values that run was given": ("up wasInformedBy frame other part", "no"),
    "whose values a run that is asked for was given": ("up wasInformedBy frame other", "in full"),
    "the members of a collection that is asked for": ("up hadMember group other start", "in full"),
    "the members of one that is met in part": ("up hadMember group other part start", "in full"),
    "the members of one on the way": ("up hadMember group other", "no"),
    "who made a collection that is met in part": ("up wasGeneratedBy group other part", "no"),
    "who made a collection": ("up wasGeneratedBy group other", "in full"),
    # Down
    "what was made from a file": ("down wasDerivedFrom other other", "in full"),
    "a function within a task": ("down wasStartedBy other other", "in full"),
    "a function within a task that registers": ("down wasStartedBy other other naming", "no"),
    "who used a collection that is met in part": ("down used group other part", "no"),
    "who used a collection": ("down used group other", "in full"),
    "the tasks of a run that is met in part": ("down wasStartedBy frame other part", "no"),
    "the tasks of a run that is asked for": ("down wasStartedBy frame other", "in full"),
    "the run that was given a file": ("down used other frame", "in part"),
    "the run that was given parameters": ("down used fact frame", "in full"),
    "a collection that a file was put into": ("down hadMember other group", "in part"),
    "a folder that a file is in": ("down hadMember other other", "in full"),
}


def step(told: str) -> Step:
    direction, relation, here, there, *known = told.split()
    facts: Any = (direction, relation, here, there)
    return Step(*facts, whole="part" not in known, start="start" in known, naming="naming" in known)


@pytest.mark.parametrize("name", CASES)
def test_what_lineage_follows(name):
    told, expected = CASES[name]
    assert follows(step(told)) == expected


@pytest.mark.parametrize("number", range(len(FOLLOWS)))
def test_without_any_row_another_thing_would_follow(number):
    """No row is idle: each decides a case that the others would decide otherwise, or not at all."""
    others = [*FOLLOWS[:number], *FOLLOWS[number + 1 :]]
    decided = {name: [row.follow for row in others if row.holds(step(told))] for name, (told, _) in CASES.items()}
    assert any(follow[:1] != [expected] for follow, (_, expected) in zip(decided.values(), CASES.values(), strict=True))
