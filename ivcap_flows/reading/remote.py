"""Compare what a run recorded about things on IVCAP and Provena with what the platforms report now."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ivcap_flows.errors import ForbiddenError, IntegrityError, IvcapFlowsError, NotFoundError
from ivcap_flows.identity import EMBEDDED, canonical, digest, fingerprint, flows_urn
from ivcap_flows.journal import Journal, RunRow
from ivcap_flows.loop import all_of
from ivcap_flows.provenance import Graph, Record
from ivcap_flows.provenance.describe import shortened
from ivcap_flows.reading.findings import Finding
from ivcap_flows.secrets import HIDDEN

if TYPE_CHECKING:
    from ivcap_flows.ivcap.client import IvcapClient
    from ivcap_flows.journal import IntentRow
    from ivcap_flows.provena.client import ProvenaClient

__all__ = ["Platforms", "verify_remote"]

_DOWNLOAD: Final = "Download artifact"
_WHERE_EMBEDDED: Final = (
    " Start the command in the folder where the run was started, or set IVCAP_LOCAL_DIR to its platforms."
)
_ENDED: Final = frozenset({"succeeded", "failed", "error"})


@dataclass(frozen=True)
class Platforms:
    """Functions that return the clients; None for a platform that is off."""

    ivcap: Callable[[], Awaitable[IvcapClient]] | None = None
    provena: Callable[[], Awaitable[ProvenaClient]] | None = None


async def verify_remote(journal: Journal, run: RunRow, graph: Graph, platforms: Platforms) -> list[Finding]:
    """Return a finding for each thing of a run's graph on a platform, and for the run's record if it was delivered.

    The things are artifacts, aspects, orders, jobs, model runs, datasets and dataset files.
    """
    reader = _Reader(graph, platforms, journal)
    checks = [(node, check) for node in graph.nodes.values() if (check := reader.check_of(node)) is not None]
    found = await all_of(lambda each: reader.judged(*each), checks)
    sent = await journal.ask(journal.deliveries.where, run_id=run.id, state="delivered", limit=None)
    if any(row.sink.partition(":")[0] == "ivcap" for row in sent):
        node = Record(kind="entity", id=flows_urn("run", run.id), type="run record")
        found.append(await reader.judged(node, reader.run_record))
    return found


def _finding(node: Record, state: Any, note: str | None = None, sha256: str | None = None) -> Finding:
    return Finding(node.type, node.id, state, node.attributes.get("name"), note, sha256)


def _differing(node: Record, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> Finding:
    """Return `altered` with the differences between facts that both sides know, or `ok` if there are none."""
    known = {name for name in recorded if recorded[name] is not None and now.get(name) is not None}
    other = [
        f"{name} was {recorded[name]!r} and is {now[name]!r}"
        for name in recorded
        if name in known and recorded[name] != now[name]
    ]
    return _finding(node, "altered", "; ".join(other)) if other else _finding(node, "ok")


class _Reader:
    def __init__(self, graph: Graph, platforms: Platforms, journal: Journal) -> None:
        self._graph = graph
        self._platforms = platforms
        self._journal = journal
        self._downloads = dict(self._downloaded())
        last = {
            (n.attributes.get("about"), n.attributes.get("schema")): n.id
            for n in graph.nodes.values()
            if n.type == "aspect"
        }
        self._last_aspects = set(last.values())

    async def judged(self, node: Record, check: Callable[[Record], Awaitable[Finding]]) -> Finding:
        try:
            return await check(node)
        except NotFoundError as error:
            if (maker := await self._made_by_another(node)) is not None:
                return _finding(node, "unreachable", f"{maker} made it, and the account at hand does not see it")
            return _finding(node, "missing", str(error))
        except IntegrityError as error:
            return _finding(node, "altered", str(error))
        except ForbiddenError as error:
            return _finding(node, "unreachable", f"it may not be read: {error}")
        except (IvcapFlowsError, OSError) as error:
            return _finding(node, "unreachable", str(error))

    async def _made_by_another(self, node: Record) -> str | None:
        """Return the account that made what the one at hand does not see; None if nobody else is known to have."""
        work = self._graph.targets(node.id, "wasGeneratedBy")
        urns = [node.id, *(each.id for each in work if each.type in ("order", "job"))]

        def rows() -> list[IntentRow]:
            return [row for urn in urns for row in self._journal.intents.where(urn=urn)]

        if node.type in ("model-run", "dataset", "dataset-file"):
            own = await (await self._provena(node)).username()
        else:
            own = await (await self._ivcap(node)).account()
        accounts = {row.account for row in await self._journal.ask(rows)}
        return None if own in accounts else next(iter(sorted(accounts)), None)

    def check_of(self, node: Record) -> Callable[[Record], Awaitable[Finding]] | None:
        checks: dict[str, Callable[[Record], Awaitable[Finding]]] = {
            "artifact": self._artifact,
            "aspect": self._aspect,
            "order": self._order,
            "job": self._job,
            "model-run": self._model_run,
            "dataset": self._dataset,
            "dataset-file": self._dataset_file,
        }
        return checks.get(node.type)

    def _downloaded(self) -> Iterator[tuple[str, str]]:
        """Yield the sha256 of each artifact that the run downloaded, since IVCAP keeps none."""
        for node in self._graph.nodes.values():
            if node.kind == "activity" and node.attributes.get("name") == _DOWNLOAD:
                used = [thing.id for thing in self._graph.targets(node.id, "used") if thing.type == "artifact"]
                made = self._graph.sources(node.id, "wasGeneratedBy")
                contents = {thing.attributes.get("sha256") for thing in made if thing.type == "file"}
                if len(used) == 1 and len(contents) == 1 and isinstance(sha256 := contents.pop(), str):
                    yield used[0], sha256

    def _plan(self, node: Record) -> str | None:
        return next((plan.id for plan in self._graph.targets(node.id, "hadPlan")), None)

    async def _ivcap(self, node: Record) -> IvcapClient:
        client: IvcapClient = await self._client(node, "IVCAP", self._platforms.ivcap)
        return client

    async def _provena(self, node: Record) -> ProvenaClient:
        client: ProvenaClient = await self._client(node, "Provena", self._platforms.provena)
        return client

    async def _client(self, node: Record, name: str, make: Callable[[], Awaitable[Any]] | None) -> Any:
        platform = node.attributes.get("platform")
        step = _WHERE_EMBEDDED if str(platform).startswith(EMBEDDED) else ""
        if make is None:
            raise IvcapFlowsError(f"{name} is off: the environment names none.{step}")
        client = await make()
        if platform is not None and platform != await client.platform():
            raise IvcapFlowsError(f"It is on {platform}, which is not the {name} that the environment names.{step}")
        return client

    async def _artifact(self, node: Record) -> Finding:
        client = await self._ivcap(node)
        record = await client.artifacts.read(node.id)
        if not record.complete:
            return _finding(node, "altered", f"it is {record.status}")
        expected = node.attributes.get("sha256") or self._downloads.get(node.id)
        size = node.attributes.get("size")
        if isinstance(size, int) and record.known_size not in (None, size):
            return _finding(node, "altered", f"it had {size} bytes and has {record.known_size}")
        hasher = hashlib.sha256()
        async with aclosing(client.artifacts.stream(node.id)) as blocks:
            async for block in blocks:
                hasher.update(block)
        now = hasher.hexdigest()
        if expected is None:
            return _finding(node, "unchecked", f"no run has read its bytes before; its sha256 is now {now}")
        if now != expected:
            return replace(_finding(node, "altered", f"its sha256 was {expected} and is now {now}"), sha256=expected)
        return _finding(node, "ok", sha256=now)

    async def _aspect(self, node: Record) -> Finding:
        client = await self._ivcap(node)
        record = await client.aspects.read(node.id)
        recorded = node.attributes
        now = {"about": record.entity, "schema": record.schema_urn}
        if record.content is not None and recorded.get("content_sha256") is not None:
            now["content_sha256"] = fingerprint(record.content)
        found = _differing(node, {name: recorded.get(name) for name in ("about", "schema", "content_sha256")}, now)
        found = replace(found, name=str(recorded.get("schema") or "") or None)
        if found.state == "ok" and not record.active and node.id in self._last_aspects:
            return replace(found, state="altered", note=f"it was replaced or retracted at {record.valid_to}")
        return found

    async def _order(self, node: Record) -> Finding:
        client = await self._ivcap(node)
        record = await client.orders.read(node.id)
        now = record.handle(await client.platform())
        products = [product.urn async for product in client.orders.products(node.id)]
        asked = self._known_parameters(node, now.parameters)
        return self._work(node, now.service, now.status, products, {"parameters": asked})

    def _known_parameters(self, node: Record, now: Mapping[str, str]) -> Any:
        """Return the recorded parameters with their present values.

        The platform adds some of its own, and may report none. A parameter that the record hides is not compared.
        """
        recorded = node.attributes.get("parameters")
        if not isinstance(recorded, Mapping) or not now:
            return None
        return {name: value if HIDDEN in str(value) else now.get(name) for name, value in recorded.items()}

    async def _job(self, node: Record) -> Finding:
        client = await self._ivcap(node)
        service = self._plan(node) or await client.jobs.service_of(node.id)
        record = await client.jobs.read(service, node.id, with_request=True, with_result=False)
        products = [product.urn async for product in client.jobs.products(record)]
        hidden = HIDDEN in str(node.attributes.get("request"))
        asked = None if hidden else shortened(record.request_content)
        return self._work(node, service, record.status, products, {"request": asked})

    def _work(self, node: Record, service: str, status: str, products: list[str], asked: Mapping[str, Any]) -> Finding:
        recorded = {"service": self._plan(node), **{name: node.attributes.get(name) for name in asked}}
        if node.attributes.get("status") in _ENDED:
            recorded["status"] = node.attributes["status"]
        found = _differing(node, recorded, {"service": service or None, "status": status, **asked})
        made = self._graph.sources(node.id, "wasGeneratedBy")
        lost = [thing.id for thing in made if thing.type == "artifact" and thing.id not in products]
        if found.state == "ok" and lost:
            return replace(found, state="altered", note=f"it names these products no more: {', '.join(lost)}")
        return found

    async def _model_run(self, node: Record) -> Finding:
        client = await self._provena(node)
        item = await client.registry.fetch("MODEL_RUN", node.id)
        handle: Any = item.handle(await client.platform())
        recorded = {
            "workflow template": self._plan(node),
            "inputs": sorted(thing.id for thing in self._graph.targets(node.id, "used")),
            "outputs": sorted(thing.id for thing in self._graph.sources(node.id, "wasGeneratedBy")),
        }
        now = {
            "workflow template": handle.workflow_template,
            "inputs": sorted(handle.inputs),
            "outputs": sorted(handle.outputs),
        }
        return _differing(node, recorded, now)

    async def _dataset(self, node: Record) -> Finding:
        from ivcap_flows.provena.items import Item

        client = await self._provena(node)
        item = await client.registry.fetch_any(node.id)
        if not isinstance(item, Item):
            return _finding(node, "altered", "it is an empty seed")
        handle: Any = item.handle(await client.platform())
        now = {"access_uri": getattr(handle, "access_uri", None), "name": item.display_name}
        return _differing(node, {name: node.attributes.get(name) for name in now}, now)

    async def _dataset_file(self, node: Record) -> Finding:
        client = await self._provena(node)
        dataset = next((each.id for each in self._graph.sources(node.id, "hadMember")), None)
        path = node.attributes.get("name")
        if dataset is None or not isinstance(path, str):
            return _finding(node, "unchecked", "the record does not say which file of which dataset it is")
        with tempfile.TemporaryDirectory() as folder:
            async with client.files(dataset) as files:
                content = (await files.download(folder, [path]))[path]
        expected = node.attributes.get("sha256")
        if expected is None:
            return _finding(node, "unchecked", f"its sha256 was not known; it is now {content.sha256}")
        if content.sha256 != expected:
            return _finding(node, "altered", f"its sha256 was {expected} and is now {content.sha256}")
        return _finding(node, "ok", sha256=content.sha256)

    async def run_record(self, node: Record) -> Finding:
        from ivcap_flows.sinks.ivcap import RUN_SCHEMA, parts_by_run

        client = await self._ivcap(node)
        parts = (await parts_by_run(client.aspects, node.id, RUN_SCHEMA)).get(node.id, {})
        newest = parts.get(self._journal.id)
        if newest is None:
            return _finding(node, "missing", "IVCAP has no record of the run, though it was delivered")
        content = dict(newest.content)
        recorded = content.pop("sha256", None)
        if recorded != digest(canonical(content)):
            return _finding(node, "altered", f"the content of {newest.urn} has not the sha256 that it names")
        return _finding(node, "ok")
