"""`compare` names what changed between two runs, and as a cause only what leads to a result."""

from __future__ import annotations

from typing import Any

from ivcap_flows.identity import digest, file_urn, flows_urn
from ivcap_flows.provenance import Graph, Record, activity, entity, relation
from ivcap_flows.provenance.difference import Change, Side, compare


def side(run: str, *, parameters: dict[str, Any] | None = None, **given: Any) -> Side:
    """A run that makes `index.csv` from `series.csv` by an order, and copies `mask.csv` beside it."""
    facts = {"series": "1", "mask": "2", "index": "3", "copy": "4", "numpy": "1.0", "commit": "c" * 40, "base": 1981}
    facts |= given
    attempt, order = flows_urn("attempt", run), f"urn:ivcap:order:{run}"
    step, copying = flows_urn("task-run", f"{run}-1"), flows_urn("task-run", f"{run}-2")
    code = flows_urn("code", f"{facts['numpy']}{facts['commit']}")

    def file(name: str, content: str) -> Record:
        return entity(file_urn(content * 64), "file", sha256=content * 64, path=f"/data/{run}/{name}.csv")

    series, mask, index, copy = (file(name, facts[name]) for name in ("series", "mask", "index", "copy"))
    uploaded = entity(f"urn:ivcap:artifact:{run}", "artifact", sha256=facts["series"] * 64, name="series")
    records = [
        activity(attempt, "attempt"),
        entity(code, "code", commit=facts["commit"], python="3.11", packages={"numpy": facts["numpy"], "pip": "1"}),
        relation("hadPlan", attempt, code),
        activity(step, "task-run", name="upload"),
        activity(copying, "task-run", name="copy"),
        *(relation("wasStartedBy", each, attempt) for each in (step, copying)),
        *(series, mask, index, copy, uploaded),
        relation("used", step, series.id),
        relation("wasGeneratedBy", uploaded.id, step),
        activity(order, "order", service_name="icen", parameters={"base": facts["base"], "series": uploaded.id}),
        relation("used", order, uploaded.id),
        relation("wasGeneratedBy", index.id, order),
        relation("used", copying, mask.id),
        relation("wasGeneratedBy", copy.id, copying),
    ]
    return Side(run, "completed", parameters or {}, Graph(records))


def test_equal_runs_differ_in_nothing() -> None:
    """Equal runs have no difference, although each has its own URNs and paths."""
    found = compare(side("a"), side("b"))
    assert found.same_results
    assert not any((found.parameters, found.code, found.environment, found.packages, found.inputs, found.work))


def test_a_changed_parameter_package_input_and_commit_are_named() -> None:
    """Each change is named in its place, with the value before and after."""
    before = side("a", parameters={"base": 1981, "deep": {"x": 1}})
    after = side("b", parameters={"base": 1971, "deep": {"x": 2}}, numpy="2.0", series="5", commit="d" * 40, base=1971)
    found = compare(before, after)
    assert found.parameters == (Change("base", 1981, 1971), Change("deep.x", 1, 2))
    assert found.packages == (Change("numpy", "1.0", "2.0"),)
    assert found.code == (Change("commit", "c" * 40, "d" * 40),)
    assert found.inputs == (Change("series.csv", "1" * 64, "5" * 64),)
    assert found.work == (Change("order icen, base", 1981, 1971),)
    assert found.same_results


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


def test_a_result_differs_for_what_lies_on_its_way() -> None:
    """The index differs because of its series and its order's parameter. The copy does not."""
    found = compare(side("a"), side("b", series="5", index="6", base=1971))
    [result] = found.outputs
    assert (result.name, result.before, result.after) == ("index.csv", "3" * 64, "6" * 64)
    assert result.why == (f"input series.csv: {'1' * 12} → {'5' * 12}", "order icen, base: 1981 → 1971")
    [other] = compare(side("a"), side("b", series="5", copy="7")).outputs
    assert other.name == "copy.csv" and other.why == ()


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
    found = compare(steps("a", 1.0), steps("b", 1.0, 2.0))
    assert found.work == (Change("task-run scale, number", 1, 2), Change("task-run scale, factor", None, 2.0))
    [added] = found.outputs
    assert (added.name, added.before) == ("1.csv", None) and added.why[0] == "task-run scale, number: 1 → 2"
    assert compare(steps("a"), steps("b", 1.0)).work == (Change("task-run scale, number", None, 1),)


def test_a_parameter_that_only_another_result_was_given_is_no_reason() -> None:
    """A parameter of the run that nothing was given may be the reason of everything."""
    before, after = steps("a", 1.0, 2.0), steps("b", 1.0, 5.0)
    changed = [Side(side.run, side.outcome, {"factor": factor, "other": factor + 7}, side.graph)
               for side, factor in ((before, 2.0), (after, 5.0))]  # fmt: skip
    [result] = compare(*changed).outputs
    assert result.why == (
        "parameter factor: 2.0 → 5.0",
        "parameter other: 9.0 → 12.0",
        "task-run scale, factor: 2.0 → 5.0",
    )
    third = Side("c", "completed", {"factor": 5.0}, steps("c", 3.0, 5.0).graph)
    reasons = {each.name: each.why for each in compare(changed[0], third).outputs}
    assert reasons["0.csv"] == ("parameter other: 9.0 → none", "task-run scale, factor: 1.0 → 3.0")


def test_what_is_there_once_only_is_a_difference() -> None:
    """An output or input that only one run has is a difference."""
    first = side("a")
    less = Side(
        "b", "failed", {}, first.graph.where(lambda r: r.id != file_urn("3" * 64) and r.id != file_urn("2" * 64))
    )
    found = compare(first, less)
    assert [(r.name, r.after) for r in found.outputs] == [("index.csv", None)]
    assert found.inputs == (Change("mask.csv", "2" * 64, None),)
    assert found.outcome == Change("outcome", "completed", "failed") and not found.same_results


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
