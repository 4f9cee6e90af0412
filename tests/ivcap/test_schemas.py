"""The aspect schema that a model declares."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from ivcap_flows.errors import InputError
from ivcap_flows.ivcap.schemas import schema_of

URN = "urn:example:schema:note.1"


class ByDefault(BaseModel):
    schema_: str = Field(URN, alias="$schema")
    text: str = "x"


class ByLiteral(BaseModel):
    schema_: Literal["urn:example:schema:note.1"] = Field(serialization_alias="$schema")


class AsTheSdk(BaseModel):
    jschema: str = URN


class ById(BaseModel):
    model_config = ConfigDict(json_schema_extra={"$id": URN, "$schema": "https://json-schema.org/draft/2020-12/schema"})


class BySchema(BaseModel):
    model_config = ConfigDict(json_schema_extra={"$schema": URN})


class Both(ByDefault):
    model_config = ConfigDict(json_schema_extra={"$id": URN})


@pytest.mark.parametrize("model", [ByDefault, ByLiteral, AsTheSdk, ById, BySchema, Both])
def test_a_model_declares_its_schema(model):
    """By a field's default or Literal, by the SDK's field, or beside the JSON Schema; the same twice is once."""
    assert schema_of(model) == URN


def test_an_instance_says_it_by_its_value():
    """What will be sent counts, not the default; a content by its `$schema`."""
    assert schema_of(ByDefault(**{"$schema": "urn:other:1"})) == "urn:other:1"
    assert schema_of(ById()) == URN
    assert schema_of({"$schema": URN, "text": "x"}) == URN


class Nothing(BaseModel):
    text: str = "x"


class Open(BaseModel):
    schema_: str = Field(alias="$schema")


class Wrong(BaseModel):
    jschema: str = "note.1"


class Several(ByDefault):
    model_config = ConfigDict(json_schema_extra={"$id": "urn:other:1"})


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (Nothing, "The Nothing declares no aspect schema"),
        (Nothing(), "The Nothing declares no aspect schema"),
        (Open, "declares no aspect schema"),
        ({"text": "x"}, "The dict declares no aspect schema"),
        (Wrong, "'note.1', which is no URN"),
        ({"$schema": "https://example.org/x"}, "which is no URN"),
        ({"$schema": 1}, "which is no URN"),
        (Several, "several aspect schemas: .*Leave one"),
    ],
)
def test_a_missing_or_wrong_declaration_names_the_way_out(declared, said):
    """What to write into the model, or what to pass."""
    with pytest.raises(InputError, match=said) as error:
        schema_of(declared)
    assert declared is Several or ("schema='urn:…'" in str(error.value) and "json_schema_extra" in str(error.value))
