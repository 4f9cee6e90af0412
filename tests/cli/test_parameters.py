"""Parameters of `run` and `plan`: read by their types, and refused with a word on how they are written."""

import enum
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import pytest
from prefect import flow
from prefect.blocks.system import Secret as SecretBlock
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, HttpUrl, Json, SecretStr, StrictInt
from typing_extensions import TypedDict

from ivcap_flows.capture.flow_identity import scan_parameters
from ivcap_flows.cli.parameters import parameters
from ivcap_flows.cli.written_values import parameter
from ivcap_flows.errors import InputError

UTC = timezone.utc
REFUSED = object()


class Colour(enum.Enum):
    RED = "red"
    ONE = 1


class Level(enum.IntEnum):
    LOW = 1


class Season(BaseModel):
    model_config = ConfigDict(strict=True)
    months: tuple[int, int] | None = None
    name: str
    weight: Decimal = Decimal(1)
    since: date | None = Field(None, alias="from")


@dataclass
class Place:
    lat: float
    name: str = ""
    code: str | int = ""


class Box(TypedDict, total=False):
    size: int
    label: str


class Span(NamedTuple):
    start: date
    end: date


class Cat(BaseModel):
    kind: Literal["cat"]
    n: int


class Dog(BaseModel):
    kind: Literal["dog"]
    n: str


def from_hex(text: Any) -> int:
    return int(text, 16) if isinstance(text, str) else text


Hundredfold = Annotated[int, AfterValidator(lambda value: value * 100)]
Hex = Annotated[int, BeforeValidator(from_hex)]
Listed = Annotated[list[int], BeforeValidator(lambda given: given.split(",") if isinstance(given, str) else given)]
Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
NONE = None

TABLE: list[tuple[Any, dict[str, Any]]] = [
    (
        int,
        {
            "10": 10,
            "010": 10,
            "-5": -5,
            "+5": 5,
            "5.0": 5,
            "9007199254740993": 9007199254740993,
            **dict.fromkeys(("1:30", "0x10", "1e3", "ten", "", "null", "true", "[1]", "1.5", '"5"'), REFUSED),
        },
    ),
    (float, {"1": 1.0, "010": 10.0, "1e3": 1000.0, ".5": 0.5, "inf": float("inf"), "1:30": REFUSED, "1,5": REFUSED}),
    (bool, {"true": True, "no": False, "off": False, "1": True, "0": False, "N": False, "2": REFUSED, "null": REFUSED}),
    (
        str,
        {
            text: text
            for text in ("010", "no", "null", "1:30", "[a]", '"x"', "", " x ", "a=b", "{", "2010-01-01", "1e3", "true")
        },
    ),
    (
        Decimal,
        {
            "1.2345678901234567890123": Decimal("1.2345678901234567890123"),
            "010": Decimal(10),
            "1e3": Decimal("1E+3"),
            "1:30": REFUSED,
        },
    ),
    (date, {"2010-01-31": date(2010, 1, 31), "2010-1-31": REFUSED, "2010": REFUSED, "31.1.2010": REFUSED}),
    (
        datetime,
        {
            "2010-01-31": datetime(2010, 1, 31),
            "2010-01-31 12:30": datetime(2010, 1, 31, 12, 30),
            "2010-01-31T12:30:00Z": datetime(2010, 1, 31, 12, 30, tzinfo=UTC),
            "yesterday": REFUSED,
        },
    ),
    (time, {"12:30": time(12, 30), "12:30:15": time(12, 30, 15), "1230": REFUSED}),
    (
        timedelta,
        {
            "PT90S": timedelta(seconds=90),
            "01:30:00": timedelta(hours=1, minutes=30),
            "1 day": timedelta(1),
            "90": REFUSED,
            "1:30": REFUSED,
        },
    ),
    (UUID, {"6ba7b810-9dad-11d1-80b4-00c04fd430c8": UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), "6ba7": REFUSED}),
    (Path, {"a b/c.csv": Path("a b/c.csv"), "010": Path("010"), "null": Path("null"), "[a]": Path("[a]")}),
    (bytes, {"010": b"010", "é": "é".encode()}),
    (Colour, {"red": Colour.RED, "1": Colour.ONE, "01": REFUSED, "RED": REFUSED, '"red"': REFUSED}),
    (Level, {"1": Level.LOW, "2": REFUSED}),
    (Literal["a", "1", 1, True, None], {"a": "a", "1": 1, "true": True, "null": None, "b": REFUSED, "01": REFUSED}),
    (Literal["no", "010"], {"no": "no", "010": "010", "10": REFUSED}),
    (SecretStr, {"010": SecretStr("010"), "null": SecretStr("null"), "[a": SecretStr("[a")}),
    (HttpUrl, {"https://example.org/a?b=[c]": HttpUrl("https://example.org/a?b=[c]"), "nowhere": REFUSED}),
    (StrictInt, {"010": 10, "1.5": REFUSED}),
    (Annotated[int, Field(gt=3)], {"010": 10, "3": REFUSED}),
    (Hundredfold, {"5": 500}),
    (Hex, {"ff": 255, "10": 16}),
    (Listed, {"1,2": [1, 2], "[1, 2]": [1, 2], "010": [10]}),
    (Json[list[int]], {"[1, 2]": [1, 2], "[010]": REFUSED}),
    (int | None, {"null": None, "010": 10, "none": REFUSED, "~": REFUSED, "": REFUSED}),
    (str | None, {"null": None, "Null": "Null", "~": "~", "": "", "7": "7", '"null"': '"null"'}),
    (list[int] | None, {"null": None, "[010]": [10], "": REFUSED}),
    (
        int | str,
        {
            text: text
            for text in ("no", "010", "1:30", "1.5", "5.0", "1e3", "+5", "true", "null", " 5", '"5"', "", "[5]")
        }
        | {"5": 5, "-5": -5, "0": 0},
    ),
    (float | str, {"1.5": 1.5, "5": 5.0, "1e3": 1000.0, ".5": ".5", "nan": "nan", "010": "010"}),
    (int | float | str, {"5": 5, "5.0": 5.0, "05": "05"}),
    (bool | str, {"true": True, "yes": "yes", "True": "True", "1": "1"}),
    (Decimal | str, {"1.10": Decimal("1.10"), "1,1": "1,1"}),
    (date | str, {"2010-01-31": "2010-01-31"}),
    (Path | str, {"a.csv": "a.csv", "5": "5"}),
    (int | float, {"5": 5, "1.5": 1.5, "010": 10}),
    (float | int, {"5": 5, "1.5": 1.5}),
    (int | bool, {"1": 1, "true": True, "yes": True}),
    (date | datetime, {"2010-01-31": date(2010, 1, 31), "2010-01-31T00:00:00": datetime(2010, 1, 31)}),
    (datetime | date, {"2010-01-31": date(2010, 1, 31)}),
    (int | date, {"2010": 2010, "2010-01-31": date(2010, 1, 31)}),
    (Literal["auto"] | int, {"auto": "auto", "5": 5, "010": 10, "other": REFUSED}),
    (str | list[str], {"a": "a", "[a, b]": ["a", "b"], "a, b": "a, b", '["a"]': ["a"], "[a": "[a", "{a}": "{a}"}),
    (str | dict[str, str], {"{a}": "{a}", "a: b": "a: b", "{a: b}": {"a": "b"}}),
    (Path | list[Path], {"[a, b]": [Path("a"), Path("b")], "a": Path("a")}),
    (int | list[int], {"5": 5, "[5, 06]": [5, 6]}),
    (list[str] | list[int], {"[1, 2]": [1, 2], "[a, 1]": ["a", "1"], '["1"]': ["1"]}),
    (
        list[int],
        {"[010, 11]": [10, 11], "- 010\n- 11": [10, 11], "[]": [], "1, 2": REFUSED, "[1": REFUSED, "5": REFUSED},
    ),
    (
        list[str],
        {
            "[NO, SE]": ["NO", "SE"],
            "[2010-01-01, 1:30]": ["2010-01-01", "1:30"],
            "[2010, null, 1.50, true]": ["2010", "null", "1.50", "true"],
            '["a, b", c]': ["a, b", "c"],
            "[http://x/y, a#b]": ["http://x/y", "a#b"],
            "[a, ~]": ["a", "~"],
            "[!!int 5]": REFUSED,
            "NO": REFUSED,
        },
    ),
    (list[str | None], {"[null, a]": [None, "a"], '["null"]': ["null"]}),
    (list[int | str], {'[5, "5", no, 05]': [5, "5", "no", "05"]}),
    (list[time], {"[12:30]": [time(12, 30)]}),
    (
        list[Decimal],
        {
            "[1.2345678901234567890123]": [Decimal("1.2345678901234567890123")],
            '["1.2345678901234567890123", 010]': [Decimal("1.2345678901234567890123"), Decimal(10)],
        },
    ),
    (list[list[bool]], {"[[no, yes], [1]]": [[False, True], [True]]}),
    (list[Path], {"[a.csv, 010]": [Path("a.csv"), Path("010")]}),
    (list[SecretStr], {"[010]": [SecretStr("010")]}),
    (tuple[int, str], {"[010, 010]": (10, "010"), "[1]": REFUSED}),
    (tuple[int, ...], {"[1, 010]": (1, 10)}),
    (set[int], {"[1, 01]": {1}}),
    (frozenset[str], {"[no]": frozenset({"no"})}),
    (Sequence[float], {"[1, 010]": [1.0, 10.0]}),
    (Mapping[str, date], {"{no: 2010-01-31}": {"no": date(2010, 1, 31)}}),
    (dict[int, bool], {"{010: no}": {10: False}, '{"1": true}': {1: True}}),
    (
        dict[str, int],
        {
            "a: 010\nb: 2": {"a": 10, "b": 2},
            '{"a":1}': {"a": 1},
            **dict.fromkeys(("{a:1}", "{a: }", "{a: 1, a: 2}", '{"a": 1, "a": 2}', "{[a]: 1}", "a"), REFUSED),
        },
    ),
    (dict[str, list[str]], {"{on: [off]}": {"on": ["off"]}}),
    (
        Season,
        {
            "{name: no, months: [010, 11], weight: 1.10, from: 2010-01-31}": Season(
                name="no", months=(10, 11), weight=Decimal("1.10"), **{"from": date(2010, 1, 31)}
            ),
            '{"name": "no", "months": null}': Season(name="no"),
            "{months: null}": REFUSED,
        },
    ),
    (list[Season], {"[{name: 010}]": [Season(name="010")]}),
    (Place, {"{lat: 010, name: 010, code: 010}": Place(10.0, "010", "010"), "{lat: 1, code: 5}": Place(1.0, "", 5)}),
    (Box, {"{size: 010, label: 010}": {"size": 10, "label": "010"}, "{colour: 1}": REFUSED}),
    (Span, {"[2010-01-31, 2010-02-01]": Span(date(2010, 1, 31), date(2010, 2, 1))}),
    (Pet, {"{kind: cat, n: 010}": Cat(kind="cat", n=10), "{kind: dog, n: 010}": Dog(kind="dog", n="010")}),
    (Cat | Dog, {"{kind: dog, n: 010}": Dog(kind="dog", n="010")}),
    (SecretBlock, {"{value: hush}": SecretBlock(value="hush")}),
    (
        Any,
        {
            **{
                text: text
                for text in ("no", "010", "1:30", "2010-01-31", "[a]", "{a: 1}", "", " 5", "nan", "~", "[1", '"')
            },
            "5": 5,
            "1.5": 1.5,
            "true": True,
            "null": None,
            '"5"': "5",
            "[1, null]": [1, None],
            '{"a": [1]}': {"a": [1]},
            '{"a": 1, "a": 2}': REFUSED,
        },
    ),
    (list, {"[010, no, 5, null, a]": ["010", "no", 5, None, "a"], '["5"]': ["5"]}),
    (dict, {"{a: 010, 1: [no, 2.0]}": {"a": "010", "1": ["no", 2.0]}}),
    (list[Any], {"[[010, 1.5], {a: yes}]": [["010", 1.5], {"a": "yes"}]}),
    (object, {"5": 5, "no": "no"}),
]
"""The value of each text, by type. `REFUSED`: the flow does not begin."""

TRICKY = [
    *("5", "null", '"x"', "[a]", '["a"]', "{a: b}", "", " 5 ", "-p", "a=b", ":=5", "x\ny", "true", "010", "1e3", "é")
]
"""Texts that look like something else."""
UNRECORDED = [bytes, SecretStr, list[SecretStr], SecretBlock, HttpUrl, Decimal | str, Hundredfold, Hex]
"""Of these, the record does not have the value that was given."""


def flow_of(kind: Any) -> Any:
    """A flow with one parameter `x` of this type."""

    def takes(x):
        return x

    takes.__annotations__ = {"x": kind}
    return flow(takes)


def given(made: Any, *words: str) -> Any:
    """What the flow gets: what is read, as Prefect validates it; or why it is refused."""
    try:
        return made.validate_parameters(parameters(made, words))["x"]
    except InputError as error:
        return error


def same(found: Any, value: Any) -> bool:
    return found == value and repr(found).replace("TzInfo(0)", "datetime.timezone.utc") == repr(value)


def test_a_value_is_read_by_its_type():
    """Each text of the table is its value, of the same type, or is refused with a word on how one is written."""
    wrong, count = [], 0
    for kind, written in TABLE:
        made = flow_of(kind)
        for text, value in written.items():
            count += 1
            found = given(made, f"x={text}")
            refused = isinstance(found, InputError) and re.search("It is written like this: '?x=", str(found))
            if not (refused if value is REFUSED else same(found, value)):
                wrong.append((kind, text, found))
    print(f"{count} spellings of {len(TABLE)} types")
    assert wrong == [], "\n".join(map(str, wrong))


def test_what_rerun_prints_is_read_back():
    """Each value of the table, and texts that look like something else, by what is on record of them."""
    cases = [(kind, [*written.values()]) for kind, written in TABLE if kind not in UNRECORDED]
    cases += [(kind, TRICKY) for kind in (str, str | None, int | str, Any, str | list[str])]
    cases += [(list[kind], [TRICKY]) for kind in (str, str | None, int | str, Any)]
    wrong = []
    for kind, values in cases:
        made = flow_of(kind)
        for value in values:
            if value is not REFUSED:
                written = parameter("x", scan_parameters({"x": value}).shown["x"])
                if not same(found := given(made, written), value):
                    wrong.append((kind, value, written, found))
    assert wrong == [], "\n".join(map(str, wrong))


def test_what_is_not_validated_is_read_all_the_same():
    """By its annotation, also of `**` parameters; without one, JSON is JSON."""

    @flow(validate_parameters=False)
    def loose(n: int, anything, when: date | None = None, **more: int):  # type: ignore[no-untyped-def]
        """Takes what it is given."""

    words = ("n=010", "anything=010", "when=2010-01-31", "other=010")
    assert parameters(loose, words) == {"n": 10, "anything": "010", "when": date(2010, 1, 31), "other": 10}


@pytest.mark.catches("prefect logs parameters")
@pytest.mark.parametrize("word", ["token=ghx-1234567890", 'token:="ghx-1234567890"', "key=[ghx-1234567890]"])
def test_no_log_line_shows_a_secret_because_of_a_wrong_parameter(word):
    """Prefect would log all parameters; the error says what is wrong, and a user's validator may quote the value."""

    def quoted(text: str) -> str:
        raise ValueError(f"no such token: {text}")

    @flow
    def secretive(n: int = 1, token: Annotated[str, AfterValidator(quoted)] = "", key: list[int] | None = None):
        """Takes a secret."""

    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("prefect.flows").addHandler(handler)
    with pytest.raises(InputError) as refused:
        parameters(secretive, [word, "n=abc"])
    logging.getLogger("prefect.flows").removeHandler(handler)
    assert records == []
    assert "1234567890" not in str(refused.value)
    assert not refused.value.__cause__ and refused.value.__suppress_context__
    assert "1234567890" not in str(given(secretive, "key=[ghx-1234567890"))
