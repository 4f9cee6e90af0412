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
    "settings|handles|secrets|file_state|arguments|whole_file|threads",
    "local",
    "identity|errors|media_types|lru_cache|forked|plain_text",
]
"""Top to bottom: a room imports only rooms further down. Rooms in one line do not import each other."""

LEVEL = {room: depth for depth, line in enumerate(ROOMS) for room in line.split("|")}
PURE = {"arguments", "provenance", "canonical", "identity", "media_types", "plain_text"}
KNOWS_NO_CLIENT = {"capture", "in_prefect", "durable", "journal", "provenance"}
KNOWS_PREFECT = {"cli", "testing", "tasks", "blocks", "capture", "in_prefect"}


@pytest.fixture(scope="module")
def imports() -> list[tuple[str, str]]:
    """The modules of the package, each with what it imports."""
    graph = grimp.build_graph("ivcap_flows", include_external_packages=True)
    return [(module, other) for module in graph.modules for other in graph.find_modules_directly_imported_by(module)]


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "ivcap_flows" and len(parts) > 1 else None


def rooms(imports) -> list[tuple[str, str | None, str, str]]:
    """The imports of rooms: the room, the imported room or None, and both modules."""
    return [(room, room_of(other), module, other) for module, other in imports if (room := room_of(module))]


def test_every_room_has_a_place(imports):
    """No module stands outside of the rooms, and docs/architecture.md names each."""
    assert {room for pair in imports for each in pair if (room := room_of(each))} <= set(LEVEL)
    page = Path("docs/architecture.md").read_text(encoding="utf-8")
    assert [room for room in LEVEL if not re.search(rf"\b{room}(/|\.py)`", page)] == []


def test_a_room_imports_only_what_lies_below(imports):
    """No arrow points up, and none between neighbours."""
    own = [each for each in rooms(imports) if each[1] is not None and each[0] != each[1]]
    assert [each for each in own if LEVEL[each[0]] >= LEVEL[each[1]]] == []


def test_the_embedded_platforms_share_no_code_with_the_clients(imports):
    """The embedded platform knows identity and errors, and nothing else of the package."""
    known = (None, "local", "identity", "errors")
    assert [each for each in rooms(imports) if each[0] == "local" and each[1] not in known] == []


def test_the_embedded_platforms_have_one_door(imports):
    """Who starts, controls or serves them imports `ivcap_flows.local` itself, never a module within."""
    found = {(room, other) for room, other_room, _, other in rooms(imports) if other_room == "local" != room}
    assert found == {(room, "ivcap_flows.local") for room in ("blocks", "cli", "testing")}


def test_the_rooms_between_flow_and_client_know_no_client(imports):
    """What records, submits and stores is the same for every platform and noun."""
    clients = {"ivcap", "provena"}
    assert [each for each in rooms(imports) if each[0] in KNOWS_NO_CLIENT and each[1] in clients] == []


@pytest.mark.parametrize(
    ("package", "known"),
    [
        *(("httpx", {"http"}), ("botocore", {"provena"}), ("prefect", KNOWS_PREFECT)),
        *((each, {"local"}) for each in ("cryptography", "fastapi", "httptools", "starlette", "uvicorn")),
    ],
)
def test_a_package_is_known_in_its_rooms_only(imports, package, known):
    """One room speaks HTTP, another S3; only the upper rooms know Prefect, and only the embedded platforms serve."""
    assert {room_of(module) for module, other in imports if other.split(".")[0] == package} <= known


def test_pure_rooms_do_no_input_or_output(imports):
    """The rooms of `PURE` import nothing that reads files, sockets, clocks or databases."""
    doing = {"socket", "sqlite3", "subprocess", "sqlalchemy", "asyncio", "threading", "time", "os", "pathlib", "httpx"}
    assert [each for each in rooms(imports) if each[0] in PURE and each[3].split(".")[0] in doing] == []
