"""`compare` names what changed between two runs, and as a cause only what leads to a result."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from ivcap_flows.identity import digest, file_urn, flows_urn
from ivcap_flows.provenance import Graph, activity, entity, relation
from ivcap_flows.provenance.difference import Change, Side, compare


def test_the_code_of_each_flow_is_compared() -> None:
    """A change of the root flow's code is told although a subflow's code is the same, and the other way round."""

    def of(run: str, *, commit: str = "1", main: str = "a", part: str = "b", again: str | None = None) -> Side:
        versions = [("main.py", "main", main), ("part.py", "part", part)]
        # After a failure the run went on with a newer version.
        versions += [] if again is None else [("main.py", "main", again)]
        codes = [
            entity(flows_urn("code", f"{run}{n}"), "code", file=file, name=name, source_sha256=source, commit=commit)
            for n, (file, name, source) in enumerate(versions)
        ]
        return Side(run, "completed", {}, Graph(codes))

    assert compare(of("a"), of("b")).code == ()
    assert compare(of("a"), of("b", commit="2")).code == (Change("commit", "1", "2"),)
    assert compare(of("a"), of("b", main="c")).code == (Change("source_sha256", "a", "c"),)
    assert compare(of("a"), of("b", part="c")).code == (Change("part.py:part, source_sha256", "b", "c"),)
    assert compare(of("a", again="c"), of("b", main="c")).code == ()


def steps(run: str, *factors: float) -> Side:
    """A run of a step for each factor, which makes a file that is named by its number."""
    attempt = flows_urn("attempt", run)
    records = [activity(attempt, "attempt")]
    for number, factor in enumerate(factors):
        step, content = flows_urn("task-run", f"{run}-{number}"), digest(f"{number} {factor}".encode())
        records += [
            activity(step, "task-run", name="scale", parameters={"factor": factor, "options": {"base": [1, 2]}}),
            relation("wasStartedBy", step, attempt),
            entity(file_urn(content), "file", sha256=content, path=f"/{run}/{number}.csv"),
            relation("wasGeneratedBy", file_urn(content), step),
        ]
    return Side(run, "completed", {}, Graph(records))


def test_calls_of_one_name_are_compared_by_their_number_and_their_values() -> None:
    """What changed is named whichever call it was. A result differs for the values of its own calls only."""
    found = compare(steps("a", 1.0, 2.0, 3.0), steps("b", 1.0, 5.0, 6.0))
    assert found.work == (
        Change("task-run scale, factor", 2.0, 5.0),
        Change("task-run scale, factor", 3.0, 6.0),
    )
    assert [(result.name, result.why) for result in found.outputs] == [
        ("1.csv", ("task-run scale, factor: 2.0 → 5.0",)),
        ("2.csv", ("task-run scale, factor: 3.0 → 6.0",)),
    ]
    assert compare(steps("a", 2.0, 1.0), steps("b", 1.0, 2.0)).work == ()
    same = compare(steps("a", 1.0), steps("b", 1.0))
    assert same.same_results and not any((same.parameters, same.code, same.packages, same.inputs, same.work))
    found = compare(steps("a", 1.0), steps("b", 1.0, 2.0))
    assert found.work == (Change("task-run scale, number", 1, 2), Change("task-run scale, factor", None, 2.0))
    [added] = found.outputs
    assert (added.name, added.before) == ("1.csv", None) and added.why[0] == "task-run scale, number: 1 → 2"
    assert compare(steps("a"), steps("b", 1.0)).work == (Change("task-run scale, number", None, 1),)
    gone = compare(steps("a", 1.0), replace(steps("b"), outcome="failed"))
    assert [(result.name, result.after) for result in gone.outputs] == [("0.csv", None)] and not gone.same_results
    assert gone.outcome == Change("outcome", "completed", "failed")


def test_lists_of_what_each_run_names_anew_are_no_difference() -> None:
    """Such as the orders that a task waits for. A list that also has another value is compared."""

    def waits(run: str, *more: str) -> Side:
        given = {"orders": [f"urn:ivcap:order:{run}1", f"urn:ivcap:order:{run}2", *more]}
        return Side(run, "completed", {}, Graph([activity(flows_urn("task-run", run), "task-run", parameters=given)]))

    assert compare(waits("a"), waits("b")).work == ()
    [change] = compare(waits("a", "x"), waits("b", "y")).work
    assert change.name.endswith("orders")


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00", "9999-12-31T23:59:59+00:00", "1:2"])
def test_a_text_that_is_no_moment_of_the_run_is_compared(text: str) -> None:
    """Also one that other zones cannot tell, as the first and the last day of all."""
    noon = datetime(2026, 7, 4, 12, tzinfo=timezone.utc)

    def since(run: str, text: str) -> Side:
        step = activity(flows_urn("task-run", run), "task-run", noon, noon, parameters={"since": text})
        return Side(run, "completed", {}, Graph([step]))

    assert compare(since("a", text), since("b", "never")).work == (Change("task-run, since", text, "never"),)
    assert compare(since("a", noon.isoformat()), since("b", noon.isoformat(" "))).work == ()


def test_a_parameter_that_only_another_result_was_given_is_no_reason() -> None:
    """A parameter of the run that nothing was given may be the reason of everything."""
    before, after = steps("a", 1.0, 2.0), steps("b", 1.0, 5.0)
    changed = [
        replace(side, parameters={"factor": factor, "other": factor + 7})
        for side, factor in ((before, 2.0), (after, 5.0))
    ]
    found = compare(*changed)
    assert found.parameters == (Change("factor", 2.0, 5.0), Change("other", 9.0, 12.0))
    [result] = found.outputs
    assert result.why == (
        "parameter factor: 2.0 → 5.0",
        "parameter other: 9.0 → 12.0",
        "task-run scale, factor: 2.0 → 5.0",
    )
    third = Side("c", "completed", {"factor": 5.0}, steps("c", 3.0, 5.0).graph)
    reasons = {each.name: each.why for each in compare(changed[0], third).outputs}
    assert reasons["0.csv"] == ("parameter other: 9.0 → none", "task-run scale, factor: 1.0 → 3.0")


def folder(run: str, made: str, *, beside: str = "") -> Side:
    """A run whose step makes `index.csv` in a folder, or finds it there with other files beside it."""
    attempt, step = flows_urn("attempt", run), flows_urn("task-run", run)
    index = entity(file_urn(made * 64), "file", sha256=made * 64, path="/out/index.csv")
    inner = [index] + [entity(file_urn(c * 64), "file", sha256=c * 64, path=f"/out/{c}.txt") for c in beside]
    name = flows_urn("directory", f"{made}{beside}")
    whole = entity(name, "directory", manifest_sha256=f"{made}{beside}", files=len(inner), path="/out")
    made_here = [relation("wasGeneratedBy", each, step) for each in (name, index.id)]
    ends = [relation("used", step, name)] if beside else made_here
    records = [activity(attempt, "attempt"), activity(step, "task-run", name="index"), *inner, whole, *ends]
    return Side(run, "completed", {}, Graph([*records, *(relation("hadMember", name, each.id) for each in inner)]))


def test_a_result_that_was_there_already_is_the_same() -> None:
    """A result that already existed counts as an input, and a folder counts as its files.

    Equal content is no difference.
    """
    found = compare(folder("a", "1"), folder("b", "1", beside="2"))
    assert found.same_results and found.inputs == (Change("2.txt", None, "2" * 64),)
    found = compare(folder("b", "1", beside="2"), folder("a", "1"))
    assert found.same_results and found.inputs == (Change("2.txt", "2" * 64, None),)
    found = compare(folder("a", "1"), folder("b", "3", beside="2"))
    assert [str(result) for result in found.outputs] == [f"index.csv: {'1' * 12} → none"]


def test_a_nested_parameter_is_named_by_its_way() -> None:
    before, after = (Side(run, "completed", {"deep": {"x": 1, "y": y}}, Graph([])) for run, y in (("a", 2), ("b", 3)))
    assert compare(before, after).parameters == (Change("deep.y", 2, 3),)
