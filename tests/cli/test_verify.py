"""`verify`: what is on record is compared with what is there, byte by byte and record by record."""

import contextlib
import json
import shutil
import socket
import tracemalloc
import uuid
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ivcap_flows import loop
from ivcap_flows.blocks.resolve import ivcap_client
from ivcap_flows.handles import Artifact, Aspect
from ivcap_flows.identity import digest
from ivcap_flows.journal import Fact, NewIntent, RunIdentity
from ivcap_flows.provenance import activity, describe, entity, relation
from ivcap_flows.reading.remote import Platforms
from ivcap_flows.reading.verification import verify_run


def states(said) -> dict[str, str]:
    return {finding["id"]: finding["state"] for finding in said.json["findings"]}


@contextlib.contextmanager
def flipped(path: Path) -> Iterator[None]:
    """One bit of the first byte of a file is another while the block runs."""
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    try:
        yield
    finally:
        path.write_bytes(content)


@contextlib.contextmanager
def moved(path: Path) -> Iterator[None]:
    """A file is not at its place while the block runs."""
    elsewhere = path.rename(path.with_suffix(".moved"))
    try:
        yield
    finally:
        elsewhere.rename(path)


@contextlib.contextmanager
def away() -> Iterator[None]:
    """Nobody answers for IVCAP while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IVCAP_URL", "http://127.0.0.1:9")
        yield


RUNS = {
    "is as it was": (
        lambda world, kept: contextlib.nullcontext(),
        """
$ verify harvest
As recorded: harvest
6 ok
""",
    ),
    "whose product has another byte": (
        lambda world, kept: flipped(world.downloaded),
        """
$ verify harvest
Not found as recorded: harvest
state what name note id
altered file {downloaded} …
1 altered, 5 ok
[1]
""",
    ),
    "whose product has another byte on the platform": (
        lambda world, kept: flipped(kept),
        """
$ verify harvest
Not found as recorded: harvest
state what name note id
altered artifact upper.csv … {product}
1 altered, 5 ok
[1]
""",
    ),
    "whose input is gone, and is an artifact as well": (
        lambda world, kept: moved(world.source),
        """
$ verify harvest
As recorded: harvest
state what name note id
elsewhere file {source} … {series} …
1 elsewhere, 5 ok
""",
    ),
    "whose platform is away": (
        lambda world, kept: away(),
        """
$ verify harvest
Not found as recorded: harvest
state what name note id
unreachable …
unreachable …
unreachable …
3 ok, 3 unreachable
[1]
""",
    ),
}
"""What has become of the things of a run, and what is said of it."""


@pytest.mark.parametrize("run", RUNS)
def test_a_run(on_record, transcript, world, _embedded, run):  # noqa: PT019
    """Files, artifacts, the order and the dataset are read again."""
    content = world.downloaded.read_bytes()
    files = (file for file in Path(_embedded.directory).rglob("*") if file.is_file())
    [kept] = [file for file in files if file.stat().st_size == len(content) and file.read_bytes() == content]
    becomes, text = RUNS[run]
    with becomes(world, kept):
        transcript(on_record, text, source=world.source, downloaded=world.downloaded)


def test_programs_get_every_finding(on_record, world):
    """As JSON, also what is as it was."""
    found = on_record("verify", "harvest", "--json").json
    things = [*world.made.values(), str(world.source), str(world.downloaded)]
    states = {of: each["state"] for each in found["findings"] for of in (each["id"], each["name"])}
    assert not found["wrong"] and {states[thing] for thing in things} == {"ok"}


def test_a_changed_aspect_is_found(own_record, world, journal):
    """One that another has replaced, and one that is not there; the run's own last word is not held against it."""
    entity, schema = world.made["product"], f"urn:example:schema:verified.1.{uuid.uuid4()}"

    async def stated(number: int) -> Aspect:
        client = await ivcap_client(None, deployed=False)
        urn = await client.aspects.update(entity, schema, {"n": number})
        return (await client.aspects.read(urn)).handle(await client.platform())

    aspect = loop.run(stated(1))
    lost = aspect.model_copy(update={"urn": f"urn:ivcap:aspect:{uuid.uuid4()}", "schema_urn": "urn:example:lost"})
    run = next(run.id for run in journal.runs.recent() if run.flow_name == "harvest")
    journal.facts.append([Fact(record, run) for record in describe(aspect)])
    assert own_record("verify", run).status == 0
    loop.run(stated(2))
    journal.facts.append([Fact(record, run) for record in describe(lost)])
    said = own_record("verify", run, "--json")
    assert said.status == 1
    assert (states(said)[aspect.urn], states(said)[lost.urn]) == ("altered", "missing")
    assert "was replaced or retracted" in own_record("verify", run).out


def test_what_another_account_made_is_not_missing(own_record, world, journal):
    """A 404 says as much of what the account at hand may not see."""
    run = next(run.id for run in journal.runs.recent() if run.flow_name == "harvest")
    platform = next(row.platform for row in journal.intents.where(noun="upload"))

    def made_by(account: str) -> str:
        urn, key = f"urn:ivcap:artifact:{uuid.uuid4()}", str(uuid.uuid4())
        journal.facts.append([Fact(record, run) for record in describe(Artifact(urn=urn, platform=platform))])
        of = {"noun": "upload", "platform": platform, "account": account, "scope": f"run:{run}", "request": {}}
        claim = journal.intents.claim(NewIntent(key=key, base_key=key, run_id=run, **of))
        journal.intents.settle(journal.intents.mark_sent(claim.intent), urn=urn, outcome={}, how="sent")
        return urn

    own = next(row.account for row in journal.intents.where(noun="upload"))
    lost, hidden = made_by(own), made_by("urn:ivcap:account:another")
    said = own_record("verify", run, "--json")
    assert (states(said)[lost], states(said)[hidden]) == ("missing", "unreachable")
    assert "urn:ivcap:account:another made it" in said.out


def test_an_artifact_without_bytes_may_be_pending(own_record, world, journal, leave_pending):
    """It lacks nothing: its content is read, and compared."""

    async def created() -> Artifact:
        client = await ivcap_client(None, deployed=False)
        record = await client.artifacts.create(name="nothing.csv", media_type="text/csv", size=0)
        return record.handle(await client.platform(), sha256=digest(b""))

    empty = loop.run(created())
    leave_pending(empty.urn)
    run = next(run.id for run in journal.runs.recent() if run.flow_name == "harvest")
    journal.facts.append([Fact(record, run) for record in describe(empty)])
    assert states(own_record("verify", run, "--json"))[empty.urn] == "ok"


@pytest.mark.parametrize("name", ["copies", "copies/copy.csv"])
def test_a_file_is_known_by_its_content(on_record, transcript, world, tmp_path, name):
    """A copy is on record; with another byte it is unknown, not altered. A folder is known by its files."""
    copy = tmp_path / "copies" / "copy.csv"
    copy.parent.mkdir()
    shutil.copy(world.downloaded, copy)
    transcript(on_record, "$ verify {path}\nAs recorded: {path}\n1 ok", path=tmp_path / name)
    unknown = """
$ verify {path}
Not found as recorded: {path}
state what name note id
unknown file {copy} …
1 unknown
[1]
"""
    with flipped(copy):
        transcript(on_record, unknown, path=tmp_path / name, copy=copy)


@pytest.mark.catches("the last fact is the last version")
def test_the_order_of_facts_says_nothing(ivcap_journal, tmp_path):
    """A task that read a file, and ended after another had changed it, is written last: the change counts."""
    read, changed = tmp_path / "read.csv", tmp_path / "changed.csv"
    read.write_text("as it was")
    changed.write_text("as it is now")
    opened = ivcap_journal.runs.open_attempt(RunIdentity("flow", "a.py:flow", {}, "1", "1"))
    noon = opened.attempt.started_at
    slow, quick = (activity(f"urn:t:{name}", "task-run", noon, name=name) for name in ("slow", "quick"))
    old, new, other = (
        entity(f"urn:f:{name}", "file", sha256=digest(content), path=str(path))
        for name, content, path in (
            ("old", b"as it was before", changed),
            ("new", b"as it is now", changed),
            ("other", b"as it was", read),
        )
    )
    records = [
        *(quick, new, relation("wasGeneratedBy", new.id, quick.id, noon + timedelta(seconds=2))),
        *(slow, other, relation("used", slow.id, other.id, noon + timedelta(seconds=1))),
        *(old, relation("used", slow.id, old.id, noon + timedelta(seconds=1))),
    ]
    ivcap_journal.facts.append([Fact(record, opened.run.id, opened.attempt.id) for record in records])
    ivcap_journal.runs.close_attempt(opened.attempt.id, "completed")
    found = verify_run(ivcap_journal, opened.run, Platforms())
    assert sorted((each.id, each.state) for each in found) == [("urn:f:new", "ok"), ("urn:f:other", "ok")]


@pytest.mark.parametrize("name", ["crate", "crate.zip"])
def test_an_exported_crate_is_verified(on_record, tmp_path, name):
    """A folder or a zip, by its name; each file that its metadata name: whole, with a flipped byte, and gone.
    A second export does not replace it."""
    crate = tmp_path / name
    export = ("export", "harvest", "--format", "ro-crate", "-o", crate)
    assert on_record(*export).status == 0
    assert crate.is_dir() == (name == "crate")
    said = on_record("verify", crate, "--json")
    assert said.status == 0 and "ok" in states(said).values(), said.out
    assert "exists already" in on_record(*export).err
    if crate.is_dir():
        named = next(f["name"] for f in said.json["findings"] if f["state"] == "ok")
        with flipped(crate / named):
            assert on_record("verify", crate).status == 1
        (crate / named).unlink()
        said = on_record("verify", crate, "--json")
        assert said.status == 1 and "missing" in states(said).values()


@pytest.mark.parametrize(
    "part", ["data", *(pytest.param(part, marks=pytest.mark.long) for part in ("metadata", "directory"))]
)
def test_a_damaged_archive_is_no_crash(on_record, tmp_path, part):
    """What cannot be unpacked any more is altered; without its metadata or its directory nothing can be said."""
    crate, content = tmp_path / "crate.zip", b"0123456789 " * 1000
    graph = [{"@id": "data.csv", "@type": "File", "sha256": digest(content)}]
    with zipfile.ZipFile(crate, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ro-crate-metadata.json", json.dumps({"@graph": graph}))
        archive.writestr("data.csv", content)
        name = {"data": "data.csv", "metadata": "ro-crate-metadata.json"}.get(part)
        begin = archive.getinfo(name).header_offset + 30 + len(name) if name else archive.start_dir
    whole = crate.read_bytes()
    seen = set()
    for at in range(begin, begin + 12):
        for byte in (0x00, 0x07, 0xFF):
            crate.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            said = on_record("verify", crate, "--json")
            seen.add(said.status)
            if said.status == 1:
                assert [f["state"] for f in said.json["findings"]] == ["altered"]
    assert (1 if part == "data" else 2) in seen


def test_no_link_leads_out_of_a_crate(on_record, tmp_path):
    """Nor does a path in its metadata: a file outside counts as missing, a link as metadata is refused. Links within
    the crate are read."""
    (tmp_path / "secret").write_text("x")
    crate = tmp_path / "crate"
    (crate / "store").mkdir(parents=True)
    (crate / "store" / "1").write_text("x")
    (crate / "inside").symlink_to("store/1")
    (crate / "outside").symlink_to("../secret")
    (crate / "above").symlink_to("..")
    graph = [{"@id": name, "@type": "File"} for name in ("inside", "../secret", "outside", "above/secret")]
    metadata = crate / "ro-crate-metadata.json"
    metadata.write_text(json.dumps({"@graph": graph}))
    said = on_record("verify", crate, "--json")
    assert [finding["state"] for finding in said.json["findings"]] == ["unchecked"] + ["missing"] * 3
    metadata.rename(tmp_path / metadata.name)
    metadata.symlink_to(f"../{metadata.name}")
    said = on_record("verify", crate)
    assert said.status == 2 and "is a link to a file outside of the crate" in said.err


def test_the_metadata_of_a_crate_are_bounded(on_record, tmp_path):
    """A small zip that claims hundreds of MiB of metadata is refused before they are in memory."""
    crate = tmp_path / "crate.zip"
    with (
        zipfile.ZipFile(crate, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("ro-crate-metadata.json", "w") as file,
    ):
        for _ in range(300):
            file.write(b" " * 2**20)
    assert crate.stat().st_size < 2**20
    tracemalloc.start()
    try:
        said = on_record("verify", crate)
        assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    finally:
        tracemalloc.stop()
    assert said.status == 2 and "more than" in said.err


def test_the_context_of_a_crate_is_not_fetched(on_record, tmp_path, monkeypatch):
    """Nor any other address in its metadata: nothing is sent while it is verified."""
    sent = []
    there = "http://127.0.0.1:9/context.jsonld"
    graph = [{"@id": f"{there}#x", "@type": "File", "sha256": "0" * 64}, {"@id": "data.csv", "@type": "File"}]
    (tmp_path / "data.csv").write_text("x")
    metadata = {"@context": [there, {"@import": there}], "@graph": graph}
    (tmp_path / "ro-crate-metadata.json").write_text(json.dumps(metadata))
    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "connect", lambda self, address: sent.append(address))
        patched.setattr(socket.socket, "connect_ex", lambda self, address: sent.append(address) or 1)
        said = on_record("verify", tmp_path, "--json")
    assert [finding["state"] for finding in said.json["findings"]] == ["unchecked"] and sent == []
