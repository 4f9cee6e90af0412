"""Handles of a platform: orders and artifacts that tasks take, return, attach to and download."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ivcap_flows import flow, recorded
from ivcap_flows.handles import Artifact, LocalFile, Order, Products
from ivcap_flows.identity import digest, file_urn

Edges = Callable[..., None]
EMBEDDED = "urn:ivcap-flows:embedded:1"
SERIES = Artifact(urn="urn:ivcap:artifact:series", platform=EMBEDDED, name="series")
PRODUCT = Artifact(urn="urn:ivcap:artifact:product", platform=EMBEDDED, name="p.csv")


@dataclass
class Box:
    order: Order


class Form(BaseModel):
    boxes: list[Box]


def order(name: str = "1", **changes: Any) -> Order:
    now = datetime.now(timezone.utc)
    facts = {"urn": f"order {name}", "platform": EMBEDDED, "service": "urn:ivcap:service:s", "requested_at": now}
    return Order(**{**facts, "parameters": {"series": SERIES.urn}, **changes})


def test_orders_and_their_products(edges: Edges, recorded_graph: Callable[..., Any]) -> None:
    """An order is started by the task that returns it, informs the one that takes it, also from lists, dataclasses and
    models, and makes its products. One that its platform dates before the call was found by it, as an artifact is.
    """
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)

    @recorded
    def place(series: Artifact) -> Form:
        return Form(boxes=[Box(order())])

    @recorded
    def finish(form: Form) -> Order:
        return order(status="succeeded", products=Products((PRODUCT,)), finished_at=datetime.now(timezone.utc))

    @recorded
    def pick(order: Order) -> Artifact:
        return order.products["p.csv"]

    @recorded
    def attach() -> tuple[Order, Artifact]:
        return order("2", requested_at=yesterday), SERIES.model_copy(update={"created_at": yesterday})

    @flow
    def main() -> None:
        pick(finish(place(SERIES)))
        attach()

    main()
    edges(
        {
            ("used", "place", "series"),
            ("used", "order 1", "series"),
            ("informed", "finish", "order 1"),
            ("made", "order 1", "p.csv"),
            ("informed", "pick", "order 1"),
            ("used", "order 2", "series"),
            ("informed", "attach", "order 2"),
            ("used", "attach", "series"),
        }
    )
    graph = recorded_graph()
    assert graph.nodes["order 1"].attributes["status"] == "succeeded"
    [by] = [link.target for link in graph.relations.values() if (link.type, link.source) == ("wasStartedBy", "order 1")]
    assert graph.nodes[by].attributes["name"] == "place"
    assert SERIES.urn in graph.lineage(PRODUCT.urn)


def test_a_download_leads_back_to_the_artifact(
    tmp_path: Path, edges: Edges, recorded_graph: Callable[..., Any]
) -> None:
    """The file has the artifact's sha256, so it is no product of the download, and lineage joins the two."""

    @recorded
    def download(artifact: Artifact) -> LocalFile:
        return LocalFile(path=str(tmp_path / "series.csv"), sha256=digest(b"bytes"), size=5)

    @flow
    def main() -> None:
        download(SERIES.model_copy(update={"sha256": digest(b"bytes")}))

    main()
    edges({("used", "download", "series")})
    graph = recorded_graph()
    assert SERIES.urn in graph.lineage(file_urn(digest(b"bytes")))
