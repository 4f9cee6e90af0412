"""Bytes: ranges, several writers, a full disk, and uploads of unknown size."""

import http.client
import resource
import threading

import pytest


def test_a_range_is_the_slice_that_was_asked_for(first):
    """One range of bytes is a 206 with Content-Range, one beyond the end a 416. Anything else gets the whole.

    An If-Range for another version gets the whole, and the ETag is strong.
    """
    path = f"/1/artifacts/{first.upload(b'0123456789')['id']}/blob"
    for wanted, status, got, told in (
        ("bytes=2-5", 206, b"2345", "bytes 2-5/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=0-999", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=0-1,4-5", 200, b"0123456789", None),
        ("bytes=5-2", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ):
        reply = first.call("GET", path, status, headers={"Range": wanted})
        assert (reply.content, reply.headers.get("Content-Range")) == (got, told)
    assert first.call("GET", path, 416, headers={"Range": "bytes=10-"}).headers["Content-Range"] == "bytes */10"
    tag = first.call("GET", path).headers["ETag"]
    assert first.call("GET", path, 206, headers={"Range": "bytes=1-2", "If-Range": tag}).content == b"12"
    assert first.call("GET", path, 200, headers={"Range": "bytes=1-2", "If-Range": '"other"'}).content == b"0123456789"


def test_two_writers_at_the_same_offset_cannot_both_win(first):
    """One chunk is accepted, the other is a 409, and the bytes are one writer's."""
    artifact = first.create(4 << 20)
    statuses = []

    def send(letter):
        headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        path = f"/1/artifacts/{artifact['id']}/blob"
        statuses.append(first.http.patch(path, content=letter * (4 << 20), headers=headers).status_code)

    threads = [threading.Thread(target=send, args=(letter,)) for letter in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [204, 409]
    assert first.bytes_of(artifact["id"]) in (b"a" * (4 << 20), b"b" * (4 << 20))


@pytest.mark.parametrize("chunked", [False, True])
def test_more_bytes_than_announced_are_refused(first, chunked):
    """Too many bytes are a 413, whether or not the length was sent before. The offset stays."""
    artifact = first.create(4)
    first.patch(artifact, iter([b"12", b"345"]) if chunked else b"12345", 0, 413)
    assert first.offset(artifact) <= 4
    assert first.get(f"/1/artifacts/{artifact['id']}")["status"] != "ready"


@pytest.mark.long
def test_a_full_disk_is_507_and_keeps_the_bytes_before(local_home):
    """What fits is kept, and the rest is refused as JSON. A file size limit stands for the full disk."""
    limit = 3 << 20
    local_home.limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    caller = local_home.start().caller()
    artifact = caller.create(8 << 20)
    caller.patch(artifact, b"a" * (1 << 20), 0)
    refused = caller.patch(artifact, b"b" * (7 << 20), 1 << 20, 507)
    assert "full" in refused.json()["message"]
    at = caller.offset(artifact)
    assert 1 << 20 <= at <= limit
    local_home.stop()
    local_home.limit = None
    caller = local_home.start().caller()
    assert caller.offset(artifact) == at
    caller.patch(artifact, b"b" * ((8 << 20) - at), at)
    assert caller.bytes_of(artifact["id"]) == b"a" * (1 << 20) + b"b" * (7 << 20)


def chunk(at, **headers):
    return {"Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream", **headers}


@pytest.mark.parametrize("content", [b"", b"first,second"], ids=["empty", "some"])
def test_an_upload_of_unknown_size_is_ready_when_its_length_is_told(first, content):
    """An upload of unknown size is not ready until its length is sent. An empty one may send it at once."""
    artifact = first.create(-1)
    at_artifact = f"/1/artifacts/{artifact['id']}"
    path = f"{at_artifact}/blob"
    told = first.call("HEAD", path).headers
    assert told["Upload-Defer-Length"] == "1" and "Upload-Length" not in told
    for at in range(0, len(content), 6):
        headers = chunk(at, **{"Upload-Defer-Length": "1"})
        first.call("PATCH", path, 204, content=content[at : at + 6], headers=headers)
    assert first.get(at_artifact)["status"] == ("partial" if content else "pending")
    first.call("PATCH", path, 204, headers=chunk(len(content), **{"Upload-Length": str(len(content))}))
    record = first.get(at_artifact)
    assert (record["status"], record["size"]) == ("ready", len(content))
    assert first.bytes_of(artifact["id"]) == content
    assert first.call("HEAD", path).headers["Upload-Length"] == str(len(content))


def test_the_closing_chunk_of_the_command_line_client_is_taken(first):
    """The closing chunk has no Content-Type. A request without a Content-Length has no body."""
    for length in ({"Content-Length": "0"}, {}):
        artifact = first.create(-1)
        path = f"/1/artifacts/{artifact['id']}/blob"
        first.call("PATCH", path, 204, content=b"12", headers=chunk(0, **{"Upload-Defer-Length": "1"}))
        connection = http.client.HTTPConnection(first.http.base_url.host, first.http.base_url.port, timeout=20)
        connection.putrequest("PATCH", path)
        sent = {"Authorization": first.http.headers["Authorization"], "Upload-Offset": "2", "Upload-Length": "2"}
        for name, value in {**sent, **length}.items():
            connection.putheader(name, value)
        connection.endheaders()
        reply = connection.getresponse()
        assert (reply.status, reply.headers["Upload-Offset"]) == (204, "2")
        connection.close()
        assert first.bytes_of(artifact["id"]) == b"12"


def test_a_deferred_creation_names_where_the_chunks_go(first, second):
    """The reply names where the chunks go, only to the owner and only for the supported version of TUS."""
    artifact = first.create(-1)
    path = f"/1/artifacts/{artifact['id']}/blob"
    defer = {"Upload-Defer-Length": "1", "Tus-Resumable": "1.0.0"}
    target = first.call("POST", path, 201, headers=defer).headers["Location"]
    first.call("PATCH", target, 204, content=b"1234", headers=chunk(0))
    first.call("PATCH", target, 204, content=b"5", headers=chunk(4, **{"Upload-Length": "5"}))
    assert first.bytes_of(artifact["id"]) == b"12345"
    first.call("POST", path, 412, headers=defer | {"Tus-Resumable": "0.2.0"})
    second.call("POST", path, 404, headers=defer)
