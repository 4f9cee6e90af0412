"""What the record shows of a value: plain data, in part where it is much, and nothing that would have to be read."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from ivcap_flows.capture import recorded
from ivcap_flows.capture.calls import Call
from ivcap_flows.capture.values import ValueScan
from ivcap_flows.cli.rerun import _incomplete


def test_huge_and_lazy_values_are_named_not_read(recorded_graph):
    """What is no plain data is recorded by its type and neither printed, iterated nor computed: a mapping of an unknown
    type may be a distant store. What stands for data is not given to a rerun; a user's own dict is not taken for one.
    """

    class Lazy:
        def __repr__(self) -> str:
            raise AssertionError("printed")

        def __iter__(self):
            raise AssertionError("computed")

        def __getattr__(self, name: str):
            raise AssertionError(f"looked at {name}")

    class Store(Mapping):
        def __getitem__(self, key):
            raise AssertionError("read")

        __iter__ = __len__ = __getitem__

    loop: list[object] = []
    loop.append(loop)

    @recorded
    def take(**values: object) -> Lazy:
        return Lazy()

    take(
        lazy=Lazy(),
        store=Store(),
        data=b"1234",
        many=list(range(100_000)),
        loop=loop,
        odd=float("nan"),
        number=np.float32(1.5),
        frame=pd.DataFrame({"a": np.sin(np.arange(60))}),
        lazy_frame=pl.LazyFrame({"a": [1]}),
        plain={"type": "letter", "content": "Dear"},
    )
    [shown] = [node.attributes["parameters"] for node in recorded_graph() if node.type == "call"]
    assert shown["lazy"]["type"].endswith("Lazy")
    assert shown["store"]["unhashed"] == "not looked into"
    assert shown["data"] == {"type": "bytes", "unhashed": "4 bytes in memory"}
    assert len(shown["many"]) == 201
    assert (shown["odd"], shown["number"]) == ("nan", 1.5)
    incomplete = [bool(list(_incomplete(shown[name], ()))) for name in ("frame", "lazy_frame", "plain")]
    assert incomplete == [True, True, False]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (list(range(300)), [*range(299), 0]),
        ({str(n): n for n in range(300)}, {str(n): n if n < 299 else 0 for n in range(300)}),
        ("x" * 5_000, "x" * 4_999 + "y"),
        ([["x" * 4_000] * 10] * 10, [["x" * 4_000] * 10] * 9 + [["x" * 4_000] * 9 + ["x" * 3_999 + "y"]]),
    ],
    ids=["list", "dict", "text", "nested"],
)
def test_values_that_differ_only_in_what_is_not_shown_are_two(first, second):
    """Long texts, lists and dicts are shown in part, with the digest of the rest; all of it is bounded."""
    shown, other = ValueScan().at("r", first), ValueScan().at("r", second)
    assert shown != other
    assert shown == ValueScan().at("r", first)
    assert len(str(shown)) < 130_000
    assert list(_incomplete(shown, ())) != []


@pytest.mark.parametrize(
    "large",
    [
        lambda values: values,
        lambda values: {f"name {number}": value for number, value in enumerate(values)},
        lambda values: [{"name": value, "other": [value]} for value in values[:3_000]],
    ],
    ids=["list", "dict", "records"],
)
def test_texts_that_are_not_shown_cost_little_more_than_numbers(large):
    """They are scrubbed many at once, not one by one. What is kept of them is bounded."""

    def seconds(value):
        began = time.thread_time()
        look = ValueScan()
        look.at("r", value)
        assert look.weight < 4_000_000
        return time.thread_time() - began

    numbers, texts = (large(values) for values in ([*range(10_000)], [f"station {n}" for n in range(10_000)]))
    assert min(seconds(texts) for _ in range(3)) < 5 * min(seconds(numbers) for _ in range(3))


def test_nothing_is_kept_of_a_result_but_what_is_found_in_it():
    """The JSON of a result is not recorded, so its texts are not weighed, scrubbed or hashed."""
    look = Call("c", "call", "c", "r", "a", None).returned
    look.at("result", {"texts": ["x" * 10_000] * 1_000, "path": Path("a")})
    assert look.paths == [("result", "a/")]
    assert look.weight <= 2_000


def test_a_secret_among_what_is_not_shown_is_not_told_by_the_digest():
    """Two lists that differ only in a password have one digest, wherever in the list it is."""

    def told(secret):
        return ValueScan().at("r", [*range(300), {"password": secret}, f"https://user:{secret}@host/x"])

    assert told("first-password") == told("other-password")
    assert told("first-password") != ValueScan().at(
        "r", [*range(300), {"password": "first-password"}, "https://host/x"]
    )
