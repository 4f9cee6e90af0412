"""`diff`: what changed between two runs, in words and as JSON."""

from ivcap_flows.identity import file_urn, flows_urn
from ivcap_flows.journal import Fact, Journal, RunIdentity
from ivcap_flows.provenance import activity, entity, relation


def keep(journal: Journal, name: str, base: int, numpy: str, series: str, index: str) -> None:
    identity = RunIdentity("icen", "/icen.py:icen", {"base": base}, name, name)
    opened = journal.runs.open_attempt(identity)
    attempt, step = flows_urn("attempt", opened.attempt.id), flows_urn("task-run", name)
    code = entity(flows_urn("code", numpy), "code", packages={"numpy": numpy})
    source, made = (
        entity(file_urn(sha * 64), "file", sha256=sha * 64, path=f"/{path}")
        for sha, path in ((series, "series.csv"), (index, "index.csv"))
    )
    records = [
        *(activity(attempt, "attempt", opened.attempt.started_at), code, relation("hadPlan", attempt, code.id)),
        *(activity(step, "task-run", name="compute"), relation("wasStartedBy", step, attempt)),
        *(source, made, relation("used", step, source.id), relation("wasGeneratedBy", made.id, step)),
    ]
    journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
    journal.runs.close_attempt(opened.attempt.id, "completed")


DIFFERENT = """
$ diff aaaa bbbb
- run aaaa icen completed
+ run bbbb icen completed
Parameters
base: 1981 → 1971
…
numpy: 1.26 → 2.0
…
series.csv: 111111111111 → 333333333333
Outputs
index.csv: 222222222222 → 444444444444
…
may come from …base: 1981 → 1971
…
[1]
"""


def test_diff_names_the_changed_parameter_package_and_input(ivcap_flows, transcript, journal):
    """And what of them may have changed the result; the status says that it did."""
    keep(journal, "aaaa", 1981, "1.26", "1", "2")
    keep(journal, "bbbb", 1971, "2.0", "3", "4")
    transcript(ivcap_flows, DIFFERENT)
    told = ivcap_flows("diff", "aaaa", "bbbb", "--json")
    assert told.status == 1
    assert told.json["parameters"] == [{"name": "base", "before": 1981, "after": 1971}]
    assert told.json["packages"] == [{"name": "numpy", "before": "1.26", "after": "2.0"}]
    assert told.json["inputs"] == [{"name": "series.csv", "before": "1" * 64, "after": "3" * 64}]
    assert told.json["outputs"][0]["why"] and not told.json["same_results"]


def test_a_run_does_not_differ_from_itself(on_record, transcript):
    transcript(on_record, "$ diff harvest harvest\n…\nThe outputs are the same, and so is everything else.")


def test_a_run_whose_process_is_gone_is_lost(own_record):
    [run] = own_record("runs", "--flow", "interrupted", "--json").json
    said = own_record("diff", run["id"], run["id"]).out
    assert said.count("interrupted  lost") == 2 and "running" not in said


def test_where_nothing_was_compared_that_is_said(ivcap_flows, transcript, journal):
    """Runs that made nothing have no equal outputs."""
    for name in ("aaaa", "bbbb"):
        identity = RunIdentity("icen", "/icen.py:icen", {"name": name}, name, name)
        journal.runs.close_attempt(journal.runs.open_attempt(identity).attempt.id, "completed")
    transcript(ivcap_flows, "$ diff aaaa bbbb\n…\nThere are no outputs to compare.")
