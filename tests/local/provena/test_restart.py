"""What remains of acknowledged work after a kill, and what happens to a directory of another version."""

import sqlite3
import stat
from contextlib import closing

import pytest

from ivcap_flows.errors import EmbeddedPlatformError, NewerSchemaError
from ivcap_flows.local.provena import EmbeddedProvena, environment, store
from ivcap_flows.local.provena.prov.graph import Graph
from ivcap_flows.local.provena.search.state import search


def test_a_directory_of_a_newer_version_is_refused(tmp_path):
    """The error names the schema version that was found."""
    with closing(sqlite3.connect(tmp_path / "provena.sqlite")) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(NewerSchemaError, match="newer version") as caught:
        EmbeddedProvena(tmp_path, "http://127.0.0.1:1")
    assert caught.value.found == 99


@pytest.mark.parametrize("name", ["provena.sqlite", "provena-realm.pem"])
def test_a_damaged_file_is_named(tmp_path, name):
    """A damaged database or key is an error with the file's name, and no traceback."""
    (tmp_path / name).write_bytes(b"not what it should be" * 400)
    with pytest.raises(EmbeddedPlatformError, match=name):
        EmbeddedProvena(tmp_path, "http://127.0.0.1:1")


def test_the_key_is_its_owners_alone(tmp_path):
    """Only the owner can read the key that signs the tokens."""
    environment(tmp_path, "http://127.0.0.1:1")
    assert stat.S_IMODE((tmp_path / "provena-realm.pem").stat().st_mode) == 0o600


def test_a_directory_of_an_earlier_version_is_taken_over(tmp_path):
    """After a migration, items are found by their words and lineage can be explored."""
    with closing(sqlite3.connect(tmp_path / "provena.sqlite")) as old:
        for number, script in enumerate(store._MIGRATIONS[:2], 1):
            old.executescript(f"{script}; PRAGMA user_version={number}")
        values = ("102.100.100/7", "MODEL", "COMPLETE_ITEM", 1, 1, "n", None, None, None, None, "a steamship", "{}")
        old.execute("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '{}', 0, '[]', 0)", values)
        for subtype in ("WORKFLOW_TEMPLATE", "MODEL_RUN_WORKFLOW_TEMPLATE"):
            old.execute("INSERT INTO graph_nodes VALUES (?, 'w', 'ENTITY', ?)", (subtype, subtype))
            old.execute("INSERT INTO graph_links VALUES (?, 'r', 'used', 'w')", (subtype,))
        old.commit()
    now = store.Store(tmp_path / "provena.sqlite")
    assert [found["id"] for found in search(now, "steamship", None, 10)] == ["102.100.100/7"]
    assert search(now, "steamship", "MODEL_RUN", 10) == []
    graph = Graph(now)
    assert [link.source for link in graph.effects(["w"])] == ["r"]
    assert graph.nodes(["w"])["w"].subtype == "MODEL_RUN_WORKFLOW_TEMPLATE"
    graph.remove("MODEL_RUN_WORKFLOW_TEMPLATE")
    assert graph.nodes(["w"])["w"].subtype == "WORKFLOW_TEMPLATE"
    assert [link.source for link in graph.effects(["w"])] == ["r"]
    graph.remove("WORKFLOW_TEMPLATE")
    assert (graph.nodes(["w"]), graph.effects(["w"])) == ({}, [])
    now.close()
