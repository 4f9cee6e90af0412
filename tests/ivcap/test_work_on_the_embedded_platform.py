"""Orders and jobs that the embedded platform runs."""

import pytest

from ivcap_flows.errors import ParameterError
from ivcap_flows.ivcap.requests import validate_request


async def test_an_order_is_placed_and_done(embedded, until):
    """By the service's name, with parameters checked before; its record says what it was asked."""
    service = await embedded.services.by_name("echo")
    with pytest.raises(ParameterError, match="did you mean 'message'"):
        embedded.services.encode_parameters(service, {"mesage": "hi"})
    order = await embedded.orders.place(
        service.urn, embedded.services.encode_parameters(service, {"message": "hi"}), name="an echo", tags=["k1"]
    )
    done = await until(lambda: embedded.orders.read(order.urn))
    handle = done.handle(await embedded.platform())
    assert (handle.succeeded, handle.name, handle.parameters["message"]) == (True, "an echo", "hi")
    assert handle.requested_at <= handle.started_at <= handle.finished_at
    assert order.urn in [each.urn async for each in embedded.orders.list()]
    assert [p.urn async for p in embedded.orders.products(order.urn)] == [p.urn for p in handle.products]
    assert isinstance(await embedded.orders.log_tail(order.urn), str)


async def test_an_order_that_fails_says_why_in_its_log(embedded, until):
    """The tail of the log holds the service's last words."""
    service = await embedded.services.by_name("fail")
    parameters = embedded.services.encode_parameters(service, {"message": "no luck today"})
    order = await embedded.orders.place(service.urn, parameters)
    done = await until(lambda: embedded.orders.read(order.urn))
    assert done.status in ("failed", "error")
    assert "no luck today" in await embedded.orders.log_tail(order.urn)


async def test_a_job_is_requested_and_read(embedded, until):
    """The request fits the service's model; the result is JSON; the job's service is found from its URN."""
    service = await embedded.services.by_name("echo")
    request = {"message": "hi"}
    validate_request(await embedded.services.request_schema(service.urn), request)
    job = await embedded.jobs.request(service.urn, request)
    done = await until(lambda: embedded.jobs.read(service.urn, job.urn, with_request=True))
    handle = done.handle(await embedded.platform())
    assert handle.succeeded
    assert handle.request["message"] == "hi"
    assert "hi" in str(handle.result)
    assert await embedded.jobs.service_of(job.urn) == service.urn
    assert job.urn in [each.urn async for each in embedded.jobs.list(service.urn)]
    output = await embedded.jobs.output(service.urn, job.urn)
    assert output is not None
    assert b"hi" in output.content
