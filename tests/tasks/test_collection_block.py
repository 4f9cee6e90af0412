"""A collection as a block: files by name, uploaded once per name and content, the newest of a name downloaded."""

from __future__ import annotations

from io import BytesIO

import pytest
from on_record import last_graph
from prefect import flow
from prefect.blocks.abstract import ObjectStorageBlock

from ivcap_flows.blocks import IvcapCollection
from ivcap_flows.errors import InputError, NotFoundError
from ivcap_flows.tasks import create_collection, upload_artifact


@pytest.fixture
def collection(embedded_platform, unique) -> IvcapCollection:
    """A collection that does not exist yet."""
    return IvcapCollection(collection=f"c-{unique}")


def test_files_and_streams(in_script, collection, effects, source, unique, tmp_path, ivcap_journal):
    """What was uploaded comes back by its name and by its URN; the same again sends nothing."""
    assert isinstance(collection, ObjectStorageBlock)

    def body():
        urn = collection.upload_from_path(source, "a/series.csv")
        assert collection.upload_from_path(source, "a/series.csv") == urn
        copy = collection.upload_from_file_object(BytesIO(source.read_bytes()), "b/copy.csv")
        assert copy != urn, "equal contents under two names are two objects"
        assert collection.download_object_to_path("a/series.csv", tmp_path / "back.csv") == tmp_path / "back.csv"
        stream = collection.download_object_to_file_object(copy, BytesIO())
        assert (tmp_path / "back.csv").read_bytes() == stream.getvalue() == source.read_bytes()
        assert [each.name for each in collection.list_objects()] == ["a/series.csv", "b/copy.csv"]
        assert [each.urn for each in collection.list_objects("a/")] == [urn]
        return urn

    urn = in_script(body)
    assert effects.count("/1/artifacts") == 2
    assert urn in last_graph(ivcap_journal).nodes


def test_other_content_under_a_name(in_script, collection, tmp_path, unique):
    """Is a new artifact, which downloads by name give; the first stays under its URN."""

    def body():
        first = collection.upload_from_file_object(BytesIO(b"one " + unique.encode()), "x")
        collection.upload_from_file_object(BytesIO(b"two " + unique.encode()), "x")
        newest = collection.download_object_to_path("x", tmp_path / "newest").read_bytes()
        return newest, collection.download_object_to_path(first, tmp_path / "first").read_bytes()

    newest, first = in_script(body)
    assert newest.startswith(b"two") and first.startswith(b"one")


def test_earlier_content_again_under_a_name(in_script, collection, effects, tmp_path, unique):
    """Is what downloads by name give from then on, and no new artifact. What is last already is not written again."""

    def put(name: str, *contents: str) -> list[str]:
        return [collection.upload_from_file_object(BytesIO(f"{each} {unique}".encode()), name) for each in contents]

    def body():
        first, second = put("x", "one", "two")
        [other] = put("y", "one")
        # What others put there may not be read.
        effects.embedded.add_fault(method="GET", path=f"/artifacts/{other}$", status=403)
        [again] = put("x", "one")
        effects.embedded.clear_faults()
        assert again == first != second
        members = effects.count("/1/aspects")
        assert put("x", "one") == [first]
        assert effects.count("/1/aspects") == members
        assert [each.urn for each in collection.list_objects()][:1] == [first]
        return collection.download_object_to_path("x", tmp_path / "x").read_bytes()

    assert in_script(body).startswith(b"one")
    assert effects.count("/1/artifacts") == 3


def test_what_others_put_there_and_closed(in_script, collection, effects, tmp_path, unique, caplog):
    """Has no name here: the others are listed, and downloaded by name and as a folder. A warning names it."""

    def body():
        urns = [collection.upload_from_file_object(BytesIO(f"{n} {unique}".encode()), f"in/{n}") for n in "ab"]
        effects.embedded.add_fault(method="GET", path=f"/artifacts/{urns[1]}$", status=403)
        assert [each.urn for each in collection.list_objects()] == urns[:1]
        assert urns[1] in caplog.text and urns[0] not in caplog.text
        got = collection.download_folder_to_path("in", tmp_path / "in")
        return [got, collection.download_object_to_path("in/a", tmp_path / "a")]

    folder, file = in_script(body)
    assert [each.name for each in folder.iterdir()] == ["a"] and file.exists()


def test_a_file_in_the_place_of_a_folder(in_script, collection, tmp_path, unique):
    """Is not replaced: the error names it."""
    (tmp_path / "a").touch()

    def body():
        collection.upload_from_file_object(BytesIO(unique.encode()), "a/b")
        with pytest.raises(InputError, match=f"{tmp_path}/a/b cannot be made"):
            collection.download_folder_to_path("", tmp_path)

    in_script(body)


def test_folders(in_script, collection, tmp_path, unique):
    """Relative names are kept in both directions."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_text(unique)
    (tmp_path / "in" / "deep" / "b.txt").write_text(unique + unique)

    def body():
        assert collection.upload_from_folder(tmp_path / "in", "2026") == "2026"
        assert collection.download_folder_to_path("2026/deep", tmp_path / "deep") == tmp_path / "deep"
        collection.download_folder_to_path("", tmp_path / "all")

    in_script(body)
    assert (tmp_path / "deep" / "b.txt").read_text() == unique + unique
    assert sorted(str(each.relative_to(tmp_path / "all")) for each in (tmp_path / "all").rglob("*.txt")) == [
        "2026/a.txt",
        "2026/deep/b.txt",
    ]


async def test_the_asynchronous_form(embedded_platform, ivcap_journal, collection, source, tmp_path):
    """Awaited, in an asynchronous flow."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text(collection.collection)

    @flow
    async def awaited():
        urn = await collection.aupload_from_path(source, "series.csv")
        with source.open("rb") as stream:
            assert await collection.aupload_from_file_object(stream, "series.csv") == urn
        await collection.aupload_from_folder(tmp_path / "in", "in")
        await collection.adownload_object_to_path("series.csv", tmp_path / "back.csv")
        await collection.adownload_folder_to_path("in", tmp_path / "out")
        stream = await collection.adownload_object_to_file_object(urn, BytesIO())
        return stream.getvalue(), [each.name for each in await collection.alist_objects()]

    assert await awaited() == (source.read_bytes(), ["in/a.txt", "series.csv"])
    assert (tmp_path / "back.csv").read_bytes() == source.read_bytes()
    assert (tmp_path / "out" / "a.txt").read_text() == collection.collection


def test_what_cannot_be(in_script, collection, source, tmp_path):
    """A name that leads out of its folder, whoever gave it, an object that is not there, and no deletion at all."""

    def body():
        for name in ("../x", "/x", "a/../../x", "", "a\\b"):
            with pytest.raises(InputError, match="leads out"):
                collection.upload_from_path(source, name)
        with pytest.raises(NotFoundError, match=r"no object 'x'.*list_objects"):
            collection.download_object_to_path("x", tmp_path / "x")
        with pytest.raises(NotFoundError, match="no object 'folder'"):
            collection.download_folder_to_path("folder", tmp_path / "x")
        foreign = create_collection(f"{collection.collection}-of-others")
        upload_artifact(source, name="../../evil", collection=foreign)
        others = IvcapCollection(collection=foreign.urn)
        with pytest.raises(InputError, match="leads out"):
            others.download_folder_to_path("", tmp_path / "x")

    in_script(body)
    assert not list(tmp_path.parent.glob("evil"))
    assert not [name for name in dir(IvcapCollection) if "delete" in name and "object" in name]
