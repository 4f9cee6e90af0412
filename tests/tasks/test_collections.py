"""Collections and folders: nothing is done twice, and the record says what contains what."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from on_record import last_graph, pairs

from ivcap_flows.capture import use_journal
from ivcap_flows.capture.files import urn_at
from ivcap_flows.errors import InputError, NotFoundError, UnavailableError
from ivcap_flows.handles import Artifact
from ivcap_flows.journal import Journal
from ivcap_flows.provenance import prov_json
from ivcap_flows.tasks import (
    add_to_collection,
    collection_items,
    create_collection,
    download_artifact,
    get_collection,
    list_collections,
    remove_from_collection,
    retract_collection,
    untar_artifact,
    upload_artifact,
    upload_directory,
)

ITEM = "urn:ivcap:schema:collection-item.1"


@pytest.fixture
def folder(tmp_path: Path, unique: str) -> Path:
    """A folder that no other test has: four files in two levels, two of them equal."""
    root = tmp_path / f"data-{unique[:8]}"
    (root / "deep" / "er").mkdir(parents=True)
    for name, text in (("a.csv", unique), ("b.txt", "b" + unique), ("deep/a.csv", unique), (f"deep/er/{unique}", "")):
        (root / name).write_text(text, encoding="utf-8")
    return root


def urns(things) -> list[str]:
    return [thing.urn for thing in things]


def test_a_collection_from_its_making_to_its_end(in_script, effects, source, unique):
    """A collection is made, filled, listed, emptied, described anew and retracted. Doing each a second time changes
    nothing, and what is left in it stays under another description."""

    def body():
        artifact = upload_artifact(source)
        made = [create_collection(unique, description="of a test") for _ in range(2)]
        things = [artifact, "urn:ivcap:artifact:other", "urn:example:thing:1"]
        filled = [add_to_collection(made[0], things), add_to_collection(made[0].urn, artifact)]
        held = collection_items(made[0])
        less = [remove_from_collection(made[0], things[1:]) for _ in range(2)]
        return artifact, made, filled, held, less, list_collections(unique), get_collection(made[0].urn)

    artifact, made, filled, held, less, listed, got = in_script(body)
    assert made[0] == made[1] == filled[0] == filled[1] == less[1] == got and listed == [got]
    assert (got.name, got.description) == (unique, "of a test")
    assert urns(held) == [artifact.urn, "urn:ivcap:artifact:other", "urn:example:thing:1"]
    assert [type(thing).__name__ for thing in held] == ["Artifact", "Artifact", "Handle"]
    posts = len(effects.embedded.requests("POST", "/1/aspects$"))

    def the_end():
        same, better = (create_collection(unique, description=text) for text in ("of a test", "better"))
        there = list_collections(unique), collection_items(better)
        assert [retract_collection(better) for _ in range(2)] == [None, None] and list_collections(unique) == []
        with pytest.raises(NotFoundError):
            get_collection(better.urn)
        return same, better, *there

    same, better, listed, left = in_script(the_end)
    assert same == got and len(effects.embedded.requests("POST", "/1/aspects$")) == posts
    assert listed == [better] and better.description == "better" and urns(left) == [artifact.urn]


@pytest.mark.long
def test_two_processes_add_at_once(in_script, embedded_platform, sqlite_url, unique):
    """Two processes add while neither can know of the other. All items are in the collection, and one that both added
    is in it once; who looks last says so. A removal removes it."""
    made = in_script(lambda: create_collection(unique))
    both, *own = [f"urn:example:{unique}:{number}" for number in range(3)]
    program = [sys.executable, Path(__file__).with_name("adding.py"), made.urn, both]
    options = {"env": {**os.environ, "IVCAP_FLOWS_JOURNAL": sqlite_url}, "text": True}
    options |= dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([*program, own[0]], **options) as one, subprocess.Popen([*program, own[1]], **options) as two:
        ready = [process.stdout.readline() for process in (one, two)]
        for process in (one, two):
            process.stdin.close()
        said = [process.stderr.read() for process in (one, two)]
    assert ready == ["ready\n"] * 2 and (one.returncode, two.returncode) == (0, 0), said
    assert f"{both} was added to {made.urn} by another" in "".join(said)
    assert sorted(urns(in_script(lambda: collection_items(made)))) == [both, *own]
    in_script(lambda: remove_from_collection(made, both))
    assert sorted(urns(in_script(lambda: collection_items(made)))) == own


def test_a_definition_whose_reply_was_lost_is_there_once(in_script, effects, unique):
    """The collection is looked up, and returned as it was defined."""
    effects.embedded.add_fault(method="POST", path="^/1/aspects$", count=1, drop_reply_after_effect=True)
    made, listed = in_script(lambda: (create_collection(unique), list_collections(unique)))
    assert listed == [made] and len(effects.embedded.requests("POST", "^/1/aspects$")) == 1


def test_collections_in_the_record(in_script, ivcap_journal, source, unique):
    """The members of a collection are recorded, so that lineage passes through it. PROV tools can read it."""

    def body():
        artifact = upload_artifact(source)
        things = (each for each in [artifact, "urn:ivcap:order:1"])
        return artifact, add_to_collection(create_collection(unique), things)

    artifact, made = in_script(body)
    graph = last_graph(ivcap_journal)
    assert pairs(graph, "hadMember") == {(made.urn, artifact.urn)}
    assert graph.nodes[made.urn].type == "collection" and graph.nodes[made.urn].attributes["name"] == unique
    makers = {
        graph.nodes[maker].attributes["name"] for thing, maker in pairs(graph, "wasGeneratedBy") if thing == made.urn
    }
    assert makers == {"create_collection"}
    assert urn_at(source) in graph.lineage(made.urn).nodes
    document = prov_json.document(graph)
    [membership] = [r for r in document.get_records() if r.get_type().localpart == "Membership"]
    assert [str(value.uri) for _, value in membership.formal_attributes] == [made.urn, artifact.urn]
    assert '"prov:Collection"' in prov_json.dumps(graph)


def test_a_collection_that_was_there_is_not_made(in_script, ivcap_journal, unique):
    """The second run finds the collection. It is recorded neither as its maker nor as a user of what is in it."""
    _, made = [in_script(lambda: create_collection(unique)) for _ in range(2)]
    graph = last_graph(ivcap_journal)
    assert made.urn in graph.nodes and pairs(graph, "wasGeneratedBy") == set()
    assert made.urn not in {thing for _, thing in pairs(graph, "used")}


@pytest.mark.long
def test_a_folder_as_a_collection(in_script, effects, ivcap_journal, folder, tmp_path, unique):
    """Each file becomes an artifact named by its relative path, also equal files.

    A repetition, also with another journal, sends nothing.
    """
    made = in_script(lambda: upload_directory(folder, pack="collection"))
    assert made.name == folder.name
    graph = last_graph(ivcap_journal)
    held = in_script(lambda: collection_items(made))
    names = {graph.nodes[item.urn].attributes["name"]: item for item in held}
    assert sorted(names) == ["a.csv", "b.txt", "deep/a.csv", f"deep/er/{unique}"]
    back = in_script(
        lambda: [Path(download_artifact(item, tmp_path / f"{at}")) for at, item in enumerate(names.values())]
    )
    assert [path.read_bytes() for path in back] == [(folder / name).read_bytes() for name in names]

    assert in_script(lambda: upload_directory(str(folder), pack="collection")) == made
    with Journal.open(f"sqlite:///{tmp_path / 'other.sqlite'}") as other, use_journal(other):
        assert in_script(lambda: upload_directory(folder, pack="collection")) == made
    assert effects.count("/1/artifacts") == 4
    assert urns(in_script(lambda: collection_items(made))) == urns(held)

    (folder / "b.txt").write_text("another", encoding="utf-8")
    other = in_script(lambda: upload_directory(folder, pack="collection"))
    assert other.urn != made.urn
    assert effects.count("/1/artifacts") == 5


def test_a_folder_in_the_record(in_script, ivcap_journal, folder):
    """The task made the artifacts, the collection contains them, and they have the files' contents."""
    made = in_script(lambda: upload_directory(folder, pack="collection"))
    graph = last_graph(ivcap_journal)
    members = {member for holder, member in pairs(graph, "hadMember") if holder == made.urn}
    assert len(members) == 4
    assert {thing for thing, _ in pairs(graph, "wasGeneratedBy")} == {made.urn, *members}
    # Of an empty file nothing is read.
    files = {urn_at(path) for path in folder.rglob("*.*")}
    assert len(files) == 3 and files <= {thing for _, thing in pairs(graph, "used")}
    assert files <= graph.lineage(made.urn).nodes.keys()


@pytest.mark.parametrize(
    ("method", "path", "good"),
    [
        ("POST", "^/1/artifacts$", 2),
        pytest.param("PATCH", "/blob$", 1, marks=pytest.mark.long),
        pytest.param("POST", "^/1/aspects$", 5, marks=pytest.mark.long),
    ],
)
def test_a_folder_that_was_sent_half(in_script, effects, on_platform, folder, method, path, good):
    """After a failure in the middle, the next call continues, and each artifact exists once."""
    effects.embedded.add_fault(method=method, path=path, count=good, delay=0.0)
    effects.embedded.add_fault(method=method, path=path, status=503)
    with pytest.raises(UnavailableError):
        in_script(lambda: upload_directory(folder, pack="collection"))
    effects.embedded.clear_faults()
    made = in_script(lambda: upload_directory(folder, pack="collection"))
    assert effects.count("/1/artifacts") == 4

    async def ask(client):
        return [record.content["item"] async for record in client.aspects.list(entity=made.urn, schema=ITEM)]

    items = on_platform(ask)
    assert len(items) == len(set(items)) == 4


def test_what_a_collection_cannot_hold(in_script, effects, folder, tmp_path):
    """A pipe in the folder, a missing folder, an unknown way to pack, and a link to a file outside of the folder, which
    may be a key, are errors before anything is sent."""
    (tmp_path / "secret").write_text("s3cr3t", encoding="utf-8")
    linked = [(pack, target) for pack in ("collection", "tar") for target in (tmp_path / "secret", "../secret")]

    def body():
        for pack, target in linked:
            (folder / "link").symlink_to(target)
            with pytest.raises(InputError, match="may lead out of the folder"):
                upload_directory(folder, pack=pack)
            (folder / "link").unlink()
        os.mkfifo(folder / "pipe")
        for wrong, pack in (
            (folder, "collection"),
            (folder / "none", "collection"),
            (folder / "none", "tar"),
            (folder, "zip"),
        ):
            with pytest.raises(InputError, match=r"neither a file|not a folder|pack must be"):
                upload_directory(wrong, pack=pack)

    in_script(body)
    assert effects.embedded.requests("POST") == []


def test_a_link_within_the_folder_is_its_file(in_script, effects, folder):
    """A link within the folder is a member like the file it points to."""
    (folder / "deep" / "link").symlink_to("../b.txt")
    made = in_script(lambda: upload_directory(folder, pack="collection"))
    assert len(in_script(lambda: collection_items(made))) == 5


def test_a_side_car_is_no_content_of_its_folder(in_script, folder):
    """So what is sent of the folder, and ordered from that, is the same once a file of it was uploaded."""

    def whole():
        return [upload_directory(folder, pack=pack).urn for pack in ("collection", "tar")]

    before = in_script(whole)
    in_script(lambda: upload_artifact(folder / "a.csv", side_car=True))
    assert (folder / ".ivcap-a.csv.txt").exists() and in_script(whole) == before
    (folder / ".ivcap-of-no-file.txt").touch()
    assert not set(in_script(whole)) & set(before)


def test_a_folder_as_a_tar(in_script, effects, ivcap_journal, folder, tmp_path):
    """The archive has the same bytes each time, and is unpacked to the same folder, which is recorded as generated."""
    packed = in_script(lambda: upload_directory(folder, pack="tar"))
    assert isinstance(packed, Artifact)
    assert (packed.name, packed.media_type) == (f"{folder.name}.tar", "application/x-tar")
    os.utime(folder / "a.csv", (1, 1))
    assert in_script(lambda: upload_directory(folder, pack="tar")).urn == packed.urn
    assert effects.count("/1/artifacts") == 1

    back = in_script(lambda: untar_artifact(packed, tmp_path / "back"))
    assert back == tmp_path / "back"
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert {p.relative_to(back).as_posix(): p.read_bytes() for p in back.rglob("*") if p.is_file()} == files
    graph = last_graph(ivcap_journal)
    [made] = [node for node in graph.nodes.values() if node.type == "directory"]
    assert made.id in {thing for thing, _ in pairs(graph, "wasGeneratedBy")}
    assert packed.urn in graph.lineage(made.id).nodes


def test_a_folder_that_is_unpacked_already(in_script, ivcap_journal, folder, tmp_path):
    """Stays when the same command goes on, or runs again, which has met it and not made it. Another one is refused."""
    packed = in_script(lambda: upload_directory(folder, pack="tar"))
    there = [in_script(lambda: untar_artifact(packed, tmp_path / "back")).stat().st_ino for _ in range(2)]
    assert there[0] == there[1]
    graph = last_graph(ivcap_journal)
    [met] = [node for node in graph.nodes.values() if node.type == "directory"]
    assert met.id in {thing for _, thing in pairs(graph, "used")} and not pairs(graph, "wasGeneratedBy")
    (tmp_path / "back" / "more").touch()
    with pytest.raises(InputError, match=f"{tmp_path}/back exists, with another content"):
        in_script(lambda: untar_artifact(packed, tmp_path / "back"))


def test_an_archive_that_leaves_its_folder(in_script, tmp_path, unique):
    """An archive with a member outside of its folder is refused as a whole."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in (unique, f"../{unique}"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    evil = in_script(lambda: upload_artifact(archive.getvalue(), name="evil.tar"))
    with pytest.raises(InputError, match="would lie outside"):
        in_script(lambda: untar_artifact(evil, tmp_path / "into"))
    assert not (tmp_path / "into").exists() and not (tmp_path / unique).exists()
