"""Tell Prefect which assets a task made or found: artifacts, products and datasets.

An asset is a thing that is made again and again under one name, such as the table that a service makes each month. So
its key has the platform, a place and a name, and never a URN. Each making is a version, whose URN is in the metadata.

Prefect emits the events of a task's assets when the task completes, with the assets that they depend on. It finds these
by the identity of the objects that are passed, down to the texts in a handle, and equal texts of two handles may be one
object. So among the package's own assets, dependencies go by the URNs of inputs instead.
"""

from __future__ import annotations

import re
from collections.abc import Collection as Several
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from prefect.assets import Asset, AssetProperties
from prefect.context import AssetContext, FlowRunContext

from ivcap_flows.durable import planning
from ivcap_flows.forked import PerProcess
from ivcap_flows.handles import Artifact, Collection, Dataset, Job, Order
from ivcap_flows.identity import urn_id
from ivcap_flows.lru_cache import LruCache
from ivcap_flows.secrets import logger_of, scrub

__all__ = ["Version", "note_assets", "place_of", "products_of"]

logger = logger_of("ivcap_flows.tasks")

_LONGEST: Final = 512
"""The maximum length of a key in Prefect."""
_MOST_RELATED: Final = 90
"""Dependencies of a task's assets. An event of Prefect takes a hundred related resources, some of them its own."""
_MOST_NAMED: Final = 50
"""Versions that the metadata of one making name, if a task made several under one key."""
_OURS: Final = ("ivcap://", "provena://")
_MOST_KNOWN: Final = 10_000
_known: PerProcess[LruCache[str, Asset]] = PerProcess(lambda: LruCache(_MOST_KNOWN))
"""The asset of which each thing is a version, by its URN, as far as tasks of this process made or found it."""
_NOT_IN_KEYS: Final = re.compile(r"[^\w.~+=@:,()/-]+")


@dataclass(frozen=True)
class Version:
    """A version of an asset. `place` is where its name is known, such as `services/echo`; `new` is whether the running
    task made it."""

    handle: Artifact | Collection | Dataset
    place: str
    new: bool
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str | None:
        handle = self.handle
        return handle.display_name if isinstance(handle, Dataset) else handle.name

    @property
    def key(self) -> str | None:
        """The key of the asset; None for a thing without a name, since a URN would be another key each time."""
        if not self.name:
            return None
        platform = urlsplit(self.handle.platform).netloc or self.handle.platform.rpartition(":")[2]
        key = f"{self.tool}://{platform}/{self.place}/{self.name}"
        return _NOT_IN_KEYS.sub("-", key)[:_LONGEST]

    @property
    def tool(self) -> str:
        return "provena" if isinstance(self.handle, Dataset) else "ivcap"

    @property
    def metadata(self) -> dict[str, Any]:
        sha256 = getattr(self.handle, "sha256", None)
        told: dict[str, Any] = scrub({"urn": self.handle.urn, "sha256": sha256, **self.facts})
        return {name: value for name, value in told.items() if value is not None}


def products_of(work: Order | Job, *, new: bool) -> list[Version]:
    """Return the products of an order or job that succeeded as versions of its service's assets."""
    place = f"services/{work.service_name or urn_id(work.service)}"
    return [Version(product, place, new, {work.kind: work.urn}) for product in work.products if work.succeeded]


def place_of(collection: Collection | str | None) -> str:
    """Return the place of an uploaded artifact: its collection, if it is in one."""
    if collection is None:
        return "artifacts"
    name = collection.name if isinstance(collection, Collection) else None
    return f"collections/{name or urn_id(str(collection))}"


def note_assets(versions: Iterable[Version], *, inputs: Several[str] = ()) -> None:
    """Tell Prefect which assets the running task made or found, of things with the URNs `inputs`.

    Never raises; does nothing outside of a task.
    """
    if planning() is not None:
        return
    try:
        _note(versions, inputs)
    except Exception as error:  # noqa: BLE001 - assets are best effort
        logger.debug("Prefect was not told of assets: %s", error)


def _note(versions: Iterable[Version], inputs: Several[str]) -> None:
    context, flow = AssetContext.get(), FlowRunContext.get()
    by_key: dict[str, list[Version]] = {}
    for version in versions:
        if version.key is not None:
            by_key.setdefault(version.key, []).append(version)
    if context is None or not by_key:
        return
    # A task may tell of its assets several times. The first time, there is only what Prefect found.
    again = context.materialized_by is not None
    upstream = {asset for asset in context.upstream_assets if again or not asset.key.startswith(_OURS)}
    upstream |= {asset for urn in inputs if (asset := _known().get(urn)) is not None}
    context.upstream_assets = set(sorted(upstream, key=lambda asset: asset.key)[:_MOST_RELATED])
    assets = {Asset(key=key, properties=AssetProperties(name=some[-1].name)): some for key, some in by_key.items()}
    for asset, some in assets.items():
        context.materialized_by = some[-1].tool
        for version in some:
            _known().put(version.handle.urn, asset)
        made = [version for version in some if version.new]
        if made:
            context.downstream_assets.add(asset)
            context.add_asset_metadata(asset.key, _metadata(made))
    if flow is not None and context.task_run_id is not None:
        # Of these, not of what the task was given, the results of later tasks are made.
        before = flow.task_run_assets.get(context.task_run_id, set()) if again else set()
        flow.task_run_assets[context.task_run_id] = before | assets.keys()


def _metadata(made: list[Version]) -> dict[str, Any]:
    last = made[-1].metadata
    if len(made) == 1:
        return last
    return {**last, "count": len(made), "versions": [version.metadata for version in made[-_MOST_NAMED:]]}
