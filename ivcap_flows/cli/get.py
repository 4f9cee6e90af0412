"""`ivcap-flows get URN`: what a URN of a trace stands for: an artifact's file, or what IVCAP says of another thing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from pydantic import BaseModel

from ivcap_flows import loop
from ivcap_flows.cli.output import console, json_document, print_json, writing
from ivcap_flows.cli.platform import ask_ivcap, ivcap
from ivcap_flows.errors import InputError
from ivcap_flows.identity import last_part
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.secrets import scrub

__all__ = ["get"]


async def _collection(client: IvcapClient, urn: str) -> dict[str, Any]:
    """Read a collection, which IVCAP has as aspects: its definition, and the items in the order of their addition."""
    record = await client.collections.read(urn)
    items = [item.urn async for item in client.collections.items(urn)]
    return {"id": record.urn, "name": record.name, "description": record.description, "items": items}


async def _record(read: Awaitable[BaseModel]) -> dict[str, Any]:
    return (await read).model_dump(mode="json", by_alias=True, exclude_none=True)


_RECORDS: Final[dict[str, Callable[[IvcapClient, str], Awaitable[dict[str, Any]]]]] = {
    "order": lambda client, urn: _record(client.orders.read(urn)),
    "job": lambda client, urn: _record(client.jobs.find(urn)),
    "aspect": lambda client, urn: _record(client.aspects.read(urn)),
    "service": lambda client, urn: _record(client.services.read(urn)),
    "collection": _collection,
}
"""How to read the things that are printed, by the noun in their URNs."""


def get(urn: str, /, *, output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None) -> None:
    """Get what a URN stands for: an artifact's file, or what IVCAP says of an order, job, aspect, service or
    collection, as JSON.

    Args:
        urn: A URN as `trace` and `show` print it.
        output: The file to write. Default: a file with the artifact's name in this folder, where there is none yet;
            JSON is printed.
    """
    noun = urn.removeprefix("urn:ivcap:").partition(":")[0] if urn.startswith("urn:ivcap:") else ""
    if noun == "artifact":
        loop.run(_download(urn, output))
        return
    if noun not in _RECORDS:
        raise InputError(f"{urn} is no URN of IVCAP that can be read: urn:ivcap:{{artifact,{','.join(_RECORDS)}}}:…")
    record = ask_ivcap(lambda client: _RECORDS[noun](client, urn))
    found = scrub({name: value for name, value in record.items() if value is not None})
    if output is None:
        print_json(found)
        return
    with writing(output):
        output.write_text(json_document(found), encoding="utf-8")
    console.print(f"{output}: {urn}")


async def _download(urn: str, output: Path | None) -> None:
    client = await ivcap()
    record = await client.artifacts.read(urn)
    target = output or Path(_name_of(record.name or urn.rpartition(":")[2], urn))
    if output is None and target.exists():
        raise InputError(f"There is a file {target} already. Name another with -o.", path=str(target))
    file = await client.artifacts.download(urn, target)
    console.print(f"{target}: {file.size} bytes, sha256 {file.sha256}")


def _name_of(name: str, urn: str) -> str:
    if name in ("", ".", "..") or last_part(name) != name or "\0" in name:
        raise InputError(f"No file can have the name {name!r} of {urn}. Name one with -o.", urn=urn)
    return name
