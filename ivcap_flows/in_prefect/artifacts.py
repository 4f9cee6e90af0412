"""What this package shows in Prefect's UI beside a run is written here, as artifacts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from ivcap_flows.identity import digest
from ivcap_flows.plain_text import visible
from ivcap_flows.secrets import scrub

if TYPE_CHECKING:
    from prefect.client.schemas.actions import ArtifactCreate

__all__ = ["PrefectArtifact", "ashow", "key_for", "moment", "show"]

_NOT_IN_KEY: Final = re.compile("[^a-z0-9]+")


@dataclass(frozen=True)
class PrefectArtifact:
    """Markdown, a table of rows, or a share in per cent, beside a flow run or a task run, without secrets and
    control characters. With a `key` it is a version of the artifact of that name."""

    kind: Literal["markdown", "table", "progress"]
    content: Any
    description: str
    flow_run: str | None
    task_run: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        for name in ("content", "description"):
            object.__setattr__(self, name, visible(scrub(getattr(self, name))))

    @property
    def data(self) -> Any:
        """The content as Prefect takes it."""
        return json.dumps(self.content) if self.kind == "table" else self.content


def key_for(what: str, flow: str) -> str:
    """Return the key of an artifact that each run of a flow makes a version of: lower-case letters, digits, dashes.

    Prefect takes no other characters. The beginning of a digest replaces them, so that no two flows share a key.
    """
    named = _NOT_IN_KEY.sub("-", flow.lower()).strip("-")
    lost = "" if named == flow else digest(flow.encode(errors="surrogatepass"))[:8]
    return "-".join(filter(None, (what, named, lost)))


def moment(at: datetime | None) -> str | None:
    """Return a time as tables show it, in UTC."""
    return None if at is None else at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


def show(*artifacts: PrefectArtifact) -> None:
    """Show new artifacts, also while the interpreter ends."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for artifact in artifacts:
            # `create_artifact` also emits an event. An interpreter that ends starts no sender of events, and Prefect
            # would log the traceback.
            client.request("POST", "/artifacts/", json=_new(artifact).model_dump(mode="json", exclude_unset=True))


async def ashow(artifact: PrefectArtifact, known: UUID | None = None) -> UUID:
    """Show a new artifact, or where it is `known`, what it says by now; its id."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactUpdate

    async with get_client() as client:
        if known is None:
            return (await client.create_artifact(_new(artifact))).id
        await client.update_artifact(known, ArtifactUpdate(data=artifact.data, description=artifact.description))
        return known


def _new(artifact: PrefectArtifact) -> ArtifactCreate:
    from prefect.client.schemas.actions import ArtifactCreate

    return ArtifactCreate(
        key=artifact.key,
        type=artifact.kind,
        data=artifact.data,
        description=artifact.description,
        flow_run_id=_id(artifact.flow_run),
        task_run_id=_id(artifact.task_run),
    )


def _id(run: str | None) -> UUID | None:
    return UUID(run) if run else None
