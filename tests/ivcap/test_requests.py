"""A job's request against the request model of its service."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from ivcap_flows.errors import ParameterError
from ivcap_flows.ivcap.requests import validate_request


class Window(BaseModel):
    start: int


class Request(BaseModel):
    jschema: str = Field("urn:x:schema:request.1", alias="$schema")
    series: str
    window: Window
    threshold: float = 0.5
    label: str | None = None
    months: list[int] = []


MODEL = Request.model_json_schema()
GOOD = {"series": "urn:ivcap:artifact:1", "window": {"start": 1981}}


def test_a_fitting_document_passes_and_nothing_but_an_object():
    """Defaults may be left out, an int is a number, a nullable field takes null, `$` fields are the platform's."""
    dollars = {"$schema": "urn:x:schema:request.1", "$id": "urn:e:1"}
    for more in ({}, dollars, {"threshold": 1}, {"label": None}, {"label": "x", "months": [1, 2]}):
        validate_request(MODEL, GOOD | more)
    for document in (None, [], "x", 3):
        with pytest.raises(ParameterError, match="must be an object"):
            validate_request(MODEL, document)


def test_all_faults_are_told_at_once():
    """Missing, unknown with close names, and mistyped top-level fields, in one error."""
    with pytest.raises(ParameterError, match=r"The request does not fit the request model of urn:s") as error:
        validate_request(MODEL, {"window": 5, "treshold": 1, "label": 3, "months": "x"}, service="urn:s")
    assert error.value.faults == [
        "'series' is missing.",
        "'window' takes object, not 5 (int).",
        "There is no field 'treshold'; did you mean 'threshold'?",
        "'label' takes string or null, not 3 (int).",
        "'months' takes array, not 'x' (str).",
    ]


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"type": "integer"}, True, False),
        ({"type": "integer"}, 1.0, True),
        ({"type": "integer"}, 1.5, False),
        ({"type": "integer"}, float("inf"), False),
        ({"type": "number"}, False, False),
        ({"type": "boolean"}, 1, False),
        ({"type": ["string", "null"]}, None, True),
        ({"enum": ["a", "b"]}, "c", False),
        ({"const": "a"}, "a", True),
        ({"const": "a"}, "b", False),
        ({"oneOf": [{"type": "string"}, {"$ref": "#/$defs/n"}]}, 3, True),
        ({"$ref": "#/$defs/self"}, 3, True),
        ({"$ref": "#/$defs/none"}, 3, True),
        ({"$ref": "https://elsewhere/x"}, 3, True),
        ({"type": "geometry"}, 3, True),
        ({}, 3, True),
        (True, 3, True),
    ],
)
def test_a_type_takes_its_values_only(schema, value, fits):
    """What the schema does not say, or what this version does not know, passes: the service decides."""
    model = {
        "properties": {"x": schema},
        "$defs": {"n": {"type": "integer"}, "self": {"$ref": "#/$defs/self"}},
    }
    if fits:
        validate_request(model, {"x": value})
    else:
        with pytest.raises(ParameterError, match="'x' takes"):
            validate_request(model, {"x": value})


def test_an_open_model_takes_more():
    """Unknown fields pass where the schema allows them, or declares none."""
    validate_request({"properties": {"a": {}}, "additionalProperties": True}, {"b": 1})
    validate_request({}, {"b": 1})
    with pytest.raises(ParameterError):
        validate_request({"properties": {"a": {}}, "additionalProperties": False}, {"b": 1})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_any_document_is_judged(document):
    """No document makes the check fail in another way."""
    faults = []
    try:
        validate_request(MODEL, document)
    except ParameterError as error:
        faults = error.faults
    # No generated document has both required fields, so none fits.
    assert faults
