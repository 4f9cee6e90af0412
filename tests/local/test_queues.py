"""Queues of the embedded IVCAP: first in, first out, each message once, each account its own."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

SCHEMA = "urn:ivcap:schema:queue:message.1"


def make(caller, name=None, status=201, **more):
    return caller.call("POST", "/1/queues", status, json={"name": name or uuid.uuid4().hex, **more}).json()["id"]


@pytest.fixture
def queue(first):
    return make(first, description="of a test")


def send(caller, queue, content, status=200, **params):
    body = json.dumps(content).encode()
    return caller.call("POST", f"/1/queues/{queue}/messages", status, params=params, content=body).json()


def take(caller, queue, **params):
    return caller.get(f"/1/queues/{queue}/messages", params=params)["messages"]


def test_messages_come_out_once_in_the_order_in_which_they_went_in(first, queue):
    """Any JSON comes out unchanged, one at a time unless more are requested, with its id and schema.

    If several callers take messages at the same time, each message goes to one of them.
    """
    contents = [{"n": 1}, [1, 2.5, None], "text ✓", 0, True, None, {"deep": {"er": []}}]
    ids = [send(first, queue, content, schema=SCHEMA)["id"] for content in contents]
    for limit in ("0", "-1", "many"):
        first.call("GET", f"/1/queues/{queue}/messages", 422, params={"limit": limit})
    taken = take(first, queue) + take(first, queue, limit=2) + take(first, queue, limit=50)
    assert [message["content"] for message in taken] == contents
    assert [message["id"] for message in taken] == ids
    assert {(message["schema"], message["content-type"]) for message in taken} == {(SCHEMA, "application/json")}
    assert take(first, queue, limit=50) == []
    for n in range(40):
        send(first, queue, n)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda _: take(first, queue, limit=3), range(14)))
    assert sorted(message["content"] for part in parts for message in part) == list(range(40))


def test_queue_tells_what_is_in_it(first, queue):
    """The record has the number of waiting messages and their bytes. An empty queue has no first and last time.

    The list has the fields that OpenAPI 0.48 requires, and accepts filters.
    """
    empty = first.get(f"/1/queues/{queue}")
    assert (empty["total-messages"], empty["bytes"]) == (0, 0)
    assert empty["description"] == "of a test" and "created-at" in empty and "first-time" not in empty
    send(first, queue, "äb")
    send(first, queue, {"a": 1})
    full = first.get(f"/1/queues/{queue.rsplit(':', 1)[-1]}")
    assert (full["total-messages"], full["bytes"]) == (2, len('"\\u00e4b"') + len('{"a":1}'))
    assert full["first-time"] <= full["last-time"]
    take(first, queue, limit=5)
    assert first.get(f"/1/queues/{queue}")["total-messages"] == 0
    (item,) = first.get("/1/queues", params={"filter": f"name == '{full['name']}'"})["items"]
    assert item["id"] == queue and item["account"].startswith("urn:ivcap:account:")
    assert first.get(item["href"].removeprefix(first.url))["id"] == queue


def test_a_name_is_taken_until_its_queue_is_deleted_with_its_messages(first, queue):
    """Until then a second queue of the name is refused with the id of the first; afterwards no route finds the first,
    and a new queue of the name is empty."""
    name = first.get(f"/1/queues/{queue}")["name"]
    refused = first.call("POST", "/1/queues", 409, json={"name": name})
    assert refused.json()["id"] == queue and refused.headers["goa-error"] == "already-created"
    send(first, queue, "old")
    first.call("DELETE", f"/1/queues/{queue}", 204)
    first.call("GET", f"/1/queues/{queue}/messages", 404)
    first.call("POST", f"/1/queues/{queue}/messages", 404, json=1)
    first.call("DELETE", f"/1/queues/{queue}", 404)
    assert take(first, make(first, name), limit=5) == []


@pytest.mark.parametrize("wrong", ["a*", "a>b", "a\\b", "a\n", "\u200b", "n" * 256, None, 5])
def test_a_name_of_other_forms_is_refused(first, wrong):
    """It has 1 to 255 printable characters without blanks, path separators and wildcards (IVCAP OpenAPI 0.48)."""
    assert first.call("POST", "/1/queues", 422, json={"name": wrong}).json()["name"] == "name"


@pytest.mark.long
def test_large_messages_are_bounded(first, queue):
    """A message over 1 MiB is refused.

    A reply has as many large messages as fit, and the next reply the rest, in order.
    """
    send(first, queue, "x" * 1_100_000, 413)
    for n in range(20):
        send(first, queue, f"{n:02}" + "x" * 1_000_000)
    parts = [take(first, queue, limit=100), take(first, queue, limit=100)]
    assert 0 < len(parts[0]) < 20
    assert [int(message["content"][:2]) for part in parts for message in part] == list(range(20))


NO_JSON = {
    "nothing": b"",
    "broken": b"{",
    "nan": b"[NaN]",
    "huge": b"[1e400]",
    "long": b"[-1" + b"0" * 290 + b"e30]",
    "half-escape": b'"\\ud800"',
    "half-bytes": b'"\xed\xa0\x80"',
    "utf-16": b"\xff\xfe1\x00",
    "null": b"[1]\x00",
    "deep": b"[" * 5000 + b"]" * 5000,
}


def test_what_is_no_json_is_refused(first, queue):
    """Numbers, characters and encodings that are not JSON are a 400, and nothing is put into the queue."""
    for body in NO_JSON.values():
        first.call("POST", f"/1/queues/{queue}/messages", 400, content=body)
    assert take(first, queue) == []
