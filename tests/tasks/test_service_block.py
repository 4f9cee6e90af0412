"""A service as a block: what Prefect's interface for jobs promises, with orders and jobs that are requested once."""

from __future__ import annotations

import inspect

import pytest
from on_record import last_graph
from prefect import flow
from prefect.blocks.abstract import JobBlock, JobRun

from ivcap_flows.blocks import IvcapCredentials, IvcapOrder, IvcapService
from ivcap_flows.errors import InputError, NotFoundError, WaitTimeoutError
from ivcap_flows.handles import Job, Order

NAME = "service-of-this-test"


@pytest.fixture
def saved(embedded_platform):
    """Saves a block, with credentials that are saved as well; both are loaded as a flow loads them."""
    credentials = IvcapCredentials.from_environment()
    credentials.save(NAME, overwrite=True)

    def save(**fields):
        IvcapService(credentials=IvcapCredentials.load(NAME), **fields).save(NAME, overwrite=True)
        return IvcapService.load(NAME)

    yield save
    IvcapService.delete(NAME)
    IvcapCredentials.delete(NAME)


def test_an_order_by_a_block(in_script, saved, effects, unique, ivcap_journal):
    """Triggered, waited for, and its products fetched; a second trigger of the run is the same order, on record."""
    service = saved(service="echo", parameters={"message": "no"})
    assert isinstance(service, JobBlock)

    def body():
        order = service.trigger({"message": unique})
        assert isinstance(order, JobRun) and isinstance(order, IvcapOrder)
        ended = order.wait_for_completion(timeout=60)
        assert order.handle == ended and ended.succeeded and ended.parameters == {"message": unique}
        assert order.fetch_result() == ended.products
        return order.urn, service.trigger({"message": unique}).urn

    urns = set(in_script(body))
    assert len(urns) == 1 == effects.count("/1/orders")
    assert urns <= last_graph(ivcap_journal).nodes.keys()


def test_a_job_by_a_block(in_script, saved, embedded_platform, unique):
    """With `kind="job"`, the parameters are the request, and the result is what the service answered."""
    service = saved(service="echo", kind="job", parameters={"message": unique})

    def body():
        job = service.trigger(discriminator="once")
        assert isinstance(job.wait_for_completion(), Job)
        return job.fetch_result(), job.handle.result

    fetched, result = in_script(body)
    assert fetched == result


async def test_the_asynchronous_form(embedded_platform, ivcap_journal, unique):
    """Awaited, in an asynchronous flow."""
    service = IvcapService(service="echo", parameters={"message": unique})

    @flow
    async def awaited():
        order = await service.atrigger()
        await order.await_for_completion()
        again = await service.aattach(order.urn)
        await again.await_for_completion()
        return await order.afetch_result(), await again.afetch_result()

    first, second = await awaited()
    assert [each.urn for each in first] == [each.urn for each in second]
    assert inspect.iscoroutinefunction(IvcapService.atrigger)


def test_attaching(in_script, embedded_platform, unique):
    """An order or job that exists is found by its URN, to be waited for like one's own."""
    service = IvcapService(service="sleep", parameters={"seconds": 1})

    def body():
        order = service.attach(service.trigger(discriminator=unique).urn)
        assert isinstance(order.handle, Order)
        with pytest.raises(InputError, match=r"no products yet.*wait_for_completion"):
            order.fetch_result()
        with pytest.raises(WaitTimeoutError):
            order.wait_for_completion(timeout=0.01)
        assert order.wait_for_completion().succeeded
        with pytest.raises(NotFoundError):
            service.attach("urn:ivcap:order:00000000-0000-0000-0000-000000000000")

    in_script(body)
