"""The arrows between the rooms, as docs/architecture.md has them."""

import re
from pathlib import Path

import grimp
import pytest

ROOMS = [
    "cli",
    "testing|notebook",
    "tasks",
    "blocks",
    "reading",
    "capture",
    "sinks",
    "registration",
    "in_prefect",
    "work",
    "durable",
    "journal",
    "provenance",
    "ivcap|provena",
    "http",
    "loop",
    "canonical",
    "settings|handles|secrets|file_state",
    "local",
    "identity|errors|media_types|lru_cache|forked",
]
"""Top to bottom: a room imports only rooms further down. Rooms in one line do not import each other."""

LEVEL = {room: depth for depth, line in enumerate(ROOMS) for room in line.split("|")}
PURE = {"provenance", "canonical", "identity", "media_types"}
KNOWS_NO_CLIENT = {"capture", "in_prefect", "durable", "journal", "provenance"}
KNOWS_PREFECT = {"cli", "testing", "tasks", "blocks", "capture", "in_prefect"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("ivcap_flows", include_external_packages=True)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "ivcap_flows" and len(parts) > 1 else None


def imports(graph: grimp.ImportGraph) -> list[tuple[str, str]]:
    return [(m, i) for m in graph.modules for i in graph.find_modules_directly_imported_by(m)]


def test_every_room_has_a_place(graph):
    """No module stands outside of the rooms."""
    assert {room for m in graph.modules if (room := room_of(m))} <= set(LEVEL)


def test_a_room_imports_only_what_lies_below(graph):
    """No arrow points up, and none between neighbours."""
    wrong = [
        f"{importer} -> {imported}"
        for importer, imported in imports(graph)
        if (a := room_of(importer)) and (b := room_of(imported)) and a != b and LEVEL[a] >= LEVEL[b]
    ]
    assert wrong == []


def test_the_embedded_platforms_share_no_code_with_the_clients(graph):
    """The embedded platform knows identity and errors, and nothing else of the package."""
    wrong = [
        f"{importer} -> {imported}"
        for importer, imported in imports(graph)
        if room_of(importer) == "local" and room_of(imported) not in (None, "local", "identity", "errors")
    ]
    assert wrong == []


def test_the_rooms_between_flow_and_client_know_no_client(graph):
    """What records, submits and stores is the same for every platform and noun."""
    wrong = [
        f"{importer} -> {imported}"
        for importer, imported in imports(graph)
        if room_of(importer) in KNOWS_NO_CLIENT and room_of(imported) in {"ivcap", "provena"}
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("package", "rooms"),
    [("httpx", {"http"}), ("httptools", {"http"}), ("botocore", {"provena"}), ("prefect", KNOWS_PREFECT)],
)
def test_a_package_is_known_in_its_rooms_only(graph, package, rooms):
    """One room speaks HTTP, another S3; only the upper rooms know Prefect."""
    knows = {room_of(importer) for importer, imported in imports(graph) if imported.split(".")[0] == package}
    assert knows <= rooms


def test_pure_rooms_do_no_input_or_output(graph):
    """The rooms of `PURE` import nothing that reads files, sockets, clocks or databases."""
    doing = {"socket", "sqlite3", "subprocess", "sqlalchemy", "asyncio", "threading", "time", "os", "pathlib", "httpx"}
    wrong = [
        f"{importer} -> {imported}"
        for importer, imported in imports(graph)
        if room_of(importer) in PURE and imported.split(".")[0] in doing
    ]
    assert wrong == []


def test_the_architecture_page_names_every_room():
    """docs/architecture.md and the package agree."""
    page = Path("docs/architecture.md").read_text(encoding="utf-8")
    for room in LEVEL:
        assert re.search(rf"\b{room}(/|\.py)`", page), room
