"""Handles of a platform: orders and artifacts that tasks take, return, attach to and download."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from on_record import pairs
from ordinary_edges import the
from prefect import flow, task
from pydantic import BaseModel, SecretStr

from ivcap_flows import flow as drop_in_flow
from ivcap_flows import recorded
from ivcap_flows.handles import Artifact, Job, LocalFile, Order, Products
from ivcap_flows.identity import digest, file_urn

EMBEDDED = "urn:ivcap-flows:embedded:1"
# A crate does not take along code in which a secret is written out.
TOKEN = uuid.uuid4().hex
SERIES = Artifact(urn="urn:ivcap:artifact:series", platform=EMBEDDED, name="series")
PRODUCT = Artifact(urn="urn:ivcap:artifact:product", platform=EMBEDDED, name="p.csv")


@dataclass
class Box:
    order: Order
    note: str = "x"


class Form(BaseModel):
    boxes: list[Box]
    token: SecretStr


def an_order(**changes) -> Order:
    now = datetime.now(timezone.utc)
    facts = {"urn": "urn:ivcap:order:1", "platform": EMBEDDED, "service": "urn:ivcap:service:s", "requested_at": now}
    return Order(**{**facts, "parameters": {"series": SERIES.urn}, **changes})


def test_handles_are_found_in_lists_dataclasses_and_models(prefect_api, recorded_graph):
    """An order is started by the task that returns it, informs the one that takes it, and leads to its products."""

    @task
    @recorded
    def place(series: Artifact) -> Form:
        return Form(boxes=[Box(an_order())], token=SecretStr(TOKEN))

    @task
    @recorded
    def finish(form: Form) -> Order:
        return an_order(status="succeeded", products=Products((PRODUCT,)), finished_at=datetime.now(timezone.utc))

    @task
    @recorded
    def pick(order: Order) -> Artifact:
        return order.products["p.csv"]

    @flow
    @recorded
    def handles() -> Artifact:
        return pick(finish(place(SERIES)))

    handles()
    graph = recorded_graph()
    place_run, finish_run = the(graph, "task-run", "place"), the(graph, "task-run", "finish")
    order = the(graph, "order")
    assert (place_run.id, SERIES.urn) in pairs(graph, "used")
    assert (order.id, place_run.id) in pairs(graph, "wasStartedBy")
    assert (finish_run.id, order.id) in pairs(graph, "wasInformedBy")
    assert pairs(graph, "wasGeneratedBy") == {(PRODUCT.urn, order.id)}
    assert order.attributes["status"] == "succeeded"
    assert SERIES.urn in graph.lineage(PRODUCT.urn)
    assert "s3cret" not in str([record.attributes for record in graph])


def test_what_existed_before_is_used_not_made(prefect_api, recorded_graph):
    """An order or artifact that its platform dates before the call was found by it."""
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)

    @task
    @recorded
    def attach() -> tuple[Order, Artifact]:
        return an_order(requested_at=yesterday), SERIES.model_copy(update={"created_at": yesterday})

    @flow
    @recorded
    def attaching() -> None:
        attach()

    attaching()
    graph = recorded_graph()
    run = the(graph, "task-run", "attach").id
    assert (run, "urn:ivcap:order:1") in pairs(graph, "wasInformedBy")
    assert (run, SERIES.urn) in pairs(graph, "used")
    assert pairs(graph, "wasGeneratedBy") == set()


def test_a_download_leads_back_to_the_artifact(tmp_path, edges, recorded_graph):
    """The file has the artifact's sha256, so it is no product of the download, and lineage joins the two."""

    @recorded
    def download(artifact: Artifact) -> LocalFile:
        return LocalFile(path=str(tmp_path / "series.csv"), sha256=digest(b"bytes"), size=5)

    @drop_in_flow
    def main() -> None:
        download(SERIES.model_copy(update={"sha256": digest(b"bytes")}))

    main()
    edges({("used", "download", "series")})
    graph = recorded_graph()
    assert SERIES.urn in graph.lineage(file_urn(digest(b"bytes")))


def test_what_is_taken_out_of_the_result_of_a_job_comes_from_the_job(edges):
    """A text, a number, or all of it; a number that all of Python shares says nothing."""

    @task
    @recorded
    def run(number: int) -> list[Job]:
        found = {"message": f"the words of job {number}", "rows": [{"mean": number + 0.5, "count": 1}]}
        return [Job(urn=f"urn:ivcap:job:{number}", platform=EMBEDDED, service="urn:ivcap:service:s", result=found)]

    @task
    @recorded
    def use(value: object) -> None:
        pass

    @drop_in_flow
    def main() -> None:
        [first], [second] = run(1), run(2)
        use(first.result["message"])
        use(first.result["rows"][0]["mean"])
        use(first.result["rows"][0]["count"])
        use([second.result, first.result["message"]])
        use(second)

    main()
    edges(
        {
            ("informed", "use[0]", "urn:ivcap:job:1"),
            ("informed", "use[1]", "urn:ivcap:job:1"),
            ("informed", "use[3]", "urn:ivcap:job:1"),
            ("informed", "use[3]", "urn:ivcap:job:2"),
            ("informed", "use[4]", "urn:ivcap:job:2"),
        }
    )
