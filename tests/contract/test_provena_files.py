"""Files of datasets between the official client of Provena and ours, on a real S3 server."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from peers import interpreter

from ivcap_flows.blocks import ProvenaCredentials
from ivcap_flows.handles import Artifact, LocalFile
from ivcap_flows.provena.collection_format import AccessInfo, Approvals
from ivcap_flows.provena.models import Organisation
from ivcap_flows.provena.terms import Terms, collection_format
from ivcap_flows.settings import Settings

pytestmark = [pytest.mark.contract, pytest.mark.long]

SCRIPT = Path(__file__).with_name("provena_files.py")
OURS = {"ours/in a folder ü.csv": b"ours\n", "ours.bin": os.urandom(9 * 1024 * 1024)}
THEIRS = {"theirs.csv": b"theirs\n", "theirs/deep/er.bin": os.urandom(9 * 1024 * 1024)}


def written(folder: Path, contents: dict[str, bytes]) -> dict[str, LocalFile]:
    files = {}
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files[name] = LocalFile(path=str(path), sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    return files


def read(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def minted(client: Any) -> str:
    owner = (await client.registry.create(Organisation, Organisation(display_name="O", name="O"))).item.id
    licence = "https://creativecommons.org/licenses/by/4.0/"
    terms = Terms(organisation_id=owner, publisher_id=owner, license=licence, approvals=Approvals())
    artifact = Artifact(urn=f"urn:ivcap:artifact:{uuid.uuid4()}", platform="p", name="files")
    found = collection_format(artifact, terms)
    info = found.dataset_info.model_copy(update={"access_info": AccessInfo(reposited=True)})
    return (await client.datastore.mint(found.model_copy(update={"dataset_info": info}))).handle


async def test_files_are_moved_alike(s3_platform: Any, s3_server: Any, tmp_path: Path) -> None:
    """Byte for byte: what ours uploads the official client lists and downloads, and the other way round."""
    written(tmp_path / "theirs", THEIRS)
    async with ProvenaCredentials.from_environment(Settings(**s3_platform.environment)).get_client() as client:
        dataset = await minted(client)
        async with client.files(dataset, write=True) as files:
            await files.upload(written(tmp_path / "ours", OURS))

        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PROVENA", "PYTHON", "AWS"))}
        ended = subprocess.run(
            [interpreter("provenaclient"), SCRIPT, dataset, tmp_path / "theirs", tmp_path / "got"],
            env={**kept, **s3_platform.environment, "S3_URL": s3_server.url},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert ended.returncode == 0, ended.stderr[-4000:]
        listed = json.loads(ended.stdout.splitlines()[-1])["listed"]

        async with client.files(dataset) as files:
            ours = {each.path for each in await files.list()}
            await files.download(tmp_path / "back")

    both = OURS | THEIRS
    assert ours == {*both, "metadata.json"}
    assert {each.split("/", 5)[5] for each in listed} == ours
    got = read(tmp_path / "got")
    assert read(tmp_path / "back") == got
    assert {name: got[name] for name in both} == both
    assert read(tmp_path / "got-one") == {"theirs.csv": THEIRS["theirs.csv"]}
    assert read(tmp_path / "got-folder") == {"in a folder ü.csv": OURS["ours/in a folder ü.csv"]}
