"""Tokens, wherever a user may have put them, are in nothing that is delivered, exported, drawn or said.

Other ways out (the journal, the log, what Prefect shows) are in tests/tasks/test_canaries.py.
"""

import os
import uuid
from pathlib import Path
from zipfile import ZipFile

import pytest
from prefect import flow

from ivcap_flows import annotate, loop, recorded
from ivcap_flows.blocks import IvcapCredentials
from ivcap_flows.capture import use_journal
from ivcap_flows.journal import Journal
from ivcap_flows.sinks import LINK_SCHEMA, RUN_SCHEMA
from ivcap_flows.sinks.folder import ENDINGS
from ivcap_flows.tasks import attach_aspect, upload_artifact

FOLDERS = tuple(ENDINGS)
EXPORTS = (*(form for form in ENDINGS if form != "ro-crate"), "openlineage")


@flow(name="careless")
@recorded
def careless(source: Path, password: str, note: str, headers: dict[str, str]) -> None:
    """Its user hands tokens to everything that takes a text. Parameters and errors Prefect itself keeps as they are, so
    the token of IVCAP, for which others look there, is in neither.
    """
    told = f"{note} {os.environ['IVCAP_JWT']}"
    annotate(note=told)
    series = upload_artifact(source, name=f"series {told}")
    annotate(series, said=told)
    attach_aspect(series, {"$schema": "urn:example:schema:careless.1", "note": told})
    raise RuntimeError(f"The server refused {note} with {headers}.")


@pytest.fixture
def secrets(embedded_platform, monkeypatch):
    """Tokens that are known by their variable, and one that has but the shape of a token."""
    known = f"s3cret-{uuid.uuid4().hex}"
    monkeypatch.setenv("PROVENA_CLIENT_SECRET", known)
    return {"of IVCAP": os.environ["IVCAP_JWT"], "of Provena": known, "by its shape": f"eyJhbGciOi.{'c2lnbg' * 5}.c2ln"}


@pytest.fixture
def run(prefect_api, secrets, journal_file, tmp_path, monkeypatch):
    """The id of a run that failed, with all sinks switched on that need no other program."""
    source = tmp_path / "in" / "series.csv"
    source.parent.mkdir()
    source.write_text(f"year\n{uuid.uuid4()}\n")
    sinks = ["ivcap", "openlineage", *(f"{form}:{tmp_path / form}" for form in FOLDERS)]
    monkeypatch.setenv("IVCAP_FLOWS_SINKS", ",".join(sinks))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(tmp_path / "events"))
    url = f"sqlite:///{journal_file}"
    note = f"{secrets['of Provena']} {secrets['by its shape']}"
    with Journal.open(url) as journal, use_journal(journal):
        with pytest.raises(RuntimeError):
            careless(source, secrets["of Provena"], note, {"Authorization": f"Bearer {note}"})
        [found] = journal.runs.recent()
    return found.id


def of_ivcap(run: str) -> dict[str, str]:
    """The aspects that the sink has asserted."""

    async def read() -> dict[str, str]:
        async with IvcapCredentials.from_environment().get_client() as client:
            return {
                f"the aspect {aspect.urn}": str(aspect.content)
                for schema in (RUN_SCHEMA, LINK_SCHEMA)
                async for aspect in client.aspects.list(schema=schema)
                if run in str(aspect.content)
            }

    found = loop.run(read())
    assert len(found) >= 2
    return found


def of_files(folder: Path) -> dict[str, str]:
    """What lies in a folder, in archives too."""
    found: dict[str, str] = {}
    for path in (each for each in folder.rglob("*") if each.is_file() and "sqlite" not in each.name):
        if path.suffix == ".zip":
            with ZipFile(path) as zipped:
                for name in zipped.namelist():
                    found[f"{path.name}/{name}"] = zipped.read(name).decode("utf-8", "replace")
        else:
            found[path.name] = path.read_bytes().decode("utf-8", "replace")
    return found


def test_no_token_is_told_by_anything(run, secrets, ivcap_flows, tmp_path):
    """From one run: all sinks and exports, the page and other pictures, and every command that reads."""
    out = tmp_path / "out"
    out.mkdir()
    synced = ivcap_flows("sync")
    assert synced.status == 0, synced
    commands: list[tuple[object, ...]] = [
        *(("runs", *json) for json in ((), ("--json",))),
        *(("show", run, *json) for json in ((), ("--json",))),
        *(("trace", run, "--up", "--down", *form) for form in ((), ("--json",), ("--mermaid",))),
        ("trace", run, "--up", "--down", "--html", out / "page.html"),
        ("export", run, "--format", "ro-crate", "-o", out / "crate"),
        *(("export", run, "--format", form, "-o", out / f"export.{form}") for form in EXPORTS),
        *(("diff", run, run), ("verify", run), ("orders",), ("doctor",)),
    ]
    said = {" ".join(map(str, words)): ivcap_flows(*words) for words in commands}
    texts = {f"`{words}`": each.out + each.err for words, each in said.items()}
    texts |= {"`sync`": synced.out + synced.err} | of_ivcap(run) | of_files(tmp_path)

    told = "\n".join(texts.values())
    assert {"page.html", "ro-crate-metadata.json", "export.turtle"} <= {name.rpartition("/")[2] for name in texts}
    assert any(name.startswith("events") for name in texts), "OpenLineage's events"
    assert "The server refused" in told and "careless" in told and "series.csv" in told
    shown = [(name, where) for where, text in texts.items() for name, secret in secrets.items() if secret in text]
    assert shown == []
