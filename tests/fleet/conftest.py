"""A fleet for each test, on one PostgreSQL server and one Prefect server for all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fleet import Fleet
from machines import can_be_had

from ivcap_flows.local import PlatformControl

COUNTED = ("orders", "task runs", "other processes", "attempts")


@pytest.fixture
def fleet(
    durable_postgresql: str,
    prefect_on_postgresql: dict[str, str],
    embedded_platform: PlatformControl,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Fleet]:
    """A fleet with an empty journal, and without machines."""
    if not can_be_had():
        pytest.skip("Machines are made of Linux namespaces, which this user may not make here.")
    name = f"journal_{abs(hash(tmp_path))}"
    with psycopg.connect(durable_postgresql.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    made = Fleet(tmp_path, prefect_on_postgresql, durable_postgresql.format(name), embedded_platform)
    request.node.user_properties.append(("fleet", made.counts))
    yield made
    made.end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what became of each fleet."""
    lines = [["fleet", "outcome", "seconds", *COUNTED]]
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            counts = dict(report.user_properties).get("fleet", {})
            if report.when == "call":
                name = report.nodeid.partition("::")[2]
                counted = [str(counts.get(each, "")) for each in COUNTED]
                lines.append([name, outcome, f"{report.duration:.0f}", *counted])
    if len(lines) > 1:
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        terminalreporter.section("fleets")
        for line in lines:
            terminalreporter.line("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))
