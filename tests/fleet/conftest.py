"""A fleet for each test, on one PostgreSQL server and one Prefect server for all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from journals import own_postgresql
from prefect_servers import own_prefect_server

sys.path.insert(0, str(Path(__file__).parent))

from fleet import Fleet
from machines import can_be_had

from ivcap_flows.local import PlatformControl

COUNTED = ("orders", "task runs", "other processes", "attempts")


@pytest.fixture(scope="session")
def durable_postgresql() -> Iterator[str]:
    """The URL of a server that waits for the disk, as shipped, with `{}` for the database."""
    with own_postgresql("durable") as url:
        with psycopg.connect(url.format("postgres")) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
        yield url


@pytest.fixture(scope="session")
def prefect_on_postgresql(
    durable_postgresql: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """A Prefect server on PostgreSQL; the value is the environment in which its clients run."""
    with psycopg.connect(durable_postgresql.format("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE prefect")
    url = durable_postgresql.format("prefect").replace("postgresql://", "postgresql+asyncpg://")
    with own_prefect_server(
        tmp_path_factory.mktemp("prefect"),
        PREFECT_SERVER_DATABASE_CONNECTION_URL=url,
        PREFECT_WORKER_QUERY_SECONDS="1",
    ) as environment:
        # The server's clients are on machines of their own and have no password of its database.
        environment.pop("PREFECT_SERVER_DATABASE_CONNECTION_URL")
        yield environment


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
