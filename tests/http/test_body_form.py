"""What a body shows itself to be, and what is never taken for an error."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcap_flows.http.body_form import form_of, forms_of

# Before Python 3.11, csv writes no NUL.
_CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["{}", "[", '{"a": 1}', "<TICKER>", "<A>", "<0.5", "<?", "NaN", "\ufeff"]
)


@given(st.lists(st.lists(_CELLS, min_size=2, max_size=4), min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_a_table_is_a_table(rows, delimiter):
    """Whatever its cells hold, also of a server that calls it a web page."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    assert form_of(text.getvalue().encode(), "text/html") is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    st.sampled_from([None, 2]),
    st.sampled_from(["utf-8", "utf-8-sig"]),
)
def test_an_object_is_json(value, indent, encoding):
    """An object, or a list of objects, however it is written."""
    for whole in ({"a": value, "b": 1}, {}, [], [{"a": value}]):
        assert form_of(json.dumps(whole, indent=indent).encode(encoding)) == "JSON"
        assert form_of(json.dumps(whole, ensure_ascii=False).encode(encoding)) == "JSON"


@given(st.binary(max_size=300))
def test_any_bytes_have_some_form(body):
    form_of(body, "text/html")
    form_of(b"<" + body)
    form_of(b"{" + body)


@pytest.mark.parametrize(
    ("media_type", "forms"),
    [
        ("text/csv", set()),
        ("application/x-netcdf", set()),
        ("application/geo+json-seq", {"JSON"}),
        ("application/yaml", {"JSON"}),
        ("image/svg+xml", {"XML"}),
        ("application/xhtml+xml", {"XML", "a web page"}),
        ("Text/HTML; charset=utf-8", {"XML", "a web page"}),
        ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", set()),
        ("text/plain", None),
        ("text/markdown", None),
        ("application/octet-stream", None),
    ],
)
def test_a_media_type_has_forms(media_type, forms):
    """None where any is right."""
    assert forms_of(media_type) == forms
