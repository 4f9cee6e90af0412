"""From Python values to the strings of an order."""

import enum
import os
from datetime import date, datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcap_flows.errors import ParameterError
from ivcap_flows.handles import Artifact, LocalFile, Order
from ivcap_flows.ivcap.parameters import encode_parameters
from ivcap_flows.ivcap.services import ServiceRecord

np = pytest.importorskip("numpy")

ARTIFACT = Artifact(urn="urn:ivcap:artifact:1", platform="p")
URN = "urn:ivcap:artifact:2"
ORDER = Order(urn="urn:ivcap:order:1", platform="p", service="urn:ivcap:service:1")
FILE = LocalFile(path="/data/a.csv", sha256="0" * 64, size=1)


class Season(enum.Enum):
    DJF = "djf"


def service(*definitions, name="index"):
    return ServiceRecord.model_validate(
        {"id": "urn:ivcap:service:1", "name": name, "parameters": [{"description": "", **each} for each in definitions]}
    )


def encode(kind, value, **more):
    return encode_parameters(service({"name": "x", "type": kind, **more}), {"x": value})["x"]


OPTIONS = {"options": [{"value": "djf", "description": "d"}, {"value": "mam"}]}


TAKEN = {
    "string": [
        ("Niño", "Niño"),
        ("", ""),
        (date(1982, 12, 1), "1982-12-01"),
        (datetime(1982, 12, 1, 6, tzinfo=timezone.utc), "1982-12-01T06:00:00+00:00"),
        (Season.DJF, "djf"),
        (ARTIFACT, ARTIFACT.urn),
    ],
    "int": [(1981, "1981"), (-(10**30), str(-(10**30))), (np.int64(7), "7")],
    "Int": [(3, "3")],
    "float": [(0.5, "0.5"), (2, "2.0"), (np.float64(0.25), "0.25")],
    "bool": [(True, "true"), (False, "false"), (np.bool_(True), "true")],
    "option": [("mam", "mam"), (Season.DJF, "djf")],
    "artifact": [(ARTIFACT, ARTIFACT.urn), (URN, URN), ("https://example.org/a.csv", "https://example.org/a.csv")],
    "collection": [("urn:ivcap:collection:c", "urn:ivcap:collection:c")],
    "colour": [("red", "red"), (3, "3"), (True, "true")],
}


@pytest.mark.parametrize("kind", TAKEN)
def test_each_type_takes_its_values(kind):
    """A type of a newer server takes whatever has one text."""
    assert [encode(kind, value, **OPTIONS) for value, _ in TAKEN[kind]] == [text for _, text in TAKEN[kind]]
    assert encode("option", "anything") == "anything"


REFUSED = {
    "string": [5, True, ["a"], b"a"],
    "int": [True, np.bool_(True), 1.0, "1"],
    "float": [True, "0.5", float("nan"), float("inf"), 10**400],
    "bool": [1, "true"],
    "option": ["son", 1],
    "artifact": [FILE, "/data/a.csv", ORDER, "urn:ivcap:order:1"],
    "collection": ["c"],
    "colour": [{"r": 1}],
}


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in REFUSED.items() for value in values])
def test_anything_else_is_refused(kind, value):
    """A bool is no int, a text no number, a file no artifact: the fault names the parameter and what it takes."""
    with pytest.raises(ParameterError, match="'x' takes ") as error:
        encode(kind, value, **OPTIONS)
    assert len(error.value.faults) == 1


def test_a_file_is_to_be_uploaded_first():
    """The commonest mistake has its own next step, in whatever form the file is given; a number is no file."""
    for kind, value in (
        ("artifact", FILE),
        ("artifact", Path("a.csv")),
        ("artifact", "a.csv"),
        ("string", Path("a.csv")),
        ("else", FILE),
        ("collection", Path("a.csv")),
    ):
        path = value if isinstance(value, str) else os.fspath(value)
        with pytest.raises(ParameterError, match=rf"Upload the file first .*: upload_artifact\({path!r}\)\."):
            encode(kind, value)
    for kind, value in (("int", Path("a.csv")), ("artifact", "urn:ivcap:order:1"), ("string", 7.5)):
        with pytest.raises(ParameterError) as caught:
            encode(kind, value)
        assert "pload" not in str(caught.value)


def test_all_faults_are_told_at_once():
    """Unknown with close names, missing and mistyped, in one error that holds each as a sentence."""
    made = service(
        {"name": "series", "type": "artifact"},
        {"name": "base_start", "type": "int"},
        {"name": "base_end", "type": "int"},
    )
    with pytest.raises(ParameterError, match="The service 'index' does not take these parameters") as error:
        encode_parameters(made, {"base_strat": 1981, "base_end": "2010", "quite_else": 1})
    assert error.value.service == "urn:ivcap:service:1"
    assert error.value.faults == [
        "There is no parameter 'base_strat'; did you mean 'base_start'?",
        "There is no parameter 'quite_else'; there are: 'series', 'base_start', 'base_end'.",
        "'series' (artifact) is missing.",
        "'base_start' (int) is missing.",
        "'base_end' takes an int, not '2010' (str).",
    ]


@pytest.mark.parametrize("more", [{"optional": True}, {"default": "5"}, {"default": "", "optional": False}])
def test_what_has_a_default_is_not_mandatory(more):
    """A default makes a parameter optional whatever `optional` says; None counts as not given."""
    made = service({"name": "x", "type": "int", **more})
    assert encode_parameters(made, {}) == encode_parameters(made, {"x": None}) == {}


def test_a_constant_cannot_be_changed():
    """Its default may be repeated."""
    made = service({"name": "x", "type": "int", "constant": True, "default": "5"})
    assert encode_parameters(made, {"x": 5}) == {"x": "5"}
    with pytest.raises(ParameterError, match="'x' is constant: '5'"):
        encode_parameters(made, {"x": 6})


def test_the_services_order_is_kept():
    """Equal requests encode equally whatever order the caller used."""
    made = service({"name": "b", "type": "int"}, {"name": "a", "type": "int"})
    assert list(encode_parameters(made, {"a": 1, "b": 2})) == ["b", "a"]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_survives(value):
    """The text of a float is that very float."""
    assert float(encode("float", value)) == value


@given(st.integers(-(2**53), 2**53))
def test_equal_numbers_encode_equally(value):
    """A float parameter given as 10 or as 10.0 is one request, with one key."""
    assert encode("float", value) == encode("float", float(value))


KINDS = ["string", "int", "float", "bool", "option"]
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.integers())


@given(st.dictionaries(st.sampled_from("abcdefgh"), values), st.permutations(KINDS))
def test_any_values_give_strings_or_all_faults(given_values, kinds):
    """Whatever is given: a string for each given name, or one fault for each that is wrong."""
    made = service(*({"name": name, "type": kind} for name, kind in zip("abcde", kinds, strict=True)))
    faults, encoded = [], {}
    try:
        encoded = encode_parameters(made, given_values)
    except ParameterError as error:
        faults = error.faults
    named = {name for name, value in given_values.items() if value is not None}
    assert faults or named == set(encoded) == set("abcde")
    assert all(isinstance(text, str) for text in encoded.values())
