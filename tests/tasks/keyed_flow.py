"""A flow that asks for one effect of each kind, with values to which a process gives an order, an offset or a path.

`python keyed_flow.py <scope>` runs it. With DIE=1 the process kills itself where the flow would end. MIME_TYPES names a
table of the host's. The tests copy the file into projects of their own.
"""

import mimetypes
import os
import signal
import sys
from datetime import date, datetime, timezone
from enum import Enum
from pathlib import Path

from prefect import flow
from pydantic import BaseModel, ConfigDict

from ivcap_flows import recorded
from ivcap_flows.handles import Artifact
from ivcap_flows.tasks import attach_aspect, place_order, request_job, upload_artifact


class Season(Enum):
    WARM = "warm"
    COLD = "cold"
    WET = "wet"
    DRY = "dry"


class Window(BaseModel):
    model_config = ConfigDict(frozen=True)

    start: date
    seasons: frozenset[Season] = frozenset(Season)


class Request(BaseModel):
    windows: set[Window]
    artifacts: frozenset[Artifact]
    around: datetime


@flow(name="keyed")
@recorded
def keyed(source: Path, windows: set[Window], around: datetime, unique: str, scope: str) -> None:
    platform = upload_artifact(source).platform
    artifacts = frozenset(Artifact(urn=f"urn:ivcap:artifact:{n}", platform=platform) for n in range(4))
    request = Request(windows=windows, artifacts=artifacts, around=around)
    place_order("keyed", {"message": unique, "around": around}, once_per=scope)
    request_job("keyed", {"unique": unique, "seasons": set(Season), "artifacts": artifacts}, once_per=scope)
    request_job("keyed", request, discriminator=unique, once_per=scope)
    attach_aspect(f"urn:example:{unique}", request, schema="urn:example:schema:windows.1", once_per=scope)
    if os.environ.get("DIE"):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    mimetypes.init([os.environ["MIME_TYPES"]])
    here = Path(__file__).parent
    keyed(
        here / "data" / "coast.geojson",
        {Window(start=date(1982, month, 1)) for month in range(1, 9)},
        datetime(1982, 12, 1, 6, tzinfo=timezone.utc).astimezone(),
        (here / "data" / "unique.txt").read_text(encoding="utf-8"),
        sys.argv[1],
    )
