"""From a refused reply, or an exception of httpx, to an error of the package."""

import inspect
import pickle

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivcap_flows import errors
from ivcap_flows.http.status import DETAIL_LIMIT, FOREIGN, detail_of, foreign_error, redact, status_error
from ivcap_flows.secrets import HIDDEN

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


def refused(status, body=b"", headers=None, **data):
    return status_error(
        platform="IVCAP", method="GET", path="/1/x", status=status, headers=headers or {}, body=body, **data
    )


def mapped(error):
    return foreign_error(error, platform="IVCAP", method="GET", path="/1/x", base_url="http://h")


def test_no_exception_of_httpx_leaves_the_room_as_itself():
    for cls in [each for _, each in inspect.getmembers(httpx, inspect.isclass) if issubclass(each, Exception)]:
        assert any(parent in FOREIGN for parent in cls.__mro__), cls
        built = cls.__new__(cls)
        Exception.__init__(built, "detail")
        found = mapped(built)
        assert isinstance(found, errors.IvcapFlowsError) and isinstance(found.sent, bool), cls
        assert "detail" in found.message


@pytest.mark.parametrize(
    ("expected", "sent", "names"),
    [
        (errors.UnreachableError, False, "ConnectError ConnectTimeout PoolTimeout ProxyError"),
        (errors.UnreachableError, True, "ReadTimeout WriteTimeout ReadError WriteError RemoteProtocolError"),
        (errors.ConfigurationError, False, "UnsupportedProtocol"),
        (errors.InputError, False, "LocalProtocolError"),
        (errors.ProtocolError, True, "DecodingError"),
    ],
)
def test_only_failures_to_connect_are_known_not_to_have_been_sent(expected, sent, names):
    for name in names.split():
        found = mapped(getattr(httpx, name)("x"))
        assert (type(found), found.sent) == (expected, sent), name


@pytest.mark.parametrize(
    ("expected", "statuses"),
    [
        (errors.BadRequestError, (400, 405, 415, 418, 501)),
        (errors.NotAuthorizedError, (401,)),
        (errors.ForbiddenError, (403,)),
        (errors.NotFoundError, (404, 410)),
        (errors.ConflictError, (409,)),
        (errors.InvalidParameterError, (422,)),
        (errors.NotUniqueError, (424,)),
        (errors.UnavailableError, (408, 423, 425, 429, 500, 503, 599)),
        (errors.ProtocolError, (302,)),
    ],
)
def test_each_status_has_one_class(expected, statuses):
    """501 is final although it is a 5xx. After 423, 425 and 429 a keyed request may be sent again."""
    for status in statuses:
        found = refused(status)
        assert (type(found), found.sent) == (expected, status not in (423, 425, 429)), status


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
    assert detail_of(body) == words


@given(st.binary(max_size=3000))
def test_any_body_gives_one_bounded_line(body):
    words = detail_of(body)
    assert len(words) <= DETAIL_LIMIT
    assert "\n" not in words


def test_an_error_never_repeats_a_token():
    """A server that echoes the Authorization header does not get it into our message."""
    body = f'{{"message": "bad header Bearer s3cr3t-token and {JWT}"}}'.encode()
    error = refused(400, body, secrets=["s3cr3t-token"])
    assert "s3cr3t" not in str(error) + repr(error.data)
    assert JWT not in str(error) + repr(error.data)
    assert redact("The Bearer token has expired.", ["test"]) == "The Bearer token has expired."
    assert redact("the latest test", ["test"]) == f"the latest {HIDDEN}"


def test_an_error_says_what_was_asked_and_carries_it():
    """Status, goa's class and Retry-After survive pickling."""
    error = pickle.loads(pickle.dumps(refused(503, b"", {"retry-after": "7", "goa-error": "not-available"})))
    assert str(error) == "IVCAP answered 503 to GET /1/x. Try again later."
    assert (error.status, error.retry_after, error.code, error.sent) == (503, 7.0, "not-available", True)
