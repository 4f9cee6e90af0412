"""The pydantic model that is made from the JSON Schema of a service's request."""

from __future__ import annotations

import json
from datetime import date, datetime, timezone
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ivcap_flows.handles import Artifact
from ivcap_flows.ivcap.request_model import RequestModel, model_of

ARTIFACT = Artifact(urn="urn:ivcap:artifact:1", platform="p")


class Window(BaseModel):
    model_config = ConfigDict(extra="forbid")
    start: int = Field(ge=1850, lt=2100)
    end: int | None = None


class Node(BaseModel):
    label: Annotated[str, Field(min_length=1, max_length=5, pattern="^[a-z]+$")]
    parts: list[Node] = []


class Survey(BaseModel):
    """What to survey."""

    jschema: Literal["urn:x:schema:survey.1"] = Field("urn:x:schema:survey.1", alias="$schema")
    series: str = Field(description="Which artifact.")
    window: Window
    share: float = Field(0.5, gt=0, le=1)
    step: int = Field(2, multiple_of=2)
    season: Literal["djf", "mam", 3, None] = None
    months: Annotated[list[int], Field(min_length=1, max_length=3)] = [1]
    seen: set[str] = set()
    bounds: tuple[float, float] | None = None
    either: str | int | None = None
    shape: Window | Node | None = None
    tree: Node | None = None
    free: dict[str, Any] = {}
    counts: dict[str, int] = {}
    when: datetime | None = None
    day: date | None = None
    on: bool = False


SCHEMA = Survey.model_json_schema()
MODEL = model_of(SCHEMA)
GOOD = {"series": "urn:ivcap:artifact:1", "window": {"start": 1981}}


def takes(model, document, **options):
    try:
        model.model_validate_json(json.dumps(document), **options)
    except ValidationError:
        return False
    return True


VALUES = {
    "window": [{"start": 1849}, {"start": 2100}, {"start": 1990, "stop": 1}, {}],
    "share": [0, 1, "0.5"],
    "step": [3, True],
    "season": ["djf", 3, "jja", None],
    "months": [[], [1, 2, 3, 4], ["1"]],
    "seen": [["a", "b"], "a"],
    "bounds": [[1, 2.5], [1], [1, 2, 3]],
    "either": ["x", 1, None, 1.5, True, ["x"]],
    "shape": [{"label": "a"}, {"start": 1900}, {"start": 1}],
    "tree": [
        {"label": "a", "parts": [{"label": "b", "parts": [{"label": "c"}]}]},
        {"label": "a", "parts": [{"label": "b", "parts": [{"label": "C"}]}]},
        {"label": ""},
    ],
    "free": [{"k": {"any": [1, None]}}, None],
    "counts": [{"a": 1}, {"a": "1"}],
    "when": ["2020-01-01T00:00:00Z", "yesterday"],
    "day": ["2020-02-30"],
    "on": [1],
    "series": [None, 1],
    "something": ["else"],
    "$schema": ["urn:x:schema:survey.1", "urn:x:schema:other.1"],
}


@pytest.mark.parametrize("name", VALUES)
def test_it_takes_what_the_services_own_model_takes(name):
    """Constraints, unions, literals, tuples, free forms and recursion survive the way over the schema, and so does
    what is required."""
    for value in VALUES[name]:
        document = GOOD | {name: value}
        assert takes(MODEL, document) == takes(Survey, document, strict=True), value
    assert takes(MODEL, GOOD)
    for missing in GOOD:
        assert not takes(MODEL, {name: value for name, value in GOOD.items() if name != missing})


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2200)
    | st.sampled_from([0.5, 1.5, -0.1])
    | st.sampled_from(["a", "abc", "djf", "", "ABC", "urn:x:schema:survey.1", "2020-01-01", "2020-01-01T00:00:00Z"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["start", "end", "label", "parts", "k"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.long
@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(list(SCHEMA["properties"])), values, max_size=4))
def test_any_document_is_judged_alike(more):
    """By the model made from the schema and by the one that the schema was made from."""
    # Two places where JSON Schema itself is wider than strict pydantic: a set is an array without equals, and a day is
    # a text.
    more = {name: value for name, value in more.items() if name not in ("seen", "day", "when")}
    assert takes(MODEL, GOOD | more) == takes(Survey, GOOD | more, strict=True)


def test_it_dumps_the_document():
    """By alias, without what was not given; free forms keep what is in them; `$schema` says what the document is."""
    made = MODEL(**GOOD, free={"k": 1}, months=(1, 2), when=datetime(2020, 1, 1, tzinfo=timezone.utc))
    assert made.model_dump(mode="json", by_alias=True) == {
        "$schema": "urn:x:schema:survey.1",
        "series": "urn:ivcap:artifact:1",
        "window": {"start": 1981},
        "free": {"k": 1},
        "months": [1, 2],
        "when": "2020-01-01T00:00:00Z",
    }
    assert made.share == 0.5 and made.window.end is None and made.tree is None
    assert MODEL.model_validate(made.model_dump(by_alias=True)) == made


def test_it_says_what_the_schema_says():
    """Names, order, descriptions, and the bounds in its own schema."""
    assert list(MODEL.model_fields) == ["schema_", *list(Survey.model_fields)[1:]]
    assert MODEL.__name__ == "Survey" and MODEL.__doc__ == "What to survey." and issubclass(MODEL, RequestModel)
    assert MODEL.model_fields["series"].description == "Which artifact."
    told = MODEL.model_json_schema()["properties"]
    assert told["share"]["exclusiveMinimum"] == 0 and told["share"]["maximum"] == 1
    assert told["step"]["multipleOf"] == 2


def test_a_handle_stands_for_its_urn():
    """Wherever a text may stand."""
    made = MODEL(series=ARTIFACT, window={"start": 1981}, free={"deep": [ARTIFACT]}, either=ARTIFACT)
    assert (made.series, made.free, made.either) == (ARTIFACT.urn, {"deep": [ARTIFACT.urn]}, ARTIFACT.urn)


@pytest.mark.parametrize(
    ("part", "good", "bad"),
    [
        ({"type": "array", "uniqueItems": True}, [1, 2], [1, 1]),
        ({"type": "integer"}, 1.0, 1.5),
        ({"type": "integer", "minimum": 0.5}, 1, 0),
        ({"type": ["integer", "null"], "maximum": 3}, None, 4),
        ({"oneOf": [{"type": "integer", "multipleOf": 2}, {"type": "integer", "multipleOf": 3}]}, 2, 6),
        ({"not": {"type": "string"}}, 1, "x"),
        ({"const": {"a": 1}}, {"a": 1}, {"a": 2}),
        ({"enum": [[1], "x"]}, [1], [2]),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 1},
            {"a": 1},
            {"a": 1, "b": 2},
        ),
        ({"type": "object", "additionalProperties": False}, {}, {"a": 1}),
        ({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}}, [1, "a"], ["a", "a"]),
        ({"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}, {"a": 1, "b": "x"}, {"a": 1}),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, 3, 2),
        ({"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}, None, {"a": "x"}),
        ({"$ref": "#/$defs/json"}, {"k": [1, {"k": "x"}]}, {"k": [None]}),
        ({"$ref": "#/$defs/loop"}, 1, ...),
        ({"$ref": "#/$defs/none"}, 1, ...),
        ({"$ref": "https://example.org/schema"}, 1, ...),
        ({"type": "string", "format": "uuid"}, "0f2f4c9c-6a53-4d58-8d53-52f0d4e3c9b1", "x"),
        ({"type": "string", "format": "uri"}, "https://example.org", "no uri"),
        ({"type": "string", "pattern": "(?<=a)b"}, "ab", "b"),
        ({"type": "string", "pattern": "("}, "anything", ...),
        ({"type": "geometry"}, 1, ...),
        (True, 1, ...),
        ({}, None, ...),
    ],
)
def test_what_pydantic_has_no_word_for_holds_too(part, good, bad):
    """The document is checked against the schema itself; what cannot be applied lets everything through (`...`)."""
    model = model_of(
        {
            "type": "object",
            "properties": {"x": part},
            "$defs": {
                "a": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                "b": {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]},
                "json": {
                    "anyOf": [
                        {"type": ["integer", "string"]},
                        {"type": "array", "items": {"$ref": "#/$defs/json"}},
                        {"type": "object", "additionalProperties": {"$ref": "#/$defs/json"}},
                    ]
                },
                "loop": {"$ref": "#/$defs/loop"},
            },
        }
    )
    assert model(x=good).model_dump(mode="json", by_alias=True) == {"x": good}
    if bad is not ...:
        with pytest.raises(ValidationError):
            model(x=bad)


def test_names_that_are_none_in_python():
    """Each gets a name of its own; the document has the service's."""
    names = ["class", "a-b", "a_b", "model_dump", "1st", "_x", "$id", "json", "Größe"]
    model = model_of({"properties": {name: {"type": "integer"} for name in names}})
    document = {name: number for number, name in enumerate(names)}
    made = model.model_validate(document)
    assert made.model_dump(by_alias=True) == document
    attributes = ("class_", "a_b_", "a_b", "model_dump_", "field_1st", "x", "id")
    assert [getattr(made, name) for name in attributes] == list(range(7))


def test_a_tree_of_the_request_itself():
    """A reference to the whole, and a root that is one."""
    node = {
        "type": "object",
        "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}, "n": {"type": "integer"}},
    }
    model = model_of(node, "Tree")
    assert model(kids=[{"n": 1, "kids": []}]).kids[0].n == 1
    with pytest.raises(ValidationError):
        model(kids=[{"n": "1"}])
    same = {"$ref": "#/$defs/Node", "$defs": {"Node": Node.model_json_schema()["$defs"]["Node"]}}
    assert model_of(same)(label="a", parts=[{"label": "b"}]).parts[0].label == "b"


def test_older_drafts_are_read():
    """`definitions`, tuples in `items`, and a schema that names its draft."""
    model = model_of(
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "properties": {
                "pair": {"type": "array", "items": [{"type": "integer"}, {"type": "string"}], "additionalItems": False},
                "win": {"$ref": "#/definitions/Win"},
            },
            "definitions": {"Win": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        }
    )
    assert model(pair=[1, "a"], win={"a": 1}).win.a == 1
    for wrong in ({"pair": ["a"]}, {"pair": [1, "a", 2]}, {"win": {"a": "x"}}):
        with pytest.raises(ValidationError):
            model(**wrong)
