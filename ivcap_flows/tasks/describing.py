"""What IVCAP says of the artifacts that a registration names by their URNs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ivcap_flows.errors import PlatformOffError
from ivcap_flows.handles import Artifact
from ivcap_flows.settings import Settings
from ivcap_flows.tasks.call import IvcapCall, IvcapCredentialsLike

if TYPE_CHECKING:
    from ivcap_flows.registration.requirements import Describe

__all__ = ["describing"]


def describing(
    credentials: IvcapCredentialsLike, *, alone: bool, known: Mapping[str, Artifact] = MappingProxyType({})
) -> Describe:
    """Return a function that returns an artifact's handle: the one that is `known` by the URN, else that from IVCAP.

    If IVCAP is off, the handle has only the URN. IVCAP is off, too, if Provena was given `alone` and the environment
    names no platform: the embedded one knows nothing of it. Raises NotFoundError for an artifact that IVCAP does not
    have, since Provena would keep a dataset of it for ever.
    """

    async def described(urn: str) -> Artifact:
        if urn in known:
            return known[urn]
        bare = Artifact(urn=urn, platform="IVCAP")
        if alone and credentials is None and not Settings.current().ivcap_configured:
            return bare
        try:
            call = await IvcapCall.of(credentials)
            return (await call.client.artifacts.read(urn)).handle(call.platform)
        except PlatformOffError:
            return bare

    return described
