"""The platforms to ask about what no run in the journal knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ivcap_flows.reading import RemoteRecords
from ivcap_flows.settings import Settings

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["configured_platforms"]


def configured_platforms() -> RemoteRecords:
    """Return the platforms that the environment names; without one, the embedded ones if their folder exists."""
    settings = Settings.current()
    folder = settings.embedded_in
    here = folder is not None and folder.is_dir()
    return RemoteRecords(
        _ivcap if settings.ivcap_configured or here else None, _provena if settings.provena_configured or here else None
    )


# Imported late: what is known here is shown without Prefect.
async def _ivcap() -> IvcapClient:
    from ivcap_flows.blocks.resolve import ivcap_client

    return await ivcap_client(None, deployed=False)


async def _provena() -> ProvenaClient:
    from ivcap_flows.blocks.resolve import provena_client

    return await provena_client(None, deployed=False)
