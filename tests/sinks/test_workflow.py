"""A workflow that is read from a file or from code, takes what differs from run to run from the work itself, and is
checked before anything is sent."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from ivcap_flows import loop
from ivcap_flows.errors import InputError
from ivcap_flows.provena.models import DatasetTemplate
from ivcap_flows.provena.terms import Terms, missing_terms
from ivcap_flows.registration.workflow import Workflow
from ivcap_flows.registration.workflows import Workflows
from ivcap_flows.sinks import Drained, drain
from ivcap_flows.tasks import register_model_run


def test_a_workflow_for_the_flow_goes_first(tmp_path, ended_work):
    """A service is known by name or URN; the workflow of its flow is taken before that of all flows."""
    _, work = ended_work()
    path = tmp_path / "workflows.yaml"
    stated = [
        {"service": "index", "workflow_template": "1/1"},
        {"service": work.service, "flow": "coastal", "workflow_template": "1/2"},
    ]
    path.write_text(yaml.safe_dump(stated))
    workflows = Workflows.read(path)
    assert workflows.for_work(work, "coastal").workflow_template == "1/2"
    assert workflows.for_work(work, "inland").workflow_template == "1/1"


def test_a_wrong_workflow_names_every_fault(tmp_path):
    """File, line and field of each, at once, in the order of the lines; what was meant is asked, never guessed."""

    def fields_of(kind: type[BaseModel]) -> str:
        return ", ".join(map(repr, kind.model_fields))

    path = tmp_path / "workflows.yaml"
    path.write_text(
        "- {service: echo, workflow_templat: 1/1}\n"
        "- {service: index, workflow_template: 1/1, inputs: [series], terms: {licence: MIT}}\n"
        "- service: index\n"
        "  workflow_template: {display_name: W, model: {display_name: M, name: M}}\n"
        "  inputs:\n"
        "    series: {display_name: Series, colour: blue}\n"
        "    mask: {templat: 1/1}\n"
        "- nothing\n"
        "- flow: monthly\n"
        "  terms:\n"
        "    approval: {}\n"
        "    elephant: {}\n"
        "  displayname:\n"
        "    parameter: 1\n"
        "  workflow_template:\n"
        "    modell:\n"
        "      name: M\n"
        "    display_name: W\n"
    )
    with pytest.raises(InputError) as caught:
        Workflows.read(path)
    assert str(path) in str(caught.value)
    assert [fault.partition(": ")[::2] for fault in caught.value.faults] == [
        ("line 1", "workflow_template is missing"),
        ("line 1, workflow_templat", "there is no such field (did you mean 'workflow_template'?)"),
        ("line 2, inputs", "Input should be a valid dictionary"),
        ("line 2, terms.licence", "there is no such field (did you mean 'license'?)"),
        ("line 4, workflow_template.model", "description is missing"),
        ("line 4, workflow_template.model", "documentation_url is missing"),
        ("line 4, workflow_template.model", "source_url is missing"),
        ("line 6, inputs.series", f"colour is no field of DatasetTemplate (there are: {fields_of(DatasetTemplate)})"),
        ("line 7, inputs.mask", "template is missing"),
        ("line 7, inputs.mask.templat", "there is no such field (did you mean 'template'?)"),
        ("line 8", "Input should be a valid dictionary or instance of Workflow"),
        ("line 11, terms.approval", "there is no such field (did you mean 'approvals'?)"),
        ("line 12, terms.elephant", f"there is no such field (there are: {fields_of(Terms)})"),
        ("line 13, displayname", "there is no such field (did you mean 'display_name'?)"),
        ("line 15, workflow_template", "model is missing"),
        ("line 16, workflow_template.modell", "there is no such field (did you mean 'model'?)"),
    ]


def test_a_file_or_module_without_workflows_is_refused_by_its_name(tmp_path, monkeypatch):
    """A module of the working directory may name one, or a list of them."""
    path = tmp_path / "workflows.yaml"
    twice = "[{service: index, workflow_template: 1/2}, {service: index, workflow_template: 1/3}]"
    for text, words in (
        (None, "cannot be read"),
        ("a: [", "are not valid YAML"),
        ("a: 2024-02-30", "are not valid YAML: day is out of range"),
        ("a: !!int x", "are not valid YAML"),
        ("[" * 100_000, "are not valid YAML"),
        ('[{"a": ' + "[" * 500 + "]" * 500 + "}]", "are wrong. line 1: .*there is no such field"),
        ("a", "are wrong. line 1: Input should be a valid list"),
        (twice, "are wrong. 2 are for the service 'index'"),
    ):
        if text is not None:
            path.write_text(text)
        with pytest.raises(InputError, match=f"workflows.yaml {words}"):
            Workflows.read(path)
    monkeypatch.chdir(tmp_path)
    for module, code in (
        (
            "my_workflows_of_tests",
            "from ivcap_flows.registration import Workflow\n"
            "ONE = Workflow(flow='coastal', workflow_template='1/1')\n"
            "LIST, TWICE, WRONG = [ONE], [ONE, ONE], {'flow': 'coastal'}\n",
        ),
        ("my_broken_workflows", "a b"),
        ("my_failing_workflows", "open('not-there')"),
    ):
        (tmp_path / f"{module}.py").write_text(code)
    for name in ("ONE", "LIST"):
        assert Workflows.named(f"my_workflows_of_tests:{name}").for_run("coastal").workflow_template == "1/1"
    for name, words in (
        ("my_workflows_of_tests:TWICE", "2 are for the flow 'coastal'"),
        ("my_workflows_of_tests:WRONG", "must be a Workflow, or a list of them"),
        ("my_workflows_of_tests:NOTHING", "cannot be imported"),
        ("my_broken_workflows:LIST", "cannot be imported.*invalid syntax"),
        ("my_failing_workflows:LIST", "cannot be imported.*not-there"),
    ):
        with pytest.raises(InputError, match=f"{name}.*{words}"):
            Workflows.named(name)
    with pytest.raises(ValueError, match="give a service, a flow, or both"):
        Workflow(workflow_template="1/1")


def test_the_documented_workflows_can_be_used_as_they_stand(tmp_path):
    guide = Path("docs/how-to/register-a-model-run.md").read_text(encoding="utf-8")
    path = tmp_path / "workflows.yaml"
    found = []
    for part in guide.split("```yaml\n")[1:]:
        path.write_text(part.split("```")[0])
        found += Workflows.read(path).all
    assert len(found) > 2 and [missing_terms(each.terms) for each in found] == [[]] * len(found)


DELIVERED, DEAD = (Drained("provena", **{state: 1}) for state in ("delivered", "dead"))


@pytest.fixture
def deliver(ivcap_journal, sink):
    """Delivers by a workflow of the service `index`, changed as told."""

    def drained(**changes: Any) -> Drained:
        [one] = drain(ivcap_journal, [sink(**changes)], again=True)
        return one

    return drained


def test_statements_come_from_the_work(ended_work, deliver, registered, table_items):
    """From its parameters, its record, and what annotate() said of it."""
    ended_work()
    outputs = {"index.csv": {"template": table_items.table, "resources": {"index": {"parameter": "path"}}}}
    stated = {
        "display_name": {"parameter": "base"},
        "model_version": {"record": "service_version"},
        "annotations": {"region": {"annotation": "region"}},
    }
    assert deliver(outputs=outputs, **stated) == DELIVERED
    record = registered()
    assert (record.display_name, record.model_version) == ("1981", "4.2")
    assert record.annotations["region"] == "Coral Sea"
    assert [part.resources for part in record.outputs] == [{"index": "out/index.csv"}]


def test_a_dataset_may_stand_in_the_workflow_or_be_what_the_work_was_given(
    accepted, ended_work, deliver, registered, provena, table_items
):
    """As an input and as an output, whatever the work was given and made: nothing is minted."""
    dataset, source = loop.run(table_items.mint(provena)), table_items.template
    minted = accepted()[1]
    for given, inputs, made in (
        ({}, {"mask": {"template": source, "dataset": dataset}}, dataset),
        ({"series": dataset}, {"series": source}, {"parameter": "series"}),
    ):
        ended_work(**given)
        resources = {"index": "index.csv"}
        outputs = {"any": {"template": table_items.table, "dataset": made, "resources": resources}}
        assert deliver(inputs=inputs, outputs=outputs) == DELIVERED
        record = registered()
        assert [part.dataset_id for part in (*record.inputs, *record.outputs)] == [dataset] * 2
    assert accepted() == (2, minted)


def test_what_is_wrong_is_said_before_anything_is_sent(
    accepted, ivcap_journal, ended_work, deliver, provena, table_items
):
    """A dead letter that names the thing; no dataset is minted, no model run asked for. What a task has registered is
    not judged: it is not held up by a workflow that could not."""
    source, table, none = table_items.template, table_items.table, "102.100.100/none"
    dataset = loop.run(table_items.mint(provena))
    _, work = ended_work(series=dataset)
    minted = accepted()
    for changes, words in (
        ({"annotations": {}}, ["requires the annotation 'region'", "Correct the workflow"]),
        ({"annotations": {"region": {"annotation": "area"}}}, ["the annotation 'area'", "It has region."]),
        ({"model_version": {"parameter": "model"}}, ["the parameter 'model'", "It has base, path, series."]),
        ({"workflow_template": none}, [f"The registry has no item {none}"]),
        ({"inputs": {"series": {"template": source, "dataset": none}}}, [f"The registry has no item {none}"]),
        ({"inputs": {"series": {"template": source, "dataset": table}}}, ["DATASET_TEMPLATE, but DATASET is"]),
        ({"inputs": {"base": source}}, ["base of index are artifacts or datasets", "something else"]),
        ({"inputs": {}}, ["No dataset for the template", "Anything"]),
        ({"outputs": {"index.csv": table}}, ["'A table' needs 'index'"]),
        (
            {"outputs": {"index.csv": {"template": table, "resources": {"index": "a", "map": "b"}}}},
            ["'A table' has no deferred resource 'map'"],
        ),
    ):
        assert deliver(**changes) == DEAD
        [row] = ivcap_journal.deliveries.where("provena")
        assert all(each in row.reason for each in words), row.reason
    assert accepted() == minted
    register_model_run.fn(
        work,
        workflow_template=table_items.workflow,
        inputs={source: dataset},
        outputs={table: dataset},
        resources={table: {"index": "index.csv"}},
        annotations={"region": "anywhere"},
    )
    before = accepted()
    assert deliver(annotations={}, outputs={"index.csv": {"template": table, "dataset": dataset}}) == DELIVERED
    assert accepted() == before
