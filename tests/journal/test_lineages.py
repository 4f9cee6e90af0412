"""One database query finds the same lineage as the graph of all facts."""

from __future__ import annotations

import random

import pytest

from ivcap_flows.identity import file_urn, flows_urn
from ivcap_flows.journal import Fact, RunIdentity
from ivcap_flows.provenance import Graph, activity, agent, entity, relation


def history(journal, draw, runs=6):
    """Runs that use and make few things in all possible ways, so that their lineages often meet."""
    contents = [f"{n:064x}" for n in range(4)]
    artifacts = [f"urn:ivcap:artifact:{n}" for n in range(4)]
    handles = ["102.100.100/1", "102.100.100/2"]
    groups = ["urn:ivcap:collection:1", "urn:x:2"]
    said = []
    for number in range(runs):
        opened = journal.runs.open_attempt(RunIdentity("f", "/f.py:f", {"n": number}, f"r{number}", f"r{number}"))
        run, attempt = flows_urn("run", opened.run.id), flows_urn("attempt", opened.attempt.id)
        code, user = flows_urn("code", draw.choice("ab")), flows_urn("user", "me")
        parameters = flows_urn("parameters", draw.choice("pq"))
        records = [
            activity(run, "flow-run", opened.run.created_at),
            activity(attempt, "attempt", opened.attempt.started_at),
            relation("wasStartedBy", attempt, run),
            entity(code, "code", commit=code[-1] * 40),
            relation("hadPlan", attempt, code),
            agent(user, "user"),
            relation("wasAssociatedWith", attempt, user),
            agent(flows_urn("software", "s"), "software"),
            relation("wasAssociatedWith", attempt, flows_urn("software", "s")),
            relation("actedOnBehalfOf", flows_urn("software", "s"), user),
            entity(parameters, "parameters"),
            relation("used", attempt, parameters),
        ]
        steps = [flows_urn("task-run", f"{number}.{n}") for n in range(draw.randint(1, 3))]
        orders = [f"urn:ivcap:order:{draw.randint(0, 3)}"]
        for sha256 in contents:
            records.append(entity(file_urn(sha256), "file", sha256=sha256))
        for n, urn in enumerate(artifacts):
            records.append(entity(urn, "artifact", sha256=contents[n] if draw.random() < 0.5 or n == 0 else None))
        for handle in handles:
            records.append(entity(handle, "dataset"))
        things = [*(file_urn(sha256) for sha256 in contents), *artifacts, *handles, *groups]
        for step in steps:
            records += [activity(step, "task-run", name=step), relation("wasStartedBy", step, attempt)]
        for order in orders:
            records += [activity(order, "order"), relation("wasStartedBy", order, draw.choice(steps))]
        records += [entity(group, "collection") for group in groups]
        for group in draw.sample([*groups, *handles], 2):
            for member in draw.sample(things, 2):
                if member != group and draw.random() < 0.5:
                    records.append(relation("hadMember", group, member, opened.run.created_at))
        about, aspect = draw.choice([*things, *orders, attempt]), f"urn:ivcap:aspect:{number}"
        records += [entity(aspect, "aspect"), relation("wasInfluencedBy", aspect, about)]
        if draw.random() < 0.5:
            records.append(relation("wasGeneratedBy", aspect, draw.choice(steps)))
        inner = flows_urn("call", str(number))
        records += [activity(inner, "call"), relation("wasStartedBy", inner, draw.choice(steps))]
        for act in [*steps, inner, *orders, attempt]:
            for thing in draw.sample(things, draw.randint(0, 2)):
                at = opened.attempt.started_at if thing in groups else None
                records.append(relation("used", act, thing, at))
            # What a flow returns was made by one of its tasks.
            for thing in draw.sample(things if act != attempt else things[: len(contents)], draw.randint(0, 1)):
                records.append(relation("wasGeneratedBy", thing, act, opened.run.created_at))
        if draw.random() < 0.4:
            records.append(relation("alternateOf", draw.choice(handles), draw.choice(artifacts)))
        if draw.random() < 0.3:
            records.append(relation("wasInformedBy", steps[-1], orders[0]))
        journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
        journal.runs.close_attempt(opened.attempt.id, "completed")
        said += records
    return said


@pytest.mark.parametrize("journal_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=True)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_query_finds_the_lineage_that_the_whole_graph_has(journal, seed):
    """For every thing and direction, the query and the graph find the same things and relations."""
    draw = random.Random(seed)
    whole = Graph(history(journal, draw))
    for id_ in whole.nodes:
        for direction in ("up", "down", "both"):
            expected = whole.lineage(id_, direction)
            found = Graph(journal.lineages.around([id_], direction)).lineage(id_, direction)
            assert set(found.nodes) == set(expected.nodes), (id_, direction)
            assert set(found.relations) == set(expected.relations), (id_, direction)


def test_what_everybody_states_is_not_read_a_thousand_times(journal, begin):
    """Of a user that each run names, and of those for whom software acts, the first and the last facts are read."""
    opened = begin()
    software, attempt = flows_urn("software", "s"), flows_urn("attempt", opened.attempt.id)
    one, other = (agent(flows_urn("user", name), "user") for name in ("one", "other"))
    said = [one] * 500 + [one.model_copy(update={"attributes": {"name": "last"}})]
    said += [agent(software, "software"), other, relation("wasAssociatedWith", attempt, software)]
    said += [relation("actedOnBehalfOf", software, one.id)] * 500 + [relation("actedOnBehalfOf", software, other.id)]
    journal.facts.append([Fact(record, opened.run.id) for record in said])
    read = list(journal.lineages.around([one.id], "up"))
    assert len(read) < 50 and read[-1].attributes == {"name": "last"}
    for start in (attempt, software):
        read = list(journal.lineages.around([start], "up"))
        found = {record.target for record in read if record.type == "actedOnBehalfOf"}
        assert len(read) < 100 and found == {one.id, other.id}


def test_versions_name_contents_and_commits(journal, begin):
    """A sha256 finds what has it, and the beginning of a commit finds the code. Neither finds the other."""
    opened, code = begin(), "urn:ivcap-flows:code:c"
    attempt, run = flows_urn("attempt", opened.attempt.id), flows_urn("run", opened.run.id)
    records = [
        entity("urn:ivcap:artifact:a", "artifact", sha256="a" * 64),
        entity(code, "code", commit="a" * 40),
        relation("hadPlan", attempt, code),
        relation("wasStartedBy", attempt, run),
    ]
    journal.facts.append([Fact(record, opened.run.id) for record in records])
    assert journal.lineages.with_version("a" * 64) == ["urn:ivcap:artifact:a"]
    assert journal.lineages.with_version("aaaaaaa", code=True) == [code]
    assert journal.lineages.followed([code]) == [run]
