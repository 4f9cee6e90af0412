"""The flows whose record the command line is asked about.

`python recorded_flows.py SOURCE` runs `interrupted`, which kills itself while it waits for a reply that is not to come.
"""

import os
import signal
import sys
from pathlib import Path

from prefect import flow

from ivcap_flows import recorded
from ivcap_flows.capture import recorder
from ivcap_flows.journal.intents import Intents
from ivcap_flows.provena.collection_format import Approvals
from ivcap_flows.provena.models import Organisation
from ivcap_flows.provena.terms import Terms
from ivcap_flows.tasks import (
    download_artifact,
    mint_dataset,
    place_order,
    register_item,
    upload_artifact,
    wait_for_orders,
)

SERVICE = "cli-upper"


@recorded
def doubled(path: str) -> str:
    """A user's own step, which makes a file of a file."""
    made = Path(path).with_name("doubled.csv")
    made.write_text(Path(path).read_text() * 2)
    return str(made)


@flow
@recorded
def harvest(source: str, folder: str, note: str = "[bold]x[/y] :fire:") -> dict[str, str]:
    """Upload, order, wait, download, and a dataset at Provena."""
    series = upload_artifact(source)
    order = place_order(SERVICE, {"series": series.urn})
    [done] = wait_for_orders([order])
    [product] = done.products
    download_artifact(product, Path(folder) / "upper.csv")
    owner = register_item(Organisation(display_name="Example", name="Example")).urn
    dataset = mint_dataset(
        product,
        terms=Terms(
            organisation_id=owner,
            publisher_id=owner,
            license="https://creativecommons.org/licenses/by/4.0/",
            approvals=Approvals(),
        ),
    )
    return {"series": series.urn, "order": order.urn, "product": product.urn, "dataset": dataset.urn}


@flow
@recorded
def spoiled(message: str) -> None:
    """Its order fails."""
    wait_for_orders([place_order("fail", {"message": message})])


@flow
@recorded
def interrupted(message: str) -> None:
    """One order is accepted, of the other no reply comes, and the process is gone before it is looked for."""
    place_order("echo", {"message": message})
    assert recorder().flush()
    mark_in_doubt = Intents.mark_in_doubt

    def die(self, *doubt):
        mark_in_doubt(self, *doubt)
        os.kill(os.getpid(), signal.SIGKILL)

    Intents.mark_in_doubt = die
    place_order("echo", {"message": f"{message} again"})


@flow
@recorded
def considered(message: str, times: int = 1) -> None:
    """Orders, waits, and would order once more."""
    orders = [place_order("echo", {"message": f"{message} {n}"}, name=f"part {n}") for n in range(times)]
    wait_for_orders(orders)
    place_order("echo", {"message": f"{message} after the wait"})


if __name__ == "__main__":
    interrupted(sys.argv[1])
