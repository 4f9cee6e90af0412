"""Flows that are run, and repeated by the command that `rerun` prints."""

import os
from pathlib import Path

from prefect import flow, task
from pydantic import SecretStr

from ivcap_flows import recorded
from ivcap_flows.handles import Artifact
from ivcap_flows.tasks import (
    OrderStep,
    download_artifact,
    place_order,
    request_job,
    run_orders,
    upload_artifact,
    wait_for_jobs,
    wait_for_orders,
)


@flow
@recorded
def shouted(source: Path, target: Path) -> str:
    """Orders, and downloads what came of it."""
    print("shouting")
    order = place_order("cli-upper", {"series": upload_artifact(source)})
    [done] = wait_for_orders([order])
    download_artifact(done.products[0], target)
    return done.urn


@flow
@recorded
def shared(message: str) -> list[str]:
    """Orders and jobs that runs share."""
    job = request_job("echo", {"message": message}, once_per="flow", reuse=True)
    steps = [OrderStep("echo", {"message": message}, once_per="account"), OrderStep("echo", {"message": f"{message}!"})]
    return [done.urn for done in (*run_orders(steps), *wait_for_jobs([job]))]


@flow
@recorded
def stamped(target: str) -> str:
    """Makes what another process would make otherwise."""
    Path(target).write_text(os.environ["STAMP"])
    return target


@flow
@recorded
def confided(word: SecretStr, dsn: str, options: dict[str, str]) -> int:
    return len(word.get_secret_value() + dsn + options["password"])


@task
@recorded
def cleaned(source: Path, target: Path) -> Path:
    target.write_text(source.read_text().replace("\n\n", "\n"))
    return target


SPELLED = (os.fsdecode(b"Mu\xf1oz.csv"), r"Mu\udcf1oz.csv")
"""A name that is no UTF-8, and one that looks as that is displayed."""


@flow
@recorded
def spelled(folder: Path) -> None:
    """Reads files by names that Prefect takes as no parameter."""
    for name in SPELLED:
        cleaned(folder / name, folder / f"clean {name}")


@flow
@recorded
def prepared(source: Path, target: Path) -> Artifact:
    """Uploads what it made."""
    return upload_artifact(cleaned(source, target))


@flow
@recorded
def handed(one: Artifact | None, many: list[Artifact], named: dict[str, Artifact | Path], urn: str, data: bytes) -> str:
    """Takes handles, also within other values, the name of a thing as a text, and what no record holds."""
    return f"{one} {many} {named} {urn} {data!r}"


@task
@recorded
def counted(folder: Path) -> int:
    return len(list(folder.iterdir()))


@flow
@recorded
def counting(folder: Path) -> int:
    return counted(folder)


@flow
@recorded
def summed(folder: Path) -> Artifact:
    """Its body writes what a task uploads."""
    folder.mkdir(exist_ok=True)
    (folder / "sum.txt").write_text(f"{folder} 3")
    return upload_artifact(folder / "sum.txt")
