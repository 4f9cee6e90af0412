"""What Provena's bodies keep on reading and refuse before sending."""

from __future__ import annotations

import pickle
from datetime import date, datetime, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from ivcap_flows import handles
from ivcap_flows.errors import InputError, RegistrationFailedError
from ivcap_flows.provena.collection_format import Approval, Approvals, Duration, SpatialInfo, TemporalInfo
from ivcap_flows.provena.lineage import Lineage
from ivcap_flows.provena.models import (
    Annotations,
    Associations,
    DatasetInfo,
    DatasetTemplate,
    Deferred,
    Item,
    JobRow,
    Model,
    ModelRun,
    ModelRunRecord,
    Person,
    TemplatedDataset,
    TemplateUse,
    WorkflowTemplate,
)
from ivcap_flows.provena.terms import Terms, collection_format

ARTIFACT = handles.Artifact(
    urn="urn:ivcap:artifact:a1",
    platform="https://ivcap.example.org",
    name="series.csv",
    media_type="text/csv",
    created_at=datetime(2024, 5, 6, 23, tzinfo=timezone.utc),
)
TERMS = Terms(
    organisation_id="O",
    publisher_id="U",
    license="https://creativecommons.org/licenses/by/4.0/",
    approvals=Approvals(ethics_access=Approval(relevant=True, obtained=True)),
)


def record(**over: Any) -> ModelRunRecord:
    values: dict[str, Any] = {
        "workflow_template_id": "W",
        "inputs": [TemplatedDataset(dataset_template_id="T", dataset_id="D", resources={"forcing": "f.nc"})],
        "outputs": [],
        "display_name": "a run",
        "description": "of a model",
        "associations": Associations(modeller_id="P"),
        "start_time": 1_700_000_000,
        "end_time": 1_700_003_600,
    }
    return ModelRunRecord(**(values | over))


def dataset(**over: Any) -> Any:
    return collection_format(ARTIFACT, TERMS.model_copy(update=over))


def with_part(name: str, part: Any) -> Any:
    found = collection_format(ARTIFACT, TERMS)
    return found.model_copy(update={"dataset_info": found.dataset_info.model_copy(update={name: part})})


def workflow(**over: Any) -> WorkflowTemplate:
    return WorkflowTemplate(display_name="W", software_id="M", **over)


def test_a_record_is_sent_without_nulls():
    """The body holds exactly what was stated, and the one dataset type there is."""
    body = record().body()
    used = {"dataset_template_id": "T", "dataset_id": "D", "resources": {"forcing": "f.nc"}}
    assert body["inputs"] == [used | {"dataset_type": "DATA_STORE"}]
    assert (body["outputs"], body["associations"]) == ([], {"modeller_id": "P"})
    assert None not in body.values()


REFUSED = [
    (record(display_name=""), "display_name is empty"),
    (record(description="  "), "description is empty"),
    (record(start_time=1_700_003_601), "end_time (1700003600) is before start_time (1700003601)"),
    (record(end_time=1_700_003_600_000), "end_time must be in Unix seconds, and 1700003600000 looks like milliseconds"),
    (record(start_time=-1), "start_time must not be negative, and is -1"),
    (record(associations=Associations(modeller_id="")), "associations.modeller_id is empty"),
    (record(colour="red"), "colour is no field of ModelRunRecord"),
    (
        record(display_name="", inputs=[TemplatedDataset(dataset_template_id="T", dataset_id="")]),
        "display_name is empty; inputs[0].dataset_id is empty",
    ),
    (Person(display_name="A", email="a@example.org", first_name="A", last_name="B"), "ethics_approved must be true"),
    (
        Model(display_name="M", name="M", description="d", documentation_url="www.example.org", source_url="ftp://x"),
        "documentation_url is no http or https URL ('www.example.org')",
    ),
    (
        DatasetTemplate(display_name="T", deferred_resources=[Deferred(key="k", description="d")] * 2),
        "deferred_resources repeats the key 'k'",
    ),
    (workflow(input_templates=[TemplateUse(template_id="T")] * 2), "input_templates repeats the template 'T'"),
    (
        workflow(annotations=Annotations(required=["a"], optional=["a"])),
        "annotations.required or optional repeats the key 'a'",
    ),
    (dataset(license="CC-BY"), "dataset_info.license is no http or https URL ('CC-BY')"),
    (
        dataset(published_date=date(2020, 1, 1)),
        "dataset_info.published_date (2020-01-01) is before created_date (2024-05-06)",
    ),
    (
        dataset(approvals=Approvals(export_controls=Approval(relevant=True))),
        "approvals.export_controls.relevant without obtained",
    ),
    (dataset(data_custodian_id=""), "associations.data_custodian_id is empty"),
    (
        with_part("spatial_info", SpatialInfo(extent="here", resolution="-1")),
        "dataset_info.spatial_info.extent is no EWKT such as SRID=4326;POINT (0 0); "
        "dataset_info.spatial_info.resolution is no number above 0 ('-1')",
    ),
    (
        with_part("spatial_info", SpatialInfo(coverage="SRID=4326;" + "P" * 50_000)),
        "dataset_info.spatial_info.coverage has 50,010 characters, and 50,000 are allowed",
    ),
    (
        with_part("temporal_info", TemporalInfo(resolution="P")),
        "dataset_info.temporal_info.resolution is no ISO 8601 duration such as P1M ('P')",
    ),
    (
        with_part(
            "temporal_info",
            TemporalInfo(duration=Duration(begin_date=date(2001, 1, 2), end_date=date(2001, 1, 1))),
        ),
        "dataset_info.temporal_info.duration.end_date (2001-01-01) is before begin_date (2001-01-02)",
    ),
]


@pytest.mark.parametrize(("statement", "said"), REFUSED)
def test_what_the_server_refuses_or_swallows_is_refused_before_sending(statement, said):
    """Each fault is named with its place, and all at once: a user corrects a record in one go."""
    with pytest.raises(InputError) as caught:
        statement.body()
    assert said in "; ".join(caught.value.faults) and said in str(caught.value)


def test_a_time_is_whole_seconds_and_a_period_of_iso_8601():
    """A fraction is not cut in silence, as the server does."""
    with pytest.raises(ValidationError):
        record(start_time=7.9)
    assert TemporalInfo(resolution="P1Y2M10DT2H30M").faults() == []


def test_a_doubtful_record_of_the_past_can_be_read():
    """Checks are for sending; what the server holds (here milliseconds and a new field) is kept."""
    read = ModelRunRecord.model_validate(record().body() | {"start_time": 10**12, "end_time": 10**12, "mood": "new"})
    assert (read.start_time, read.model_dump()["mood"]) == (10**12, "new")


def test_items_keep_what_they_state_and_give_their_handles():
    """Unknown fields land among the statements and survive. A model run's handle names workflow, inputs and outputs,
    that of an external dataset the artifact's URN."""
    stated = {"display_name": "Ada", "email": "a@example.org", "first_name": "A", "last_name": "B", "shoe_size": 38}
    person = Item[Person].model_validate(
        {"id": "102.100.100/1", "item_subtype": "PERSON", "owner_username": "ada", **stated}
    )
    assert (person.owner_username, person.info.email) == ("ada", "a@example.org")
    assert person.info.model_dump()["shoe_size"] == 38
    assert person.handle("p") == handles.RegistryItem(
        urn="102.100.100/1", platform="p", subtype="PERSON", display_name="Ada"
    )
    lodged = {"record_status": "LODGED", "record": record().body(), "prov_serialisation": "{}"}
    run = Item[ModelRun].model_validate({"id": "R", "item_subtype": "MODEL_RUN", "display_name": "a run", **lodged})
    made = run.handle("p")
    assert isinstance(made, handles.ModelRun)
    assert (made.urn, made.workflow_template, made.inputs, made.outputs) == ("R", "W", ("D",), ())
    found = Item[DatasetInfo].model_validate(
        {
            "id": "D",
            "item_subtype": "DATASET",
            "display_name": "d",
            "collection_format": dataset().body(),
            "s3": {"bucket_name": "b", "path": "d/", "s3_uri": "s3://b/d/"},
        }
    )
    assert found.handle("p") == handles.Dataset(urn="D", platform="p", display_name="d", access_uri=ARTIFACT.urn)


def test_a_dataset_lies_where_its_artifact_lies():
    """An external dataset: the URN as its URI, the artifact's own day, and nothing that nobody said."""
    body = collection_format(ARTIFACT, TERMS, user_metadata={"key": "k1"}).body()
    told = {
        "access_info": {
            "reposited": False,
            "uri": "urn:ivcap:artifact:a1",
            "description": "An artifact of the IVCAP platform https://ivcap.example.org.",
        },
        "created_date": {"relevant": True, "value": "2024-05-06"},
        "published_date": {"relevant": False},
        "user_metadata": {"key": "k1"},
    }
    assert told.items() <= body["dataset_info"].items()
    assert body["associations"] == {"organisation_id": "O"}
    assert body["approvals"]["ethics_access"] == {"relevant": True, "obtained": True}


def test_a_failed_job_is_an_error_with_its_reason():
    """`checked` raises for FAILED alone, and the error survives pickling."""
    row = JobRow(session_id="S", status="FAILED", info="no such dataset", job_sub_type="MODEL_RUN_PROV_LODGE")
    with pytest.raises(RegistrationFailedError) as caught:
        row.checked()
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.session_id, error.detail) == ("S", "no such dataset")
    assert "S (MODEL_RUN_PROV_LODGE) failed: no such dataset" in str(error)
    assert JobRow(session_id="S", status="SUCCEEDED").checked().succeeded


def test_a_row_gives_the_lodged_run_and_what_was_sent():
    """A succeeded registration names the handle; a state of a newer server is no crash."""
    row = JobRow.model_validate(
        {
            "session_id": "S",
            "status": "SUCCEEDED",
            "payload": {"record": record().body(), "revalidate": False},
            "result": {"record": {"id": "R", "prov_json": "{}", "record": record().body()}},
        }
    )
    assert (row.lodged.id, row.record) == ("R", row.lodged.record)
    assert not JobRow(session_id="S", status="THINKING").done


def test_older_servers_name_their_links_edges():
    """By its version networkx says `links` or `edges`, and a node of a template has either name."""
    nodes = [{"id": "W", "item_category": "ENTITY", "item_subtype": "WORKFLOW_TEMPLATE"}]
    links = [{"type": "used", "source": "R", "target": "W"}]
    old, new = [Lineage.model_validate({"directed": True, "nodes": nodes, key: links}) for key in ("edges", "links")]
    assert old == new and old.nodes[0].subtype == "MODEL_RUN_WORKFLOW_TEMPLATE"
    assert [(link.source, link.type, link.target) for link in old.links] == [("R", "used", "W")]
