"""The client of the embedded platform, and of a server of scripted replies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import ScriptedServer

from ivcap_flows.http.auth import StaticToken
from ivcap_flows.ivcap.artifacts import ArtifactRecord
from ivcap_flows.ivcap.client import IvcapClient
from ivcap_flows.local import EmbeddedPlatform


@pytest.fixture
async def embedded(_embedded: EmbeddedPlatform) -> AsyncIterator[IvcapClient]:
    """The client of the embedded platform that the tests of a session share."""
    token = StaticToken(_embedded.environment["IVCAP_JWT"])
    async with IvcapClient(_embedded.environment["IVCAP_URL"], token, budget=20) as client:
        yield client


@pytest.fixture
def upload(embedded: IvcapClient, tmp_path: Path) -> Callable[..., Awaitable[ArtifactRecord]]:
    """Makes an artifact of some bytes on the embedded platform."""

    async def made(content: bytes, **stated: Any) -> ArtifactRecord:
        (tmp_path / "uploaded").write_bytes(content)
        record = await embedded.artifacts.create(media_type="text/csv", size=len(content), **stated)
        await embedded.artifacts.send(record, tmp_path / "uploaded", offset=0)
        (tmp_path / "uploaded").unlink()
        return await embedded.artifacts.read(record.urn)

    return made


@pytest.fixture(autouse=True)
def asks_again_at_once(quick_retries: None) -> None:
    """Clients ask again at once."""


class ScriptedIvcap(ScriptedServer):
    @staticmethod
    def page(*items: Any, following: str | None = None) -> dict[str, Any]:
        """A page of a list, with a link to the following one."""
        links = [{"rel": "next", "type": "application/json", "href": following}] if following else []
        return {"items": list(items), "links": links, "at-time": "2026-06-01T00:00:00Z"}


@pytest.fixture(scope="session")
def scripted_ivcap() -> Iterator[ScriptedIvcap]:
    server = ScriptedIvcap()
    with server.running():
        yield server


@pytest.fixture
def scripted(scripted_ivcap: ScriptedIvcap) -> ScriptedIvcap:
    """The server of scripted replies, with nothing scripted."""
    scripted_ivcap.forget()
    return scripted_ivcap


@pytest.fixture
async def client(scripted: ScriptedIvcap) -> AsyncIterator[IvcapClient]:
    """The client of the scripted server."""
    async with IvcapClient(scripted.url, StaticToken("t0ken"), budget=1) as made:
        yield made
