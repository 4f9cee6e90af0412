"""Files of datasets on an S3 server: signed requests, and the addresses in credentials and URLs."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from ivcap_flows.errors import EmbeddedPlatformError
from ivcap_flows.local.provena.bucket import Bucket, presigned

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def test_a_url_is_signed_as_amazon_documents_it():
    """The signature equals the example in Amazon's S3 reference, "Authenticating Requests: Using Query Parameters"."""
    url = presigned("GET", "https://examplebucket.s3.amazonaws.com/test.txt", KEY, SECRET, 86400, 1369353600)
    expected = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    assert parse_qs(urlsplit(url).query)["X-Amz-Signature"] == [expected]


@pytest.fixture
def s3():
    """A server that stores what is put with a key of the right id. The value is its URL and the objects."""
    objects = {}

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            parts = urlsplit(self.path)
            credential = parse_qs(parts.query).get("X-Amz-Credential", [""])[0]
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = 200 if credential.startswith("me/") else 403
            if status == 200 and self.command == "PUT":
                status = 409 if parts.path in objects and parts.path.count("/") == 2 else 200
                objects[parts.path] = content
            found = objects.get(parts.path)
            status = 404 if status == 200 and found is None else status
            body = found if status == 200 and self.command == "GET" else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = answer

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://me:a%2Fsecret@127.0.0.1:{server.server_port}", objects
    server.shutdown()
    server.server_close()


@pytest.mark.long
def test_the_files_of_datasets_are_where_the_s3_server_is(s3, local_home, a_provena_user, a_collection):
    """A mint stores its metadata on the S3 server, and URLs and credentials lead there.

    No secret is in the environment.
    """
    address, objects = s3
    endpoint = f"http://{address.partition('@')[2]}"
    home = local_home.start("--s3-endpoint", address)
    ada = a_provena_user(home)
    assert home.environment["AWS_ENDPOINT_URL_S3"] == endpoint
    dataset = ada.mint(ada.create("agent/organisation", name="o"))
    item = ada.ask("data_store", "GET", "/registry/items/fetch-dataset", params={"handle_id": dataset}).json()["item"]
    place = f"/{item['s3']['bucket_name']}/{item['s3']['path']}"
    assert b'"name":"n"' in objects[f"{place}metadata.json"]
    wanted = {"dataset_id": dataset, "console_session_required": False}
    keys = ada.ask("data_store", "POST", "/registry/credentials/generate-write-access-credentials", json=wanted).json()
    keys = keys["credentials"]
    assert (keys["aws_access_key_id"], keys["aws_secret_access_key"]) == ("me", "a/secret")
    assert "endpoint_url" not in keys
    assert httpx.get(f"{home.environment['IVCAP_URL']}/_embedded").json()["s3"] == endpoint

    def link(path):
        body = {"dataset_id": dataset, "file_path": path}
        return ada.ask("data_store", "POST", "/registry/items/generate-presigned-url", json=body)

    assert link("a b.txt").status_code == 400
    objects[f"{place}a%20b.txt"] = b"moved by a client"
    url = link("a b.txt").json()["presigned_url"]
    assert url.startswith(endpoint)
    assert httpx.get(url).content == b"moved by a client"


@pytest.mark.parametrize("address", ["127.0.0.1:9000", "s3://bucket", "http://127.0.0.1:9"])
def test_a_server_that_is_none_is_told_at_the_start(address):
    """A wrong address, or one where nobody answers, is an EmbeddedPlatformError without the key."""
    with pytest.raises(EmbeddedPlatformError, match="S3 server") as caught:
        Bucket(address.replace("//", "//me:hidden@"))
    assert "hidden" not in str(caught.value)
