"""`ivcap-flows services`: the services of IVCAP, what each takes, and a typed Python module of one."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from ivcap_flows.cli.output import Json, console, print_json, table, write
from ivcap_flows.cli.platform import ask_ivcap
from ivcap_flows.errors import InputError, NotFoundError
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.ivcap.parameters import ParameterDef
from ivcap_flows.ivcap.services import ServiceRecord

__all__ = ["services"]


def services(
    name: str | None = None,
    /,
    *,
    python: Annotated[bool, Parameter(name="--python")] = False,
    as_json: Json = False,
) -> None:
    """List the services that the account may use, or show what one takes.

    Args:
        name: Name or URN of a service.
        python: Print a Python module with a class for the service's parameters, which an editor completes and mypy
            checks: `ivcap-flows services NAME --python > my_service.py`.
    """
    if name is None:
        if python:
            raise InputError("Name the service: `ivcap-flows services NAME --python`.")
        _list(as_json)
        return
    record, schema = ask_ivcap(lambda client: _service(client, name))
    if python:
        from ivcap_flows.ivcap.service_module import service_module
        from ivcap_flows.tasks.service_request import ServiceRequest

        write(service_module(record, frozenset(dir(ServiceRequest)) | {"service", "names"}))
    elif as_json:
        print_json({**record.model_dump(mode="json", exclude_none=True), "request_schema": schema})
    else:
        _show(record, schema)


def _list(as_json: bool) -> None:
    found = ask_ivcap(_all)
    if as_json:
        print_json([record.model_dump(mode="json", exclude_none=True) for record in found])
    else:
        rows = [(record.name or "", record.urn, _first_line(record.description)) for record in found]
        table("Services", ("name", "urn", "description"), rows)


def _show(record: ServiceRecord, schema: dict[str, Any] | None) -> None:
    console.print(f"{record.name or ''}  {record.urn}".strip())
    if record.description:
        console.print(record.description)
    columns = ("name", "type", "default", "choices", "description")
    if record.parameters:
        rows = [(p.name, p.type, _default(p), _choices(p), p.description or "") for p in record.parameters]
        table("Parameters of an order", columns, rows)
    if schema is not None:
        table("Request of a job", columns, [_member(name, schema) for name in schema.get("properties", {})])


def _member(name: str, schema: dict[str, Any]) -> tuple[str, ...]:
    facts = schema["properties"][name]
    default = "required" if name in schema.get("required", ()) else str(facts.get("default", ""))
    choices = ", ".join(map(str, facts.get("enum", ())))
    return name, str(facts.get("type", "")), default, choices, str(facts.get("description", ""))


def _default(parameter: ParameterDef) -> str:
    if parameter.mandatory:
        return "required"
    return parameter.default if parameter.default is not None else ""


def _choices(parameter: ParameterDef) -> str:
    return ", ".join(option.value for option in parameter.options or ())


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]


async def _all(client: IvcapClient) -> list[ServiceRecord]:
    return sorted([record async for record in client.services.list()], key=lambda record: record.name or "")


async def _service(client: IvcapClient, name: str) -> tuple[ServiceRecord, dict[str, Any] | None]:
    record = await client.services.by_name(name)
    try:
        return record, await client.services.request_schema(record.urn)
    except NotFoundError:
        return record, None
