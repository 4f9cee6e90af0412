"""URNs, canonical JSON and keys."""

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ivcap_flows import identity

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)
BASE = {"platform": "p", "account": "a", "scope": "run:1", "noun": "order", "request": {"n": 1}}


def shuffled(value):
    if isinstance(value, dict):
        return {k: shuffled(value[k]) for k in reversed(list(value))}
    return [shuffled(v) for v in value] if isinstance(value, list) else value


@given(JSON)
def test_a_key_does_not_depend_on_the_order_of_fields(request):
    """Equal requests have equal keys however their fields are ordered."""
    assert identity.key_of(**BASE | {"request": request}) == identity.key_of(**BASE | {"request": shuffled(request)})


def test_every_part_of_a_key_counts():
    """Another platform, account, scope, noun, request, discriminator or generation is another key."""
    keys = {identity.key_of(**BASE)}
    for part in BASE:
        keys.add(identity.key_of(**BASE | {part: "other"}))
    keys.add(identity.key_of(**BASE, discriminator="d"))
    keys.add(identity.key_of_generation(identity.key_of(**BASE), 1))
    assert len(keys) == len(BASE) + 3


def test_the_next_generation_keeps_the_first_ones_hash():
    """A resubmission is `<key>.<n>`, so that the first is found from it."""
    assert identity.key_of_generation(identity.key_of(**BASE), 2) == identity.key_of(**BASE) + ".2"


def test_a_platform_is_its_normalised_url():
    """Case, default port and trailing slash do not make another platform; a port or path prefix does."""
    same = {
        identity.platform_id(u)
        for u in ("https://API.example.org", "https://api.example.org:443/", " https://api.example.org")
    }
    assert same == {"https://api.example.org"}
    assert identity.platform_id("http://api.example.org:8080/ivcap/") == "http://api.example.org:8080/ivcap"


def test_the_api_of_a_real_platform_shows_work_at_an_address():
    """An embedded platform has none that lasts, nor has a job without its service."""
    order, job, service = (f"urn:ivcap:{noun}:1" for noun in ("order", "job", "service"))
    there = "https://api.example.org"
    assert identity.api_address(there, order) == f"{there}/1/orders/{order}"
    assert identity.api_address(there, job, service) == f"{there}/1/services2/{service}/jobs/{job}"
    assert identity.api_address(there, job) is None
    assert identity.api_address(identity.EMBEDDED + "1", order) is None


def test_artifacts_are_found_anywhere_in_a_request():
    """Every artifact URN in nested values and inside of texts, each once, in order."""
    value = {
        "a": ["urn:ivcap:artifact:1", {"b": "see urn:ivcap:artifact:2, urn:ivcap:artifact:1"}],
        "c": "urn:ivcap:job:3",
    }
    assert identity.artifact_urns(value) == ["urn:ivcap:artifact:1", "urn:ivcap:artifact:2"]


ODD = ["\\", "u", r"\udcf1", r"\u005c", "\udcf1", "\ud83d", "\ude00", "f1", "005c", "ñ", "/"]


@given(st.binary().map(os.fsdecode) | st.lists(st.sampled_from(ODD)).map("".join))
@example(os.fsdecode(b"Mu\xf1oz.csv"))
def test_the_text_of_a_path_leads_back_to_the_path(path):
    """UTF-8 holds the text of every path, and no two paths have one text, whatever bytes and escapes are in them."""
    text = identity.path_text(path)
    assert identity.is_utf8(text)
    assert identity.path_of(text) == path
    assert text == path or not identity.is_utf8(path) or "\\u" in path


@pytest.mark.parametrize("folder", ["/data/", "data/", "C:\\data\\", ""])
@pytest.mark.parametrize("name", ["a.csv", r"Mu\udcf1oz.csv", r"\udcf1.csv", r"a\u005cudcf1.csv"])
def test_a_path_is_called_by_its_last_part(folder, name):
    """An escape in its text separates nothing."""
    assert identity.last_part(folder + name) == name
