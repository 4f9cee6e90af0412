"""What Provena's bodies keep on reading and refuse before sending."""

from __future__ import annotations

import pickle
from datetime import date, datetime, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from ivcap_flows import handles
from ivcap_flows.errors import InputError, RegistrationFailedError
from ivcap_flows.provena.collection_format import Approval, Approvals
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
from ivcap_flows.provena.prov import MAX_BATCH_BYTES, batches
from ivcap_flows.provena.terms import Terms, collection_format

ARTIFACT = handles.Artifact(
    urn="urn:ivcap:artifact:a1",
    platform="https://ivcap.example.org",
    name="series.csv",
    media_type="text/csv",
    created_at=datetime(2024, 5, 6, 23, tzinfo=timezone.utc),
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


def test_a_record_is_sent_without_nulls():
    """The body holds exactly what was stated, and the one dataset type there is."""
    body = record().body()

    assert body["inputs"] == [
        {
            "dataset_template_id": "T",
            "dataset_id": "D",
            "dataset_type": "DATA_STORE",
            "resources": {"forcing": "f.nc"},
        }
    ]
    assert body["associations"] == {"modeller_id": "P"}
    assert body["outputs"] == []
    assert "study_id" not in body


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"display_name": ""}, "display_name is empty"),
        ({"description": "  "}, "description is empty"),
        ({"start_time": 1_700_003_601}, "end_time (1700003600) is before start_time (1700003601)"),
        (
            {"end_time": 1_700_003_600_000},
            "end_time must be in Unix seconds, and 1700003600000 looks like",
        ),
        ({"start_time": -1}, "start_time must not be negative"),
        ({"associations": Associations(modeller_id="")}, "associations.modeller_id is empty"),
        ({"colour": "red"}, "colour is no field of ModelRunRecord"),
    ],
)
def test_what_the_server_refuses_or_swallows_is_refused_before_sending(over, said):
    """Each check names the field and the fault."""
    with pytest.raises(InputError) as caught:
        record(**over).body()

    assert said in str(caught.value)


def test_all_faults_are_named_at_once():
    """A user corrects a record in one go."""
    with pytest.raises(InputError) as caught:
        record(display_name="", inputs=[TemplatedDataset(dataset_template_id="T", dataset_id="")]).body()

    assert caught.value.faults == ["display_name is empty", "inputs[0].dataset_id is empty"]


def test_a_time_must_be_whole_seconds():
    """A fraction is not cut in silence, as the server does."""
    with pytest.raises(ValidationError):
        record(start_time=7.9)


def test_a_doubtful_record_of_the_past_can_be_read():
    """Checks are for sending; what the server holds (here milliseconds and a new field) is kept."""
    read = ModelRunRecord.model_validate(record().body() | {"start_time": 10**12, "end_time": 10**12, "mood": "new"})

    assert read.start_time == 10**12
    assert read.model_dump()["mood"] == "new"


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (
            Person(display_name="A", email="a@example.org", first_name="A", last_name="B"),
            "ethics_approved must be true",
        ),
        (
            Model(
                display_name="M", name="M", description="d", documentation_url="www.example.org", source_url="ftp://x"
            ),
            "documentation_url is no http or https URL ('www.example.org')",
        ),
        (
            DatasetTemplate(display_name="T", deferred_resources=[Deferred(key="k", description="d")] * 2),
            "deferred_resources repeats the key 'k'",
        ),
        (
            WorkflowTemplate(display_name="W", software_id="M", input_templates=[TemplateUse(template_id="T")] * 2),
            "input_templates repeats the template 'T'",
        ),
        (
            WorkflowTemplate(
                display_name="W", software_id="M", annotations=Annotations(required=["a"], optional=["a"])
            ),
            "annotations.required or optional repeats the key 'a'",
        ),
    ],
)
def test_the_registry_rules_hold_before_sending(info, said):
    """What the registry would refuse about an item's own fields is said at once."""
    with pytest.raises(InputError) as caught:
        info.body()

    assert said in str(caught.value)


def test_an_item_keeps_envelope_and_statements_apart():
    """Unknown fields land among the statements and survive."""
    item = Item[Person].model_validate(
        {
            "id": "102.100.100/1",
            "item_subtype": "PERSON",
            "owner_username": "ada",
            "display_name": "Ada",
            "email": "ada@example.org",
            "first_name": "Ada",
            "last_name": "B",
            "shoe_size": 38,
        }
    )

    assert (item.id, item.owner_username, item.info.email) == ("102.100.100/1", "ada", "ada@example.org")
    assert item.info.model_dump()["shoe_size"] == 38
    assert item.handle("p") == handles.RegistryItem(
        urn="102.100.100/1", platform="p", subtype="PERSON", display_name="Ada"
    )


def test_a_model_run_item_gives_its_handle():
    """The handle names workflow, inputs and outputs."""
    lodged = {"record_status": "LODGED", "record": record().body(), "prov_serialisation": "{}"}
    item = Item[ModelRun].model_validate({"id": "R", "item_subtype": "MODEL_RUN", "display_name": "a run"} | lodged)

    handle = item.handle("p")

    assert isinstance(handle, handles.ModelRun)
    assert (handle.urn, handle.workflow_template, handle.inputs, handle.outputs) == ("R", "W", ("D",), ())


def test_a_dataset_item_gives_where_it_lies():
    """The handle of an external dataset carries the artifact's URN."""
    stated = collection_format(ARTIFACT, DEFAULTS).body()
    item = Item[DatasetInfo].model_validate(
        {
            "id": "D",
            "item_subtype": "DATASET",
            "display_name": "d",
            "collection_format": stated,
            "s3": {"bucket_name": "b", "path": "d/", "s3_uri": "s3://b/d/"},
        }
    )

    handle = item.handle("p")

    assert isinstance(handle, handles.Dataset)
    assert handle.access_uri == ARTIFACT.urn


DEFAULTS = Terms(
    organisation_id="O",
    publisher_id="U",
    license="https://creativecommons.org/licenses/by/4.0/",
    approvals=Approvals(ethics_access=Approval(relevant=True, obtained=True)),
)


def test_a_dataset_lies_where_its_artifact_lies():
    """An external dataset: the URN as its URI, the artifact's own day, and nothing that nobody said."""
    body = collection_format(ARTIFACT, DEFAULTS, user_metadata={"key": "k1"}).body()

    info = body["dataset_info"]
    assert info["access_info"] == {
        "reposited": False,
        "uri": "urn:ivcap:artifact:a1",
        "description": "An artifact of the IVCAP platform https://ivcap.example.org.",
    }
    assert info["created_date"] == {"relevant": True, "value": "2024-05-06"}
    assert info["published_date"] == {"relevant": False}
    assert info["user_metadata"] == {"key": "k1"}
    assert body["associations"] == {"organisation_id": "O"}
    assert body["approvals"]["ethics_access"] == {"relevant": True, "obtained": True}


@pytest.mark.parametrize(
    ("terms", "missing"),
    [
        (None, ["organisation_id", "publisher_id", "license", "approvals"]),
        (Terms(organisation_id="O", publisher_id="U"), ["license", "approvals"]),
    ],
)
def test_legal_facts_are_never_invented(terms, missing):
    """Without them the error names each missing field."""
    with pytest.raises(InputError) as caught:
        collection_format(ARTIFACT, terms)

    assert caught.value.missing == missing
    assert ", ".join(missing) in str(caught.value)


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"license": "CC-BY"}, "dataset_info.license is no http or https URL ('CC-BY')"),
        ({"published_date": date(2020, 1, 1)}, "published_date (2020-01-01) is before created_date (2024-05-06)"),
        ({"approvals": Approvals(export_controls=Approval(relevant=True))}, "approvals.export_controls.relevant"),
        ({"data_custodian_id": ""}, "associations.data_custodian_id is empty"),
    ],
)
def test_a_collection_format_is_checked_before_sending(over, said):
    """What the data store would refuse is said with its place."""
    with pytest.raises(InputError) as caught:
        collection_format(ARTIFACT, DEFAULTS.model_copy(update=over)).body()

    assert said in str(caught.value)


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

    assert row.lodged is not None
    assert (row.lodged.id, row.records) == ("R", [row.lodged.record])
    assert not JobRow(session_id="S", status="THINKING").done


def test_a_long_list_of_records_is_cut_into_batches_that_fit():
    """No part is above the limit, none is empty, the order stays."""
    records = [record(display_name=f"run {n}", description="x" * 40_000) for n in range(7)]

    parts = batches(records)

    assert [r.display_name for part in parts for r in part] == [f"run {n}" for n in range(7)]
    assert [len(part) for part in parts] == [3, 3, 1]
    assert all(sum(len(r.model_dump_json()) for r in part) <= MAX_BATCH_BYTES + 1_000 for part in parts)
