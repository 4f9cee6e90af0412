"""Services written with ivcap-service and ivcap-ai-tool run on the embedded IVCAP as they are."""

import json
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="the service SDKs need Python 3.11")


@pytest.fixture(params=[pytest.param("batch", marks=pytest.mark.long), "lambda"])
def sdk_kind(request):
    return request.param


def test_a_service_reads_writes_and_tells_through_the_official_client(sdk_bench, sdk_kind):
    """Result, product, aspects, events and log of a job are where IVCAP has them."""
    text = sdk_bench.upload(b"one two three")
    path = sdk_bench.request(sdk_kind, text=text, **{"$schema": "urn:sdk-test:schema:words.request.1"})
    job = sdk_bench.until(path)
    assert job["status"] == "succeeded", job
    result = job["result-content"]
    assert (
        result["words"] == 3
        and job["result-content-type"] == "application/vnd.ivcap.urn:sdk-test:schema:words.result.1"
    )

    (product,) = job["products"]["items"]
    assert product["id"] == result["capitals"] and product["name"] == "capitals.txt"
    assert sdk_bench.http.get(f"/1/artifacts/{product['id']}/blob").content == b"ONE TWO THREE"
    order = sdk_bench.get(f"/1/orders/{job['order']}")
    assert [one["id"] for one in order["products"]["items"]] == [product["id"]] and order["status"] == "succeeded"
    (language,) = sdk_bench.aspects(entity=product["id"], schema="urn:sdk-test:schema:language.1")
    assert language["content"]["language"] == "en"

    about = {one["schema"]: one["content"] for one in sdk_bench.aspects(entity=job["id"])}
    assert about["urn:sdk-test:schema:words.result.1"] == result
    assert about["urn:sdk-test:schema:words.request.1"]["text"] == text

    lines = sdk_bench.http.get(f"{path}/events").text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    own = [event["schema"].split(".event.")[1] for event in events if event["type"] == "ivcap.job.event"]
    assert own == ["step.start.1", "generic.1", "step.finish.1"]
    log = sdk_bench.http.get(f"/1/orders/{job['order']}/logs").text
    assert f"counting {text}" in log.splitlines()


def test_the_description_is_kept_as_the_sdk_printed_it(sdk_bench, sdk_kind):
    """The aspect is the printed document with its URN filled in; it is listed, and has the model of its requests."""
    urn = sdk_bench.service(sdk_kind)
    printed = json.loads((sdk_bench.root.parent / f"{sdk_kind}-service.json").read_text())
    (aspect,) = sdk_bench.aspects(entity=urn, schema="urn:ivcap:schema.service.2")
    assert aspect["content"] == {**printed, "$id": urn}
    service = sdk_bench.get(f"/1/services2/{urn}")
    assert service["name"] == printed["name"] and service["controller"] == printed["controller"]
    assert urn in [one["id"] for one in sdk_bench.get("/1/services2", limit=50)["items"]]
    (tool,) = sdk_bench.aspects(entity=urn, schema="urn:sd-core:schema.ai-tool.1")
    assert tool["content"]["service-id"] == urn and tool["content"]["fn_schema"]["required"] == ["text"]


def test_an_exception_fails_the_job_with_its_text(sdk_bench, sdk_kind):
    """What the service raised is the error message; so is what its request model refuses."""
    job = sdk_bench.until(sdk_bench.request(sdk_kind, text="urn:x", mode="fails"))
    assert (job["status"], job["error-message"]) == ("failed", "cannot count urn:x")
    job = sdk_bench.until(sdk_bench.request(sdk_kind, mode="counts"))
    assert job["status"] == "failed" and "text" in job["error-message"] and "equired" in job["error-message"]


def test_results_that_are_no_json_keep_their_type(sdk_bench, sdk_kind):
    """A picture and a text come back from the output as they are."""
    for mode, kind, content in (
        ("binary", "image/png", b"\x89PNG\x00\xff"),
        ("text", "text/plain", b"three words here"),
    ):
        path = sdk_bench.request(sdk_kind, text="urn:x", mode=mode)
        job = sdk_bench.until(path)
        assert job["status"] == "succeeded", job
        output = sdk_bench.http.get(f"{path}/output")
        assert output.content == content and output.headers["Content-Type"].startswith(kind)
        assert job["products"]["items"] == []


def test_a_service_reads_the_secrets_of_its_account(sdk_bench, sdk_kind):
    """`get_secret` asks the sidecar, which asks the platform."""
    secret = {"secret-name": "SDK_TEST_SECRET", "secret-value": "told to no one", "expiry-time": 0}
    assert sdk_bench.http.post("/1/secrets", json=secret).status_code == 204
    job = sdk_bench.until(sdk_bench.request(sdk_kind, text="urn:x", mode="secret"))
    assert job["status"] == "succeeded" and job["result-content"]["secret"] == "told to no one", job
