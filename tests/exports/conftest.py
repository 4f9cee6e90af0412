"""Runs on record: each flow is run once for all tests of this folder, on the session's platforms."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import (
    temporary_settings,
)

from ivcap_flows.capture import use_journal
from ivcap_flows.journal import Journal
from ivcap_flows.local import EmbeddedPlatform
from ivcap_flows.tasks import parking

# Test modules are imported one by one, so what they share has to be found.
sys.path.insert(0, str(Path(__file__).parent))

from exports_standards import Validator
from exports_worlds import RUNS, SECRET, World, example, load_flows, park


@pytest.fixture(scope="session")
def world(
    _embedded: EmbeddedPlatform,
    example_services: None,
    file_service: str,
    prefect_settings: dict[Any, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """All runs: with a subflow and mapped tasks, failed, parked, and the examples."""
    folder = tmp_path_factory.mktemp("exports")
    flows = load_flows(folder)
    parts = folder / "parts"
    parts.mkdir()
    sources = [parts / f"{letter}.txt" for letter in "ab"]
    for source in sources:
        source.write_text(f"{source.name} {uuid.uuid4()}\n" * 4)
    url = f"sqlite:///{folder / 'journal.sqlite'}"
    with pytest.MonkeyPatch.context() as patch, temporary_settings(prefect_settings), Journal.open(url) as journal:
        made = World(journal, folder)
        for name, value in _embedded.environment.items():
            patch.setenv(name, value)
        patch.setenv("PROVENA_CLIENT_SECRET", SECRET)
        patch.setenv("IVCAP_FLOWS_PARK_AFTER", "0")
        patch.setattr(parking, "LEAST", 0.3)

        def run(name: str, flow: Callable[[], Any]) -> None:
            flow()
            made.ids[name] = journal.runs.recent(1)[0].id

        with use_journal(journal):
            run("with-parts", lambda: flows.with_parts(sources, parts))
            with pytest.raises(RuntimeError):
                flows.spoiled(sources[0], SECRET)
            run("spoiled", lambda: None)
            run("parks", lambda: park(flows.parks, folder / "until"))
            for name in RUNS[3:]:
                run(name, lambda name=name: example(name, folder / name))
        patch.delenv("PROVENA_CLIENT_SECRET")
        (folder / "until").touch()
        yield made


@pytest.fixture(scope="session")
def validator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Validator]:
    """The RO-Crate validator, in one process of its own for all crates."""
    with Validator.start(tmp_path_factory.mktemp("validator")) as started:
        yield started
