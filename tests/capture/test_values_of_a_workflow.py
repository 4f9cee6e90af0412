"""What a flow was given and says is on record, so that a workflow can take a model run's statements from it."""

import pytest

from ivcap_flows import annotate, flow, loop, task
from ivcap_flows.capture import journal
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Dataset
from ivcap_flows.provena.models import Info
from ivcap_flows.registration import DataUse, ValueFrom, Workflow
from ivcap_flows.registration.flow_runs import run_record
from ivcap_flows.registration.values import WorkRecord


async def never(content: Info) -> str:
    """All that the workflow names has a handle."""
    raise AssertionError(content)


@pytest.mark.usefixtures("prefect_api", "ivcap_journal")
def test_a_flow_says_what_its_model_run_is(recorded_graph):
    """Parameters of the flow, of a subflow and of mapped tasks, annotations, and facts; a dataset that it was given."""

    @task
    def fit(degree: int, seed: int) -> int:
        return degree * seed

    @flow
    def regional(region: str) -> None:
        annotate(quality="good")

    @flow
    def coastal(series: Dataset, masks: list[str], title: str, password: str) -> None:
        annotate(version="2.1")
        regional("Tasman Sea")
        fit.map([3, 3], [1, 2]).result()

    coastal(Dataset(urn="102.100.100/8", platform="p"), ["102.100.100/9", "102.100.100/10"], "A run", "hunter2-hunter2")
    graph = recorded_graph()
    [run] = journal().runs.recent(1)
    attempts = journal().runs.attempts(run.id)
    known = WorkRecord.of_run(run, attempts, graph)
    workflow = Workflow(
        flow="coastal",
        workflow_template="102.100.100/1",
        display_name=ValueFrom(parameter="title"),
        model_version=ValueFrom(annotation="version"),
        annotations={
            "region": ValueFrom(parameter="region", of="regional"),
            "degree": ValueFrom(parameter="degree", of="fit"),
            "quality": ValueFrom(annotation="quality", of="regional"),
            "function": ValueFrom(record="name"),
            "place": "here",
        },
        inputs={
            "series": "102.100.100/2",
            "both": DataUse(template="102.100.100/3", dataset=ValueFrom(parameter="masks")),
        },
    )
    record = run_record(run, attempts, loop.run(workflow.registered(never)), graph, modeller="102.100.100/4")
    assert [(part.dataset_template_id, part.dataset_id) for part in record.inputs] == [
        ("102.100.100/2", "102.100.100/8"),
        ("102.100.100/3", "102.100.100/9"),
        ("102.100.100/3", "102.100.100/10"),
    ]
    assert (record.display_name, record.model_version) == ("A run", "2.1")
    annotations = {name: text for name, text in (record.annotations or {}).items() if not name.startswith("ivcap-")}
    assert annotations == {
        "region": "Tasman Sea",
        "degree": "3",
        "quality": "good",
        "function": "coastal",
        "place": "here",
    }
    for source, words in (
        (ValueFrom(parameter="seed", of="fit"), "2 different ones on record ("),
        (ValueFrom(parameter="season"), "It has masks, password, series, title."),
        (ValueFrom(annotation="version", of="regional"), "has no such annotation. It has quality."),
        (ValueFrom(parameter="degree", of="fitting"), "no flow, task or recorded function of that name"),
        (ValueFrom(parameter="password"), "hidden as a secret"),
    ):
        with pytest.raises(InputError) as caught:
            known.text(source)
        assert words in str(caught.value) and run.id in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_a_value_comes_from_one_place():
    """None and two are refused, with what is to be given."""
    for given in ({}, {"parameter": "a", "annotation": "b"}, {"of": "fit"}):
        with pytest.raises(ValueError, match="give one of parameter, annotation and record"):
            ValueFrom.model_validate(given)
