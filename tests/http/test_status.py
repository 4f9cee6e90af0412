"""From a refused reply, or an exception of httpx, to an error of the package."""

import inspect
import pickle

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcap_flows import errors
from ivcap_flows.http.status import DETAIL_LIMIT, FOREIGN, detail_of, error_class, foreign_error, redact, status_error
from ivcap_flows.secrets import HIDDEN

HTTPX = [e for _, e in inspect.getmembers(httpx, inspect.isclass) if issubclass(e, Exception)]
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


def refused(status, body=b"", headers=None, **data):
    return status_error(
        platform="IVCAP", method="GET", path="/1/x", status=status, headers=headers or {}, body=body, **data
    )


@pytest.mark.parametrize("cls", HTTPX, ids=lambda cls: cls.__name__)
def test_every_exception_of_httpx_is_mapped(cls):
    """No exception of httpx, present or future, leaves the room as itself."""
    assert any(parent in FOREIGN for parent in cls.__mro__), cls
    built = cls.__new__(cls)
    Exception.__init__(built, "detail")
    found = foreign_error(built, platform="IVCAP", method="GET", path="/1/x", base_url="http://h")
    assert isinstance(found, errors.IvcapFlowsError)
    assert isinstance(found.sent, bool)
    assert "detail" in found.message


@pytest.mark.parametrize(
    ("cls", "expected", "sent"),
    [
        (httpx.ConnectError, errors.UnreachableError, False),
        (httpx.ConnectTimeout, errors.UnreachableError, False),
        (httpx.PoolTimeout, errors.UnreachableError, False),
        (httpx.ProxyError, errors.UnreachableError, False),
        (httpx.ReadTimeout, errors.UnreachableError, True),
        (httpx.WriteTimeout, errors.UnreachableError, True),
        (httpx.ReadError, errors.UnreachableError, True),
        (httpx.WriteError, errors.UnreachableError, True),
        (httpx.RemoteProtocolError, errors.UnreachableError, True),
        (httpx.UnsupportedProtocol, errors.ConfigurationError, False),
        (httpx.LocalProtocolError, errors.InputError, False),
        (httpx.DecodingError, errors.ProtocolError, True),
    ],
)
def test_the_most_specific_class_decides(cls, expected, sent):
    """Only failures to connect are known not to have been sent."""
    found = foreign_error(cls("x"), platform="IVCAP", method="GET", path="/1/x", base_url="http://h")
    assert type(found) is expected
    assert found.sent is sent


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, errors.BadRequestError),
        (401, errors.NotAuthorizedError),
        (403, errors.ForbiddenError),
        (404, errors.NotFoundError),
        (405, errors.BadRequestError),
        (408, errors.UnavailableError),
        (409, errors.ConflictError),
        (410, errors.NotFoundError),
        (415, errors.BadRequestError),
        (418, errors.BadRequestError),
        (422, errors.InvalidParameterError),
        (423, errors.UnavailableError),
        (424, errors.NotUniqueError),
        (425, errors.UnavailableError),
        (429, errors.UnavailableError),
        (500, errors.UnavailableError),
        (501, errors.BadRequestError),
        (503, errors.UnavailableError),
        (599, errors.UnavailableError),
        (302, errors.ProtocolError),
    ],
)
def test_each_status_has_one_class(status, expected):
    """The table of statuses; 501 is final although it is a 5xx."""
    assert error_class(status) is expected


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"message": "no such order"}', "no such order"),
        (b'{"name": "limit", "message": "must be below 51"}', "limit: must be below 51"),
        (b'{"name":"bad_request","id":"x","message":"broken","temporary":false}', "bad_request: broken"),
        (b'{"detail": "no role"}', "no role"),
        (b'{"detail": [{"loc": ["body", "a", 0], "msg": "field required"}]}', "a.0: field required"),
        (b'{"status": {"success": false, "details": "why"}}', "why"),
        (b'{"error": "invalid_grant", "error_description": "Token is not active"}', "Token is not active"),
        (b"", ""),
        (b"upstream   gone\n", "upstream gone"),
        (b"<html><style>p {}</style><body><h1>502 Bad Gateway</h1></body></html>", "502 Bad Gateway"),
        (b"[1, 2]", "[1, 2]"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_the_platforms_words_are_found_in_any_body(body, words):
    """JSON of several shapes, gateway pages, plain text and nothing."""
    assert detail_of(body) == words


@given(st.binary(max_size=3000))
def test_any_body_gives_one_bounded_line(body):
    """No body makes the reading of an error fail or its message endless."""
    words = detail_of(body)
    assert len(words) <= DETAIL_LIMIT
    assert "\n" not in words


def test_an_error_never_repeats_a_token():
    """A server that echoes the Authorization header does not get it into our message."""
    error = refused(
        400, f'{{"message": "bad header Bearer s3cr3t-token and {JWT}"}}'.encode(), secrets=["s3cr3t-token"]
    )
    assert "s3cr3t" not in str(error) + repr(error.data)
    assert JWT not in str(error) + repr(error.data)
    assert redact("Bearer abc123def456") == f"Bearer {HIDDEN}"
    assert redact("The Bearer token has expired.", ["test"]) == "The Bearer token has expired."
    assert redact("the latest test", ["test"]) == f"the latest {HIDDEN}"


def test_an_error_says_what_was_asked_and_carries_it():
    """Data: platform, method, path, status, detail, goa's class and Retry-After; it survives pickling."""
    error = pickle.loads(pickle.dumps(refused(503, b"", {"retry-after": "7", "goa-error": "not-available"})))
    assert str(error) == "IVCAP answered 503 to GET /1/x. Try again later."
    assert (error.status, error.retry_after, error.code, error.sent) == (503, 7.0, "not-available", True)


@pytest.mark.parametrize(("status", "sent"), [(429, False), (425, False), (423, False), (503, True), (400, True)])
def test_a_refusal_to_process_counts_as_not_sent(status, sent):
    """After 425 and 429 a keyed request may be sent again."""
    assert refused(status).sent is sent
