"""`diff` of two recorded runs that differ in one thing names that thing as the first reason."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ivcap_flows.capture import attempts, code, journal, recorded, recorder
from ivcap_flows.cli.diff import difference
from ivcap_flows.handles import Artifact, Order, Products
from ivcap_flows.identity import digest
from ivcap_flows.journal import RunIdentity, RunRow
from ivcap_flows.provenance.difference import Result

EMBEDDED = "urn:ivcap-flows:embedded:1"
SEASONS = ("DJF", "MAM", "JJA", "SON", "all")


@recorded
def mean(source: Path) -> float:
    return sum(map(float, source.read_text().split())) / 3


@recorded
def scale(source: Path, target: Path, factor: float, **noise: Any) -> Path:
    target.write_text(" ".join(str(factor * float(each)) for each in source.read_text().split()))
    return target


@recorded
def beside(source: Path, target: Path, colour: str) -> Path:
    target.write_text(f"{colour} {source.read_text()}")
    return target


@recorded
def ordered(service: str, base: str, made: str) -> Order:
    """Make the step look like an order, with new URNs in each run."""
    product = Artifact(
        urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform=EMBEDDED, name="index.csv", sha256=digest(made.encode())
    )
    return Order(
        urn=f"urn:ivcap:order:{uuid.uuid4()}",
        platform=EMBEDDED,
        service=f"urn:ivcap:service:{service}",
        service_name="season",
        status="succeeded",
        requested_at=datetime.now(timezone.utc),
        parameters={"base": base, "id": str(uuid.uuid4())},
        products=Products((product,)),
    )


class Flow:
    """The inputs of a run. Each run has its own ids, times and folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = {
            "factor": 2.0, "colour": "red", "text": "1 2 3", "name": "series.txt", "order": 1, "version": "x = 1",
            "service": "1", "base": "1981", "season": {}, "texts": {},
        }  # fmt: skip

    def run(self, body: Callable[[Flow, Path], None], **changed: Any) -> RunRow:
        self.facts |= changed
        place = self.folder / uuid.uuid4().hex
        place.mkdir()
        self.script = place / "flow.py"
        self.script.write_text(self.facts["version"])
        parameters = {name: self.facts[name] for name in ("factor", "base")}
        parameters |= {"id": str(uuid.uuid4()), "output": str(place), "at": datetime.now(timezone.utc).isoformat()}
        own = str(uuid.uuid4())
        identity = RunIdentity("planted", f"{self.script}:planted", parameters, own, own)
        opened = attempts.open_attempt(identity, str(self.script), "planted")
        self.begun = datetime.now(timezone.utc).isoformat()
        body(self, place)
        attempts.close_attempt(opened, "completed")
        assert recorder().flush()
        return journal().runs.get(opened.run.id)

    def file(self, place: Path, name: str | None = None, text: str | None = None) -> Path:
        path = place / (name or self.facts["name"])
        path.write_text(text or self.facts["text"])
        return path


def single(flow: Flow, place: Path) -> None:
    """Two steps in sequence, with a value computed from the file, and another result from another file."""
    source = flow.file(place)
    half = scale(source, place / "half.txt", flow.facts["factor"] / 2, id=str(uuid.uuid4()), at=flow.begun)
    scale(half, place / "result.txt", flow.facts["factor"] * mean(source))
    beside(flow.file(place, "other.txt", "0"), place / "beside.txt", "red")


def told(flow: Flow, place: Path) -> None:
    scale(flow.file(place), place / "result.txt", flow.facts["factor"])


def mapped(flow: Flow, place: Path) -> None:
    """Five steps of one name, in this order or reversed, each with its own file and factor."""
    for season in SEASONS[:: flow.facts["order"]]:
        source = flow.file(place, f"{season}.txt", flow.facts["texts"].get(season, f"1 2 {SEASONS.index(season)}"))
        scale(source, place / f"of-{season}.txt", flow.facts["season"].get(season, 2.0))


def on_platform(flow: Flow, place: Path) -> None:
    ordered(flow.facts["service"], flow.facts["base"], f"{flow.facts['service']}{flow.facts['base']}")


def by_itself(flow: Flow, place: Path) -> None:
    """A flow whose own code decides its result."""
    recorded(write)(place / "result.txt", flow)


def write(target: Path, flow: Any) -> Path:
    target.write_text(f"{flow.facts['version']} {code.packages()['prefect']} {flow.facts['factor']}")
    return target


@pytest.fixture(autouse=True)
def without_prefect(monkeypatch):
    """No flow of these runs is Prefect's, which would start a server to show its work."""
    monkeypatch.setattr(attempts, "show_in_prefect", lambda *_: None)


@pytest.mark.parametrize(
    ("body", "changed", "result", "cause"),
    [
        (single, {"text": "1 2 4"}, "result.txt", "input series.txt: "),
        (single, {"name": "better.txt", "text": "1 2 4"}, "result.txt", "input series.txt: "),
        (told, {"factor": 3.0}, "result.txt", "parameter factor: 2.0 → 3.0"),
        (mapped, {"order": -1, "season": {"JJA": 9.0}}, "of-JJA.txt", "call scale, factor: 2.0 → 9.0"),
        (mapped, {"order": -1, "texts": {"MAM": "7 7 7"}}, "of-MAM.txt", "input MAM.txt: "),
        (
            on_platform,
            {"service": "2"},
            "index.csv",
            "order season, service: urn:ivcap:service:1 → urn:ivcap:service:2",
        ),
        (on_platform, {"base": "1971"}, "index.csv", "parameter base: 1981 → 1971"),
        (by_itself, {"version": "x = 2"}, "result.txt", "code source_sha256: "),
        (by_itself, {"older": "prefect"}, "result.txt", "package prefect: "),
        (by_itself, {"factor": 5.0}, "result.txt", "parameter factor: 2.0 → 5.0"),
        (told, {"version": "x = 2", "season": {}, "inner": 4.0}, "result.txt", "code source_sha256: "),
    ],
)
def test_the_planted_cause_is_the_first_named(tmp_path, monkeypatch, body, changed, result, cause):
    """The planted cause comes first, whatever else each run names anew. Unchanged results have no entry."""
    flow = Flow(tmp_path)
    before = flow.run(body)
    if "older" in changed:
        packages = {**code.packages(), changed["older"]: "2.0"}
        monkeypatch.setattr(code, "packages", lambda: packages)
    if "inner" in changed:
        # A number in the code, which no parameter of the run has.
        body = lambda flow, place: scale(flow.file(place), place / "result.txt", changed["inner"])  # noqa: E731
    after = flow.run(body, **changed)
    found = difference(journal(), before, after)
    changes = {each.name: each for each in found.outputs}
    assert result in changes and "beside.txt" not in changes
    assert isinstance(changes[result], Result) and changes[result].why[0].startswith(cause), changes[result].why
    if body is mapped:
        assert set(changes) == {result}
    words = " ".join(" ".join(each.why) for each in found.outputs)
    assert not any(own in words for own in ("parameter id", "parameter output", "parameter at", ", id", ", at"))
