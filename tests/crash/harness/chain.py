"""The flow that is killed, in the shape of `flows/order_pipeline.py`: an upload, several orders at once of which one
fails now and then and one takes long, a wait that parks, and of all that another upload and order.

`python chain.py --serve` forks a process for each that it is asked for, without importing everything each time. A
worker loads the file itself. The scenario's folder is in CRASH_FOLDER.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "mutants"))

from prefect import flow

from harness.scenario import Scenario
from harness.steps import FAN_IN, arm, ending
from ivcap_flows import recorded, wait_or_park
from ivcap_flows.durable import parking as times
from ivcap_flows.handles import Artifact, Order
from ivcap_flows.tasks import parking, place_order, upload_artifact, watching

REPEATS = 3


@flow
@recorded
def chain(folder: str) -> list[str]:
    """The URNs of the orders that succeeded."""
    here = Path(folder)
    with (here / "entered").open("a", encoding="ascii") as told:
        told.write(f"{os.getpid()}\n")
    scenario = Scenario.read(here)
    series = upload_artifact(here / f"{scenario.mark}-series.bin")
    last = scenario.names[-1]
    done = carry_out(
        {name: scenario.seconds if name == last else 0.0 for name in scenario.names}, series, scenario, here
    )
    together = here / f"{scenario.mark}-{FAN_IN}"
    # The same bytes again whoever writes them, and whole whenever somebody reads them.
    written = here / f"{FAN_IN}.{os.getpid()}"
    text = "\n".join(order.urn for order in done) + "\n"
    written.write_text(text * (1 + scenario.size // len(text)), encoding="ascii")
    written.replace(together)
    done += carry_out({f"{scenario.mark}-all": 0.0}, upload_artifact(together), scenario, here)
    for arrive in ending:
        arrive()
    return [order.urn for order in done]


def carry_out(names: dict[str, float], series: Artifact, scenario: Scenario, here: Path) -> list[Order]:
    done: dict[str, Order] = {}
    for last in (False,) * REPEATS + (True,):
        wanted = [name for name in names if name not in done]
        placed = [place(name, names[name], series, scenario, here) for name in wanted]
        ended = wait_or_park(placed, raise_on_failure=last)
        done |= {n: order for n, order in zip(wanted, ended, strict=True) if order.succeeded}
        if len(done) == len(names):
            break
    return [done[name] for name in names]


def place(name: str, seconds: float, series: Artifact, scenario: Scenario, here: Path) -> Order:
    parameters = {
        "name": name,
        "series": series,
        "ledger": str(here / "ledger"),
        "fails": scenario.fails if name == scenario.names[0] else 0,
        "seconds": seconds,
    }
    return place_order(
        "moody",
        parameters,
        # Two commands at once are two runs, which are to share their orders.
        scope="flow" if scenario.twice and not scenario.deployed else "run",
        on_failure="resubmit",
        max_resubmits=REPEATS,
    )


def be_hasty() -> None:
    """Park and wake within seconds, where users have minutes."""
    times.SHORTEST = parking.SHORTEST = 6.0  # type: ignore[misc]
    times.WATCHED = 40.0  # type: ignore[misc]
    parking.WOKEN = parking.AGAIN = 1.0  # type: ignore[misc]
    watching.EVERY = 0.5  # type: ignore[misc]


def tell(what: dict[str, Any]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


USED = (
    "fastapi",
    "prefect.concurrency",
    "prefect.flow_engine",
    "prefect.task_engine",
    "ivcap_flows.capture.code",
    "ivcap_flows.capture.reconcile",
    "ivcap_flows.cli.app",
    "ivcap_flows.durable.orphans",
    "ivcap_flows.journal.runs",
    "ivcap_flows.sinks",
)
"""What flows and commands import when they need it."""


def serve() -> dict[str, Any]:
    """In a forked process: what it is to do. The one that forks tells of each how it ended, and ends with its input."""
    for module in USED:
        importlib.import_module(module)
    children: dict[int, int] = {}
    unread = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.05 if children else None)
        if ready:
            some = os.read(0, 65536)
            if not some:
                sys.exit()
            *lines, unread = (unread + some).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                child = os.fork()
                if child == 0:
                    return dict(asked)
                children[child] = asked["number"]
                tell({"number": asked["number"], "pid": child})
        while children:
            child, ended = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                break
            tell({"number": children.pop(child), "status": os.waitstatus_to_exitcode(ended)})


def obey(asked: dict[str, Any]) -> None:
    for stream, path in enumerate((os.devnull, asked["out"], asked["log"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), stream)
    os.environ.update(asked["environment"])
    be_hasty()
    if asked["words"] is not None:
        from ivcap_flows.cli import main

        sys.argv[1:] = asked["words"]
        main(asked["words"])
        return
    folder = Path(asked["folder"])
    arm(folder)
    (folder / "result.json").write_text(json.dumps(chain(str(folder))), encoding="utf-8")


if __name__ == "__main__":
    obey(serve())
elif "CRASH_FOLDER" in os.environ:
    be_hasty()
    arm(Path(os.environ["CRASH_FOLDER"]))
