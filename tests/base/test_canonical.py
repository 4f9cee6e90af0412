"""The one canonical form of values, and what has none."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections import ChainMap
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, ConfigDict, PlainSerializer, RootModel, SecretStr, computed_field

from ivcap_flows.canonical import canonical_form
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Artifact, LocalFile
from ivcap_flows.identity import canonical

ARTIFACT = Artifact(urn="urn:ivcap:artifact:1", platform="p", size=3)
EAST = timezone(timedelta(hours=9, minutes=30))


class Season(Enum):
    WARM = "warm"
    COLD = "cold"
    MONTHS = frozenset({12, 1, 2})


class Month(str, Enum):
    MAY = "may"


@dataclasses.dataclass(frozen=True)
class Box:
    north: float
    seasons: frozenset[Season] = frozenset({Season.WARM, Season.COLD})


class Names(RootModel[set[str]]):
    pass


class Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="allow", alias_generator=lambda n: n.replace("_", "-"), populate_by_name=True
    )

    given_at: datetime | None = None
    day: Annotated[date, PlainSerializer(lambda day: f"{day:%d.%m.%Y}")] = date(1982, 12, 1)
    images: frozenset[Artifact] = frozenset()
    by_month: dict[int, set[Season]] = {}
    boxes: list[Box] = []
    url: AnyUrl = AnyUrl("https://example.org/x")
    names: Names = Names({"b", "a"})

    @computed_field
    @property
    def letters(self) -> set[str]:
        return set("hash seed")


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (None, None),
        ([True, 1, 1.5, "é"], [True, 1, 1.5, "é"]),
        ((1, (2,)), [1, [2]]),
        ({"b", "a", "ä"}, ["a", "b", "ä"]),
        ({10, 9, "x", None, 1.5, (3, 1)}, ["x", 1.5, 10, 9, [3, 1], None]),
        ({Season.WARM, Season.COLD, Month.MAY}, ["cold", "may", "warm"]),
        ({ARTIFACT, ARTIFACT.model_copy(update={"urn": "urn:a"})}, ["urn:a", "urn:ivcap:artifact:1"]),
        ({frozenset({"b", "a"}), frozenset({"c"})}, [["a", "b"], ["c"]]),
        (Season.MONTHS, [1, 12, 2]),
        ({1: "a", Month.MAY: "b", date(1982, 1, 1): 0}, {"1": "a", "may": "b", "1982-01-01": 0}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
        (Box(1.0), {"north": 1.0, "seasons": ["cold", "warm"]}),
        (datetime(1982, 12, 1, 6), "1982-12-01T06:00:00"),
        (datetime(1982, 12, 1, 6, tzinfo=EAST), "1982-11-30T20:30:00+00:00"),
        (pd.Timestamp("1982-12-01T06:00:00+09:30"), "1982-11-30T20:30:00+00:00"),
        (date(1982, 12, 1), "1982-12-01"),
        (time(6, 30), "06:30:00"),
        (timedelta(days=1, milliseconds=1500), "PT86401.5S"),
        (-timedelta(seconds=90), "-PT90S"),
        ([Decimal("1.50"), Decimal("1E+2"), Decimal("-0.0"), Decimal(7)], ["1.5", "100", "0", "7"]),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ([np.int64(7), np.float32(0.5), np.bool_(True), np.str_("x")], [7, 0.5, True, "x"]),
        ([np.datetime64("1982-12-01"), np.timedelta64(90, "s")], ["1982-12-01", "PT90S"]),
        (ARTIFACT, ARTIFACT.urn),
        (
            Model(
                given_at=datetime(1982, 12, 1, 6, tzinfo=EAST),
                images=frozenset({ARTIFACT}),
                by_month={1: {Season.WARM, Season.COLD}},
                boxes=[Box(1.0)],
                more={"a": {"c", "b"}},
            ),
            {
                "given-at": "1982-11-30T20:30:00+00:00",
                "day": "01.12.1982",
                "images": [ARTIFACT.urn],
                "by-month": {"1": ["cold", "warm"]},
                "boxes": [{"north": 1.0, "seasons": ["cold", "warm"]}],
                "url": "https://example.org/x",
                "names": ["a", "b"],
                "letters": sorted(set("hash seed")),
                "more": {"a": ["b", "c"]},
            },
        ),
    ],
)
def test_a_value_has_one_form(value: Any, form: Any) -> None:
    """The table of the module, also nested; a model's own serializers are heard."""
    found = canonical_form(value, "request")
    assert found == form
    assert canonical(found) == canonical(json.loads(json.dumps(found)))


class Odd:
    pass


class Holder(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    inner: Any


HIMSELF: list[Any] = []
HIMSELF.append(HIMSELF)


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        ({"options": [1, 2, 3, {"when": Odd()}]}, "request.options[3].when", "Odd"),
        ({"a b": {"x": {Odd()}}}, "request['a b'].x[…]", "Odd"),
        ({"n": 2**53}, "request.n", "int"),
        ({"n": [float("nan")]}, "request.n[0]", "float"),
        ({"n": np.float64("inf")}, "request.n", "float64"),
        ({"n": Decimal("nan")}, "request.n", "Decimal"),
        ({"at": pd.NaT}, "request.at", "NaTType"),
        ({"at": np.datetime64("1982-12-01T06:00:00", "ns")}, "request.at", "datetime64"),
        ({"path": Path("/data/a.csv")}, "request.path", "PosixPath"),
        ({"file": LocalFile(path="/data/a.csv", sha256="0" * 64, size=1)}, "request.file", "LocalFile"),
        ({"raw": b"x"}, "request.raw", "bytes"),
        ({"table": np.arange(3)}, "request.table", "ndarray"),
        ({"key": SecretStr("secret")}, "request.key", "SecretStr"),
        ({"text": "\ud800"}, "request.text", "str"),
        ({"f": print}, "request.f", "builtin_function_or_method"),
        ({1.5: "x"}, "request", "float"),
        ({1: "x", "1": "y"}, "request", "dict"),
        ({True: "x"}, "request", "bool"),
        (Box(float("inf")), "request.north", "float"),
        (Holder(inner=[Path("a")]), "request.inner[0]", "PosixPath"),
        (Holder(inner={"key": SecretStr("secret")}), "request.inner.key", "SecretStr"),
        (Holder(inner=float("nan")), "request.inner", "float"),
        (Holder(inner=Odd()), "request", "Holder"),
        (HIMSELF, "request", "list"),
    ],
)
def test_what_has_no_form_is_named(value: Any, path: str, kind: str) -> None:
    """The error names the path and the type; an address or a secret is not in it."""
    with pytest.raises(InputError) as error:
        canonical_form(value, "request")
    assert (error.value.path, error.value.type) == (path, kind)
    assert f"`{path}`" in error.value.message
    assert "0x" not in error.value.message and "'secret'" not in error.value.message


HASHABLE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text('ab{"é', max_size=3) | st.sampled_from(Season),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(HASHABLE, max_size=5, unique=True))
def test_the_order_of_filling_is_nothing(items: list[Any]) -> None:
    """Sets and dicts have one form in whatever order they were filled."""
    forms = {canonical(canonical_form(each, "set")) for each in map(set, itertools.permutations(items))}
    forms |= {canonical(canonical_form(set(items), "set"))}
    assert len(forms) == 1
    named = [(f"k{number}", item) for number, item in enumerate(items)]
    assert len({canonical(canonical_form(dict(each), "dict")) for each in (named, named[::-1])}) == 1


HOSTS = [
    {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C", "ORDER": "1"},
    {"PYTHONHASHSEED": "1", "TZ": "Australia/Darwin", "LC_ALL": "C.UTF-8", "ORDER": "2"},
    {"PYTHONHASHSEED": "4294967295", "TZ": "America/Lima", "LC_ALL": "POSIX", "ORDER": "3", "PYTHONUTF8": "1"},
    {"PYTHONHASHSEED": "2", "TZ": "UTC", "LC_ALL": "C", "ORDER": "4"},
]


@pytest.mark.long
def test_every_process_writes_the_same(tmp_path: Path) -> None:
    """Hash seed, time zone, locale, working folder and the checkout's place change neither keys nor the identity of
    runs, nor what is recorded of sets."""
    said = []
    for number, host in enumerate(HOSTS):
        checkout = tmp_path / f"checkout-{number}" / ("deeper" * number)
        (checkout / ".git").mkdir(parents=True)
        (checkout / "flows").mkdir()
        script = shutil.copy(Path(__file__).with_name("canonical_values.py"), checkout / "flows")
        done = subprocess.run(
            [sys.executable, str(script), "7", "150"],
            cwd=[checkout, tmp_path, checkout / "flows", tmp_path][number],
            env={**os.environ, **host},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr[-2000:]
        said.append(json.loads(done.stdout))
    keys, runs, codes, records = zip(*[list(zip(*each, strict=True)) for each in said], strict=True)
    assert len(set(keys)) == len(set(runs)) == 1
    assert len(set(keys[0])) > 100 and len(set(runs[0])) > 100
    assert set(sum(codes, ())) == {"flows/canonical_values.py:f"}
    # A time is recorded with the offset that it was given.
    assert records[0] == records[3]
