"""Queues of the embedded IVCAP: first in, first out, each message once, each account its own."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

SCHEMA = "urn:ivcap:schema:queue:message.1"


@pytest.fixture
def queue(first):
    return first.call("POST", "/1/queues", 201, json={"name": uuid.uuid4().hex, "description": "of a test"}).json()[
        "id"
    ]


def send(caller, queue, content, status=200, **params):
    body = json.dumps(content).encode()
    return caller.call("POST", f"/1/queues/{queue}/messages", status, params=params, content=body).json()


def take(caller, queue, **params):
    return caller.get(f"/1/queues/{queue}/messages", params=params)["messages"]


def test_messages_come_out_in_the_order_in_which_they_went_in(first, queue):
    """Any JSON comes out unchanged, one at a time unless more are requested, with its id and schema."""
    contents = [{"n": 1}, [1, 2.5, None], "text ✓", 0, True, None, {"deep": {"er": []}}]
    ids = [send(first, queue, content, schema=SCHEMA)["id"] for content in contents]
    taken = take(first, queue) + take(first, queue, limit=2) + take(first, queue, limit=50)
    assert [message["content"] for message in taken] == contents
    assert [message["id"] for message in taken] == ids
    assert {(message["schema"], message["content-type"]) for message in taken} == {(SCHEMA, "application/json")}
    assert take(first, queue, limit=50) == []


def test_each_message_is_taken_once(first, queue):
    """If several callers take messages at the same time, each message goes to one of them."""
    for n in range(40):
        send(first, queue, n)
    with ThreadPoolExecutor(4) as pool:
        taken = [
            message["content"]
            for part in pool.map(lambda _: take(first, queue, limit=3), range(14))
            for message in part
        ]
    assert sorted(taken) == list(range(40))


def test_queue_tells_what_is_in_it(first, queue):
    """The record has the number of waiting messages and their bytes. An empty queue has no first and last time."""
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


def test_name_is_taken_once_in_an_account(first, second):
    """A name that is taken is a 409 with the id of that queue. Another account may use it."""
    made = first.call("POST", "/1/queues", 201, json={"name": "taken"}).json()
    refused = first.call("POST", "/1/queues", 409, json={"name": "taken"})
    assert refused.json()["id"] == made["id"] and refused.headers["goa-error"] == "already-created"
    assert second.call("POST", "/1/queues", 201, json={"name": "taken"}).json()["id"] != made["id"]


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a*", "a>b", "a/b", "a\\b", "a\n", "\u200b", "n" * 256, None, 5])
def test_bad_name_is_refused(first, name):
    """A name has no whitespace, none of . * > / and backslash, and only printable characters (IVCAP OpenAPI 0.48)."""
    assert first.call("POST", "/1/queues", 422, json={"name": name}).json()["name"] == "name"


def test_queue_of_another_account_is_not_there(first, second, queue):
    """Another account can neither read, list, fill, empty nor delete a queue."""
    send(first, queue, 1)
    for method, path in (("GET", ""), ("GET", "/messages"), ("POST", "/messages"), ("DELETE", "")):
        second.call(method, f"/1/queues/{queue}{path}", 404, **({"json": 1} if method == "POST" else {}))
    assert queue not in [item["id"] for item in second.get("/1/queues", params={"limit": 50})["items"]]
    assert [message["content"] for message in take(first, queue, limit=5)] == [1]


def test_open_queue_is_read_by_all_and_used_by_its_account(first, second):
    """With an open policy others can see a queue, and not take from it."""
    body = {"name": "open", "policy": "urn:ivcap:policy:ivcap.open.queue"}
    queue = first.call("POST", "/1/queues", 201, json=body).json()["id"]
    assert second.get(f"/1/queues/{queue}")["name"] == "open"
    second.call("GET", f"/1/queues/{queue}/messages", 403)
    second.call("DELETE", f"/1/queues/{queue}", 403)


def test_deleting_a_queue_deletes_its_messages(first, queue):
    """A deleted queue is gone with its messages, and its name is free."""
    name = first.get(f"/1/queues/{queue}")["name"]
    send(first, queue, "old")
    first.call("DELETE", f"/1/queues/{queue}", 204)
    for method, path in (("GET", ""), ("GET", "/messages"), ("POST", "/messages"), ("DELETE", "")):
        first.call(method, f"/1/queues/{queue}{path}", 404, **({"json": 1} if method == "POST" else {}))
    again = first.call("POST", "/1/queues", 201, json={"name": name}).json()["id"]
    assert take(first, again, limit=5) == []


def test_queues_are_listed(first, queue):
    """The list has the fields that OpenAPI 0.48 requires, and accepts filters."""
    name = first.get(f"/1/queues/{queue}")["name"]
    (item,) = first.get("/1/queues", params={"filter": f"name == '{name}'"})["items"]
    assert item["id"] == queue and item["account"].startswith("urn:ivcap:account:")
    assert first.get(item["href"].removeprefix(first.url))["id"] == queue


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


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[NaN]",
        b"[1e400]",
        b"[-1" + b"0" * 290 + b"e30]",
        b'"\\ud800"',
        b'"\xed\xa0\x80"',
        b"\xff\xfe1\x00",
        b"[1]\x00",
        b"[" * 5000 + b"]" * 5000,
    ],
    ids=["nothing", "broken", "nan", "huge", "long", "half-escape", "half-bytes", "utf-16", "null", "deep"],
)
def test_what_is_no_json_is_refused(first, queue, body):
    """Numbers, characters and encodings that are not JSON are a 400, and nothing is put into the queue."""
    first.call("POST", f"/1/queues/{queue}/messages", 400, content=body)
    assert take(first, queue) == []


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_bad_limit_takes_nothing(first, queue, limit):
    """A limit that is not a positive number is refused, and the messages stay."""
    send(first, queue, 1)
    first.call("GET", f"/1/queues/{queue}/messages", 422, params={"limit": limit})
    assert len(take(first, queue)) == 1


def test_messages_last_over_a_kill(local_home):
    """After a kill, messages that were put are there, and those that were taken are not."""
    caller = local_home.start().caller()
    queue = caller.call("POST", "/1/queues", 201, json={"name": "lasting"}).json()["id"]
    for n in range(3):
        send(caller, queue, n)
    take(caller, queue)
    local_home.kill()
    caller = local_home.start().caller()
    assert [message["content"] for message in take(caller, queue, limit=5)] == [1, 2]
