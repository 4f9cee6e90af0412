"""The values that tasks return."""

import pickle

import pytest

from ivcap_flows import handles

PRODUCT = handles.Artifact(urn="urn:ivcap:artifact:1", platform="p", name="events.csv", sha256="0" * 64, size=3)
ORDER = handles.Order(
    urn="urn:ivcap:order:1",
    platform="p",
    service="s",
    status="succeeded",
    parameters={"x": "urn:ivcap:artifact:9", "key": "hunter2"},
    products=handles.Products([PRODUCT]),
)
JOB = handles.Job(
    urn="urn:ivcap:job:1", platform="p", service="s", request={"deep": ["urn:ivcap:artifact:9"]}, result=[1]
)
ALL = [
    PRODUCT,
    ORDER,
    JOB,
    handles.Aspect(urn="urn:ivcap:aspect:1", platform="p", entity="e", schema_urn="s", content={"n": 1}),
    handles.RegistryItem(urn="1/2", platform="p", subtype="MODEL"),
    handles.Dataset(urn="1/3", platform="p", access_uri="urn:ivcap:artifact:1"),
    handles.ModelRun(urn="1/4", platform="p", workflow_template="1/5", outputs=("1/3",)),
    handles.LocalFile(path="/data/x.csv", sha256="0" * 64, size=3),
]


@pytest.mark.parametrize("handle", ALL, ids=lambda h: type(h).__name__)
def test_a_handle_is_a_value_that_survives_pickle_and_json(handle):
    """It travels to other processes and later runs unchanged."""
    assert pickle.loads(pickle.dumps(handle)) == handle
    assert type(handle).model_validate_json(handle.model_dump_json()) == handle
    with pytest.raises(ValueError, match="frozen"):
        handle.platform = "q"


def test_a_product_is_found_by_name_by_urn_and_by_place():
    """Products are a sequence and a mapping at once; an unknown name lists the known ones."""
    products = pickle.loads(pickle.dumps(ORDER.products))
    assert products["events.csv"] == products["urn:ivcap:artifact:1"] == products[0] == PRODUCT
    with pytest.raises(KeyError, match="no product 'x'; there are: events.csv"):
        products["x"]


def test_the_inputs_of_work_are_the_artifacts_in_its_request():
    assert ORDER.inputs == JOB.inputs == ("urn:ivcap:artifact:9",)


def test_a_handle_is_one_thing_however_a_run_came_by_it():
    """Two attempts of a run have the same thing, and a cache by its value has one entry."""
    sent = PRODUCT.model_copy()
    sent._how = "sent"
    assert {sent, PRODUCT} == {PRODUCT} and sent.model_dump_json() == PRODUCT.model_dump_json()
    assert pickle.loads(pickle.dumps(sent)).how == "sent" and PRODUCT.how is None


def test_a_handle_is_shown_by_what_tells_it_apart_and_in_a_notebook_as_a_table():
    """With what it has, no tag of its name's, and no secret."""
    assert repr(PRODUCT) == "Artifact(urn='urn:ivcap:artifact:1', name='events.csv')"
    assert repr(JOB) == "Job(urn='urn:ivcap:job:1', status='unknown')"
    shown = handles.Artifact(urn="urn:ivcap:artifact:1", platform="p", name="<b>x</b>")._repr_html_()
    assert "<caption>Artifact</caption>" in shown and "urn:ivcap:artifact:1" in shown
    assert "&lt;b&gt;x&lt;/b&gt;" in shown and "<b>" not in shown and "media_type" not in shown
    shown = ORDER._repr_html_()
    assert "hunter2" not in shown and "succeeded" in shown and "products" in shown
