"""What others hold our exports by: the RO-Crate validator in its own environment, and OpenLineage's schemas.

Both fetch documents. IVCAP_FLOWS_STANDARDS may name a folder that has them; what is not there comes from the network,
and where there is none, the tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from peers import interpreter
from referencing import Registry, Resource

STANDARDS = os.environ.get("IVCAP_FLOWS_STANDARDS")
HERE = Path(__file__).parent
IDS_OF_SOFTWARE = "process-run-crate-0.5_5.1"
"""The check that every id of software begins with `http`. A main workflow is to be a file in the crate, whose id is its
path, and so none passes (crs4/rocrate-validator, issue 51)."""


class Validator:
    """roc-validator in a process; `faults(crate)` is what it finds against REQUIRED and RECOMMENDED checks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.checks = 0

    @classmethod
    @contextmanager
    def start(cls, cache: Path) -> Iterator[Validator]:
        command = [str(interpreter("roc-validator")), "-W", "ignore", str(HERE / "validating.py"), str(cache / "http")]
        process = subprocess.Popen(
            [*command, *([STANDARDS] if STANDARDS else [])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            started = cls(process)
            unreachable = started.answer().get("unreachable")
            if unreachable:
                pytest.skip(
                    f"The contexts of RO-Crate cannot be had; IVCAP_FLOWS_STANDARDS may name them: {unreachable}"
                )
            yield started
        finally:
            process.kill()
            process.communicate()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the validator has ended"
        found: dict[str, Any] = json.loads(line)
        return found

    def issues(self, crate: Path, profile: str) -> list[dict[str, str]]:
        """All issues, those of the check that none passes included."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([str(crate), f"{profile}-run-crate-0.5"]) + "\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.checks = answer["checks"]
        found: list[dict[str, str]] = answer["issues"]
        return found

    def faults(self, crate: Path, profile: str) -> list[dict[str, str]]:
        return [issue for issue in self.issues(crate, profile) if issue["check"] != IDS_OF_SOFTWARE]


BASE = "https://openlineage.io/spec/2-0-2/OpenLineage.json"


@lru_cache(maxsize=1)
def registry() -> Registry[Any]:
    """OpenLineage's schemas by their ids: from the folder, else each from its own address when it is asked for."""
    folder = Path(STANDARDS or os.devnull, "openlineage")
    schemas = [json.loads(path.read_text()) for path in (*folder.glob("*.json"), *folder.glob("facets/*.json"))]
    known = [(schema["$id"], Resource.from_contents(schema)) for schema in schemas]
    return Registry(retrieve=fetched).with_resources(known)  # type: ignore[call-arg]


@lru_cache(maxsize=100)
def fetched(address: str) -> Resource[Any]:
    try:
        with urllib.request.urlopen(address, timeout=20) as reply:
            return Resource.from_contents(json.load(reply))
    except OSError as error:
        pytest.skip(f"OpenLineage's schemas cannot be had; IVCAP_FLOWS_STANDARDS may name them: {error}")


def valid(event: dict[str, Any]) -> int:
    """Hold an event by the schema of events, and each facet by its own; how many facets there were."""
    check(BASE, event)
    count = 0
    for facet in facets(event):
        check(facet["_schemaURL"], facet)
        count += 1
    return count


def check(schema: str, value: Any) -> None:
    reference = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": schema}
    validator = Draft202012Validator(reference, registry=registry(), format_checker=FormatChecker())
    found = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
    assert found == [], schema


def facets(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "_schemaURL" in value:
            yield value
        for inner in value.values():
            yield from facets(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from facets(inner)
