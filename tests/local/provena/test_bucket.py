"""Signed requests to an S3 server. What is kept there is in tests/files and tests/contract."""

from urllib.parse import parse_qs, urlsplit

import pytest

from ivcap_flows.errors import EmbeddedPlatformError
from ivcap_flows.local.provena.bucket import Bucket, presigned

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def test_a_url_is_signed_as_amazon_documents_it():
    """The signature equals the example in Amazon's S3 reference, "Authenticating Requests: Using Query Parameters"."""
    url = presigned("GET", "https://examplebucket.s3.amazonaws.com/test.txt", KEY, SECRET, 86400, 1369353600)
    expected = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    assert parse_qs(urlsplit(url).query)["X-Amz-Signature"] == [expected]


@pytest.mark.parametrize("address", ["127.0.0.1:9000", "s3://bucket", "http://127.0.0.1:9"])
def test_a_server_that_is_none_is_told_at_the_start(address):
    """A wrong address, or one where nobody answers, is an EmbeddedPlatformError without the key."""
    with pytest.raises(EmbeddedPlatformError, match="S3 server") as caught:
        Bucket(address.replace("//", "//me:hidden@"))
    assert "hidden" not in str(caught.value)
