"""Flows whose runs are exported: one that fails, one with a subflow and mapped tasks, one that parks."""

from pathlib import Path

from prefect import flow, task

from ivcap_flows import recorded, wait_or_park
from ivcap_flows.tasks import place_order, upload_artifact


@task
@recorded
def shorten(source: Path, target: Path) -> Path:
    """Half of a file."""
    text = source.read_text()
    target.write_text(text[: len(text) // 2])
    return target


@task
@recorded
def joined(parts: list[Path], target: Path) -> Path:
    target.write_text("".join(part.read_text() for part in parts))
    return target


@flow(name="shorten-all")
@recorded
def shorten_all(sources: list[Path], folder: Path) -> list[Path]:
    """The subflow: a task for each file, at once."""
    return shorten.map(sources, [folder / f"short-{source.name}" for source in sources]).result()


@flow(name="with-parts")
@recorded
def with_parts(sources: list[Path], folder: Path, note: str = "A 'note' with <b>markup</b> & ünïcode") -> Path:
    return joined(shorten_all(sources, folder), folder / "whole.txt")


@flow(name="spoiled")
@recorded
def spoiled(source: Path, message: str) -> None:
    """Uploads, then meets an error that names a secret."""
    upload_artifact(source, name=f"series {message}")
    raise RuntimeError(f"The server refused {message}.")


@flow(name="parks")
@recorded
def parks(until: str) -> list[str]:
    order = place_order("ends-with-a-file", {"file": until})
    return [done.status for done in wait_or_park([order])]
