"""What is wrong with a request is reported in the form of pydantic 1."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from ivcap_flows.local.provena.faults import first_fault
from ivcap_flows.local.provena.model import AnyDict, Closed, Date, Email, HttpUrl, Id, Model, Texts, Uri, Whole, Words


class Inner(Model):
    name: str | None = None


class Request(Closed):
    text: str = ""
    words: Words = "w"
    short: Annotated[str, Field(max_length=2)] = ""
    number: Annotated[Whole, Field(ge=1, le=3)] = 1
    flag: bool = False
    many: list[str] | None = None
    mapped: AnyDict | None = None
    texts: Texts | None = None
    inner: Inner | None = None
    choice: Literal["A", "B"] = "A"
    day: Date | None = None
    email: Email | None = None
    page: HttpUrl | None = None
    uri: Uri | None = None
    id: Id = "i"


NOT_EMPTY, NO_MORE_THAN_2 = "ensure this value has at least 1 characters", "ensure this value has at most 2 characters"
AT_LEAST_1, AT_MOST_3 = (
    "ensure this value is greater than or equal to 1",
    "ensure this value is less than or equal to 3",
)
NO_LIST, NO_DICT, NO_BOOL = (
    "value is not a valid list",
    "value is not a valid dict",
    "value could not be parsed to a boolean",
)
NO_CHOICE, NO_SCHEME = "value is not a valid enumeration member; permitted: 'A', 'B'", "invalid or missing URL scheme"
FAULTS = [
    ("text", [], "type_error.str", "str type expected", None),
    ("text", None, "type_error.none.not_allowed", "none is not an allowed value", None),
    ("words", "", "value_error.any_str.min_length", NOT_EMPTY, {"limit_value": 1}),
    ("short", "abc", "value_error.any_str.max_length", NO_MORE_THAN_2, {"limit_value": 2}),
    ("number", "1.5", "type_error.integer", "value is not a valid integer", None),
    ("number", 0, "value_error.number.not_ge", AT_LEAST_1, {"limit_value": 1}),
    ("number", 4, "value_error.number.not_le", AT_MOST_3, {"limit_value": 3}),
    ("flag", "perhaps", "type_error.bool", NO_BOOL, None),
    ("flag", [], "type_error.bool", NO_BOOL, None),
    ("many", "a", "type_error.list", NO_LIST, None),
    ("mapped", 7, "type_error.dict", NO_DICT, None),
    ("inner", [[1, 2]], "type_error.dict", NO_DICT, None),
    ("choice", "C", "type_error.enum", NO_CHOICE, {"enum_values": ["A", "B"]}),
    ("day", "2024-13-01", "value_error.date", "invalid date format", None),
    ("email", "nobody", "value_error.email", "value is not a valid email address", None),
    ("page", "no scheme", "value_error.url.scheme", NO_SCHEME, None),
    ("uri", "no scheme", "value_error.url.scheme", NO_SCHEME, None),
    ("other", None, "value_error.extra", "extra fields not permitted", None),
]


@pytest.mark.parametrize(("field", "value", "kind", "message", "context"), FAULTS)
def test_a_fault_is_told_as_by_pydantic_1(field, value, kind, message, context):
    """Each kind of fault has pydantic 1's type, message and context."""
    with pytest.raises(ValidationError) as caught:
        Request.model_validate({field: value})
    expected = {"loc": [field], "msg": message, "type": kind} | ({"ctx": context} if context else {})
    assert first_fault(caught.value) == expected


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        ("text", 1.5, "1.5"),
        ("number", 1.9, 1),
        ("number", " 2 ", 2),
        ("flag", "ON", True),
        ("mapped", "", {}),
        ("mapped", [["a", 1]], {"a": 1}),
        ("texts", {"a": 1}, {"a": "1"}),
        ("inner", [], {"name": None}),
        ("day", "2024-01-02T00:00:00", "2024-01-02"),
        ("email", " a@b.org ", "a@b.org"),
        ("page", "HTTPS://a.org", "HTTPS://a.org"),
    ],
)
def test_what_pydantic_1_accepts_is_accepted(field, value, read):
    """Values of other types are converted as pydantic 1 converts them."""
    assert Request.model_validate({field: value}).model_dump()[field] == read
