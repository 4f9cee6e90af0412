"""A service of IVCAP as a Prefect block: trigger it, wait for the order or job, fetch the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from prefect.blocks.abstract import JobBlock, JobRun
from pydantic import Field

from ivcap_flows.blocks.appearance import IVCAP_LOGO, documentation, form
from ivcap_flows.blocks.ivcap_credentials import IvcapCredentials
from ivcap_flows.errors import InputError
from ivcap_flows.handles import Job, Order
from ivcap_flows.tasks.jobs import (
    a_wait_for_jobs,
    aget_job,
    ajob_result,
    arequest_job,
    get_job,
    job_result,
    request_job,
    wait_for_jobs,
)
from ivcap_flows.tasks.orders import (
    a_wait_for_orders,
    aget_order,
    aplace_order,
    get_order,
    place_order,
    wait_for_orders,
)
from ivcap_flows.tasks.waiting import requested_with

__all__ = ["IvcapOrder", "IvcapService"]


class IvcapOrder(JobRun[Any]):
    """An order or job of a service, as `IvcapService.trigger` gives it. `handle` is the handle that tasks take.

    It holds no connection and no secret of its own; the block that made it says with which credentials to ask.
    """

    def __init__(self, service: IvcapService, handle: Order | Job) -> None:
        self.handle = handle
        self._service = service

    def __repr__(self) -> str:
        return f"IvcapOrder({self.handle.urn!r}, status={self.handle.status!r})"

    @property
    def urn(self) -> str:
        return self.handle.urn

    def wait_for_completion(  # type: ignore[override]  # the synchronous form; `await_for_completion` is the other
        self, timeout: float | None = None
    ) -> Order | Job:
        """Wait until the order or job has ended, and return its handle, which has the products.

        Raises OrderFailedError or JobFailedError if it did not succeed, and WaitTimeoutError after `timeout` seconds.
        """
        wait: Any = wait_for_orders if isinstance(self.handle, Order) else wait_for_jobs
        with requested_with("trigger"):
            [self.handle] = wait([self.handle], timeout=timeout, credentials=self._service.credentials)
        return self.handle

    async def await_for_completion(self, timeout: float | None = None) -> Order | Job:
        """Wait as `wait_for_completion` does, in an asynchronous flow."""
        wait: Any = a_wait_for_orders if isinstance(self.handle, Order) else a_wait_for_jobs
        with requested_with("atrigger"):
            [self.handle] = await wait([self.handle], timeout=timeout, credentials=self._service.credentials)
        return self.handle

    def fetch_result(self) -> Any:
        """Return the products of an order, or the result of a job. Raises InputError if it has not ended."""
        if isinstance(self.handle, Order):
            return self._products()
        return job_result(self.handle, credentials=self._service.credentials)

    async def afetch_result(self) -> Any:
        """Return what `fetch_result` returns, in an asynchronous flow."""
        if isinstance(self.handle, Order):
            return self._products()
        return await ajob_result(self.handle, credentials=self._service.credentials)

    def _products(self) -> Any:
        if not self.handle.done:
            raise InputError(
                f"{self.urn} has no products yet: it is {self.handle.status}. Wait for it by wait_for_completion()."
            )
        return self.handle.products


class IvcapService(JobBlock[Any]):
    """A service of IVCAP, with the parameters that its orders share.

    Example:
        Load a stored service, place an order, and wait for its products:
        ```python
        from ivcap_flows.blocks import IvcapService

        service = IvcapService.load("BLOCK_NAME")
        order = service.trigger()
        order.wait_for_completion()
        products = order.fetch_result()
        ```
    """

    _block_type_name: ClassVar[Any] = "IVCAP Service"
    _block_type_slug: ClassVar[Any] = "ivcap-service"
    _logo_url: ClassVar[Any] = IVCAP_LOGO
    _documentation_url: ClassVar[Any] = documentation("use-blocks")

    service: str = Field(
        title="Service",
        description="Name or URN of the service.",
        min_length=1,
        examples=["urn:ivcap:service:8a82775b-27d3-51e7-9a8a-1f5b5e8a9c11"],
    )
    credentials: IvcapCredentials | None = Field(
        default=None,
        title="Credentials",
        description="Where IVCAP is and how to log in; by default, the environment of the flow decides.",
    )
    kind: Literal["order", "job"] = Field(
        default="order",
        title="Kind of work",
        description="What the service takes: orders, with parameters that are texts, or jobs, with a JSON document.",
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        title="Parameters",
        description="Parameters of each order, or fields of each job's request, as a JSON object; trigger adds to "
        "them and replaces them.",
        examples=[{"message": "Good day"}],
    )

    __get_pydantic_json_schema__ = form("service")

    def trigger(  # type: ignore[override]  # the synchronous form; `atrigger` is the other
        self, parameters: Mapping[str, Any] | None = None, **options: Any
    ) -> IvcapOrder:
        """Place an order, or request a job, at most once in a run of a flow, and return without waiting for it.

        `parameters` are added to those of the block. `options` are those of the tasks `place_order` or `request_job`,
        such as `once_per`, `reuse` or `discriminator`.
        """
        send: Any = place_order if self.kind == "order" else request_job
        return IvcapOrder(self, send(self.service, self._with(parameters), credentials=self.credentials, **options))

    async def atrigger(self, parameters: Mapping[str, Any] | None = None, **options: Any) -> IvcapOrder:
        """Do what `trigger` does, in an asynchronous flow."""
        send: Any = aplace_order if self.kind == "order" else arequest_job
        sent = await send(self.service, self._with(parameters), credentials=self.credentials, **options)
        return IvcapOrder(self, sent)

    def attach(self, urn: str) -> IvcapOrder:
        """Return an existing order or job by its URN, whoever requested it. Raises NotFoundError."""
        known: Any = get_order if _is_order(urn) else get_job
        return IvcapOrder(self, known(urn, credentials=self.credentials))

    async def aattach(self, urn: str) -> IvcapOrder:
        """Return what `attach` returns, in an asynchronous flow."""
        known: Any = aget_order if _is_order(urn) else aget_job
        return IvcapOrder(self, await known(urn, credentials=self.credentials))

    def _with(self, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
        return {**self.parameters, **(parameters or {})}


def _is_order(urn: str) -> bool:
    return urn.startswith("urn:ivcap:order:")
