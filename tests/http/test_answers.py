"""What shows that a reply answers another request."""

import json

import pytest

from ivcap_flows.http.answers import misfit
from ivcap_flows.http.reply import Reply
from ivcap_flows.identity import KEY_FIELD, KEY_TAG, digest, with_key

KEY, OTHER = digest(b"one"), digest(b"other")


@pytest.mark.catches("replies without the key taken")
@pytest.mark.parametrize(
    ("field", "own", "others"),
    [
        ("name", with_key("mine", KEY), [with_key("mine", OTHER), "of another tool"]),
        ("tags", [f"{KEY_TAG}{KEY}", "x"], [[f"{KEY_TAG}{OTHER}"], ["x"], []]),
        ("user_metadata", {KEY_FIELD: KEY}, [{KEY_FIELD: OTHER}, {"x": "y"}, {}]),
    ],
)
def test_a_reply_has_the_key_of_its_request(field, own, others):
    """In the field in which it was sent, if the reply has that. Which replies have it differs between deployments."""

    def judged(value):
        body = json.dumps(value).encode()
        reply = Reply("Provena", "POST", "/create", 200, {"content-type": "application/json"}, body)
        return misfit(reply, {}, {field: own})

    for body in ({field: own}, {"created_item": {field: own}}, {}, {field: None}, {"created_item": {"id": "x"}}):
        assert judged(body) is None
    for other in others:
        assert judged({field: other}) and judged({"created_item": {field: other}})


def test_a_name_that_the_platform_cuts_says_nothing():
    """The key is at its end."""
    reply = Reply("IVCAP", "POST", "/1/orders", 200, {"content-type": "application/json"}, b'{"name": "a long"}')
    assert misfit(reply, {}, {"name": with_key("a long name", KEY)}) is None
